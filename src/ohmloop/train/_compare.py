"""Methods compared on the same network, budget, seeds and devices."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import evaluate_fleets
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.tasks import task as load_task
from ohmloop.train._fit import fit
from ohmloop.train._loop import Schedule
from ohmloop.train._methods import Method, parse_method

EVALUATION_SEED = 10_007
"""Seed of the fleets that results are measured on; objectives draw from another one."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """One method over seeds and hardwares.

    Attributes:
        method: As text, settings included.
        cost: Trainings for each seed.
        clean: ``n_seeds`` digital test accuracies.
        accuracy: ``n_hardwares x n_seeds x n_devices`` test accuracies.
        settings: What each seed's training ended with, in words.
        seconds: Wall time of all its trainings and evaluations.
    """

    method: str
    cost: int
    clean: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    settings: tuple[str, ...]
    seconds: float


class _Job(NamedTuple):
    task: str
    folder: str | None
    method: str
    seed: int
    model: str | None
    objective: tuple[Hardware, ...]
    hardwares: tuple[Hardware, ...]
    n_devices: int
    epochs: int
    limit: int | None
    test_limit: int | None
    device: str
    lr: float
    schedule: Schedule
    standardise: bool


class _Done(NamedTuple):
    clean: float
    accuracy: NDArray[np.float64]
    cost: int
    settings: str
    seconds: float


def compare(
    task: str,
    methods: Sequence[Method | str | tuple[Method | str, int]],
    hardwares: Sequence[Hardware],
    *,
    objective: Sequence[Hardware] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    n_devices: int = 30,
    epochs: int = 60,
    model: str | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    folder: str | None = None,
    workers: int = 1,
    device: str = "cpu",
    lr: float = 3e-3,
    schedule: Schedule = "cosine",
    standardise: bool = True,
    progress: Progress = silent,
) -> list[Comparison]:
    """Train by each method and seed, and measure every network on every hardware.

    Args:
        task: Name of a task.
        methods: Methods or their texts; a pair (method, epochs) gives one method other epochs, which
            its cost then counts.
        hardwares: What the networks are tested on.
        objective: What searches under drift may assume; by default ``hardwares``.
        seeds: Training seeds, the same for every method.
        n_devices: Virtual devices for each hardware and seed.
        epochs: Of one training.
        model: Reference network; the task's own by default.
        limit: Use only that many development samples.
        test_limit: Use only the first that many test samples.
        folder: Where the data lies, if not in the cache.
        workers: Processes that train side by side; the results do not depend on it.
        device: Where torch computes.
        lr: Largest learning rate of Adam.
        schedule: "cosine" (down to zero) or "constant".
        standardise: Whether inputs are scaled by statistics of the training data.
        progress: Told after each finished training.

    Raises:
        TrainError: If a method is unknown or there is nothing to do.
    """
    if not methods or not hardwares or not seeds or n_devices < 1:
        raise TrainError("a comparison needs methods, hardwares, seeds and devices.")
    load_task(task, folder)  # A missing data set is said before any work starts.
    plan = []
    for entry in methods:
        method, own = entry if isinstance(entry, tuple) else (entry, epochs)
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
            n_devices,
            own,
            limit,
            test_limit,
            device,
            lr,
            schedule,
            standardise,
        )
        for method, own in plan
        for seed in seeds
    ]
    done = _run_all(jobs, workers, progress)
    out = []
    for k, (method, own) in enumerate(plan):
        mine = done[k * len(seeds) : (k + 1) * len(seeds)]
        out.append(
            Comparison(
                method=method if own == epochs else f"{method} ({own} epochs)",
                cost=round(mine[0].cost * own / epochs),
                clean=np.array([d.clean for d in mine]),
                accuracy=np.stack([d.accuracy for d in mine], axis=1),
                settings=tuple(d.settings for d in mine),
                seconds=sum(d.seconds for d in mine),
            )
        )
    return out


def _run_all(jobs: Sequence[_Job], workers: int, progress: Progress) -> list[_Done]:
    results: dict[int, _Done] = {}

    def report(k: int) -> None:
        progress(
            ProgressEvent(
                "train", len(results), len(jobs), f"{jobs[k].method}, seed {jobs[k].seed}"
            )
        )

    if workers <= 1:
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # as in a worker, so that the sums add up the same way
            for k, job in enumerate(jobs):
                results[k] = _work(job)
                report(k)
        finally:
            torch.set_num_threads(threads)
    else:
        # Searches first: the longest jobs must not be the last to start.
        order = sorted(range(len(jobs)), key=lambda k: not jobs[k].method.startswith("bayes"))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
            waiting: dict[Future[_Done], int] = {pool.submit(_work, jobs[k]): k for k in order}
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    k = waiting.pop(future)
                    results[k] = future.result()
                    report(k)
    return [results[k] for k in range(len(jobs))]


def _one_thread() -> None:
    torch.set_num_threads(1)


def _work(job: _Job) -> _Done:
    start = time.monotonic()
    task = load_task(job.task, job.folder, standardise=job.standardise)
    run = fit(
        task,
        job.method,
        model=job.model,
        hardware=job.objective,
        epochs=job.epochs,
        seed=job.seed,
        limit=job.limit,
        device=job.device,
        lr=job.lr,
        schedule=job.schedule,
    )
    test = task.test(job.seed, job.limit)
    if job.test_limit is not None:
        test = type(test)(test.x[: job.test_limit], test.y[: job.test_limit])
    fleets = evaluate_fleets(
        run.model,
        test,
        job.hardwares,
        n_devices=job.n_devices,
        seed=EVALUATION_SEED + job.seed,
    )
    return _Done(
        clean=fleets[0].digital,
        accuracy=np.stack([fleet.accuracy for fleet in fleets]),
        cost=run.cost,
        settings=str(run.noise),
        seconds=time.monotonic() - start,
    )
