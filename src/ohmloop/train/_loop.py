"""One training: steps, noise, checkpoints. Killed and started again, it ends at the same bits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import (
    analog_parameters,
    calibrate_converters,
    erase,
    has_arrays,
    mark_noisy_statistics,
    matching,
    program,
    score,
)
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.tasks import Accuracy, Metric, Split
from ohmloop.train._noise import (
    Converters,
    Noise,
    clip_weights,
    draw_weights,
    frozen_norms,
    masked,
    uphill,
)

VALIDATION_SAMPLES = 1000
"""Validation inputs that the score of each epoch is taken over; the search uses them all."""

REFRESH = 16
"""Steps of an epoch after which a training on chips sets calibrated converter ranges anew, from its weights as
they then stand; the first time before the first step. Weights move fast at the beginning of a training:
ranges that are set once an epoch would cut what grows in between."""

Schedule = Literal["cosine", "constant"]
Augment = Callable[[Tensor, torch.Generator], Tensor]


class Diverged(TrainError):
    """A training whose loss is no longer finite."""


class Recipe(NamedTuple):
    """How every method trains: Adam, the same for all.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Inputs a step.
        lr: Largest learning rate.
        seed: Of batches and noise.
        schedule: "cosine": from ``lr`` to zero; "constant": ``lr`` throughout.
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int
    schedule: Schedule = "cosine"

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


class Lesson(NamedTuple):
    """What is learned, and from whom.

    Attributes:
        train: Training data.
        validation: Watched after each epoch; nothing is learned from it.
        metric: Gives the loss.
        teacher: A network whose outputs are a second target, or None.
        augment: Changes training batches at random, or None.
    """

    train: Split
    validation: Split
    metric: Metric = Accuracy()
    teacher: nn.Module | None = None
    augment: Augment | None = None


class Chips(NamedTuple):
    """What a training through arrays (`Noise.on_chips`) runs on.

    Attributes:
        hardwares: With arrays alike; each step is on a fresh chip of one of them, drawn at random.
        inputs: Unlabelled inputs ``k x ...`` that calibrated converter ranges are set from.
    """

    hardwares: tuple[Hardware, ...]
    inputs: Tensor

    @property
    def has_ranges(self) -> bool:
        """Whether converters leave a range to calibration."""
        return any(has_ranges(h) for h in self.hardwares)


def has_ranges(hardware: Hardware) -> bool:
    """Whether an array has converters whose range is set by calibration."""
    array = hardware.array
    if array is None:
        return False
    dac, adc = array.dac, array.adc
    return (dac is not None and dac.range == "calibrated") or (
        adc is not None and adc.range is None
    )


def train_once(
    model: nn.Module,
    lesson: Lesson,
    noise: Noise,
    recipe: Recipe,
    *,
    chips: Chips | None = None,
    until: int | None = None,
    folder: Path | None = None,
    label: str = "train",
    progress: Progress = silent,
) -> list[dict[str, float]]:
    """Train ``model`` in place and return its history, one entry an epoch.

    With a folder, a checkpoint is written after each epoch (as a whole or not at all), and a training
    that finds one goes on from it to the same weights as if it had never stopped.

    Args:
        model: An analog model.
        lesson: Data, metric, teacher.
        noise: What is added.
        recipe: Optimiser, schedule and seed.
        chips: What a noise with ``on_chips`` runs on. The model is left without a chip.
        until: Stop after this epoch of the schedule; a later call with the folder goes on.
        folder: Of the checkpoint.
        label: For progress and errors.
        progress: Told after each epoch.

    Raises:
        TrainError: If the loss is no longer finite, or chips are asked for and missing.
    """
    if noise.on_chips and (chips is None or not has_arrays(model)):
        raise TrainError(
            "training on chips needs a model on arrays and what they are: train_once(analogize(model, "
            "Hardware(device=..., array=Array())), ..., chips=Chips((hardware,), inputs))."
        )
    training = Training(model, lesson, noise, recipe, chips if noise.on_chips else None)
    return run_training(training, until=until, folder=folder, label=label, progress=progress)


def run_training(
    training: Training,
    *,
    until: int | None,
    folder: Path | None,
    label: str,
    progress: Progress,
) -> list[dict[str, float]]:
    """Go through the epochs of a training that are left; see `train_once`."""
    recipe = training.recipe
    mark_noisy_statistics(training.model, training.frozen)
    checkpoint = folder / "checkpoint.pt" if folder is not None else None
    if checkpoint is not None and checkpoint.exists():
        training.restore(checkpoint)
    end = recipe.epochs if until is None else min(until, recipe.epochs)
    for epoch in range(len(training.history), end):
        loss = training.epoch(epoch)
        if not math.isfinite(loss):
            raise Diverged(
                f"{label}: the loss is {loss} in epoch {epoch + 1}. Lower the learning rate "
                f"(now {recipe.lr:g}) or the noise ({training.noise})."
            )
        training.history.append(
            {
                "epoch": epoch + 1,
                "loss": loss,
                "validation_score": training.validate(),
                "lr": recipe.rate(epoch),
            }
        )
        if checkpoint is not None:
            training.save(checkpoint)
        progress(ProgressEvent(label, epoch + 1, recipe.epochs, f"loss {loss:.3f}"))
    training.model.eval()
    return training.history


class Training:
    """The state of one training between epochs."""

    def __init__(
        self,
        model: nn.Module,
        lesson: Lesson,
        noise: Noise,
        recipe: Recipe,
        chips: Chips | None = None,
    ) -> None:
        self.model, self.lesson, self.noise, self.recipe = model, lesson, noise, recipe
        self.place = next(model.parameters()).device
        self.chips = chips
        self.frozen = frozen_norms(model, noise)
        self.shuffle = torch.Generator().manual_seed(recipe.seed)
        self.random = torch.Generator(device=self.place).manual_seed(recipe.seed + 1_000_003)
        # Learnable parameters only: a pretrained network may hold frozen ones.
        learnable = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(learnable, lr=recipe.lr, fused=True)
        self.converters = Converters(noise.bits)
        self.history: list[dict[str, float]] = []

    def epoch(self, epoch: int) -> float:
        """Go once through the data; return the mean loss."""
        x = self.lesson.train.x
        self.model.train()
        for norm in self.frozen:
            norm.eval()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(epoch)
        ramp = self.noise.ramp * self.recipe.epochs
        scale = min(1.0, (epoch + 1) / ramp) if ramp else 1.0
        order = torch.randperm(len(x), generator=self.shuffle)
        total = torch.zeros((), device=self.place)
        with ExitStack() as stack:
            stack.enter_context(masked(self.model, self.noise, self.random))
            if self.noise.bits:
                self.converters.learning = epoch == 0
                stack.enter_context(self.converters.active(self.model))
            if self.chips is not None:
                stack.callback(erase, self.model)
            for step, part in enumerate(torch.split(order, self.recipe.batch_size)):
                if len(part) < 2 <= len(x):
                    continue  # Batch norm has no statistics of a single input.
                inputs, targets = self._take(part)
                if self.chips is not None:
                    self._next_chip(self.chips, step)
                total += self._step(inputs, targets, scale) * len(part)
        return float(self._total(total)) / len(x)

    def validate(self) -> float:
        """Return the score that is watched."""
        x, y = self.lesson.validation
        watched = Split(x[:VALIDATION_SAMPLES], y[:VALIDATION_SAMPLES])
        return score(self.model, watched, self.lesson.metric)

    def _take(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a step, changed at random."""
        x, y = self.lesson.train
        inputs, targets = x[part].to(self.place), y[part].to(self.place)
        if self.lesson.augment is not None:
            inputs = self.lesson.augment(inputs, self.random)
        return inputs, targets

    def _total(self, losses: Tensor) -> Tensor:
        """Return the losses of an epoch."""
        return losses

    def _next_chip(self, chips: Chips, step: int) -> None:
        """Make the model a fresh chip; all that it depends on is the weights and ``random``."""
        if chips.has_ranges and step % REFRESH == 0:
            calibrate_converters(self.model, chips.inputs.to(self.place))
        k = 0
        if len(chips.hardwares) > 1:
            n = len(chips.hardwares)
            k = int(torch.randint(n, (), generator=self.random, device=self.place))
        program(self.model, self.random, hardware=chips.hardwares[k], differentiable=True)

    def _step(self, x: Tensor, y: Tensor, scale: float) -> Tensor:
        taught = self._teach(x)
        loss = self._loss(x, y, taught, scale)
        self.optimiser.zero_grad(set_to_none=True)
        self._backward(loss)
        if self.noise.sharpness != "none":
            with uphill(self.model, self.noise):
                self.optimiser.zero_grad(set_to_none=True)
                self._backward(self._loss(x, y, taught, scale))
        self.optimiser.step()
        if self.noise.clip:
            clip_weights(self.model, self.noise.clip)
        return loss.detach()

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)

    def _teach(self, x: Tensor) -> Tensor | None:
        if self.lesson.teacher is None or not self.noise.distill:
            return None
        with torch.no_grad():
            out: Tensor = self.lesson.teacher(x)
        return out

    def _loss(self, x: Tensor, y: Tensor, taught: Tensor | None, scale: float) -> Tensor:
        loss = self._one(x, y, taught, scale)
        if self.noise.feedback:
            weight = 1.0
            for k in range(1, self.noise.feedback + 1):
                loss = loss + self._one(x, y, taught, scale * (1 + k / 2)) / 2**k
                weight += 1 / 2**k
            loss = loss / weight
        return loss

    def _one(self, x: Tensor, y: Tensor, taught: Tensor | None, scale: float) -> Tensor:
        noise, weights = self.noise, None
        if noise.level or noise.tile_drop:
            weights = draw_weights(self.model, noise, self.random, scale)
        return self._measure(self._out(x, weights), y, taught)

    def _out(self, x: Tensor, weights: dict[str, Tensor] | None) -> Tensor:
        """Return the outputs of the network, with drawn weights in the place of its own."""
        if weights is None:
            out: Tensor = self.model(x)
        elif self.noise.match:
            names = frozenset(analog_parameters(self.model))
            with matching(self.model, names, x):
                out = functional_call(self.model, weights, (x,))
        else:
            out = functional_call(self.model, weights, (x,))
        return out

    def _measure(self, out: Tensor, y: Tensor, taught: Tensor | None) -> Tensor:
        """Return the loss of outputs."""
        metric, share = self.lesson.metric, self.noise.distill
        loss = metric.loss(out, y)
        return loss if taught is None else (1 - share) * loss + share * metric.distance(out, taught)

    def restore(self, checkpoint: Path) -> None:
        """Take up the state of a checkpoint."""
        state = torch.load(checkpoint, weights_only=True, map_location=self.place)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.shuffle.set_state(state["shuffle"].cpu())
        self.random.set_state(state["random"].cpu())
        self.converters.ranges = json.loads(state["ranges"])
        self.history = json.loads(state["history"])

    def save(self, checkpoint: Path) -> None:
        """Write the state, as a whole or not at all."""
        part = checkpoint.with_name(checkpoint.name + ".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "shuffle": self.shuffle.get_state(),
                "random": self.random.get_state(),
                "ranges": json.dumps(self.converters.ranges),
                "history": json.dumps(self.history),
            },
            part,
        )
        os.replace(part, checkpoint)
