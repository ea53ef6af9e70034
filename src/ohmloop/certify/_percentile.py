"""S3 for a fleet's accuracy: percentile smoothing, statement H of the documentation.

If at least ``Phi(Phi^-1(q) + rho)`` of all devices reach a score, then at least q of them do after a shift of
rho deviations: the event "reaches the score" loses no more than any other. Order statistics bound the first.
This is the tightest curve for an accuracy, because no union over inputs is paid for.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ohmloop.certify._bounds import check_alpha, devices_needed, needed_before, rank_for
from ohmloop.certify._drift import (
    Translation,
    after_deployment,
    amount_words,
    check_shiftable,
    theorem,
    unit_costs,
)
from ohmloop.certify._record import Certificate, percent
from ohmloop.certify._votes import ClassRule, Votes
from ohmloop.certify._yield import KEEPS, limits, of_100, origin, reached, score_name

RHO = tuple(round(0.1 * k, 1) for k in range(31))
"""Where curves are given: shifts of 0 to 3 deviations."""


class PercentileCertificate(Certificate):
    """A score that a share of all devices reaches, as the law's centre shifts.

    Attributes:
        score: What it is.
        shares: Of the devices.
        rho: Shifts in deviations of the law at level 1.
        bounds: For each share, the score at each shift; None where there are too few devices for a bound.
        deviation: What one deviation is in cells, layers and tiles (``keep`` and ``inputs`` do not apply).
    """

    kind: Literal["percentile"] = "percentile"
    score: str
    shares: tuple[float, ...]
    rho: tuple[float, ...] = RHO
    bounds: tuple[tuple[float | None, ...], ...]
    deviation: tuple[Translation, ...]


def percentile_certificate(
    votes: Votes,
    *,
    shares: tuple[float, ...] = KEEPS,
    alpha: float = 0.05,
    rule: ClassRule = "label",
) -> PercentileCertificate:
    """Return accuracies that shares of all devices reach after systematic shifts.

    All points of all curves hold together: each takes alpha over their number.

    Args:
        votes: From `poll` under a `Law`.
        shares: Of the devices.
        alpha: Chance that any point is false, at most.
        rule: What counts as right.

    Raises:
        CertifyError: If the law's shifts cannot be followed, or there are too few devices for a share.
    """
    check_alpha(alpha)
    law = check_shiftable(votes)
    assert votes.cells is not None
    scores, unit = np.sort(votes.scores(rule)), unit_costs(law)
    n, points = len(scores), len(shares) * len(RHO)
    each = alpha / points
    for share in shares:
        rank_for(n, share, each)  # Says how many devices it takes, if there are too few.
    bounds = tuple(
        tuple(_bound(scores, needed_before(share, unit * rho), each) for rho in RHO)
        for share in shares
    )
    deviation = tuple(
        Translation(
            what=shift.what,
            cells=shift.cells,
            keep=0.5,
            inputs=1.0,
            amount=shift.amount(1.0, unit),
            words=amount_words(law, shift.amount(1.0, unit)),
        )
        for shift in votes.cells.shifts()
    )
    return PercentileCertificate(
        **origin(votes, rule),
        statement="S3",
        theorem=f"percentile smoothing (H) on {theorem(law)}; order statistics (Wilks 1941)",
        alpha=alpha,
        multiplicity=f"alpha / {points} for each of {points} points of all curves",
        claim=_words(score_name(rule), shares, bounds, alpha, deviation),
        limits=(
            "It says what share of devices reaches a score, nothing about one given chip.",
            *after_deployment(votes),
            *limits(votes),
        ),
        score=score_name(rule),
        shares=shares,
        bounds=bounds,
        deviation=deviation,
    )


def _bound(scores: np.typing.NDArray[np.float64], share: float, alpha: float) -> float | None:
    # A share that rounds to 1 in float64 is beyond any number of devices.
    if share >= 1 or len(scores) < devices_needed(share, alpha):
        return None
    return float(scores[rank_for(len(scores), share, alpha) - 1])


def _words(
    score: str,
    shares: tuple[float, ...],
    bounds: tuple[tuple[float | None, ...], ...],
    alpha: float,
    deviation: tuple[Translation, ...],
) -> str:
    share, curve = max(
        (pair for pair in zip(shares, bounds, strict=True) if pair[0] <= 0.95),
        default=(shares[0], bounds[0]),
    )
    assert curve[0] is not None
    text = (
        f"With {percent(1 - alpha)} confidence: {of_100(share)} of 100 devices drawn from the law "
        f"{reached(score, curve[0])}"
    )
    after = [
        f"at least {percent(v)} after a shift of {RHO[k]:g}"
        for k in (5, 10)
        if (v := curve[k]) is not None
    ]
    if not after:
        return text + "."
    first, last = deviation[0], deviation[-1]
    return (
        f"{text}; {', '.join(after)} of the law's centre. A shift of 1 is {first.what} {first.words}, or "
        f"{last.what}, {last.words}."
    )
