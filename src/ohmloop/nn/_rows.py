"""Layers with the weights of many devices at once, which ride along in the batch dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNFOLD = 256
"""Largest window (channels x height x width) that is unfolded: it multiplies the input's memory."""


class Rows(NamedTuple):
    """How N devices and B inputs lie in one batch dimension."""

    n: int
    batch: int
    device_major: bool

    def split(self, x: Tensor) -> Tensor:
        """Return ``N x B x ...`` of a batch of N * B rows."""
        if self.device_major:
            return x.reshape(self.n, self.batch, *x.shape[1:])
        return x.reshape(self.batch, self.n, *x.shape[1:]).transpose(0, 1)

    def apply(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Return rows changed as ``N x B x ...``; rows that all devices share stay shared."""
        if x.shape[0] == self.batch and self.n > 1:
            return change(x.unsqueeze(0)).squeeze(0)
        return self.merge(change(self.split(x)))

    def merge(self, x: Tensor) -> Tensor:
        """Return a batch of N * B rows of ``N x B x ...``."""
        rows = x if self.device_major else x.transpose(0, 1)
        return rows.reshape(self.n * self.batch, *x.shape[2:])


def stacked_rows(
    name: str, module: nn.Module, stacked: dict[str, Tensor], rows: Rows
) -> Callable[[Tensor], Tensor]:
    """Return a forward of a Linear or convolution with the weights of many devices."""
    prefix = f"{name}." if name else ""
    weight = stacked.get(f"{prefix}weight", _shared(module.weight, rows.n))
    bias = stacked.get(f"{prefix}bias", _shared(module.bias, rows.n))
    assert weight is not None
    make = _linear if isinstance(module, nn.Linear) else _conv
    return make(module, weight, bias, rows)


def _shared(value: object, n: int) -> Tensor | None:
    """A digital parameter of an analog layer is the same on every device."""
    return value.expand(n, *value.shape) if isinstance(value, Tensor) else None


def _linear(
    module: nn.Module, weight: Tensor, bias: Tensor | None, rows: Rows
) -> Callable[[Tensor], Tensor]:
    n, batch = rows.n, rows.batch

    def forward(x: Tensor) -> Tensor:
        inner = x.shape[1:-1]
        if x.shape[0] == batch:
            inputs = x.reshape(1, -1, x.shape[-1]).expand(n, -1, -1)
        else:
            inputs = rows.split(x).reshape(n, -1, x.shape[-1])
        if bias is None:
            out = torch.bmm(inputs, weight.transpose(1, 2))
        else:
            out = torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))
        return rows.merge(out.reshape(n, batch, *inner, out.shape[-1]))

    return forward


def _conv(
    module: nn.Module, weight: Tensor, bias: Tensor | None, rows: Rows
) -> Callable[[Tensor], Tensor]:
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    unfoldable = (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )

    def forward(x: Tensor) -> Tensor:
        shared = x.shape[0] == rows.batch
        if (
            shared
            and unfoldable
            and x.device.type == "cpu"
            and not rows.device_major
            and isinstance(module, nn.Conv2d)
            and x.shape[1] * weight[0, 0, 0].numel() <= UNFOLD
        ):
            return _unfolded(module, weight, bias, x)
        if x.device.type != "cpu":
            return grouped(module, weight, bias, x, rows)
        parts = x.expand(rows.n, *x.shape) if shared else rows.split(x)
        outs = [
            module._conv_forward(parts[k], weight[k], None if bias is None else bias[k])
            for k in range(rows.n)
        ]
        return rows.merge(torch.stack(outs))

    return forward


def grouped(
    module: nn.Conv1d | nn.Conv2d, weight: Tensor, bias: Tensor | None, x: Tensor, rows: Rows
) -> Tensor:
    """Return the rows of a convolution with each device's own weights, by one kernel.

    Args:
        module: For its geometry.
        weight: ``N x out x in/groups x ...``.
        bias: ``N x out``, or None.
        x: Rows of devices, or the ``B x in x ...`` that all of them share.
        rows: How they lie.
    """
    groups = module.groups
    if x.shape[0] != rows.batch:
        # Rows that are input-major have the devices next to their channels: no copy.
        x = rows.split(x).transpose(0, 1).flatten(1, 2)
        groups *= rows.n
    elif groups > 1:  # each device's groups need their own channels
        x = x.repeat(1, rows.n, *[1] * (x.ndim - 2))
        groups *= rows.n
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        sides = module._reversed_padding_repeated_twice
        x, padding = F.pad(x, sides, mode=module.padding_mode), 0
    convolve: Any = F.conv2d if isinstance(module, nn.Conv2d) else F.conv1d
    out: Tensor = convolve(
        x,
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        module.stride,
        padding,
        module.dilation,
        groups,
    )
    return rows.merge(out.reshape(len(out), rows.n, -1, *out.shape[2:]).transpose(0, 1))


def _unfolded(module: nn.Conv2d, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    n, out_channels = weight.shape[:2]
    columns = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]  # numeric padding
    flat = weight.reshape(1, n * out_channels, -1).expand(len(x), -1, -1)
    if bias is None:
        out = torch.bmm(flat, columns)
    else:
        out = torch.baddbmm(bias.reshape(1, -1, 1), flat, columns)
    height, width = (
        (
            x.shape[2 + d]
            + 2 * int(module.padding[d])
            - module.dilation[d] * (module.kernel_size[d] - 1)
            - 1
        )
        // module.stride[d]
        + 1
        for d in range(2)
    )
    return out.reshape(len(x) * n, out_channels, height, width)


def max_pool(module: nn.MaxPool2d) -> Callable[[Tensor], Tensor]:
    original = module.forward

    def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    size, stride = pair(module.kernel_size), pair(module.stride)
    plain = (
        size == stride
        and pair(module.padding) == (0, 0)
        and pair(module.dilation) == (1, 1)
        and not module.ceil_mode
        and not module.return_indices
        and max(size) <= 4
    )

    def forward(x: Tensor) -> Tensor:
        if not plain or x.device.type != "cpu" or min(x.shape[-2:]) < max(size):
            pooled: Tensor = original(x)
            return pooled
        for dim in (0, 1):
            k = size[dim]
            axis = x.ndim - 2 + dim
            whole = x.narrow(axis, 0, x.shape[axis] // k * k)
            whole = whole.reshape(*x.shape[:axis], -1, k, *x.shape[axis + 1 :])
            x = whole.select(axis + 1, 0)
            for offset in range(1, k):
                x = torch.maximum(x, whole.select(axis + 1, offset))
        return x

    return forward
