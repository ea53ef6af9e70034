"""What one more batch is worth, and how well the model predicts: the numbers behind "stop or go on"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ohmloop.bo._problem import Observation, Problem
from ohmloop.bo._reasons import Suggestion, best_mean, explain
from ohmloop.bo._suggest import _knowledge
from ohmloop.bo._variables import Value
from ohmloop.errors import SearchError


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What the next batch may bring, for one objective.

    Attributes:
        objective: Its name.
        best: Believed value of the best usable recipe so far, in the objective's unit; None before one.
        gain: Expected improvement of the best by the batch, in the objective's unit.
        low: 5 % quantile of that improvement.
        high: 95 % quantile.
        chance: Probability that the batch improves the best at all.
        relative: ``gain`` over the range of usable outcomes seen so far.
    """

    objective: str
    best: float | None
    gain: float
    low: float
    high: float
    chance: float
    relative: float


def worth(
    problem: Problem,
    observations: Sequence[Observation],
    batch: Sequence[Suggestion],
    *,
    seed: int = 0,
    n_draws: int = 2000,
) -> list[Worth]:
    """Return what a batch of suggestions is worth, by joint draws of outcomes and failures.

    Returns:
        One entry an objective; empty before any outcome is known.
    """
    knowledge = _knowledge(problem, observations, seed)
    if not batch or not knowledge.has_goal:
        return []
    import torch

    from ohmloop.bo._surrogate import quiet

    table = problem.space.to_table([s.point for s in batch])
    rng = np.random.default_rng([seed, len(observations)])
    works = rng.random((n_draws, len(batch))) < knowledge.usable_probability(table)
    out = []
    for objective in problem.objectives:
        name = objective.name
        best = best_mean(knowledge, name)
        if best is None:
            continue
        with quiet(seed), torch.no_grad():
            posterior = knowledge.models[name].posterior(
                torch.as_tensor(knowledge.coordinates(table))
            )
            draws = posterior.rsample(torch.Size([n_draws]))[..., 0].cpu().numpy()
        warp = knowledge.warps[name]
        now = warp.sign * warp.inverse(np.array([best]))[0]
        reached = np.where(works, warp.sign * warp.inverse(draws), -np.inf).max(1)
        gains = np.maximum(reached - now, 0.0)
        seen = [
            np.mean(knowledge.observations[k].values[name])
            for k in knowledge.measured[name]
            if knowledge.usable[k]
        ]
        spread = float(np.ptp(seen)) if len(seen) > 1 else 0.0
        out.append(
            Worth(
                objective=name,
                best=float(warp.sign * now),
                gain=float(gains.mean()),
                low=float(np.quantile(gains, 0.05)),
                high=float(np.quantile(gains, 0.95)),
                chance=float((gains > 0).mean()),
                relative=float(gains.mean() / spread) if spread > 0 else float("inf"),
            )
        )
    return out


def rank_correlation(problem: Problem, observations: Sequence[Observation], name: str) -> float:
    """Return Spearman's correlation of an outcome with its leave-one-out prediction.

    It says whether the recipe predicts the outcome at all. Hyperparameters are those of all data.

    Raises:
        SearchError: If fewer than three recipes have the outcome.
    """
    from scipy.stats import spearmanr

    from ohmloop.bo._surrogate import leave_one_out, quiet

    knowledge = _knowledge(problem, observations, 0)
    if name not in knowledge.models or len(knowledge.measured[name]) < 3:
        raise SearchError(f'"{name}" was measured on fewer than three recipes.')
    with quiet(0):
        predicted = leave_one_out(knowledge.models[name])
    rows = [k for k, o in enumerate(knowledge.observations) if name in o.values]
    own = np.array([knowledge.own[k] for k in rows])
    actual = np.array([np.mean(knowledge.observations[k].values[name]) for k in rows])
    sign = knowledge.warps[name].sign
    rho = spearmanr(sign * actual[own], predicted[own]).statistic
    return float(rho)


def best_recipe(problem: Problem, observations: Sequence[Observation]) -> int | None:
    """Return the index of the usable recipe believed best (one objective), None before there is one.

    With noise the luckiest measurement is not the best recipe: the model's mean decides.
    """
    if len(problem.objectives) != 1:
        raise SearchError("the best recipe needs exactly one objective; see pareto for several.")
    name = problem.objectives[0].name
    knowledge = _knowledge(problem, observations, 0)
    rows = [k for k in knowledge.measured[name] if knowledge.usable[k]]
    if not rows:
        return None
    if name not in knowledge.models:
        return int(rows[0])
    return int(rows[int(knowledge.predict(name, knowledge.table[rows])[0].argmax())])


def pareto(problem: Problem, observations: Sequence[Observation]) -> list[int]:
    """Return indices of usable recipes that no other beats in every objective, by measured means."""
    names = [o.name for o in problem.objectives]
    rows = [
        k
        for k, o in enumerate(observations)
        if o.is_usable and not o.source and all(n in o.values for n in names)
    ]
    signs = [1.0 if o.maximise else -1.0 for o in problem.objectives]
    Y = np.array(
        [
            [s * np.mean(observations[k].values[n]) for s, n in zip(signs, names, strict=True)]
            for k in rows
        ]
    ).reshape(len(rows), len(names))
    return [k for i, k in enumerate(rows) if not ((Y >= Y[i]).all(1) & (Y > Y[i]).any(1)).any()]


def predict(
    problem: Problem, observations: Sequence[Observation], point: Mapping[str, Value]
) -> Suggestion:
    """Return what the model expects of a recipe of one's own, in the form of a suggestion."""
    from ohmloop.bo._surrogate import quiet

    knowledge = _knowledge(problem, observations, 0)
    table = problem.space.to_table([point])
    with quiet(0):
        return explain(knowledge, table[0], has_gain=knowledge.has_goal)
