"""S1, one device, deterministic: every device whose weights lie in a box predicts the class.

The box: each analog parameter w becomes any w' with |w' - w| <= r |w| ("relative"), or w' = w exp(a), |a| <=
r ("log": conductances that drift by at most a factor exp(r) either way). All of them at once, each for
itself, chosen by an adversary. Digital parameters do not move. Nothing is random: the statement holds for
this very chip if its weights were measured to lie in the box, and says nothing about weights outside.

Two bounds. ``interval`` passes boxes from layer to layer (Moore 1966; exact for one layer). ``linear`` also
keeps track of how layers depend on each other (CROWN; see `ohmloop.certify._interval`): several times larger
radii, for several times the work.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from ohmloop.certify._interval import Factor, Interval, Rounding, lower_bound
from ohmloop.certify._interval_arithmetic import ANALOG_ARITHMETIC, ARITHMETIC_RULES
from ohmloop.certify._interval_curves import ANALOG_CURVES, CURVE_RULES
from ohmloop.certify._interval_layers import ANALOG_RULES, LINEAR_RULES
from ohmloop.certify._interval_run import Run
from ohmloop.certify._record import rounded
from ohmloop.crossbar import Hardware
from ohmloop.errors import CertifyError
from ohmloop.nn import analog_parameters

BoxKind = Literal["relative", "log"]
BoxMethod = Literal["interval", "linear"]
LAYOUT = 2**22
"""Numbers in the largest activation of one batch."""
_CHECKED = 4
_START, _GROWTH, _MOST = 1e-6, 4.0, {"relative": 1.0, "log": 4.0}
_RULES = {**LINEAR_RULES, **ARITHMETIC_RULES, **CURVE_RULES}
_ANALOG = ANALOG_RULES | ANALOG_ARITHMETIC | ANALOG_CURVES


@dataclass(frozen=True, eq=False)
class BoxResult:
    """What holds for every device of a box, one entry an input.

    Attributes:
        classes: ``N`` classes that the nominal weights predict; what is certified.
        certified: ``N`` booleans: every device of the box predicts that class.
        margins: ``N`` lower bounds, over the box, of the class's lead in logits over the next.
        radii: ``N`` radii of the boxes.
        shares: Pattern of parameter names -> multiple of the radius that they may move by.
        kind: "relative" or "log".
        method: "interval" or "linear".
        n_weights: How many analog scalars move.
    """

    classes: NDArray[np.int64]
    certified: NDArray[np.bool_]
    margins: NDArray[np.float64]
    radii: NDArray[np.float64]
    shares: dict[str, float]
    kind: BoxKind
    method: BoxMethod
    n_weights: int

    def fraction(self, labels: Tensor | NDArray[np.int64] | None = None) -> float:
        """Return the share of inputs that are certified (and right, where labels are given)."""
        good = self.certified
        if labels is not None:
            good = good & (self.classes == np.asarray(labels))
        return float(good.mean())

    def radius_of(self, share: float, labels: Tensor | NDArray[np.int64] | None = None) -> float:
        """Return the largest radius at which at least ``share`` of the inputs are certified."""
        good = self.certified
        if labels is not None:
            good = good & (self.classes == np.asarray(labels))
        ranked = np.sort(np.where(good, self.radii, 0.0))[::-1]
        need = math.ceil(share * len(ranked) - 1e-9)
        return float(ranked[need - 1]) if need else math.inf

    @property
    def words(self) -> str:
        """What the median input's box means, in words."""
        return box_words(
            self.radius_of(0.5), kind=self.kind, shares=self.shares, n_weights=self.n_weights
        )


def box_words(
    radius: float,
    *,
    kind: BoxKind = "relative",
    shares: Mapping[str, float] | None = None,
    n_weights: int | None = None,
) -> str:
    """Return what a box of this radius allows, in words.

    >>> box_words(0.023, n_weights=17610)
    'every one of the 17,610 weights may be off by 2.3 % at once, in any direction'
    """
    if radius <= 0:
        return "no movement of the weights is certified"
    who = "every weight" if n_weights is None else f"every one of the {n_weights:,} weights"
    named = dict(shares or {"*": 1.0})
    parts = []
    for pattern, share in named.items():
        r = radius * share
        size = (
            f"off by {rounded(100 * Decimal(repr(float(r))), 2)} %"
            if kind == "relative"
            else f"changed by a factor of up to {rounded(math.exp(r))}"
        )
        parts.append(size if pattern == "*" else f"{size} in {pattern}")
    either = "in any direction" if kind == "relative" else "up or down"
    return f"{who} may be {', '.join(parts)} at once, {either}"


def certify_box(
    model: nn.Module,
    inputs: Tensor,
    radius: float,
    *,
    shares: Mapping[str, float] | None = None,
    kind: BoxKind = "relative",
    method: BoxMethod = "interval",
    hardware: Hardware | None = None,
    batch_size: int | None = None,
) -> BoxResult:
    """Say for which inputs every device of a box of weights predicts the nominal class.

    Args:
        model: An analog model in eval mode that maps ``N x ...`` to class scores ``N x C``.
        inputs: ``N x ...``, exact.
        radius: Of the box, >= 0: relative deviation, or logarithm of the factor.
        shares: Patterns of parameter names -> multiple of ``radius`` for these; by default 1 for all.
        kind: "relative" or "log".
        method: "interval" or "linear" (larger radii, more work).
        hardware: The box is centred at what this makes of the weights without noise (its level
            table); None: at the weights as they are.
        batch_size: Inputs at once; by default what fits well in memory.

    Raises:
        CertifyError: If a layer has no sound bound, a norm or dropout is in training mode, or a share is
            missing.

    >>> from ohmloop.nn import analogize
    >>> net = analogize(nn.Linear(2, 2, bias=False), Hardware(device="lognormal:0.3"))
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> certify_box(net, torch.tensor([[3.0, 1.0]]), 0.49).certified
    array([ True])
    """
    box = _Box(model, inputs, shares, kind, method, hardware)
    radii = torch.full((len(inputs),), float(radius), dtype=torch.float64)
    if not 0 <= radius < math.inf:
        raise CertifyError(f"a radius is a number >= 0; received {radius!r}.")
    margins = box.margins(radii, batch_size)
    return box.result(margins > 0, margins, radii)


def largest_radius(
    model: nn.Module,
    inputs: Tensor,
    *,
    shares: Mapping[str, float] | None = None,
    kind: BoxKind = "relative",
    method: BoxMethod = "interval",
    hardware: Hardware | None = None,
    batch_size: int | None = None,
    tolerance: float = 0.01,
) -> BoxResult:
    """Find for each input the largest box in which every device predicts the nominal class.

    Bisection, all inputs of a batch at once. Boxes are nested, so what holds at the radius found holds at
    every smaller one. The search ends at 100 % ("relative") or a factor exp(4) ("log").

    Args:
        model: As for `certify_box`.
        inputs: ``N x ...``.
        shares: As for `certify_box`.
        kind: As for `certify_box`.
        method: As for `certify_box`.
        hardware: As for `certify_box`.
        batch_size: As for `certify_box`.
        tolerance: The true end of the bound's reach lies at most this share above the radius found.

    Returns:
        Radii > 0 where certified; 0 where the bounds prove nothing even for a box of 0.0001 %.
    """
    _check_words(kind, method)
    if not 0 < tolerance < 1:
        raise CertifyError(f"the tolerance is a share in (0, 1); received {tolerance!r}.")
    box = _Box(model, inputs, shares, kind, "interval", hardware)
    low = torch.zeros(len(inputs), dtype=torch.float64)
    low, best = _bisect(box, low, torch.zeros_like(low), _MOST[kind], tolerance, batch_size)
    if method == "linear":
        # What intervals prove is proven: forms are asked only beyond it.
        box = _Box(model, inputs, shares, kind, method, hardware)
        low, best = _bisect(box, low, best, _MOST[kind], tolerance, batch_size)
    return box.result(low > 0, best, low)


def _bisect(
    box: _Box, low: Tensor, best: Tensor, most: float, tolerance: float, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the largest radii found from ``low``, where something holds already, and the margins there."""
    high = torch.full_like(low, math.inf)
    while True:
        trial = torch.where(
            low == 0, _START, torch.where(high.isinf(), 2 * low, (low * high).sqrt())
        )
        trial = torch.where((high.isinf()) & (low > 0), trial.clamp_max(most), trial)
        is_open = (high > (1 + tolerance) * low) & (low < most) & ~((low == 0) & high.isfinite())
        if not bool(is_open.any()):
            return low, best
        keep = is_open.nonzero().flatten()
        margins = box.margins(trial[keep], batch_size, keep)
        good = margins > 0
        low[keep] = torch.where(good, trial[keep], low[keep])
        best[keep] = torch.where(good | (low[keep] == 0), margins, best[keep])
        high[keep] = torch.where(good, high[keep], trial[keep])


class _Box:
    """A network, its inputs and the shape of the box; `margins` asks for one radius an input."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        shares: Mapping[str, float] | None,
        kind: BoxKind,
        method: BoxMethod,
        hardware: Hardware | None,
    ) -> None:
        _check_words(kind, method)
        if len(inputs) == 0:
            raise CertifyError("there are no inputs to certify: the first axis is empty.")
        parameters = analog_parameters(model)
        self._model, self._inputs, self._kind, self._method = model, inputs, kind, method
        self._shares = dict(shares or {"*": 1.0})
        self._share_of = {name: _share(name, self._shares) for name in parameters}
        self._weights = {
            name: (p.detach() if hardware is None else hardware.deterministic(p.detach())).clone()
            for name, p in parameters.items()
        }
        types = [p.dtype for p in model.parameters()]
        self._rounding = Rounding.of(next((t for t in types if t != torch.float64), types[0]))
        self._n_weights = sum(p.numel() for p in parameters.values())
        self._classes, self._largest = self._checked()

    def _checked(self) -> tuple[Tensor, int]:
        """Return the nominal classes; refuse if the bounds do not follow the network."""
        with torch.no_grad():
            outs = [
                functional_call(self._model, self._weights, (part,))
                for part in torch.split(self._inputs, 256)
            ]
        if not all(isinstance(o, Tensor) for o in outs):
            raise CertifyError(
                "the network must return one tensor of class scores; it returned "
                f"{type(outs[0]).__name__}."
            )
        out = torch.cat(outs)
        if out.ndim != 2 or out.shape[1] < 2:
            raise CertifyError(
                f"the box certifies classes: outputs N x C with C >= 2; received {tuple(out.shape)}."
            )
        few = self._inputs[:_CHECKED]
        run, bounds = self._run(few, torch.zeros(len(few), dtype=torch.float64))
        seen = out[:_CHECKED].double()
        room = 1e-5 * (1 + seen.abs().max())
        if not bool(((bounds.low - room <= seen) & (seen <= bounds.high + room)).all()):
            raise CertifyError(
                "without any deviation the bounds miss the network's own outputs: it does something that "
                "bounds do not follow (random layers, changes in place of shared values). Nothing is certified."
            )
        return out.argmax(1), run.largest

    def _run(self, inputs: Tensor, radii: Tensor) -> tuple[Run, Interval]:
        radii = radii.to(inputs.device)
        factors = {}
        for name, weight in self._weights.items():
            r = radii * self._share_of[name]
            factors[id(weight)] = (
                Factor(1 - r, 1 + r)
                if self._kind == "relative"
                else Factor((-r).exp() * (1 - 1e-15), r.exp() * (1 + 1e-15))
            )
        run = Run(
            factors,
            self._rounding,
            refine=self._method == "linear",
            rules=_RULES,
            analog=_ANALOG,
        )
        return run, run.forward(self._model, self._weights, inputs)

    def margins(self, radii: Tensor, batch_size: int | None, keep: Tensor | None = None) -> Tensor:
        """Return lower bounds of the lead of the nominal class, one for each radius (CPU, float64)."""
        inputs = self._inputs if keep is None else self._inputs[keep.to(self._inputs.device)]
        classes = self._classes if keep is None else self._classes[keep.to(self._classes.device)]
        batch = batch_size or max(1, min(256, LAYOUT // self._largest))
        radii = radii.to(inputs.device)
        out = []
        with torch.no_grad():
            for first in range(0, len(inputs), batch):
                part = slice(first, first + batch)
                _, bounds = self._run(inputs[part], radii[part])
                out.append(_lead(bounds, classes[part], whole=self._method == "linear"))
        return torch.cat(out).cpu()

    def result(self, certified: Tensor, margins: Tensor, radii: Tensor) -> BoxResult:
        """Return the frozen result."""
        return BoxResult(
            classes=self._classes.cpu().numpy(),
            certified=certified.numpy(),
            margins=margins.numpy(),
            radii=radii.numpy(),
            shares=self._shares,
            kind=self._kind,
            method=self._method,
            n_weights=self._n_weights,
        )


def _lead(bounds: Interval, classes: Tensor, *, whole: bool) -> Tensor:
    """Return ``B`` lower bounds of y_c - max over j of y_j, each difference bounded as one form."""
    batch, n_classes = bounds.low.shape
    form = torch.zeros(
        n_classes, batch, n_classes, dtype=bounds.low.dtype, device=bounds.low.device
    )
    rows = torch.arange(batch, device=form.device)
    form[:, rows, classes] = 1
    every = torch.arange(n_classes, device=form.device)
    form[every, :, every] -= 1
    leads = lower_bound(bounds, form, floor=bounds.number)
    if whole:
        leads = torch.maximum(leads, lower_bound(bounds, form))
    leads[classes, rows] = math.inf
    return leads.amin(0)


def _check_words(kind: str, method: str) -> None:
    if kind not in _MOST or method not in ("interval", "linear"):
        raise CertifyError(
            f'kind is "relative" or "log", method "interval" or "linear"; received {kind!r}, {method!r}.'
        )


def _share(name: str, shares: Mapping[str, float]) -> float:
    for pattern, share in shares.items():
        if fnmatch.fnmatchcase(name, pattern):
            if not 0 <= share < math.inf:
                raise CertifyError(
                    f"the share of {pattern!r} is a number >= 0; received {share!r}."
                )
            return float(share)
    raise CertifyError(
        f"no share is given for the analog parameter {name!r}; the patterns are "
        f"{', '.join(map(repr, shares))}. Add one, 0 for parameters that do not move."
    )
