"""A fleet as one forward pass: the devices ride along in the batch dimension.

The rows of the batch are ordered device-major (row ``n * B + b`` is input b on device n), or, where a
convolution comes first, input-major (row ``b * N + n``): each is the order that its first layer writes
without a copy. Digital layers see a larger batch and stay as they are. Analog layers know their N
weights: a Linear is one batched matrix product; a convolution of inputs that all devices share is one
product with the unfolded input; any other convolution runs device by device inside the layer. Max
pooling over whole windows is done by slices, which is exact and several times faster on a CPU than
the library's kernel.

`FleetRunner` uses this where it applies, checks it once per model against one device at a time,
and else falls back to `torch.func.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from ohmloop.nn._convert import ANALOG_TYPES

UNFOLD = 256
"""Largest window (channels x height x width) that is unfolded: it multiplies the input's memory."""
_CHECK_INPUTS = 3
_CHECK_DEVICES = 2


class FleetRunner:
    """Runs batches through many devices of one model, by the fastest way that is right for it.

    Args:
        model: In eval mode.
        names: The analog parameters.
    """

    def __init__(self, model: nn.Module, names: frozenset[str]) -> None:
        self._model = model
        self._layers = _analog_layers(model, names)
        self._batched: bool | None = None if self._layers is not None else False

    def __call__(self, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return ``N x B x ...`` for weights ``N x *shape`` and inputs ``B x ...``."""
        n = len(next(iter(stacked.values())))
        if n == 1:
            alone: Tensor = functional_call(self._model, _pick(stacked, 0), (x,))
            return alone.unsqueeze(0)
        if self._batched is None:
            self._batched = self._agrees(stacked, x)
        if not self._batched:
            return by_vmap(self._model, stacked, x)
        return self._run(stacked, x)

    def _run(self, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
        assert self._layers is not None
        n = len(next(iter(stacked.values())))
        first = next(iter(self._layers.values()))
        rows = _Rows(n, len(x), device_major=isinstance(first, nn.Linear))
        with _patched(self._model, self._layers, stacked, rows):
            out: Tensor = self._model(x)
        return rows.split(out)

    def _agrees(self, stacked: dict[str, Tensor], x: Tensor) -> bool:
        """Whether the batched pass gives what each device gives alone, on a few inputs."""
        few = {name: w[:_CHECK_DEVICES] for name, w in stacked.items()}
        # A batch of a size that no tensor of the model is likely to have by chance.
        sample = x[:_CHECK_INPUTS]
        expected = torch.stack(
            [functional_call(self._model, _pick(few, k), (sample,)) for k in range(_CHECK_DEVICES)]
        )
        try:
            got = self._run(few, sample)
        except (RuntimeError, IndexError, TypeError, ValueError):
            # The model looks at its batch in a way that a longer one breaks; vmap is general.
            return False
        if got.shape != expected.shape:
            return False
        scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        return bool((got - expected).abs().max() <= 100 * torch.finfo(expected.dtype).eps * scale)


class _Rows(NamedTuple):
    """How N devices and B inputs lie in one batch dimension."""

    n: int
    batch: int
    device_major: bool

    def split(self, x: Tensor) -> Tensor:
        """Return ``N x B x ...`` of a batch of N * B rows."""
        if self.device_major:
            return x.reshape(self.n, self.batch, *x.shape[1:])
        return x.reshape(self.batch, self.n, *x.shape[1:]).transpose(0, 1)

    def merge(self, x: Tensor) -> Tensor:
        """Return a batch of N * B rows of ``N x B x ...``."""
        rows = x if self.device_major else x.transpose(0, 1)
        return rows.reshape(self.n * self.batch, *x.shape[2:])


def by_vmap(model: nn.Module, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run the fleet through `torch.func.vmap`: slower on a CPU, right for any model."""
    run = vmap(lambda weights: functional_call(model, weights, (x,)), randomness="different")
    out: Tensor = run(stacked)
    return out


def _pick(stacked: dict[str, Tensor], device: int) -> dict[str, Tensor]:
    return {name: weights[device] for name, weights in stacked.items()}


def _analog_layers(model: nn.Module, names: frozenset[str]) -> dict[str, nn.Module] | None:
    """Return the analog layers by name, None if an analog parameter is in none of the known types."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ANALOG_TYPES)}
    covered = {
        f"{name}.{key}" if name else key
        for name, m in layers.items()
        for key, _ in m.named_parameters(recurse=False)
    }
    # Tied or subclassed weights may be read by other code than the layer's own forward.
    if not names <= covered or any(type(m) not in ANALOG_TYPES for m in layers.values()):
        return None
    return {
        name: m
        for name, m in layers.items()
        if any((f"{name}.{key}" if name else key) in names for key in ("weight", "bias"))
    }


@contextmanager
def _patched(
    model: nn.Module, layers: dict[str, nn.Module], stacked: dict[str, Tensor], rows: _Rows
) -> Iterator[None]:
    changed: list[nn.Module] = []

    def patch(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        if "forward" not in module.__dict__:
            module.__dict__["forward"] = forward
            changed.append(module)

    try:
        for name, module in layers.items():
            prefix = f"{name}." if name else ""
            weight = stacked.get(f"{prefix}weight", _shared(module.weight, rows.n))
            bias = stacked.get(f"{prefix}bias", _shared(module.bias, rows.n))
            assert weight is not None
            make = _linear if isinstance(module, nn.Linear) else _conv
            patch(module, make(module, weight, bias, rows))
        for module in model.modules():
            if type(module) is nn.MaxPool2d:
                patch(module, _max_pool(module))
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _shared(value: object, n: int) -> Tensor | None:
    """A digital parameter of an analog layer is the same on every device."""
    return value.expand(n, *value.shape) if isinstance(value, Tensor) else None


def _linear(
    module: nn.Module, weight: Tensor, bias: Tensor | None, rows: _Rows
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
    module: nn.Module, weight: Tensor, bias: Tensor | None, rows: _Rows
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
            and not rows.device_major
            and isinstance(module, nn.Conv2d)
            and x.shape[1] * weight[0, 0, 0].numel() <= UNFOLD
        ):
            return _unfolded(module, weight, bias, x)
        parts = x.expand(rows.n, *x.shape) if shared else rows.split(x)
        outs = [
            module._conv_forward(parts[k], weight[k], None if bias is None else bias[k])
            for k in range(rows.n)
        ]
        return rows.merge(torch.stack(outs))

    return forward


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


def _max_pool(module: nn.MaxPool2d) -> Callable[[Tensor], Tensor]:
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
