"""The benchmarks start, say what they do, and fit what they should."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = [
    "before_after",
    "cells",
    "deep",
    "drive",
    "finalists",
    "gpu",
    "layers",
    "lenet",
    "methods",
    "robustness",
    "scaling",
    "startup",
    "suggest",
    "table",
    "wires",
]


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of benchmarks, whose modules can be imported."""
    monkeypatch.syspath_prepend(str(BENCH))
    return BENCH


@pytest.fixture
def fits(bench: Path) -> ModuleType:
    return importlib.import_module("_scaling_fit")


@pytest.fixture
def plans(bench: Path) -> ModuleType:
    return importlib.import_module("_scaling_plan")


@pytest.mark.parametrize("name", ["scaling", "startup", "table"])
def test_a_light_benchmark_says_what_it_does(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SCRIPTS if n not in ("scaling", "startup", "table")])
def test_every_benchmark_says_what_it_does(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.slow
def test_without_a_gpu_its_benchmark_says_so_and_ends_well() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("gpu")
    assert done.returncode == 0
    assert "no CUDA device" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_trial_of_the_scaling_writes_models_with_checks(tmp_path: Path) -> None:
    only = ["fleet", "device", "wires", "step-noise", "suggest", "open", "append", "run-in-process"]
    done = run("scaling", "--smoke", "--only", ",".join(only), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    cases = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))["cases"]
    assert list(cases) == only
    for case in cases.values():
        assert len(case["seconds"]["held"]) == 2
        assert min(case["seconds"]["coefficients"].values()) >= 0
        assert max(case["seconds"]["coefficients"].values()) > 0
    assert "at sizes not fitted" in (tmp_path / "scaling-costs.md").read_text(encoding="utf-8")


def test_a_trial_does_not_overwrite_results() -> None:
    done = run("scaling", "--smoke")
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_known_coefficients_are_found_and_predict_larger_sizes(fits: ModuleType) -> None:
    known = {"1": 0.01, "P": 3e-8, "D n P": 5e-11}
    points = [
        {"D": d, "n": n, "P": p} for d in (2, 20) for n in (10, 500) for p in (1e3, 1e4, 1e5, 1e6)
    ]
    rng = np.random.default_rng(0)

    def repeats(point: dict[str, float]) -> list[float]:
        return [fits.predicted(known, point) * (1 + 0.02 * rng.normal()) for _ in range(3)]

    found = fits.fitted(["1", "P", "D", "D n P"], points, [repeats(p) for p in points])
    assert found.coefficients["1"] == pytest.approx(0.01, rel=0.05)
    assert found.coefficients["D n P"] == pytest.approx(5e-11, rel=0.05)
    assert found.coefficients["P"] == pytest.approx(3e-8, rel=0.2)
    low, high = found.spread["D n P"]
    assert low <= found.coefficients["D n P"] <= high
    larger = [{"D": 40, "n": 1000, "P": p} for p in (3e6, 1e7)]
    for check in fits.checked(found, larger, [repeats(p) for p in larger]):
        assert abs(check["error"]) < 0.1
        assert check["error_low"] <= check["error"] <= check["error_high"]


def test_a_term_that_costs_nothing_gets_no_negative_coefficient(fits: ModuleType) -> None:
    points = [{"N": n} for n in (8, 16, 32, 64)]
    values = [[1e-9 * p["N"] ** 3 * (1 - 0.1 * (k % 2))] * 2 for k, p in enumerate(points)]
    found = fits.fitted(["1", "N^2", "N^3"], points, values)
    assert min(found.coefficients.values()) >= 0


def test_measurements_that_do_not_fit_their_points_are_refused(fits: ModuleType) -> None:
    with pytest.raises(ValueError, match="2 rows of equally many positive"):
        fits.fitted(["1"], [{"N": 1}, {"N": 2}], [[1.0], [0.0]])


def test_the_work_that_is_largest_over_its_rate_bounds_a_phase(plans: ModuleType) -> None:
    rates = plans.Rates("a chip", 100.0, 10.0, 1.0, 1e9, 0.5)
    assert plans.Work("x", 1000.0, 10.0, 5.0).seconds(rates) == (20.0, "matrix FLOP/s")
    assert plans.Work("x", 100.0, 10.0, 50.0).seconds(rates) == (100.0, "memory bandwidth")


def test_twice_the_devices_need_twice_the_gpu_hours(plans: ModuleType) -> None:
    rates, fleet = plans.Rates(), plans.Fleet()
    once = plans.on_gpu(fleet.work(), rates)["gpu_hours"]
    twice = plans.on_gpu(fleet._replace(devices=2 * fleet.devices).work(), rates)["gpu_hours"]
    assert twice == pytest.approx(2 * once)
    # 2 P n FLOPs for each device, at the stated share of the stated rate.
    running = 2 * fleet.devices * fleet.weights * fleet.tokens / rates.flops / rates.efficiency
    assert once >= running / 3600


def test_the_plan_counts_the_memory_that_the_library_says_a_device_takes(plans: ModuleType) -> None:
    import torch
    from torch import nn

    from ohmloop.crossbar import Hardware
    from ohmloop.nn import analogize
    from ohmloop.nn._draw import bytes_per_device

    law = Hardware.model_validate({"device": "lognormal:0.3"})
    model = analogize(nn.Linear(40, 25, bias=False).to(torch.bfloat16), law)
    fleet = plans.Fleet(weights=1000.0)
    assert fleet.memory() == bytes_per_device(model) + 2 * 1000


@pytest.fixture
def table(bench: Path) -> ModuleType:
    return importlib.import_module("table")


def test_the_table_names_benchmarks_that_were_not_run(table: ModuleType, tmp_path: Path) -> None:
    found = {row.what: row.ours for row in table.rows(tmp_path)}
    assert found["startup"] == "not measured: `python bench/startup.py`"


def test_the_table_has_a_spread_for_what_was_repeated(table: ModuleType, tmp_path: Path) -> None:
    runs = [{"wall": w, "cpu": w, "bytes": 2**20} for w in (0.1, 0.2, 0.3)]
    (tmp_path / "startup.json").write_text(json.dumps({"runs": {"import ohmloop": runs}}))
    found = {row.what: row.ours for row in table.rows(tmp_path)}
    assert found["start: import ohmloop"] == "0.2 (0.1 to 0.3) s on the wall, 1 MiB"


def test_the_table_reads_what_the_benchmarks_wrote(table: ModuleType) -> None:
    found = [row.what for row in table.rows(BENCH / "results")]
    for word in ("fleet", "training step", "exact wires", "suggestions", "peak memory"):
        assert any(word in what for what in found), word
