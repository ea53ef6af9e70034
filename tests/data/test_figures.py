"""SET, RESET and states of synthetic devices whose answers are known."""

import json

import numpy as np
import pytest

from ohmloop.data import FiguresOfMerit, Sweep, figures_of_merit
from ohmloop.errors import AnalysisError

STEP = 0.05


def bipolar(
    set_at: list[float], reset_at: list[float], g_off: float = 1e-6, g_on: float = 1e-4
) -> Sweep:
    """A loop 0 -> 2 -> 0 -> -2 -> 0 that jumps to g_on at +set and back to g_off at -reset."""
    up = np.round(np.arange(0, 2 + STEP / 2, STEP), 6)
    voltage = np.concatenate([up, up[-2::-1], -up[1:], -up[-2::-1]])
    n_up = len(up)
    current = np.empty((len(voltage), len(set_at)))
    for c, (s, r) in enumerate(zip(set_at, reset_at, strict=True)):
        on = False
        for k, v in enumerate(voltage):
            if k < n_up and v >= s:
                on = True
            if v <= -r:
                on = False
            current[k, c] = v * (g_on if on else g_off)
    return Sweep(
        voltage=np.broadcast_to(voltage[:, None], current.shape),
        current=current,
        cycle_names=tuple(map(str, range(len(set_at)))),
        file="bipolar.csv",
        format="text",
        sha256="0" * 64,
    )


def test_switching_voltages_and_states_are_found() -> None:
    sweep = bipolar([1.0, 1.2, 1.4], [0.8, 0.9, 1.0])
    f = figures_of_merit(sweep)
    assert f.switched is True
    assert f.switched_cycles == 3
    assert f.direction == "counter-clockwise"
    assert f.set_voltage == pytest.approx(1.2, abs=1.5 * STEP)
    assert f.reset_voltage == pytest.approx(-0.9, abs=1.5 * STEP)
    assert f.set_voltage_std == pytest.approx(0.2, abs=0.03)
    assert f.on_off_ratio == pytest.approx(100, rel=1e-9)
    assert f.hrs_ohm is not None
    assert f.hrs_ohm[2] == pytest.approx(1e6, rel=1e-9)
    assert f.lrs_ohm is not None
    assert f.lrs_ohm[2] == pytest.approx(1e4, rel=1e-9)
    assert f.lrs_variation == pytest.approx(0, abs=1e-9)


def test_instruments_that_write_magnitudes_give_the_same_figures() -> None:
    signed = bipolar([1.0, 1.2, 1.4], [0.8, 0.9, 1.0])
    magnitude = Sweep(
        signed.voltage, np.abs(signed.current), signed.cycle_names, "m", "text", "0" * 64
    )
    a, b = figures_of_merit(signed), figures_of_merit(magnitude)
    assert (a.set_voltage, a.reset_voltage) == (b.set_voltage, b.reset_voltage)


def test_clockwise_device_sets_on_the_negative_half() -> None:
    base = bipolar([1.2] * 3, [0.8] * 3)
    mirrored = Sweep(-base.voltage, -base.current, base.cycle_names, "m", "text", "0" * 64)
    # Positive half first, as a lab would sweep it: the device is on at first and RESETs there.
    half = len(mirrored.voltage) // 2
    order = np.r_[half : len(mirrored.voltage), 0:half]
    f = figures_of_merit(
        Sweep(
            mirrored.voltage[order],
            mirrored.current[order],
            base.cycle_names,
            "m",
            "text",
            "0" * 64,
        )
    )
    assert f.direction == "clockwise"
    assert f.set_voltage == pytest.approx(-1.2, abs=1.5 * STEP)
    assert f.reset_voltage == pytest.approx(0.8, abs=1.5 * STEP)
    assert f.on_off_ratio == pytest.approx(100, rel=1e-9)


def test_resistor_did_not_switch() -> None:
    sweep = bipolar([9.0] * 3, [9.0] * 3)
    f = figures_of_merit(sweep)
    assert f.switched is False
    assert f.set_voltage is None
    assert f.reset_voltage is None
    assert f.on_off_ratio == pytest.approx(1.0)


def test_positive_branch_only_gives_no_states_but_the_published_figures() -> None:
    up = np.linspace(0.1, 3, 61)
    rng = np.random.default_rng(0)
    current = 1e-7 * up[:, None] ** 2 * np.exp(0.1 * rng.standard_normal((61, 5)))
    f = figures_of_merit(
        Sweep(
            np.broadcast_to(up[:, None], current.shape),
            current,
            tuple("abcde"),
            "p",
            "text",
            "0" * 64,
        )
    )
    assert f.switched is None
    assert f.on_off_ratio is None
    assert f.sigma is not None
    assert any("branch" in note for note in f.notes)


def test_keys_are_stable_and_json_has_no_nan() -> None:
    f = figures_of_merit(bipolar([1.0] * 4, [0.8] * 4))
    text = json.dumps(f.to_dict(), allow_nan=False)
    keys = list(json.loads(text))
    assert keys == list(FiguresOfMerit.keys())
    needed = "file format cycles sigma monotonicity usability switched on_off_ratio set_voltage reset_voltage"
    assert set(needed.split()) <= set(keys)


@pytest.mark.slow
def test_bootstrap_interval_covers_the_median() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for repeat in range(40):
        sets = np.round(rng.normal(1.2, 0.15, 25) / STEP) * STEP
        f = figures_of_merit(bipolar(sets.tolist(), [0.8] * 25), seed=repeat)
        assert f.set_voltage_interval is not None
        hits += f.set_voltage_interval[0] - STEP <= 1.2 <= f.set_voltage_interval[1] + STEP
    # Nominal 95 %, widened by the step of the source: below 33 of 40 has probability < 1e-3.
    assert hits >= 33


def test_read_voltage_must_be_positive() -> None:
    with pytest.raises(AnalysisError, match="must be positive"):
        figures_of_merit(bipolar([1.0], [0.8]), read_voltage=-0.1)
