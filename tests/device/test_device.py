"""Device models: recovery, round trips, presets, hostile files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.data import Sweep, figures_of_merit, read
from ohmloop.device import (
    DeviceModel,
    Estimate,
    fit,
    level_table,
    list_devices,
    load_device,
    sample,
    save_device,
)
from ohmloop.errors import DeviceError


def lognormal_sweep(sigma: float, n_cycles: int, seed: int) -> Sweep:
    rng = np.random.default_rng(seed)
    up = np.linspace(0.05, 2.5, 50)
    v = np.concatenate([up, up[::-1]])
    i = 1e-6 * v[:, None] ** 3 * np.exp(sigma * rng.standard_normal((100, n_cycles)))
    return Sweep(
        np.broadcast_to(v[:, None], i.shape),
        i,
        tuple(map(str, range(n_cycles))),
        f"{seed}.csv",
        "text",
        f"{seed:064x}",
    )


def test_fit_brackets_the_law_that_made_the_data() -> None:
    # 5 % trimming on both sides leaves 0.7893 of a normal law's sd (closed form).
    truth = 0.25 * 0.7893
    hits = 0
    for seed in range(20):
        model = fit([lognormal_sweep(0.25, 40, seed)], name="x", n_bootstrap=200)
        assert model.sigma.low is not None
        assert model.sigma.high is not None
        assert model.sigma.low <= model.sigma.value + 0.02
        hits += model.sigma.low - 0.01 <= truth <= model.sigma.high + 0.01
    # Binomial(20, .95): fewer than 15 has probability below 1e-3.
    assert hits >= 15


def test_several_devices_are_pooled() -> None:
    sweeps = [lognormal_sweep(0.25, 30, seed) for seed in range(4)]
    model = fit(sweeps, name="pool", n_bootstrap=100)
    assert model.figures["devices"] == 4
    assert len(model.sources) == 4
    assert model.sigma.value == pytest.approx(0.25 * 0.7893, rel=0.1)
    one = fit(sweeps[:1], name="one", n_bootstrap=0)
    assert fit([*sweeps[:1]] * 2, name="twice", n_bootstrap=0).sigma.value == pytest.approx(
        one.sigma.value, rel=1e-12
    )


def test_nothing_to_fit_is_said() -> None:
    with pytest.raises(DeviceError, match="at least one sweep"):
        fit([], name="x")


def test_level_table_by_hand() -> None:
    mean = np.concatenate([np.linspace(4, 1, 10), np.linspace(1.1, 5, 30), [2.0] * 60])
    table = level_table(mean, (10, 39))
    assert table is not None
    assert len(table) == 35
    assert table[:29] == (1.0,) * 29  # rows 10..38 lie in [a, b)
    window = mean[10:45]
    assert table[29] == pytest.approx(1.0)  # row 39 is b itself, and the maximum
    assert table[30] == pytest.approx((2.0 - window.min()) / (window.max() - window.min()))


def test_long_window_needs_no_table() -> None:
    assert level_table(np.arange(60.0), (5, 40)) is None
    assert level_table(np.arange(60.0), (5, 39)) is not None


@given(
    st.lists(st.floats(0.1, 10) | st.just(float("nan")), min_size=2, max_size=120),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_levels_are_shares_and_one_inside_the_window(ramp: list[float], a: int, b: int) -> None:
    mean = np.array(ramp)
    if not np.isfinite(mean).any():
        return
    a, b = sorted((a % len(mean), b % len(mean)))
    try:
        table = level_table(mean, (a, b))
    except DeviceError:
        return
    if table is not None:
        assert all(0 <= level <= 1 for level in table)
        assert len(table) == min(35, len(mean))


def test_43_presets_round_trip(tmp_path: Path) -> None:
    devices = list_devices()
    assert len(devices) == 43
    assert len({d.name for d in devices}) == 43
    for device in devices:
        save_device(device, tmp_path / "d.json")
        assert load_device(tmp_path / "d.json") == device
        assert load_device(device.name) == device
        assert device.citation
        assert device.sigma.value == pytest.approx(device.published["sigma"], abs=1e-9)


@pytest.mark.slow
def test_presets_are_what_the_script_makes_of_the_measurements(nanowires: Path) -> None:
    for device in list_devices()[::7]:
        made = fit([read(nanowires / "raw" / device.sources[0].file)], name=device.name)
        assert made.sigma == device.sigma
        assert made.sources == device.sources
        if device.rho is not None:
            assert made.rho == pytest.approx(device.rho, abs=1e-6)
        else:
            assert made.rho is None
        assert made.figures == device.figures


def test_fitting_is_repeatable(nanowires: Path) -> None:
    sweep = read(sorted((nanowires / "raw").glob("*.xlsx"))[3])
    assert fit([sweep], name="a") == fit([sweep], name="a")
    assert figures_of_merit(sweep) == figures_of_merit(sweep)


@pytest.mark.parametrize("convention", ["median-1", "mean-1"])
def test_samples_follow_the_closed_form(convention: str) -> None:
    sigma, n = 0.5, 200_000
    device = DeviceModel(name="x", sigma=Estimate(value=sigma))
    x = sample(device, n, np.random.default_rng(0), convention=convention)
    median = 1.0 if convention == "median-1" else np.exp(-(sigma**2) / 2)
    mean = median * np.exp(sigma**2 / 2)
    variance = median**2 * np.exp(sigma**2) * (np.exp(sigma**2) - 1)
    # Five standard errors each (median: sqrt(pi/2) sigma / sqrt n in logs).
    assert np.log(np.median(x)) == pytest.approx(np.log(median), abs=5 * 1.2533 * sigma / n**0.5)
    assert x.mean() == pytest.approx(mean, abs=5 * (variance / n) ** 0.5)
    assert x.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nanowire-99", "Did you mean"),
        ("lognormal:x", "expected a number"),
        ("lognormal:-1", "lies in"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_unknown_devices_are_said(name: str, match: str) -> None:
    with pytest.raises(DeviceError, match=match):
        load_device(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"name": "x"}',
        '{"name":"x","sigma":{"value":NaN}}',
        "null",
        '"x"',
        '{"name":"x","sigma":{"value":0.1},"extra":1}',
        '{"name":"x","sigma":{"value":-3}}',
        '{"name":"x","sigma":{"value":0.1},"rho":[0.5, 7]}',
        "\x00\xff",
    ],
)
def test_hostile_json_is_a_device_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(DeviceError, match=r"device model|lies in|rho needs"):
        load_device(tmp_path / "d.json")


def test_device_package_needs_no_torch() -> None:
    code = (
        "import ohmloop.device, sys; ohmloop.device.list_devices(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_preset_file_holds_no_curve() -> None:
    import ohmloop.device

    path = Path(ohmloop.device.__file__).parent / "presets" / "nanowires.json"
    for item in json.loads(path.read_text()):
        longest = max((len(v) for v in item["figures"].values() if isinstance(v, list)), default=0)
        assert longest <= 5
        assert item["rho"] is None or len(item["rho"]) <= 35
