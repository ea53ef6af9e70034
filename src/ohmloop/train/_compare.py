"""Methods compared on the same network, budget, seeds and devices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import (
    Deployment,
    FleetResult,
    Where,
    analog_parameters,
    analogize,
    check_deployment,
    evaluate_fleets,
)
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.run import Executor, using
from ohmloop.tasks import Split, Task
from ohmloop.tasks import task as load_task
from ohmloop.train._fit import fit
from ohmloop.train._loop import Schedule
from ohmloop.train._methods import Method, parse_method
from ohmloop.train._setting import random_subset, unlabelled_inputs
from ohmloop.train._steady import rank_correlation

_LONG = ("bayes", "steady")  # methods that search
EVALUATION_SEED = 10_007
"""Seed of the fleets that results are measured on; objectives draw from another one."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """One method, deployed in one way, over seeds and hardwares.

    Attributes:
        method: As text, settings included.
        deployment: What each device got beside its weights, as text.
        needs: The same in words: data on each device, further hardware; "nothing" for none.
        cost: Passes over the training data for each seed, in units of one plain training.
        clean: ``n_seeds`` digital test scores.
        scores: ``n_hardwares x n_seeds x n_devices`` test scores.
        metric: Name of the score.
        is_higher_better: False for an error or a perplexity.
        settings: What each seed's training ended with, in words.
        rank_correlations: Of each seed's search, how well early rounds ranked later ones.
        seconds: Wall time of all its trainings and evaluations.
    """

    method: str
    deployment: str
    needs: str
    cost: float
    clean: NDArray[np.float64]
    scores: NDArray[np.float64]
    metric: str
    is_higher_better: bool
    settings: tuple[str, ...]
    rank_correlations: tuple[dict[str, tuple[float, int]], ...]
    seconds: float


class _Job(NamedTuple):
    task: str
    folder: str | None
    method: str
    seed: int
    model: str | None
    objective: tuple[Hardware, ...]
    hardwares: tuple[Hardware, ...]
    deployments: tuple[Deployment, ...]
    n_devices: int
    epochs: int | None
    limit: int | None
    test_limit: int | None
    device: str
    batch_size: int | None
    lr: float | None
    schedule: Schedule
    standardise: bool
    where: Where
    run_dir: str | None


class _Done(NamedTuple):
    fleets: list[list[FleetResult]]
    cost: float
    settings: str
    correlations: dict[str, tuple[float, int]]
    seconds: float


def compare(
    task: str,
    methods: Sequence[Method | str | tuple[Method | str, int]],
    hardwares: Sequence[Hardware],
    *,
    deployments: Sequence[Deployment | str] = ("none",),
    objective: Sequence[Hardware] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    n_devices: int = 30,
    epochs: int | None = None,
    model: str | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    folder: str | None = None,
    where: Where = None,
    workers: int = 1,
    executor: Executor | str | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: Schedule = "cosine",
    standardise: bool = True,
    run_dir: str | Path | None = None,
    progress: Progress = silent,
) -> list[Comparison]:
    """Train by each method and seed, and measure every network on every hardware, deployed in every way.

    Args:
        task: Name of a task.
        methods: Methods or their texts; a pair (method, epochs) gives one method other epochs, which
            its cost then counts.
        hardwares: What the networks are tested on.
        deployments: What devices get beside their weights; one row of the result for each.
        objective: What searches under drift may assume; by default ``hardwares``.
        seeds: Training seeds, the same for every method.
        n_devices: Virtual devices for each hardware and seed.
        epochs: Of one training; the task's own by default.
        model: Reference network; the task's own by default.
        limit: Use only that many development samples.
        test_limit: Use only that many test samples, drawn at random once for all.
        folder: Where the data lies, if not in the cache.
        where: Which layers are analog, as in `ohmloop.nn.analogize`.
        workers: Short for the executor "local:N".
        executor: Where trainings run (`ohmloop.run`, docs/scaling.md): one that is open, or its text. The
            results do not depend on it.
        device: Where torch computes.
        batch_size: Inputs a step; the task's own by default.
        lr: Largest learning rate of Adam; the task's own by default.
        schedule: "cosine" (down to zero) or "constant".
        standardise: Whether inputs are scaled by statistics of the training data.
        run_dir: Where each training keeps its folder; a comparison that was killed goes on from there.
        progress: Told after each finished training.

    Raises:
        TrainError: If a method is unknown or there is nothing to do.
    """
    if not methods or not hardwares or not seeds or n_devices < 1 or not deployments:
        raise TrainError("a comparison needs methods, hardwares, seeds, devices and a deployment.")
    found = load_task(
        task, folder, standardise=standardise
    )  # Missing data is said before work starts.
    own_epochs = found.entry.epochs
    usual = own_epochs if epochs is None else epochs
    ways = tuple(Deployment.parse(d) if isinstance(d, str) else d for d in deployments)
    _check_ways(found, model, where, hardwares[0], ways, seeds[0], limit)
    plan = []
    for entry in methods:
        method, own = entry if isinstance(entry, tuple) else (entry, usual)
        plan.append((str(parse_method(method) if isinstance(method, str) else method), own))
    jobs = [
        _Job(
            task,
            folder,
            method,
            seed,
            model,
            tuple(objective or hardwares),
            tuple(hardwares),
            ways,
            n_devices,
            own,
            limit,
            test_limit,
            device,
            batch_size,
            lr,
            schedule,
            standardise,
            where,
            None if run_dir is None else str(Path(run_dir) / f"{k:02d}-{seed}"),
        )
        for k, (method, own) in enumerate(plan)
        for seed in seeds
    ]
    # One thread here too, as in a worker, so that the sums add up the same way.
    with using(executor, workers, threads=1) as opened:
        done = _run_all(jobs, opened, progress)
    out = []
    for k, (method, own) in enumerate(plan):
        mine = done[k * len(seeds) : (k + 1) * len(seeds)]
        for way, deployed in enumerate(ways):
            first = mine[0].fleets[way][0]
            out.append(
                Comparison(
                    method=method if own == usual else f"{method} ({own} epochs)",
                    deployment=str(deployed),
                    needs=deployed.needs,
                    cost=float(np.mean([d.cost for d in mine])) * own / usual,
                    clean=np.array([d.fleets[way][0].digital for d in mine]),
                    scores=np.stack(
                        [np.stack([f.scores for f in d.fleets[way]]) for d in mine], axis=1
                    ),
                    metric=first.metric,
                    is_higher_better=first.is_higher_better,
                    settings=tuple(d.settings for d in mine),
                    rank_correlations=tuple(d.correlations for d in mine),
                    seconds=sum(d.seconds for d in mine),
                )
            )
    return out


def _check_ways(
    task: Task,
    model: str | None,
    where: Where,
    hardware: Hardware,
    ways: Sequence[Deployment],
    seed: int,
    limit: int | None,
) -> None:
    """Raise ConversionError before hours of training where the networks cannot be deployed so."""
    if not any(way.needs_inputs for way in ways):
        return
    network = analogize(task.model(model, seed=seed), hardware, where=where)
    names = frozenset(analog_parameters(network))
    train, _ = task.development(seed, limit)
    for way in ways:
        inputs = unlabelled_inputs(train, seed, way.samples)
        check_deployment(network, way, names, inputs)


def _run_all(jobs: Sequence[_Job], executor: Executor, progress: Progress) -> list[_Done]:
    results: dict[int, _Done] = {}

    def report(k: int) -> None:
        progress(
            ProgressEvent(
                "train", len(results), len(jobs), f"{jobs[k].method}, seed {jobs[k].seed}"
            )
        )

    # Searches first: the longest jobs must not be the last to start.
    order = sorted(range(len(jobs)), key=lambda k: not jobs[k].method.startswith(_LONG))
    for position, done in executor.each(_work, [(jobs[k],) for k in order]):
        results[order[position]] = done
        report(order[position])
    return [results[k] for k in range(len(jobs))]


def _work(job: _Job) -> _Done:
    start = time.monotonic()
    task = load_task(job.task, job.folder, standardise=job.standardise)
    run = fit(
        task,
        job.method,
        model=job.model,
        hardware=job.objective,
        where=job.where,
        epochs=job.epochs,
        batch_size=job.batch_size,
        seed=job.seed,
        limit=job.limit,
        device=job.device,
        lr=job.lr,
        schedule=job.schedule,
        run_dir=job.run_dir,
    )
    train, _ = task.development(job.seed, job.limit)
    test = task.test(job.seed, job.limit)
    if job.test_limit is not None:
        keep = random_subset(len(test.x), job.test_limit, 0)
        test = Split(test.x[keep], test.y[keep])
    fleets = [
        evaluate_fleets(
            run.model,
            test,
            job.hardwares,
            n_devices=job.n_devices,
            seed=EVALUATION_SEED + job.seed,
            metric=task.metric,
            deployment=way,
            unlabelled=(
                unlabelled_inputs(train, job.seed, way.samples) if way.needs_inputs else None
            ),
        )
        for way in job.deployments
    ]
    return _Done(
        fleets=fleets,
        cost=run.cost,
        settings=str(run.noise),
        correlations=rank_correlation(run.trials),
        seconds=time.monotonic() - start,
    )
