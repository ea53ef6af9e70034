"""Why a recipe is suggested: what is expected of it, what it is close to, and what matters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.bo._space import Table
from ohmloop.bo._variables import Categorical, Value

if TYPE_CHECKING:
    from ohmloop.bo._beliefs import Knowledge

Array = NDArray[np.float64]
Mode = Literal["design", "explore", "exploit"]

QUANTILE_90 = 1.6448536269514722  # of the standard normal: a 90 % interval is mean +- this


@dataclass(frozen=True)
class Prediction:
    """What an outcome is expected to be; the interval holds the recipe's true mean with 90 %."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One recipe to try, and why.

    Attributes:
        point: The recipe.
        mode: "design" (spread over the space, the model has too little), "explore" (the model is
            unsure here), or "exploit" (expected to beat the best).
        predictions: Objective -> expectation; empty before the model has outcomes.
        usable: Probability that a device passes every stage; None without any stage result.
        stages: Stage -> probability of passing it once it is reached.
        likeliest_failure: Stage at which a failing device most probably fails; None if unknown.
        nearest: Index of the most similar observation, None before the first.
        differences: Variable -> (value there, value here) against that observation.
        importance: Variable -> share of what the model says matters, adding up to 1; empty before it knows.
        gain: Expected improvement in the objective's unit times `usable` (one objective), None otherwise.
    """

    point: dict[str, Value]
    mode: Mode
    predictions: dict[str, Prediction] = field(default_factory=dict)
    usable: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    likeliest_failure: str | None = None
    nearest: int | None = None
    differences: dict[str, tuple[Value | None, Value | None]] = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)
    gain: float | None = None


def explain(knowledge: Knowledge, row: Array, *, has_gain: bool) -> Suggestion:
    """Return a suggestion of a row; ``has_gain`` where expected improvement chose it, not the design."""
    problem, space = knowledge.problem, knowledge.problem.space
    one = row[None, :]
    stages = {name: float(p[0]) for name, p in knowledge.stage_probabilities(one).items()}
    usable = math.prod(stages.values()) if stages else None
    failure, reached, worst = None, 1.0, -1.0
    for stage in problem.stages:
        if stage in stages:
            here = reached * (1.0 - stages[stage])
            if here > worst:
                failure, worst = stage, here
            reached *= stages[stage]
    predictions, mode = {}, "design"
    for objective in problem.objectives:
        if objective.name in knowledge.models:
            predictions[objective.name] = predict_one(knowledge, objective.name, one)
    gain = None
    if has_gain:
        mode, gain = _mode_and_gain(knowledge, one, usable)
    nearest, differences = _nearest(knowledge, row)
    return Suggestion(
        point=space.to_points(one)[0],
        mode=mode,  # type: ignore[arg-type]  # one of the three words
        predictions=predictions,
        usable=usable,
        stages=stages,
        likeliest_failure=failure,
        nearest=nearest,
        differences=differences,
        importance=importance(knowledge),
        gain=gain,
    )


def predict_one(knowledge: Knowledge, name: str, one: Table) -> Prediction:
    """Return the median and the 90 % interval of an outcome at a single row."""
    mean, std = knowledge.predict(name, one)
    ends = knowledge.warps[name].inverse(
        mean[0] + std[0] * np.array([-QUANTILE_90, 0.0, QUANTILE_90])
    )
    return Prediction(float(ends[1]), float(min(ends[0], ends[2])), float(max(ends[0], ends[2])))


def _mode_and_gain(
    knowledge: Knowledge, one: Table, usable: float | None
) -> tuple[str, float | None]:
    """Exploit if the expectation itself beats the best of what was measured, else explore."""
    wins = []
    for objective in knowledge.problem.objectives:
        best = best_mean(knowledge, objective.name)
        mean, _ = knowledge.predict(objective.name, one)
        wins.append(best is not None and mean[0] >= best)
    gain = None
    if len(knowledge.problem.objectives) == 1:
        name = knowledge.problem.objectives[0].name
        gain = expected_gain(knowledge, name, *knowledge.predict(name, one))
        gain = None if gain is None else gain * (1.0 if usable is None else usable)
    return ("exploit" if any(wins) else "explore"), gain


def best_mean(knowledge: Knowledge, name: str) -> float | None:
    """Return the best believed value among usable recipes of this campaign, on the fitted scale."""
    rows = [k for k in knowledge.measured[name] if knowledge.usable[k]]
    if not rows or name not in knowledge.models:
        return None
    return float(knowledge.predict(name, knowledge.table[rows])[0].max())


def expected_gain(knowledge: Knowledge, name: str, mean: Array, std: Array) -> float | None:
    """Return the expected improvement of one recipe over the best, in the outcome's own unit."""
    best = best_mean(knowledge, name)
    if best is None:
        return None
    from scipy.stats import norm

    levels = (np.arange(64) + 0.5) / 64
    warp = knowledge.warps[name]
    drawn = warp.sign * warp.inverse(mean[0] + std[0] * norm.ppf(levels))
    now = warp.sign * warp.inverse(np.array([best]))[0]
    return float(np.maximum(drawn - now, 0.0).mean())


def _nearest(
    knowledge: Knowledge, row: Array
) -> tuple[int | None, dict[str, tuple[Value | None, Value | None]]]:
    own = np.flatnonzero(knowledge.own)
    if not len(own):
        return None, {}
    space = knowledge.problem.space
    here, _ = space.features(row[None, :])
    there, _ = space.features(knowledge.table[own])
    k = int(own[((there - here) ** 2).sum(1).argmin()])
    a, b = space.to_points(knowledge.table[[k]])[0], space.to_points(row[None, :])[0]
    return k, {n: (a.get(n), b.get(n)) for n in space.names if a.get(n) != b.get(n)}


def importance(knowledge: Knowledge) -> dict[str, float]:
    """Return variable -> share of the model's variation that it explains alone (main effect).

    The variance, over a variable's values, of the model's mean averaged over the other variables, summed over
    objectives and stages and normalised; Saltelli et al., Global Sensitivity Analysis (2008), section 1.2.
    """
    if knowledge.importance is not None:
        return knowledge.importance
    space, rng = knowledge.problem.space, np.random.default_rng(0)

    def effects_of(grid: Table) -> list[Array]:
        means = [knowledge.predict(name, grid)[0] for name in knowledge.models]
        return means + list(knowledge.stage_probabilities(grid).values())

    effects = np.zeros(len(space.variables))
    base = space.sample(64, rng)
    n_levels = 8
    for k, variable in enumerate(space.variables):
        if isinstance(variable, Categorical):
            levels = np.arange(min(len(variable.options), 12), dtype=np.float64)
        else:
            levels = np.unique(variable.from_unit((np.arange(n_levels) + 0.5) / n_levels))
        if len(levels) < 2:
            continue
        there = base[~np.isnan(base[:, k])]
        if not len(there):
            continue
        grid = np.repeat(there, len(levels), 0)
        grid[:, k] = np.tile(levels, len(there))
        for means in effects_of(grid):
            effects[k] += means.reshape(len(there), len(levels)).mean(0).var()
    total = effects.sum()
    shares = effects / total if total > 1e-12 else effects[:0]
    # The same for every suggestion of a batch.
    knowledge.importance = dict(zip(space.names, shares.tolist(), strict=False))
    return knowledge.importance
