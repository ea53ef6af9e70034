"""One crossbar in closed form, against linear programming, enumeration of corners, and simulated devices."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from ohmloop.certify import crossbar_tolerance, crossbar_yield, crossbar_yield_bound, pair_yield
from ohmloop.errors import CertifyError


def crossbar(
    seed: int, classes: int = 4, width: int = 6, inputs: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((classes, width)),
        rng.standard_normal((inputs, width)),
        rng.standard_normal(classes),
    )


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_tolerance_is_what_linear_programming_finds(with_bias: bool) -> None:
    """For each rival: the smallest r for which some |w' - w| <= r |w| brings the lead to zero."""
    w, x, b = crossbar(0)
    b = b if with_bias else np.zeros(len(w))
    found = crossbar_tolerance(w, x, bias=b if with_bias else None)
    for k in range(len(x)):
        out = w @ x[k] + b
        c = int(out.argmax())
        smallest = math.inf
        for j in set(range(len(w))) - {c}:
            terms = np.concatenate([w[c] * x[k], [b[c]], -w[j] * x[k], [-b[j]]])
            n = len(terms)
            # Unknowns: relative deviations d and r. Minimise r, with sum terms (1 + d) = 0 and |d| <= r.
            eye = np.eye(n)
            run = linprog(
                np.r_[np.zeros(n), 1.0],
                A_ub=np.block([[eye, -np.ones((n, 1))], [-eye, -np.ones((n, 1))]]),
                b_ub=np.zeros(2 * n),
                A_eq=np.r_[terms, 0.0][None],
                b_eq=[-terms.sum()],
                bounds=[(None, None)] * n + [(0, None)],
            )
            assert run.success
            smallest = min(smallest, float(run.fun))
        assert found[k] == pytest.approx(smallest, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["relative", "log"]))
def test_no_corner_inside_flips_and_one_outside_does(seed: int, kind: str) -> None:
    w, x, _ = crossbar(seed, classes=3, width=3, inputs=2)
    radii = crossbar_tolerance(w, x, kind=kind)
    signs = np.array(list(itertools.product((-1, 1), repeat=9))).reshape(-1, 3, 3)
    for k, r in enumerate(radii):
        c = int((w @ x[k]).argmax())
        for scale, holds in ((1 - 1e-6, True), (1 + 1e-6, False)):
            step = scale * r * signs
            moved = w * (np.exp(step) if kind == "log" else 1 + step)
            out = moved @ x[k]
            rivals = np.delete(out, c, axis=1).max(1)
            assert bool(np.all(out[:, c] > rivals)) == holds


def test_the_tolerance_of_a_pair_is_margin_over_absolute_sums() -> None:
    w, x, _ = crossbar(1, classes=2)
    margin = np.abs(x @ (w[0] - w[1]))
    expected = margin / (np.abs(x) @ np.abs(w[0]) + np.abs(x) @ np.abs(w[1]))
    np.testing.assert_allclose(crossbar_tolerance(w, x), expected, rtol=1e-12)


def test_the_pair_yield_is_the_published_formula() -> None:
    w, x, _ = crossbar(2, classes=2)
    sigma = 0.4
    margin = np.abs(x @ (w[0] - w[1]))
    spread = sigma * np.sqrt(x**2 @ (w[0] ** 2 + w[1] ** 2))
    expected = norm.cdf(margin / spread)
    np.testing.assert_allclose(pair_yield(w, x, sigma).min(1), expected, rtol=1e-12)
    np.testing.assert_allclose(crossbar_yield(w, x, sigma), expected, atol=1e-9)


def simulated(
    w: np.ndarray, x: np.ndarray, b: np.ndarray, factor: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Return the share of devices that keep the nominal class, by input."""
    classes = (x @ w.T + b).argmax(1)
    out = np.einsum("dci,ni->dnc", w * factor, x) + (b * offset)[:, None]
    share: np.ndarray = (out.argmax(-1) == classes).mean(0)
    return share


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5])
def test_the_yield_is_that_of_simulated_devices(sigma: float) -> None:
    w, x, b = crossbar(3)
    rng = np.random.default_rng(7)
    n = 40_000
    factor = 1 + sigma * rng.standard_normal((n, *w.shape))
    offset = 1 + sigma * rng.standard_normal((n, len(b)))
    share = simulated(w, x, b, factor, offset)
    exact = crossbar_yield(w, x, sigma, bias=b)
    error = np.sqrt(exact * (1 - exact) / n) + 1e-5
    assert np.all(np.abs(share - exact) < 4.5 * error)  # 4.5 standard errors, 8 inputs


def test_the_yield_lies_between_the_union_and_the_worst_pair() -> None:
    w, x, b = crossbar(4, classes=10, inputs=50)
    for sigma in (0.05, 0.3, 1.0):
        pairs = pair_yield(w, x, sigma, bias=b)
        exact = crossbar_yield(w, x, sigma, bias=b)
        assert np.all(exact <= pairs.min(1) + 1e-9)
        assert np.all(exact >= 1 - (1 - pairs).sum(1) - 1e-9)


def test_quiet_rivals_are_integrated_too() -> None:
    """A rival whose output hardly moves: the yield is the class's own normal distribution."""
    w = np.array([[1.0, 0.0], [0.0, 1e-4]])
    x = np.array([[1.0, 5000.0]])
    # y_0 ~ N(1, .5^2); y_1 = .5 with deviation .25; and one with deviation 5e-5.
    assert crossbar_yield(w, x, 0.5)[0] == pytest.approx(
        norm.cdf(0.5 / math.hypot(0.5, 0.25)), abs=1e-9
    )


@pytest.mark.parametrize("ratio", [0.0, 1e-12, 1e-6, 5e-5, 1e-3, 0.1, 0.49, 1.0, 30.0, 1e4])
def test_the_integral_is_the_closed_form_whatever_the_ratio_of_spreads(ratio: float) -> None:
    """One rival: the difference is normal. Copies of a step at other places change nothing below the lead."""
    for lead in (0.02, 0.7, 2.5):
        # y_0 ~ N(1, .5^2); y_1 ~ N(1 - lead, (.5 ratio)^2), made of two cells of opposite sign.
        gain = math.sqrt(max(ratio**2 - (1 - lead) ** 2, 0.0) / 2)
        w = np.array([[1.0, 0.0, 0.0], [1 - lead, gain, -gain]])
        spread = math.sqrt((1 - lead) ** 2 + 2 * gain**2)
        expected = norm.cdf(lead / (0.5 * math.hypot(1.0, spread)))
        got = crossbar_yield(w, np.ones((1, 3)), 0.5)[0]
        assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("width", [0.0, 3e-9, 4e-5, 2e-3])
def test_quiet_rivals_close_together_are_integrated_one_by_one(width: float) -> None:
    """Three rivals near 0 that hardly move, against a fine trapezoidal sum around their steps."""
    means, own = width * np.array([0.0, 1.5, 3.0]), 0.5
    sigma = 0.5
    tops = np.zeros((4, 7))
    tops[0, 0] = 1.0
    for k, mean in enumerate(means, start=1):  # two cells of opposite sign make a mean and a width
        tops[k, 2 * k - 1 : 2 * k + 1] = [mean / 2 + width, mean / 2 - width]
    got = crossbar_yield(tops, np.ones((1, 7)), sigma)[0]
    spread = sigma * np.sqrt((tops[1:] ** 2).sum(1))
    y = np.concatenate(
        [
            np.linspace(-30, 30, 400_001) * max(width, 1e-9),
            np.linspace(30 * max(width, 1e-9), 6, 400_001),
        ]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        lead = (y[:, None] - means) / spread
    f = norm.pdf(y, 1.0, own) * norm.cdf(np.where(np.isnan(lead), 0.0, lead)).prod(1)
    expected = np.trapezoid(f[:400_001], y[:400_001]) + np.trapezoid(f[400_001:], y[400_001:])
    assert got == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("convention", ["median-1", "mean-1"])
def test_the_lognormal_bound_is_below_simulated_devices_and_not_empty(convention: str) -> None:
    w, x, b = crossbar(5, inputs=30)
    rng = np.random.default_rng(8)
    n = 20_000
    for sigma in (0.05, 0.2, 0.6):
        shift = -(sigma**2) / 2 if convention == "mean-1" else 0.0
        factor = np.exp(sigma * rng.standard_normal((n, *w.shape)) + shift)
        offset = np.exp(sigma * rng.standard_normal((n, len(b))) + shift)
        share = simulated(w, x, b, factor, offset)
        bound = crossbar_yield_bound(w, x, sigma, bias=b, convention=convention)
        assert np.all(bound <= share + 4.5 * np.sqrt(share * (1 - share) / n) + 1e-3)
        assert np.all((bound >= 0) & (bound <= 1))
        if sigma == 0.05:
            assert np.median(bound) > 0.9


def test_classes_that_nothing_speaks_against_are_kept_at_any_drift() -> None:
    w = np.array([[1.0, 2.0], [-1.0, -0.5]])
    assert crossbar_tolerance(w, [[1.0, 1.0]], kind="log").tolist() == [math.inf]
    assert crossbar_yield_bound(w, [[1.0, 1.0]], 2.0)[0] == 1.0
    assert crossbar_tolerance(w, [[1.0, 1.0]]).tolist() == [1.0]


def test_ties_and_dead_inputs_have_no_tolerance() -> None:
    w = np.array([[1.0, 2.0], [1.0, 2.0]])
    for kind in ("relative", "log"):
        assert crossbar_tolerance(w, [[1.0, 1.0], [0.0, 0.0]], kind=kind).tolist() == [0.0, 0.0]
    assert crossbar_yield_bound(w, [[1.0, 1.0]], 0.3)[0] == 0.0


def test_bad_arguments_are_refused() -> None:
    w, x, b = crossbar(0)
    with pytest.raises(CertifyError, match="weights C x I"):
        crossbar_tolerance(w, x[:, :3])
    with pytest.raises(CertifyError, match="weights C x I"):
        crossbar_yield(w[:1], x, 0.3)
    with pytest.raises(CertifyError, match="sigma is a number > 0"):
        pair_yield(w, x, 0.0)
    with pytest.raises(CertifyError, match='"relative" or "log"'):
        crossbar_tolerance(w, x, kind="linf")  # type: ignore[arg-type]
    with pytest.raises(CertifyError, match='"median-1" or "mean-1"'):
        crossbar_yield_bound(w, x, 0.3, bias=b, convention="mode-1")  # type: ignore[arg-type]
