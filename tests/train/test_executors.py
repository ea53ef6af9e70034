"""Searches on executors: the same trials whoever runs them, and every trial once when a worker is killed."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ohmloop.progress import ProgressEvent
from ohmloop.run import Executor, LocalPool, open_executor
from ohmloop.tasks import Task, task
from ohmloop.train import RunResult, compare, fit, parse_method

SMALL = {"epochs": 2, "limit": 150}
SEARCH = "bayesft:n_initial=2,n_iterations=4,n_draws=3,in_flight=3"
METHODS = (SEARCH, "weight-noise:grid=0.3/0.6/0.9", "steady:search=true,n_trials=4,n_draws=3")
MARK = "OHMLOOP_TEST_MARK"


def same(a: RunResult, b: RunResult) -> bool:
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return a.trials == b.trials and a.noise == b.noise and all(torch.equal(x, y) for x, y in pairs)


def killed_once(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation whose first call ends its process: a worker lost in the middle of an epoch."""
    mark = Path(os.environ[MARK])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def augmented() -> Task:
    digits = task("digits")
    entry = dataclasses.replace(digits.entry, augment=killed_once)
    return dataclasses.replace(digits, entry=entry)


@pytest.fixture(scope="module")
def pool() -> Executor:
    with LocalPool(2) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_search_does_not_depend_on_who_runs_it(method: str, pool: Executor) -> None:
    digits = task("digits")
    alone = fit(digits, method, executor="in-process", **SMALL)
    side_by_side = fit(digits, method, executor=pool, **SMALL)
    assert same(alone, side_by_side)
    assert [t.number for t in alone.trials if t.epochs == alone.trials[0].epochs]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["slurm:2,cluster=local", "ray:2"])
def test_search_is_the_same_on_every_kind_of_executor(text: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit" if text.startswith("slurm") else "ray")
    if text.startswith("slurm"):
        text += f",folder={tmp_path / 'jobs'}"
    method = (
        "bayesft:n_initial=2,n_iterations=1,n_draws=2,in_flight=2"  # each job imports torch anew
    )
    alone = fit(task("digits"), method, executor="in-process", **SMALL)
    elsewhere = fit(task("digits"), method, executor=text, run_dir=tmp_path / "run", **SMALL)
    assert same(alone, elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_worker_leaves_every_trial_once(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv(MARK, str(mark))
    with open_executor("local:2") as executor:
        cut = fit(augmented(), method, executor=executor, run_dir=tmp_path / "cut", **SMALL)
        assert mark.exists(), "no worker was killed"
        whole = fit(augmented(), method, executor=executor, run_dir=tmp_path / "whole", **SMALL)
    assert same(cut, whole)
    assert len({(t.number, t.epochs) for t in cut.trials}) == len(cut.trials)
    names = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.json"))
    assert names == sorted(
        p.relative_to(tmp_path / "cut") for p in (tmp_path / "cut").rglob("*.json")
    )
    assert json.loads((tmp_path / "cut" / "result.json").read_text()) == json.loads(
        (tmp_path / "whole" / "result.json").read_text()
    )


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 9, 14])
def test_search_with_trials_in_flight_resumes_to_the_same_bits(after: int, tmp_path: Path) -> None:
    digits = task("digits")
    whole = fit(digits, SEARCH, **SMALL)
    count = 0

    def interrupt(event: ProgressEvent) -> None:
        nonlocal count
        count += 1
        if count == after:
            raise Stop

    with pytest.raises(Stop):
        fit(digits, SEARCH, run_dir=tmp_path / "cut", progress=interrupt, **SMALL)
    assert same(whole, fit(digits, SEARCH, run_dir=tmp_path / "cut", **SMALL))


@pytest.mark.slow
def test_trials_in_flight_are_part_of_the_method() -> None:
    assert str(parse_method("bayesft")) == "bayesft"
    assert str(parse_method("bayesmulti:in_flight=4")) == "bayesmulti:in_flight=4"
    digits = task("digits")
    one, three = (
        fit(digits, f"bayesft:n_initial=2,n_iterations=2,n_draws=2,in_flight={n}", **SMALL)
        for n in (1, 3)
    )
    # The design and the first proposal after it know the same; the next one does not.
    assert one.trials[:3] == three.trials[:3]
    assert one.trials[3] != three.trials[3]


@pytest.mark.slow
def test_comparison_is_the_same_on_an_executor(pool: Executor) -> None:
    from ohmloop.crossbar import Hardware

    args = {"seeds": (0, 1), "n_devices": 3, **SMALL}
    hard = [Hardware(device="lognormal:0.5")]
    alone = compare("digits", ["erm", "weight-noise:level=0.4"], hard, **args)
    there = compare("digits", ["erm", "weight-noise:level=0.4"], hard, executor=pool, **args)
    for a, b in zip(alone, there, strict=True):
        assert (a.scores == b.scores).all()
