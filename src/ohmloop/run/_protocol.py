"""What every executor offers. The tests in tests/run/test_contract.py hold each of them to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeVar

from ohmloop.errors import ExecutorError
from ohmloop.run._payload import Shared

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

RETRIES = 2
"""Further attempts at a trial whose worker was lost: one may be chance, three in a row are the trial's own."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial gets.

    Attributes:
        cpus: Cores, and threads of torch: more than one may change the last bits of a sum.
        gpus: GPUs; a share below 1 puts several trials on one. 0 hides them from no trial.
        memory: Gigabytes (10^9 bytes); None leaves it to the executor.
        minutes: Wall time after which a cluster ends it; None leaves it to the executor.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory: float | None = None
    minutes: int | None = None

    def __post_init__(self) -> None:
        whole = self.gpus < 1 or float(self.gpus).is_integer()
        if self.cpus < 1 or self.gpus < 0 or not whole:
            raise ExecutorError(
                f"a trial has at least one CPU, and a share of a GPU or whole ones; received cpus={self.cpus}, "
                f"gpus={self.gpus:g}. Write gpus=0.5 or gpus=2."
            )
        if (self.memory or 1) <= 0 or (self.minutes or 1) < 1:
            raise ExecutorError(
                f"memory (GB) and time (minutes) are above 0; received {self.memory}, {self.minutes}."
            )


class Handle(Protocol[T_co]):
    """A trial that was handed in."""

    @property
    def attempts(self) -> int:
        """How often it was started so far."""

    @property
    def is_done(self) -> bool:
        """Whether it has a result, an error, or was cancelled."""

    def result(self) -> T_co:
        """Wait, and return what the trial returned.

        Raises:
            Exception: What the trial raised, as it was; the worker's traceback is among its notes.
            CancelledError: Of `concurrent.futures`, if it was cancelled.
            ExecutorError: If its worker was lost in every attempt.
        """

    def cancel(self) -> bool:
        """Give it up, also while it runs where that can be; False if it is done already."""


class Executor(ABC):
    """Runs trials and hands back what they return. Use it in a ``with`` block: leaving it ends all processes.

    What an executor promises:

    * A trial is a function at module level; closures and lambdas are refused. Arguments and results are copied.
    * A trial ends exactly once: with what it returned, the exception it raised, or `ExecutorError` after
      `retries` further attempts whose workers were all lost. An attempt may have been cut anywhere, so that a
      trial must be able to find its own remains.
    * Nothing depends on the order in which trials end: the caller tells them apart by their handles.
    * What a trial reports of itself stays with it unless `in_this_process`: a ``progress`` function cannot be
      sent to a worker. The caller, who alone writes results, reports trials as they end.

    Attributes:
        name: As it was asked for, "local:2".
        n_workers: Trials that run side by side.
        in_this_process: Whether trials see the caller's memory and may call its functions.
    """

    name: str
    n_workers: int
    in_this_process: ClassVar[bool] = False

    @abstractmethod
    def submit(
        self, fn: Callable[..., T], /, *args: Any, resources: Resources | None = None
    ) -> Handle[T]:
        """Hand in a trial: ``fn(*args)``, where a `Shared` argument arrives as its value.

        Args:
            fn: A function at module level.
            args: Whatever can be pickled.
            resources: Of this trial; by default those of the executor.

        Raises:
            ExecutorError: If the trial cannot be sent to another process, or the executor is closed.
        """

    @abstractmethod
    def as_completed(self, handles: Iterable[Handle[T]]) -> Iterator[Handle[T]]:
        """Yield handles as their trials end, in whatever order that is."""

    @abstractmethod
    def share(self, value: T) -> Shared[T]:
        """Return something to pass to many trials in the place of a large value: each worker reads it once.

        Trials must not change it.
        """

    @abstractmethod
    def close(self) -> None:
        """End what runs, its processes included; a second call does nothing."""

    def each(
        self, fn: Callable[..., T], jobs: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, T]]:
        """Run ``fn(*job)`` for each job and yield (position, result) as they end.

        The first exception ends it; what still runs then is cancelled.
        """
        handles: dict[Handle[T], int] = {}
        try:
            for k, job in enumerate(jobs):
                handles[self.submit(fn, *job)] = k
            for handle in self.as_completed(list(handles)):
                yield handles[handle], handle.result()
        finally:
            for handle in handles:
                handle.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
