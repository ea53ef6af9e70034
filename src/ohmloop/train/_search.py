"""Searches whose every trial is a full training: a grid of levels, BayesFT, BayesMulti."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from ohmloop import bo
from ohmloop.errors import TrainError
from ohmloop.nn import score
from ohmloop.progress import ProgressEvent
from ohmloop.train._folder import write_json
from ohmloop.train._loop import Diverged
from ohmloop.train._methods import BayesFT, BayesMulti, Method, WeightNoise
from ohmloop.train._noise import Noise, dropout_masks, multinomial_masks
from ohmloop.train._setting import Objective, Outcome, Setting, Trial, utility

Propose = Callable[[list[list[float]], list[float]], tuple[list[float], Noise]]


class _Plan(NamedTuple):
    propose: Propose
    n_trials: int
    objective: Objective


def search(
    setting: Setting, method: Method, depth: int, folder: Path | None
) -> tuple[Outcome, Noise, tuple[Trial, ...]]:
    """Run the trials of a method and return the best network, its noise, and all trials."""
    plan = _plan(setting, method, depth)
    trials: list[Trial] = []
    points: list[list[float]] = []
    best: Outcome | None = None
    kept = Noise()
    diverged: Diverged | None = None
    for k in range(plan.n_trials):
        place = None if folder is None else folder / "trials" / f"{k:02d}"
        point, noise = plan.propose(points, [trial.objective for trial in trials])
        label = f"{method.name} {k + 1}/{plan.n_trials}"
        try:
            outcome = setting.train(setting.fresh(), noise, place, label, plan.objective)
        except Diverged as error:
            objective, diverged = float("nan"), error  # A result, and a bad one.
        else:
            objective = outcome.objective
            if not math.isnan(objective) and (best is None or objective > best.objective):
                best, kept = outcome, noise
        if place is not None:
            write_json(
                place / "trial.json",
                {
                    "noise": noise.model_dump(mode="json"),
                    "objective": objective if math.isfinite(objective) else None,
                },
            )
        points.append(point)
        trials.append(Trial(noise, objective, setting.recipe.epochs, k))
        setting.progress(ProgressEvent(f"{method.name} trials", k + 1, plan.n_trials))
    if best is None:
        raise diverged or TrainError(
            f"{method.name}: no trial has a score; the outputs are not finite."
        )
    return best, kept, tuple(trials)


def _drift(setting: Setting, n_draws: int) -> Objective:
    def objective(model: nn.Module) -> float:
        results = setting.devices(model, n_draws)
        return float(np.mean([utility(result.mean, setting.lesson.metric) for result in results]))

    return objective


def _clean_train(setting: Setting) -> Objective:
    def objective(model: nn.Module) -> float:
        metric = setting.lesson.metric
        return utility(score(model, setting.lesson.train, metric), metric)

    return objective


def _plan(setting: Setting, method: Method, depth: int) -> _Plan:
    if isinstance(method, WeightNoise):
        tuned = method

        def next_level(points: list[list[float]], values: list[float]) -> tuple[list[float], Noise]:
            level = tuned.grid[len(points)]
            return [level], tuned.at(level)

        return _Plan(next_level, len(method.grid), _drift(setting, 20))
    if depth == 0:
        raise TrainError(f"{method.name} needs a network of at least two layers.")
    if isinstance(method, BayesFT):
        highs = [method.max_rate] * depth
        make: Callable[[Sequence[float]], Noise] = dropout_masks
        objective = _drift(setting, method.n_draws)
        n_initial, n_iterations = method.n_initial, method.n_iterations
    elif isinstance(method, BayesMulti):
        two = method.parametrisation == "two"
        highs = [method.max_p0] * depth + [1.0] * (depth if two else 0)

        def make(point: Sequence[float]) -> Noise:
            if not two:
                return multinomial_masks(point)
            # p0 + p1 <= 1: what is above it is cut from p1, as the probabilities demand.
            p0 = list(point[:depth])
            p1 = [min(b, 1 - a) for a, b in zip(p0, point[depth:], strict=True)]
            return multinomial_masks(p0, p1)

        clean = method.objective == "clean-train"
        objective = _clean_train(setting) if clean else _drift(setting, method.n_draws)
        n_initial, n_iterations = method.n_initial, method.n_iterations
    else:
        raise TrainError(f"{method.name} is not a method that this version trains.")
    propose = _bayesian(highs, make, n_initial, setting.recipe.seed)
    return _Plan(propose, n_initial + n_iterations, objective)


def _bayesian(
    highs: Sequence[float], make: Callable[[Sequence[float]], Noise], n_initial: int, seed: int
) -> Propose:
    names = [f"layer_{k}" for k in range(len(highs))]
    problem = bo.Problem(
        space=bo.Space(
            tuple(bo.Real(name=n, low=0.0, high=h) for n, h in zip(names, highs, strict=True))
        ),
        objectives=(bo.Objective(name="accuracy"),),
        settings=bo.Settings(n_initial=n_initial),
    )

    def propose(points: list[list[float]], values: list[float]) -> tuple[list[float], Noise]:
        seen = [
            bo.Observation(
                point=dict(zip(names, p, strict=True)),
                values={"accuracy": (v,)} if math.isfinite(v) else {},
            )
            for p, v in zip(points, values, strict=True)
        ]
        found = bo.suggest(problem, seen, seed=seed)[0].point
        point = [float(found[n]) for n in names]
        return point, make(point)

    return propose
