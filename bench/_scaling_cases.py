"""What `scaling.py` measures: how each case is prepared, what it should grow with, and at which sizes."""

import contextlib
import ctypes
import gc
import importlib
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

import _scaling_lab as lab
import _scaling_nets as nets
from _scaling_nets import Prepared

Clock = Literal["cpu", "wall"]
LEAST_SECONDS = 0.2
"""A short run is repeated until it has taken this long in all; its mean counts."""


class Case(NamedTuple):
    """One thing whose cost is measured.

    Attributes:
        name: As tables head it.
        prepare: Makes, at a point, what is run, and the variables that its cost is said to grow with.
        terms: Of the seconds, as `_scaling_fit.size` takes them.
        points: That are fitted.
        held: That are predicted: larger.
        tiny: Sizes for a trial of the script, the last two of them held out.
        bytes: Terms of the peak memory that a run adds; empty where it is not measured.
        clock: CPU or wall seconds.
        once: Whether one run is one repeat, however short.
    """

    name: str
    prepare: Callable[..., Prepared]
    terms: tuple[str, ...]
    points: Sequence[dict[str, int]]
    held: Sequence[dict[str, int]]
    tiny: Sequence[dict[str, int]]
    bytes: tuple[str, ...] = ()
    clock: Clock = "cpu"
    once: bool = False


def over(name: str, sizes: Sequence[int], **fixed: int) -> list[dict[str, int]]:
    """Return points that differ in one variable."""
    return [{**fixed, name: size} for size in sizes]


def cases() -> dict[str, Case]:
    """Return all of them, by key."""
    return {**_fleets(), **_writing(), **_wires(), **_steps(), **_search(), **_records()}


def _fleets() -> dict[str, Case]:
    fixed = {"width": 256, "n": 500, "D": 20}
    law = [
        *over("width", (64, 128, 512, 1024), n=500, D=20),
        *(fixed | {"n": n} for n in (100, 500, 2000)),
        *(fixed | {"D": d} for d in (5, 80)),
    ]
    arrays = [
        *over("width", (64, 128, 256), n=200, D=5),
        *({"width": 128, "n": n, "D": 5} for n in (50, 800)),
        *({"width": 128, "n": 200, "D": d} for d in (2, 20)),
    ]
    small = [{"width": w, "n": n, "D": d} for w, n, d in ((8, 8, 2), (16, 8, 2), (8, 16, 4))]
    tiny = [*small, {"width": 24, "n": 16, "D": 4}, {"width": 32, "n": 16, "D": 4}]
    terms = ("1", "D", "D P", "D n P", "D n A")
    votes = [
        *over("width", (64, 128, 192, 256), n=100, D=200),
        *({"width": 128, "n": n, "D": 200} for n in (50, 400)),
        *({"width": 128, "n": 100, "D": d} for d in (100, 400)),
    ]
    few = [
        {"width": w, "n": 8, "D": d} for w, d in ((8, 70), (16, 70), (8, 90), (24, 90), (32, 90))
    ]
    return {
        "fleet": Case(
            "fleet, law on weights",
            nets.fleet,
            terms,
            law,
            [{"width": 1536, "n": 500, "D": 20}, {"width": 2048, "n": 1000, "D": 40}],
            tiny,
        ),
        "fleet-arrays": Case(
            "fleet, arrays with converters",
            nets.fleet_arrays,
            terms,
            arrays,
            [{"width": 512, "n": 200, "D": 5}, {"width": 512, "n": 800, "D": 20}],
            tiny,
        ),
        "device": Case(
            "one device of a fleet, law on weights",
            nets.fleet,
            ("1", "P", "n P"),
            over("width", (1024, 1536, 2048, 3072), n=64, D=1),
            over("width", (4096, 6144), n=64, D=1),
            over("width", (8, 16, 32, 64, 128), n=8, D=1),
            bytes=("1", "P"),
            once=True,
        ),
        "device-arrays": Case(
            "one device of a fleet, arrays",
            nets.fleet_arrays,
            ("1", "P", "n P"),
            over("width", (512, 768, 1024, 1536), n=64, D=1),
            over("width", (2048, 3072), n=64, D=1),
            over("width", (8, 16, 32, 64, 128), n=8, D=1),
            bytes=("1", "P"),
            once=True,
        ),
        "certificate": Case(
            "certificates: yield, percentile, drift",
            nets.certificate,
            (*terms, "D n"),
            votes,
            [{"width": 384, "n": 200, "D": 400}, {"width": 384, "n": 400, "D": 1000}],
            few,
        ),
    }


def _writing() -> dict[str, Case]:
    widths, larger, tiny = (64, 128, 256, 512), (768, 1024), (8, 12, 16, 24, 32)
    return {
        key: Case(
            name,
            prepare,
            ("1", "P"),
            over("width", widths),
            over("width", larger),
            over("width", tiny),
        )
        for key, name, prepare in (
            ("program", "programming, written once", nets.programming_once),
            ("program-verified", "programming, written and verified", nets.programming_verified),
        )
    }


def _wires() -> dict[str, Case]:
    sizes, larger, tiny = (32, 48, 64, 96, 128, 192), (256, 384), (4, 6, 8, 12, 16)
    return {
        "wires": Case(
            "exact wires, 1 input",
            nets.wires_one,
            ("1", "N^2", "N^3"),
            over("N", sizes),
            over("N", larger),
            over("N", tiny),
            bytes=("1", "N^2"),
        ),
        "wires-32": Case(
            "exact wires, 32 inputs",
            nets.wires_many,
            ("1", "N^2", "N^3"),
            over("N", sizes),
            over("N", larger),
            over("N", tiny),
            bytes=("1", "N^2"),
        ),
        "transfer": Case(
            "transfer matrix",
            nets.transfer,
            ("N", "N^3", "N^4"),
            over("N", sizes[:-1]),
            over("N", (192, 256)),
            over("N", tiny),
            bytes=("1", "N^2"),
        ),
    }


def _steps() -> dict[str, Case]:
    return {
        key: Case(
            name,
            prepare,
            ("1", "P"),
            over("width", (128, 256, 512, 1024)),
            over("width", (1536, 2048)),
            over("width", (8, 16, 32, 64, 128)),
        )
        for key, name, prepare in (
            ("step", "training step of 64 inputs, plain torch", nets.step_plain),
            ("step-noise", "training step of 64 inputs, weight noise", nets.step_noise),
        )
    }


def _search() -> dict[str, Case]:
    # A list has nothing to climb, so it is a case of its own: what a continuous space costs says nothing of it.
    base, ten = {"n": 40, "v": 5}, {"n": 40, "v": 10}
    short = [
        {"n": n, "v": 2, "M": m} for n, m in ((8, 20), (12, 20), (8, 50), (12, 100), (16, 100))
    ]
    return {
        "suggest": Case(
            "a suggestion in a continuous space",
            lab.suggestion,
            ("1", "v", "n", "v n", "n^2", "n^3"),
            [
                *(base | {"n": n} for n in (20, 40, 80, 160, 240)),
                *({"n": n, "v": v} for n, v in ((40, 10), (80, 2), (80, 10), (80, 20))),
            ],
            [base | {"n": n} for n in (320, 480)],
            [{"n": n, "v": v} for n, v in ((8, 2), (12, 2), (8, 3), (12, 3), (16, 3))],
            bytes=("1", "n", "n^2"),
            once=True,
        ),
        "suggest-list": Case(
            "a suggestion from a list",
            lab.suggestion,
            ("1", "n", "n^2", "M", "M n"),
            [
                *(ten | {"M": m} for m in (1000, 3000, 10_000, 30_000)),
                *(ten | {"n": n, "M": 10_000} for n in (20, 80, 160)),
            ],
            [ten | {"M": m} for m in (100_000, 200_000)],
            short,
            bytes=("1", "M", "M n"),
            once=True,
        ),
    }


def _records() -> dict[str, Case]:
    events = (1000, 2000, 5000, 10_000, 20_000)
    out = {
        "open": Case(
            "opening a campaign",
            lab.opening,
            ("1", "E"),
            over("E", events),
            over("E", (50_000, 100_000)),
            over("E", (20, 40, 60, 80, 100)),
            bytes=("1", "E"),
            once=True,
        ),
        "append": Case(
            "recording a result",
            lab.recording,
            ("1", "E"),
            over("E", events),
            over("E", (50_000, 100_000)),
            over("E", (20, 40, 60, 80, 100)),
        ),
    }
    for name in lab.executors():
        out[f"run-{name.partition(':')[0]}"] = Case(
            f"empty trials on {name}",
            lab.RunTrials(name),
            ("1", "k"),
            over("k", (10, 100, 300)),
            over("k", (1000, 2000)),
            over("k", (2, 4, 6, 8, 10)),
            clock="wall",
            once=True,
        )
    return out


def measured(
    case: Case, point: dict[str, int], repeats: int, least: float = LEAST_SECONDS
) -> dict[str, Any]:
    """Return the variables of a point and, of each repeat, its seconds and the bytes that it added.

    Each repeat is a process of its own, forked from this one, in which a first small run warms up what is made
    once: so memory is the run's own, and no repeat finds what another left behind. A run shorter than ``least``
    seconds is run again until they are over, unless its case says otherwise.
    """
    _loaded()
    context = get_context("fork")
    runs = []
    for repeat in range(repeats):
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(there, case, point, repeat, least))
        child.start()
        there.close()
        try:
            runs.append(here.recv())
        except EOFError:
            child.join()
            raise RuntimeError(f"{case.name} at {point}: its process ended early") from None
        child.join()
    out: dict[str, Any] = {"variables": runs[0]["variables"]}
    out["seconds"] = [run["seconds"] for run in runs]
    if case.bytes:
        out["bytes"] = [run["bytes"] for run in runs]
    return out


def _loaded() -> None:
    """Import what first calls of torch import, so that not every child has to."""
    torch.broadcast_shapes((1,), (1,))
    importlib.import_module("torch._dynamo")


def _child(pipe: Connection, case: Case, point: dict[str, int], repeat: int, least: float) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(repeat)
    np.random.seed(repeat)
    now = time.process_time if case.clock == "cpu" else time.perf_counter
    if case.clock == "cpu":  # on the wall it is processes of their own that are timed
        warm, _, clean = case.prepare(case.tiny[0], repeat)
        warm()
        clean()
    run, variables, clean = case.prepare(point, repeat)
    before = _settled() if case.bytes else 0
    began, count = now(), 0
    while count == 0 or (not case.once and now() - began < least):
        run()
        count += 1
    seconds = (now() - began) / count
    # One page at least: what was there before may have had room for all of a small run.
    added = max(_memory("VmHWM") - before, 4096) if case.bytes else 0
    clean()
    pipe.send({"variables": variables, "seconds": seconds, "bytes": added})
    pipe.close()


def _settled() -> int:
    """Return the bytes of this process in memory, what it freed given back and its peak forgotten.

    Without that a run fits into what preparing it left, and seems to need nothing.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(what: str) -> int:
    """Return a size of this process that the kernel keeps, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no {what}")
