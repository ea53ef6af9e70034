"""What executors with workers share: a thread waits for each trial that runs, and starts it again if lost."""

from __future__ import annotations

import atexit
import pickle
import shutil
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from ohmloop.errors import ExecutorError
from ohmloop.run._payload import Dumps, Shared, pack, unpack
from ohmloop.run._protocol import RETRIES, Executor, Handle, Resources

T = TypeVar("T")


class Lost(Exception):
    """An attempt ended without a word of the trial: its worker is gone."""


class Job:
    """A trial on its way.

    Attributes:
        name: Of its function.
        payload: As bytes.
        resources: What it gets.
        shared: The shared values among its arguments.
        attempts: How often it was started.
        is_cancelled: Whether it was given up.
    """

    def __init__(
        self, name: str, payload: bytes, resources: Resources, shared: tuple[Shared[Any], ...]
    ) -> None:
        self.name, self.payload, self.resources, self.shared = name, payload, resources, shared
        self.attempts, self.is_cancelled = 0, False
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    @contextmanager
    def running(self, stop: Callable[[], None]) -> Iterator[None]:
        """Say how the attempt that runs in the block can be stopped."""
        with self._lock:
            self._stop = stop
        try:
            if self.is_cancelled:
                raise Lost("cancelled")
            yield
        finally:
            with self._lock:
                self._stop = None

    def cancel(self) -> None:
        """Stop the attempt that runs, and let no other begin."""
        with self._lock:
            self.is_cancelled = True
            if self._stop is not None:
                self._stop()


class _Pending(Generic[T]):
    """The handle of a job."""

    def __init__(self, future: futures.Future[T], job: Job) -> None:
        self.future, self._job = future, job

    @property
    def attempts(self) -> int:
        return self._job.attempts

    @property
    def is_done(self) -> bool:
        return self.future.done()

    def result(self) -> T:
        return self.future.result()

    def cancel(self) -> bool:
        if self.future.done():
            return False
        if not self.future.cancel():
            self._job.cancel()
        return True


class Workers(Executor):
    """Base of executors whose trials run in other processes.

    Args:
        name: As it was asked for.
        n_workers: Trials that run side by side.
        resources: Of each.
        retries: Further attempts at a trial whose worker was lost.
    """

    dumps: Dumps = staticmethod(pickle.dumps)

    def __init__(
        self, name: str, n_workers: int, resources: Resources, retries: int = RETRIES
    ) -> None:
        if n_workers < 1 or retries < 0:
            raise ExecutorError(
                f"{name}: at least one worker and no fewer than 0 retries; received {n_workers}, {retries}."
            )
        self.name, self.n_workers = name, n_workers
        self.resources, self.retries = resources, retries
        self._threads = futures.ThreadPoolExecutor(n_workers, "ohmloop-run")
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._scratch: Path | None = None
        self._is_closed = False
        atexit.register(self.close)  # for those who forget the `with` block

    @abstractmethod
    def attempt(self, job: Job) -> bytes:
        """Run the job once, inside ``job.running``, and return its outcome; `Lost` if the worker is gone."""

    def end(self) -> None:
        """Let go of what outlives a trial; nothing runs any more."""

    def submit(
        self, fn: Callable[..., T], /, *args: Any, resources: Resources | None = None
    ) -> Handle[T]:
        """Hand in a trial; see `Executor.submit`."""
        if self._is_closed:
            raise ExecutorError(f"{self.name} is closed; submit inside its `with` block.")
        job = Job(
            getattr(fn, "__qualname__", "a trial"),
            pack(fn, args, self.dumps),
            resources or self.resources,
            tuple(a for a in args if isinstance(a, Shared)),
        )
        future = self._threads.submit(self._until_done, job)
        return _Pending(future, job)

    def as_completed(self, handles: Iterable[Handle[T]]) -> Iterator[Handle[T]]:
        """Yield handles as their trials end."""
        of = {}
        for handle in handles:
            assert isinstance(handle, _Pending)
            of[handle.future] = handle
        for future in futures.as_completed(of):
            yield of[future]

    def share(self, value: T) -> Shared[T]:
        """Write the value to a file that each worker reads once."""
        key = uuid4().hex
        path = self.scratch() / key
        path.write_bytes(self.dumps(value))
        return Shared(key, path)

    def scratch(self) -> Path:
        """Return a folder that workers see too; it goes when the executor is closed."""
        with self._lock:
            if self._scratch is None:
                self._scratch = self.make_scratch()
            return self._scratch

    def make_scratch(self) -> Path:
        """Make that folder."""
        return Path(tempfile.mkdtemp(prefix="ohmloop-"))

    def close(self) -> None:
        """End what runs, its processes included."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            running = list(self._jobs)
        for job in running:
            job.cancel()
        self._threads.shutdown(wait=True)
        self.end()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _until_done(self, job: Job) -> Any:
        with self._lock:
            self._jobs.add(job)
        try:
            while True:
                if job.is_cancelled or self._is_closed:
                    raise futures.CancelledError
                job.attempts += 1
                try:
                    outcome = self.attempt(job)
                except Lost as lost:
                    if job.attempts <= self.retries or job.is_cancelled:
                        continue
                    raise ExecutorError(
                        f"{self.name}: the worker was lost in each of {job.attempts} attempts at {job.name}; "
                        f"the last time: {lost}. Too little memory, or time, is the usual reason."
                    ) from None
                return unpack(outcome)
        finally:
            with self._lock:
                self._jobs.discard(job)
