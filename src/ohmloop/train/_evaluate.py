"""A finished run scored on fleets of virtual devices, on test data or by what it does."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import (
    Deployment,
    FleetResult,
    analogize,
    calibrate_converters,
    digitize,
    evaluate_fleets,
    evaluate_measure,
)
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Split
from ohmloop.train._fit import Run, where_of
from ohmloop.train._setting import random_subset, unlabelled_inputs


def own_hardwares(run: Run) -> tuple[Hardware, ...]:
    """Return what a finished run was trained for, as its configuration holds it."""
    return tuple(Hardware.model_validate(kept) for kept in run.config["hardware"])


def evaluate_run(
    run: Run,
    hardwares: Sequence[Hardware] | None = None,
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
        hardwares: What devices are drawn from; by default what the run was trained for.
        deployment: What each device gets beside its weights; inputs that it is shown are training inputs.
        n_devices: Size of each fleet.
        seed: Of the fleets.
        test_limit: Use only that many test samples, drawn at random once for all.
        by_doing: Score by the task's own measure (routes driven, formulas read), one device at a time,
            where it has one.
        progress: Told as devices are done.

    Raises:
        TrainError: If ``by_doing`` is asked of a task that is scored by its outputs alone, or together with
            ``test_limit``: a measure by doing has its own routes or formulas, all of which count.
    """
    if by_doing and test_limit is not None:
        raise TrainError(
            f"a test limit of {test_limit} samples does not go with scoring by doing, which has its own "
            "routes, formulas or questions: leave out --test-limit, or --by-doing. Fewer --devices make it "
            "shorter."
        )
    hardwares = own_hardwares(run) if hardwares is None else hardwares
    deployed = deployment or Deployment()
    task, data_seed, limit = run.task, run.config["seed"], run.config["limit"]
    unlabelled = None
    if deployed.sees_inputs:
        unlabelled = unlabelled_inputs(
            task.development(data_seed, limit)[0], data_seed, deployed.samples
        )
    measure = None
    if by_doing:
        measure = task.measure()
        if measure is None:
            raise TrainError(f"{task.name} is scored by its outputs alone; leave out --by-doing.")
    else:
        test = task.test(data_seed, limit)
        if test_limit is not None:
            keep = random_subset(len(test.x), test_limit, 0)
            test = Split(test.x[keep], test.y[keep])

    def scored(model: nn.Module, group: Sequence[Hardware]) -> list[FleetResult]:
        if measure is not None:
            return evaluate_measure(
                model,
                measure,
                group,
                name=f"{task.name}, by doing",
                n_devices=n_devices,
                seed=seed,
                deployment=deployed,
                unlabelled=unlabelled,
                progress=progress,
            )
        return evaluate_fleets(
            model,
            test,
            group,
            n_devices=n_devices,
            seed=seed,
            metric=task.metric,
            deployment=deployed,
            unlabelled=unlabelled,
            progress=progress,
        )

    law = iter(
        scored(run.model, group) if (group := [h for h in hardwares if h.array is None]) else ()
    )
    return [next(law) if h.array is None else scored(_on_array(run, h), [h])[0] for h in hardwares]


def _on_array(run: Run, hardware: Hardware) -> nn.Module:
    """Return a copy of the run's network on arrays, its converters calibrated on training inputs."""
    data_seed, limit = run.config["seed"], run.config["limit"]
    train = run.task.development(data_seed, limit)[0]
    model = analogize(digitize(copy.deepcopy(run.model)), hardware, where=where_of(run.config))
    return calibrate_converters(model, unlabelled_inputs(train, data_seed)[:_CALIBRATION])


_CALIBRATION = 64
"""Training inputs that converter ranges are set from; the same for all chips, at design time."""
