"""Trials one after the other in this process: the default, and what others are compared with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from ohmloop.errors import ExecutorError
from ohmloop.run._payload import Shared, check_function
from ohmloop.run._protocol import Executor, Handle, Resources

T = TypeVar("T")


class InProcess(Executor):
    """Runs a trial when its result is asked for, in the order in which that happens.

    There is no worker to lose: a process that is killed goes on from its run folder. An error or Ctrl-C comes
    out of the trial as it is.

    Args:
        threads: Of torch while a trial runs: 1 gives the same bits as other executors. None leaves them as
            they are.
    """

    in_this_process: ClassVar[bool] = True

    def __init__(self, threads: int | None = None) -> None:
        self.name, self.n_workers = "in-process", 1
        self._threads = threads
        self._is_closed = False

    def submit(
        self, fn: Callable[..., T], /, *args: Any, resources: Resources | None = None
    ) -> Handle[T]:
        """Note a trial; see `Executor.submit`. Arguments are not copied."""
        if self._is_closed:
            raise ExecutorError("the executor is closed; submit inside its `with` block.")
        check_function(fn)
        threads = self._threads if resources is None else resources.cpus
        return _Trial(fn, args, threads)

    def as_completed(self, handles: Iterable[Handle[T]]) -> Iterator[Handle[T]]:
        """Run and yield the trials in the order given."""
        for handle in handles:
            assert isinstance(handle, _Trial)
            handle.finish()
            yield handle

    def share(self, value: T) -> Shared[T]:
        """Return the value itself, wrapped."""
        return _Own(value)

    def close(self) -> None:
        """Refuse further trials."""
        self._is_closed = True


class _Own(Shared[T]):
    """A shared value that never left this process."""

    def __init__(self, value: T) -> None:
        super().__init__("own")
        self._value = value

    def get(self) -> T:
        return self._value


class _Trial(Generic[T]):
    """A trial that has not run yet, or what came of it."""

    def __init__(self, fn: Callable[..., T], args: tuple[Any, ...], threads: int | None) -> None:
        self._call: Callable[[], T] | None = lambda: fn(
            *(a.get() if isinstance(a, Shared) else a for a in args)
        )
        self._threads = threads
        self._values: list[T] = []
        self._error: Exception | None = None
        self.attempts = 0

    @property
    def is_done(self) -> bool:
        return self._call is None

    def finish(self) -> None:
        """Run it, if it has not run yet."""
        if self._call is None:
            return
        call, self._call = self._call, None
        self.attempts += 1
        try:
            with _threads(self._threads):
                self._values.append(call())
        except Exception as error:
            self._error = error
        except BaseException:
            self._error = CancelledError()  # Ctrl-C: nothing came of it.
            raise

    def result(self) -> T:
        self.finish()
        if self._error is not None:
            raise self._error
        return self._values[0]

    def cancel(self) -> bool:
        if self._call is None:
            return False
        self._call, self._error = None, CancelledError()
        return True


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    torch = sys.modules.get("torch")
    if n is None or torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
