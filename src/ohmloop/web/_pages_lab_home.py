"""The first page, and a new campaign."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ohmloop.campaign import Campaign, Config, list_templates, parse_config, template
from ohmloop.errors import CampaignError, OhmloopError
from ohmloop.web._lab import url, waiting
from ohmloop.web._pages import Form, actor_of, number, page, redirect
from ohmloop.web._places import place_in
from ohmloop.web._workspace import Workspace

router = APIRouter(include_in_schema=False)


@router.get("/")
def home(request: Request) -> HTMLResponse:
    """Show what is in the folder."""
    space: Workspace = request.app.state.workspace
    return page(
        request,
        "home.html.j2",
        root=str(space.root),
        campaigns=[_entry(space, name) for name in space.campaigns()],
        n_runs=len(space.runs()),
        n_devices=len(space.devices()),
    )


def _entry(space: Workspace, name: str) -> dict[str, Any]:
    """Return what the list shows of a campaign; a damaged one says what is wrong."""
    try:
        with Campaign.open(space.campaign(name), writable=False) as campaign:
            status, state = campaign.status(advice=False), campaign.state
            config = campaign.config
    except OhmloopError as error:
        return {"name": name, "url": url(name), "problem": str(error)}
    suggested, accepted = waiting(state)
    used, total = status.budget["trials"]
    return {
        "name": name,
        "url": url(name),
        "problem": "",
        "title": config.name,
        "description": config.description,
        "done": f"{used:g}" + (f" of {total:g}" if total else ""),
        "failed": status.n_failed / status.n_done if status.n_done else None,
        "best": [
            f"{o.name} {number(status.best[o.name][1], o.unit)} ({status.best[o.name][0]})"
            for o in config.objectives
            if o.name in status.best
        ],
        "suggested": len(suggested),
        "accepted": len(accepted),
        "at": state.history[-1].at if state.history else "",
    }


@router.get("/campaigns/new")
def ask_new(request: Request, start: str = "") -> HTMLResponse:
    """Show the form of a new campaign: a template's text to change, or one's own to paste."""
    text = template(start) if start else ""
    return _new_page(request, start, start, text)


@router.post("/campaigns/new")
def make_new(request: Request, form: Form) -> Response:
    """Start a campaign; what does not fit is shown beside the text, at its place."""
    name, text = str(form.get("folder", "")).strip(), str(form.get("text", ""))
    text = text.replace("\r\n", "\n")
    start = str(form.get("start", ""))
    try:
        if not text.strip():
            raise CampaignError(
                "the settings are empty. Start from a template, or paste a campaign.toml."
            )
        config = parse_config(text)
    except CampaignError as error:
        return _new_page(request, start, name, text, problem=str(error), status=422)
    try:
        folder = request.app.state.workspace.new_name("campaign", name or _slug(config))
    except OhmloopError as error:
        return _new_page(request, start, name, text, name_problem=str(error), status=422)
    with Campaign.new(folder, text=text, actor=actor_of(request)):
        pass
    return redirect(
        url(folder.name), f"{config.name} is started: {len(config.variables)} variables."
    )


def _slug(config: Config) -> str:
    """Return a folder's name for a campaign that was given none."""
    words = "".join(c if c.isalnum() else " " for c in config.name.lower()).split()
    return "-".join(words)[:60] or "campaign"


def _new_page(
    request: Request,
    start: str,
    folder: str,
    text: str,
    *,
    problem: str = "",
    name_problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    return page(
        request,
        "campaign_new.html.j2",
        status=status,
        templates=[
            {"name": name, "config": parse_config(template(name))} for name in list_templates()
        ],
        start=start if start in list_templates() else "",
        folder=folder,
        text=text,
        problem=problem,
        place=place_in(text, problem) if problem else None,
        name_problem=name_problem,
    )
