"""What each property of a device is worth to a trained network, by simulation.

Networks of several training seeds are put on fleets of virtual devices at laws that fill the ranges of the
properties. Device i has the same underlying random numbers at every law and for every network, so that
differences between laws are not blurred by different draws. Scores are taken on validation data: what steers a
fabrication sees no test data.
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ohmloop.codesign._axes import Design, axes_of, design
from ohmloop.codesign._changes import Change, changes_of
from ohmloop.crossbar import Hardware
from ohmloop.device import Axis, TaskAccuracy
from ohmloop.errors import TrainError
from ohmloop.nn import (
    Deployment,
    analog_parameters,
    analogize,
    calibrate_converters,
    digitize,
    evaluate_fleets,
    has_arrays,
)
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.run import Executor, using
from ohmloop.tasks import Task
from ohmloop.train import Run, unlabelled_inputs

Array = NDArray[np.float64]
DESIGN_SEED = 70_001
"""Seed of the virtual devices; evaluation and the objectives of training draw from others."""
CALIBRATION = 64  # training inputs that converters find their ranges on
N_USAGE = 512  # bins of |w| / max|w|, some fifteen for each level of a table


@dataclass(frozen=True)
class Worth:
    """What one improvement of a device is worth to the network.

    Attributes:
        name: The property.
        phrase: The improvement in words.
        before: Value of the property as it is.
        after: Value after the improvement.
        gain: Improvement of the mean score; positive is better, whatever the direction of the score.
        error: Standard error of the gain, over trainings and virtual devices (paired).
    """

    name: str
    phrase: str
    before: float
    after: float
    gain: float
    error: float

    def sentence(self, metric: str) -> str:
        """Return it in words: "halving sigma (0.4 to 0.2) is worth 7.2 +- 0.4 points"."""
        share = metric.endswith("accuracy")
        factor, unit = (100.0, "points") if share else (1.0, f"of {metric}")
        return (
            f"{self.phrase} ({self.before:.3g} to {self.after:.3g}) is worth "
            f"{round(factor * self.gain, 2) + 0.0:.2f} ± {factor * self.error:.2f} {unit}"
        )


@dataclass(frozen=True)
class Sensitivity:
    """What device properties are worth to one task with one method.

    Attributes:
        surrogate: Score as a smooth function of the properties.
        hardware: Name of the device that ``score`` and ``worths`` are about.
        score: Mean score there.
        error: Its standard error.
        left_out: Root mean square error of the surrogate at simulated laws left out of it, one by one.
        worths: Improvements from there, the largest gain first.
    """

    surrogate: TaskAccuracy
    hardware: str
    score: float
    error: float
    left_out: float
    worths: tuple[Worth, ...]

    def sentences(self) -> list[str]:
        """Return the worths in words."""
        return [worth.sentence(self.surrogate.metric) for worth in self.worths]

    def to_dict(self) -> dict[str, Any]:
        """Return everything under stable names, ready for JSON."""
        return {
            "surrogate": self.surrogate.model_dump(mode="json"),
            "hardware": self.hardware,
            "score": self.score,
            "error": self.error,
            "left_out": self.left_out,
            "worths": [{**vars(w), "text": w.sentence(self.surrogate.metric)} for w in self.worths],
        }


def sensitivity(
    networks: Sequence[Run],
    hardware: Hardware | None = None,
    *,
    properties: Sequence[str] | None = None,
    n_points: int = 64,
    n_devices: int = 20,
    limit: int | None = 1000,
    seed: int = DESIGN_SEED,
    executor: Executor | str | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Simulate what properties of a device are worth to a network.

    Args:
        networks: Finished runs (`ohmloop.train.load_run`) of one task and method, one for each training
            seed. With a single one, errors say nothing about training.
        hardware: Where the device stands today; by default what the first network was trained for.
        properties: What to vary: "sigma" and "distortion" (of the level table) for the law on weights; for
            arrays "sigma", "levels", "window", "read_noise", "faults", "seconds", "adc_bits". All that the
            hardware has by default.
        n_points: Simulated laws.
        n_devices: Virtual devices at each, for each network.
        limit: Validation inputs that scores are taken over, at most.
        seed: Of the laws and the virtual devices.
        executor: Where networks are scored, each for itself (`ohmloop.run`): one that is open, or its text.
        progress: Told after each network.

    Raises:
        TrainError: If there is no network, they differ in task or method, or a property cannot be varied.
    """
    first = _one_kind(networks)
    base = _base(first, hardware)
    axes = axes_of(base, properties)
    if n_points < 2 * (len(axes) + 1) or n_devices < 2:
        raise TrainError(
            f"{len(axes)} properties need at least {2 * (len(axes) + 1)} points and two devices; received "
            f"{n_points} and {n_devices}."
        )
    models = [_on(run, base) for run in networks]
    usage = _usage(models)
    plan = design(base, axes, usage, n_points=n_points, seed=seed)
    changes = changes_of(base)
    hardwares = [base, *(c.hardware for c in changes), *(h for row in plan.hardwares for h in row)]
    with using(executor) as opened:
        seen = _scored(networks, models, hardwares, n_devices, limit, seed, opened, progress)
    metric = first.task.metric
    sign = 1.0 if metric.is_higher_better else -1.0
    here, error = mean_and_error(seen.table[0])
    worths = [
        _worth(change, sign * (seen.table[1 + k] - seen.table[0]))
        for k, change in enumerate(changes)
    ]
    surrogate = fit_surrogate(
        plan,
        axes,
        seen.table[1 + len(changes) :],
        usage,
        task=first.task.name,
        method=str(first.config["method"]),
        deployment=str(first.config.get("deployment", "none")),
        metric=metric.name,
        is_higher_better=metric.is_higher_better,
        n_samples=seen.n_samples,
        digital=seen.digital,
        about=f"simulated around {base.device.name}"
        + ("" if base.array is None else ", on arrays"),
    )
    ranked = tuple(sorted(worths, key=lambda w: -w.gain))
    return Sensitivity(surrogate, base.device.name, here, error, surrogate.leave_one_out(), ranked)


class _Scores(NamedTuple):
    """``hardwares x networks x devices`` scores, the mean digital one, and the inputs behind each."""

    table: Array
    digital: float
    n_samples: int


def _scored(
    networks: Sequence[Run],
    models: Sequence[torch.nn.Module],
    hardwares: Sequence[Hardware],
    n_devices: int,
    limit: int | None,
    seed: int,
    executor: Executor,
    progress: Progress,
) -> _Scores:
    """Score every network on every hardware, with the same devices, on its own validation data."""
    asked = executor.share((tuple(hardwares), n_devices, limit, seed))
    # What scores by doing cannot be sent to a worker, and validation has no use for it.
    jobs = [
        (replace(r.task, entry=replace(r.task.entry, measure=None)), r.config, model, asked)
        for r, model in zip(networks, models, strict=True)
    ]
    done: dict[int, tuple[Array, float, int]] = {}
    for k, scored in executor.each(_score_one, jobs):
        done[k] = scored
        progress(ProgressEvent("sensitivity", len(done), len(networks), networks[k].task.name))
    scores, digital, n_samples = zip(*(done[k] for k in range(len(networks))), strict=True)
    return _Scores(np.stack(scores, axis=1), float(np.mean(digital)), n_samples[-1])


def _score_one(
    task: Task,
    config: dict[str, Any],
    model: torch.nn.Module,
    asked: tuple[Sequence[Hardware], int, int | None, int],
) -> tuple[Array, float, int]:
    """Return ``hardwares x devices`` scores of a network, the digital one, and the inputs behind each."""
    hardwares, n_devices, limit, seed = asked
    train, validation = task.development(config["seed"], config["limit"])
    x, y = validation.x[:limit], validation.y[:limit]
    deployment = Deployment.parse(str(config.get("deployment", "none")))
    unlabelled = None
    if deployment.needs_inputs:
        unlabelled = unlabelled_inputs(train, config["seed"], deployment.samples)
    if has_arrays(model):
        calibrate_converters(model, train.x[:CALIBRATION])
    fleets = evaluate_fleets(
        model,
        (x, y),
        hardwares,
        n_devices=n_devices,
        seed=seed,
        metric=task.metric,
        deployment=deployment,
        unlabelled=unlabelled,
    )
    return np.stack([f.scores for f in fleets]), fleets[0].digital, len(x)


def _one_kind(networks: Sequence[Run]) -> Run:
    if not networks:
        raise TrainError("a sensitivity needs at least one trained network; received none.")
    first = networks[0]
    for run in networks[1:]:
        for key in ("task", "method", "model", "limit", "deployment"):
            if run.config.get(key) != first.config.get(key):
                raise TrainError(
                    f"the networks must differ in their training seed alone; {key} is "
                    f"{first.config.get(key)!r} in one and {run.config.get(key)!r} in another."
                )
    return first


def _base(run: Run, hardware: Hardware | None) -> Hardware:
    if hardware is not None:
        return hardware
    return Hardware.model_validate(run.config["hardware"][0])


def _on(run: Run, base: Hardware) -> torch.nn.Module:
    """Return a copy of the network that is analog in the way of the hardware."""
    model = copy.deepcopy(run.model)
    if base.array is None and not has_arrays(model):
        return model
    text = str(run.config["where"])
    where = None if text == "None" else ast.literal_eval(text)
    return analogize(digitize(model), base, where=where)


def _usage(models: Sequence[torch.nn.Module]) -> Array:
    """Return the share of squared weight in equal bins of |w| / max|w|, over tensors by their size."""
    out = np.zeros(N_USAGE)
    for model in models:
        for p in analog_parameters(model).values():
            size = p.detach().abs().flatten().double().cpu().numpy()
            if not size.size or not size.max() > 0:
                continue
            bins = np.minimum((size / size.max() * N_USAGE).astype(int), N_USAGE - 1)
            counted = np.bincount(bins, weights=size**2, minlength=N_USAGE)
            out += counted / counted.sum() * size.size
    return np.asarray(out / out.sum())


def mean_and_error(scores: Array) -> tuple[float, float]:
    """Return the mean of ``networks x devices`` scores and its standard error.

    Networks and devices are crossed random effects (all networks meet the same devices): the error is
    sqrt(var of network means / networks + var of device means / devices), which counts their interaction
    twice and so errs on the wide side. With one network its part is unknown and left out.
    """
    by_network, by_device = scores.mean(1), scores.mean(0)
    squared = by_device.var(ddof=1) / len(by_device) if len(by_device) > 1 else 0.0
    if len(by_network) > 1:
        squared += by_network.var(ddof=1) / len(by_network)
    return float(scores.mean()), float(np.sqrt(squared))


def _worth(change: Change, gains: Array) -> Worth:
    gain, error = mean_and_error(gains)
    return Worth(change.name, change.phrase, change.before, change.after, gain, error)


def fit_surrogate(
    plan: Design, axes: Sequence[Axis], scores: Array, usage: Array, **facts: Any
) -> TaskAccuracy:
    """Fit the Gaussian process: Matern 5/2, one lengthscale an axis, by maximum marginal likelihood.

    Args:
        plan: The simulated laws.
        axes: Of its coordinates.
        scores: ``hardwares x networks x devices``, those of one law in a row.
        usage: Of the networks' weights.
        facts: The other fields of `TaskAccuracy`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    ends = np.cumsum([len(row) for row in plan.hardwares])[:-1]
    laws = np.split(scores, ends)
    rows = [mean_and_error(law.mean(0)) for law in laws]
    means, errors = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    spreads = np.array([law.std(axis=-1, ddof=1).mean() for law in laws])
    shapes = np.array(
        [law.mean((1, 2)).var(ddof=1) / len(law) if len(law) > 1 else 0.0 for law in laws]
    )
    variance = max(float(means.var()), 1e-8)
    d = len(axes)
    kernel = ConstantKernel(4.0, (0.1, 1e3)) * Matern(
        np.ones(d), [(0.1, 20.0)] * d, nu=2.5
    ) + WhiteKernel(1e-2, (1e-4, 0.3))
    with warnings.catch_warnings():
        # A lengthscale at its bound is a property that does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(
            kernel, alpha=shapes / variance + 1e-10, n_restarts_optimizer=2, random_state=0
        ).fit(plan.points, (means - means.mean()) / np.sqrt(variance))
    found = process.kernel_
    return TaskAccuracy(
        axes=tuple(axes),
        usage=tuple(usage.tolist()),
        points=tuple(tuple(row) for row in plan.points.tolist()),
        means=tuple(means.tolist()),
        errors=tuple(errors.tolist()),
        spreads=tuple(spreads.tolist()),
        lengths=tuple(np.atleast_1d(found.k1.k2.length_scale).tolist()),
        amplitude=float(found.k1.k1.constant_value * variance),
        noises=tuple((found.k2.noise_level * variance + shapes).tolist()),
        n_networks=scores.shape[1],
        n_devices=scores.shape[2],
        **facts,
    )
