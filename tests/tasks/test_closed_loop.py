"""Closed loops: drives are counted right, a seed gives a drive again, networks equal their source."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ohmloop.crossbar import Array, Hardware
from ohmloop.errors import TaskError
from ohmloop.nn import analogize, evaluate_measure
from ohmloop.tasks import task
from ohmloop.tasks._driving import _highway, _highway_env, _metadrive, _metadrive_env
from ohmloop.tasks._driving._report import Drive, DriveReport, Seen, drive_routes
from ohmloop.tasks._fetch import DataSet, cache_folder, fetch_data

# The cache of whoever runs the tests, read before any fixture moves it.
METADRIVE = cache_folder("metadrive")
needs_metadrive = pytest.mark.skipif(
    not (METADRIVE / _metadrive.RECORDS).is_file(),
    reason="MetaDrive's environment is not here: ohmloop fetch metadrive",
)
needs_highway = pytest.mark.skipif(
    importlib.util.find_spec("highway_env") is None, reason="highway-env is not installed"
)
HIGHWAY = cache_folder("highway")


class Line:
    """A straight route of ``seed`` metres; the output is the metres driven, backwards is a crash."""

    def reset(self, seed: int) -> Seen:
        self.length, self.place, self.left = seed, 0.0, 10
        return Seen(np.array([1.0], np.float32), 0.0, None)

    def step(self, out: np.ndarray) -> Seen:
        assert out.dtype == np.float64
        self.place += float(out[0])
        self.left -= 1
        end = None
        if out[0] < 0:
            end = "crash"
        elif self.place >= self.length:
            end = "finished"
        elif self.left == 0:
            end = "timeout"
        share = min(max(self.place / self.length, 0.0), 1.0)
        return Seen(np.array([1.0], np.float32), share, end)


def constant(value: float) -> nn.Module:
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.constant_(model.bias, value)
    return model


def test_a_report_counts_endings_and_steps() -> None:
    report = drive_routes(constant(1.0), Line(), (4, 8, 20))
    assert report.drives == (
        Drive(4, "finished", 1.0, 4),
        Drive(8, "finished", 1.0, 8),
        Drive(20, "timeout", 0.5, 10),
    )
    assert report.finished == pytest.approx(2 / 3)
    assert report.share("timeout") == pytest.approx(1 / 3)
    assert report.progress == pytest.approx(2.5 / 3)
    assert drive_routes(constant(-1.0), Line(), (4,)).share("crash") == 1
    figures = {"finished": report.finished, "collisions": 0.0, "progress": report.progress}
    assert list(report.figures.items()) == list(figures.items())  # The score is the first.


@pytest.mark.parametrize("array", [None, Array(rows=4, columns=4)], ids=["law", "array"])
def test_each_device_has_the_further_figures_of_its_drives(array: Array | None) -> None:
    """They change no score, and are those of the very drives that were scored."""
    hardware = Hardware(device="lognormal:1", array=array)
    model = constant(-0.5)
    nn.init.ones_(model.weight)
    analogize(model, hardware)
    reports = []

    def measure(m: nn.Module) -> dict[str, float]:
        reports.append(drive_routes(m, Line(), (4, 8, 20)))
        return reports[-1].figures

    (fleet,) = evaluate_measure(model, measure, [hardware], name="routes", n_devices=4)
    (alone,) = evaluate_measure(
        model, lambda m: measure(m)["finished"], [hardware], name="routes", n_devices=4
    )
    assert np.array_equal(fleet.scores, alone.scores)
    assert (fleet.metric, fleet.digital) == (alone.metric, alone.digital)
    assert alone.figures == {}
    digital, *devices = reports[:5]
    assert {report.share("crash") for report in devices} == {0.0, 1.0}
    assert fleet.digital_figures == {"collisions": 0.0, "progress": digital.progress}
    assert list(fleet.figures) == ["collisions", "progress"]
    assert fleet.figures["collisions"].tolist() == [report.share("crash") for report in devices]
    assert fleet.figures["progress"].tolist() == [report.progress for report in devices]
    kept = json.loads(json.dumps(fleet.to_dict()))["figures"]["progress"]
    assert kept["mean"] == pytest.approx(np.mean([report.progress for report in devices]))
    assert (kept["digital"], len(kept["values"])) == (digital.progress, 4)


def test_the_benchmark_shows_figures_of_the_rows_that_kept_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "bench"))
    bench = importlib.import_module("drive")
    old = {"deployment": "none", "digital": 1.0, "mean": 0.5, "scores": [0.4, 0.6]}
    figures = {
        "collisions": {"digital": 0.0, "mean": 0.25, "values": [0.3, 0.2]},
        "off_road": {"digital": 0.1, "mean": 0.05, "values": [0.1, 0.0]},
    }
    new = old | {"deployment": "readout", "figures": figures}
    rows = [{"method": "erm", "fleets": [fleet] * 3} for fleet in (old, new)]
    text = bench.table({"metadrive": {"rows": rows}, "highway": {"rows": rows[:1]}})
    assert "came to: finished / collisions / off road, means" in text
    assert text.count("| erm | none |") == 2  # in both tables of scores alone
    assert "| erm | readout | 1.00 / 0.00 / 0.10 | 0.50 / 0.25 / 0.05 |" in text
    # Where no row has them there is no table of them.
    assert text.count("came to") == 1


def test_a_network_that_says_nan_stands_still() -> None:
    report = drive_routes(constant(float("nan")), Line(), (4,))
    assert report == DriveReport((Drive(4, "timeout", 0.0, 10),))


def weights_file(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = (("fc_1", 275, 256), ("fc_2", 256, 256), ("fc_out", 256, 4))
    arrays = {}
    for name, a, b in sizes:
        arrays[f"default_policy/{name}/kernel"] = (0.1 * rng.standard_normal((a, b))).astype("f4")
        arrays[f"default_policy/{name}/bias"] = rng.standard_normal(b).astype("f4")
    np.savez(folder / _metadrive.WEIGHTS, **arrays)
    return arrays


def test_expert_is_the_published_formula(tmp_path: Path) -> None:
    """tanh(tanh(x K1 + b1) K2 + b2) K3 + b3, first two columns: worked out here in float64."""
    w = weights_file(tmp_path)
    x = np.random.default_rng(1).random((5, 275))
    h = x
    for layer in ("fc_1", "fc_2"):
        h = np.tanh(h @ w[f"default_policy/{layer}/kernel"] + w[f"default_policy/{layer}/bias"])
    mean = (h @ w["default_policy/fc_out/kernel"] + w["default_policy/fc_out/bias"])[:, :2]
    out = task("metadrive", tmp_path).model().double()(torch.from_numpy(x))
    np.testing.assert_allclose(out.detach().numpy(), mean, atol=1e-12)


def test_untrained_driver_differs_by_seed(tmp_path: Path) -> None:
    weights_file(tmp_path)
    t = task("metadrive", tmp_path)
    a, b = t.model("tanh-mlp", seed=0), t.model("tanh-mlp", seed=1)
    assert not torch.equal(a[0].weight, b[0].weight)


def test_a_file_that_is_not_the_expert_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / _metadrive.WEIGHTS, other=np.zeros(3))
    with pytest.raises(TaskError, match=r"is not MetaDrive's expert"):
        task("metadrive", tmp_path).model()


def test_without_the_environment_the_commands_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(_metadrive_env.PYTHON_VARIABLE, raising=False)
    weights_file(tmp_path)
    with pytest.raises(
        TaskError, match=r"(?s)ohmloop fetch metadrive.*metadrive-simulator==0\.3\.0\.1"
    ):
        task("metadrive", tmp_path).measure()


def test_a_python_without_metadrive_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker starts in this Python, which has no metadrive, and answers with the reason."""
    monkeypatch.setenv(_metadrive_env.PYTHON_VARIABLE, sys.executable)
    weights_file(tmp_path)
    simulator = _metadrive_env.MetaDrive(tmp_path)
    try:
        with pytest.raises(
            TaskError, match=r"(?s)MetaDrive cannot reset|MetaDrive's process ended"
        ):
            simulator.reset(0)
    finally:
        simulator.close()


@needs_metadrive
def test_records_are_the_experts_actions_and_routes_do_not_mix() -> None:
    t = task("metadrive", METADRIVE)
    source = t.entry.load(t.folder)
    groups = [set(part.groups.tolist()) for part in source]
    assert groups == [set(_metadrive.TRAINING_ROUTES), set(_metadrive.TEST_ROUTES)]
    with torch.no_grad():
        out = t.model()(torch.from_numpy(source.test.x))
    assert (out - torch.from_numpy(source.test.y)).abs().max() < 1e-5
    assert source.development.x.min() >= 0
    assert source.development.x.max() <= 1


@pytest.mark.slow
@needs_metadrive
def test_our_expert_says_what_metadrives_own_code_says_and_a_seed_gives_a_drive_again() -> None:
    simulator = _metadrive_env.MetaDrive(METADRIVE)
    model = task("metadrive", METADRIVE).model()
    first, between = [], []
    try:
        for seed, seens in ((1, first), (3, between)):
            seen = simulator.reset(seed)
            while seen.end is None and len(seens) < 60:
                with torch.no_grad():
                    action = model(torch.from_numpy(seen.x)[None])[0].double().numpy()
                np.testing.assert_allclose(action, simulator.expert(), atol=1e-6, rtol=1e-6)
                seens.append((seen.x, action))
                seen = simulator.step(action)
        # After another drive, and in a process of its own, the same route is the same to the last bit.
        other = _metadrive_env.MetaDrive(METADRIVE)
        try:
            for again in (simulator, other):
                seen = again.reset(1)
                for x, action in first:
                    assert np.array_equal(seen.x, x)
                    seen = again.step(action)
        finally:
            other.close()
    finally:
        simulator.close()


def view(
    *, lane: int = 1, speed: int = 1, cars: dict[tuple[int, int], tuple[float, float]]
) -> np.ndarray:
    """Return what a car sees in a lane; cars by (side, 0 ahead or 1 behind): distance, extra speed."""
    x = np.zeros(_highway_env.N_INPUTS, np.float32)
    x[0], x[4], x[5 + speed] = lane / 3, speed - 1, 1
    for (side, behind), (gap, extra) in cars.items():
        at = 8 + 3 * (2 * (side + 1) + behind)
        x[at : at + 3] = 1, gap / _highway_env.SIGHT, extra / 10
    return x


@pytest.mark.parametrize(
    ("seen", "best"),
    [
        (view(cars={}), _highway_env.FASTER),
        (view(speed=2, cars={}), _highway_env.IDLE),
        # A slow car ahead and cars on both sides: brake.
        (
            view(cars={(0, 0): (25, -5), (-1, 0): (4, 0), (1, 0): (4, 0)}),
            _highway_env.SLOWER,
        ),
        # The same with the left lane free, or the right.
        (view(cars={(0, 0): (25, -5), (1, 0): (4, 0)}), _highway_env.LEFT),
        (view(cars={(0, 0): (25, -5), (-1, 0): (4, 0)}), _highway_env.RIGHT),
        # In the outer lane there is no left.
        (view(lane=0, cars={(0, 0): (25, -5)}), _highway_env.RIGHT),
    ],
)
def test_planner_decides_as_a_driver_would(seen: np.ndarray, best: int) -> None:
    assert int(_highway_env.plan(seen).argmax()) == best


@needs_highway
def test_a_highway_seed_gives_a_drive_again() -> None:
    simulator = _highway_env.Highway(_highway.ROUTE)
    seen = [[], []]
    for k, between in enumerate((7, 8)):
        simulator.reset(between)
        state = simulator.reset(3)
        for action in (1, 3, 0, 1, 4):
            seen[k].append((state.x.tobytes(), state.progress, state.end))
            state = simulator.step(np.eye(5)[action])
    assert seen[0] == seen[1]


@needs_highway
def test_who_drives_at_the_lowest_speed_is_late_and_who_never_brakes_crashes() -> None:
    simulator = _highway_env.Highway(_highway.ROUTE)
    slow = constant_decision(_highway_env.SLOWER)
    report = _highway.drive_highway(slow, simulator, (0,))
    assert report.drives[0].end == "timeout"
    assert 0.9 < report.progress < 1
    fast = _highway.drive_highway(constant_decision(_highway_env.FASTER), simulator, (0,))
    assert fast.share("crash") == 1
    assert fast.figures == {"finished": 0.0, "collisions": 1.0, "progress": fast.progress}


def constant_decision(action: int) -> nn.Module:
    model = nn.Linear(_highway_env.N_INPUTS, 5)
    nn.init.zeros_(model.weight)
    model.bias.data = torch.eye(5)[action]
    return model


@needs_highway
def test_highway_without_records_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"ohmloop fetch highway"):
        task("highway", tmp_path)


@pytest.mark.skipif(not (HIGHWAY / _highway.RECORDS).is_file(), reason="ohmloop fetch highway")
def test_records_are_the_planners_decisions_and_routes_do_not_mix() -> None:
    source = _highway._load(HIGHWAY)
    groups = [set(part.groups.tolist()) for part in source]
    assert groups == [set(_highway.TRAINING_ROUTES), set(_highway.TEST_ROUTES)]
    for part in source:
        some = np.arange(0, len(part.y), 9)
        decided = [int(_highway_env.plan(part.x[k]).argmax()) for k in some]
        assert decided == part.y[some].tolist()


@pytest.mark.slow
@needs_highway
@pytest.mark.skipif(not (HIGHWAY / _highway.RECORDS).is_file(), reason="ohmloop fetch highway")
def test_imitating_the_planner_drives_better_than_the_untrained_network() -> None:
    t = task("highway", HIGHWAY)
    (train, _), test = t.development(0), t.test(0)
    model = t.model(seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(15):
        for i in torch.randperm(len(train.y), generator=generator).split(64):
            loss = t.metric.loss(model(train.x[i]), train.y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = float((model(test.x).argmax(1) == test.y).float().mean())
    assert accuracy > 0.6
    simulator = _highway_env.Highway(_highway.ROUTE)
    trained = _highway.drive_highway(model, simulator, (0, 1, 2, 3))
    untrained = _highway.drive_highway(t.model(seed=0), simulator, (0, 1, 2, 3))
    assert trained.progress > untrained.progress


def test_a_folder_that_setup_makes_is_made_once_and_again_when_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHMLOOP_DATA", str(tmp_path))
    calls = []

    def setup(folder: Path) -> None:
        calls.append(folder)
        (folder / "made.txt").write_text("done")

    known = {"it": DataSet(("made.txt",), (), "by hand", setup=setup, made=("made.txt",))}
    for _ in range(2):
        assert fetch_data("it", known) == tmp_path / "it"
    assert len(calls) == 1
    (tmp_path / "it" / "made.txt").unlink()
    fetch_data("it", known)
    assert len(calls) == 2
    assert (tmp_path / "it" / "made.txt").read_text() == "done"


def test_a_setup_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHMLOOP_DATA", str(tmp_path))

    def setup(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise TaskError("no such simulator")

    known = {"it": DataSet(("made.txt",), (), "by hand", setup=setup, made=("made.txt",))}
    with pytest.raises(TaskError, match="no such simulator"):
        fetch_data("it", known)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 2, 200, -30])
def test_damaged_records_are_said(tmp_path: Path, cut: int) -> None:
    path = tmp_path / _highway.RECORDS
    x = np.zeros((4, _highway_env.N_INPUTS), np.float32)
    np.savez_compressed(path, x=x, y=np.zeros(4, np.int64), seed=np.arange(4))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TaskError, match="is damaged"):
        task("highway", tmp_path).test(0)


def test_records_that_do_not_belong_together_are_said(tmp_path: Path) -> None:
    x = np.zeros((4, _highway_env.N_INPUTS), np.float32)
    np.savez(tmp_path / _highway.RECORDS, x=x, y=np.zeros(3, np.int64), seed=np.arange(4))
    with pytest.raises(TaskError, match="is damaged"):
        task("highway", tmp_path).test(0)


def test_a_route_is_on_one_side_of_the_division(tmp_path: Path) -> None:
    n, routes = 30, np.arange(1000, 1020)
    seed = np.append(np.repeat(routes, n), np.zeros(n, np.int64))
    x = np.zeros((len(seed), _highway_env.N_INPUTS), np.float32)
    x[:, 0] = seed
    y = np.random.default_rng(0).integers(0, 5, len(seed))
    np.savez(tmp_path / _highway.RECORDS, x=x, y=y, seed=seed)
    train, validation = task("highway", tmp_path).development(0)
    assert not set(train.x[:, 0].tolist()) & set(validation.x[:, 0].tolist())
    assert len(train.y) + len(validation.y) == n * len(routes)
