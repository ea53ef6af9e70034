"""A campaign as its pages show it: opened for one request, its trials and fields as plain values."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import FormData

from ohmloop.campaign import Campaign, Config, Record, State, Trial, sentences
from ohmloop.web._errors import WebError
from ohmloop.web._pages import VALUE, Again, actor_of, number, page, segment

CONTEXT, OUTCOME = "c.", "y."
"""What the names of form fields begin with: a context's value, an outcome. A recipe's: `VALUE`."""

_KINDS = {
    "suggested": "accent",
    "accepted": "warn",
    "usable": "good",
    "undecided": "",
    "rejected": "",
    "withdrawn": "",
}


@contextmanager
def opened(request: Request, name: str, form: FormData | None = None) -> Iterator[Campaign]:
    """Open a campaign of the workspace: for reading, or with a form for what it asks to record.

    The form's ``seen`` is the last event that its page showed, so that stale decisions are refused.

    Raises:
        NotFoundError: If there is none of this name.
    """
    folder = request.app.state.workspace.campaign(name)
    if form is None:
        with Campaign.open(folder, writable=False) as campaign:
            yield campaign
        return
    request.state.campaign = name
    with Campaign.open(folder, actor=actor_of(request), seen=seen_in(form)) as campaign:
        own: Again = getattr(request.state, "again", Again())
        request.state.again = own._replace(
            fields=functools.partial(variable_fields, campaign.config),
            choices={**field_choices(campaign.config, campaign.state), **own.choices},
        )
        yield campaign


def seen_in(form: FormData) -> int | None:
    """Return the last event that the page of a form showed; None where it does not say."""
    text = str(form.get("seen", ""))
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


def target(name: str) -> str:
    """Return how jobs call a campaign."""
    return f"campaign/{name}"


def url(name: str, *parts: str) -> str:
    """Return the address of a campaign's page."""
    return "/".join(["/campaigns", segment(name), *map(segment, parts)])


def lab_page(
    request: Request,
    template: str,
    name: str,
    campaign: Campaign,
    tab: str,
    *,
    status: int = 200,
    **context: Any,
) -> HTMLResponse:
    """Return a page of a campaign, with its tabs."""
    return page(
        request,
        template,
        status=status,
        campaign=name,
        base=url(name),
        title=campaign.config.name,
        seen=campaign.state.last_event,
        tab=tab,
        device_verdicts=verdicts(campaign.config),
        **context,
    )


# -- trials -------------------------------------------------------------------------------------


def trial_view(config: Config, trial: Trial) -> dict[str, Any]:
    """Return what the pages show of a trial."""
    word, recipe, found = trial.outcome, recipe_rows(config, trial), means(config, trial)
    origin = {"own": "own experiment", "imported": "from a sheet"}.get(trial.origin, "")
    return {
        "id": trial.id,
        "outcome": word,
        "kind": _KINDS.get(word, "bad" if trial.failed_at else ""),
        "status": trial.status,
        "origin": origin,
        "at": trial.at,
        "event": trial.event,
        "batch": trial.batch,
        "recipe": recipe,
        "by_variable": {row["name"]: row["value"] for row in recipe},
        "reasons": sentences(config, trial.reasons) if trial.reasons else [],
        "mode": trial.reasons.get("mode", ""),
        "nearest": trial.reasons.get("nearest") or "",
        "records": [record_view(config, record) for record in trial.records],
        "means": found,
        "by_outcome": {mean["name"]: mean["value"] for mean in found},
        "note": trial.note,
        "simulated": any(is_simulated(record) for record in trial.records),
    }


def recipe_rows(config: Config, trial: Trial) -> list[dict[str, str]]:
    """Return a recipe, one row a variable, in the order of the settings."""
    order = {name: k for k, name in enumerate(config.variables)}
    rows = []
    for name in sorted(trial.recipe, key=lambda n: order.get(n, len(order))):
        spec = config.variables.get(name)
        rows.append(
            {
                "name": name,
                "value": number(trial.recipe[name]),
                "unit": spec.unit if spec else "",
                "help": spec.help if spec else "no longer in the settings",
            }
        )
    return rows


def record_view(config: Config, record: Record) -> dict[str, Any]:
    """Return what the pages show of one device."""
    passed = [s.name for s in config.stages if record.stages.get(s.name)]
    if record.failed_at:
        verdict = f"failed at {record.failed_at}"
    else:
        verdict = f"passed {passed[-1]}" if passed else "undecided"
    return {
        "device": record.device,
        "verdict": verdict,
        "kind": "bad" if record.failed_at else ("good" if passed else ""),
        "values": [
            {"name": o.name, "text": number(record.values[o.name], o.unit)}
            for o in config.objectives
            if o.name in record.values
        ],
        "note": record.note,
        "at": record.at,
        "event": record.event,
        "file": record.file,
        "simulated": is_simulated(record),
    }


def is_simulated(record: Record) -> bool:
    """Whether a result comes from the virtual lab, which marks its workbooks, devices and sheets."""
    marks = (record.device, record.note, *record.figures.get("notes", ()))
    return any("simulated" in str(mark).lower() for mark in marks)


def means(config: Config, trial: Trial) -> list[dict[str, str]]:
    """Return the mean of each outcome over a trial's devices."""
    out = []
    for objective in config.objectives:
        values = [r.values[objective.name] for r in trial.records if objective.name in r.values]
        if values:
            value = number(sum(values) / len(values))
            text = f"{value} {objective.unit}".strip()
            out.append({"name": objective.name, "value": value, "text": text})
    return out


def waiting(state: State) -> tuple[list[Trial], list[Trial]]:
    """Return the suggestions that wait for a decision, and the accepted trials that wait for a result."""
    trials = state.trials.values()
    return (
        [t for t in trials if t.status == "suggested"],
        [t for t in trials if t.status == "accepted"],
    )


# -- fields -------------------------------------------------------------------------------------


def variable_fields(
    config: Config,
    values: Mapping[str, Any],
    *,
    role: str | None = None,
    prefix: str = VALUE,
) -> list[dict[str, Any]]:
    """Return one form field a variable.

    Args:
        config: The settings.
        values: Present values; a variable without one is empty.
        role: Only variables of this role ("recipe" or "context").
        prefix: Of the fields' names.
    """
    out = []
    for name, spec in config.variables.items():
        if role is not None and spec.role != role:
            continue
        value = values.get(name)
        options = list(spec.options) if spec.type == "categorical" else []
        if value is not None and options and str(value) not in options:
            options.append(str(value))  # one that was allowed once, or a person's own
        if spec.type == "categorical":
            hint = ""
        elif spec.type == "ordinal":
            hint = ", ".join(number(x) for x in spec.levels)
        else:
            hint = f"{number(spec.low)} to {number(spec.high)}"
            hint += f", in steps of {number(spec.step)}" if spec.step else ""
        parent, wanted = next(iter(spec.when.items()), ("", ()))
        out.append(
            {
                "name": prefix + name,
                "label": name,
                "unit": spec.unit,
                "help": spec.help,
                "hint": hint,
                "options": options,
                "value": _as_text(value),
                "when": json.dumps([str(x) for x in wanted]) if parent else "",
                "parent": prefix + parent if parent else "",
                "parent_words": f"only if {parent} is {' or '.join(map(str, wanted))}"
                if parent
                else "",
            }
        )
    return out


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else ("" if value is None else f"{value:.12g}")


def verdicts(config: Config) -> list[tuple[str, str, str]]:
    """Return how far a device may have got: the group of the choice, its value and its words."""
    failed = [
        (
            "It failed at",
            f"failed:{s.name}",
            f"failed at {s.name}" + (f" ({s.question} – no)" if s.question else ""),
        )
        for s in config.stages
    ]
    passed = [
        (
            "It passed",
            f"passed:{s.name}",
            f"passed {s.name}" + ("" if s is config.stages[-1] else ", later ones not looked at"),
        )
        for s in config.stages
    ]
    return [*failed, *passed]


def field_choices(config: Config, state: State) -> dict[str, list[tuple[str, str]]]:
    """Return the fields of a campaign's forms that offer choices: name -> values and their words."""
    return {
        "verdict": [("", "not judged"), *((value, text) for _, value, text in verdicts(config))],
        "trial": [(name, name) for name in state.trials],
        "variable": [(name, name) for name in config.variables],
    }


def typed_values(form: FormData, prefix: str) -> dict[str, str]:
    """Return what was typed into the fields with a prefix; blank ones are left out."""
    out = {}
    for key, value in form.multi_items():
        if key.startswith(prefix) and isinstance(value, str) and value.strip():
            out[key.removeprefix(prefix)] = value.strip()
    return out


def whole_number(form: FormData, name: str, label: str) -> int | None:
    """Return a whole number that was typed; None for a blank field.

    Raises:
        WebError: If it is none.
    """
    text = str(form.get(name, "")).strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise WebError(f'{label}: "{text[:40]}" is no whole number.')
    return int(text)
