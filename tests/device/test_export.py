"""Exports: text that runs where it is meant for, draws by the device's law, and says what it leaves out."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmloop.device import DeviceModel, export_device, list_devices, list_presets, load_device
from ohmloop.device import write_export as write
from ohmloop.errors import DeviceError


def _aihwkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the four names of aihwkit that the text imports, with their public signatures."""

    class Base:
        def __init__(self, g_converter: Any = None) -> None:
            self.g_converter = g_converter

    class Pair:
        def __init__(self, g_max: float | None = None, g_min: float | None = None) -> None:
            self.g_max, self.g_min = g_max, g_min

    class Config:
        noise_model: Any = None

    for name, members in (
        ("aihwkit", {}),
        ("aihwkit.inference", {}),
        ("aihwkit.inference.converter", {}),
        ("aihwkit.inference.converter.conductance", {"SinglePairConductanceConverter": Pair}),
        ("aihwkit.inference.noise", {}),
        ("aihwkit.inference.noise.base", {"BaseNoiseModel": Base}),
        ("aihwkit.simulator", {}),
        ("aihwkit.simulator.configs", {"InferenceRPUConfig": Config}),
    ):
        module = types.ModuleType(name)
        for key, value in members.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)


def _run(text: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(compile(text, "export", "exec"), scope)
    return scope


def test_json_loses_nothing(tmp_path: Path) -> None:
    device = load_device("nanowire-28")
    path = write(device, "json", tmp_path / "device.json")
    assert load_device(path) == device


@pytest.mark.parametrize("name", ["pcm-joshi2020", "lognormal:0.6"])
def test_aihwkit_noise_has_the_mean_and_spread_of_the_cell(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _aihwkit(monkeypatch)
    device = load_device(name)
    noise = _run(export_device(device, "aihwkit"))["rpu_config"].noise_model
    cell = device.cell()
    assert noise.g_converter.g_max == pytest.approx(1e6 * cell.g_max)
    n = 40_000
    target = torch.full((n,), 0.7 * cell.g_max, dtype=torch.float64)
    torch.manual_seed(0)  # the text draws as aihwkit does, by the global generator
    theirs = 1e-6 * noise.apply_programming_noise_to_conductance(1e6 * target)
    normal = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = cell.write.apply(target, normal, cell.g_max)
    error = float(ours.std()) / n**0.5
    assert float(theirs.mean()) == pytest.approx(float(ours.mean()), abs=6 * error)
    assert float(theirs.std()) == pytest.approx(float(ours.std()), rel=0.06)
    if cell.drift is not None:
        nu = noise.generate_drift_coefficients(1e6 * target)
        later = 1e-6 * noise.apply_drift_noise_to_conductance(1e6 * target, nu, 86400.0)
        same = cell.drift.apply(target, 86400.0, normal, cell.g_max)
        assert float(later.mean()) == pytest.approx(float(same.mean()), rel=0.01)


def test_aihwkit_applies_the_level_table_as_the_law_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from ohmloop.crossbar import Hardware

    _aihwkit(monkeypatch)
    device = load_device("nanowire-28").model_copy(update={"g_min": 0.0, "g_max": 1e-4})
    quiet = device.model_copy(update={"sigma": device.sigma.model_copy(update={"value": 0.0})})
    noise = _run(export_device(quiet, "aihwkit"))["rpu_config"].noise_model
    weights = torch.linspace(0, 1, 200, dtype=torch.float64)
    theirs = noise.apply_programming_noise_to_conductance(100.0 * weights) / 100.0
    torch.testing.assert_close(theirs, Hardware(device=quiet).deterministic(weights))


@pytest.mark.parametrize("target", ["aihwkit", "crosssim"])
def test_every_device_gives_text_that_compiles_and_says_what_it_leaves_out(target: str) -> None:
    for device in (*list_presets(), *list_devices()):
        text = export_device(device, target)
        compile(text, device.name, "exec")
        for word in ("# Exact: ", "# Near: ", "# Left out: "):
            assert word in text


def test_crosssim_sets_window_and_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Node(types.SimpleNamespace):
        def __getattr__(self, name: str) -> "Node":
            node = Node()
            setattr(self, name, node)
            return node

    module = types.ModuleType("simulator")
    module.CrossSimParameters = Node  # type: ignore[attr-defined]  # a stand-in for the package
    monkeypatch.setitem(sys.modules, "simulator", module)
    device = load_device("nanowire-30")
    found = _run(export_device(device, "crosssim"))["params"].xbar.device
    cell = device.cell()
    assert found.Rmin == pytest.approx(1 / cell.g_max)
    assert found.Rmax == pytest.approx(1 / cell.g_min)
    assert found.programming_error.magnitude == device.sigma.value
    assert found.programming_error.model == "NormalProportionalDevice"


def test_no_line_of_a_description_becomes_code() -> None:
    sly = DeviceModel(
        name="a\nimport os",
        description='"""\nraise SystemExit\r\nprint(1)',
        sigma=load_device("lognormal:0.1").sigma,
        g_min=1e-6,
        g_max=1e-4,
    )
    for target in ("aihwkit", "crosssim"):
        head = export_device(sly, target).split("\n\n")[0]
        assert all(line.startswith("#") for line in head.splitlines())


def test_unknown_target_and_missing_window_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match='no export to "spice"; there are json, aihwkit, cross'):
        export_device(load_device("lognormal:0.1"), "spice")
    bare = DeviceModel(name="bare", sigma=load_device("lognormal:0.1").sigma)
    with pytest.raises(DeviceError, match="has no conductance window"):
        write(bare, "aihwkit", tmp_path / "x.py")
