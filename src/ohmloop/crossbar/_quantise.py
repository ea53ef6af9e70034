"""Uniform converters: rounding and saturation with straight-through gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    """Rounds; the gradient passes where the converter does not saturate (Bengio et al., arXiv 1308.3432)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, full: Tensor, half: float, top: float | None) -> Tensor:
        return _round(x, full, half)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, float, float | None], output: Tensor
    ) -> None:
        x, full, _, ctx.top = inputs
        ctx.save_for_backward(x, full)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, full = ctx.saved_tensors
        if ctx.top is not None:  # one pass over memory
            inside = torch.ops.aten.hardtanh_backward(grads[0], x, -ctx.top, ctx.top)
            return inside, None, None, None
        inside = torch.where(x.abs() <= full, grads[0], grads[0].new_zeros(()))
        return inside, None, None, None


def _scalar(full: Tensor) -> float | None:
    """Return one full scale as a number, a little larger so that its very edge counts as inside.

    None where there are several, where reading it would wait for a GPU, or where `torch.func` hides it.
    """
    if full.numel() != 1 or full.device.type != "cpu":
        return None
    try:
        return float(full) * (1 + 1e-6)
    except RuntimeError:
        return None


def _round(x: Tensor, full: Tensor, half: float) -> Tensor:
    step = full / half
    return (x / step).clamp(-half, half).round_().mul_(step)


def quantise(x: Tensor, full: Tensor, levels: int) -> Tensor:
    """Return ``x`` as a symmetric uniform converter of ``levels`` values over [-full, full] sees it.

    Args:
        x: Any shape.
        full: Full scale, > 0, broadcasts against ``x``; no gradient flows to it.
        levels: An odd number of values.

    Returns:
        The nearest of the values; beyond full scale, the last one. The gradient is one inside, else zero.

    >>> quantise(torch.tensor([0.3, 0.6, 9.0]), torch.tensor(1.0), 5)
    tensor([0.5000, 0.5000, 1.0000])
    """
    half = (levels - 1) / 2
    if torch.is_grad_enabled() and x.requires_grad:
        out: Tensor = _StraightThrough.apply(x, full, half, _scalar(full))  # type: ignore[no-untyped-call]  # torch has no types here
        return out
    return _round(x, full, half)
