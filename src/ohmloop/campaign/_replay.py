"""Replay a measured table as if it were the lab: any method may only ask for recipes that were made.

Every method starts from the same random recipes of a seed and is told the same results, so that what
differs is the choice alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.campaign._replay_methods import METHODS, method_named
from ohmloop.campaign._replay_table import ReplayTable, load_replay
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.run import Executor, using


@dataclass(frozen=True)
class ReplayRun:
    """One method on one seed: the recipes in the order in which it asked for them."""

    method: str
    seed: int
    order: tuple[int, ...]
    seconds: float = field(default=0.0, compare=False)


def first_recipes(table: ReplayTable, seed: int) -> list[int]:
    """Return the random recipes that every method starts from on this seed."""
    assert table.config.replay is not None
    rng = np.random.default_rng([seed, 0])
    n = len(table.observations)
    return [int(k) for k in rng.permutation(n)[: table.config.replay.initial]]


def is_finished(table: ReplayTable, order: Sequence[int]) -> bool:
    """Whether a run has found what it looks for, or used up its experiments."""
    assert table.config.replay is not None
    if len(order) >= min(table.config.replay.experiments, len(table.observations)):
        return True
    # Without an objective the whole run counts (failures, coverage): it never ends early.
    return table.objective is not None and bool(table.top()[list(order)].any())


def replay_once(table: ReplayTable, method: str, seed: int) -> ReplayRun:
    """Let one method run through the table; see `replay`."""
    assert table.config.replay is not None
    ask = method_named(method)
    order = first_recipes(table, seed)
    began = time.process_time()
    while not is_finished(table, order):
        room = min(table.config.replay.experiments, len(table.observations)) - len(order)
        order += ask(table, order, min(table.config.replay.batch, room), seed)
    if table.objective is not None:  # what came after the find in one batch does not count
        found = table.top()[order]
        order = order[: int(found.argmax()) + 1] if found.any() else order
    return ReplayRun(method, seed, tuple(order), time.process_time() - began)


def replay(
    name: str,
    *,
    data: Path | None = None,
    methods: Sequence[str] = METHODS,
    n_seeds: int = 20,
    n_workers: int = 1,
    executor: Executor | str | None = None,
    progress: Progress = silent,
) -> tuple[ReplayTable, list[ReplayRun]]:
    """Replay a table with several methods on the same seeds.

    Args:
        name: As in `load_replay`.
        data: As in `load_replay`.
        methods: Of `METHODS` and the ablations.
        n_seeds: Seeds 0 to n_seeds - 1.
        n_workers: Short for the executor "local:N".
        executor: Where runs are made (`ohmloop.run`): one that is open, or its text.
        progress: Told of every finished run.

    Returns:
        The table, and one run for each method and seed, in that order.
    """
    table = load_replay(name, data)
    for method in methods:
        method_named(method)
    jobs = [(method, seed) for method in methods for seed in range(n_seeds)]
    done: dict[tuple[str, int], ReplayRun] = {}
    with using(executor, n_workers) as opened:
        shared = opened.share(table)
        for k, run in opened.each(replay_once, [(shared, *job) for job in jobs]):
            done[jobs[k]] = run
            text = f"{run.method} seed {run.seed}"
            progress(ProgressEvent("replay", len(done), len(jobs), text))
    return table, [done[job] for job in jobs]


# -- reading the runs ---------------------------------------------------------------------------


def experiments_to(table: ReplayTable, run: ReplayRun, share: float | None = None) -> int | None:
    """Return how many experiments the run needed to a recipe of the top, None if it found none."""
    hits = table.top(share)[list(run.order)]
    return int(hits.argmax()) + 1 if hits.any() else None


def best_so_far(table: ReplayTable, run: ReplayRun) -> NDArray[np.float64]:
    """Return the best outcome after each experiment, in the objective's own sign."""
    sign = 1.0
    if table.config.objectives and table.config.objectives[0].goal == "minimise":
        sign = -1.0
    return sign * np.maximum.accumulate(table.outcome()[list(run.order)])


def summary(table: ReplayTable, runs: Sequence[ReplayRun]) -> list[dict[str, Any]]:
    """Return one row a method: what it needed, with quartiles and a 95 % interval of the mean."""
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        row: dict[str, Any] = {"method": method, "seeds": len(mine)}
        if table.objective is not None:
            row |= _spread("experiments", [_needed(table, r) for r in mine])
            row["not_found"] = sum(experiments_to(table, r) is None for r in mine)
            if table.config.replay is not None and table.config.replay.top == 1:
                row |= _spread("experiments_top3", [_needed(table, r, 3) for r in mine])
        if any(s.passes_when for s in table.config.stages):
            row |= _spread("failure_rate", [_failure_rate(table, r) for r in mine])
            for name in table.config.suggest.cover:
                row |= _spread(f"{name}_hit", [_covered(table, r, name) for r in mine])
        chosen = sum(max(len(r.order) - _n_initial(table), 0) for r in mine)
        row["cpu_seconds"] = sum(r.seconds for r in mine) / max(chosen, 1)
        rows.append(row)
    return rows


def _n_initial(table: ReplayTable) -> int:
    assert table.config.replay is not None
    return table.config.replay.initial


def _needed(table: ReplayTable, run: ReplayRun, share: float | None = None) -> float:
    """Experiments needed; one more than were made where nothing was found (a lower bound)."""
    found = experiments_to(table, run, share)
    return float(len(run.order) + 1 if found is None else found)


def _failure_rate(table: ReplayTable, run: ReplayRun) -> float:
    return float(np.mean([not table.observations[k].is_usable for k in run.order]))


def _covered(table: ReplayTable, run: ReplayRun, name: str) -> float:
    return float(
        len({table.points[k].get(name) for k in run.order if table.observations[k].is_usable})
    )


def _spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Median with quartiles, mean with a 95 % bootstrap interval over seeds."""
    x = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(0)
    means = x[rng.integers(len(x), size=(2000, len(x)))].mean(1)
    return {
        name: {
            "median": float(np.median(x)),
            "quartiles": [float(np.quantile(x, 0.25)), float(np.quantile(x, 0.75))],
            "mean": float(x.mean()),
            "mean_interval": [float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))],
        }
    }
