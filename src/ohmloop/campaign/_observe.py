"""Recipes and results as today's settings see them: what people type, and what the optimiser needs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ohmloop import bo
from ohmloop.campaign._config import Config
from ohmloop.campaign._specs import LARGEST, VariableSpec
from ohmloop.campaign._trials import Recipe, State, Trial
from ohmloop.errors import CampaignError, SearchError

_DATE = re.compile(r"^\d{4}-\d\d-\d\d")
LONGEST_NAME, LONGEST_NOTE = 200, 10_000  # characters; a cell of a sheet holds 32,767


# -- recipes ------------------------------------------------------------------------------------


def typed(config: Config, values: Mapping[str, Any]) -> Recipe:
    """Return what a person typed as values of variables: options as text, the rest as numbers.

    Raises:
        CampaignError: If a variable is unknown or a number is none.
    """
    out: Recipe = {}
    for name, value in values.items():
        spec = config.variables.get(name)
        if spec is None:
            raise CampaignError(
                f'"{name}" is no variable; variables: {", ".join(config.variables)}.'
                + did_you_mean(name, config.variables)
            )
        if value is None or value == "":
            continue
        if spec.type == "categorical":
            out[name] = checked_text(name, value, LONGEST_NAME)
        else:
            out[name] = number_of(name, value)
    return out


def checked_text(name: str, value: Any, longest: int) -> str:
    """Return what was typed as text that every screen and sheet can show.

    Raises:
        CampaignError: If it is too long, or holds control characters.
    """
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise CampaignError(f"{name}: a {type(value).__name__} is no text.")
    text = str(value).strip() if isinstance(value, str | int) else f"{value:g}"
    if len(text) > longest:
        raise CampaignError(f"{name}: {len(text)} characters; it has at most {longest}.")
    strange = next(
        (c for c in text if (c < " " and c not in "\t\r\n") or "\ud7ff" < c < "\ue000"), ""
    )
    if strange:
        raise CampaignError(
            f"{name}: holds the character U+{ord(strange):04X}, which no sheet can; leave it out."
        )
    return text


def number_of(name: str, value: Any) -> float:
    """Return what was typed as a finite number.

    Raises:
        CampaignError: If it is none, with what may have happened to it.
    """
    text = value.strip() if isinstance(value, str) else type(value).__name__
    try:
        number = math.nan if isinstance(value, bool | bytes) else float(value)
        text = text if isinstance(value, str) else f"{number:g}"
    except (ValueError, TypeError, OverflowError) as error:
        hint = ""
        if _DATE.match(text):
            hint = " A spreadsheet program made a date of it: format the cell as a number."
        elif "," in text:
            hint = f" Write {text.replace(',', '.')[:40]} if the comma is a decimal one."
        raise CampaignError(f'{name}: "{text[:40]}" is no number.{hint}') from error
    if not math.isfinite(number):
        raise CampaignError(
            f"{name}: {text[:40]} is no finite number; leave out what was not measured, and say where the "
            "device failed."
        )
    return number


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for a likely misspelling, else nothing."""
    close = get_close_matches(wrong, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def checked(config: Config, recipe: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """Return a recipe that the optimiser can learn from, and in words why it could not propose it.

    Raises:
        CampaignError: If a variable is unknown or missing, or a number is none.
    """
    values = typed(config, recipe)
    missing = [
        name
        for name, spec in config.variables.items()
        if name not in values and _applies(config, spec, values)
    ]
    if missing:
        raise CampaignError(
            f"a recipe needs a value for every variable; missing: {', '.join(missing)}."
        )
    space = config.problem(retired_options(config, [values])).space
    try:
        clean = space.to_points(space.to_table([values]))[0]
    except SearchError as error:
        raise CampaignError(str(error)) from error
    outside = [
        f'"{clean[name]}" is none of the options of "{name}" ({", ".join(spec.options)})'
        + did_you_mean(str(clean[name]), spec.options)
        for name, spec in config.variables.items()
        if spec.type == "categorical" and name in clean and clean[name] not in spec.options
    ]
    outside += [line for line in space.problems(clean) if "retired option" not in line]
    return clean, outside


def _applies(config: Config, spec: VariableSpec, recipe: Mapping[str, Any]) -> bool:
    """Whether a conditional variable exists in a recipe."""
    for parent, wanted in spec.when.items():
        above = config.variables[parent]
        value = recipe.get(parent, above.former)
        if value is None or not _applies(config, above, recipe):
            return False
        if above.type == "categorical":
            return str(value) in map(str, wanted)
        return any(math.isclose(float(value), float(x)) for x in wanted)
    return True


def recipe_now(config: Config, recipe: Mapping[str, Any], where: str) -> Recipe:
    """Return a recipe as today's settings see it: dropped variables gone, added ones with their former value.

    Raises:
        CampaignError: If a variable was added without saying which value it had before.
    """
    out: Recipe = {}
    for name, spec in config.variables.items():
        if name in recipe and recipe[name] not in (None, ""):
            out[name] = recipe[name]
        elif spec.former is not None:
            out[name] = spec.former
        elif _applies(config, spec, recipe):
            raise CampaignError(
                f'{where} has no value for "{name}". If the variable was added later, say in campaign.toml '
                f"which value it had before: [variables.{name}] former = ..."
            )
    return out


def same_recipe(a: Mapping[str, bo.Value], b: Mapping[str, bo.Value]) -> bool:
    """Whether two recipes are one, but for digits that a spreadsheet rounds off."""
    if set(a) != set(b):
        return False
    return all(
        math.isclose(float(a[n]), float(b[n]), rel_tol=1e-9, abs_tol=1e-12)
        if not isinstance(a[n], str) and not isinstance(b[n], str)
        else a[n] == b[n]
        for n in a
    )


def retired_options(
    config: Config, recipes: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[str, ...]]:
    """Return variable -> options that recipes have and the settings do not (any longer)."""
    out: dict[str, dict[str, None]] = {}
    for recipe in recipes:
        for name, spec in config.variables.items():
            value = recipe.get(name, spec.former)
            if spec.type == "categorical" and value is not None and str(value) not in spec.options:
                out.setdefault(name, {})[str(value)] = None
    return {name: tuple(options) for name, options in out.items()}


# -- results ------------------------------------------------------------------------------------


def checked_values(config: Config, values: Mapping[str, Any]) -> dict[str, float]:
    """Return objective values as finite numbers.

    Raises:
        CampaignError: If one is unknown or no number.
    """
    scales = {o.name: o.scale for o in config.objectives}
    out = {}
    for name, value in values.items():
        if name not in scales:
            raise CampaignError(
                f'"{name}" is no objective; objectives: {", ".join(scales) or "none"}.'
                + did_you_mean(name, scales)
            )
        out[name] = number_of(name, value)
        if abs(out[name]) > LARGEST:
            raise CampaignError(
                f"{name}: {value} is too large to be a measurement. Take another unit."
            )
        if scales[name] == "log" and out[name] <= 0:
            raise CampaignError(f'{name}: {value} is not positive, as scale = "log" needs.')
    return out


def checked_errors(values: Mapping[str, float], errors: Mapping[str, Any]) -> dict[str, float]:
    """Return standard errors as finite numbers >= 0 of values that are there.

    Raises:
        CampaignError: If one is none, or belongs to no value.
    """
    out = {}
    for name, error in errors.items():
        if name not in values:
            raise CampaignError(f'"{name}" has an error and no value.' + did_you_mean(name, values))
        out[name] = number_of(f"error of {name}", error)
        if not 0 <= out[name] <= LARGEST:
            raise CampaignError(f"error of {name}: {error} is no standard error, which is >= 0.")
    return out


def stages_upto(
    config: Config, *, failed_at: str | None = None, passed: str | None = None
) -> dict[str, bool]:
    """Return stage -> passed for "failed at this one" or "passed up to this one"; "all" passes all.

    Raises:
        CampaignError: If a stage is unknown, or both are given and contradict each other.
    """
    names = [s.name for s in config.stages]
    failed_at = _stage(names, failed_at) if failed_at else None
    passed = _stage(names, passed, "all") if passed else None
    out: dict[str, bool] = {}
    if passed is not None:
        last = len(names) if passed == "all" else names.index(passed) + 1
        out = dict.fromkeys(names[:last], True)
    if failed_at is not None:
        k = names.index(failed_at)
        if out.get(failed_at):
            raise CampaignError(
                f'a device cannot pass "{passed}" and fail at "{failed_at}" before it.'
            )
        out = {**dict.fromkeys(names[:k], True), failed_at: False}
    return out


def _stage(names: list[str], text: str, *more: str) -> str:
    """Return the stage that was meant, capitals and blanks aside."""
    for name in (*names, *more):
        if name.casefold() == text.strip().casefold():
            return name
    raise CampaignError(
        f'"{text[:40]}" is no stage; stages: {", ".join(names)}.' + did_you_mean(text, names)
    )


def _error_of_mean(trial: Trial, name: str) -> float:
    """Return the standard error of the mean over a trial's devices that their own errors make."""
    own = [r.errors.get(name, 0.0) for r in trial.records if name in r.values]
    return math.sqrt(sum(e * e for e in own)) / max(len(own), 1)


def observe(config: Config, state: State) -> tuple[list[bo.Observation], list[str]]:
    """Return what is known, one observation a recorded trial and earlier row, and their names."""
    observations, names = [], []
    stages = [s.name for s in config.stages]
    objectives = [o.name for o in config.objectives]
    for trial in state.trials.values():
        if not trial.records:
            continue
        counts = {
            stage: (
                sum(r.stages.get(stage) is True for r in trial.records),
                sum(r.stages.get(stage) is False for r in trial.records),
            )
            for stage in stages
        }
        values = {
            name: tuple(r.values[name] for r in trial.records if name in r.values)
            for name in objectives
        }
        observations.append(
            bo.Observation(
                point=recipe_now(config, trial.recipe, f"trial {trial.id}"),
                values={name: v for name, v in values.items() if v},
                errors={name: e for name in values if (e := _error_of_mean(trial, name)) > 0},
                stages={name: c for name, c in counts.items() if sum(c)},
            )
        )
        names.append(trial.id)
    for source, rows in state.earlier.items():
        for number, row in enumerate(rows, start=1):
            observations.append(
                bo.Observation(
                    point=recipe_now(config, row["recipe"], f'row {number} of "{source}"'),
                    values={n: (v,) for n, v in row.get("values", {}).items() if n in objectives},
                    stages={
                        n: (int(p), int(not p))
                        for n, p in row.get("stages", {}).items()
                        if n in stages
                    },
                    source=source,
                )
            )
            names.append(f"{source} row {number}")
    return observations, names
