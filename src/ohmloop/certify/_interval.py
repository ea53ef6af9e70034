"""Values with bounds, and how bounds pass through linear maps whose weights may move.

A weight w becomes w f with any factor f of an interval [f1, f2], each weight its own. Then ``sum_i w_ji f_ji
x_i = sum_i w_ji z_i`` with z_i in {f x : f in [f1, f2], x in [l_i, u_i]}, and the factors of one output are
independent: the interval of z and the centre/radius rule (W c, |W| r) give the *exact* range of a layer over
its box of inputs, at the cost of two products.

Backward (`lower_bound`), a linear form A y of a layer's outputs is bounded from below by a form of its
inputs: ``A y >= (k A W) x - S |x| + constant`` with k, rho centre and relative radius of the factor and S = k
rho |A| |W|; -S |x| is concave and lies above its chord. Curves are replaced by lines (Zhang et al. 2018,
CROWN, arXiv 1811.00866, section 3; weight perturbations: Xu et al. 2020, arXiv 2002.12920).

Rounding. Everything is computed in float64. A sum of n products computed in any order by a network with unit
roundoff u equals the exact sum with each product times its own (1 + t), |t| <= gamma_n = n u / (1 - n u)
(Higham 2002, section 3.1). So each factor interval is widened by gamma_n, with u of the network's dtype and
of float64 together: the bounds hold for the network as it is evaluated, not only for real numbers. Not
covered are fast algorithms that leave plain sums (Winograd, TF32, half precision).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ohmloop.errors import CertifyError

Map = Callable[[Tensor], Tensor]
U64 = 2.0**-53


class Factor(NamedTuple):
    """What each weight of a tensor may be multiplied by: one interval for each of ``B`` inputs."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Rounding:
    """Unit roundoff and smallest normal number of the arithmetic that devices are simulated in."""

    unit: float
    tiny: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Rounding:
        """Return the rounding of float32 or float64; CertifyError for others."""
        if dtype not in (torch.float32, torch.float64):
            raise CertifyError(
                f"bounds are sound for float32 and float64; the network's parameters are {dtype}. "
                "Call model.float() first."
            )
        info = torch.finfo(dtype)
        return cls(info.eps / 2, info.tiny)

    def gamma(self, terms: int) -> float:
        """Return gamma_n of a sum of ``terms`` products, with our own float64 sum of them."""
        n = terms + 8
        return n * self.unit / (1 - n * self.unit) + 4 * n * U64

    def outward(self, low: Tensor, high: Tensor, ulps: int = 4) -> tuple[Tensor, Tensor]:
        """Return bounds moved apart by ``ulps`` rounding errors of the values themselves."""
        slack = ulps * (self.unit + U64)
        return low - (slack * low.abs() + self.tiny), high + (slack * high.abs() + self.tiny)


Pull = Callable[[Tensor], tuple[list[tuple[Tensor, Tensor | None]], Tensor | float]]
"""A form ``K x B x *y`` to forms (A, S) of the parents and a constant ``K x B``: see `lower_bound`."""


@dataclass(eq=False)
class Interval:
    """A tensor that is only known to lie between bounds; one node of a graph.

    Attributes:
        low: ``B x ...``, float64.
        high: The same shape.
        number: Nodes are numbered in the order in which they arose.
        parents: What it was computed from.
        pull: How a linear form of it becomes forms of its parents; None where it is a leaf to forms.
        is_tight: No bound computed by forms can be better (inputs, and what one layer makes of them).
        owner: The run that it belongs to; method calls go through it.
        is_overwritten: Whether an in-place function has taken its storage.
    """

    low: Tensor
    high: Tensor
    number: int
    parents: tuple[Interval, ...] = ()
    pull: Pull | None = None
    is_tight: bool = False
    owner: Owner | None = field(default=None, repr=False)
    is_overwritten: bool = False

    @property
    def shape(self) -> torch.Size:
        """Shape, ``B`` first."""
        return self.low.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.low.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the bounds."""
        return self.low.dtype

    @property
    def device(self) -> torch.device:
        """Where the bounds lie."""
        return self.low.device

    @property
    def most(self) -> Tensor:
        """The largest magnitude, ``B x ...``."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def dim(self) -> int:
        """Return the number of axes."""
        return self.low.ndim

    def size(self, axis: int | None = None) -> torch.Size | int:
        """Return the shape, or one axis of it."""
        return self.low.shape if axis is None else self.low.shape[axis]

    def __len__(self) -> int:
        return len(self.low)

    @classmethod
    def __torch_function__(
        cls, func: object, types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        # Torch asks for this method on anything that stands in for a tensor; the run's mode comes first.
        return NotImplemented

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._call(name, self, *args, **kwargs)

    def _call(self, name: str, *args: object, **kwargs: object) -> object:
        assert self.owner is not None
        return self.owner.call(name, args, kwargs)

    def __add__(self, other: object) -> object:
        return self._call("add", self, other)

    __radd__ = __add__

    def __sub__(self, other: object) -> object:
        return self._call("sub", self, other)

    def __rsub__(self, other: object) -> object:
        return self._call("rsub", self, other)

    def __mul__(self, other: object) -> object:
        return self._call("mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> object:
        return self._call("div", self, other)

    def __rtruediv__(self, other: object) -> object:
        return self._call("rdiv", self, other)

    def __matmul__(self, other: object) -> object:
        return self._call("matmul", self, other)

    def __neg__(self) -> object:
        return self._call("neg", self)

    def __getitem__(self, index: object) -> object:
        return self._call("getitem", self, index)


class Owner:
    """What makes intervals and takes their method calls."""

    def call(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Compute the operation that torch calls ``name``."""
        raise NotImplementedError


def each(value: Tensor, like: Tensor) -> Tensor:
    """Return ``B`` numbers as ``B x 1 x 1 ...`` beside ``like``, ``B x ...``."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def stretched(low: Tensor, high: Tensor, factor: Factor) -> tuple[Tensor, Tensor]:
    """Return the exact range of f x for x in [low, high], f in the factor's interval."""
    f1, f2 = each(factor.low, low), each(factor.high, low)
    ends = (low * f1, low * f2, high * f1, high * f2)
    smallest = torch.minimum(torch.minimum(ends[0], ends[1]), torch.minimum(ends[2], ends[3]))
    largest = torch.maximum(torch.maximum(ends[0], ends[1]), torch.maximum(ends[2], ends[3]))
    return smallest, largest


def transposed(linear: Map, like: Tensor) -> Map:
    """Return the transpose of a linear map of tensors shaped like ``like``, over a leading axis ``K``."""
    back = torch.func.vjp(linear, torch.zeros_like(like))[1]

    def one(form: Tensor) -> Tensor:
        out: Tensor = back(form)[0]
        return out

    return torch.func.vmap(one)


def dot_down(form: Tensor, values: Tensor, sign: int = 0) -> Tensor:
    """Return lower bounds ``K x B`` of the products of forms ``K x B x ...`` with values ``B x ...``.

    ``sign`` is 1 or -1 if all entries of the forms are known to be >= 0 or <= 0, which saves a pass.
    """
    a, v = form.flatten(2), values.expand(form.shape[1:]).flatten(1)
    slack = 2 * (a.shape[-1] + 64) * U64
    if sign:
        both = torch.einsum("kbn,bnm->kbm", a, torch.stack([v, sign * v.abs()], -1))
        return both[..., 0] - slack * both[..., 1]
    return torch.einsum("kbn,bn->kb", a, v) - slack * torch.einsum("kbn,bn->kb", a.abs(), v.abs())


def least(form: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return lower bounds ``K x B`` of forms over values between ``low`` and ``high``, ``B x ...``."""
    return dot_down(form.clamp_min(0), low, 1) + dot_down(form.clamp_max(0), high, -1)


def _folded(a: Tensor, s: Tensor | None, x: Interval) -> tuple[Tensor, Tensor | float]:
    """Replace -s |x| by its chord over [low, high]: slope to the form, the rest to the constant.

    The chord is exact at both ends, and -s |x| is concave: over the box alone nothing is lost.
    """
    if s is None:
        return a, 0.0
    low, high = x.low, x.high
    crossing = (low < 0) & (high > 0)
    slope = torch.where(
        crossing, -(low + high) / (high - low).clamp_min(1e-300), -torch.sign(low + high)
    )
    rest = torch.minimum(-low.abs() - slope * low, -high.abs() - slope * high)
    return torch.addcmul(a, s, slope), dot_down(s, rest, 1)


def lower_bound(node: Interval, form: Tensor, *, floor: int = 0) -> Tensor:
    """Return a lower bound of linear forms of ``node``, over all weights of the box at once.

    Args:
        node: ``B x *shape``.
        form: ``K x B x *shape``: K forms for each input.
        floor: Nodes of smaller numbers are bounded by their boxes and not looked behind.

    Returns:
        ``K x B``.
    """
    waiting: dict[int, tuple[Interval, Tensor, Tensor | None]] = {node.number: (node, form, None)}
    bound = torch.zeros(form.shape[:2], dtype=form.dtype, device=form.device)
    while waiting:
        node, a, s = waiting.pop(max(waiting))
        a, rest = _folded(a, s, node)
        bound = bound + rest
        # Behind a tight node nothing is gained: its box is all that one layer can do.
        if node.pull is None or node.number < floor or node.is_tight:
            bound = bound + least(a, node.low, node.high)
            continue
        shares, constant = node.pull(a)
        bound = bound + constant
        for parent, (b, t) in zip(node.parents, shares, strict=True):
            if parent.number in waiting:
                _, b0, t0 = waiting[parent.number]
                b, t = b + b0, t0 if t is None else (t if t0 is None else t + t0)
            waiting[parent.number] = (parent, b, t)
    return bound - 64 * U64 * bound.abs()


def affine(
    x: Interval,
    linear: Map,
    absolute: Map,
    *,
    terms: int,
    back: int,
    rounding: Rounding,
    number: int,
    factor: Factor | None = None,
    offset: tuple[Tensor, Tensor] | None = None,
    mixes: bool = True,
) -> Interval:
    """Return y = linear(x) + offset, where each weight of ``linear`` may be multiplied by a factor.

    Args:
        x: The input.
        linear: x -> W x, for ``B x ...``.
        absolute: x -> |W| x.
        terms: The largest number of products in the sum of one output.
        back: In how many outputs one input entry counts, at most.
        rounding: Of the network's dtype.
        number: Of the new node.
        factor: For the weights; None if they are digital.
        offset: Bounds of what is added, ``B x ...`` or broadcastable to the output.
        mixes: False if each output depends on one input entry only.
    """
    batch = len(x)
    one = torch.ones(batch, dtype=x.dtype, device=x.device)
    gamma = rounding.gamma(terms)
    f1, f2 = factor or (one, one)
    wide = Factor(f1 - gamma * f1.abs(), f2 + gamma * f2.abs())
    low, high = stretched(x.low, x.high, wide)
    centre = linear((low + high) / 2)
    radius = absolute((high - low) / 2) * (1 + gamma) + terms * rounding.tiny
    y_low, y_high = centre - radius, centre + radius
    if offset is not None:
        add_low, add_high = (
            offset[0] - gamma * offset[0].abs(),
            offset[1] + gamma * offset[1].abs(),
        )
        y_low, y_high = rounding.outward(y_low + add_low, y_high + add_high, 1)
    middle, share = (wide.low + wide.high) / 2, (wide.high - wide.low) / 2
    # Forms A W are float64 sums over outputs, and A itself was rounded a few times since the layer
    # behind (relative to itself, far less than 900 times): |A| |W| |x| bounds what becomes of both.
    share = share + (8 * (terms + back) + 900) * U64 * middle.abs()

    def pull(a: Tensor) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | float]:
        form = transposed(linear, x.low)(a)
        loose = transposed(absolute, x.low)(a.abs())
        constant = -terms * rounding.tiny * a.abs().flatten(2).sum(-1)
        if offset is not None:
            constant = constant + least(a, add_low, add_high)
        return [(each(middle, x.low) * form, each(share, x.low) * loose)], constant

    is_point = x.is_tight and bool((x.low == x.high).all())
    tight = is_point or (x.is_tight and factor is None and not mixes)
    return Interval(y_low, y_high, number, (x,), pull, is_tight=tight)


def exact(x: Interval, selects: Map, *, number: int) -> Interval:
    """Return what a map that only moves, copies or drops entries makes of ``x``."""
    low, high = selects(x.low), selects(x.high)
    if low.ndim == 0 or len(low) != len(x):
        raise CertifyError(
            f"inputs must stay apart along the first axis: {tuple(x.shape)} became "
            f"{tuple(low.shape)}. Keep the batch first in the network."
        )

    def pull(a: Tensor) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | float]:
        return [(transposed(selects, x.low)(a), None)], 0.0

    return Interval(low, high, number, (x,), pull, is_tight=x.is_tight)


def added(parts: Sequence[Interval], *, rounding: Rounding, number: int) -> Interval:
    """Return the sum of intervals of one shape: residual branches meet here."""
    low, high = rounding.outward(sum_of([p.low for p in parts]), sum_of([p.high for p in parts]))
    slack = 4 * (rounding.unit + U64) * sum_of([p.most for p in parts]) + rounding.tiny

    def pull(a: Tensor) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | float]:
        return [(a, None) for _ in parts], -1.001 * dot_down(a.abs(), slack, 1)

    return Interval(low, high, number, tuple(parts), pull)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    out = tensors[0]
    for t in tensors[1:]:
        out = out + t
    return out
