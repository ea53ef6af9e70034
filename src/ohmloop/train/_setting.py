"""What all trainings of one run share: task, network, hardware, optimiser, and how trials are judged."""

from __future__ import annotations

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
    check_deployment,
    evaluate_fleets,
)
from ohmloop.progress import Progress
from ohmloop.tasks import Metric, Split, Task
from ohmloop.train._loop import Lesson, Recipe, train_once
from ohmloop.train._noise import Noise

OBJECTIVE_SEED = 90_001
"""Seed of the devices that an objective draws; evaluation draws from other seeds."""
OBJECTIVE_SAMPLES = 1000
"""Validation inputs that a search's objective is taken over, at most."""
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
    workers: int

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
        """Root mean square of the sigmas of the hardwares."""
        return math.sqrt(float(np.mean([h.device.sigma.value**2 for h in self.hardwares])))

    def devices(self, model: nn.Module, n_draws: int) -> list[FleetResult]:
        """Score ``model`` on validation data, on drawn devices of each hardware, after calibration."""
        x, y = self.lesson.validation
        keep = random_subset(len(x), OBJECTIVE_SAMPLES, self.recipe.seed)
        return evaluate_fleets(
            model,
            Split(x[keep], y[keep]),
            self.hardwares,
            n_devices=n_draws,
            seed=OBJECTIVE_SEED,
            metric=self.lesson.metric,
            deployment=self.deployment,
            unlabelled=self.unlabelled,
        )

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
        history = train_once(
            model,
            self.lesson,
            noise,
            self.recipe,
            until=until,
            folder=folder,
            label=label,
            progress=self.progress,
        )
        return Outcome(model, history, float("nan") if objective is None else objective(model))


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
