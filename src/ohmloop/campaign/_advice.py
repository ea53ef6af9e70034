"""Status and stop advice: where a campaign stands and what one more batch is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ohmloop import bo
from ohmloop.campaign._config import Config
from ohmloop.campaign._observe import recipe_now
from ohmloop.campaign._reasons import number
from ohmloop.campaign._trials import State, Trial


@dataclass(frozen=True)
class Advice:
    """Go on, or stop.

    Attributes:
        verdict: "go on", "stop" or "look" (a person should look at something first).
        text: Why, in a sentence or two.
        worth: What the next batch may bring, one entry an objective.
    """

    verdict: str
    text: str
    worth: tuple[bo.Worth, ...] = ()


@dataclass(frozen=True)
class CampaignStatus:
    """Where a campaign stands.

    Attributes:
        name: Its name.
        counts: Status -> number of trials.
        n_done: Trials with a result.
        n_failed: Trials of which every device failed that could be judged.
        failures_by_stage: Stage -> trials that failed there.
        failure_rate: Share of failed trials in consecutive windows of results: (last trial, share).
        best: Objective -> (trial, measured mean) of the best usable trial by measurement.
        best_so_far: Objective -> best measured mean after each result.
        budget: What was used and what there is: name -> (used, total or None).
        pins: Variables held.
        open_trials: Trials that wait.
        advice: Whether to go on; None if it was not asked for.
    """

    name: str
    counts: dict[str, int]
    n_done: int
    n_failed: int
    failures_by_stage: dict[str, int]
    failure_rate: list[tuple[str, float]]
    best: dict[str, tuple[str, float]]
    best_so_far: dict[str, list[float | None]]
    budget: dict[str, tuple[float, float | None]]
    pins: dict[str, bo.Value]
    open_trials: tuple[Trial, ...]
    advice: Advice | None = field(default=None)


def status_of(config: Config, state: State, advice: Advice | None) -> CampaignStatus:
    """Return where a campaign stands."""
    done = sorted((t for t in state.trials.values() if t.records), key=lambda t: t.records[0].event)
    failed = [t for t in done if t.failed_at is not None]
    stages = Counter(str(t.failed_at) for t in failed)
    order = dict.fromkeys([s.name for s in config.stages] + sorted(stages))
    window = max(5, math.ceil(len(done) / 10))
    rate = [
        (
            done[min(k + window, len(done)) - 1].id,
            float(np.mean([t.failed_at is not None for t in done[k : k + window]])),
        )
        for k in range(0, len(done), window)
    ]
    best: dict[str, tuple[str, float]] = {}
    so_far: dict[str, list[float | None]] = {}
    for objective in config.objectives:
        sign = 1.0 if objective.goal == "maximise" else -1.0
        curve: list[float | None] = []
        for trial in done:
            mean = measured_mean(trial, objective.name)
            if mean is not None and trial.is_usable:
                if objective.name not in best or sign * mean > sign * best[objective.name][1]:
                    best[objective.name] = (trial.id, mean)
            curve.append(best[objective.name][1] if objective.name in best else None)
        so_far[objective.name] = curve
    return CampaignStatus(
        name=config.name,
        counts=dict(Counter(t.status for t in state.trials.values())),
        n_done=len(done),
        n_failed=len(failed),
        failures_by_stage={name: stages[name] for name in order if stages[name]},
        failure_rate=rate,
        best=best,
        best_so_far=so_far,
        budget=budget_used(config, done),
        pins=dict(state.pins),
        open_trials=tuple(t for t in state.trials.values() if t.is_open),
        advice=advice,
    )


def measured_mean(trial: Trial, name: str) -> float | None:
    """Return the mean over the devices of a trial that have the outcome; None without one."""
    values = [r.values[name] for r in trial.records if name in r.values]
    return float(np.mean(values)) if values else None


def amount(formula: str, config: Config, recipe: Mapping[str, Any]) -> float:
    """Return the value of a cost or time formula for one recipe; what does not exist there counts as 0."""
    columns: dict[str, Any] = {}
    for name, spec in config.variables.items():
        value = recipe.get(name)
        if spec.type == "categorical":
            columns[name] = np.array(["" if value is None else str(value)], dtype=object)
        else:
            columns[name] = np.array([0.0 if value is None else float(value)])
    return float(bo.Expression(formula).evaluate(columns)[0])


def budget_used(config: Config, done: Sequence[Trial]) -> dict[str, tuple[float, float | None]]:
    """Return what the finished trials used up, of what there is."""
    out: dict[str, tuple[float, float | None]] = {
        "trials": (float(len(done)), config.budget.trials)
    }
    for name, spec, total in (
        ("cost", config.cost, config.budget.cost),
        ("time", config.time, config.budget.time),
    ):
        if spec is not None:
            recipes = [recipe_now(config, t.recipe, f"trial {t.id}") for t in done]
            used = float(np.nansum([amount(spec.formula, config, r) for r in recipes]))
            out[f"{name} ({spec.unit})" if spec.unit else name] = (used, total)
    return out


def advise(config: Config, status: CampaignStatus, worth: Sequence[bo.Worth], q: int) -> Advice:
    """Return whether to go on, from what the next batch is expected to bring."""
    for name, (used, total) in status.budget.items():
        if total is not None and used >= total:
            return Advice(
                "stop",
                f"The budget is used up: {number(used)} of {number(total)} {name}.",
                tuple(worth),
            )
    if status.n_done >= 5 and status.n_failed == status.n_done:
        stage, count = max(status.failures_by_stage.items(), key=lambda item: item[1])
        return Advice(
            "look",
            f"All {status.n_done} trials failed, {count} of them at {stage}. Go on only if no step of "
            f"the process is broken: a control device of a known recipe would tell.",
            tuple(worth),
        )
    if not worth:
        return Advice("go on", "There are too few results to say what the next batch is worth.")
    parts, small = [], []
    for w in worth:
        unit = next(o.unit for o in config.objectives if o.name == w.objective)
        parts.append(
            f"the next {q} trials are expected to improve {w.objective} by {number(w.gain, unit)} "
            f"(90 %: {number(w.low)} to {number(w.high)}), with a chance of {100 * w.chance:.0f} % of any gain"
        )
        small.append(w.relative < config.suggest.stop_below)
    text = "; ".join(parts) + "."
    text = text[0].upper() + text[1:]
    if all(small):
        return Advice(
            "stop",
            text
            + f" That is below {100 * config.suggest.stop_below:g} % of the range seen so far.",
            tuple(worth),
        )
    return Advice("go on", text, tuple(worth))
