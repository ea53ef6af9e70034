"""Exact bounds from counts and ranks, and what a shift of the noise does to a probability.

Sources: Clopper & Pearson, Biometrika 26, 404 (1934), for counts; Wilks, Ann. Math. Stat. 12, 91 (1941), for
order statistics; Anderson (1969), for means between bounds on them; Neyman & Pearson (1933) and Cohen,
Rosenfeld & Kolter, ICML (2019), for shifts of a normal law; the data processing inequality for divergences.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

from ohmloop.errors import CertifyError

Floats = NDArray[np.float64]
_STEPS = 52
"""Halvings of a bisection: the resolution of float64. Whatever is left errs to the safe side."""


def check_alpha(alpha: float) -> None:
    """Raise CertifyError unless ``alpha`` lies in (0, 1/2]."""
    if not 0 < alpha <= 0.5:
        raise CertifyError(
            f"alpha is the chance of a false claim and lies in (0, 0.5]; received {alpha!r}. "
            "Write alpha=0.05 for a confidence of 95 %."
        )


def clopper_pearson(k: ArrayLike, n: int, alpha: float) -> Floats:
    """Return the exact lower confidence bound of a probability, one-sided.

    ``BetaInv(alpha; k, n - k + 1)``; 0 at k = 0, and ``alpha^(1/n)`` at k = n, never 1 (Clopper & Pearson
    1934).

    Args:
        k: How often it happened, any shape.
        n: In how many independent tries, >= 1.
        alpha: Chance that the bound lies above the truth, at most.

    >>> float(clopper_pearson(59, 59, 0.05).round(3))
    0.95
    """
    check_alpha(alpha)
    count = np.asarray(k)
    if n < 1 or (count < 0).any() or (count > n).any():
        raise CertifyError(f"a count lies in [0, n] with n >= 1; received {k!r} of {n}.")
    inner = np.clip(count, 1, n)
    bound = np.where(count > 0, stats.beta.ppf(alpha, inner, n - inner + 1), 0.0)
    return np.asarray(np.where(count == n, alpha ** (1 / n), bound), dtype=np.float64)


def devices_needed(share: float, alpha: float) -> int:
    """Return how many devices a statement about a share of all devices takes at least.

    The smallest n with ``share^n <= alpha``: then the worst of n is a bound.

    >>> devices_needed(0.95, 0.05), devices_needed(0.99, 0.05), devices_needed(0.99, 0.01)
    (59, 299, 459)
    """
    check_alpha(alpha)
    if not 0 < share < 1:
        raise CertifyError(f"a share of the devices lies in (0, 1); received {share!r}.")
    n = math.ceil(math.log(alpha) / math.log(share))
    # Rounding of the quotient may miss by one on either side.
    while n > 1 and share ** (n - 1) <= alpha:
        n -= 1
    while share**n > alpha:
        n += 1
    return n


def rank_for(n: int, share: float, alpha: float) -> int:
    """Return the rank j of the order statistic that bounds what ``share`` of the devices reach.

    The largest j with ``P(Binomial(n, 1 - share) <= j - 1) <= alpha``: the j-th smallest of n independent
    scores then lies at or below the (1 - share)-quantile with confidence 1 - alpha, whatever the law of
    the scores, ties included (Wilks 1941).

    Raises:
        CertifyError: If n is too small for any rank; the text says how many it takes.
    """
    least = devices_needed(share, alpha)
    if n < least:
        raise CertifyError(
            f"{n} devices cannot support a statement about {100 * share:.4g} % of all devices at confidence "
            f"{100 * (1 - alpha):.4g} %: it takes at least {least}. Draw more, or ask for a smaller share."
        )
    j = int(stats.binom.ppf(alpha, n, 1 - share))
    # ppf is the smallest integer whose distribution function reaches alpha: walk to the exact rank.
    while j > 0 and stats.binom.cdf(j - 1, n, 1 - share) > alpha:
        j -= 1
    while stats.binom.cdf(j, n, 1 - share) <= alpha:
        j += 1
    return max(j, 1)


def reached_by(scores: ArrayLike, share: float, alpha: float) -> float:
    """Return a score that at least ``share`` of all devices reach, at confidence 1 - alpha.

    An order statistic of the sample (`rank_for`); a percentile of the sample is no such bound.

    Args:
        scores: ``N``, one a device, independent; larger is better.
        share: Of the devices, in (0, 1).
        alpha: Chance that the claim is false, at most.

    >>> reached_by(np.arange(59) / 58, 0.95, 0.05)
    0.0
    """
    found = np.sort(np.asarray(scores, dtype=np.float64))
    return float(found[rank_for(len(found), share, alpha) - 1])


def tail_mean(
    scores: ArrayLike, tail: float, alpha: float, *, low: float = 0.0, high: float = 1.0
) -> float:
    """Return a lower bound of the mean score of the worst ``tail`` of all devices (CVaR).

    For some ranks j, fixed by n, tail and alpha, the j-th smallest score lies at or below the u-quantile for
    all u > b_j, where ``b_j = BetaInv(1 - alpha / m; j, n - j + 1)``: the law of the order statistics of a
    uniform sample, with Bonferroni's correction over the m ranks. Below b_1 nothing is known but ``low``. The
    mean of that staircase over the lowest ``tail`` is the bound (the idea of Anderson 1969, for the mean).

    Args:
        scores: ``N`` scores in [low, high], independent; larger is better.
        tail: Share of the worst devices, in (0, 1].
        alpha: Chance that the claim is false, at most.
        low: The smallest score that is possible.
        high: The largest score that is possible.
    """
    check_alpha(alpha)
    found = np.sort(np.asarray(scores, dtype=np.float64))
    if not 0 < tail <= 1 or len(found) == 0:
        raise CertifyError(
            f"a tail lies in (0, 1] and needs scores; received {tail!r}, {len(found)} scores."
        )
    if found[0] < low or found[-1] > high:
        raise CertifyError(
            f"scores lie in [{low:g}, {high:g}] by assumption; received {found[0]:g} to {found[-1]:g}."
        )
    n = len(found)
    ranks = _ranks(n, tail)
    ends = stats.beta.isf(alpha / len(ranks), ranks, n - ranks + 1)
    # Mass up to b_1 sits at the floor, from b_j to b_(j+1) at the j-th ranked score.
    edges = np.minimum(np.concatenate([ends, [1.0]]), tail)
    values = np.concatenate([[low], found[ranks - 1]])
    return float(np.diff(edges, prepend=0.0) @ values / tail)


def _ranks(n: int, tail: float) -> NDArray[np.int64]:
    """Return ranks that grow by a fifth from 1, up to the tail's own."""
    last = max(1, min(n, math.floor(n * tail)))
    steps = math.ceil(math.log(last, 1.2)) + 1 if last > 1 else 1
    grown = np.ceil(1.2 ** np.arange(steps) - 1e-9).astype(np.int64)
    return np.unique(np.minimum(grown, last))


def shifted(p: ArrayLike, costs: ArrayLike) -> Floats:
    """Return the least probability that an event of probability ``p`` keeps after a shift of normal noise.

    With one cost it is ``Phi(Phi^-1(p) - cost)`` (Neyman & Pearson; Cohen, Rosenfeld & Kolter 2019). With
    m costs the law is a mixture: one of m equally likely levels is drawn with the noise, and the shift is so
    many deviations of each. The most powerful test thresholds one likelihood ratio for all levels: the bound
    is ``mean Phi(u / c - c / 2)`` with u from ``mean Phi(u / c + c / 2) = p``.

    Args:
        p: Probabilities in [0, 1), any shape.
        costs: ``m`` norms of the shift in deviations, >= 0; all zero or none.

    Returns:
        The shape of ``p``.

    >>> float(shifted(0.9, 0.5).round(4))
    0.7828
    """
    chance, cost = np.asarray(p, dtype=np.float64), _costs(costs)
    if np.ptp(cost) <= 1e-12 * cost.max():
        return np.asarray(ndtr(ndtri(chance) - cost.max()), dtype=np.float64)
    low, _ = _threshold(chance.reshape(-1, 1), cost, cost / 2)
    # The lower end of the bracket: rounding errs to the safe side.
    kept = np.where(chance.reshape(-1) > 0, ndtr(low / cost - cost / 2).mean(-1), 0.0)
    return np.asarray(kept.reshape(chance.shape), dtype=np.float64)


def needed_before(keep: float, costs: ArrayLike) -> float:
    """Return the probability before a shift that is enough for ``keep`` after it: the inverse of `shifted`.

    ``Phi(Phi^-1(keep) + cost)`` for one cost.

    >>> round(needed_before(0.5, 1.0), 4)
    0.8413
    """
    cost = _costs(costs)
    if np.ptp(cost) <= 1e-12 * cost.max():
        # Through the upper tail, which keeps its digits near 1.
        return float(1 - ndtr(-(ndtri(keep) + cost.max())))
    _, high = _threshold(np.full((1, 1), keep), cost, -cost / 2)
    return float(ndtr(high / cost + cost / 2).mean())


def _costs(costs: ArrayLike) -> Floats:
    cost = np.atleast_1d(np.asarray(costs, dtype=np.float64))
    if (cost < 0).any() or not np.isfinite(cost).all():
        raise CertifyError(f"the cost of a shift is finite and >= 0; received {cost}.")
    if cost.max() > 0 and (cost == 0).any():
        raise CertifyError("a shift costs nothing under some levels of the law, but not under all.")
    return cost


def _threshold(p: Floats, cost: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Bracket u of ``mean Phi(u / cost + offset) = p``: ``n x 1`` probabilities, ``n x m`` or ``m`` costs."""
    top = cost.max(-1, keepdims=True)
    high = np.broadcast_to(40 * top + top**2, p.shape).copy()
    low = -high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        under = ndtr(middle / cost + offset).mean(-1, keepdims=True) <= p
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return low, high


def largest_shift(p: ArrayLike, keep: ArrayLike, costs: ArrayLike) -> Floats:
    """Return how often a shift of ``costs`` may be made before ``p`` falls below ``keep``; NaN where p < keep.

    For one cost it is ``(Phi^-1(p) - Phi^-1(keep)) / cost``.

    Args:
        p: Probabilities in [0, 1), any shape.
        keep: In (0, 1), broadcast against ``p``.
        costs: Norms of the unit shift in deviations, > 0: ``m`` for all, or ``... x m`` with the shape of
            ``p`` and ``keep`` together.
    """
    chance, wanted = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(keep, np.float64))
    cost = np.broadcast_to(_costs(costs), (*chance.shape, np.shape(np.atleast_1d(costs))[-1]))
    shape, rows = (
        chance.shape,
        np.concatenate(
            [chance.reshape(-1, 1), wanted.reshape(-1, 1), cost.reshape(chance.size, -1)], 1
        ),
    )
    # Many inputs share a count, and so a bound: each is solved for once.
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    found = _largest(unique[:, :1], unique[:, 1:2], unique[:, 2:])[inverse.reshape(-1)]
    return np.asarray(np.where(chance >= wanted, found.reshape(shape), np.nan), dtype=np.float64)


def _largest(p: Floats, keep: Floats, cost: Floats) -> Floats:
    """Solve `largest_shift` for rows: ``n x 1``, ``n x 1``, ``n x m``; the lower end of a bracket."""
    top = np.maximum((ndtri(p) - ndtri(keep)) / cost.min(-1, keepdims=True), 0.0)
    if (np.ptp(cost, -1) <= 1e-12 * cost.max(-1)).all():
        return np.asarray(top[:, 0], dtype=np.float64)
    low, high = np.zeros_like(p), top
    for _ in range(_STEPS):
        middle = (low + high) / 2
        moved = np.maximum(middle, 1e-300) * cost
        _, end = _threshold(keep, moved, -moved / 2)
        holds = p >= ndtr(end / moved + moved / 2).mean(-1, keepdims=True)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return np.asarray(low[:, 0], dtype=np.float64)


def bernoulli_divergence(q: ArrayLike, p: ArrayLike) -> Floats:
    """Return kl(q || p) = q ln(q / p) + (1 - q) ln((1 - q) / (1 - p)), nats."""
    a, b = np.asarray(q, dtype=np.float64), np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(a > 0, a * (np.log(a) - np.log(b)), 0.0)
        second = np.where(a < 1, (1 - a) * (np.log1p(-a) - np.log1p(-b)), 0.0)
    return np.asarray(first + second, dtype=np.float64)


def kept_at_divergence(p: ArrayLike, divergence: float) -> Floats:
    """Return the least probability under Q of an event that has ``p`` under P, with KL(Q || P) given.

    ``min{q <= p : kl(q || p) <= KL}``, by the data processing inequality: any law, any event.

    Args:
        p: Probabilities in [0, 1), any shape.
        divergence: KL(Q || P) >= 0, nats.

    >>> float(kept_at_divergence(0.9, 0.0)), float(kept_at_divergence(0.9, 0.2).round(3))
    (0.9, 0.668)
    """
    if not divergence >= 0:
        raise CertifyError(f"a divergence is >= 0 nats; received {divergence!r}.")
    chance = np.asarray(p, dtype=np.float64)
    low, high = np.zeros_like(chance), chance.copy()
    for _ in range(_STEPS):
        middle = (low + high) / 2
        outside = bernoulli_divergence(middle, chance) > divergence
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    # Of the bracket the lower end, except where nothing has to be given up.
    return np.where(divergence == 0, chance, low)


def majority_divergence(p: ArrayLike) -> Floats:
    """Return the largest KL(Q || P) below which an event of probability p > 1/2 keeps the majority.

    ``-1/2 ln(4 p (1 - p)) = kl(1/2 || p)``; NaN where p <= 1/2.
    """
    chance = np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore"):
        found = -0.5 * (math.log(4) + np.log(chance) + np.log1p(-chance))
    return np.asarray(np.where(chance > 0.5, found, np.nan), dtype=np.float64)
