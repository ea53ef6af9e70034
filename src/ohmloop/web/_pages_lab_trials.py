"""Trials: all of them in a table, one of them in full, and what was found on its devices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ohmloop.campaign import Campaign
from ohmloop.errors import CampaignError
from ohmloop.web._lab import (
    OUTCOME,
    lab_page,
    opened,
    trial_view,
    typed_values,
    url,
    variable_fields,
)
from ohmloop.web._pages import Form, redirect

router = APIRouter(prefix="/campaigns/{name}", include_in_schema=False)

GROUPS = {
    "all": "all",
    "open": "waiting",
    "usable": "usable",
    "failed": "failed",
    "rejected": "rejected",
}


@router.get("/trials")
def trials(request: Request, name: str, show: str = "all") -> HTMLResponse:
    """Show every trial in a table."""
    show = show if show in GROUPS else "all"
    with opened(request, name) as campaign:
        config = campaign.config
        chosen = [
            trial
            for trial in campaign.trials.values()
            if show == "all"
            or (show == "open" and trial.is_open)
            or (show == "usable" and trial.is_usable)
            or (show == "failed" and trial.failed_at is not None)
            or (show == "rejected" and trial.status in ("rejected", "withdrawn"))
        ]
        return lab_page(
            request,
            "trials.html.j2",
            name,
            campaign,
            "trials",
            config=config,
            trials=[trial_view(config, trial) for trial in reversed(chosen)],
            show=show,
            groups=GROUPS,
            total=len(campaign.trials),
        )


@router.get("/trials/{trial}")
def one(request: Request, name: str, trial: str) -> HTMLResponse:
    """Show a trial in full: recipe, reasons, devices, and the forms that add to it."""
    with opened(request, name) as campaign:
        found = campaign.state.trial(trial)
        config = campaign.config
        names = list(campaign.trials)
        k = names.index(found.id)
        return lab_page(
            request,
            "trial.html.j2",
            name,
            campaign,
            "trials",
            config=config,
            trial=trial_view(config, found),
            fields=variable_fields(config, found.recipe),
            outside=_outside(campaign, found.recipe),
            before=names[k - 1] if k else "",
            after=names[k + 1] if k + 1 < len(names) else "",
            files=[
                {"sha": r.file, "name": campaign.files()[r.file], "device": r.device}
                for r in found.records
                if r.file in campaign.files()
            ],
            history=[
                line
                for line, event in zip(campaign.log(), campaign.state.history, strict=True)
                if _is_about(event.data, found.id)
            ],
        )


def _outside(campaign: Campaign, recipe: dict[str, Any]) -> list[str]:
    try:
        return campaign.outside(recipe)
    except CampaignError:  # a variable was added since, without a former value
        return []


def _is_about(data: dict[str, Any], trial: str) -> bool:
    named = [data.get("trial")]
    named += [t["id"] if isinstance(t, dict) else t for t in data.get("trials", ())]
    return trial in named


@router.post("/trials/{trial}/record")
def record(request: Request, name: str, trial: str, form: Form) -> Response:
    """Record what was found on one device: a failure is a result too."""
    verdict = str(form.get("verdict", ""))
    what, _, stage = verdict.partition(":")
    with opened(request, name, form) as campaign:
        wanted = str(form.get("trial", "")) or trial
        done = campaign.record(
            wanted,
            values=typed_values(form, OUTCOME),  # type: ignore[arg-type]  # text is parsed there
            failed_at=stage if what == "failed" else None,
            passed=stage if what == "passed" else None,
            device=str(form.get("device", "")),
            note=str(form.get("note", "")),
        )
        said = campaign.log()[-1].text
    return redirect(url(name, "trials", done.id), f"Noted: {said}.")
