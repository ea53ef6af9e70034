"""What executors cost and whether they agree: overhead a trial, the same best setting, a worker that is killed.

    python bench/executors.py [--trials 20] [--epochs 4] [--limit 600]

Slurm's adapter is timed on submitit's plain processes; a cluster adds its own queue.
"""

import argparse
import dataclasses
import functools
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from _common import markdown, save
from ohmloop.run import Executor, open_executor
from ohmloop.tasks import Task, task
from ohmloop.train import RunResult, fit

SEARCH = "bayesmulti:objective=drift-validation,n_initial=3,n_iterations=5,n_draws=10,in_flight=2"


def nothing(k: int) -> int:
    """A trial that costs nothing, so that its time is the executor's."""
    return k


def killed_once(mark: str, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """An augmentation whose very first call ends its process, in the middle of an epoch."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def watched(mark: str) -> Task:
    digits = task("digits")
    entry = dataclasses.replace(digits.entry, augment=functools.partial(killed_once, mark))
    return dataclasses.replace(digits, entry=entry)


def overhead(executor: Executor, text: str, opened: float, n: int) -> dict[str, Any]:
    """Seconds to open, of the first trial, and of each further one: trials that do nothing, one by one."""
    first, _ = timed(executor, 0)
    each = [timed(executor, k)[0] for k in range(n)]
    return {
        "executor": text,
        "open": opened,
        "first": first,
        "median": statistics.median(each),
        "quartiles": statistics.quantiles(each, n=4)[::2],
        "n": n,
    }


def timed(executor: Executor, k: int) -> tuple[float, int]:
    start = time.perf_counter()
    value = executor.submit(nothing, k).result()
    return time.perf_counter() - start, value


def searched(executor: Executor, args: argparse.Namespace, what: Task) -> tuple[RunResult, float]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        result = fit(
            what,
            SEARCH,
            executor=executor,
            epochs=args.epochs,
            limit=args.limit,
            run_dir=f"{place}/run",
        )
    return result, time.perf_counter() - start


def killed(executor: Executor, args: argparse.Namespace, reference: RunResult) -> dict[str, Any]:
    """Search while the process of the first trial is killed in its first epoch."""
    with tempfile.TemporaryDirectory() as place:
        cut, seconds = searched(executor, args, watched(f"{place}/mark"))
        was_killed = Path(f"{place}/mark").exists()
    numbers = [t.number for t in cut.trials]
    return {
        "executor": executor.name,
        "a worker was killed": was_killed,
        "trials": len(numbers),
        "every trial once": numbers == list(range(len(reference.trials))),
        "agrees": agree(reference, cut),
        "seconds": seconds,
    }


def agree(a: RunResult, b: RunResult) -> dict[str, bool]:
    """Say whether two searches came to the same, in three depths."""
    pairs = list(zip(a.model.parameters(), b.model.parameters(), strict=True))
    return {
        "best setting": a.noise == b.noise,
        "all trials": a.trials == b.trials,
        "weights, bit by bit": all(torch.equal(x, y) for x, y in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="empty trials timed on each")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--limit", type=int, default=600)
    args = parser.parse_args()
    costs, runs, losses = [], [], []
    reference: RunResult | None = None
    for text in ("in-process", "local:1", "local:2", "ray:1", "ray:2"):
        print(f"{text} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        with open_executor(text) as executor:
            opened = time.perf_counter() - start
            if executor.n_workers == 1:
                costs.append(overhead(executor, text, opened, args.trials))
            result, seconds = searched(executor, args, task("digits"))
            reference = reference or result
            runs.append(
                {"executor": text, "seconds": seconds, "noise": str(result.noise)}
                | {"agrees": agree(reference, result)}
            )
            if executor.n_workers == 2:
                losses.append(killed(executor, args, reference))
    with tempfile.TemporaryDirectory() as jobs:
        start = time.perf_counter()
        with open_executor(f"slurm:1,cluster=local,folder={jobs}") as executor:
            few = max(3, args.trials // 5)  # a job is two processes
            opened = time.perf_counter() - start
            costs.append(overhead(executor, "slurm:1,cluster=local", opened, few))
    value = {"overhead": costs, "search": SEARCH, "runs": runs, "killed": losses, **vars(args)}
    value["load"] = list(os.getloadavg())
    save("executors", value, table(value))


def table(value: dict[str, Any]) -> str:
    costs = [
        [
            c["executor"],
            f"{c['open']:.2g}",
            f"{c['first']:.2g}",
            f"{1e3 * c['median']:.3g} ({1e3 * c['quartiles'][0]:.3g} to {1e3 * c['quartiles'][1]:.3g})",
            str(c["n"]),
        ]
        for c in value["overhead"]
    ]
    runs = [
        [r["executor"], f"{r['seconds']:.1f}", *marks(r.get("agrees")), r["noise"]]
        for r in value["runs"]
    ]
    losses = [
        [
            r["executor"],
            yes(r["a worker was killed"]),
            str(r["trials"]),
            yes(r["every trial once"]),
            *marks(r["agrees"]),
        ]
        for r in value["killed"]
    ]
    same = ("same best setting", "same trials", "same weights, bit by bit")
    return (
        "# Executors\n\nSeconds to open one, of its first trial, and milliseconds of a further trial that "
        "does nothing (median and quartiles), handed in one by one. slurm:cluster=local starts plain "
        "processes; a cluster adds its queue. Times were taken at a load of "
        f"{value['load'][0]:.1f} on {os.cpu_count()} cores: with other work beside, they are upper bounds.\n\n"
        + markdown(("executor", "open / s", "first / s", "a trial / ms", "trials"), costs)
        + f"\nThe search `{value['search']}` on digits ({value['epochs']} epochs, {value['limit']} samples), "
        "seed 0, against in-process:\n\n"
        + markdown(("executor", "seconds", *same, "best setting"), runs)
        + "\nThe same while the process of the first trial is killed (SIGKILL) in its first epoch:\n\n"
        + markdown(("executor", "worker killed", "trials", "every trial once", *same), losses)
    )


def marks(agrees: dict[str, bool] | None) -> list[str]:
    return ["–"] * 3 if agrees is None else [yes(x) for x in agrees.values()]


def yes(x: bool) -> str:
    return "yes" if x else "no"


if __name__ == "__main__":
    main()
