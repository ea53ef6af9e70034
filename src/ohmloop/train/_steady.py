"""`steady`, this project's method: docs/steady.md says what it is made of and what each part brings.

Noise of a fixed strength over the device's own grows over the first half of a training that takes all of the
budget. With ``search`` the noise is looked for, which takes a third of the budget from the network that is
kept:

1. Forks: settings of the noise start from the same weights (fresh ones; the pretrained network's, which then
   also teaches) and are trained for a tenth of a plain training's epochs: first the grid of one global level,
   no noise among it, then proposals by Bayesian optimisation. They are judged by mean and worst-tenth score on
   devices drawn from the law, on validation data, after the calibration that devices get; settings whose
   digital score lies more than ``clean_floor`` below the best with noise count as failed.
2. Rounds: half of them, plain training and the best noises, go on from their own weights to two tenths; plain
   training and the best noise to one whole training; one of the two to the end of the budget, plain training if
   it leads by more than ``tie``, or by more than a tenth of its objective; of equals the better digital score.
   Nothing is started again: the lineage that won is what is kept.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from ohmloop import bo
from ohmloop.errors import TrainError
from ohmloop.nn import nominal_batch_norm, pretrained_norms, score, takes_batch_statistics
from ohmloop.progress import ProgressEvent
from ohmloop.tasks import Metric
from ohmloop.train._folder import write_json
from ohmloop.train._loop import Diverged
from ohmloop.train._methods import Steady
from ohmloop.train._noise import Noise
from ohmloop.train._setting import Outcome, Setting, Trial, utility

BUDGET = 4.0
"""Plain trainings that the whole may cost; a teacher that is trained first and passes of ``match`` count."""
ROUNDS = (0.025, 0.05, 0.25)
"""Shares of the epochs that there are, after which settings are judged. The last round is long: noise slows
learning and pays late, so that early ones cannot tell what plain training and training with noise are worth."""
N_TRIALS = 6
SEARCHED = (0.375, 0.5)
"""Share of the epochs that go into settings other than the winner, at most: with so many settings, or with a
number that the user gives."""
GRID = (1.25, 0.0, 0.8, 2.0)
"""Strengths of the one-level grid, over the device's own noise; 0 is plain training. They are the first trials;
where an epoch is so much of a training that not all can be tried, the last are left out."""
STRENGTH = 0.8
RAMP = 0.5
"""Strength and growth without a search: chosen on validation data of five networks (bench/ramps.py)."""
MOST_TIE = 0.1
"""Share of its objective by which plain training may lead in a tie, at most. Where devices keep next to nothing
of any network (.008 of .33, and 0 of a noise that learned nothing), ``tie`` alone would call that level."""
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
    method = _settled(method)
    start, cost = _start(setting, method, folder)
    setting, method = _matched(setting, method, setting.fresh() if cost else start)
    recipe = setting.recipe
    total = _left(method, recipe.epochs, cost)
    long = recipe._replace(epochs=_epochs(method, recipe.epochs, total))
    taught = setting._replace(
        recipe=long,
        lesson=setting.lesson._replace(teacher=start if _is_taught(setting, method) else None),
    )
    if method.strength is None and setting.sigma:
        rounds = _rounds(_trials(method, total), total)
        outcome, noise, trials, epochs = _search(taught, method, start, folder, rounds)
        return outcome, noise, trials, cost + epochs / recipe.epochs
    noise = _noise(taught, method, _CENTRE)
    outcome = taught.train(_fork(setting, start), noise, folder / "main", method.name)
    return outcome, noise, (), cost + noise.passes * long.epochs / recipe.epochs


def _settled(method: Steady) -> Steady:
    """Return the method with strength and growth decided where nothing is searched."""
    strength, ramp = (None, 0.0) if method.search else (STRENGTH, RAMP)
    update = {
        "strength": strength if method.strength is None else method.strength,
        "ramp": ramp if method.ramp is None else method.ramp,
    }
    return method.model_copy(update=update)


def _matched(setting: Setting, method: Steady, fresh: nn.Module) -> tuple[Setting, Steady]:
    """Return both with what is matched, and whether batch norm is frozen for it, decided."""
    came = bool(pretrained_norms(fresh))
    if takes_batch_statistics(fresh) and not came:
        match = False  # Batch norm matches by itself.
    else:
        match = came if method.match is None else method.match
    update = {"match": match}
    return setting._replace(frozen_norm=match and came), method.model_copy(update=update)


def _left(method: Steady, unit: int, spent: float) -> int:
    """Return the epochs that the budget holds after a teacher; ``unit`` is those of one plain training."""
    return math.floor((BUDGET - spent) * unit / (2 if method.match else 1) + 1e-9)


def _rounds(n_trials: int, total: int) -> list[tuple[int, int]]:
    """Return the rounds of a search of ``total`` epochs: (settings that are trained on, until which epoch)."""
    first, second, last = (max(1, round(share * total)) for share in ROUNDS)
    rounds = {first: n_trials}
    rounds.setdefault(second, max(2, n_trials // 2))  # Few epochs make rounds fall together.
    rounds.setdefault(last, 2)
    return [(min(n, n_trials), stop) for stop, n in rounds.items()]


def _others(n_trials: int, total: int) -> int:
    """Return the epochs that go into settings other than the winner."""
    others, last = 0, 0
    for n, stop in _rounds(n_trials, total):
        others += (n - 1) * (stop - last)
        last = stop
    return others


def _trials(method: Steady, total: int) -> int:
    """Return how many settings are tried: fewer where an epoch is much of what there is."""
    n, most = method.n_trials or N_TRIALS, SEARCHED[method.n_trials is not None]
    while n > 1 and _others(n, total) > most * total + 1e-9:
        n -= 1
    return n


def _epochs(method: Steady, unit: int, total: int) -> int:
    """Return the epochs of the network that is kept: what is left after the other trials."""
    if method.length is not None:
        return max(1, round(method.length * unit))
    if method.strength is not None:
        return max(1, total)
    return max(1, total - _others(_trials(method, total), total))


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
    clip = 0.0 if value["clip"] >= NO_CLIP else value["clip"]
    distill = value["distill"] if taught else 0.0
    level = min(value["strength"] * setting.sigma, MAX_LEVEL)
    if not level:  # Plain training: what shapes the noise shapes nothing.
        return Noise(clip=clip, distill=distill, frozen_norm=setting.frozen_norm)
    return Noise(
        level=level,
        distribution="mixture" if value["mixture"] else "gaussian",
        mixture=value["mixture"],
        slope=value["slope"],
        first=value["first"],
        last=value["last"],
        ramp=method.ramp or 0.0,
        clip=clip,
        distill=distill,
        match=bool(method.match),
        frozen_norm=setting.frozen_norm,
    )


def _search(
    setting: Setting,
    method: Steady,
    start: nn.Module,
    folder: Path,
    rounds: Sequence[tuple[int, int]],
) -> tuple[Outcome, Noise, tuple[Trial, ...], float]:
    """Run the rounds, and return what `train_steady` does, with the cost in epochs of plain training."""
    n_trials, first = rounds[0]
    grid = GRID[:n_trials]
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
        settings=bo.Settings(n_initial=sum(strength > 0 for strength in grid)),
    )
    names = [v.name for v in open_to_search]
    run.points = [{**_CENTRE, "strength": strength} for strength in grid]
    end = setting.recipe.epochs  # One below the last round's ends the search early.
    first = min(first, end)
    alive = run.advance(range(len(grid)), first)
    best = run.selection.best_clean(alive)
    # The noise-free setting has no slope, no mixture: it says nothing about them.
    seen = [
        bo.Observation(
            point={n: run.points[t.number][n] for n in names},
            values={"robust": (t.objective,)} if math.isfinite(t.objective) else {},
            stages={"clean": (1, 0) if run.selection.is_clean(t, best) else (0, 1)},
        )
        for t in alive
        if t.noise.level
    ]
    n_more = n_trials - len(grid)
    found = bo.suggest(problem, seen, q=n_more, seed=setting.recipe.seed) if n_more else []
    run.points += [{**_CENTRE, **{n: float(s.point[n]) for n in names}} for s in found]
    alive += run.advance(range(len(grid), len(run.points)), first)
    trials, previous = list(alive), first
    cost = sum(first * t.noise.passes for t in alive)
    for n, stop in ((n, min(stop, end)) for n, stop in rounds[1:] if previous < end):
        alive = run.advance(run.selection.survivors(alive, n), stop)
        trials += alive
        cost += sum((stop - previous) * t.noise.passes for t in alive)
        previous = stop
    (number,) = run.selection.survivors(alive, 1)
    winner = next(t for t in alive if t.number == number)
    place = _place(folder, number)
    outcome = setting.train(_fork(setting, start), winner.noise, place, method.name)
    cost += (end - previous) * winner.noise.passes
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


class Selection(NamedTuple):
    """Which trials of a round go on.

    Attributes:
        method: Its ``clean_floor`` and ``tie``.
        metric: Of the scores.
    """

    method: Steady
    metric: Metric

    def best_clean(self, trials: Sequence[Trial]) -> float:
        """Return the best digital score of the trials with noise, NaN if all diverged."""
        sign = 1 if self.metric.is_higher_better else -1
        known = [t.clean * sign for t in trials if t.noise.level and math.isfinite(t.clean)]
        return max(known, default=float("nan")) * sign

    def is_clean(self, trial: Trial, best: float) -> bool:
        """Whether the digital network lost no more than the floor against the best with noise."""
        if not trial.noise.level:
            return math.isfinite(trial.clean)
        loss = utility(best, self.metric) - utility(trial.clean, self.metric)
        return loss <= self.method.clean_floor  # False for NaN: a diverged training.

    def survivors(self, trials: Sequence[Trial], n: int) -> list[int]:
        """Return the numbers of the ``n`` trials that go on, in order.

        The best by objective, of equals the best by digital score; those that lost too much digital score last.
        While two or more go on, the one without noise is among them; to be the only one it must lead by more
        than ``tie``, or by more than a tenth of its objective.
        """
        best = self.best_clean(trials)

        def key(trial: Trial) -> tuple[bool, float, float]:
            if not math.isfinite(trial.objective):
                return not self.is_clean(trial, best), math.inf, 0.0
            tie = 0.0 if trial.noise.level else self.method.tie
            if self.metric.is_higher_better:
                # Of an error, whose utility is a logarithm, any tie is a share.
                tie = min(tie, MOST_TIE * abs(trial.objective))
            clean = utility(trial.clean, self.metric) if math.isfinite(trial.clean) else -math.inf
            return not self.is_clean(trial, best), tie - trial.objective, -clean

        ranked = sorted(trials, key=key)
        if n > 1:
            ranked.sort(key=lambda t: bool(t.noise.level) or not self.is_clean(t, best))
        return sorted(t.number for t in ranked[:n])


class _Rounds:
    """The settings of one search and what becomes of them."""

    def __init__(self, setting: Setting, method: Steady, start: nn.Module, folder: Path) -> None:
        self._setting, self._method, self._folder = setting, method, folder
        self._shared = setting.executor.share((setting.sent(), method, start))
        self.selection = Selection(method, setting.lesson.metric)
        self.points: list[dict[str, float]] = []

    def advance(self, numbers: Sequence[int], stop: int) -> list[Trial]:
        """Train settings on to an epoch, each in its folder, and judge them: the trials of a round."""
        setting = self._setting
        done: dict[int, Trial] = {}
        label = f"steady, {stop} epochs"

        def note(trial: Trial) -> None:
            done[trial.number] = trial
            setting.progress(ProgressEvent(label, len(done), len(numbers)))

        jobs = []
        for number in numbers:
            noise = _noise(setting, self._method, self.points[number])
            place = _place(self._folder, number)
            if (place / _judged(stop)).exists():
                note(_kept(place, noise, number, stop))
            else:
                jobs.append((self._shared, noise, place, number, stop))
        for _, trial in setting.executor.each(_one, jobs):
            _keep(_place(self._folder, trial.number), trial)
            note(trial)
        return [done[number] for number in numbers]


def _place(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:02d}"


def _judged(stop: int) -> str:
    return f"judged-{stop:04d}.json"


def _keep(place: Path, trial: Trial) -> None:
    """Write what a trial came to; a search that was killed does not run it again."""
    place.mkdir(parents=True, exist_ok=True)
    write_json(
        place / _judged(trial.epochs),
        {
            "noise": trial.noise.model_dump(mode="json"),
            "objective": trial.objective if math.isfinite(trial.objective) else None,
            "clean": trial.clean if math.isfinite(trial.clean) else None,
        },
    )


def _kept(place: Path, noise: Noise, number: int, stop: int) -> Trial:
    kept = json.loads((place / _judged(stop)).read_text(encoding="utf-8"))
    if kept["noise"] != noise.model_dump(mode="json"):
        raise TrainError(
            f"{place} holds a trial of other noise ({Noise(**kept['noise'])}) than this search's "
            f"({noise}): another version began it. Give the run a new folder."
        )
    return Trial(noise, _number(kept["objective"]), stop, number, _number(kept["clean"]))


def _one(
    shared: tuple[Setting, Steady, nn.Module], noise: Noise, place: Path, number: int, stop: int
) -> Trial:
    """Train a setting on to an epoch and judge it: a trial, in whatever process."""
    setting, method, start = shared
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
    return Trial(noise, objective, stop, number, clean)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _clean(setting: Setting, model: nn.Module) -> float:
    """Return the digital validation score, batch norm's statistics being those of the nominal weights."""
    with nominal_batch_norm(model, setting.unlabelled, 256):
        return score(model, setting.lesson.validation, setting.lesson.metric)
