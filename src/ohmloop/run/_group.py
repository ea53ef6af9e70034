"""Processes of this machine that run one function together, as one training on several GPUs does.

An executor's workers are strangers to each other, and a lost one is replaced. Here all depend on all: if one is
lost, or fails alone, the others are ended.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util  # its exit hook must be older than ours, which then runs first
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from ohmloop.errors import ExecutorError, OhmloopError
from ohmloop.run._payload import limit_threads, portable

Say = Callable[[Any], None]

_GRACE = 2.0  # seconds in which the death of a process shows after another noticed its silence


class Seat(NamedTuple):
    """What a process knows of its group.

    Attributes:
        number: Its own, from 0.
        n: Processes in all.
        scratch: A folder that all of them and the caller see.
    """

    number: int
    n: int
    scratch: Path


class _Member(NamedTuple):
    process: SpawnProcess
    pipe: Connection


class Group:
    """Processes that run the same functions at the same time. They start with the first one.

    Processes stay between functions, with what these keep in their modules. Pickled, a group travels without
    its processes: where it arrives, it starts its own. They end with `close`, with the caller or with an error.

    Args:
        n: Processes.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._members: list[_Member] = []
        self._scratch: Path | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def __reduce__(self) -> tuple[type[Group], tuple[int]]:
        return type(self), (self.n,)

    @property
    def scratch(self) -> Path:
        """A folder that goes with the processes."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="ohmloop-"))
        return self._scratch

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...], told: Say) -> Any:
        """Run ``fn(seat, say, *args)`` in each process and return what the first one returned.

        Args:
            fn: A function at module level.
            args: The same for all; whatever can be pickled.
            told: Called here with what any of them says.

        Raises:
            ExecutorError: If a process cannot start or is lost.
        """
        payload = pickle.dumps((fn, args))
        is_sound = False
        try:
            if not self._members:
                self._start()
            try:
                for member in self._members:
                    member.pipe.send_bytes(payload)
            except OSError:  # One of them ended since it last answered.
                raise self._lost() from None
            value = self._collect(told)
            is_sound = True
            return value
        finally:
            if not is_sound:
                self.close()

    def close(self) -> None:
        """End the processes; a later function starts new ones."""
        if self._end is not None:
            self._end()
            atexit.unregister(self._end)
        elif self._scratch is not None:  # Something was put there, and no process started.
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._members, self._scratch, self._end = [], None, None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        torch = sys.modules.get("torch")
        here = len(os.sched_getaffinity(0)) if torch is None else torch.get_num_threads()
        scratch, threads = self.scratch, max(1, here // self.n)
        self._end = weakref.finalize(self, _end, self._members, scratch)
        # A finalizer's own hook may be older than multiprocessing's, which waits for these processes.
        atexit.register(self._end)
        # The caller alone answers Ctrl-C, by ending its processes.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for k in range(self.n):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_serve,
                    args=(theirs, Seat(k, self.n, scratch), threads),
                    name=f"ohmloop process {k}",
                )
                process.start()
                theirs.close()
                self._members.append(_Member(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for member in self._members:
            wait([member.pipe, member.process.sentinel])
            if not member.pipe.poll() or not _is_ready(member.pipe):
                raise ExecutorError(
                    f"one of {self.n} processes did not start ({_outcome(member.process)}). A script that uses "
                    'several processes keeps its work under\n    if __name__ == "__main__":\n'
                    "because each of them imports the script anew."
                )

    def _collect(self, told: Say) -> Any:
        """Listen until all are done; return the first one's value."""
        waiting, value = dict(enumerate(self._members)), None
        while waiting:
            ready = wait([*(m.pipe for m in waiting.values()), *self._sentinels()])
            for k, member in list(waiting.items()):
                if not member.pipe.poll():
                    continue
                try:
                    kind, content = member.pipe.recv()
                except (EOFError, OSError):
                    raise self._lost() from None
                if kind == "said":
                    told(content)
                elif kind == "done":
                    del waiting[k]
                    value = content if k == 0 else value
                else:
                    self._check_alone(content)
                    raise content
            if any(s in ready for s in self._sentinels()) and waiting:
                # What was sent before the end still counts, unless it was the last of one that is waited for.
                if not any(m.pipe.poll() for m in waiting.values()):
                    raise self._lost()
        return value

    def _sentinels(self) -> list[int]:
        return [m.process.sentinel for m in self._members]

    def _check_alone(self, error: Exception) -> None:
        """Raise for a process that died, where ``error`` is only what another one noticed of it."""
        if not isinstance(error, OhmloopError) and wait(self._sentinels(), _GRACE):
            raise self._lost() from None

    def _lost(self) -> ExecutorError:
        ended = wait(self._sentinels(), _GRACE)
        which = "; ".join(
            f"process {k + 1}: {_outcome(member.process)}"
            for k, member in enumerate(self._members)
            if member.process.sentinel in ended
        )
        return ExecutorError(
            f"one of {self.n} processes that computed together was lost ({which or 'it closed its pipe'}), and "
            "the others were ended. Too little memory is the usual reason: fewer processes, or fewer inputs a "
            "step. With a run folder, the same command goes on from its last epoch."
        )


def _is_ready(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv() == ("ready", None))
    except (EOFError, OSError):
        return False


def _outcome(process: SpawnProcess) -> str:
    process.join(5)
    code = process.exitcode
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _end(members: list[_Member], scratch: Path) -> None:
    for member in members:
        member.process.kill()
    for member in members:
        member.process.join()
        member.pipe.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _serve(pipe: Connection, seat: Seat, threads: int) -> None:
    """Run functions as they come; the life of a process."""
    limit_threads(threads)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_caller, args=(seat.scratch,), daemon=True).start()

    def say(what: Any) -> None:
        pipe.send(("said", what))

    pipe.send(("ready", None))
    while True:
        try:
            fn, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        limit_threads(threads)  # torch may have come with the function
        try:
            pipe.send(("done", fn(seat, say, *args)))
        except Exception as error:
            pipe.send(("failed", portable(error)))


def _end_with_caller(scratch: Path) -> None:
    """Wait for the end of the process that started this one: killed, it could not end its own."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)
