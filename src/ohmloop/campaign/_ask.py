"""Asking the optimiser: what is held, what waits, what was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ohmloop import bo
from ohmloop.campaign._config import Config
from ohmloop.campaign._observe import observe, recipe_now, retired_options, typed
from ohmloop.campaign._reasons import reasons_of
from ohmloop.campaign._trials import Recipe, State
from ohmloop.errors import CampaignError, SearchError


def problem_now(config: Config, state: State) -> bo.Problem:
    """Return the search as the optimiser sees it, with options that only old trials have."""
    recipes = [t.recipe for t in state.trials.values()]
    recipes += [row["recipe"] for rows in state.earlier.values() for row in rows]
    return config.problem(retired_options(config, recipes))


def pins_now(config: Config, state: State) -> Recipe:
    """Return the pins whose variables the settings still have."""
    return {k: v for k, v in state.pins.items() if k in config.variables}


def refused(config: Config, state: State, withdrawn: Sequence[str] = ()) -> list[Recipe]:
    """Return recipes not to propose again: rejected ones, and those rolled away since the last result."""
    last_result = max((r.event for t in state.trials.values() for r in t.records), default=0)
    rolled = {
        name
        for event in state.history
        if event.kind == "withdrawn" and event.id > last_result and event.id not in state.undone
        for name in event.data["trials"]
    }
    return [
        recipe_now(config, t.recipe, f"trial {t.id}")
        for t in state.trials.values()
        if t.status == "rejected"
        or t.id in withdrawn
        or (t.status == "withdrawn" and t.id in rolled)
    ]


def held_values(
    config: Config, state: State, pin: Mapping[str, Any], context: Mapping[str, Any]
) -> Recipe:
    """Return what every recipe of a batch has: the campaign's pins, its own, and the context.

    Raises:
        CampaignError: If a variable is unknown, or a context variable has no value.
    """
    strange = [name for name in context if name in config.variables]
    strange = [name for name in strange if config.variables[name].role != "context"]
    if strange:
        raise CampaignError(f'"{strange[0]}" is chosen, not measured: hold it with a pin instead.')
    held = {**pins_now(config, state), **typed(config, pin), **typed(config, context)}
    missing = [n for n, v in config.variables.items() if v.role == "context" and n not in held]
    if missing:
        told = " ".join(f"--context {name}=..." for name in missing)
        raise CampaignError(
            f"{', '.join(missing)}: measured on the day, not chosen. State the present value: {told}"
        )
    return held


def ask(
    config: Config,
    state: State,
    q: int,
    held: Recipe,
    *,
    seed: int | None = None,
    withdrawn: Sequence[str] = (),
    compute: str = "cpu",
) -> list[dict[str, Any]]:
    """Return ``q`` recipes with reasons, as plain data for the event log.

    Raises:
        CampaignError: If no recipe is left.
    """
    observations, names = observe(config, state)
    pending = [
        recipe_now(config, t.recipe, f"trial {t.id}")
        for t in state.trials.values()
        if t.is_open and t.id not in withdrawn
    ]
    try:
        chosen = bo.suggest(
            problem_now(config, state),
            observations,
            q,
            pending=pending,
            rejected=refused(config, state, withdrawn),
            fixed=held,
            seed=config.suggest.seed if seed is None else seed,
            compute=compute,
        )
    except SearchError as error:
        raise CampaignError(str(error)) from error
    return [{"recipe": s.point, "reasons": reasons_of(s, names)} for s in chosen]
