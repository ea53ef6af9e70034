"""Rules for linear maps: products, convolutions, norms in eval mode, means, and moves of entries.

Each rule takes the arguments of the torch function of its name, with intervals where tensors were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ohmloop.certify._interval import Factor, Interval, Map, affine, exact, stretched

if TYPE_CHECKING:
    from ohmloop.certify._interval_run import Rule, Run

Ends = tuple[Tensor, Tensor]


def apply(
    run: Run,
    x: Interval,
    linear: Map,
    absolute: Map,
    terms: int,
    factor: Factor | None = None,
    offset: Ends | None = None,
    *,
    back: int = 1,
    mixes: bool = True,
) -> Interval:
    """Return the next node: `affine` with the run's rounding."""
    return run.own(
        affine(
            x,
            linear,
            absolute,
            terms=terms,
            back=back,
            rounding=run.rounding,
            number=run.next_number(),
            factor=factor,
            offset=offset,
            mixes=mixes,
        )
    )


def moved(run: Run, x: Interval, selects: Map) -> Interval:
    """Return the next node: `exact`."""
    return run.own(exact(x, selects, number=run.next_number()))


def constant(run: Run, value: object, like: Interval) -> Tensor:
    """Return a digital tensor or number as float64 where ``like`` lies."""
    if isinstance(value, Interval):
        raise run.refuse("a product of two values that depend on weights, in this place,")
    return torch.as_tensor(value, dtype=torch.float64, device=like.device).detach()


def ends_of(run: Run, parameter: Tensor | None, x: Interval, axis: int) -> Ends | None:
    """Return bounds ``B x ...`` of a parameter that is added along ``axis`` of an output like ``x``."""
    if parameter is None:
        return None
    shape = [1] * x.ndim
    shape[axis] = -1
    value = parameter.detach().double().reshape(shape)
    factor = run.factor(parameter)
    if factor is None:
        return value, value
    value = value.expand(len(x), *value.shape[1:])
    return stretched(value, value, factor)


def linear(run: Run, x: Interval, weight: Tensor, bias: Tensor | None = None) -> Interval:
    """Follow F.linear."""
    w = weight.detach().double()
    return apply(
        run,
        x,
        lambda t: F.linear(t, w),
        lambda t: F.linear(t, w.abs()),
        w.shape[1] + 1,
        run.factor(weight),
        ends_of(run, bias, x, x.ndim - 1),
        back=w.shape[0],
    )


def _conv(dims: int) -> Rule:
    function: Any = (F.conv1d, F.conv2d)[dims - 1]

    def rule(
        run: Run,
        x: Interval,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Interval:
        if x.ndim != dims + 2:
            raise run.refuse(f"a convolution of {x.ndim} axes instead of {dims + 2}")
        w = weight.detach().double()
        window = math.prod(w.shape[2:])
        return apply(
            run,
            x,
            lambda t: function(t, w, None, stride, padding, dilation, groups),
            lambda t: function(t, w.abs(), None, stride, padding, dilation, groups),
            window * w.shape[1] + 1,
            run.factor(weight),
            ends_of(run, bias, x, 1),
            back=window * (w.shape[0] // groups),
        )

    return rule


def scaled(
    run: Run, x: Interval, weight: Tensor | None, bias: Tensor | None, axis: int
) -> Interval:
    """Return x times a gain along ``axis``, plus an offset; both may be analog."""
    if weight is None and bias is None:
        return x
    shape = [1] * x.ndim
    shape[axis] = -1
    w = torch.ones(1, dtype=x.dtype, device=x.device) if weight is None else weight.detach()
    gain = w.double().reshape(shape)
    return apply(
        run,
        x,
        lambda t: t * gain,
        lambda t: t * gain.abs(),
        2,
        run.factor(weight),
        ends_of(run, bias, x, axis),
        mixes=False,
    )


def batch_norm(
    run: Run,
    x: Interval,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Interval:
    """Follow F.batch_norm in eval mode: an affine map by running statistics, then gain and offset."""
    if training or running_mean is None or running_var is None:
        raise run.refuse("batch norm by the statistics of the batch (call model.eval())")
    shape = [1, -1, *[1] * (x.ndim - 2)]
    gain = (running_var.double() + eps).rsqrt().reshape(shape)
    shift = (-running_mean.double()).reshape(shape) * gain
    # Networks compute (x - mean) * gain or x * gain + shift: rounding is covered for both.
    whitened = apply(
        run, x, lambda t: t * gain, lambda t: t * gain, 4, None, (shift, shift), mixes=False
    )
    return scaled(run, whitened, weight, bias, 1)


def dropout(
    run: Run, x: Interval, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Interval:
    """Follow dropout in eval mode: nothing happens."""
    if training and p > 0:
        raise run.refuse("dropout in training mode (call model.eval())")
    return x


def mean(
    run: Run, x: Interval, dim: Any = None, keepdim: bool = False, *, dtype: object = None
) -> Interval:
    """Follow torch.mean over axes that are not the batch."""
    return _reduced(run, x, dim, keepdim, average=True)


def total(
    run: Run, x: Interval, dim: Any = None, keepdim: bool = False, *, dtype: object = None
) -> Interval:
    """Follow torch.sum over axes that are not the batch."""
    return _reduced(run, x, dim, keepdim, average=False)


def _reduced(run: Run, x: Interval, dim: Any, keepdim: bool, *, average: bool) -> Interval:
    axes = [dim] if isinstance(dim, int) else list(dim or ())
    axes = [a % x.ndim for a in axes]
    if not axes or 0 in axes:
        raise run.refuse("a sum over the inputs of a batch")
    n = math.prod(x.shape[a] for a in axes)

    def map_(t: Tensor) -> Tensor:
        return (t.mean if average else t.sum)(axes, keepdim)

    return apply(run, x, map_, map_, n)


def _pool(name: str) -> Rule:
    """Average pooling of any kind: a linear map with weights >= 0."""
    function: Any = getattr(F, name)

    def rule(run: Run, x: Interval, *args: Any, **kwargs: Any) -> Interval:
        if x.ndim != int(name[-2]) + 2:
            raise run.refuse(f"pooling of {x.ndim} axes")
        terms = math.prod(x.shape[2:])
        return apply(
            run,
            x,
            lambda t: function(t, *args, **kwargs),
            lambda t: function(t, *args, **kwargs),
            terms,
            back=terms,
        )

    return rule


def pad(
    run: Run, x: Interval, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Interval:
    """Follow F.pad, with zeros or copies."""
    if mode == "constant" and value:
        raise run.refuse("padding with a value other than 0")
    return moved(run, x, lambda t: F.pad(t, list(pad), mode))


def _move(name: str) -> Rule:
    method = {"getitem": "__getitem__"}.get(name, name)

    def rule(run: Run, x: Interval, *args: Any, **kwargs: Any) -> Interval:
        kwargs.pop("inplace", None)
        return moved(run, x, lambda t: getattr(t, method)(*args, **kwargs))

    return rule


def _same(run: Run, x: Interval, *args: object, **kwargs: object) -> Interval:
    """Follow copies and conversions that change no value: bounds are float64 anyway."""
    return x


LINEAR_RULES: dict[str, Rule] = {
    "linear": linear,
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "batch_norm": batch_norm,
    "mean": mean,
    "sum": total,
    "pad": pad,
    **{name: dropout for name in ("dropout", "dropout1d", "dropout2d", "dropout3d")},
    **{
        name: _pool(name)
        for name in ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
    },
    **{
        name: _move(name)
        for name in (
            "flatten",
            "view",
            "reshape",
            "permute",
            "transpose",
            "swapaxes",
            "unsqueeze",
            "squeeze",
            "unflatten",
            "select",
            "narrow",
            "flip",
            "getitem",
        )
    },
    **{name: _same for name in ("contiguous", "clone", "detach", "float", "double")},
}
ANALOG_RULES = frozenset({"linear", "conv1d", "conv2d", "batch_norm"})
"""Rules that look for analog parameters among their arguments."""
