"""Rules for sums and products: residual branches, constants, and products of two values with bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ohmloop.certify._interval import Interval, added, stretched
from ohmloop.certify._interval_layers import apply, constant

if TYPE_CHECKING:
    from ohmloop.certify._interval_run import Rule, Run


def add(run: Run, x: object, other: object, *, alpha: float = 1) -> Interval:
    """Follow torch.add of an interval and an interval, a tensor or a number."""
    if alpha != 1:
        raise run.refuse("add() with alpha")
    parts = _like(run, x, other)
    return run.own(added(parts, rounding=run.rounding, number=run.next_number()))


def _like(run: Run, x: object, other: object) -> list[Interval]:
    """Return both terms of a sum as intervals of the sum's shape."""
    first = x if isinstance(x, Interval) else other
    assert isinstance(first, Interval)
    shapes = [tuple(v.shape) if isinstance(v, Interval | Tensor) else () for v in (x, other)]
    shape = np.broadcast_shapes(*shapes)
    if not shape or shape[0] != len(first):
        raise run.refuse(f"a sum of shapes {shapes[0]} and {shapes[1]}")
    out = []
    for v in (x, other):
        if not isinstance(v, Interval):
            value = constant(run, v, first).expand(shape)
            factor = run.factor(v)
            low, high = (value, value) if factor is None else stretched(value, value, factor)
            v = run.leaf(low, high, is_tight=factor is None)
        elif tuple(v.shape) != tuple(shape):
            raise run.refuse(f"a sum of shapes {shapes[0]} and {shapes[1]}")
        out.append(v)
    return out


def sub(run: Run, x: object, other: object, *, alpha: float = 1) -> Interval:
    """Follow torch.sub."""
    if alpha != 1:
        raise run.refuse("sub() with alpha")
    if isinstance(other, Interval):
        return add(run, x, neg(run, other))
    if run.factor(other) is not None:
        raise run.refuse("sub() of an analog parameter")
    assert isinstance(x, Interval)
    return add(run, x, -constant(run, other, x))


def rsub(run: Run, x: Interval, other: object) -> Interval:
    """Follow other - x."""
    return add(run, neg(run, x), other)


def neg(run: Run, x: Interval) -> Interval:
    """Follow -x."""
    low, high = -x.high, -x.low
    node = Interval(low, high, run.next_number(), (x,), lambda a: ([(-a, None)], 0.0))
    node.is_tight = x.is_tight
    return run.own(node)


def mul(run: Run, x: object, other: object) -> Interval:
    """Follow torch.mul: by a constant, by an analog tensor, or of two intervals."""
    if isinstance(x, Interval) and isinstance(other, Interval):
        ends = (x.low * other.low, x.low * other.high, x.high * other.low, x.high * other.high)
        low = torch.minimum(torch.minimum(ends[0], ends[1]), torch.minimum(ends[2], ends[3]))
        high = torch.maximum(torch.maximum(ends[0], ends[1]), torch.maximum(ends[2], ends[3]))
        return run.leaf(*run.rounding.outward(low, high), is_tight=False)
    first, second = (x, other) if isinstance(x, Interval) else (other, x)
    assert isinstance(first, Interval)
    value = constant(run, second, first)
    if np.broadcast_shapes(first.shape, value.shape) != tuple(first.shape):
        raise run.refuse(f"a product of shapes {tuple(first.shape)} and {tuple(value.shape)}")
    return apply(
        run,
        first,
        lambda t: t * value,
        lambda t: t * value.abs(),
        1,
        run.factor(second),
        mixes=False,
    )


def div(run: Run, x: object, other: object) -> Interval:
    """Follow division by a number or a digital tensor."""
    if not isinstance(x, Interval) or isinstance(other, Interval):
        return rdiv(run, x, other)
    return mul(run, x, 1 / constant(run, other, x))


def rdiv(run: Run, x: object, other: object) -> Interval:
    """Refuse other / x."""
    raise run.refuse("division by a value that depends on weights")


def matmul(run: Run, x: object, other: object) -> Interval:
    """Follow a matrix product of intervals, or of an interval and a digital matrix."""
    if isinstance(x, Interval) and isinstance(other, Interval):
        return _product(run, x, other)
    if not isinstance(x, Interval):
        raise run.refuse("a matrix product with its weights on the left")
    w = constant(run, other, x)
    return apply(run, x, lambda t: t @ w, lambda t: t @ w.abs(), w.shape[-2], back=w.shape[-1])


def _product(run: Run, x: Interval, y: Interval) -> Interval:
    """Centre/radius: |x y - cx cy| <= |cx| ry + rx (|cy| + ry), entry by entry, summed."""
    terms = x.shape[-1] + 4
    gamma = run.rounding.gamma(terms)
    cx, cy = (x.low + x.high) / 2, (y.low + y.high) / 2
    rx, ry = (x.high - x.low) / 2, (y.high - y.low) / 2
    radius = cx.abs() @ ry + rx @ (cy.abs() + ry) + gamma * (x.most @ y.most)
    radius = radius * (1 + gamma) + terms * run.rounding.tiny
    return run.leaf(cx @ cy - radius, cx @ cy + radius, is_tight=False)


def cat(run: Run, tensors: Sequence[object], dim: int = 0) -> Interval:
    """Follow torch.cat along an axis that is not the batch."""
    first = next(t for t in tensors if isinstance(t, Interval))
    axis = dim % first.ndim
    if axis == 0:
        raise run.refuse("cat() along the batch")
    parts = []
    for t in tensors:
        if not isinstance(t, Interval):
            value = constant(run, t, first)
            t = run.leaf(value, value, is_tight=True)
        parts.append(t)
    sizes = [p.shape[axis] for p in parts]
    node = Interval(
        torch.cat([p.low for p in parts], axis),
        torch.cat([p.high for p in parts], axis),
        run.next_number(),
        tuple(parts),
        lambda a: ([(b, None) for b in torch.split(a, sizes, axis + 1)], 0.0),
        is_tight=all(p.is_tight for p in parts),
    )
    return run.own(node)


ARITHMETIC_RULES: dict[str, Rule] = {
    "add": add,
    "sub": sub,
    "rsub": rsub,
    "neg": neg,
    "mul": mul,
    "multiply": mul,
    "div": div,
    "true_divide": div,
    "rdiv": rdiv,
    "matmul": matmul,
    "cat": cat,
}
ANALOG_ARITHMETIC = frozenset({"add", "mul"})
