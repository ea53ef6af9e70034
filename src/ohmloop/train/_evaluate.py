"""A finished run scored on fleets of virtual devices, on test data or by what it does."""

from __future__ import annotations

from collections.abc import Sequence

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import Deployment, FleetResult, evaluate_fleets, evaluate_measure
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Split
from ohmloop.train._fit import Run
from ohmloop.train._setting import random_subset, unlabelled_inputs


def evaluate_run(
    run: Run,
    hardwares: Sequence[Hardware],
    *,
    deployment: Deployment | None = None,
    n_devices: int = 100,
    seed: int = 0,
    test_limit: int | None = None,
    by_doing: bool = False,
    progress: Progress = silent,
) -> list[FleetResult]:
    """Score a finished run on virtual devices of each hardware.

    Args:
        run: From `load_run`.
        hardwares: What devices are drawn from.
        deployment: What each device gets beside its weights; inputs that it is shown are training inputs.
        n_devices: Size of each fleet.
        seed: Of the fleets.
        test_limit: Use only that many test samples, drawn at random once for all.
        by_doing: Score by the task's own measure (routes driven, formulas read), one device at a time,
            where it has one.
        progress: Told as devices are done.

    Raises:
        TrainError: If ``by_doing`` is asked of a task that is scored by its outputs alone.
    """
    deployed = deployment or Deployment()
    task, data_seed, limit = run.task, run.config["seed"], run.config["limit"]
    unlabelled = None
    if deployed.sees_inputs:
        unlabelled = unlabelled_inputs(
            task.development(data_seed, limit)[0], data_seed, deployed.samples
        )
    if by_doing:
        measure = task.measure()
        if measure is None:
            raise TrainError(f"{task.name} is scored by its outputs alone; leave out --by-doing.")
        return evaluate_measure(
            run.model,
            measure,
            hardwares,
            name=f"{task.name}, by doing",
            n_devices=n_devices,
            seed=seed,
            deployment=deployed,
            unlabelled=unlabelled,
            progress=progress,
        )
    test = task.test(data_seed, limit)
    if test_limit is not None:
        keep = random_subset(len(test.x), test_limit, 0)
        test = Split(test.x[keep], test.y[keep])
    return evaluate_fleets(
        run.model,
        test,
        hardwares,
        n_devices=n_devices,
        seed=seed,
        metric=task.metric,
        deployment=deployed,
        unlabelled=unlabelled,
        progress=progress,
    )
