"""Training: masks by their law, no test data in a search, and a killed run that ends the same."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import analogize
from ohmloop.progress import ProgressEvent
from ohmloop.tasks import Accuracy, task
from ohmloop.train import (
    BayesMulti,
    Noise,
    compare,
    fit,
    list_methods,
    load_run,
    parse_method,
)
from ohmloop.train._noise import draw_mask, draw_weights, noisy_layers

SMALL = {"epochs": 3, "limit": 200}
SEARCHES = (
    "bayesmulti:n_initial=2,n_iterations=1",
    "bayesmulti:objective=drift-validation,parametrisation=two,n_initial=2,n_iterations=1,n_draws=3",
    "bayesft:n_initial=2,n_iterations=1,n_draws=3",
    "weight-noise:grid=0.3/0.6",
)
METHODS = (
    "erm",
    "dropout",
    "multinomial",
    "multinomial:p0=0.1,p1=0.6",
    "weight-noise:level=0.4",
    "weight-noise:level=0.4,distribution=lognormal-mean-1",
    "weight-noise:level=0.4,ramp=0.5,clip=2",
    "right-censored:level=0.4",
    "variance-aware:level=0.4",
    "hardware-aware:level=0.4",
    "distillation:level=0.4",
    "sam:radius=0.05",
    "asam:radius=0.5,level=0.2",
    "awp",
    "negative-feedback:level=0.3",
    "tile-dropout",
    "steady:strength=1.5",
    "steady:strength=1.5,teacher=false,match=false",
    *SEARCHES,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("p0", "p_half"), [(0.3, 0.35), (0.5, 0.0), (0.0, 0.0), (0.2, 0.8)])
def test_masks_have_their_three_values_and_mean_one(p0: float, p_half: float) -> None:
    n = 200_000
    mask = draw_mask(torch.empty(n), p0, p_half, gen())
    mean = 1 - p0 - p_half / 2
    for value, p in ((0.0, p0), (0.5, p_half), (1.0, 1 - p0 - p_half)):
        share = float(torch.isclose(mask, torch.tensor(value / mean)).float().mean())
        assert share == pytest.approx(p, abs=5 * (0.25 / n) ** 0.5)
    assert float(mask.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("distribution", "mean", "variance"),
    [
        ("gaussian", 1.0, 0.16),
        ("lognormal", np.exp(0.08), np.exp(0.16) * (np.exp(0.16) - 1)),
        ("lognormal-mean-1", 1.0, np.exp(0.16) - 1),
    ],
)
def test_weight_noise_has_its_law(distribution: str, mean: float, variance: float) -> None:
    model = nn.Linear(500, 400, bias=False)
    nn.init.ones_(model.weight)
    analogize(model, Hardware(device="lognormal:0.1"))
    w = draw_weights(model, Noise(level=0.4, distribution=distribution), gen())["weight"].detach()
    n = w.numel()
    assert float(w.mean()) == pytest.approx(mean, abs=5 * (variance / n) ** 0.5)
    assert float(w.var()) == pytest.approx(variance, rel=0.03)


def test_masks_follow_every_layer_but_the_last() -> None:
    assert [type(m).__name__ for m in noisy_layers(task("digits").model())] == ["Linear", "Linear"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_repeats(method: str) -> None:
    digits = task("digits")
    a, b = (fit(digits, method, epochs=8, limit=400, seed=3) for _ in range(2))
    assert a.validation_score > 0.6
    for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(x, y)
    expected = a.noise.passes if not a.trials else float(len(a.trials))
    assert a.cost == pytest.approx(expected) or method.startswith(("steady", "distillation"))
    assert parse_method(str(a.method)) == a.method


def test_methods_start_from_the_same_weights_and_batches() -> None:
    digits = task("digits")
    plain = fit(digits, "erm", **SMALL)
    silent = fit(digits, "weight-noise:level=0", **SMALL)
    for x, y in zip(plain.model.parameters(), silent.model.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_no_method_opens_the_test_set(method: str) -> None:
    digits = task("digits")

    def guarded(folder: Path | None):
        source = digits.entry.load(folder)
        # Labels of a class that does not exist: whoever trains or scores on them fails loudly.
        poison = source.test._replace(x=source.test.x * np.nan, y=source.test.y + 10**6)
        return source._replace(test=poison)

    watched = dataclasses.replace(digits, entry=dataclasses.replace(digits.entry, load=guarded))
    a, b = fit(watched, method, **SMALL), fit(digits, method, **SMALL)
    for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(x, y)
    assert "test" not in a.data_seen


class Stop(Exception):
    pass


@pytest.mark.parametrize("method", ["dropout", "weight-noise:level=0.4", SEARCHES[0]])
@pytest.mark.parametrize("after", [1, 2, 5])
def test_interrupted_run_resumes_to_the_same_bits(method: str, after: int, tmp_path: Path) -> None:
    digits = task("digits")
    whole = fit(digits, method, run_dir=tmp_path / "whole", **SMALL)
    count = 0

    def interrupt(event: ProgressEvent) -> None:
        nonlocal count
        count += 1
        if count == after:
            raise Stop

    try:
        fit(digits, method, run_dir=tmp_path / "cut", progress=interrupt, **SMALL)
    except Stop:
        assert not (tmp_path / "cut" / "result.json").exists()
    resumed = fit(digits, method, run_dir=tmp_path / "cut", **SMALL)
    for x, y in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(x, y)
    assert whole.trials == resumed.trials
    assert whole.history == resumed.history
    names = ("config.json", "result.json", "history.jsonl")
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.long
def test_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from ohmloop.tasks import task; from ohmloop.train import fit\n"
        "import sys; fit(task('digits'), 'weight-noise:grid=0.3/0.6', epochs=15, run_dir=sys.argv[1])"
    )

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(folder)])

    assert start(tmp_path / "whole").wait() == 0
    for k in range(3):
        process = start(tmp_path / "cut")
        checkpoint = tmp_path / "cut" / "trials" / f"{min(k, 1):02d}" / "checkpoint.pt"
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 * k)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "cut").wait() == 0
    states = [torch.load(tmp_path / n / "weights.pt", weights_only=True) for n in ("whole", "cut")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    digits = task("digits")
    fit(digits, "erm", run_dir=tmp_path / "a", **SMALL)
    with pytest.raises(TrainError, match="method: 'erm' there, 'dropout' now"):
        fit(digits, "dropout", run_dir=tmp_path / "a", **SMALL)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("x")
    with pytest.raises(TrainError, match="holds no run"):
        fit(digits, "erm", run_dir=tmp_path / "b", **SMALL)
    assert (tmp_path / "b" / "thesis.tex").read_text() == "x"


def test_run_is_read_back(tmp_path: Path) -> None:
    digits = task("digits")
    made = fit(
        digits, "erm", run_dir=tmp_path / "a", hardware=Hardware(device="nanowire-07"), **SMALL
    )
    back = load_run(tmp_path / "a")
    x = digits.test(0, 200).x[:5]
    assert torch.equal(made.model(x), back.model(x))
    environment = json.loads((tmp_path / "a" / "environment.json").read_text())
    assert {"python", "torch", "ohmloop", "platform"} <= set(environment)
    (tmp_path / "a" / "weights.pt").write_bytes(b"junk")
    with pytest.raises(TrainError, match="is damaged"):
        load_run(tmp_path / "a")
    with pytest.raises(TrainError, match="Is this a run folder"):
        load_run(tmp_path)


@pytest.mark.slow
def test_comparison_does_not_depend_on_the_workers() -> None:
    hard = [Hardware(device="lognormal:0.3"), Hardware(device="nanowire-30")]
    args = {"seeds": (0, 1), "n_devices": 4, "epochs": 2, "limit": 150}
    one = compare("digits", ["erm", ("weight-noise:level=0.4", 4)], hard, **args)
    two = compare("digits", ["erm", ("weight-noise:level=0.4", 4)], hard, workers=2, **args)
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.scores, b.scores)
        assert a.scores.shape == (2, 2, 4)
    assert [a.cost for a in one] == [1, 2]


def test_methods_cost_what_they_train() -> None:
    assert BayesMulti().n_initial + BayesMulti().n_iterations == 13
    assert {"erm", "dropout", "bayesft", "multinomial", "bayesmulti", "steady"} < set(
        list_methods()
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("bayesmuti", "Did you mean bayesmulti"),
        ("dropout:rte=0.5", "write key=value with one of rate"),
        ("dropout:rate=1.5", "less than 1"),
        ("erm:x=1", "no settings"),
        ("multinomial:p0=0.7,p1=0.7", "must not exceed 1"),
        ("weight-noise:distribution=cauchy", "gaussian"),
    ],
)
def test_wrong_methods_are_said(text: str, match: str) -> None:
    with pytest.raises(TrainError, match=match):
        parse_method(text)


def test_diverging_training_is_said() -> None:
    with pytest.raises(TrainError, match="Lower the learning rate"):
        fit(task("digits"), "weight-noise:level=19,distribution=lognormal", lr=1e6, **SMALL)


def test_search_survives_a_trial_that_diverges(tmp_path: Path) -> None:
    method = "weight-noise:grid=19/0.4,distribution=lognormal"
    args = {"lr": 3e-3, **SMALL}
    with pytest.raises(TrainError, match="Lower the learning rate"):
        fit(task("digits"), "weight-noise:level=19,distribution=lognormal", **args)
    result = fit(task("digits"), method, run_dir=tmp_path / "run", **args)
    assert np.isnan(result.trials[0].objective)
    assert result.trials[1].objective > 0
    assert result.noise.level == 0.4
    written = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert [t["objective"] is None for t in written["trials"]] == [True, False]
    again = fit(task("digits"), method, run_dir=tmp_path / "run", **args)
    for a, b in zip(result.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(TrainError, match="Lower the learning rate"):
        fit(task("digits"), "weight-noise:grid=19/18,distribution=lognormal", **args)


@dataclasses.dataclass(frozen=True)
class Unsure(Accuracy):
    """Has no score at all."""

    def value(self, totals: np.ndarray) -> np.ndarray:
        return np.full(len(totals), np.nan)


def test_trials_without_a_score_are_said(tmp_path: Path) -> None:
    digits, method = task("digits"), "weight-noise:grid=0.3/0.6"
    blind = dataclasses.replace(digits, entry=dataclasses.replace(digits.entry, metric=Unsure()))
    # A plain training has no use for the score, and its result is written all the same.
    fit(blind, "erm", run_dir=tmp_path / "plain", **SMALL)
    written = json.loads((tmp_path / "plain" / "result.json").read_text("utf-8"))
    assert written["validation_score"] is None
    with pytest.raises(TrainError, match="no trial has a score"):
        fit(blind, method, run_dir=tmp_path / "run", **SMALL)


def test_a_place_that_torch_does_not_know_is_said() -> None:
    with pytest.raises(TrainError, match="torch cannot compute on 'nowhere' here"):
        fit(task("digits"), "erm", device="nowhere", **SMALL)
