"""Retention: exponents and spreads come back out, and time before the first reading changes nothing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from ohmloop.device import LogLaw, Physics, PowerDrift, Thermal, WalkDrift
from ohmloop.errors import DeviceError

N = 200_000


def normals(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cell(drift: PowerDrift | WalkDrift, **more: object) -> Physics:
    return Physics.model_validate({"g_min": 0.0, "g_max": 25e-6, "drift": drift, **more})


def at(physics: Physics, g: float, seconds: float, n: int = N) -> Tensor:
    return physics.drifted(torch.full((n,), g, dtype=torch.float64), seconds, normals(n))


@settings(deadline=None)
@given(st.floats(0, 0.2), st.floats(1, 1e8))
def test_a_fixed_exponent_is_recovered(nu: float, seconds: float) -> None:
    physics = cell(PowerDrift(t0=20.0, nu=LogLaw.constant(nu)))
    held = float(at(physics, 5e-6, seconds, 1)[0])
    expected = 5e-6 * (max(seconds, 20.0) / 20.0) ** -nu
    assert held == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_exponents_have_the_published_mean_and_spread(share: float) -> None:
    drift = PowerDrift(
        t0=20.0,
        nu=LogLaw(slope=-0.0155, offset=0.0244, low=0.049, high=0.1),
        spread=LogLaw(slope=-0.0125, offset=-0.0059, low=0.008, high=0.045),
    )
    held = at(cell(drift), share * 25e-6, 2e5)
    nu = -(held / (share * 25e-6)).log() / math.log(1e4)
    mean = min(max(-0.0155 * math.log(share) + 0.0244, 0.049), 0.1)
    std = min(max(-0.0125 * math.log(share) - 0.0059, 0.008), 0.045)
    # What falls below 0 is 0: moments of max(X, 0) for a normal X, in closed form.
    z = mean / std
    first = mean * stats.norm.cdf(z) + std * stats.norm.pdf(z)
    second = (mean**2 + std**2) * stats.norm.cdf(z) + mean * std * stats.norm.pdf(z)
    spread = math.sqrt(second - first**2)
    assert float(nu.mean()) == pytest.approx(first, abs=5 * spread / math.sqrt(N))
    # 5 standard errors of a variance whose kurtosis is at most 4.
    assert float(nu.var()) == pytest.approx(spread**2, rel=5 * math.sqrt(3 / N))
    assert float(nu.min()) >= -1e-12


@pytest.mark.parametrize("scale", ["absolute", "relative"])
@pytest.mark.parametrize(("power", "start"), [(0.5, 0.0), (1.0, 0.002)])
def test_a_walk_shifts_and_broadens_as_it_says(scale: str, power: float, start: float) -> None:
    unit = 25e-6 if scale == "absolute" else 1.0
    drift = WalkDrift(
        t0=1.0,
        scale=scale,
        shift=-0.001 * unit,
        start=start * unit,
        rate=0.004 * unit,
        power=power,
    )
    g = 10e-6
    whole = 25e-6 if scale == "absolute" else g
    for seconds in (10.0, 1e5):
        log = math.log(seconds)
        change = (at(cell(drift), g, seconds) - g) / whole
        std = start + 0.004 * log**power
        assert float(change.mean()) == pytest.approx(-0.001 * log, abs=5 * std / math.sqrt(N))
        assert float(change.var()) == pytest.approx(std**2, rel=5 * math.sqrt(2 / N))


def test_the_shape_of_a_walk_follows_the_conductance() -> None:
    drift = WalkDrift(t0=1.0, scale="absolute", rate=1e-7, shape=(1.0, 2.0, -3.5))
    g = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64) * 25e-6
    moved = cell(drift).drifted(g, math.e, torch.ones(3, dtype=torch.float64)) - g
    torch.testing.assert_close(
        moved, torch.tensor([1.0, 1 + 1.0 - 0.875, 0.0], dtype=torch.float64) * 1e-7
    )


@pytest.mark.parametrize(
    "drift",
    [
        PowerDrift(t0=20.0, nu=LogLaw.constant(0.06), spread=LogLaw.constant(0.02)),
        WalkDrift(t0=20.0, scale="relative", shift=-0.01, rate=0.02),
    ],
)
def test_nothing_moves_before_the_first_reading(drift: PowerDrift | WalkDrift) -> None:
    for seconds in (0.0, 1.0, 20.0):
        assert float((at(cell(drift), 3e-6, seconds, 10) - 3e-6).abs().max()) == 0


def test_no_conductance_becomes_negative() -> None:
    drift = WalkDrift(t0=1.0, scale="absolute", rate=10e-6)
    assert float(at(cell(drift), 1e-6, 1e6).min()) == 0


def test_stuck_cells_do_not_drift() -> None:
    physics = cell(PowerDrift(t0=1.0, nu=LogLaw.constant(0.1)))
    g = torch.tensor([25e-6, 25e-6], dtype=torch.float64)
    mask = torch.tensor([0, 2], dtype=torch.int8)
    held = physics.drifted(g, 1e4, torch.zeros(2, dtype=torch.float64), mask)
    assert float(held[1]) == 25e-6
    assert float(held[0]) < 11e-6


def test_heat_runs_the_clock_faster() -> None:
    thermal = Thermal(reference=300, low=300, high=400, activation=0.8)
    physics = cell(PowerDrift(t0=1.0, nu=LogLaw.constant(0.05)), temperature=thermal)
    g = torch.tensor([9e-6], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    hot = physics.drifted(g, 100.0, zero, temperature=350.0)
    same = physics.drifted(g, 100.0 * thermal.acceleration(350.0), zero)
    torch.testing.assert_close(hot, same)


def test_the_gradient_of_a_drifted_cell_is_that_of_the_law() -> None:
    drift = PowerDrift(t0=20.0, nu=LogLaw(slope=-0.0155, offset=0.03, low=0.0, high=0.1))
    g = torch.tensor([4e-6, 12e-6], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(2, dtype=torch.float64)
    physics = cell(drift)
    physics.drifted(g, 3600.0, zero).sum().backward()
    assert g.grad is not None
    step = 1e-10
    with torch.no_grad():
        high, low = (physics.drifted(g + s, 3600.0, zero) for s in (step, -step))
    np.testing.assert_allclose(g.grad.numpy(), ((high - low) / (2 * step)).numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LogLaw(offset=1.0, low=2.0, high=1.0), "lies above"),
        (lambda: PowerDrift(t0=1.0, nu=LogLaw(slope=0.01, offset=0.05)), "Give it a lower bound"),
        (lambda: PowerDrift(t0=0.0, nu=LogLaw.constant(0.1)), "greater than 0"),
        (lambda: WalkDrift(t0=1.0, scale="relative", rate=-0.1), "greater than or equal to 0"),
        (lambda: WalkDrift(t0=1.0, scale="relative", raet=0.1), 'Did you mean "rate"'),
        (lambda: cell({"kind": "melt", "t0": 1.0}), "melt"),  # type: ignore[arg-type]  # the point
    ],
)
def test_impossible_drifts_are_refused(make, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        make()


def test_a_drift_asks_for_a_real_time() -> None:
    with pytest.raises(DeviceError, match="finite number of seconds"):
        at(cell(WalkDrift(t0=1.0, scale="relative", rate=0.1)), 1e-6, float("nan"), 1)
