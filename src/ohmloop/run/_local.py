"""A pool of processes on this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util  # its exit hook must be older than ours, which then runs first
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from ohmloop.errors import ExecutorError
from ohmloop.run._payload import limit_threads, run
from ohmloop.run._protocol import RETRIES, Resources
from ohmloop.run._workers import Job, Lost, Workers

_READY = b"ready"


class LocalPool(Workers):
    """Fresh processes that take one trial after the other, each on one thread unless told otherwise.

    GPUs are dealt out by `Resources.gpus`: with 0.5, workers 0 and 1 see the first, 2 and 3 the second. A
    process starts when there is a trial for it. A script that uses the pool keeps its work under
    ``if __name__ == "__main__":``, for each worker imports it anew.

    Args:
        n_workers: Processes, at most.
        resources: Of each trial; memory and time are not watched here.
        retries: Further attempts at a trial whose process was lost.
    """

    def __init__(
        self, n_workers: int, resources: Resources | None = None, *, retries: int = RETRIES
    ) -> None:
        super().__init__(f"local:{n_workers}", n_workers, resources or Resources(), retries)
        self._idle: list[_Worker] = []
        self._slots = list(range(n_workers))[::-1]

    def attempt(self, job: Job) -> bytes:
        """Run the job in a process that is idle, or a new one."""
        worker = self._take(job.resources)
        is_sound = False
        try:
            with job.running(worker.stop):
                outcome = worker.ask(job.payload, job.resources.cpus, lambda: job.is_cancelled)
            is_sound = True
            return outcome
        finally:
            if not is_sound:
                worker.kill()
            with self._lock:
                if is_sound:
                    self._idle.append(worker)
                else:
                    self._slots.append(worker.slot)

    def end(self) -> None:
        """End the idle processes."""
        for worker in self._idle:
            worker.kill()
        self._idle.clear()

    def _take(self, resources: Resources) -> _Worker:
        with self._lock:
            for k, worker in enumerate(self._idle):
                if worker.gpus == resources.gpus and worker.is_alive:
                    return self._idle.pop(k)
            if (
                not self._slots
            ):  # All slots are held by idle processes that see other GPUs, or are dead.
                other = self._idle.pop()
                other.kill()
                self._slots.append(other.slot)
            slot = self._slots.pop()
            return _Worker(slot, resources.gpus)


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, slot: int, gpus: float) -> None:
        self.slot, self.gpus = slot, gpus
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon, so that a trial may have workers of its own; serve() does not outlive us all the same.
        self._process = context.Process(
            target=serve, args=(theirs, visible(slot, gpus)), name=f"ohmloop worker {slot}"
        )
        # The coordinator alone answers Ctrl-C, by ending its workers; serve() unblocks it for others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._is_ready = False

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def ask(self, payload: bytes, cpus: int, is_cancelled: Callable[[], bool]) -> bytes:
        """Send a trial and wait for its outcome."""
        try:
            if not self._is_ready:
                self._receive()
                self._is_ready = True
        except Lost as lost:
            if is_cancelled():
                raise
            raise ExecutorError(
                f"a worker process did not start ({lost}). A script that uses workers keeps its work under\n"
                '    if __name__ == "__main__":\n'
                "because each worker imports the script anew."
            ) from None
        try:
            self._pipe.send_bytes(cpus.to_bytes(4))
            self._pipe.send_bytes(payload)
        except OSError:
            raise Lost(self._end()) from None
        return self._receive()

    def _receive(self) -> bytes:
        wait([self._pipe, self._process.sentinel])
        try:
            # What was sent before the end still counts.
            if self._pipe.poll():
                return self._pipe.recv_bytes()
        except (EOFError, OSError):
            pass
        raise Lost(self._end())

    def _end(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with status {code}"  # None: reaped by another thread just now

    def stop(self) -> None:
        """End the process at once; nothing that it holds is worth keeping."""
        self._process.kill()

    def kill(self) -> None:
        """End the process and wait until it is gone."""
        self.stop()
        self._process.join()
        self._pipe.close()


def visible(slot: int, gpus: float) -> dict[str, str]:
    """Return the environment that shows a worker its GPUs, by its number; empty for none.

    >>> visible(3, 0.5), visible(1, 2)
    ({'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': '2,3'})
    """
    if not gpus:
        return {}
    each = max(1, round(gpus))
    first = int(slot * gpus + 1e-9)
    mine = [str(k) for k in range(first, first + each)]
    known = os.environ.get("CUDA_VISIBLE_DEVICES")
    if known:
        all_of_them = known.split(",")
        mine = [all_of_them[int(k)] for k in mine if int(k) < len(all_of_them)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def serve(pipe: Connection, environment: dict[str, str]) -> None:
    """Take trials from a pipe until it closes; the life of a worker process."""
    os.environ.update(environment)
    limit_threads(1)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send_bytes(_READY)
    while True:
        try:
            cpus = int.from_bytes(pipe.recv_bytes())
            payload = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(run(payload, cpus))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
