"""`steady`, this project's method: docs/steady.md says what it is made of and what each part brings.

1. Forks: settings of the noise start from the same weights (fresh ones; the pretrained network's, which then
   also teaches) and are trained for a tenth of a plain training's epochs: first the grid of one global level,
   then proposals by Bayesian optimisation. They are judged by mean and worst-tenth score on devices drawn from
   the law, on validation data, after the calibration that devices get; settings whose digital score lies more
   than ``clean_floor`` below the best count as failed.
2. Rounds: the better half goes on from its own weights to two tenths, the better half of these to four
   tenths, the winner to ``length`` trainings. Nothing is started again: the lineage that won is what is kept.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ohmloop import bo
from ohmloop.nn import has_batch_norm, nominal_batch_norm, score
from ohmloop.progress import ProgressEvent, silent
from ohmloop.train._folder import write_json
from ohmloop.train._loop import Diverged
from ohmloop.train._methods import Steady
from ohmloop.train._noise import Noise
from ohmloop.train._setting import Outcome, Setting, Trial, utility

BUDGET = 4.0
"""Plain trainings that the whole search may cost; passes of ``match`` count."""
ROUNDS = (0.1, 0.2, 0.4)
"""Plain trainings after which settings are judged; the winner goes on to ``length`` of them."""
GRID = (0.8, 1.25, 2.0)
"""Strengths of the one-level grid, over the device's own noise; always among the trials."""
MAX_LEVEL = 2.5
NO_CLIP = 6.0
"""A clip at so many deviations cuts hardly anything: the search's "none"."""

_VARIABLES = (
    bo.Real(name="strength", low=0.5, high=3.0, log=True),
    bo.Real(name="slope", low=-1.5, high=1.5),
    bo.Real(name="first", low=0.25, high=1.5),
    bo.Real(name="last", low=0.25, high=1.5),
    bo.Real(name="mixture", low=0.0, high=1.0),
    bo.Real(name="clip", low=1.5, high=NO_CLIP),
    bo.Real(name="distill", low=0.0, high=0.95),
)
_CENTRE = {
    "strength": 1.25,
    "slope": 0.0,
    "first": 1.0,
    "last": 1.0,
    "mixture": 0.0,
    "clip": NO_CLIP,
    "distill": 0.7,
}
"""The one-level setting: what the grid holds, and what is not searched for."""


def train_steady(
    setting: Setting, method: Steady, folder: Path | None
) -> tuple[Outcome, Noise, tuple[Trial, ...], float]:
    """Return the network, the settings that won, all trials, and the cost in trainings."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ohmloop-") as scratch:
            return train_steady(setting, method, Path(scratch))
    start, cost = _start(setting, method, folder)
    if has_batch_norm(start):
        method = method.model_copy(update={"match": False})  # Batch norm matches by itself.
    recipe = setting.recipe
    long = recipe._replace(epochs=_epochs(method, recipe.epochs))
    taught = setting._replace(
        recipe=long,
        lesson=setting.lesson._replace(teacher=start if _is_taught(setting, method) else None),
    )
    if method.strength is None:
        return _search(taught, method, start, folder, cost, recipe.epochs)
    noise = _noise(taught, method, _CENTRE)
    outcome = taught.train(_fork(setting, start), noise, folder / "main", method.name)
    return outcome, noise, (), cost + noise.passes * long.epochs / recipe.epochs


def _stops(unit: int) -> list[int]:
    """Return the epochs after which settings are judged; ``unit`` is those of one plain training."""
    return sorted({max(1, round(share * unit)) for share in ROUNDS})


def _others(n_trials: int, unit: int) -> int:
    """Return the epochs that go into settings other than the winner."""
    others, alive, last = 0, n_trials, 0
    for stop in _stops(unit):
        others += (alive - 1) * (stop - last)
        alive, last = max(1, alive // 2), stop
    return others


def _trials(method: Steady, unit: int) -> int:
    """Return how many settings are tried: fewer, down to the grid, where an epoch is much of a training."""
    passes = 2 if method.match else 1
    n = method.n_trials
    while n > len(GRID) and _others(n, unit) + unit > BUDGET * unit / passes:
        n -= 1
    return n


def _epochs(method: Steady, unit: int) -> int:
    """Return the epochs of the network that is kept: what the budget leaves after the other trials."""
    passes = 2 if method.match else 1
    if method.strength is not None or method.length is not None:
        return max(1, round((2.8 if method.length is None else method.length) * unit))
    left = round(BUDGET * unit / passes) - _others(_trials(method, unit), unit)
    return max(_stops(unit)[-1], left)


def _is_taught(setting: Setting, method: Steady) -> bool:
    return setting.task.is_pretrained(setting.model) if method.teacher is None else method.teacher


def _start(setting: Setting, method: Steady, folder: Path) -> tuple[nn.Module, float]:
    """Return the network that forks start from, in eval mode, and its cost."""
    model = setting.fresh()
    if not _is_taught(setting, method) or setting.task.is_pretrained(setting.model):
        return model.eval(), 0.0
    return setting.train(model, Noise(), folder / "teacher", "teacher").model.eval(), 1.0


def _fork(setting: Setting, start: nn.Module) -> nn.Module:
    model = setting.fresh()
    model.load_state_dict(start.state_dict())
    return model


def _noise(setting: Setting, method: Steady, point: dict[str, float]) -> Noise:
    fixed = method.model_dump(exclude_none=True)
    value = {key: float(fixed.get(key, x)) for key, x in point.items()}  # What is fixed stays so.
    taught = setting.lesson.teacher is not None
    return Noise(
        level=min(value["strength"] * setting.sigma, MAX_LEVEL),
        distribution="mixture" if value["mixture"] else "gaussian",
        mixture=value["mixture"],
        slope=value["slope"],
        first=value["first"],
        last=value["last"],
        ramp=method.ramp,
        clip=0.0 if value["clip"] >= NO_CLIP else value["clip"],
        distill=value["distill"] if taught else 0.0,
        match=method.match,
    )


def _search(
    setting: Setting,
    method: Steady,
    start: nn.Module,
    folder: Path,
    cost: float,
    unit: int,
) -> tuple[Outcome, Noise, tuple[Trial, ...], float]:
    """Run the rounds; ``unit`` is the epochs of one plain training."""
    run = _Rounds(setting, method, start, folder)
    open_to_search = tuple(
        v
        for v in _VARIABLES
        if getattr(method, v.name) is None
        and (v.name != "distill" or setting.lesson.teacher is not None)
    )
    problem = bo.Problem(
        space=bo.Space(open_to_search),
        objectives=(bo.Objective(name="robust"),),
        stages=("clean",),
        settings=bo.Settings(n_initial=len(GRID)),
    )
    names = [v.name for v in open_to_search]
    run.points = [{**_CENTRE, "strength": strength} for strength in GRID]
    # A length below the last round's ends the search early.
    end = setting.recipe.epochs
    stops = sorted({min(stop, end) for stop in _stops(unit)})
    alive = run.advance(range(len(GRID)), stops[0])
    best = run.best_clean(alive)
    seen = [
        bo.Observation(
            point={n: run.points[t.number][n] for n in names},
            values={"robust": (t.objective,)} if math.isfinite(t.objective) else {},
            stages={"clean": (1, 0) if run.is_clean(t, best) else (0, 1)},
        )
        for t in alive
    ]
    n_more = _trials(method, unit) - len(GRID)
    found = bo.suggest(problem, seen, q=n_more, seed=setting.recipe.seed) if n_more else []
    run.points += [{**_CENTRE, **{n: float(s.point[n]) for n in names}} for s in found]
    alive += run.advance(range(len(GRID), len(run.points)), stops[0])
    trials = list(alive)
    cost += sum(stops[0] / unit * t.noise.passes for t in alive)
    for previous, stop in itertools.pairwise(stops):
        ranked = run.ranked(alive)
        alive = run.advance(sorted(t.number for t in ranked[: max(1, len(ranked) // 2)]), stop)
        trials += alive
        cost += sum((stop - previous) / unit * t.noise.passes for t in alive)
    winner = run.ranked(alive)[0]
    place = _place(folder, winner.number)
    outcome = setting.train(_fork(setting, start), winner.noise, place, method.name)
    cost += (end - stops[-1]) / unit * winner.noise.passes
    return outcome, winner.noise, tuple(trials), cost


def rank_correlation(trials: Sequence[Trial]) -> dict[str, tuple[float, int]]:
    """Return how well earlier rounds rank later ones: "6 to 12 epochs" -> (Spearman, settings in both).

    Rounds that share fewer than three settings with a finite objective, or whose objectives are all equal, say
    nothing and are left out.
    """
    from scipy.stats import spearmanr

    stops = sorted({t.epochs for t in trials})
    out: dict[str, tuple[float, int]] = {}
    for k, early in enumerate(stops):
        for late in stops[k + 1 :]:
            known = [t for t in trials if math.isfinite(t.objective)]
            a = {t.number: t.objective for t in known if t.epochs == early}
            b = {t.number: t.objective for t in known if t.epochs == late}
            both = sorted(a.keys() & b.keys())
            # Ranks of equal values have no correlation.
            if len(both) >= 3 and all(len({c[n] for n in both}) > 1 for c in (a, b)):
                rho = float(spearmanr([a[n] for n in both], [b[n] for n in both]).statistic)
                out[f"{early} to {late} epochs"] = (rho, len(both))
    return out


class _Rounds:
    """The settings of one search and what becomes of them."""

    def __init__(self, setting: Setting, method: Steady, start: nn.Module, folder: Path) -> None:
        self._setting, self._method, self._start, self._folder = setting, method, start, folder
        self.points: list[dict[str, float]] = []

    def best_clean(self, trials: Sequence[Trial]) -> float:
        """Return the best digital score of some trials, NaN if all diverged."""
        sign = 1 if self._setting.lesson.metric.is_higher_better else -1
        known = [t.clean * sign for t in trials if math.isfinite(t.clean)]
        return max(known, default=float("nan")) * sign

    def is_clean(self, trial: Trial, best: float) -> bool:
        """Whether the digital network lost no more than the floor against the best of its round."""
        metric = self._setting.lesson.metric
        loss = utility(best, metric) - utility(trial.clean, metric)
        return loss <= self._method.clean_floor  # False for NaN: a diverged training.

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return trials from best to worst; those that lost too much digital score come last."""
        best = self.best_clean(trials)

        def key(trial: Trial) -> tuple[bool, float]:
            finite = math.isfinite(trial.objective)
            return (not self.is_clean(trial, best), -trial.objective if finite else math.inf)

        return sorted(trials, key=key)

    def advance(self, numbers: Sequence[int], stop: int) -> list[Trial]:
        """Train settings on to an epoch, each in its folder, and judge them; side by side if asked for."""
        setting = self._setting
        jobs = [
            (setting, self._method, self._start, self._folder, self.points[number], number, stop)
            for number in numbers
        ]
        out: list[Trial] = []
        label = f"steady, {stop} epochs"
        if setting.workers <= 1 or len(jobs) < 2:
            for job in jobs:
                out.append(_one(*job))
                setting.progress(ProgressEvent(label, len(out), len(jobs)))
            return out
        context = multiprocessing.get_context("spawn")
        quiet = [(setting._replace(progress=silent), *job[1:]) for job in jobs]
        with ProcessPoolExecutor(
            min(setting.workers, len(jobs)), mp_context=context, initializer=one_thread
        ) as pool:
            for trial in pool.map(_unpack, quiet):
                out.append(trial)
                setting.progress(ProgressEvent(label, len(out), len(jobs)))
        return out


def _place(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:02d}"


def one_thread() -> None:
    """Let a worker compute on one core, so that sums add up alike however many work side by side."""
    torch.set_num_threads(1)


_Job = tuple[Setting, Steady, nn.Module, Path, dict[str, float], int, int]


def _unpack(job: _Job) -> Trial:
    return _one(*job)


def _one(
    setting: Setting,
    method: Steady,
    start: nn.Module,
    folder: Path,
    point: dict[str, float],
    number: int,
    stop: int,
) -> Trial:
    noise = _noise(setting, method, point)
    place = _place(folder, number)
    judged = place / f"judged-{stop:04d}.json"
    if judged.exists():
        kept = json.loads(judged.read_text(encoding="utf-8"))
        return Trial(noise, _number(kept["objective"]), stop, number, _number(kept["clean"]))
    metric = setting.lesson.metric
    try:
        model = setting.train(
            _fork(setting, start), noise, place, f"steady {number}", until=stop
        ).model
    except Diverged:
        objective = clean = float("nan")  # Diverged: a result, and a bad one.
    else:
        fleets = setting.devices(model, method.n_draws)
        objective = float(
            np.mean([(utility(f.mean, metric) + utility(f.worst, metric)) / 2 for f in fleets])
        )
        if not math.isfinite(
            objective
        ):  # An endless perplexity; the file of a round holds no infinity.
            objective = float("nan")
        clean = _clean(setting, model)
    place.mkdir(parents=True, exist_ok=True)
    write_json(
        judged,
        {
            "noise": noise.model_dump(mode="json"),
            "objective": objective if math.isfinite(objective) else None,
            "clean": clean if math.isfinite(clean) else None,
        },
    )
    return Trial(noise, objective, stop, number, clean)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _clean(setting: Setting, model: nn.Module) -> float:
    """Return the digital validation score, batch norm's statistics being those of the nominal weights."""
    with nominal_batch_norm(model, setting.unlabelled, 256):
        return score(model, setting.lesson.validation, setting.lesson.metric)
