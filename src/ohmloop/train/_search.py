"""Searches whose every trial is a full training: a grid of levels, BayesFT, BayesMulti.

Trials run side by side where they may. Those of a grid and of an initial design wait for nothing. Trial k after
them is proposed when the results of trials 0 to k - ``in_flight`` are in, and of no others: later ones that
happen to be in as well count as under way. So a search depends on its seed and on ``in_flight``, not on how
many workers there are or which of them is the fastest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from ohmloop import bo
from ohmloop.errors import TrainError
from ohmloop.nn import score
from ohmloop.progress import ProgressEvent
from ohmloop.run import Handle
from ohmloop.train._folder import write_json
from ohmloop.train._loop import Diverged
from ohmloop.train._methods import BayesFT, BayesMulti, Method, WeightNoise
from ohmloop.train._noise import Noise, dropout_masks, multinomial_masks
from ohmloop.train._setting import Outcome, Setting, Trial, utility

Judge = Callable[[Setting, nn.Module], float]
Propose = Callable[[list[list[float]], list[float]], tuple[list[float], Noise]]
"""Takes all earlier points, and the objectives of the first of them; the others are under way."""


class _Plan(NamedTuple):
    propose: Propose
    n_trials: int
    n_first: int  # trials that are proposed without any result
    in_flight: int
    judge: Judge

    def n_told(self, k: int) -> int:
        """Return how many results trial k is proposed with."""
        return 0 if k < self.n_first else max(self.n_first, k + 1 - self.in_flight)


def search(
    setting: Setting, method: Method, depth: int, folder: Path | None
) -> tuple[Outcome, Noise, tuple[Trial, ...]]:
    """Run the trials of a method and return the best network, its noise, and all trials."""
    plan = _plan(method, depth, setting.recipe.seed)
    run = _Search(setting, method, plan, folder)
    try:
        for k in range(plan.n_trials):
            run.take(plan.n_told(k))
            run.start()
        run.take(plan.n_trials)
    finally:
        run.cancel()
    if run.best is None:
        raise run.diverged or TrainError(
            f"{method.name}: no trial has a score; the outputs are not finite."
        )
    best = run.best._replace(model=run.best.model.to(setting.device))
    return best, run.trials[run.kept].noise, tuple(run.trials)


class _Search:
    """What was started and what came of it."""

    def __init__(self, setting: Setting, method: Method, plan: _Plan, folder: Path | None) -> None:
        self._setting, self._method, self._plan, self._folder = setting, method, plan, folder
        self._shared = setting.executor.share((setting.sent(), plan.judge))
        self._points: list[list[float]] = []
        self._waiting: dict[int, tuple[Noise, Handle[Outcome | Diverged]]] = {}
        self.trials: list[Trial] = []
        self.best: Outcome | None = None
        self.kept = 0
        self.diverged: Diverged | None = None

    def start(self) -> None:
        """Propose a trial and hand it in."""
        k, n = len(self._points), self._plan.n_trials
        point, noise = self._plan.propose(self._points, [t.objective for t in self.trials])
        label = f"{self._method.name} {k + 1}/{n}"
        handle = self._setting.executor.submit(_train, self._shared, noise, self._place(k), label)
        self._points.append(point)
        self._waiting[k] = (noise, handle)

    def take(self, n: int) -> None:
        """Wait for the first ``n`` results, in the order in which the trials were proposed."""
        for k in range(len(self.trials), n):
            noise, handle = self._waiting[k]
            outcome = handle.result()
            del self._waiting[k], handle  # A network that is not the best goes.
            objective = float("nan")  # A training that diverged is a result, and a bad one.
            if isinstance(outcome, Diverged):
                self.diverged = outcome
            else:
                objective = outcome.objective
                is_best = self.best is None or objective > self.best.objective
                if not math.isnan(objective) and is_best:
                    self.best, self.kept = outcome, k
            self._note(Trial(noise, objective, self._setting.recipe.epochs, k))

    def cancel(self) -> None:
        """Give up what was started and has no result: after an error."""
        for _, handle in self._waiting.values():
            handle.cancel()

    def _place(self, k: int) -> Path | None:
        return None if self._folder is None else self._folder / "trials" / f"{k:02d}"

    def _note(self, trial: Trial) -> None:
        self.trials.append(trial)
        place = self._place(trial.number)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            objective = trial.objective if math.isfinite(trial.objective) else None
            noise = trial.noise.model_dump(mode="json")
            write_json(place / "trial.json", {"noise": noise, "objective": objective})
        label = f"{self._method.name} trials"
        self._setting.progress(ProgressEvent(label, len(self.trials), self._plan.n_trials))


def _train(
    shared: tuple[Setting, Judge], noise: Noise, place: Path | None, label: str
) -> Outcome | Diverged:
    """Train and judge one setting: a trial, in whatever process."""
    setting, judge = shared
    try:
        outcome = setting.train(setting.fresh(), noise, place, label, partial(judge, setting))
    except Diverged as error:
        return error
    return outcome._replace(model=outcome.model.cpu())  # Another machine may have no GPU.


def _drift(n_draws: int, setting: Setting, model: nn.Module) -> float:
    results = setting.devices(model, n_draws)
    return float(np.mean([utility(result.mean, setting.lesson.metric) for result in results]))


def _clean_train(setting: Setting, model: nn.Module) -> float:
    metric = setting.lesson.metric
    return utility(score(model, setting.lesson.train, metric), metric)


def _plan(method: Method, depth: int, seed: int) -> _Plan:
    if isinstance(method, WeightNoise):
        tuned, n = method, len(method.grid)

        def next_level(points: list[list[float]], values: list[float]) -> tuple[list[float], Noise]:
            level = tuned.grid[len(points)]
            return [level], tuned.at(level)

        return _Plan(next_level, n, n, 1, partial(_drift, 20))
    if depth == 0:
        raise TrainError(f"{method.name} needs a network of at least two layers.")
    if isinstance(method, BayesFT):
        highs = [method.max_rate] * depth
        make: Callable[[Sequence[float]], Noise] = dropout_masks
        judge: Judge = partial(_drift, method.n_draws)
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
        judge = _clean_train if clean else partial(_drift, method.n_draws)
    else:
        raise TrainError(f"{method.name} is not a method that this version trains.")
    propose = _bayesian(highs, make, method.n_initial, seed)
    n = method.n_initial + method.n_iterations
    return _Plan(propose, n, method.n_initial, method.in_flight, judge)


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
        tried = [dict(zip(names, p, strict=True)) for p in points]
        if len(tried) < n_initial:  # A design spreads out: what came of the others does not matter.
            seen, waiting = [bo.Observation(point=p) for p in tried], []
        else:
            seen = [
                bo.Observation(point=p, values={"accuracy": (v,)} if math.isfinite(v) else {})
                for p, v in zip(tried, values, strict=False)
            ]
            waiting = tried[len(values) :]
        found = bo.suggest(problem, seen, pending=waiting, seed=seed)[0].point
        point = [float(found[n]) for n in names]
        return point, make(point)

    return propose
