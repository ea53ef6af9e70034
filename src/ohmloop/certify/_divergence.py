"""Another law than the one that was drawn from: statement F, for any law, by its divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.certify._bounds import (
    check_alpha,
    clopper_pearson,
    kept_at_divergence,
    majority_divergence,
)
from ohmloop.certify._drift import SHARES, Translation, amount_words, reached_by_inputs
from ohmloop.certify._law import Law
from ohmloop.certify._record import NO_MAJORITY, Certificate, percent
from ohmloop.certify._votes import ClassRule, Votes
from ohmloop.certify._yield import limits, origin, what_counts
from ohmloop.errors import CertifyError


class KLCertificate(Certificate):
    """How far the true law may be from the one that was drawn from.

    Attributes:
        classes: The class that each input's statement is about.
        lower: Lower bound of its probability, by input, at alpha / n_inputs each.
        divergences: By input, the KL(true law || law) in nats below which more than half of the devices
            give the class; None where nothing is claimed.
        translations: The same in cells: shifts, and sigmas that are wrong.
    """

    kind: Literal["kl"] = "kl"
    classes: tuple[int, ...]
    lower: tuple[float, ...]
    divergences: tuple[float | None, ...]
    translations: tuple[Translation, ...]

    def kept(self, divergence: float) -> NDArray[np.float64]:
        """Return for each input the least share of devices that gives its class under another law.

        Args:
            divergence: KL(true law || law) over all cells, nats.
        """
        return kept_at_divergence(self.lower, divergence)


def kl_certificate(
    votes: Votes, *, alpha: float = 0.05, rule: ClassRule = "digital"
) -> KLCertificate:
    """Return how far the true law may be from the law for each input to keep its class.

    By the data processing inequality the class, a function of the device, differs by no more than the
    devices do: ``kl(q || p) <= KL(true law || law)``.

    Args:
        votes: From `poll` under a `Law`, of any kind.
        alpha: Chance that any of the statements is false, at most.
        rule: What counts as right.
    """
    check_alpha(alpha)
    law = votes.law
    if law is None or votes.cells is None:
        raise CertifyError(
            f"the divergence from a law needs devices drawn from one; these votes are of {votes.law_words}."
        )
    lower = clopper_pearson(votes.right(rule).sum(0), votes.n_devices, alpha / votes.n_inputs)
    found = majority_divergence(lower)
    abstentions = int(np.isnan(found).sum())
    translations = _translations(law, votes, lower)
    return KLCertificate(
        **origin(votes, rule),
        statement="S3",
        theorem="statement F: data processing inequality",
        alpha=alpha,
        multiplicity=f"alpha / {votes.n_inputs} for each of {votes.n_inputs} inputs; all laws together",
        abstentions=abstentions,
        claim=_words(votes, rule, alpha, abstentions, translations),
        limits=(
            "It says what share of devices keeps a class, nothing about one given chip.",
            "Divergences of independent cells add up: a small error of every cell is far beyond it.",
            *limits(votes),
        ),
        classes=tuple(int(c) for c in votes.target(rule)),
        lower=tuple(float(v) for v in lower),
        divergences=tuple(None if math.isnan(d) else float(d) for d in found),
        translations=translations,
    )


def normal_divergence(shift: float, ratio: float) -> float:
    """Return KL(N(shift, ratio^2) || N(0, 1)) in nats: ``ln(1 / ratio) + (ratio^2 + shift^2 - 1) / 2``.

    >>> normal_divergence(0.0, 1.0), normal_divergence(2.0, 1.0)
    (0.0, 2.0)
    """
    if not ratio > 0:
        raise CertifyError(f"a ratio of standard deviations is positive; received {ratio!r}.")
    return -math.log(ratio) + 0.5 * (ratio * ratio + shift * shift - 1)


def shift_divergence(law: Law, amount: float, sigma: float) -> float:
    """Return the divergence in nats that a shift of one cell makes, averaged over the levels of the law.

    Args:
        law: The law; where its spread follows the weight, a relative shift d scales the spread by 1 + d too.
        amount: Of the noise coordinate.
        sigma: Of the cell, at level 1.
    """
    if law.spread == "following":
        ratio = 1 + amount
        if ratio <= 0:
            return math.inf
    else:
        ratio = 1.0
    each = [normal_divergence(amount / (sigma * f), ratio) for f in law.levels]
    return float(np.mean(each))


def spread_divergence(law: Law, grown: float, sigma: float) -> float:
    """Return the divergence in nats that a larger sigma of one cell makes, averaged over the levels of the law.

    Factors of mean 1 have ``-sigma^2 / 2`` as the centre of their logarithm, which moves with sigma.

    Args:
        law: The law.
        grown: By how much sigma is larger, as a share of it.
        sigma: Of the cell, at level 1.

    >>> round(spread_divergence(Law(sigma=0.3), 0.1, 0.3), 5)
    0.00969
    """
    ratio = 1 + grown
    pull = 0.5 * sigma * (ratio**2 - 1) if law.convention == "mean-1" else 0.0
    return float(np.mean([normal_divergence(pull * f, ratio) for f in law.levels]))


def _translations(law: Law, votes: Votes, lower: NDArray[np.float64]) -> tuple[Translation, ...]:
    assert votes.cells is not None
    cells = votes.cells
    sigma, whole = float(cells.sigma.min()), int(cells.copies.sum())
    loudest = float(cells.sigma.max())
    out = []
    for share in SHARES:
        room = float(majority_divergence(reached_by_inputs(lower, share)))
        for k in (1, 10, 100):
            if k > whole:
                continue
            who = "one cell" if k == 1 else f"any {k:,} cells"
            amount = _largest(lambda a: max(_both(law, a, sigma)), room / k)
            words = "nothing is claimed" if amount is None else amount_words(law, amount)
            out.append(_row(who, k, share, amount, words))
        for k, who in (
            (1, "sigma of one cell"),
            (100, "sigma of 100 cells"),
            (whole, "sigma of all cells"),
        ):
            if k > whole:
                continue
            grown = _largest(lambda a: spread_divergence(law, a, loudest), room / k)
            words = (
                "nothing is claimed"
                if grown is None
                else f"larger than the law's by up to {_percent(grown)}"
            )
            out.append(_row(who, k, share, grown, words))
    return tuple(out)


def _both(law: Law, amount: float, sigma: float) -> tuple[float, float]:
    return shift_divergence(law, amount, sigma), shift_divergence(law, -amount, sigma)


def _percent(share: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(100 * share)))
    return f"{math.floor(100 * share * 10**digits) / 10**digits:g} %"


def _row(what: str, cells: int, share: float, amount: float | None, words: str) -> Translation:
    return Translation(what=what, cells=cells, keep=0.5, inputs=share, amount=amount, words=words)


def _largest(divergence: Callable[[float], float], room: float) -> float | None:
    """Return the largest amount whose divergence, growing with it, stays below ``room``; None if none."""
    if not room > 0:
        return None
    low, high = 0.0, 1.0
    while divergence(high) < room and high < 1e6:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(middle) < room else (low, middle)
    return low if low > 0 else None


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
    text = (
        f"With {percent(1 - alpha)} confidence, for {n - abstentions:,} of {n:,} inputs more than half of the "
        f"devices give {what_counts(rule)} under every law near enough to the one that was drawn from."
    )
    told = next((t for t in translations if t.cells > 100 and t.amount is not None), None)
    if told is None:
        return text
    return (
        f"{text} For {percent(told.inputs)} of the inputs that holds with {told.what} {told.words}."
    )
