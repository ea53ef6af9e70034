"""Somebody else was faster: what happened meanwhile, what was typed, and how it stands now."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from ohmloop.campaign import Campaign
from ohmloop.web._lab import seen_in, trial_view, url
from ohmloop.web._pages import page, typed_fields


def conflict_page(request: Request, text: str) -> HTMLResponse:
    """Return the page of a decision that was made on an old picture of the campaign.

    It repeats the form with what was typed and with the present state, to be sent all the same.
    """
    name = request.state.campaign
    with Campaign.open(request.app.state.workspace.campaign(name), writable=False) as campaign:
        state, config = campaign.state, campaign.config
        seen = seen_in(request.state.form)
        happened = [line for line in campaign.log() if seen is not None and line.event > seen]
    wanted = request.path_params.get("trial")
    found = state.trials.get(str(wanted))
    return page(
        request,
        "conflict.html.j2",
        status=409,
        text=text,
        happened=happened,
        **typed_fields(request),
        again=request.url.path,
        fresh=state.last_event,
        trial=trial_view(config, found) if found else None,
        back=url(name, "trials", found.id) if found else url(name),
        what=_action(request),
    )


def _action(request: Request) -> str:
    """Return what the person wanted to do, from the address: ".../trials/T007/reject"."""
    parts = request.url.path.split("/")[3:]
    return " ".join(reversed(parts[1:])) if len(parts) == 3 and parts[0] == "trials" else parts[-1]
