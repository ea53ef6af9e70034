"""What every executor promises, for each of them. Slurm's runs through submitit's plain processes here."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from ohmloop.errors import ExecutorError, TrainError
from ohmloop.run import RETRIES, Executor, open_executor
from tests.run import trials

KINDS = [
    "in-process",
    pytest.param("local:2", marks=pytest.mark.slow),
    pytest.param("slurm:2,cluster=local", marks=pytest.mark.slow),
    pytest.param("ray:2", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=KINDS)
def executor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Executor]:
    text = request.param
    if text.startswith("slurm"):
        pytest.importorskip("submitit")
        text += f",folder={tmp_path_factory.mktemp('jobs')}"
    if text.startswith("ray"):
        pytest.importorskip("ray")
    with open_executor(text) as opened:
        yield opened


def workers_of(executor: Executor) -> None:
    if executor.in_this_process:
        pytest.skip("an in-process trial has no worker to lose")


def gone(pid: int, seconds: float = 15.0) -> bool:
    """Whether a process is gone within so many seconds; one that waits to be reaped counts as gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def wait_for_files(folder: Path, n: int) -> list[int]:
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < n:
        assert time.monotonic() < deadline, "the trial did not start"
        time.sleep(0.02)
    return [int(path.name) for path in folder.iterdir()]


def test_results_depend_on_the_arguments_alone(executor: Executor) -> None:
    expected = {seed: trials.draw(seed) for seed in range(3)}
    # The first to start is the last to end, where trials run side by side.
    jobs = [(seed, 0.4 if seed == 0 else 0.0) for seed in range(3)]
    assert dict(executor.each(trials.draw, jobs)) == expected
    assert {jobs[::-1][k][0]: v for k, v in executor.each(trials.draw, jobs[::-1])} == expected


def test_handles_end_once_and_keep_their_result(executor: Executor) -> None:
    handles = [executor.submit(trials.draw, seed) for seed in range(4)]
    seen = list(executor.as_completed(handles))
    assert sorted(map(id, seen)) == sorted(map(id, handles))
    assert all(handle.is_done and handle.attempts == 1 for handle in handles)
    assert not handles[0].cancel()
    assert handles[2].result() == handles[2].result() == trials.draw(2)


def test_exceptions_arrive_as_they_were(executor: Executor) -> None:
    handle = executor.submit(trials.fail, "level is 7")
    with pytest.raises(TrainError, match="level is 7") as caught:
        handle.result()
    assert str(caught.value) == "level is 7"
    if not executor.in_this_process:
        assert "in fail" in "".join(caught.value.__notes__)
    with pytest.raises(TrainError, match="level is 8"):
        list(executor.each(trials.fail, [("level is 8",), ("level is 8",)]))
    assert executor.submit(trials.draw, 1).result() == trials.draw(1)


def test_exceptions_that_cannot_travel_keep_their_words(executor: Executor) -> None:
    with pytest.raises((trials.Odd, ExecutorError), match="nothing came because it rained"):
        executor.submit(trials.fail_oddly).result()


def test_trial_that_is_killed_runs_again_and_ends_once(executor: Executor, tmp_path: Path) -> None:
    workers_of(executor)
    marks = [tmp_path / name for name in ("a", "b")]
    for mark in marks:
        mark.mkdir()
    killed = executor.submit(trials.die_until, str(marks[0]), 1)
    others = [executor.submit(trials.draw, seed) for seed in range(3)]
    ended = list(executor.as_completed([killed, *others]))
    assert len(ended) == len(set(map(id, ended))) == 4
    assert killed.result() == killed.attempts == 2
    assert [handle.result() for handle in others] == [trials.draw(seed) for seed in range(3)]
    assert executor.submit(trials.die_until, str(marks[1]), RETRIES).result() == RETRIES + 1


def test_trial_that_is_always_killed_is_said(executor: Executor, tmp_path: Path) -> None:
    workers_of(executor)
    handle = executor.submit(trials.die_until, str(tmp_path), 99)
    with pytest.raises(ExecutorError, match=f"lost in each of {RETRIES + 1} attempts at die_until"):
        handle.result()
    assert len(list(tmp_path.iterdir())) == handle.attempts == RETRIES + 1
    assert executor.submit(trials.draw, 0).result() == trials.draw(0)


def test_exit_in_a_trial_is_its_error_and_not_ours(executor: Executor) -> None:
    if executor.in_this_process:
        with pytest.raises(SystemExit):
            executor.submit(trials.leave).result()
        return
    with pytest.raises(ExecutorError, match=r"ended its process by sys\.exit\(3\)"):
        executor.submit(trials.leave).result()


def test_cancel_gives_up_what_waits_and_what_runs(executor: Executor, tmp_path: Path) -> None:
    handles = [executor.submit(trials.sleep, str(tmp_path), 60.0) for _ in range(4)]
    if not executor.in_this_process:
        pids = wait_for_files(tmp_path, 2)
    assert all(handle.cancel() for handle in handles)
    for handle in handles:
        with pytest.raises(CancelledError):
            handle.result()
        assert handle.is_done
    if not executor.in_this_process:
        assert all(gone(pid) for pid in pids)
        assert len(list(tmp_path.iterdir())) == 2, "a trial that waited has run"
    assert executor.submit(trials.draw, 0).result() == trials.draw(0)


def test_an_error_among_many_ends_the_others(executor: Executor, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(TrainError, match="off"):
        for _ in executor.each(_fail_or_sleep, [("off", ""), ("", str(tmp_path))]):
            pass
    assert time.monotonic() - start < 40


def _fail_or_sleep(text: str, folder: str) -> None:
    trials.fail(text) if text else trials.sleep(folder, 60.0)


def test_large_arguments_arrive_whole(executor: Executor) -> None:
    values = np.arange(3_000_000, dtype=np.float64)  # 24 MB
    expected = [float(values.sum() * k) for k in (1.0, 2.0)]
    assert executor.submit(trials.total, values, 1.0).result() == expected[0]
    shared = executor.share(values)
    done = dict(executor.each(trials.total, [(shared, 1.0), (shared, 2.0)]))
    assert [done[0], done[1]] == expected


def test_closures_are_refused_with_the_right_code(executor: Executor) -> None:
    def local() -> int:
        return 1

    for fn in (lambda: 1, local):
        with pytest.raises(ExecutorError, match=r"executor\.submit\(train, seed\)"):
            executor.submit(fn)


def test_arguments_that_cannot_travel_are_named(executor: Executor) -> None:
    if executor.in_this_process:
        assert executor.submit(isinstance, threading_lock(), int).result() is False
        return
    with pytest.raises(ExecutorError, match="argument 1 of the trial, a lock, cannot be sent"):
        executor.submit(isinstance, threading_lock(), int)


def threading_lock() -> object:
    import threading

    return threading.Lock()


def test_results_that_cannot_travel_are_said(executor: Executor) -> None:
    if executor.in_this_process:
        assert callable(executor.submit(trials.give_back_a_function).result())
        return
    with pytest.raises(ExecutorError, match="what give_back_a_function returned"):
        executor.submit(trials.give_back_a_function).result()


def test_trials_may_have_executors_of_their_own(executor: Executor) -> None:
    done = executor.submit(trials.nested, 3).result()
    assert done == [trials.draw(3)] * 2


def test_progress_of_a_trial_is_offered_in_this_process_only(executor: Executor) -> None:
    told: list[int] = []
    if executor.in_this_process:
        assert executor.submit(list.append, told, 1).result() is None
        assert told == [1]
    else:  # A copy is told, and the caller hears nothing: so the promise says.
        executor.submit(list.append, told, 1).result()
        assert told == []
    assert (executor.submit(trials.process).result() == os.getpid()) is executor.in_this_process
    # What is told of every executor: each trial as it ends.
    count = 0
    for _ in executor.each(trials.draw, [(1,), (2,)]):
        count += 1
    assert count == 2


def test_workers_compute_on_one_thread(executor: Executor) -> None:
    import torch

    before = torch.get_num_threads()
    assert executor.submit(trials.threads).result()[0] == 1
    assert torch.get_num_threads() == before
