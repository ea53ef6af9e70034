"""How a trial travels: function and arguments as bytes, what came of it as bytes."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from ohmloop.errors import ExecutorError

T = TypeVar("T")
Dumps = Callable[[Any], bytes]

_KEPT = 2  # shared values that a worker keeps: the present search's, and one more
_loaded: dict[str, Any] = {}


class Shared(Generic[T]):
    """A large value that was put where all workers find it; see `Executor.share`.

    Args:
        key: Its name.
        path: The file it lies in; None where the executor brings it along.
    """

    def __init__(self, key: str, path: Path | None = None) -> None:
        self.key, self.path = key, path

    def get(self) -> T:
        """Return the value; read once in each process."""
        if self.key not in _loaded:
            if self.path is None:
                raise ExecutorError(f"the shared value {self.key} belongs to another executor.")
            keep(self.key, self.path.read_bytes())
        value: T = _loaded[self.key]
        return value


def keep(key: str, blob: Any) -> None:
    """Unpickle a shared value and remember it, and few others."""
    value = pickle.loads(blob)
    while len(_loaded) >= _KEPT:
        _loaded.pop(next(iter(_loaded)))
    _loaded[key] = value


def check_function(fn: Callable[..., Any]) -> None:
    """Raise ExecutorError if another process could not import ``fn``."""
    try:
        pickle.dumps(fn)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = getattr(fn, "__qualname__", repr(fn))
        raise ExecutorError(
            f"the trial {name} cannot be sent to another process ({error}): it must be a function at the top "
            "level of a module. In the place of\n"
            "    executor.submit(lambda: train(seed))\n"
            "write\n    executor.submit(train, seed)"
        ) from None


def pack(fn: Callable[..., Any], args: tuple[Any, ...], dumps: Dumps) -> bytes:
    """Return a trial as bytes.

    Raises:
        ExecutorError: If the function or an argument cannot be pickled; it says which.
    """
    check_function(fn)
    try:
        body = dumps((fn, args))
    except Exception as error:  # whatever a value's own pickling raises
        for k, arg in enumerate(args):
            _check_argument(k, arg, dumps)
        raise ExecutorError(f"the trial cannot be sent to another process: {error}.") from error
    return pickle.dumps((os.getcwd(), list(sys.path), body))


def _check_argument(k: int, arg: Any, dumps: Dumps) -> None:
    try:
        dumps(arg)
    except Exception as error:
        raise ExecutorError(
            f"argument {k + 1} of the trial, a {type(arg).__name__}, cannot be sent to another process: "
            f"{error}. Send what it is made from (a path, a name, a seed), and make it in the trial."
        ) from None


def limit_threads(n: int) -> None:
    """Let torch, now or when it is imported, compute on ``n`` threads."""
    # numpy's OpenBLAS and torch's MKL heed OpenMP's variable.
    os.environ["OMP_NUM_THREADS"] = str(n)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(n)


def run(payload: bytes, cpus: int, shared: Mapping[str, Any] | None = None) -> bytes:
    """Run a trial, in a worker, and return what came of it as bytes: (True, value) or (False, exception).

    Args:
        payload: From `pack`.
        cpus: Threads of torch.
        shared: Shared values by key, pickled.
    """
    limit_threads(cpus)
    try:
        folder, paths, body = pickle.loads(payload)
        if os.path.isdir(folder):
            os.chdir(folder)  # so that relative paths mean the same
        sys.path += [p for p in paths if p not in sys.path]
        for key, blob in (shared or {}).items():
            if key not in _loaded:
                keep(key, blob)
        fn, args = pickle.loads(body)
        limit_threads(cpus)  # torch may have come with the arguments
        value = fn(*(a.get() if isinstance(a, Shared) else a for a in args))
        return _packed_value(fn, value)
    except Exception as error:
        if type(error).__module__.startswith("submitit."):
            raise  # The cluster's time is over: an end of the worker, not of the trial.
        return pickle.dumps((False, portable(error)))
    except SystemExit as error:
        return pickle.dumps(
            (False, ExecutorError(f"the trial ended its process by sys.exit({error.code!r})."))
        )


def _packed_value(fn: Callable[..., Any], value: Any) -> bytes:
    try:
        return pickle.dumps((True, value))
    except Exception as error:
        name = getattr(fn, "__qualname__", repr(fn))
        raise ExecutorError(
            f"what {name} returned, a {type(value).__name__}, cannot be sent back: {error}. Return numbers, "
            "arrays or a path."
        ) from None


def portable(error: Exception) -> Exception:
    """Return the exception with its traceback as a note, or one that says the same if it cannot be pickled."""
    error.add_note("in the worker:\n" + "".join(traceback.format_exception(error)))
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception class of its own making
        stand_in = ExecutorError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", []):
            stand_in.add_note(note)
        return stand_in
    return error


def unpack(outcome: bytes) -> Any:
    """Return what the trial returned, or raise what it raised."""
    is_value, value = pickle.loads(outcome)
    if is_value:
        return value
    raise value
