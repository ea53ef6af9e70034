"""`steady`: its search keeps the winning lineage, resumes to the same bits, and costs what it says."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError, TrainError
from ohmloop.nn import Deployment, evaluate_fleet, nominal_batch_norm
from ohmloop.progress import ProgressEvent
from ohmloop.tasks import Accuracy, Metric, Perplexity, RSquared, task
from ohmloop.tasks._entry import Source
from ohmloop.tasks._task import _ENTRIES
from ohmloop.train import (
    Noise,
    Steady,
    Trial,
    compare,
    fit,
    load_run,
    parse_method,
    rank_correlation,
    unlabelled_inputs,
)
from ohmloop.train._steady import GRID, Selection

SMALL = {"epochs": 10, "limit": 200, "hardware": Hardware(device="lognormal:0.6")}
METHOD = "steady:search=true,n_trials=5,n_draws=3"


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.slow
def test_search_has_the_grid_rounds_and_a_bounded_cost(tmp_path: Path) -> None:
    result = fit(task("digits"), "steady:search=true,n_draws=3", run_dir=tmp_path / "run", **SMALL)
    first = [t for t in result.trials if t.epochs == 1]
    assert [t.noise.level / 0.6 for t in first[: len(GRID)]] == pytest.approx(list(GRID))
    assert [sum(t.epochs == e for t in result.trials) for e in (1, 2, 10)] == [6, 3, 2]
    # 6 x .1 + 3 x .1 + 2 x .8 of trials, 1.5 more for the winner of 2.5.
    assert result.cost == pytest.approx(4.0)
    assert len(result.history) == 25
    # One setting without noise, and it stays to the last round.
    noisy = {e: [t.noise.level > 0 for t in result.trials if t.epochs == e] for e in (1, 2, 10)}
    assert [levels.count(False) for levels in noisy.values()] == [1, 1, 1]
    for rho, n in rank_correlation(result.trials).values():
        assert -1 <= rho <= 1
        assert n >= 3
    assert load_run(tmp_path / "run").config["deployment"] == "readout"


@pytest.mark.parametrize("extra", ["", ",teacher=true", ",match=true", ",teacher=true,match=true"])
@pytest.mark.parametrize("epochs", [1, 2, 5, 6, pytest.param(20, marks=pytest.mark.slow)])
def test_search_costs_no_more_than_four_trainings(epochs: int, extra: str) -> None:
    args = {**SMALL, "epochs": epochs, "limit": 100}
    result = fit(task("iris"), f"steady:search=true,n_draws=2{extra}", **args)
    assert result.cost <= 4.0 + 1e-9
    # What is kept gets most of it: five eighths, a teacher aside.
    left = (4.0 - ("teacher" in extra)) / (2 if "match" in extra else 1)
    assert len(result.history) / epochs >= 0.625 * left - 1 / epochs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("", 4.0),
        (",teacher=true", 4.0),
        (",match=true", 4.0),
        (",match=true,teacher=true", 4.0),
        (",length=1.5", 1.5),
    ],
)
def test_fixed_strength_costs_no_more_than_four_trainings(text: str, cost: float) -> None:
    result = fit(task("iris"), f"steady:strength=1{text}", **{**SMALL, "limit": 100})
    assert result.cost == pytest.approx(cost)


def test_strength_zero_is_long_plain_training() -> None:
    digits = task("digits")
    ours = fit(digits, "steady:strength=0,length=2", **SMALL)
    plain = fit(digits, "erm", **{**SMALL, "epochs": 20})
    assert ours.noise == plain.noise == Noise()
    assert same(ours.model, plain.model)


def test_without_a_search_it_is_long_weight_noise_that_grows() -> None:
    digits = task("digits")
    ours = fit(digits, "steady", **SMALL)
    assert ours.noise.level == pytest.approx(0.8 * 0.6)
    assert ours.cost == pytest.approx(4.0)
    level = repr(ours.noise.level)
    known = fit(digits, f"weight-noise:level={level},ramp=0.5", **{**SMALL, "epochs": 40})
    unused = {"mixture": ours.noise.mixture}
    assert ours.noise == known.noise.model_copy(update=unused)
    assert same(ours.model, known.model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "sigma", "is_noisy"), [("mlp", 3.0, False), ("mlp-bn", 0.8, True)]
)
def test_plain_training_is_kept_only_if_it_leads_the_best_noise_by_more_than_a_tie(
    model: str, sigma: float, is_noisy: bool
) -> None:
    args = {**SMALL, "limit": 600, "hardware": Hardware(device=f"lognormal:{sigma}")}
    result = fit(task("digits"), "steady:search=true,n_draws=5", model=model, **args)
    plain, noisy = sorted((t for t in result.trials if t.epochs == 10), key=lambda t: t.noise.level)
    assert plain.noise == Noise()
    assert noisy.noise.level > 0
    assert (plain.objective - 0.03 <= noisy.objective) == is_noisy
    assert result.noise == (noisy if is_noisy else plain).noise


@pytest.mark.parametrize(
    ("plain", "noisy", "metric", "is_noisy"),
    [  # objective, digital score
        ((0.80, 0.9), (0.78, 0.9), Accuracy(), True),  # a tie
        ((0.80, 0.9), (0.78, 0.5), Accuracy(), True),  # and no less for a lower digital score
        ((0.80, 0.9), (0.76, 0.9), Accuracy(), False),
        ((0.20, 0.9), (0.185, 0.9), Accuracy(), True),
        ((0.20, 0.9), (0.175, 0.9), Accuracy(), False),  # within .03, but an eighth of it
        ((0.008, 0.33), (0.0, 0.0), Accuracy(), False),  # devices keep nothing of either
        ((0.0, 0.33), (0.0, 0.0), Accuracy(), False),
        ((0.0, 0.33), (0.0, 0.34), Accuracy(), True),
        ((-0.01, 0.9), (-0.03, 0.9), RSquared(), False),
        ((-0.10, 1.05), (-0.12, 1.05), Perplexity(), True),  # logarithms: 2 % are 2 % at any height
        ((-0.10, 1.05), (-0.14, 1.05), Perplexity(), False),
        ((math.nan, math.nan), (0.1, 0.2), Accuracy(), True),
        ((0.1, 0.2), (math.nan, math.nan), Accuracy(), False),
    ],
)
def test_a_tie_is_a_small_lead_of_a_network_that_devices_keep(
    plain: tuple[float, float], noisy: tuple[float, float], metric: Metric, is_noisy: bool
) -> None:
    selection = Selection(Steady(), metric)
    trials = [
        Trial(Noise(), plain[0], 10, 0, plain[1]),
        Trial(Noise(level=0.5), noisy[0], 10, 1, noisy[1]),
    ]
    for order in (trials, trials[::-1]):
        assert selection.survivors(order, 1) == [int(is_noisy)]
        assert selection.survivors(order, 2) == [0, 1]


def test_a_device_without_spread_needs_no_search() -> None:
    result = fit(task("digits"), METHOD, **{**SMALL, "hardware": Hardware(device="lognormal:0")})
    assert (result.trials, result.noise) == ((), Noise())


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, 9, 15])
def test_killed_search_resumes_to_the_same_bits(after: int, tmp_path: Path) -> None:
    digits = task("digits")
    whole = fit(digits, METHOD, **SMALL)
    count = 0

    def interrupt(event: ProgressEvent) -> None:
        nonlocal count
        count += 1
        if count == after:
            raise Stop

    with pytest.raises(Stop):
        fit(digits, METHOD, run_dir=tmp_path / "cut", progress=interrupt, **SMALL)
    resumed = fit(digits, METHOD, run_dir=tmp_path / "cut", **SMALL)
    assert whole.trials == resumed.trials
    assert same(whole.model, resumed.model)


@pytest.mark.slow
@pytest.mark.long
def test_search_killed_in_the_middle_of_rounds_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """By SIGKILL, which no handler sees: in the first round, and between the two settings of the last."""
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from ohmloop.crossbar import Hardware\n"
        "from ohmloop.tasks import task; from ohmloop.train import fit\n"
        f"fit(task('digits'), {METHOD!r}, epochs=30, limit=800, run_dir=sys.argv[1],\n"
        "    hardware=Hardware(device='lognormal:0.6'))"
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def judged(stop: int) -> int:
        return len(list(cut.glob(f"trials/*/judged-{stop:04d}.json")))

    def kill_when(is_time: Callable[[], bool]) -> None:
        with subprocess.Popen([sys.executable, "-c", code, str(cut)]) as process:
            try:
                while not is_time() and process.poll() is None:
                    time.sleep(0.005)
            finally:
                process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL

    # 120 epochs in all: five settings for 3, two of them to 6 and to 30, one of the two to the end.
    kill_when(lambda: (cut / "trials" / "02" / "checkpoint.pt").exists())
    assert 2 <= judged(3) < 5
    kill_when(lambda: judged(30) == 1)
    assert (judged(3), judged(6), judged(30)) == (5, 2, 1)
    assert not (cut / "result.json").exists()
    args = {**SMALL, "epochs": 30, "limit": 800}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for folder in (cut, whole):
            fit(task("digits"), METHOD, run_dir=folder, **args)
    finally:
        torch.set_num_threads(threads)
    for name in ("config.json", "result.json", "history.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    a, b = (torch.load(run / "weights.pt", weights_only=True) for run in (whole, cut))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_forks_side_by_side_give_the_same_network() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fit(task("digits"), METHOD, **SMALL)
        two = fit(task("digits"), METHOD, workers=2, **SMALL)
    finally:
        torch.set_num_threads(threads)
    assert one.trials == two.trials
    assert same(one.model, two.model)


@pytest.mark.slow
def test_forks_side_by_side_take_any_measure_of_the_task() -> None:
    digits = task("digits")
    # A local function cannot be sent to another process, and training has no business with it.
    entry = dataclasses.replace(digits.entry, measure=lambda folder: lambda model: 0.0)
    result = fit(
        dataclasses.replace(digits, entry=entry), METHOD, workers=2, **{**SMALL, "epochs": 2}
    )
    assert result.trials


def test_fixed_strength_needs_no_search() -> None:
    result = fit(task("digits"), "steady:strength=1.5,ramp=0,length=1", **SMALL)
    assert result.trials == ()
    assert result.cost == 1
    assert result.noise.level == pytest.approx(0.9)
    assert result.noise.ramp == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steady:tie=0", "only a search has tie; add search=true"),
        ("steady:strength=1,n_draws=3", "only a search has n_draws; add search=true"),
        ("steady:search=true,strength=1", "leave one of them out"),
    ],
)
def test_settings_of_a_search_need_one(text: str, said: str) -> None:
    with pytest.raises(TrainError, match=said):
        parse_method(text)


def test_a_method_says_its_settings_as_they_are_typed() -> None:
    text = "steady:search=true,teacher=false,tie=0"
    assert str(parse_method(text)) == text


def test_readout_on_each_device_recovers_what_drift_takes() -> None:
    digits = task("digits")
    result = fit(digits, "steady:strength=1.25,length=1", epochs=15, limit=600, seed=1)
    train, validation = digits.development(1, 600)
    hardware = Hardware(device="lognormal:1")
    plain, helped = (
        evaluate_fleet(
            result.model,
            validation,
            n_devices=20,
            hardware=hardware,
            deployment=Deployment.parse(text),
            unlabelled=unlabelled_inputs(train, 1),
        )
        for text in ("none", "readout")
    )
    assert helped.mean > plain.mean + 0.05


def test_a_short_length_ends_the_search_early_and_costs_what_was_trained() -> None:
    result = fit(task("digits"), METHOD + ",length=0.2", **SMALL)
    assert {t.epochs for t in result.trials} == {1, 2}
    assert len(result.history) == 2
    # 5 forks of one epoch, 2 of them for one more; the winner is one of these.
    assert result.cost == pytest.approx(0.7)


def test_diverged_and_equal_objectives_have_no_rank_correlation() -> None:
    def trials(early: list[float], late: list[float]) -> list[Trial]:
        return [
            Trial(Noise(), value, epochs, number)
            for epochs, values in ((1, early), (2, late))
            for number, value in enumerate(values)
        ]

    nan = float("nan")
    assert rank_correlation(trials([0.1, 0.2, nan], [0.1, 0.2, 0.3])) == {}
    assert rank_correlation(trials([0.5, 0.5, 0.5], [0.1, 0.2, 0.3])) == {}
    found = rank_correlation(trials([0.1, 0.2, 0.4, nan], [0.1, 0.2, 0.3, 0.9]))
    assert found == {"1 to 2 epochs": (pytest.approx(1), 3)}


def test_outputs_too_many_for_a_readout_are_corrected_by_channel(tmp_path: Path) -> None:
    """A vocabulary of 49,152 (SmolLM2), say: the default must work for every task."""
    iris = task("iris")
    wide = dataclasses.replace(iris, entry=dataclasses.replace(iris.entry, n_classes=9_000))
    fit(wide, "steady:strength=1,length=1", epochs=1, run_dir=tmp_path / "wide")
    kept = json.loads((tmp_path / "wide" / "config.json").read_text())
    assert kept["deployment"] == "channel"
    with pytest.raises(ConversionError, match="8192 outputs"):
        fit(wide, "steady:strength=1,length=1", deployment="readout", epochs=1)


def test_too_few_inputs_are_said_before_training() -> None:
    events: list[ProgressEvent] = []
    with pytest.raises(ConversionError, match=r'64 unlabelled.*deployment "readout:samples=\d+"'):
        fit(task("iris"), "steady", epochs=2, limit=50, progress=events.append)
    with pytest.raises(ConversionError, match="has none"):
        fit(task("digits"), "steady", deployment="batch-norm", progress=events.append, limit=200)
    with pytest.raises(ConversionError, match="has none"):
        compare(
            "digits",
            ["erm"],
            [Hardware(device="lognormal:0.5")],
            deployments=["none", "batch-norm"],
            limit=200,
            epochs=1,
            progress=events.append,
        )
    assert events == []


def test_more_inputs_than_usual_are_found_where_there_are_some() -> None:
    train, _ = task("digits").development(0)
    usual, more = unlabelled_inputs(train, 0), unlabelled_inputs(train, 0, 1100)
    assert (len(usual), len(more)) == (1024, 1100)
    assert torch.equal(usual, more[:1024])


@pytest.mark.slow
def test_search_does_not_open_the_test_set() -> None:
    digits = task("digits")

    def guarded(folder: Path | None) -> Source:
        source = digits.entry.load(folder)
        # Labels of a class that does not exist: whoever trains or scores on them fails loudly.
        return source._replace(
            test=source.test._replace(x=source.test.x * np.nan, y=source.test.y + 10**6)
        )

    watched = dataclasses.replace(digits, entry=dataclasses.replace(digits.entry, load=guarded))
    a, b = fit(watched, METHOD, **SMALL), fit(digits, METHOD, **SMALL)
    assert a.trials == b.trials
    assert same(a.model, b.model)


@pytest.mark.slow
def test_search_by_a_perplexity_prefers_low_ones() -> None:
    digits = task("digits")
    entry = dataclasses.replace(digits.entry, metric=Surprise())
    result = fit(dataclasses.replace(digits, entry=entry), METHOD, **SMALL)
    last = [t for t in result.trials if t.epochs == 10]
    assert len(last) == 2
    assert result.noise == max(last, key=lambda t: t.objective).noise
    for trial in result.trials:
        assert trial.clean >= 1
        assert trial.objective <= 0  # minus the logarithm of a perplexity


@dataclasses.dataclass(frozen=True)
class Surprise(Accuracy):
    """Perplexity of the classes."""

    name: str = "perplexity"
    is_higher_better: bool = False

    def totals(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logs = out.log_softmax(-1).double()
        right = -logs.gather(-1, y.expand(len(out), -1).unsqueeze(-1)).squeeze(-1)
        return torch.stack([right.sum(1), torch.full((len(out),), float(len(y))).double()], 1)

    def value(self, totals: np.ndarray) -> np.ndarray:
        return np.exp(totals[:, 0] / totals[:, 1])


def test_a_folder_that_another_search_began_is_refused(tmp_path: Path) -> None:
    args = {**SMALL, "epochs": 2, "run_dir": tmp_path / "run"}
    fit(task("digits"), METHOD, **args)
    judged = next((tmp_path / "run" / "trials" / "00").glob("judged-*.json"))
    kept = json.loads(judged.read_text(encoding="utf-8"))
    kept["noise"]["level"] = 0.123
    judged.write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(TrainError, match=r"level 0\.123.* another version began it.* new folder"):
        fit(task("digits"), METHOD, **args)


@pytest.mark.parametrize(
    "method", ["erm", "steady:search=true,n_trials=4,n_draws=2", "as-it-comes"]
)
def test_batch_statistics_are_taken_anew_of_what_was_trained_only(
    method: str, tmp_path: Path
) -> None:
    """`fit` leaves the note on the network, and `load_run` finds it again."""
    digits = task("digits")
    run = fit(digits, method, model="mlp-bn", epochs=10, limit=100, run_dir=tmp_path / "run")
    x = digits.development(0, 100)[0].x
    for model in (run.model, load_run(tmp_path / "run").model):
        norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm1d))
        before = norm.running_mean.clone()  # type: ignore[union-attr]
        with nominal_batch_norm(model, x, 64):
            assert torch.equal(norm.running_mean, before) == (method == "as-it-comes")  # type: ignore[arg-type]
        assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


def came(name: str, seed: int, folder: Path | None) -> nn.Module:
    """Return a network one of whose batch norms comes with statistics, and a fresh one behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (nn.Linear(64, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 10))
        model = nn.Sequential(nn.Flatten(), *layers, nn.BatchNorm1d(10))
        model[2].running_mean.uniform_(-1, 1)  # type: ignore[union-attr,operator]
    return model.eval()


def test_batch_norm_that_comes_with_statistics_is_frozen_and_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it learned from other data stays; devices are corrected towards it, and so is training."""
    entry = dataclasses.replace(
        task("digits").entry, models=("came",), default_model="came", build=came
    )
    monkeypatch.setitem(_ENTRIES, "digits-came", entry)
    digits = task("digits-came")
    args = {**SMALL, "epochs": 4}
    x = digits.development(0, 100)[0].x
    own = digits.model()[2].running_mean  # type: ignore[index,union-attr]
    for place, method, match in (
        ("matched", "steady:strength=1,length=1", True),
        ("unmatched", "steady:strength=1,length=1,match=false", False),
    ):
        run = fit(digits, method, run_dir=tmp_path / place, **args)
        assert (run.noise.match, run.noise.frozen_norm) == (match, match)
        assert run.cost == 1 + match
        for model in (run.model, load_run(tmp_path / place).model):
            first, last = (m.running_mean for m in model.modules() if isinstance(m, nn.BatchNorm1d))
            before = last.clone()  # type: ignore[operator]
            assert before.any()  # type: ignore[operator]
            assert torch.equal(first, own) == match  # type: ignore[arg-type]
            with nominal_batch_norm(model, x, 64):  # Taken anew but for what is its own.
                assert torch.equal(first, own) == match  # type: ignore[arg-type]
                assert not torch.equal(last, before)  # type: ignore[arg-type]
    searched = fit(digits, METHOD, **args)
    assert searched.cost <= 4
    assert {t.noise.frozen_norm for t in searched.trials} == {True}
    assert {t.noise.match for t in searched.trials if t.noise.level} == {True}
    fresh = fit(task("digits"), "steady:strength=1,length=1", model="mlp-bn", **args)
    assert (fresh.noise.match, fresh.noise.frozen_norm) == (False, False)
