"""Processes that run one function together: all or none, and none that is left over."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ohmloop.errors import ExecutorError
from ohmloop.run._group import Group, Say, Seat

pytestmark = pytest.mark.slow

LONG = 120.0


def greeted(seat: Seat, say: Say, word: str) -> tuple[int, int, int]:
    say(f"{word} {seat.number}")
    return seat.number, seat.n, os.getpid()


def killed(seat: Seat, say: Say) -> None:
    if seat.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(LONG)


def failed(seat: Seat, say: Say) -> None:
    if seat.number == 1:
        raise ValueError("not in this process")
    time.sleep(LONG)


def orphaned(seat: Seat, say: Say) -> None:
    say((os.getpid(), str(seat.scratch)))
    time.sleep(LONG)


def gone(pid: int, seconds: float = 20.0) -> bool:
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


def test_all_run_it_and_stay_and_the_first_answers() -> None:
    group, said = Group(2), []
    try:
        first = group.run(greeted, ("hello",), said.append)
        again = group.run(greeted, ("again",), said.append)
        scratch = group.scratch
    finally:
        group.close()
    assert first[:2] == (0, 2)
    assert again == first  # The same process.
    assert sorted(said) == ["again 0", "again 1", "hello 0", "hello 1"]
    assert gone(first[2])
    assert not scratch.exists()


def test_a_group_travels_without_its_processes() -> None:
    group = Group(1)
    try:
        here = group.run(greeted, ("hello",), lambda what: None)
        other = pickle.loads(pickle.dumps(group))
        try:
            assert other.run(greeted, ("hello",), lambda what: None)[2] != here[2]
        finally:
            other.close()
    finally:
        group.close()


def test_one_that_is_lost_or_fails_ends_all_and_the_next_function_starts_anew() -> None:
    group, before = Group(2), set(multiprocessing.active_children())
    with pytest.raises(ExecutorError, match=r"one of 2 .* \(process 2: ended by SIGKILL\)"):
        group.run(killed, (), lambda what: None)
    assert set(multiprocessing.active_children()) == before
    with pytest.raises(ValueError, match="not in this process"):
        group.run(failed, (), lambda what: None)
    assert set(multiprocessing.active_children()) == before
    assert group.run(greeted, ("hello",), lambda what: None)[:2] == (0, 2)
    group.close()


def test_processes_end_with_one_that_was_killed() -> None:
    script = (
        "from ohmloop.run._group import Group\n"
        "from tests.run.test_group import orphaned\n"
        "Group(2).run(orphaned, (), lambda what: print(*what, flush=True))\n"
    )
    root = Path(__file__).resolve().parents[2]
    caller = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert caller.stdout is not None
    try:
        told = [caller.stdout.readline().split() for _ in range(2)]
    finally:
        caller.kill()
        caller.wait()
        caller.stdout.close()
    assert all(gone(int(pid)) for pid, _ in told)
    assert not any(Path(scratch).exists() for _, scratch in told)


def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ohmloop.run._group import Group\nGroup(1).run(print, (), lambda what: None)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-2]
