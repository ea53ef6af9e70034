"""S3: a device drawn from the law after a systematic shift of its centre.

Statements A (gaussian noise in its coordinates), B (log-normal noise, where the coordinate is ln|w|) and C
(common gains) of the documentation: one computation, since a law's covariance says what each shift costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ohmloop.certify._bounds import (
    check_alpha,
    clopper_pearson,
    largest_shift,
    needed_before,
    shifted,
)
from ohmloop.certify._groups import Shift
from ohmloop.certify._law import Law
from ohmloop.certify._record import NO_MAJORITY, Certificate, percent
from ohmloop.certify._votes import ClassRule, Votes
from ohmloop.certify._yield import KEEPS, limits, origin, what_counts
from ohmloop.errors import CertifyError
from ohmloop.nn import Deployment

RHO = tuple(round(0.05 * k, 2) for k in range(81))
"""Where curves are given: shifts of 0 to 4 deviations."""
SHARES = (0.5, 0.9)
"""Shares of the inputs that translations are given for."""


class Curve(BaseModel):
    """How many inputs keep their class on a share of devices, as the law's centre shifts.

    Attributes:
        keep: Share of the devices.
        inputs: Share of all inputs, one number for each shift of the certificate's ``rho``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: float
    inputs: tuple[float, ...]


class Translation(BaseModel):
    """A certified shift as a lab sees it.

    Attributes:
        what: Which cells shift.
        cells: How many they are.
        keep: Share of the devices that still give the class.
        inputs: Share of the inputs for which that is claimed.
        amount: Largest shift of each of these cells in the noise coordinate; None where nothing is claimed.
        words: The shift for a person: "by a factor of 0.81 to 1.23".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    cells: int
    keep: float
    inputs: float
    amount: float | None
    words: str


class DriftCertificate(Certificate):
    """What share of devices keeps an input's class after a systematic shift.

    Attributes:
        classes: The class that each input's statement is about.
        lower: Lower bound of its probability without a shift, by input, at alpha / n_inputs each.
        radii: By input, the shift in deviations of the law below which more than half of the devices keep
            the class; None where nothing is claimed. A norm over all cells: see ``translations``.
        rho: Shifts in deviations.
        curves: Inputs that keep their class, for several shares of devices.
        translations: The same in cells, layers and tiles.
    """

    kind: Literal["drift"] = "drift"
    classes: tuple[int, ...]
    lower: tuple[float, ...]
    radii: tuple[float | None, ...]
    rho: tuple[float, ...] = RHO
    curves: tuple[Curve, ...]
    translations: tuple[Translation, ...]

    def kept(self, rho: float | Sequence[float]) -> NDArray[np.float64]:
        """Return for each input the least share of devices that gives its class after a shift.

        Args:
            rho: Norm of the shift in deviations of the law at level 1, ``||Sigma^-1/2 delta||``; or its norm at
                each level of the law (`Cells.cost`), which may be tighter.
        """
        assert self.law is not None
        if np.ndim(rho) == 0:
            return shifted(self.lower, unit_costs(self.law) * rho)
        if np.shape(rho) != (len(self.law.levels),):
            raise CertifyError(
                f"expected a number, or one for each of the law's {len(self.law.levels)} levels; received "
                f"shape {np.shape(rho)}."
            )
        return shifted(self.lower, rho)


def drift_certificate(
    votes: Votes, *, alpha: float = 0.05, rule: ClassRule = "digital"
) -> DriftCertificate:
    """Return what systematic shifts each input's class survives, on what share of devices.

    One Clopper-Pearson bound for each input at alpha / n; everything else follows from these, so that all
    curves and translations hold together with confidence 1 - alpha.

    Args:
        votes: From `poll` under a `Law`.
        alpha: Chance that any of the statements is false, at most.
        rule: What counts as right.

    Raises:
        CertifyError: If the votes come from measured chips or arrays, or the law's spread follows the
            shifted weight.
    """
    check_alpha(alpha)
    law = check_shiftable(votes)
    assert votes.cells is not None
    right = votes.right(rule)
    lower = clopper_pearson(right.sum(0), votes.n_devices, alpha / votes.n_inputs)
    unit = unit_costs(law)
    radii = np.where(lower > 0.5, largest_shift(lower, 0.5, unit), np.nan)
    abstentions = int(np.isnan(radii).sum())
    translations = _translations(law, votes.cells.shifts(), lower)
    return DriftCertificate(
        **origin(votes, rule),
        statement="S3",
        theorem=theorem(law),
        alpha=alpha,
        multiplicity=f"alpha / {votes.n_inputs} for each of {votes.n_inputs} inputs; all shifts together",
        abstentions=abstentions,
        claim=_words(votes, rule, alpha, abstentions, translations),
        limits=(
            "It says what share of devices keeps a class, nothing about one given chip.",
            *_geometry(law),
            *after_deployment(votes),
            *limits(votes),
        ),
        classes=tuple(int(c) for c in votes.target(rule)),
        lower=tuple(float(v) for v in lower),
        radii=tuple(None if math.isnan(r) else float(r) for r in radii),
        curves=_curves(lower, law),
        translations=translations,
    )


def check_shiftable(votes: Votes) -> Law:
    """Return the law of some votes; CertifyError if shifts of it cannot be followed."""
    law = votes.law
    if law is None or votes.cells is None:
        raise CertifyError(
            f"a statement about shifts needs virtual devices under the law on weights; these votes are of "
            f"{votes.law_words}. Yield statements hold for them: yield_certificate, quantile_certificate."
        )
    if law.spread == "following":
        raise CertifyError(
            "the spread of this gaussian noise follows the shifted weight. Gaussian smoothing in relative "
            "coordinates (statement A) would claim too much, by a factor of sqrt(1 + 2 sigma^2) at least. Use "
            'Law(noise="log-normal", ...) (statement B), where the spread follows the weight by itself, or '
            "kl_certificate (statement F), which holds for any law."
        )
    return law


def unit_costs(law: Law) -> NDArray[np.float64]:
    """Return what a shift of one deviation at level 1 costs at each level of the law, at most.

    Without gains ``1 / f``. The spread tau of a gain knows no level: at f > 1 a common shift may still cost
    all that it costs at level 1.
    """
    factors = np.asarray(law.levels, dtype=np.float64)
    return 1 / (factors if law.gain is None else np.minimum(factors, 1.0))


def after_deployment(votes: Votes) -> tuple[str, ...]:
    """Return what shifts assume of a deployment that each device is set up by."""
    deployment, out = Deployment.parse(votes.deployment), []
    if deployment.sees_inputs or deployment.drift_gain:
        out.append(
            f'The deployment "{votes.deployment}" is set up after the shift, on the shifted device: what '
            "shifts later is not covered."
        )
    if len({arrays for _, arrays in votes.layer_arrays}) > 1:
        out.append("How many arrays hold each layer was fixed before any device was drawn.")
    return tuple(out)


def theorem(law: Law) -> str:
    """Return what proves a shift under a law, in words."""
    name = (
        "B (log-normal noise: gaussian in ln|w|)" if law.noise == "log-normal" else "A (gaussian)"
    )
    if law.gain is not None:
        name += " with C (common gains)"
    mixture = "; the levels of sigma are one mixture" if len(law.levels) > 1 else ""
    return (
        f"statement {name}: Neyman-Pearson lemma, as in Cohen, Rosenfeld & Kolter (2019), on the noise "
        f"coordinates of the weights{mixture}"
    )


def _geometry(law: Law) -> tuple[str, ...]:
    first = (
        "A shift multiplies weights by positive factors: signs stay, and what is exactly zero stays zero."
        if law.noise == "log-normal"
        else "Shifts are relative to the nominal weight, and the spread stays sigma |w_nominal|."
    )
    return (
        first,
        "Shifts of other cells count too: amounts add as squares in deviations of the law.",
    )


def _curves(lower: NDArray[np.float64], law: Law) -> tuple[Curve, ...]:
    curves = []
    for keep, row in zip(KEEPS, _needed(tuple(unit_costs(law).tolist())), strict=True):
        needed = np.asarray(row)[:, None]
        # Of the majority, more than half is claimed; a bound of exactly one half claims nothing.
        enough = lower[None] > needed if keep == 0.5 else lower[None] >= needed
        curves.append(Curve(keep=keep, inputs=tuple(float(v) for v in enough.mean(1))))
    return tuple(curves)


@lru_cache(maxsize=16)
def _needed(unit: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Return the probability that is needed before each shift, for each share of devices to be kept."""
    costs = np.asarray(unit)
    return tuple(tuple(needed_before(keep, costs * rho) for rho in RHO) for keep in KEEPS)


def translate(
    law: Law, shift: Shift, lower: ArrayLike, keep: float = 0.5, inputs: float = 0.9
) -> Translation:
    """Return the largest amount by which some cells may shift.

    Args:
        law: The law.
        shift: The cells, from `Cells.shifts`.
        lower: Lower bounds of the class probabilities, one an input.
        keep: Share of the devices that is to give the class after the shift.
        inputs: Share of all inputs for which that is to be claimed.
    """
    weakest = reached_by_inputs(lower, inputs)
    amount = float(largest_shift(weakest, keep, np.asarray(shift.costs)))
    return _translation(law, shift, keep, inputs, weakest, amount)


def reached_by_inputs(lower: ArrayLike, inputs: float) -> float:
    """Return the bound that a share of all inputs has at least."""
    ranked = np.sort(np.asarray(lower, dtype=np.float64))[::-1]
    return float(ranked[max(1, math.ceil(inputs * len(ranked) - 1e-9)) - 1])


def _translations(
    law: Law, shifts: tuple[Shift, ...], lower: NDArray[np.float64]
) -> tuple[Translation, ...]:
    """Translate for all shifts, shares of inputs and of devices, in one computation."""
    cases = [(shift, share, keep) for shift in shifts for share in SHARES for keep in KEEPS]
    weakest = [reached_by_inputs(lower, share) for _, share, _ in cases]
    amounts = largest_shift(
        weakest, [keep for _, _, keep in cases], np.array([shift.costs for shift, _, _ in cases])
    )
    return tuple(
        _translation(law, shift, keep, share, bound, float(amount))
        for (shift, share, keep), bound, amount in zip(cases, weakest, amounts, strict=True)
    )


def _translation(
    law: Law, shift: Shift, keep: float, inputs: float, weakest: float, amount: float
) -> Translation:
    if math.isnan(amount) or amount == 0 or weakest <= 0.5:
        return Translation(
            what=shift.what,
            cells=shift.cells,
            keep=keep,
            inputs=inputs,
            amount=None,
            words="nothing is claimed",
        )
    return Translation(
        what=shift.what,
        cells=shift.cells,
        keep=keep,
        inputs=inputs,
        amount=amount,
        words=amount_words(law, amount),
    )


def amount_words(law: Law, amount: float) -> str:
    """Return a shift of the noise coordinate for a person; rounded to the side that claims less."""
    if law.noise == "log-normal":
        up, down = math.exp(min(amount, 700.0)), math.exp(-amount)
        return f"by a factor of {_up(down)} to {_down(up)}"
    return f"by {_down(100 * amount)} % of its nominal value, up or down"


def _down(value: float) -> str:
    scale = 10.0 ** (3 - math.floor(math.log10(value)))
    return f"{math.floor(value * scale) / scale:.6g}"


def _up(value: float) -> str:
    if value <= 0:
        return "0"
    scale = 10.0 ** (3 - math.floor(math.log10(value)))
    return f"{math.ceil(value * scale) / scale:.6g}"


def shift_between(
    law: Law, nominal: Mapping[str, Tensor], moved: Mapping[str, Tensor]
) -> NDArray[np.float64]:
    """Return the change of the noise coordinates from one set of weights to another, ``D`` as in `Cells`.

    With `Cells.cost` and `DriftCertificate.kept` it says what a given drift does: ``certificate.kept(cost)``.

    Args:
        law: Says what the coordinates are.
        nominal: Analog parameters by name, with the levels rho applied (`Law.nominal`).
        moved: The same after the shift.

    Raises:
        CertifyError: If a zero weight moves, or under log-normal noise a sign changes: no shift of the
            law does that.
    """
    parts = []
    for name, before in nominal.items():
        a = before.detach().cpu().double().flatten().numpy()
        b = moved[name].detach().cpu().double().flatten().numpy()
        held = a != 0
        if (b[~held] != 0).any():
            raise CertifyError(f"{name}: a weight that is exactly zero moved; it holds no noise.")
        ratio = b[held] / a[held]
        if law.noise == "log-normal" and (ratio <= 0).any():
            raise CertifyError(
                f"{name}: {int((ratio <= 0).sum())} weights change their sign or vanish, which no shift of "
                "ln|w| does."
            )
        parts.append(np.log(ratio) if law.noise == "log-normal" else ratio - 1)
    return np.concatenate(parts)


def relative_ball(log_radius: float) -> float:
    """Return the radius of the largest relative L2 ball inside a ball of log factors: ``1 - exp(-R)``.

    A relative change -r of one weight is a log factor ln(1 - r), the longest that a relative ball of radius r
    holds; R itself as a relative radius would claim too much.

    >>> round(relative_ball(0.5), 4)
    0.3935
    """
    if not log_radius >= 0:
        raise CertifyError(f"a radius is >= 0; received {log_radius!r}.")
    return -math.expm1(-log_radius)


def _words(
    votes: Votes,
    rule: ClassRule,
    alpha: float,
    abstentions: int,
    translations: tuple[Translation, ...],
) -> str:
    n = votes.n_inputs
    if abstentions == n:
        return NO_MAJORITY
    head = (
        f"With {percent(1 - alpha)} confidence, for {n - abstentions:,} of {n:,} inputs more than half of the "
        f"devices drawn from the law give {what_counts(rule)}, and still do after small shifts of its centre."
    )
    wanted = [t for t in translations if t.keep == 0.5 and t.amount is not None]
    for share in SHARES[::-1]:
        told = [t for t in wanted if t.inputs == share]
        if told:
            first, last = told[0], told[-1]
            return (
                f"{head} For {percent(share)} of the inputs at least half of the devices give it when "
                f"{first.what} shifts {first.words}, or {last.what}, {last.words}."
            )
    return head
