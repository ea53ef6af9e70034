"""Pulses and write-verify: the curve, the table, and what a programming loop may and may not reach."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from ohmloop.device import (
    Faults,
    Flicker,
    Physics,
    ReadNoise,
    SoftPulses,
    TablePulses,
    Variation,
    WriteResult,
    list_presets,
)
from ohmloop.errors import DeviceError

SOFT = SoftPulses(
    pulses_up=64, pulses_down=80, curvature_up=2.0, curvature_down=3.5, noise=0.004, step_noise=0.2
)
CELL = Physics(g_min=2e-6, g_max=20e-6, pulses=SOFT, pulse_energy=3e-12)


def targets(n: int = 2000, cell: Physics = CELL, seed: int = 0) -> Tensor:
    share = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return cell.g_min + cell.window * share


def write(target: Tensor, physics: Physics = CELL, seed: int = 1, **options: object) -> WriteResult:
    chosen = {"tolerance": 0.02, "max_pulses": 400} | options
    return physics.write_verify(target, torch.Generator().manual_seed(seed), **chosen)  # type: ignore[arg-type]  # kwargs


# ---- one pulse


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.floats(-8, 8).filter(lambda a: abs(a) > 1e-3) | st.just(0.0),
    st.integers(1, 200),
    st.booleans(),
)
def test_pulse_after_pulse_follows_the_closed_curve(a: float, pulses: int, up: bool) -> None:
    law = SoftPulses(pulses_up=pulses, pulses_down=pulses, curvature_up=a, curvature_down=a)
    g = torch.tensor([1e-6 if up else 9e-6], dtype=torch.float64)
    for k in range(pulses + 1):
        share = law.curve(torch.tensor([float(k)], dtype=torch.float64), up=up)
        torch.testing.assert_close((g - 1e-6) / 8e-6, share, rtol=1e-8, atol=1e-9)
        g = g + law.step(g, torch.tensor([up]), 1e-6, 9e-6).mean
    end = 1.0 if up else 0.0
    assert float(law.curve(torch.tensor([float(pulses)]), up=up)) == pytest.approx(end, abs=1e-6)


def test_the_curve_is_neurosims() -> None:
    # Chen, Peng, Yu 2018: G(p) = B (1 - exp(-p / A)) + g_min, B = (g_max - g_min) / (1 - exp(-P / A)).
    p = torch.arange(65, dtype=torch.float64)
    a, low, high = 20.0, 2e-6, 20e-6
    b = (high - low) / (1 - math.exp(-64 / a))
    law = SoftPulses(pulses_up=64, pulses_down=64, curvature_up=64 / a)
    torch.testing.assert_close(
        low + (high - low) * law.curve(p, up=True), b * (1 - (-p / a).exp()) + low
    )


def test_a_pulse_is_as_noisy_as_it_says() -> None:
    n = 100_000
    g = torch.full((n,), 8e-6, dtype=torch.float64)
    step = SOFT.step(g, torch.ones(n, dtype=torch.bool), CELL.g_min, CELL.g_max)
    mean = float(step.mean[0])
    expected = math.hypot(0.004 * CELL.window, 0.2 * mean)
    assert float(step.std[0]) == pytest.approx(expected, rel=1e-12)
    assert mean > 0
    down = SOFT.step(g, torch.zeros(n, dtype=torch.bool), CELL.g_min, CELL.g_max)
    assert float(down.mean[0]) < 0


def test_a_table_is_interpolated_between_and_constant_outside() -> None:
    table = TablePulses(
        conductance=(1.0, 2.0, 4.0),
        up_mean=(0.4, 0.2, 0.0),
        up_std=(0.1, 0.1, 0.3),
        down_mean=(0.0, -0.1, -0.5),
        down_std=(0.0, 0.2, 0.4),
    )
    g = torch.tensor([0.5, 1.0, 1.5, 3.0, 4.0, 9.0], dtype=torch.float64)
    up = table.step(g, torch.ones(6, dtype=torch.bool), 1.0, 4.0)
    assert up.mean.tolist() == pytest.approx([0.4, 0.4, 0.3, 0.1, 0.0, 0.0])
    assert up.std.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3, 0.3])
    down = table.step(g, torch.zeros(6, dtype=torch.bool), 1.0, 4.0)
    assert down.mean.tolist() == pytest.approx([0.0, 0.0, -0.05, -0.3, -0.5, -0.5])


# ---- the loop


def test_converged_cells_are_within_tolerance_and_all_converge() -> None:
    target = targets()
    done = write(target)
    assert bool(done.converged.all())
    assert float((done.conductance - target).abs().max()) <= 0.02 * CELL.window
    assert float(done.conductance.min()) >= CELL.g_min
    assert float(done.conductance.max()) <= CELL.g_max


def test_read_noise_adds_to_the_error_of_converged_cells() -> None:
    noisy = CELL.model_copy(update={"read": ReadNoise(absolute=0.2e-6)})
    target = targets()
    done = write(target, noisy)
    error = (done.conductance - target).abs()
    assert bool(done.converged.all())
    assert float(error.max()) > 0.02 * CELL.window  # a lucky reading stops a cell too early
    # Beyond tolerance + 6 standard deviations a reading has probability 1e-9.
    assert float(error.max()) <= 0.02 * CELL.window + 6 * 0.2e-6


def test_slow_noise_has_no_time_to_build_up_while_verifying() -> None:
    flicker = Flicker(coefficient=0.1, t_read=1e-6)
    target = targets()
    noisy = write(target, CELL.model_copy(update={"read": ReadNoise(flicker=flicker)}))
    assert torch.equal(noisy.conductance, write(target).conductance)


def test_a_noise_free_cell_takes_the_pulses_that_the_curve_says() -> None:
    law = SoftPulses(pulses_up=64, pulses_down=64, curvature_up=2.0)
    cell = Physics(g_min=0.0, g_max=1.0, pulses=law)
    for k in (0, 1, 17, 64):
        target = law.curve(torch.tensor([float(k)], dtype=torch.float64), up=True)
        done = write(target, cell, tolerance=1e-6)
        assert int(done.pulses) == k
        assert bool(done.converged)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.floats(0.005, 0.1), st.floats(1.05, 4.0), st.integers(0, 100))
def test_pulses_grow_as_the_tolerance_shrinks(tolerance: float, ratio: float, seed: int) -> None:
    target = targets(300)
    loose = write(target, seed=seed, tolerance=tolerance * ratio)
    tight = write(target, seed=seed, tolerance=tolerance)
    assert bool((tight.pulses >= loose.pulses).all())


def test_the_budget_is_kept_and_said() -> None:
    done = write(targets(), max_pulses=5)
    assert int(done.pulses.max()) == 5
    assert not bool(done.converged.all())
    assert bool((done.pulses[~done.converged] == 5).all())


def test_stuck_cells_converge_only_where_the_target_is_there() -> None:
    target = torch.tensor([2e-6, 12e-6, 12e-6, 20e-6, 12e-6], dtype=torch.float64)
    mask = torch.tensor([1, 1, 2, 2, 0], dtype=torch.int8)
    done = write(target, mask=mask, max_pulses=300)
    assert done.converged.tolist() == [True, False, False, True, True]
    assert done.conductance[:4].tolist() == pytest.approx([2e-6, 2e-6, 20e-6, 20e-6])
    assert done.pulses[:4].tolist() == [0, 300, 300, 0]
    drawn = Faults(p_low=1.0).draw(torch.rand(10))
    assert not bool(write(torch.full((10,), 9e-6), mask=drawn, max_pulses=3).converged.any())


def test_energy_is_pulses_times_energy() -> None:
    done = write(targets())
    torch.testing.assert_close(done.energy, 3e-12 * done.pulses.double())


def test_energy_comes_from_voltage_and_width_where_none_is_given() -> None:
    linear = SoftPulses(pulses_up=10, pulses_down=10)
    cell = Physics(
        g_min=0.0,
        g_max=1e-5,
        pulses=linear,
        set_voltage=1.0,
        reset_voltage=-2.0,
        pulse_width=1e-7,
    )
    up = write(torch.tensor([3e-6], dtype=torch.float64), cell, tolerance=0.01)
    assert float(up.energy) == pytest.approx(1e-7 * (0 + 1e-6 + 2e-6))  # V^2 G t before each pulse
    start = torch.tensor([1e-5], dtype=torch.float64)
    down = write(torch.tensor([8e-6], dtype=torch.float64), cell, tolerance=0.01, start=start)
    assert float(down.energy) == pytest.approx(4 * 1e-7 * (1e-5 + 9e-6))
    unknown = write(targets(5), CELL.model_copy(update={"pulse_energy": None}))
    assert bool(unknown.energy.isnan().all())


def test_the_same_seed_gives_the_same_result_and_another_does_not() -> None:
    target = targets()
    one, two, other = write(target), write(target), write(target, seed=9)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.conductance, other.conductance)


def test_a_cells_history_does_not_depend_on_when_others_finish() -> None:
    noise = torch.randn(1000, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target = targets(8)

    def run(chosen: slice) -> WriteResult:
        rows = iter(noise)
        return CELL.write_verify(
            target[chosen], lambda: next(rows)[chosen], tolerance=0.01, max_pulses=300
        )

    everyone, few = run(slice(0, 8)), run(slice(2, 4))
    for a, b in zip(everyone, few, strict=True):
        torch.testing.assert_close(a[2:4], b)


def test_slow_cells_take_more_pulses_and_small_ones_miss_the_top() -> None:
    cell = CELL.model_copy(update={"variation": Variation(window=0.2, steps=0.5)})
    top = torch.full((1000,), 19.9e-6, dtype=torch.float64)
    own = torch.stack([torch.linspace(-3, 3, 1000, dtype=torch.float64), torch.zeros(1000)])
    done = write(top, cell, cell=own)
    assert not bool(done.converged[:400].any())
    assert bool(done.converged[600:].all())
    middle = torch.full((1000,), 11e-6, dtype=torch.float64)
    speed = torch.stack([torch.zeros(1000), torch.linspace(-3, 3, 1000)]).double()
    pulses = write(middle, cell, cell=speed).pulses.double()
    assert float(pulses[:200].mean()) > 2 * float(pulses[-200:].mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_and_shapes_are_kept(dtype: torch.dtype) -> None:
    done = write(targets(24).to(dtype).reshape(2, 3, 4))
    assert done.conductance.dtype == done.energy.dtype == dtype
    assert done.pulses.dtype == torch.int64
    assert all(x.shape == (2, 3, 4) for x in done)


def test_levels_are_what_is_aimed_at() -> None:
    cell = CELL.model_copy(update={"levels": 5})
    target = targets()
    done = write(target, cell)
    assert float((done.conductance - cell.quantised(target)).abs().max()) <= 0.02 * cell.window


@pytest.mark.parametrize("name", ["taox-crosssim", "enode-crosssim", "perovskite-poddar2026"])
def test_presets_with_pulses_can_be_written(name: str) -> None:
    cell = next(p for p in list_presets() if p.name == name).cell()
    target = targets(2000, cell)
    done = write(target, cell, max_pulses=400)
    assert float(done.converged.double().mean()) > 0.98
    error = (done.conductance - cell.quantised(target)).abs()[done.converged]
    assert float(error.max()) <= 0.02 * cell.window * (1 + 1e-9)


# ---- what may not be asked


def test_a_device_without_pulses_says_so() -> None:
    with pytest.raises(DeviceError, match="needs the device's pulse response"):
        write(targets(2), Physics(g_min=0, g_max=1e-6))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tolerance": 0.0}, "share of the window above 0"),
        ({"tolerance": math.nan}, "share of the window above 0"),
        ({"max_pulses": 0}, "at least 1"),
        ({"cell": torch.zeros(3)}, "two normals a cell"),
    ],
)
def test_impossible_orders_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(DeviceError, match=match):
        write(targets(3), **options)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SoftPulses(pulses_up=0, pulses_down=1), "greater than or equal to 1"),
        (lambda: SoftPulses(pulses_up=9, pulses_down=9, noise=-1), "greater than or equal to 0"),
        (lambda: SoftPulses(pulses_up=9, pulses_down=9, curvature=1), 'mean "curvature_up"'),
        (
            lambda: TablePulses(
                conductance=(2.0, 1.0),
                up_mean=(0, 0),
                up_std=(0, 0),
                down_mean=(0, 0),
                down_std=(0, 0),
            ),
            "rising",
        ),
        (
            lambda: TablePulses(
                conductance=(1.0, 2.0),
                up_mean=(0,),
                up_std=(0, 0),
                down_mean=(0, 0),
                down_std=(0, 0),
            ),
            "up_mean has 1 values",
        ),
    ],
)
def test_impossible_pulses_are_refused(make, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        make()
