"""How each method of a replay chooses the next recipes of the pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ohmloop import bo
from ohmloop.campaign._replay_table import ReplayTable
from ohmloop.errors import CampaignError

METHODS = ("ohmloop", "random", "optuna-tpe", "optuna-gp")
ABLATIONS: dict[str, dict[str, Any]] = {
    "ohmloop-no-feasibility": {"feasibility": False},
    "ohmloop-no-replicate-noise": {"replicate_noise": False},
    "ohmloop-no-descriptors": {"descriptors": False},
}

Ask = Callable[[ReplayTable, Sequence[int], int, int], list[int]]


def _ask_random(table: ReplayTable, tried: Sequence[int], q: int, seed: int) -> list[int]:
    left = sorted(set(range(len(table.observations))) - set(tried))
    rng = np.random.default_rng([seed, len(tried), 1])
    return [int(k) for k in rng.permutation(left)[:q]]


def _ask_ohmloop(
    table: ReplayTable, tried: Sequence[int], q: int, seed: int, **overrides: Any
) -> list[int]:
    if "feasibility" in overrides:
        overrides = overrides | {"failure_budget": None}
    known = set(tried)
    chosen = bo.suggest(
        _problem(table, overrides),
        [table.observations[k] for k in tried],
        q,
        candidates=[p for k, p in enumerate(table.points) if k not in known],
        seed=seed,
    )
    index = {tuple(p.items()): k for k, p in enumerate(table.points)}
    return [index[tuple(s.point.items())] for s in chosen]


def _problem(table: ReplayTable, overrides: Mapping[str, Any]) -> bo.Problem:
    spec = table.config.replay
    assert spec is not None
    return table.config.problem(
        **{"n_initial": spec.initial, "n_total": spec.experiments, **overrides}
    )


def _ask_optuna(
    kind: str, table: ReplayTable, tried: Sequence[int], q: int, seed: int
) -> list[int]:
    """Optuna's sampler proposes in the space of the variables; the nearest recipe left is taken."""
    try:
        import optuna
    except ImportError as error:
        raise CampaignError(
            "comparing with Optuna needs it: pip install 'ohmloop[peers]'."
        ) from error
    import warnings

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = _problem(table, {})
    distributions = {v.name: _distribution(v) for v in problem.space.variables}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = table.config.replay.initial if table.config.replay else 5
        sampler: Any
        if kind == "tpe":
            sampler = optuna.samplers.TPESampler(
                seed=seed * 1000 + len(tried), n_startup_trials=start, constant_liar=True
            )
        else:
            sampler = optuna.samplers.GPSampler(
                seed=seed * 1000 + len(tried), n_startup_trials=start, deterministic_objective=False
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        outcome = table.outcome()
        for k in tried:
            study.add_trial(
                optuna.trial.create_trial(
                    params=filled(problem.space, table.points[k]),
                    distributions=distributions,
                    value=float(outcome[k]),
                )
            )
        left = [k for k in range(len(table.observations)) if k not in set(tried)]
        chosen: list[int] = []
        for _ in range(min(q, len(left))):
            wanted = study.ask(distributions).params
            chosen.append(
                _nearest(problem.space, wanted, table, [k for k in left if k not in chosen])
            )
    return chosen


def _distribution(variable: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(variable, bo.Categorical):
        return CategoricalDistribution(variable.options)
    if isinstance(variable, bo.Ordinal):
        return FloatDistribution(variable.levels[0], variable.levels[-1])
    return FloatDistribution(variable.low, variable.high, log=variable.log)


def filled(space: bo.Space, point: bo.Point) -> dict[str, Any]:
    """Return a recipe with a value for every variable, as Optuna needs: the middle for an inactive one."""
    out: dict[str, Any] = {}
    for variable in space.variables:
        value = point.get(variable.name)
        if value is None:
            value = (
                variable.options[0]
                if isinstance(variable, bo.Categorical)
                else float(variable.from_unit(np.array([0.5]))[0])
            )
        out[variable.name] = value
    return out


def _nearest(space: bo.Space, wanted: bo.Point, table: ReplayTable, left: Sequence[int]) -> int:
    goal, _ = space.features(space.to_table([wanted]), use_descriptors=False)
    there, _ = space.features(
        space.to_table([table.points[k] for k in left]), use_descriptors=False
    )
    return int(left[int(((there - goal) ** 2).sum(1).argmin())])


def method_named(name: str) -> Ask:
    if name == "random":
        return _ask_random
    if name == "ohmloop":
        return _ask_ohmloop
    if name in ABLATIONS:
        return partial(_ask_ohmloop, **ABLATIONS[name])
    if name.startswith("optuna-") and name in METHODS:
        return partial(_ask_optuna, name.removeprefix("optuna-"))
    raise CampaignError(
        f'there is no method "{name}"; methods: {", ".join([*METHODS, *ABLATIONS])}.'
    )
