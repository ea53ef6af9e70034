"""Rules for what is not linear: activations, max pooling, softmax, and norms by the input's own statistics.

A monotone function maps ends to ends. A function with one minimum needs its place: GELU (Hendrycks and Gimpel
2016) and SiLU fall and then rise; the minimum is found to double precision below. ReLU, leaky ReLU and max
pooling also carry linear forms (CROWN, arXiv 1811.00866, table 2; the lower slope is the one of smaller
area).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ohmloop.certify._interval import Interval, Map, dot_down
from ohmloop.certify._interval_layers import apply, moved, scaled

if TYPE_CHECKING:
    from ohmloop.certify._interval_run import Rule, Run

_ULPS = 16
"""Library functions in single precision are right to a few units in the last place; twice that and more."""


def _outward(run: Run, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Move bounds of a library function apart, relative to it and to 1."""
    slack = _ULPS * run.rounding.unit
    low, high = run.rounding.outward(low, high, _ULPS)
    return low - slack, high + slack


def monotone(run: Run, x: Interval, function: Map) -> Interval:
    """Return the range of an increasing function."""
    run.refine(x)
    return run.leaf(*_outward(run, function(x.low), function(x.high)), is_tight=False)


def valley(run: Run, x: Interval, function: Map, lowest: float) -> Interval:
    """Return the range of a function that falls until ``lowest`` and rises from there."""
    run.refine(x)
    ends = function(x.low), function(x.high)
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    bottom = function(torch.tensor(lowest, dtype=x.dtype, device=x.device)) - 1e-12
    low = torch.where((x.low < lowest) & (x.high > lowest), bottom, low)
    return run.leaf(*_outward(run, low, high), is_tight=False)


def hinge(run: Run, x: Interval, slope: float = 0.0, inplace: bool = False) -> Interval:
    """Follow max(x, slope x): ReLU, and leaky ReLU with a slope in [0, 1]."""
    if not 0 <= slope <= 1:
        raise run.refuse(f"a leaky ReLU of slope {slope:g}")
    run.refine(x)
    low, high = torch.maximum(x.low, slope * x.low), torch.maximum(x.high, slope * x.high)
    if slope:
        low, high = run.rounding.outward(low, high)
    y = Interval(low, high, run.next_number(), (x,), _hinge_pull(run, x, slope))
    x.is_overwritten = inplace
    return run.own(y)


def _hinge_pull(run: Run, x: Interval, slope: float) -> Any:
    low, high = x.low, x.high
    positive, negative = low >= 0, high <= 0
    width = (high - low).clamp_min(1e-300)
    up = ((torch.maximum(high, slope * high) - torch.maximum(low, slope * low)) / width).clamp(
        slope, 1.0
    )
    up = torch.where(positive, 1.0, torch.where(negative, slope, up))
    down = torch.where(high > -low, 1.0, slope)
    down = torch.where(positive, 1.0, torch.where(negative, slope, down))
    # For any slope the line stays above a convex function if it does at both ends.
    rest = torch.maximum(
        torch.maximum(low, slope * low) - up * low, torch.maximum(high, slope * high) - up * high
    )
    rest = torch.where(positive | negative, 0.0, rest * (1 + 8 * 2.0**-53))
    slack = run.rounding.unit * x.most + run.rounding.tiny

    def pull(a: Tensor) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | float]:
        constant = dot_down(a.clamp_max(0), rest, -1)
        if slope:
            constant = constant - 1.001 * dot_down(a.abs(), slack, 1)
        return [(torch.where(a < 0, up, down).mul_(a), None)], constant

    return pull


def max_pool2d(
    run: Run,
    x: Interval,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Interval:
    """Follow 2-D max pooling: the largest of the lower and of the upper bounds."""
    pair = torch.nn.modules.utils._pair
    kernel, step, edge = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    if pair(dilation) != (1, 1) or ceil_mode or return_indices or x.ndim != 4:
        raise run.refuse("max pooling with dilation, ceil_mode or indices")

    def windows(t: Tensor, filling: float) -> Tensor:
        # Slices rather than Tensor.unfold: their transpose has a rule for many forms at once.
        t = F.pad(t, (edge[1], edge[1], edge[0], edge[0]), value=filling)
        rows, columns = ((t.shape[2 + d] - kernel[d]) // step[d] for d in (0, 1))
        return torch.stack(
            [
                t[
                    :,
                    :,
                    i : i + rows * step[0] + 1 : step[0],
                    j : j + columns * step[1] + 1 : step[1],
                ]
                for i in range(kernel[0])
                for j in range(kernel[1])
            ],
            -1,
        )

    run.refine(x)
    lows, highs = windows(x.low, -math.inf), windows(x.high, -math.inf)
    low, winner = lows.max(-1, keepdim=True)
    rivals = highs.scatter(-1, winner, -math.inf).amax(-1)
    low, high = low.squeeze(-1), highs.amax(-1)
    decided = rivals <= low

    height, width = low.shape[-2:]
    rows = torch.arange(height, device=x.device).reshape(-1, 1) * step[0] - edge[0]
    columns = torch.arange(width, device=x.device) * step[1] - edge[1]
    winner = winner.squeeze(-1)
    place = (rows + winner // kernel[1]) * x.shape[-1] + columns + winner % kernel[1]
    decided_up = decided.to(x.dtype)

    def pull(a: Tensor) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | float]:
        # Upwards, an undecided window is only known to stay below its largest upper bound.
        falling = a.clamp_max(0)
        kept = torch.addcmul(a.clamp_min(0), falling, decided_up)
        back = torch.zeros(len(a), *x.shape, dtype=a.dtype, device=a.device).flatten(-2)
        back.scatter_add_(-1, place.flatten(-2).expand(len(a), -1, -1, -1), kept.flatten(-2))
        return [(back.reshape(len(a), *x.shape), None)], dot_down(
            falling, (1 - decided_up) * high, -1
        )

    return run.own(Interval(low, high, run.next_number(), (x,), pull))


def max_pool1d(
    run: Run, x: Interval, kernel_size: Any, stride: Any = None, padding: Any = 0, **kwargs: Any
) -> Interval:
    """Follow 1-D max pooling as pooling of images of height 1."""
    first = torch.nn.modules.utils._single
    wide = moved(run, x, lambda t: t.unsqueeze(2))
    pooled = max_pool2d(
        run,
        wide,
        (1, first(kernel_size)[0]),
        (1, first(stride or kernel_size)[0]),
        (0, first(padding)[0]),
        **kwargs,
    )
    return moved(run, pooled, lambda t: t.squeeze(2))


def softmax(run: Run, x: Interval, dim: int | None = None, **kwargs: Any) -> Interval:
    """Follow softmax: 1 / (1 + sum of exp of differences), each difference at its worst."""
    if dim is None or dim % x.ndim == 0 or kwargs.get("dtype") is not None:
        raise run.refuse("softmax without an axis of its own")
    low, high = x.low.transpose(dim, -1), x.high.transpose(dim, -1)
    others = torch.full((low.shape[-1],) * 2, 0.0, dtype=x.dtype, device=x.device)
    others.fill_diagonal_(-math.inf)
    least = -F.softplus(torch.logsumexp(high.unsqueeze(-2) - low.unsqueeze(-1) + others, -1))
    most = -F.softplus(torch.logsumexp(low.unsqueeze(-2) - high.unsqueeze(-1) + others, -1))
    bounds = _outward(run, least.exp(), most.exp())
    return run.leaf(*(b.clamp(0, 1.0 + 1e-6).transpose(dim, -1) for b in bounds), is_tight=False)


def _standardised(run: Run, x: Interval, eps: float) -> Interval:
    """Return (x - mean) / sqrt(var + eps) over the last axis; no entry exceeds sqrt(n - 1)."""
    n = x.shape[-1]
    centred = apply(
        run,
        x,
        lambda t: t - t.mean(-1, keepdim=True),
        lambda t: t * abs(1 - 2 / n) + t.mean(-1, keepdim=True),
        n + 2,
        back=n,
    )
    low, high = centred.low, centred.high
    least = torch.where((low < 0) & (high > 0), 0.0, torch.minimum(low.abs(), high.abs()))
    gamma = 4 * run.rounding.gamma(n)
    smallest = ((least**2).mean(-1, keepdim=True) * (1 - gamma) + eps).sqrt()
    largest = ((centred.most**2).mean(-1, keepdim=True) * (1 + gamma) + eps).sqrt()
    below = torch.where(low < 0, low / smallest, low / largest)
    above = torch.where(high > 0, high / smallest, high / largest)
    limit = math.sqrt(max(n - 1, 0)) * (1 + gamma) + gamma
    return run.leaf(
        *_outward(run, below.clamp(-limit, limit), above.clamp(-limit, limit)), is_tight=False
    )


def layer_norm(
    run: Run,
    x: Interval,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Interval:
    """Follow F.layer_norm over the last axis."""
    if len(normalized_shape) != 1 or x.ndim < 2:
        raise run.refuse("layer norm over several axes")
    return scaled(run, _standardised(run, x, eps), weight, bias, x.ndim - 1)


def group_norm(
    run: Run,
    x: Interval,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Interval:
    """Follow F.group_norm."""
    shape = x.shape
    grouped = moved(run, x, lambda t: t.reshape(t.shape[0], num_groups, -1))
    flat = _standardised(run, grouped, eps)
    return scaled(run, moved(run, flat, lambda t: t.reshape(shape)), weight, bias, 1)


def _increasing(function: Callable[..., Tensor], *names: str) -> Rule:
    """Return the rule of an increasing function with the named further arguments."""

    def rule(run: Run, x: Interval, *args: Any, **kwargs: Any) -> Interval:
        if kwargs.pop("inplace", False) or len(args) > len(names):
            raise run.refuse("an activation that overwrites its input")
        kwargs.update(zip(names, args, strict=False))
        return monotone(run, x, partial(function, **kwargs))

    return rule


def _relu(run: Run, x: Interval, inplace: bool = False) -> Interval:
    return hinge(run, x, 0.0, inplace)


def _leaky(run: Run, x: Interval, negative_slope: float = 0.01, inplace: bool = False) -> Interval:
    return hinge(run, x, negative_slope, inplace)


def _elu(
    run: Run, x: Interval, alpha: float = 1.0, inplace: bool = False, **kwargs: Any
) -> Interval:
    if alpha < 0 or inplace or kwargs:
        raise run.refuse("an ELU of negative alpha, or one that overwrites its input,")
    return monotone(run, x, lambda t: F.elu(t, alpha))


def _gelu(run: Run, x: Interval, approximate: str = "none") -> Interval:
    at = GELU_LOWEST if approximate == "none" else GELU_TANH_LOWEST
    return valley(run, x, lambda t: F.gelu(t, approximate=approximate), at)


def _valley(function: Map, lowest: float) -> Rule:
    def rule(run: Run, x: Interval, inplace: bool = False) -> Interval:
        if inplace:
            raise run.refuse("an activation that overwrites its input")
        return valley(run, x, function, lowest)

    return rule


def _tanh(t: Tensor) -> Tensor:
    return t.tanh()


GELU_LOWEST = -0.7517915246935645
"""Where Phi(x) + x phi(x) = 0 (x Phi(x) falls before and rises after)."""
GELU_TANH_LOWEST = -0.7524614220710162
"""The same for GELU by tanh."""
SILU_LOWEST = -1.2784645427610738
"""Where 1 + x (1 - sigmoid(x)) = 0."""

CURVE_RULES: dict[str, Rule] = {
    "relu": _relu,
    "leaky_relu": _leaky,
    "elu": _elu,
    "gelu": _gelu,
    "silu": _valley(F.silu, SILU_LOWEST),
    "hardswish": _valley(F.hardswish, -1.5),
    "hardtanh": _increasing(F.hardtanh, "min_val", "max_val"),
    "relu6": _increasing(F.relu6),
    "clamp": _increasing(torch.clamp, "min", "max"),
    "softplus": _increasing(F.softplus, "beta", "threshold"),
    "softsign": _increasing(F.softsign),
    "tanh": _increasing(_tanh),
    "sigmoid": _increasing(torch.sigmoid),
    "hardsigmoid": _increasing(F.hardsigmoid),
    "log_sigmoid": _increasing(F.logsigmoid),
    "exp": _increasing(torch.exp),
    "max_pool2d": max_pool2d,
    "max_pool1d": max_pool1d,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
}
ANALOG_CURVES = frozenset({"layer_norm", "group_norm"})
