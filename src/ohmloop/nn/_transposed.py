"""Transposed convolutions on chips: a product at each input position, put in place digitally."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import ConversionError
from ohmloop.nn._held import Matrix
from ohmloop.nn._layer import LayerState

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_SCATTER = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class TransposedForm:
    """ConvTranspose1d, 2d and 3d: a product at each input position; overlapping outputs add digitally."""

    reason = "one matrix product at each input position; overlaps add digitally"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the kernel, ``G x (out/G kernel) x in/G``."""
        return (Matrix("weight", "weight", _scattered),)

    def forward(
        self,
        module: nn.Module,
        state: LayerState,
        x: Tensor,
        output_size: list[int] | None = None,
    ) -> Tensor:
        """Return ``B x out x ...`` of ``B x in x ...``."""
        conv = cast(Any, module)
        if conv.padding_mode != "zeros":
            raise ConversionError(f'{state.name}: transposed convolutions pad with "zeros" only.')
        dims = len(conv.kernel_size)
        bare = x.ndim == dims + 1
        batch = x.unsqueeze(0) if bare else x
        extra = conv._output_padding(
            batch, output_size, conv.stride, conv.padding, conv.kernel_size, dims, conv.dilation
        )
        held = state.get(module, "weight")
        if held is not None and held.is_frozen and held.plain is not None and held.n == 1:
            groups = [w[0].T.reshape(-1, *conv.weight.shape[1:]) for w in held.plain]
            weight = torch.cat(groups) if len(groups) > 1 else groups[0]
            out = self._whole(conv, batch, weight, extra)
        elif held is None and state.observe is None:
            out = self._whole(conv, batch, conv.weight, extra)
        else:
            out = self._by_position(conv, state, batch, extra)
        return out.squeeze(0) if bare else out

    def _whole(self, conv: Any, x: Tensor, weight: Tensor, extra: list[int]) -> Tensor:
        run = _SCATTER[len(conv.kernel_size) - 1]
        return run(
            x, weight, conv.bias, conv.stride, conv.padding, extra, conv.groups, conv.dilation
        )

    def _by_position(self, conv: Any, state: LayerState, x: Tensor, extra: list[int]) -> Tensor:
        stack = _scattered(conv)
        rows = x.movedim(1, -1)
        parts = []
        for g, part in enumerate(rows.chunk(conv.groups, -1)):
            nominal = functools.partial(stack.select, 0, g)
            parts.append(state.product(conv, "weight", part, weight=nominal, group=g))
        values = torch.cat(parts, -1).movedim(-1, 1)  # B x (out kernel) x ...
        kernel = cast(Tensor, conv.weight).shape[2:]
        taps = kernel.numel()
        place = torch.eye(taps, dtype=values.dtype, device=x.device).reshape(taps, 1, *kernel)
        place = place.repeat(conv.out_channels, *[1] * (place.ndim - 1))
        run = _SCATTER[len(kernel) - 1]
        return run(
            values,
            place,
            conv.bias,
            conv.stride,
            conv.padding,
            extra,
            conv.out_channels,
            conv.dilation,
        )


def _scattered(module: nn.Module) -> Tensor:
    conv = cast(Any, module)
    weight = cast(Tensor, conv.weight)
    groups = weight.reshape(conv.groups, weight.shape[0] // conv.groups, -1)
    return groups.transpose(1, 2)
