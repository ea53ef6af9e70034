"""Retention fits: known laws come back, the right one is chosen, noise is taken apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.device.test_fit_pulses import simulate as simulate_pulses

from ohmloop.data import PulseTrain, Retention, read_retention
from ohmloop.device import (
    LogLaw,
    PowerDrift,
    WalkDrift,
    fit_measurements,
    fit_retention,
    load_device,
    retention_residuals,
    save_device,
)
from ohmloop.errors import DeviceError

DEVICES = Path(__file__).resolve().parents[3] / "shared" / "data" / "devices"
G_MAX = 25e-6
TIMES = np.geomspace(1.0, 1e5, 61)


def shared(name: str) -> Path:
    path = DEVICES / name
    if not path.exists():
        pytest.skip(f"the public device data are not in ../shared/data/devices/{name}")
    return path


def traces(time: np.ndarray, conductance: np.ndarray, file: str = "simulated.csv") -> Retention:
    return Retention(
        time=np.broadcast_to(time[:, None], conductance.shape),
        conductance=conductance,
        names=tuple(f"cell {k}" for k in range(conductance.shape[1])),
        read_voltage=0.2,
        file=file,
        format="table",
        sha256="0" * 64,
    )


def drifted(
    law: PowerDrift | WalkDrift,
    *,
    cells: int = 100,
    seed: int = 0,
    noise: float = 1e-3,
    low: float = 1e-6,
) -> Retention:
    """Let cells of many levels drift by the law's own `apply`, and read them with noise (simulated)."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.exp(
        torch.empty(cells, dtype=torch.float64).uniform_(
            float(np.log(low)), float(np.log(G_MAX)), generator=generator
        )
    )
    normal = torch.randn(cells, generator=generator, dtype=torch.float64)
    rows = [law.apply(start, float(t), normal, G_MAX) for t in TIMES]
    read = torch.randn(len(rows), cells, generator=generator, dtype=torch.float64)
    return traces(TIMES, (torch.stack(rows) * (1 + noise * read)).numpy())


def test_power_law_with_levels_is_recovered() -> None:
    law = PowerDrift(t0=1.0, nu=LogLaw(slope=-0.012, offset=0.04), spread=LogLaw(offset=0.008))
    model = fit_retention([drifted(law, cells=200)], name="pcm", g_max=G_MAX)
    assert model.physics is not None
    drift = model.physics.drift
    assert isinstance(drift, PowerDrift)
    # Standard errors with 200 cells: slope .0006, offset .0012, spread .0004. Three of each.
    assert drift.nu.slope == pytest.approx(-0.012, abs=0.0018)
    assert drift.nu.offset == pytest.approx(0.04, abs=0.0036)
    assert drift.spread.offset == pytest.approx(0.008, abs=0.0012)
    assert float(model.figures["drift_power_residual"]) < float(model.figures["drift_log_residual"])
    found = retention_residuals(model, [drifted(law, cells=200)])
    assert abs(found.standard.mean()) < 3 / np.sqrt(200)
    assert found.standard.std() == pytest.approx(1, abs=0.15)
    assert np.abs(found.relative).max() < 0.01


@pytest.mark.parametrize("scale", ["relative", "absolute"])
def test_walk_is_recovered_with_its_scale(scale) -> None:
    unit = 1.0 if scale == "relative" else 5e-6
    law = WalkDrift(t0=1.0, scale=scale, shift=-0.004 * unit, rate=0.02 * unit, power=0.5)
    model = fit_retention([drifted(law, cells=300, low=5e-6)], name="rram")
    assert model.physics is not None
    drift = model.physics.drift
    assert isinstance(drift, WalkDrift)
    assert drift.scale == scale
    # The mean's error: 0.06 of spread / sqrt(300) over L = 11.5 gives .0003; the rate's is 4 %.
    assert drift.shift == pytest.approx(-0.004 * unit, abs=0.0012 * unit)
    assert drift.rate == pytest.approx(0.02 * unit, rel=0.15)
    assert drift.power == pytest.approx(0.5, abs=0.08)
    limits = model.figures["drift_rate_interval"]
    assert isinstance(limits, list)
    assert limits[0] < drift.rate < limits[1]


def test_the_law_may_be_stated_but_not_against_the_data() -> None:
    law = PowerDrift(t0=1.0, nu=LogLaw.constant(0.05), spread=LogLaw.constant(0.01))
    trace = drifted(law, cells=20)
    walk = fit_retention([trace], name="x", law="walk", n_bootstrap=0)
    assert walk.physics is not None
    assert isinstance(walk.physics.drift, WalkDrift)
    rising = traces(TIMES, 1e-6 * TIMES[:, None] ** np.array([0.01, 0.02, 0.03]))
    with pytest.raises(DeviceError, match='Take law="walk"'):
        fit_retention([rising], name="x", law="power")
    with pytest.raises(DeviceError, match='"power" or "walk"'):
        fit_retention([trace], name="x", law="exponential")  # type: ignore[arg-type]  # a typo
    assert fit_retention([rising], name="x").figures["drift_law"] == "walk"


def test_a_level_dependence_needs_evidence() -> None:
    law = PowerDrift(t0=1.0, nu=LogLaw.constant(0.05), spread=LogLaw.constant(0.01))
    flat = [
        fit_retention([drifted(law, cells=30, seed=k)], name="x", n_bootstrap=0) for k in range(20)
    ]
    sloped = sum(float(m.figures["drift_nu_slope"]) != 0 for m in flat)
    assert sloped <= 4  # 5 % of 20 is 1; more than 4 has a probability of 0.3 %


def test_one_trace_gives_values_without_intervals() -> None:
    model = fit_retention([traces(TIMES, 1e-6 * TIMES[:, None] ** -0.03)], name="one")
    assert model.figures["drift_nu_mean"] == pytest.approx(0.03, abs=1e-6)
    assert model.figures["drift_nu_mean_interval"] is None
    assert model.physics is not None
    assert model.g_min == 0.0
    assert "assumed" in str(model.physics.source)


def fast(
    *,
    white: float = 0.0,
    flicker: float = 0.0,
    jump: float = 0.0,
    drift: float = 0.0,
    seed: int = 0,
) -> Retention:
    """20,000 readings a hundredth of a second apart (simulated)."""
    n, rng = 20_000, np.random.default_rng(seed)
    g = np.ones(n) + white * rng.standard_normal(n) - drift * np.linspace(0, 1, n)
    if flicker:
        # 1/f noise of variance flicker^2 for each factor e of frequency, by its spectrum.
        m = 8 * n
        f = np.fft.rfftfreq(m, 0.01)
        amplitude = np.zeros(len(f))
        amplitude[1:] = np.sqrt(flicker**2 / f[1:] * m / (4 * 0.01))
        phase = rng.standard_normal((2, len(f)))
        g += np.fft.irfft(amplitude * (phase[0] + 1j * phase[1]), m)[:n]
    if jump:
        state = np.cumsum(rng.random(n) < 0.01) % 2
        g += jump * state
    return traces(0.01 * np.arange(1, n + 1), 1e-5 * g[:, None])


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_white_noise_is_told_from_drift(drift: float) -> None:
    model = fit_retention([fast(white=0.01, drift=drift)], name="x")
    assert model.physics is not None
    # The relative error of a deviation from 20,000 differences is 0.6 %.
    assert model.physics.read.relative == pytest.approx(0.01, rel=0.04)
    assert model.physics.read.flicker is None
    assert model.figures["telegraph_traces"] == 0


def test_flicker_noise_is_told_from_white_noise() -> None:
    found = [
        fit_retention([fast(white=2e-3, flicker=3e-3, seed=k)], name="x").figures for k in range(6)
    ]
    white = np.mean([float(f["read_noise_relative"]) for f in found])
    q = np.mean([float(f["read_flicker"]) for f in found])
    assert white == pytest.approx(2e-3, rel=0.3)
    assert q == pytest.approx(3e-3, rel=0.15)


def test_telegraph_noise_is_seen_with_its_levels_and_times() -> None:
    figures = fit_retention([fast(white=0.005, jump=0.05)], name="x").figures
    assert figures["telegraph_traces"] == 1
    assert figures["telegraph_amplitude"] == pytest.approx(0.05, rel=0.05)
    # About 200 jumps, one second apart on average: two seconds' worth of error in ten.
    assert figures["telegraph_high_seconds"] == pytest.approx(1.0, rel=0.3)
    assert figures["telegraph_low_seconds"] == pytest.approx(1.0, rel=0.3)
    for other in (fast(white=0.02), fast(flicker=0.01), fast(drift=0.3, white=0.001)):
        assert fit_retention([other], name="x").figures["telegraph_traces"] == 0


def test_relative_and_absolute_noise_are_told_apart_by_levels() -> None:
    rng = np.random.default_rng(0)
    level = np.geomspace(1e-6, 1e-4, 9)
    noise = np.sqrt((3e-8) ** 2 + (2e-3 * level) ** 2)
    g = level + noise * rng.standard_normal((4000, 9))
    read = fit_retention([traces(np.arange(1.0, 4001), g)], name="x").physics
    assert read is not None
    assert read.read.relative == pytest.approx(2e-3, rel=0.1)
    assert read.read.absolute == pytest.approx(3e-8, rel=0.1)


def test_equal_readings_have_no_noise_and_no_drift() -> None:
    model = fit_retention([traces(np.arange(1.0, 101), np.full((100, 4), 1e-5))], name="still")
    assert model.physics is not None
    assert model.physics.read.is_zero
    assert model.sigma.value == 0
    cell = model.cell()
    held = torch.full((3,), 1e-5)
    moved = cell.drifted(held, 1e6, torch.ones(3))
    assert torch.allclose(moved, held)


@pytest.mark.parametrize(
    ("time", "match"),
    [(np.array([1.0]), "two different times"), (np.array([3.0, 3.0, 3.0]), "two different times")],
)
def test_a_single_time_is_refused(time: np.ndarray, match: str) -> None:
    with pytest.raises(DeviceError, match=match):
        fit_retention([traces(time, np.full((len(time), 1), 1e-6))], name="x")
    with pytest.raises(DeviceError, match="received none"):
        fit_retention([], name="x")


def test_pulses_and_retention_share_one_window(tmp_path: Path) -> None:
    train = simulate_pulses(cycles=3)
    assert isinstance(train, PulseTrain)
    law = PowerDrift(t0=1.0, nu=LogLaw(slope=-0.012, offset=0.04), spread=LogLaw(offset=0.004))
    model = fit_measurements([drifted(law), train], name="both", n_bootstrap=50)
    physics = model.physics
    assert physics is not None
    assert physics.pulses is not None
    assert isinstance(physics.drift, PowerDrift)
    assert physics.g_max == pytest.approx(50e-6, rel=0.05)
    # The same exponents against a window twice as wide: the offset moves by slope ln 2.
    assert physics.drift.nu.offset == pytest.approx(0.04 - 0.012 * np.log(2), abs=0.005)
    save_device(model, tmp_path / "d.json")
    assert load_device(tmp_path / "d.json") == model


@pytest.mark.slow
def test_public_traces_are_fitted() -> None:
    taox = [
        read_retention(shared(f"taox-retention-bisol/FIB3_I7_3_{k}_retention.csv.gz"))
        for k in (10, 64, 100, 192)
    ]
    figures = fit_retention(taox, name="taox").figures
    assert figures["read_traces"] == 4
    assert 0 < float(figures["read_flicker"]) < 0.01
    levels = read_retention(shared("mnn-cam-526-levels/32-levels-retention.xlsx"), interval=0.7)
    assert levels.time.max() == pytest.approx(1016, abs=1)
    model = fit_retention([levels], name="levels")
    assert model.figures["drift_traces"] == 32
    found = retention_residuals(model, [levels])
    assert len(found.names) == 32
    assert np.abs(found.relative).max() < 0.3


@pytest.mark.slow
@pytest.mark.long
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """120 repetitions at 95 %: between 106 and 119 hits hold with probability 0.995 (binomial)."""
    law = PowerDrift(t0=1.0, nu=LogLaw.constant(0.05), spread=LogLaw.constant(0.01))
    walk = WalkDrift(t0=1.0, scale="relative", shift=-0.002, rate=0.02)
    hits = dict.fromkeys(("nu_mean", "nu_std", "shift", "rate"), 0)
    for seed in range(120):
        power = fit_retention([drifted(law, cells=25, seed=seed)], name="x", n_bootstrap=200)
        moved = fit_retention([drifted(walk, cells=25, seed=seed)], name="x", n_bootstrap=200)
        for key, truth, model in (
            ("nu_mean", 0.05, power),
            ("nu_std", 0.01, power),
            ("shift", -0.002, moved),
            ("rate", 0.02, moved),
        ):
            limits = model.figures[f"drift_{key}_interval"]
            assert isinstance(limits, list)
            hits[key] += limits[0] <= truth <= limits[1]
    for n in hits.values():
        assert 106 <= n <= 119, hits
