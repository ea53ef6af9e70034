"""What all trainings of one run share: task, network, hardware, optimiser, and how trials are judged."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.nn import (
    Deployment,
    FleetResult,
    Where,
    analog_parameters,
    analogize,
    calibrate_converters,
    check_deployment,
    digitize,
    evaluate_fleets,
    summary,
)
from ohmloop.progress import Progress, silent
from ohmloop.run import Executor, InProcess
from ohmloop.tasks import Metric, Split, Task
from ohmloop.train._loop import Chips, Lesson, Recipe, has_ranges, train_once
from ohmloop.train._noise import Noise
from ohmloop.train._team import Team

OBJECTIVE_SEED = 90_001
"""Seed of the devices that an objective draws; evaluation draws from other seeds."""
OBJECTIVE_SAMPLES = 1000
"""Validation inputs that a search's objective is taken over, at most."""
CALIBRATION = 64
"""Training inputs that converter ranges are set from; the same for all chips, at design time."""
_EXAMPLES = 16
"""Training inputs that the error of products on arrays is measured on."""
_UNLABELLED = 1024


@dataclass(frozen=True)
class Trial:
    """One training of a search, or one part of a training that goes on if it does well.

    Attributes:
        noise: The settings tried.
        objective: What the search saw, larger is better; accuracies lie in [0, 1].
        epochs: How far it was trained when judged.
        number: Of the setting within the search; trials that go on keep theirs.
        clean: Digital validation score, NaN if the objective is it.
    """

    noise: Noise
    objective: float
    epochs: int = 0
    number: int = 0
    clean: float = float("nan")


class Outcome(NamedTuple):
    """A trained network with its history and what the search saw of it."""

    model: nn.Module
    history: list[dict[str, float]]
    objective: float


Objective = Callable[[nn.Module], float]


class Setting(NamedTuple):
    """The shared part of all trainings of one run."""

    task: Task
    model: str | None
    hardwares: tuple[Hardware, ...]
    where: Where
    recipe: Recipe
    device: str
    lesson: Lesson
    deployment: Deployment
    progress: Progress
    executor: Executor
    measured: float | None = None
    team: Team | None = None
    frozen_norm: bool = False

    def sent(self) -> Setting:
        """Return what a trial of a search gets: in a worker, one that reports to nobody and has no workers."""
        if self.executor.in_this_process:
            return self
        return self._replace(progress=silent, executor=InProcess())

    @property
    def unlabelled(self) -> Tensor:
        """Training inputs ``k x ...`` that devices may be shown."""
        return unlabelled_inputs(self.lesson.train, self.recipe.seed, self.deployment.samples)

    def fresh(self) -> nn.Module:
        """Return the network as every training starts with it, on its hardware."""
        model = self.task.model(self.model, seed=self.recipe.seed).to(self.device)
        return analogize(model, self.hardwares[0], where=self.where)

    def check(self, model: nn.Module) -> None:
        """Raise ConversionError if devices of ``model`` cannot be deployed as asked."""
        names = frozenset(analog_parameters(model))
        check_deployment(model, self.deployment, names, self.unlabelled)

    @property
    def sigma(self) -> float:
        """Level of the devices' noise: what `measured` says of arrays, else the root mean square of sigmas."""
        if self.measured is not None:
            return self.measured
        return math.sqrt(float(np.mean([h.device.sigma.value**2 for h in self.hardwares])))

    @property
    def has_arrays(self) -> bool:
        """Whether the network will run on arrays."""
        return self.hardwares[0].array is not None

    @property
    def chips(self) -> Chips | None:
        """What a training through arrays runs on; None for the law on weights."""
        if not self.has_arrays:
            return None
        return Chips(self.hardwares, self.unlabelled[:CALIBRATION])

    def measure(self) -> Setting:
        """Return the same with ``measured``: the relative error of products of the fresh network on its arrays.

        The root mean square over layers and hardwares, simulated on a few chips from a fixed seed: what
        programming, levels and converters leave of a device's sigma. Noise of that level on weights makes the
        same error, so that a method may scale its noise by it.
        """
        fresh, inputs = self.fresh(), self.unlabelled[:CALIBRATION]
        squared = [
            row.error**2
            for hardware in self.hardwares
            for row in summary(
                on_array(fresh, hardware, self.where, inputs),
                example=inputs[:_EXAMPLES].to(self.device),
            )
            if row.error is not None
        ]
        return self._replace(measured=math.sqrt(float(np.mean(squared))) if squared else 0.0)

    def devices(self, model: nn.Module, n_draws: int) -> list[FleetResult]:
        """Score ``model`` on validation data, on drawn devices of each hardware, after calibration.

        On arrays the converters' ranges are set for ``model`` first, on a copy of it.
        """
        x, y = self.lesson.validation
        keep = random_subset(len(x), OBJECTIVE_SAMPLES, self.recipe.seed)
        split, unlabelled = Split(x[keep], y[keep]), self.unlabelled

        def scored(network: nn.Module, hardwares: tuple[Hardware, ...]) -> list[FleetResult]:
            return evaluate_fleets(
                network,
                split,
                hardwares,
                n_devices=n_draws,
                seed=OBJECTIVE_SEED,
                metric=self.lesson.metric,
                deployment=self.deployment,
                unlabelled=unlabelled,
            )

        if not self.has_arrays:
            return scored(model, self.hardwares)
        inputs = unlabelled[:CALIBRATION]
        return [scored(on_array(model, h, self.where, inputs), (h,))[0] for h in self.hardwares]

    def train(
        self,
        model: nn.Module,
        noise: Noise,
        folder: Path | None,
        label: str,
        objective: Objective | None = None,
        until: int | None = None,
    ) -> Outcome:
        """Train ``model`` and judge it."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        train = train_once if self.team is None else self.team.train
        history = train(
            model,
            self.lesson,
            noise,
            self.recipe,
            chips=self.chips if noise.on_chips else None,
            until=until,
            folder=folder,
            label=label,
            progress=self.progress,
        )
        return Outcome(model, history, float("nan") if objective is None else objective(model))


def on_array(model: nn.Module, hardware: Hardware, where: Where, inputs: Tensor) -> nn.Module:
    """Return a copy of ``model`` on arrays, its converters' ranges set from unlabelled ``k x ...``.

    Where no range is left to calibration, nothing is computed.
    """
    placed = analogize(digitize(copy.deepcopy(model)), hardware, where=where)
    return calibrated(placed, hardware, inputs)


def calibrated(model: nn.Module, hardware: Hardware, inputs: Tensor) -> nn.Module:
    """Set the ranges that the arrays of ``model`` leave open from ``k x ...``, in place, and return it."""
    if not has_ranges(hardware):
        return model
    return calibrate_converters(model, inputs.to(next(model.parameters()).device))


def utility(value: float, metric: Metric) -> float:
    """Return a score as something to maximise: itself, or minus the logarithm of an error."""
    return value if metric.is_higher_better else -math.log(max(value, 1e-300))


def random_subset(n: int, most: int, seed: int) -> Tensor:
    """Return sorted indices of at most ``most`` of ``n`` items, the same for a seed."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 2_000_003))
    return order[:most].sort().values


def unlabelled_inputs(train: Split, seed: int, least: int = 0) -> Tensor:
    """Return training inputs in random order: what devices may be shown for calibration, ``k x ...``.

    Args:
        train: Training data.
        seed: Of the order.
        least: Return so many, if there are, where that is more than the usual 1,024.
    """
    order = torch.randperm(len(train.x), generator=torch.Generator().manual_seed(seed + 3_000_017))
    return train.x[order[: max(_UNLABELLED, least)]]
