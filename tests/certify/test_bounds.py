"""Bounds against the definitions that they come from."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr, ndtri

from ohmloop.certify import (
    clopper_pearson,
    devices_needed,
    kept_at_divergence,
    largest_shift,
    majority_divergence,
    needed_before,
    rank_for,
    reached_by,
    shifted,
    tail_mean,
)
from ohmloop.errors import CertifyError

LEVELS = np.array([0.6, 0.9, 1.0, 1.3, 2.0])


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 400), share=st.floats(0, 1), alpha=st.floats(1e-6, 0.5))
def test_count_bound_solves_its_equation(n: int, share: float, alpha: float) -> None:
    k = round(share * n)
    lower = float(clopper_pearson(k, n, alpha))
    if k == 0:
        assert lower == 0
    else:
        assert float(stats.binom.sf(k - 1, n, lower)) == pytest.approx(alpha, rel=1e-6)
        assert lower < 1


def test_count_bound_is_one_sided_at_alpha() -> None:
    # A two-sided interval would give alpha / 2 here.
    assert float(clopper_pearson(10, 10, 0.05)) == pytest.approx(0.05**0.1)


def test_counts_outside_their_range_are_refused() -> None:
    with pytest.raises(CertifyError, match="received 11 of 10"):
        clopper_pearson(11, 10, 0.05)
    with pytest.raises(CertifyError, match=r"alpha=0\.05 for a confidence"):
        clopper_pearson(1, 2, 95)


@pytest.mark.parametrize(
    ("share", "alpha", "n"), [(0.95, 0.05, 59), (0.99, 0.05, 299), (0.99, 0.01, 459)]
)
def test_59_299_459_devices_are_needed(share: float, alpha: float, n: int) -> None:
    assert devices_needed(share, alpha) == n
    assert rank_for(n, share, alpha) == 1
    with pytest.raises(CertifyError, match=f"at least {n}"):
        rank_for(n - 1, share, alpha)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(60, 3000), share=st.sampled_from([0.5, 0.9, 0.95]), alpha=st.floats(1e-3, 0.3))
def test_rank_is_the_largest_that_covers(n: int, share: float, alpha: float) -> None:
    if n < devices_needed(share, alpha):
        return
    j = rank_for(n, share, alpha)
    assert stats.binom.cdf(j - 1, n, 1 - share) <= alpha < stats.binom.cdf(j, n, 1 - share)


@pytest.mark.slow
def test_rank_bound_covers_scores_with_ties() -> None:
    rng = np.random.default_rng(0)
    # Scores 0, 1/4, ..., 1 with weight .06 at 0: 90 % of devices reach at least 1/4, not 95 %.
    scores = rng.choice(5, size=(2000, 200), p=[0.06, 0.24, 0.3, 0.2, 0.2]) / 4
    false = np.mean([reached_by(row, 0.95, 0.05) > 0 for row in scores])
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean([reached_by(row, 0.9, 0.05) == 0.25 for row in scores]) > 0.3


@pytest.mark.parametrize("tail", [0.05, 0.3, 1.0])
def test_tail_mean_covers_and_comes_near(tail: float) -> None:
    rng = np.random.default_rng(1)
    scores = rng.beta(2, 1, size=(600, 500))
    # Of Beta(2, 1) the quantile is sqrt(u): the tail's mean is its integral over the tail.
    true = 2 / 3 * math.sqrt(tail)
    bounds = np.array([tail_mean(row, tail, 0.05) for row in scores])
    assert np.mean(bounds > true) <= 0.05
    assert bounds.mean() > (0.5 if tail < 0.1 else 0.75) * true


def test_tail_mean_covers_where_a_rare_failure_is_missed() -> None:
    # One device in 200 scores 0: most samples of 100 have none, and must not claim a perfect fleet.
    rng = np.random.default_rng(2)
    scores = (rng.random((1000, 100)) > 0.005).astype(float)
    true = 1 - 0.005 / 0.05
    assert np.mean([tail_mean(row, 0.05, 0.05) > true for row in scores]) <= 0.05


def test_scores_outside_the_assumed_range_are_refused() -> None:
    with pytest.raises(CertifyError, match=r"scores lie in \[0, 1\]"):
        tail_mean([0.5, 1.5], 0.5, 0.05)


@settings(max_examples=60, deadline=None)
@given(p=st.floats(0.05, 0.999), rho=st.floats(0.01, 3))
def test_shift_and_its_inverse_agree(p: float, rho: float) -> None:
    for costs in (np.array([rho]), rho / LEVELS):
        after = float(shifted(p, costs))
        if 1e-6 < after:
            assert needed_before(after, costs) == pytest.approx(p, abs=1e-9)
        assert 0 <= after < p


def test_mixture_of_equal_levels_is_one_level() -> None:
    p = np.array([0.0, 0.2, 0.9])
    together = shifted(p, np.full(4, 0.7) * (1 + 1e-9 * np.arange(4)))
    assert together == pytest.approx(shifted(p, 0.7), abs=1e-7)


def test_mixture_lies_between_its_levels() -> None:
    p = np.linspace(0.1, 0.99, 20)
    both = shifted(p, 0.8 / LEVELS)
    assert (both >= shifted(p, 0.8 / LEVELS.min())).all()
    assert (both <= shifted(p, 0.8 / LEVELS.max())).all()


def test_no_classifier_of_a_mixture_does_worse_than_the_bound() -> None:
    """The class falls on sets chosen by level and noise; the worst is the bound, others stay above."""
    rng = np.random.default_rng(3)
    n, costs = 400_000, 0.8 / LEVELS
    level = rng.integers(0, len(LEVELS), n)
    noise = rng.standard_normal(n)
    moved = noise + costs[level]
    error = math.sqrt(0.25 / n)

    def kept(evidence: np.ndarray, after: np.ndarray, p: float) -> float:
        return float((after <= np.quantile(evidence, p)).mean())

    def ratio(z: np.ndarray) -> np.ndarray:
        return costs[level] * z - costs[level] ** 2 / 2

    for p in (0.6, 0.9, 0.99):
        bound = float(shifted(p, costs))
        assert kept(ratio(noise), ratio(moved), p) == pytest.approx(bound, abs=6 * error)
        for weight in (np.ones(5), LEVELS, 1 / LEVELS**2, LEVELS**3):
            other = kept(weight[level] * noise, weight[level] * moved, p)
            assert other >= bound - 6 * error
    # The average of the levels' own bounds would be too much: it is not what the worst set keeps.
    assert float(shifted(0.9, costs)) < np.mean(ndtr(ndtri(0.9) - costs)) - 1e-3


def test_largest_shift_is_where_the_bound_meets_what_is_kept() -> None:
    p = np.array([0.4, 0.5, 0.6, 0.95, 0.999])
    for costs in (np.array([0.5]), 0.5 / LEVELS):
        found = largest_shift(p, 0.5, costs)
        assert math.isnan(found[0])
        assert found[1] == pytest.approx(0, abs=1e-9)
        for chance, amount in zip(p[2:], found[2:], strict=True):
            assert float(shifted(chance, amount * costs)) == pytest.approx(0.5, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(p=st.floats(0.01, 0.999), divergence=st.floats(0, 3))
def test_divergence_bound_meets_its_definition(p: float, divergence: float) -> None:
    q = float(kept_at_divergence(p, divergence))
    assert 0 <= q <= p
    if 0 < q < p:
        kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
        assert kl == pytest.approx(divergence, rel=1e-6, abs=1e-12)


def test_majority_is_kept_up_to_its_divergence() -> None:
    for p in (0.51, 0.9, 0.999):
        room = float(majority_divergence(p))
        assert room == pytest.approx(-0.5 * math.log(4 * p * (1 - p)))
        assert float(kept_at_divergence(p, room * (1 - 1e-6))) > 0.5
        assert float(kept_at_divergence(p, room * (1 + 1e-6))) < 0.5
    assert math.isnan(float(majority_divergence(0.5)))
