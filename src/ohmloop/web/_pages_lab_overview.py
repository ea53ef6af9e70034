"""A campaign at a glance: progress, failures, advice, what to do next."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from ohmloop.campaign import Campaign, CampaignStatus
from ohmloop.web import _lab_plots as plots
from ohmloop.web._errors import NotFoundError
from ohmloop.web._jobs import Job, Jobs
from ohmloop.web._lab import (
    lab_page,
    opened,
    recipe_rows,
    target,
    trial_view,
    url,
    waiting,
    whole_number,
)
from ohmloop.web._pages import Form, actor_of, number, percent, redirect

router = APIRouter(prefix="/campaigns/{name}", include_in_schema=False)
_LATEST = 8


@router.get("")
def overview(request: Request, name: str) -> HTMLResponse:
    """Show where the campaign stands."""
    jobs: Jobs = request.app.state.jobs
    with opened(request, name) as campaign:
        status, state, config = campaign.status(advice=False), campaign.state, campaign.config
        suggested, accepted = waiting(state)
        views = {t.id: trial_view(config, t) for t in state.trials.values()}
        return lab_page(
            request,
            "overview.html.j2",
            name,
            campaign,
            "overview",
            config=config,
            stand=status,
            cards=_cards(campaign, status),
            suggested=[views[t.id] for t in suggested],
            accepted=[views[t.id] for t in accepted],
            best=[
                {
                    **views[trial],
                    "objective": objective,
                    "recipe": recipe_rows(config, state.trials[trial]),
                }
                for objective, (trial, _) in status.best.items()
            ],
            progress_tables={
                o.name: plots.table_head(plots.progress_table(state, status, o.name))
                for o in config.objectives
            },
            failures=plots.table_head(plots.failures_table(config, status)),
            rate=plots.table_head(plots.failure_rate_table(status)),
            log=list(reversed(campaign.log()))[:_LATEST],
            simulated=any(view["simulated"] for view in views.values()),
            **_advice(campaign, jobs, name),
        )


def _cards(campaign: Campaign, status: CampaignStatus) -> list[dict[str, str]]:
    """Return the figures on top, as in the report."""
    used, total = status.budget["trials"]
    cards = [
        {
            "label": "trials with a result",
            "value": f"{used:g}" + (f" / {total:g}" if total else ""),
            "note": "",
        },
        {
            "label": "without a usable device",
            "value": percent(status.n_failed / status.n_done) if status.n_done else "–",
            "note": f"{status.n_failed} of {status.n_done}" if status.n_done else "",
        },
    ]
    for objective in campaign.config.objectives:
        found = status.best.get(objective.name)
        cards.append(
            {
                "label": f"best {objective.name}",
                "value": "–" if found is None else number(found[1], objective.unit, 3),
                "note": found[0] if found else "no usable device yet",
            }
        )
    for label, (used, total) in list(status.budget.items())[1:]:
        cards.append(
            {
                "label": label,
                "value": number(used) + (f" / {number(total)}" if total else ""),
                "note": "used up so far",
            }
        )
    return cards


def _advice(campaign: Campaign, jobs: Jobs, name: str) -> dict[str, Any]:
    """Return the latest advice, how old it is, and the job that makes another one."""
    job = jobs.latest("advice", target(name))
    running = job if job is not None and not job.is_over else None
    done = next(
        (j for j in jobs.list(kind="advice", target=target(name), limit=10) if j.state == "done"),
        None,
    )
    return {
        "advice_job": running,
        "advice_failed": job.error if job is not None and job.state == "failed" else "",
        "advice": _told(campaign, done) if done is not None else None,
    }


def _told(campaign: Campaign, job: Job) -> dict[str, Any]:
    result = job.result or {}
    told = result.get("advice") or result
    since = [
        r
        for t in campaign.state.trials.values()
        for r in t.records
        if job.started is not None and r.at > job.started
    ]
    return {
        "verdict": told.get("verdict", ""),
        "text": told.get("text", ""),
        "at": job.ended,
        "n_since": len(since),
        "best": result.get("best") or [],
    }


@router.post("/advice")
def ask_advice(request: Request, name: str, form: Form) -> Response:
    """Fit the model in the background and say whether to go on."""
    request.app.state.workspace.campaign(name)
    _once(request.app.state.jobs, "advice", name, {}, f"Advice for {name}")
    return redirect(url(name) + "#advice")


def _once(jobs: Jobs, kind: str, name: str, arguments: dict[str, Any], title: str) -> Job:
    """Queue a job, or return the one of the kind that is under way: two clicks are one."""
    last = jobs.latest(kind, target(name))
    if last is not None and not last.is_over:
        return last
    return jobs.submit(kind, target(name), arguments, title=title)


@router.post("/virtual-lab")
def make_simulated(request: Request, name: str, form: Form) -> Response:
    """Make the open trials in the virtual lab: SIMULATED devices, marked as such everywhere."""
    request.app.state.workspace.campaign(name)
    arguments = {
        "n_devices": whole_number(form, "n_devices", "devices a trial") or 1,
        "actor": actor_of(request) or "",
    }
    title = f"Virtual lab for {name} (SIMULATED)"
    _once(request.app.state.jobs, "virtual-lab", name, arguments, title)
    return redirect(url(name, "suggestions"))


@router.post("/undo")
def undo(request: Request, name: str, form: Form) -> Response:
    """Take an event back, or an undo itself."""
    event = whole_number(form, "event", "event")
    back = str(form.get("to", ""))
    with opened(request, name, form) as campaign:
        undone = campaign.undo(event)
        lines = {line.event: line.text for line in campaign.log()}
    parts = [part for part in back.split("/") if part]
    after = url(name, *parts) if parts[:1] in (["suggestions"], ["log"], ["trials"]) else url(name)
    return redirect(after, f"Taken back: {lines[undone.id]} (event {undone.id}).")


@router.get("/plots/{plot}.{form}")
def plot(request: Request, name: str, plot: str, form: str) -> Response:
    """Return a plot of the campaign for plotly, or its numbers as CSV."""
    with opened(request, name) as campaign:
        figure, table = _plot(campaign, plot)
    if form == "json":
        return JSONResponse(figure)
    if form != "csv":
        raise NotFoundError("plots are there as .json for plotly, and their numbers as .csv.")
    file = f"{name}-{plot.replace(':', '-')}.csv"
    return csv_response(plots.to_csv(table), file)


def _plot(campaign: Campaign, plot: str) -> tuple[plots.Figure, plots.Table]:
    """Return a plot by its name, and its numbers."""
    status, state, config = campaign.status(advice=False), campaign.state, campaign.config
    what, _, objective = plot.partition(":")
    if what == "progress" and objective in [o.name for o in config.objectives]:
        figure = plots.progress(config, state, status, objective)
        return figure, plots.progress_table(state, status, objective)
    if plot == "failures":
        return plots.failures(config, status), plots.failures_table(config, status)
    if plot == "failure-rate":
        return plots.failure_rate(status), plots.failure_rate_table(status)
    raise NotFoundError(f'{config.name} has no plot "{plot[:60]}".')


def csv_response(text: str, file: str) -> Response:
    """Return a table to be saved."""
    disposition = f"attachment; filename*=UTF-8''{quote(file)}"
    return Response(
        text, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": disposition}
    )
