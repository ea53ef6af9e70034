"""Suggestions: asked for, with their reasons, and what a person decides about them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ohmloop.campaign import Campaign, Trial
from ohmloop.errors import CampaignError
from ohmloop.web._jobs import Job, Jobs
from ohmloop.web._lab import (
    CONTEXT,
    lab_page,
    opened,
    target,
    trial_view,
    typed_values,
    url,
    variable_fields,
    waiting,
    whole_number,
)
from ohmloop.web._pages import VALUE, Form, actor_of, number, redirect

router = APIRouter(prefix="/campaigns/{name}", include_in_schema=False)


@router.get("/suggestions")
def suggestions(request: Request, name: str) -> HTMLResponse:
    """Show what waits: suggestions with reasons, and accepted trials to be made."""
    jobs: Jobs = request.app.state.jobs
    with opened(request, name) as campaign:
        config, state = campaign.config, campaign.state
        suggested, accepted = waiting(state)
        return lab_page(
            request,
            "suggestions.html.j2",
            name,
            campaign,
            "suggestions",
            config=config,
            cards=[_card(campaign, trial) for trial in suggested],
            accepted=[_card(campaign, trial) for trial in accepted],
            pins=[_pin(campaign, *item) for item in state.pins.items()],
            to_pin=[n for n, s in config.variables.items() if n not in state.pins],
            own=variable_fields(config, _like(campaign, request.query_params.get("like", ""))),
            like=request.query_params.get("like", ""),
            trials=list(state.trials),
            context=variable_fields(config, last_context(campaign), role="context", prefix=CONTEXT),
            batch=config.suggest.batch,
            under_way=_under_way(jobs, name),
            failed=_failed(jobs, name),
            last=_last_undoable(campaign),
        )


def _card(campaign: Campaign, trial: Trial) -> dict[str, Any]:
    """Return a trial with the fields that edit it."""
    return {
        **trial_view(campaign.config, trial),
        "fields": variable_fields(campaign.config, trial.recipe),
        "usable": trial.reasons.get("usable"),
    }


def _pin(campaign: Campaign, variable: str, value: Any) -> dict[str, str]:
    spec = campaign.config.variables.get(variable)
    return {"name": variable, "value": number(value, spec.unit if spec else "")}


def _like(campaign: Campaign, wanted: str) -> dict[str, Any]:
    """Return the recipe that an own experiment starts from; empty for none."""
    return dict(campaign.state.trial(wanted).recipe) if wanted else {}


def last_context(campaign: Campaign) -> dict[str, Any]:
    """Return the latest values of the variables that are measured, not chosen."""
    names = [n for n, spec in campaign.config.variables.items() if spec.role == "context"]
    return {
        n: trial.recipe[n]
        for trial in campaign.state.trials.values()
        for n in names
        if n in trial.recipe
    }


def _under_way(jobs: Jobs, name: str) -> list[Job]:
    found = jobs.list(target=target(name), is_active=True)
    return [job for job in found if job.kind in ("suggest", "reroll", "virtual-lab")]


def _failed(jobs: Jobs, name: str) -> str:
    """Return why the last request for suggestions failed; empty where it did not."""
    found = [j for j in (jobs.latest(k, target(name)) for k in ("suggest", "reroll")) if j]
    last = max(found, key=lambda job: int(job.id), default=None)
    return (last.error or "") if last is not None and last.state == "failed" else ""


def _last_undoable(campaign: Campaign) -> dict[str, Any] | None:
    """Return the last thing that a person did and can take back."""
    lines = [line for line in campaign.log() if not line.undone]
    for line in reversed(lines):
        if not line.text.startswith(("took back", "started", "noted")):
            return {"event": line.event, "text": line.text}
    return None


# -- asking -------------------------------------------------------------------------------------


@router.post("/suggestions")
def ask(request: Request, name: str, form: Form) -> Response:
    """Ask for suggestions: the worker makes them, and this page shows them when they are there."""
    request.app.state.workspace.campaign(name)
    request.state.campaign = name
    arguments = {
        "q": whole_number(form, "q", "how many"),
        "pin": typed_values(form, VALUE),
        "context": _numbers(typed_values(form, CONTEXT)),
        "actor": actor_of(request) or "",
    }
    _submit(request, "suggest", name, arguments, f"Suggestions for {name}")
    return redirect(url(name, "suggestions"))


def _numbers(values: dict[str, str]) -> dict[str, float | str]:
    out: dict[str, float | str] = {}
    for key, text in values.items():
        try:
            out[key] = float(text)
        except ValueError:
            out[key] = text  # an option, or what the campaign will complain about
    return out


def _submit(request: Request, kind: str, name: str, arguments: dict[str, Any], title: str) -> None:
    jobs: Jobs = request.app.state.jobs
    if not _under_way(jobs, name):  # two clicks are one request
        jobs.submit(kind, target(name), arguments, title=title)


@router.post("/reroll")
def reroll(request: Request, name: str, form: Form) -> Response:
    """Withdraw suggestions (those named, or all) and ask for others in their place."""
    names = [str(t) for t in form.getlist("trial") if isinstance(t, str) and t]
    with opened(request, name, form) as campaign:
        for trial in names:
            found = campaign.state.trial(trial)
            if found.status != "suggested":
                raise CampaignError(
                    f"{found.id} is {found.status}; only a suggestion can be rolled again."
                )
    arguments = {"trials": names, "actor": actor_of(request) or ""}
    what = ", ".join(names) if names else "all suggestions"
    _submit(request, "reroll", name, arguments, f"Others in place of {what}, {name}")
    return redirect(url(name, "suggestions"))


# -- deciding -----------------------------------------------------------------------------------


def _after(campaign: Campaign, name: str, trial: str) -> str:
    """Return where to go on: the next suggestion that waits, on the page of all of them."""
    names = list(campaign.trials)
    suggested = [t.id for t in waiting(campaign.state)[0]]
    later = [t for t in suggested if names.index(t) > names.index(trial)] or suggested
    return url(name, "suggestions") + (f"#{later[0]}" if later else "")


@router.post("/trials/{trial}/accept")
def accept(request: Request, name: str, trial: str, form: Form) -> Response:
    """Accept a trial: it will be made."""
    with opened(request, name, form) as campaign:
        found = campaign.accept(trial)
        return redirect(_after(campaign, name, found.id), f"{found.id} is accepted.")


@router.post("/accept-all")
def accept_all(request: Request, name: str, form: Form) -> Response:
    """Accept every suggestion that the page showed."""
    with opened(request, name, form) as campaign:
        names = [str(t) for t in form.getlist("trial")]
        done = [campaign.accept(trial).id for trial in names]
    return redirect(url(name, "suggestions"), f"{', '.join(done)}: accepted.")


@router.post("/trials/{trial}/reject")
def reject(request: Request, name: str, trial: str, form: Form) -> Response:
    """Reject a trial, with a reason; its recipe and close ones are not proposed again."""
    with opened(request, name, form) as campaign:
        found = campaign.reject(trial, str(form.get("reason", "")))
        said = f"{found.id} is rejected; this recipe and close ones are not proposed again."
        return redirect(_after(campaign, name, found.id), said)


@router.post("/trials/{trial}/edit")
def edit(request: Request, name: str, trial: str, form: Form) -> Response:
    """Change values of a recipe, also to ones outside the space, and accept it."""
    with opened(request, name, form) as campaign:
        before = campaign.state.trial(trial)
        changes = {
            key: value
            for key, value in typed_values(form, VALUE).items()
            if value != _as_typed(before.recipe.get(key))
        }
        found = campaign.edit(trial, **changes)
        said = f"{found.id} is changed and accepted."
        said += "".join(f"\nNote: {line}." for line in campaign.outside(found.recipe))
        return redirect(_after(campaign, name, found.id), said)


def _as_typed(value: Any) -> str:
    """Return a value as `variable_fields` writes it, so that untouched digits stay as they are."""
    return value if isinstance(value, str) else ("" if value is None else f"{value:.12g}")


@router.post("/trials")
def add(request: Request, name: str, form: Form) -> Response:
    """Add an experiment of one's own; it need not lie in the space."""
    with opened(request, name, form) as campaign:
        made, outside = campaign.add(typed_values(form, VALUE), note=str(form.get("note", "")))
    said = f"{made.id} is added as your own experiment."
    said += "".join(f"\nNote: {line}; it is taken all the same." for line in outside)
    return redirect(url(name, "suggestions") + "#make", said)


@router.post("/pins")
def pin(request: Request, name: str, form: Form) -> Response:
    """Hold a variable at a value in every suggestion to come."""
    variable, value = str(form.get("variable", "")), str(form.get("value", "")).strip()
    with opened(request, name, form) as campaign:
        campaign.pin(variable, value)
    return redirect(url(name, "suggestions"), f"{variable} is held at {value} from now on.")


@router.post("/pins/{variable}/remove")
def unpin(request: Request, name: str, variable: str, form: Form) -> Response:
    """Let a variable go again."""
    with opened(request, name, form) as campaign:
        campaign.unpin(variable)
    return redirect(url(name, "suggestions"), f"{variable} is free again.")
