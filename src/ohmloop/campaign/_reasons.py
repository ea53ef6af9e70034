"""Reasons in words that a fabricator reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ohmloop import bo
from ohmloop.campaign._config import Config

MODE = {
    "design": "spreads the first trials over the space; the model knows too little yet",
    "explore": "explores: the model is unsure here, and it may be better than the best so far",
    "exploit": "exploits: expected to be better than the best so far",
}


def reasons_of(suggestion: bo.Suggestion, names: Sequence[str]) -> dict[str, Any]:
    """Return a suggestion's reasons as plain data for the event log.

    Args:
        suggestion: From the optimiser.
        names: Name of each observation that it saw.
    """
    return {
        "mode": suggestion.mode,
        "predictions": {
            name: {"median": p.median, "low": p.low, "high": p.high}
            for name, p in suggestion.predictions.items()
        },
        "usable": suggestion.usable,
        "stages": suggestion.stages,
        "likeliest_failure": suggestion.likeliest_failure,
        "nearest": None if suggestion.nearest is None else names[suggestion.nearest],
        "differences": {name: list(pair) for name, pair in suggestion.differences.items()},
        "importance": suggestion.importance,
        "gain": suggestion.gain,
    }


def number(value: Any, unit: str = "") -> str:
    """Return a value as a person writes it."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()


def recipe_text(config: Config, recipe: Mapping[str, Any]) -> str:
    """Return a recipe on one line."""
    parts = []
    order = {name: k for k, name in enumerate(config.variables)}
    for name, value in sorted(recipe.items(), key=lambda item: order.get(item[0], len(order))):
        unit = config.variables[name].unit if name in config.variables else ""
        parts.append(f"{name} {number(value, unit)}")
    return ", ".join(parts)


def sentences(config: Config, reasons: Mapping[str, Any]) -> list[str]:
    """Return the reasons of one suggestion as short sentences."""
    out = [f"It {MODE[reasons['mode']]}."]
    for objective in config.objectives:
        p = reasons["predictions"].get(objective.name)
        if p:
            out.append(
                f"Expected {objective.name}: {number(p['median'], objective.unit)}, with 90 % between "
                f"{number(p['low'])} and {number(p['high'])}."
            )
    if reasons["usable"] is not None:
        worst = reasons["likeliest_failure"]
        tail = (
            ""
            if worst is None or reasons["usable"] > 0.995
            else f"; if it fails, most likely at {worst}"
        )
        out.append(f"Chance of a usable device: {100 * reasons['usable']:.0f} %{tail}.")
    if reasons["nearest"]:
        weight = reasons["importance"]
        order = {name: k for k, name in enumerate(config.variables)}
        changes = [
            f"{name} {number(a)} -> {number(b)}"
            for name, (a, b) in sorted(
                reasons["differences"].items(),
                key=lambda item: (-weight.get(item[0], 0.0), order.get(item[0], len(order))),
            )
            if a is not None and b is not None
        ]
        shown = ", ".join(changes[:5]) + (
            f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        )
        out.append(f"Nearest trial: {reasons['nearest']}" + (f" ({shown})." if shown else "."))
    matters = sorted(reasons["importance"].items(), key=lambda item: -item[1])[:3]
    matters = [(name, share) for name, share in matters if share >= 0.05]
    if matters and reasons["mode"] != "design":
        out.append(
            "What matters so far: "
            + ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in matters)
            + "."
        )
    return out
