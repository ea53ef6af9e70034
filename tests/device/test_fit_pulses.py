"""Pulse fits: known parameters come back, intervals hold them, wrong data are refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.formats import loop, workbook

from ohmloop.data import PulseTrain, read, read_pulse_train
from ohmloop.device import (
    DeviceModel,
    SoftPulses,
    asymmetry,
    fit_measurements,
    fit_pulses,
    load_device,
    nonlinearity,
    pulse_residuals,
    save_device,
)
from ohmloop.errors import DeviceError

DEVICES = Path(__file__).resolve().parents[3] / "shared" / "data" / "devices"
WINDOW = (5e-6, 50e-6)
LAW = SoftPulses(pulses_up=40, pulses_down=40, curvature_up=2.0, curvature_down=4.0, noise=0.01)


def simulate(
    law: SoftPulses = LAW,
    *,
    cycles: int = 10,
    devices: int = 1,
    read_noise: float = 0.0,
    window: float = 0.0,
    steps: float = 0.0,
    seed: int = 0,
) -> PulseTrain:
    """Pulse cells with the law's own steps, and read after each pulse (simulated)."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> torch.Tensor:
        return torch.randn(devices, generator=generator, dtype=torch.float64)

    factor, speed = (window * normal()).exp(), (steps * normal()).exp()
    # Start where cycling settles, so that the first cycle is like the others.
    held = torch.full((devices,), WINDOW[0], dtype=torch.float64)
    rows, signs, numbers = [], [], []
    for cycle in range(cycles):
        for sign, n in ((1, law.pulses_up), (-1, law.pulses_down)):
            for _ in range(int(n)):
                step = law.step(held, torch.full((devices,), sign > 0), *WINDOW)
                held = held + speed * (step.mean + step.std * normal())
                rows.append((factor * held + read_noise * normal()).numpy())
                signs.append(sign)
                numbers.append(cycle)
    m = len(rows)
    return PulseTrain(
        conductance=np.stack(rows, axis=1).ravel(),
        pulses=np.ones(m * devices, dtype=np.int64),
        polarity=np.tile(signs, devices),
        amplitude=np.tile(np.where(np.array(signs) > 0, 1.2, -1.0), devices),
        width=np.full(m * devices, 1e-7),
        cycle=np.tile(numbers, devices),
        device=np.repeat(np.arange(devices), m),
        devices=tuple(f"cell {k}" for k in range(devices)),
        read_voltage=0.1,
        file="simulated.csv",
        format="table",
        sha256="0" * 64,
    )


def soft(model: DeviceModel) -> SoftPulses:
    assert model.physics is not None
    assert isinstance(model.physics.pulses, SoftPulses)
    return model.physics.pulses


# Read from the table "Nonlinearity-NormA" of MLP NeuroSim 3.0: label, A / P.
@pytest.mark.parametrize(
    ("label", "a"),
    [
        *((0.01, 126.269), (0.05, 25.2533), (0.19, 6.6437), (1.51, 0.8195), (3.01, 0.3853)),
        *((4.51, 0.2266), (6.01, 0.1351), (7.51, 0.0702)),
    ],
)
def test_nonlinearity_is_the_label_of_neurosims_table(label: float, a: float) -> None:
    assert nonlinearity(1 / a) == pytest.approx(label, rel=2e-3)
    assert nonlinearity(-1 / a) == pytest.approx(-label, rel=2e-3)


@given(st.floats(-40, 40), st.floats(-40, 40))
def test_nonlinearity_and_asymmetry_are_bounded_and_odd(up: float, down: float) -> None:
    assert abs(nonlinearity(up)) <= 10.1
    assert nonlinearity(-up) == -nonlinearity(up)
    assert asymmetry(up, down) == pytest.approx(asymmetry(down, up))
    assert -1 <= asymmetry(up, down) <= 1
    assert asymmetry(up, -up) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("up", [-3.0, 0.0, 0.5, 8.0])
def test_noise_free_pulses_are_recovered_exactly(up: float) -> None:
    law = SoftPulses(pulses_up=50, pulses_down=30, curvature_up=up, curvature_down=3.0)
    model = fit_pulses([simulate(law, cycles=1)], name="clean", n_bootstrap=0)
    found = soft(model)
    assert found.curvature_up == pytest.approx(up, abs=1e-3)
    assert found.curvature_down == pytest.approx(3.0, abs=1e-3)
    assert (found.pulses_up, found.pulses_down) == (50, 30)
    assert found.noise < 1e-4
    assert model.g_min == pytest.approx(WINDOW[0], rel=1e-3)
    assert model.g_max == pytest.approx(WINDOW[1], rel=1e-3)
    assert model.figures["pulse_curvature_up_interval"] is None  # one cycle says nothing of others


@pytest.mark.slow
@pytest.mark.parametrize("read_noise", [0.0, 5e-7])
def test_noisy_pulses_are_recovered_within_their_intervals(read_noise: float) -> None:
    model = fit_pulses([simulate(cycles=40, read_noise=read_noise, seed=3)], name="noisy")
    assert model.physics is not None
    for key, truth in (
        ("pulse_curvature_up", 2.0),
        ("pulse_curvature_down", 4.0),
        ("pulse_nonlinearity_up", nonlinearity(2.0)),
        ("pulse_noise", 0.01),
    ):
        limits = model.figures[f"{key}_interval"]
        assert isinstance(limits, list)
        half = 0.5 * (limits[1] - limits[0])
        # Twice the half width of a 95 % interval: four standard errors.
        assert abs(float(model.figures[key]) - truth) < 2 * half
        assert half < 0.15 * truth
    # Two standard errors of the read noise from 3,200 steps are about 5 %; 0.05 uS is the floor of 40 cycles.
    assert model.physics.read.absolute == pytest.approx(read_noise, rel=0.1, abs=1.5e-7)
    assert model.physics.set_voltage == 1.2
    assert model.physics.reset_voltage == -1.0
    assert model.physics.pulse_width == 1e-7
    assert model.physics.read_voltage == 0.1


@pytest.mark.slow
def test_differences_between_devices_are_recovered() -> None:
    trains = simulate(cycles=5, devices=40, window=0.1, steps=0.2, seed=5)
    model = fit_pulses([trains], name="array", n_bootstrap=0)
    assert model.physics is not None
    # The standard error of a spread from 40 devices is 11 %: three of them.
    assert model.physics.variation.window == pytest.approx(0.1, rel=0.35)
    assert model.physics.variation.steps == pytest.approx(0.2, rel=0.35)
    assert model.figures["pulse_resampled"] == "devices"
    assert soft(model).noise == pytest.approx(0.01, rel=0.1)
    same = fit_pulses([simulate(cycles=5, devices=40, seed=5)], name="equal", n_bootstrap=0)
    assert same.physics is not None
    assert same.physics.variation.window < 0.03
    assert same.physics.variation.steps < 0.08


def test_files_count_as_devices_and_order_does_not_matter() -> None:
    trains = [simulate(cycles=3, seed=k) for k in range(4)]
    first = fit_pulses(trains, name="four", n_bootstrap=0)
    second = fit_pulses(trains[::-1], name="four", n_bootstrap=0)
    assert first.figures["pulse_devices"] == 4
    assert soft(first).curvature_up == pytest.approx(soft(second).curvature_up, rel=1e-6)


def test_readings_every_few_pulses_give_the_noise_of_one() -> None:
    train = simulate(cycles=30, seed=8)
    kept = np.arange(len(train.conductance)) % 4 == 3
    thin = dataclasses.replace(
        train,
        **{
            name: getattr(train, name)[kept]
            for name in ("conductance", "polarity", "amplitude", "width", "cycle", "device")
        },
        pulses=np.full(int(kept.sum()), 4, dtype=np.int64),
    )
    found = soft(fit_pulses([thin], name="thin", n_bootstrap=0))
    assert found.pulses_up == 40
    assert found.noise == pytest.approx(0.01, rel=0.1)
    assert found.curvature_down == pytest.approx(4.0, rel=0.08)


def test_missing_readings_are_left_out() -> None:
    train = simulate(cycles=20, seed=9)
    rng = np.random.default_rng(0)
    gappy = np.where(rng.random(len(train.conductance)) < 0.05, np.nan, train.conductance)
    found = soft(
        fit_pulses([dataclasses.replace(train, conductance=gappy)], name="gaps", n_bootstrap=0)
    )
    whole = soft(fit_pulses([train], name="whole", n_bootstrap=0))
    assert found.curvature_down == pytest.approx(whole.curvature_down, rel=0.03)
    assert found.noise == pytest.approx(whole.noise, rel=0.1)


def test_broken_off_branches_are_left_out_and_said() -> None:
    train = simulate(cycles=4, seed=1)
    n = len(train.conductance) - 30  # the last depression has 10 of its 40 pulses
    cut = dataclasses.replace(
        train,
        **{
            name: getattr(train, name)[:n]
            for name in (
                *("conductance", "pulses", "polarity", "amplitude"),
                *("width", "cycle", "device"),
            )
        },
    )
    model = fit_pulses([cut], name="cut", n_bootstrap=0)
    assert model.figures["pulse_note_1"] == "depression: 1 short branches left out."


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda t: {
                "polarity": np.ones_like(t.polarity),
                "amplitude": np.ones_like(t.amplitude),
            },
            "no depression pulse",
        ),
        (lambda t: {"polarity": -t.polarity}, "the wrong way or not at all"),
        (lambda t: {"conductance": np.full_like(t.conductance, 1e-5)}, "not at all"),
        (
            lambda t: {"amplitude": np.linspace(1, 2, len(t.amplitude)) * t.polarity},
            "staircase of amplitudes",
        ),
        (lambda t: {"conductance": np.full_like(t.conductance, np.nan)}, "no finite reading"),
        (lambda t: {"pulses": np.arange(len(t.pulses)) % 7 + 1}, "different numbers of pulses"),
        (
            lambda t: {
                "polarity": np.where(np.arange(len(t.polarity)) % 2, 1, -1),
                "amplitude": np.ones_like(t.amplitude),
            },
            "too short",
        ),
    ],
)
def test_data_that_no_pulse_law_describes_are_refused(change, match: str) -> None:
    train = simulate(cycles=3)
    with pytest.raises(DeviceError, match=match):
        fit_pulses([dataclasses.replace(train, **change(train))], name="bad", n_bootstrap=0)


def test_no_train_is_refused() -> None:
    with pytest.raises(DeviceError, match="received none"):
        fit_pulses([], name="nothing")
    with pytest.raises(DeviceError, match="received none"):
        fit_measurements([], name="nothing")


def test_the_fitted_law_explains_its_own_noise(tmp_path: Path) -> None:
    train = simulate(cycles=30, read_noise=3e-7, seed=2)
    model = fit_pulses([train], name="cell", n_bootstrap=0)
    save_device(model, tmp_path / "cell.json")
    assert load_device(tmp_path / "cell.json") == model
    found = pulse_residuals(model, [train])
    assert len(found.names) == 60
    # 2,400 values, somewhat dependent: mean within 0.1, standard deviation within 8 %.
    assert abs(found.standard.mean()) < 0.1
    assert found.standard.std() == pytest.approx(1.0, abs=0.08)
    assert found.relative.shape == found.x.shape


def test_a_fitted_device_programs_by_write_verify() -> None:
    model = fit_pulses([simulate(cycles=5)], name="cell", n_bootstrap=0)
    target = torch.linspace(1e-5, 4e-5, 50, dtype=torch.float64)
    written = model.cell().write_verify(
        target, torch.Generator().manual_seed(0), tolerance=0.02, max_pulses=300
    )
    assert written.converged.all()
    # The reading that ended it was within tolerance; the cell is so but for the noise of that reading.
    allowed = 0.02 * model.cell().window + 4 * model.cell().read.absolute
    assert ((written.conductance - target).abs() < allowed).all()


def test_sweeps_and_pulses_together_hold_both_parts(tmp_path: Path) -> None:
    path = tmp_path / "sweep.xlsx"
    path.write_bytes(workbook(*loop(4)))
    train = simulate(cycles=3)
    both = fit_measurements([train, read(path)], name="both", n_bootstrap=0)
    alone = fit_measurements([read(path)], name="both", n_bootstrap=0)
    assert alone.physics is None
    assert both.sigma == alone.sigma
    assert both.rho == alone.rho
    assert both.physics is not None
    assert both.physics.write.sigma == alone.sigma.value
    assert both.physics.pulses == fit_pulses([train], name="x", n_bootstrap=0).physics.pulses
    assert [s.file for s in both.sources] == ["sweep.xlsx", "simulated.csv"]
    assert {"pulse_noise", "monotonicity"} <= set(both.figures)


@pytest.mark.slow
def test_gong_is_fitted() -> None:
    path = DEVICES / "aihwkit-gong" / "gong_et_al.csv"
    if not path.exists():
        pytest.skip(f"the public device data are not in ../shared/data/devices/{path.parent.name}")
    train = read_pulse_train(path, columns="up (norm), down (norm)", window=(1e-6, 5e-5))
    model = fit_pulses([train], name="gong", n_bootstrap=0)
    assert soft(model).pulses_up == 1000
    assert soft(model).curvature_down > soft(model).curvature_up  # as the digitised curves show
    assert pulse_residuals(model, [train]).standard.std() == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.long
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """120 repetitions at 95 %: between 106 and 119 hits hold with probability 0.995 (binomial)."""
    runs = 120
    truths = {
        "pulse_curvature_up": 2.0,
        "pulse_curvature_down": 4.0,
        "pulse_asymmetry": asymmetry(2.0, 4.0),
        "pulse_noise": 0.01,
    }
    hits = dict.fromkeys(truths, 0)
    for seed in range(runs):
        train = simulate(cycles=8, read_noise=3e-7, seed=1000 + seed)
        figures = fit_pulses([train], name="x", n_bootstrap=100, seed=seed).figures
        for key, truth in truths.items():
            limits = figures[f"{key}_interval"]
            assert isinstance(limits, list)
            hits[key] += limits[0] <= truth <= limits[1]
    for key, n in hits.items():
        assert 106 <= n <= 119, (key, hits)
