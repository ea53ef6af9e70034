"""An executor by the text that a user types."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ohmloop.errors import ExecutorError
from ohmloop.run._in_process import InProcess
from ohmloop.run._local import LocalPool
from ohmloop.run._protocol import RETRIES, Executor, Resources
from ohmloop.run._ray import LOCAL, RayPool
from ohmloop.run._slurm import JOBS, N_JOBS, SlurmPool

_KINDS = ("in-process", "local", "slurm", "ray")
_OPTIONS = {
    "in-process": (),
    "local": ("workers", "cpus", "gpus", "retries"),
    "slurm": (
        *("workers", "cpus", "gpus", "memory", "time", "retries"),
        *("partition", "account", "qos", "constraint", "folder", "cluster"),
    ),
    "ray": ("workers", "cpus", "gpus", "memory", "retries"),
}
_WHAT = """What may be typed:
    in-process                             one trial after the other, here
    local:4                                four processes; local:4,gpus=0.5 puts two on each GPU
    slurm:partition=gpu,time=60,gpus=1     jobs of 60 minutes with a GPU; slurm:32,... at most 32 at a time
    ray                                    a Ray on this machine; ray:4,gpus=0.25 four trials at a time
    ray://host:10001                       a Ray cluster, from outside; ray:auto on one of its machines
Options: cpus and gpus of a trial, memory (GB), time (minutes), retries of a lost worker, workers."""


def open_executor(text: str) -> Executor:
    """Return the executor that a text names; use it in a ``with`` block.

    >>> open_executor("local:2").n_workers
    2

    Args:
        text: "in-process", "local:N", "slurm:KEY=VALUE,...", "ray", "ray:N", "ray://host:port" or "ray:auto"; a
            number or KEY=VALUE pairs follow after a comma.

    Raises:
        ExecutorError: If the text is wrong, an extra is not installed, or there is no such cluster.
    """
    kind, address, given = _split(text)
    asked = _read(text, kind, given)
    n, retries = asked.number("workers"), asked.number("retries", RETRIES)
    assert retries is not None
    if kind == "in-process":
        return InProcess(threads=1)
    resources = Resources(
        cpus=asked.number("cpus", 1) or 1,
        gpus=asked.amount("gpus") or 0.0,
        memory=asked.amount("memory"),
        minutes=asked.number("time"),
    )
    if kind == "local":
        return LocalPool(n or len(os.sched_getaffinity(0)), resources, retries=retries)
    if kind == "ray":
        return RayPool(n, resources, address=address, retries=retries)
    values = asked.values
    return SlurmPool(
        n or N_JOBS,
        resources,
        partition=values.get("partition"),
        options={k: values[k] for k in ("account", "qos", "constraint") if k in values},
        folder=values.get("folder", JOBS),
        cluster=values.get("cluster", "slurm"),
        retries=retries,
    )


@contextmanager
def using(
    executor: Executor | str | None, workers: int = 1, *, threads: int | None = None
) -> Iterator[Executor]:
    """Give the executor that a function was asked to use, and close it afterwards if it was opened here.

    Args:
        executor: One that is open, which stays so; or its text. None leaves it to ``workers``.
        workers: Short for "local:N"; 1 is in-process.
        threads: Of torch where ``workers`` is 1; None leaves them as they are.
    """
    if isinstance(executor, Executor):
        yield executor
        return
    if executor is not None:
        opened = open_executor(executor)
    else:
        opened = LocalPool(workers) if workers > 1 else InProcess(threads)
    with opened:
        yield opened


class _Asked(NamedTuple):
    text: str
    values: dict[str, str]

    def amount(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        try:
            return float(value)
        except ValueError:
            raise ExecutorError(
                f"--executor {self.text}: {key} is a number; received {value!r}.\n{_WHAT}"
            ) from None

    def number(self, key: str, default: int | None = None) -> int | None:
        value = self.amount(key)
        if value is None:
            return default
        least = 0 if key == "retries" else 1
        if not (value.is_integer() and value >= least):
            raise ExecutorError(
                f"--executor {self.text}: {key} is a whole number from {least}; received "
                f"{self.values[key]!r}.\n{_WHAT}"
            )
        return int(value)


def _split(text: str) -> tuple[str, str, list[str]]:
    """Return kind, address and the parts after it."""
    text = text.strip()
    if text.startswith("ray://"):
        address, *parts = text.split(",")
        return "ray", address, parts
    kind, _, rest = text.partition(":")
    if kind not in _KINDS:
        close = difflib.get_close_matches(kind, _KINDS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ExecutorError(f"there is no executor {kind!r}.{hint}\n{_WHAT}")
    parts = rest.split(",") if rest else []
    if kind == "ray" and parts and parts[0] == "auto":
        return kind, "auto", parts[1:]
    return kind, LOCAL, parts


def _read(text: str, kind: str, parts: list[str]) -> _Asked:
    values: dict[str, str] = {}
    for k, part in enumerate(parts):
        key, is_pair, value = (piece.strip() for piece in part.partition("="))
        if not is_pair and k == 0:
            key, value = "workers", key
        known = _OPTIONS[kind]
        if key not in known or not value:
            close = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {close[0]}?" if close and close[0] != key else ""
            options = ", ".join(known) or "none"
            raise ExecutorError(
                f"--executor {text}: {part!r} is no option of {kind}.{hint} Its options: {options}.\n{_WHAT}"
            )
        if key in values:
            raise ExecutorError(f"--executor {text}: {key} is given twice.")
        values[key] = value
    return _Asked(text, values)
