"""The published figures of merit: against the published numbers, and against brute force."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.data import Sweep, figures_of_merit, monotone_window, published_ramp, read


def make_sweep(voltage: np.ndarray, current: np.ndarray) -> Sweep:
    voltage = voltage[:, None] if voltage.ndim == 1 else voltage
    return Sweep(
        voltage=np.broadcast_to(voltage, current.shape),
        current=current,
        cycle_names=tuple(f"c{k}" for k in range(current.shape[1])),
        file="made.csv",
        format="text",
        sha256="0" * 64,
    )


@pytest.mark.slow
def test_all_43_devices_have_the_published_figures(nanowires: Path) -> None:
    with (nanowires / "recipes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 43
    for row in rows:
        figures = figures_of_merit(read(nanowires / "raw" / row["file"]), n_bootstrap=0)
        assert figures.sigma == pytest.approx(float(row["published_sigma"]), abs=1e-9, rel=0)
        assert figures.monotonicity == float(row["published_monotonicity"])
        assert figures.usability == pytest.approx(float(row["published_usability"]), abs=5e-9)


def brute_window(ramp: list[float]) -> tuple[int, int]:
    best = (0, 0)
    for a in range(len(ramp)):
        falls = 0
        for b in range(a, len(ramp)):
            if b > a and not ramp[b] > ramp[b - 1]:
                falls += 1
            if falls > 2:
                break
            if b - a > best[1] - best[0]:
                best = (a, b)
    return best


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")]), min_size=1, max_size=40))
def test_monotone_window_is_the_earliest_longest_one(ramp: list[float]) -> None:
    assert monotone_window(np.array(ramp)) == brute_window(ramp)


def test_ramp_is_the_first_half_of_the_positive_rows() -> None:
    voltage = np.array([0, 1, 2, 3, 2, 1, 0, -1, -2, -1, 0], dtype=float)
    ramp = published_ramp(make_sweep(voltage, np.ones((11, 2))))
    # Five positive rows give floor(5 / 2) = 2; the larger of the two voltages is at "compliance".
    assert ramp.conductance.shape == (2, 2)
    assert np.isnan(ramp.conductance).all()


def test_points_at_compliance_are_left_out() -> None:
    voltage = np.concatenate([np.linspace(0.1, 1, 10), np.linspace(1, 0.1, 10)])
    current = np.minimum(voltage, 0.55)[:, None] * np.ones((1, 3)) * 1e-3
    ramp = published_ramp(make_sweep(voltage, current))
    assert np.isfinite(ramp.conductance[:, 0]).sum() == 5
    assert ramp.n_clipped == 15


@pytest.mark.parametrize("own_voltage", [False, True])
def test_sigma_of_lognormal_cycles_is_recovered(own_voltage: bool) -> None:
    rng = np.random.default_rng(5)
    up = np.linspace(0.05, 2, 40)
    voltage = np.concatenate([up, up[::-1]])
    sigma, n = 0.3, 400
    noise = np.exp(sigma * rng.standard_normal((80, n)))
    current = 1e-6 * voltage[:, None] ** 3 * noise
    sweep = make_sweep(voltage, current)
    if own_voltage:
        sweep = make_sweep(np.array(np.broadcast_to(voltage[:, None], current.shape)), current)
    figures = figures_of_merit(sweep, n_bootstrap=0)
    # Trimming 5 % on each side of a normal law leaves sd 0.789 sigma (closed form of the truncated
    # normal: 1 - 2 z phi(z) / 0.9 = 0.6230, z = 1.6449); compliance and a short window add little.
    assert figures.sigma == pytest.approx(sigma * 0.7893, rel=0.06)


def test_order_of_cycles_does_not_matter(nanowires: Path) -> None:
    sweep = read(sorted((nanowires / "raw").glob("*.xlsx"))[0])
    shuffled = make_sweep(sweep.voltage[:, 0], sweep.current[:, ::-1])
    a, b = (figures_of_merit(s, n_bootstrap=0) for s in (sweep, shuffled))
    assert a.sigma == pytest.approx(b.sigma, rel=1e-12)
    assert a.set_voltage == b.set_voltage


def test_one_cycle_says_that_sigma_means_nothing() -> None:
    up = np.linspace(0.1, 2, 30)
    figures = figures_of_merit(make_sweep(np.r_[up, up[::-1]], np.r_[up, up[::-1]][:, None] * 1e-6))
    assert figures.sigma == pytest.approx(0.0, abs=1e-7)
    assert figures.sigma_interval is None
    assert any("one cycle" in note for note in figures.notes)
