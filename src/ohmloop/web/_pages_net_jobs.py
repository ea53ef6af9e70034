"""Jobs: what waits, runs and was done; page.js keeps them up to date by the API's server-sent events."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ohmloop.web._jobs import Job, Jobs
from ohmloop.web._pages import (
    Form,
    get_templates,
    live_jobs,
    local_path,
    page,
    redirect,
    segment,
)

router = APIRouter(include_in_schema=False)

KINDS = {
    "suggest": "suggestions",
    "reroll": "other suggestions",
    "advice": "advice",
    "train": "training",
    "evaluate": "evaluation",
    "certify": "certificates",
    "sensitivity": "worth of properties",
    "codesign-new": "new loop",
    "codesign-step": "step of the loop",
    "codesign-result": "result of the loop",
    "device-fit": "fit of a device",
    "report": "report",
    "virtual-lab": "virtual lab (SIMULATED)",
}
"""Kind of job -> what a person calls it."""

STATES = {
    "queued": ("waits", ""),
    "running": ("runs", "accent"),
    "done": ("done", "good"),
    "failed": ("failed", "bad"),
    "cancelled": ("cancelled", "warn"),
}
"""State of a job -> its word, and the look of its badge."""


def jobs_of(request: Request) -> Jobs:
    """Return the jobs of the served workspace."""
    jobs: Jobs = request.app.state.jobs
    return jobs


def place_of(job: Job) -> str:
    """Return the page where the result of a job is seen."""
    what, _, name = job.target.partition("/")
    if what == "run":
        return f"/runs/{segment(name)}"
    if what == "device":
        return f"/devices/{segment(name)}"
    home = f"/campaigns/{segment(name)}"
    if job.kind.startswith("codesign") or job.kind == "sensitivity":
        return f"{home}/codesign"
    return f"{home}/suggestions" if job.kind in ("suggest", "reroll") else home


def duration(job: Job) -> str:
    """Return how long a job took in words, "" for one that is not over or never began.

    Fractions of a second say nothing to a person.
    """
    if job.started is None or job.ended is None:
        return ""
    span = datetime.fromisoformat(job.ended) - datetime.fromisoformat(job.started)
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s" if seconds else "under 1 s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@router.get("/jobs")
def show_jobs(request: Request) -> Response:
    """Show what waits, runs and was done, newest first."""
    found = jobs_of(request).list(limit=100)
    return page(
        request,
        "jobs.html.j2",
        live=[job for job in found if not job.is_over],
        past=[(job, duration(job), place_of(job)) for job in found if job.is_over],
        kinds=KINDS,
        states=STATES,
    )


@router.get("/jobs/strip")
def renew_strip(
    request: Request,
    shown: Annotated[list[str], Query(alias="not", max_length=20)] = [],  # noqa: B006  # FastAPI copies it
) -> HTMLResponse:
    """Return the strip of the job at work as it is now, for a page that is open; empty where there is none.

    Not a page of its own: what an action said waits for the page that follows the action.
    """
    strip = get_templates().get_template("_job_strip.html.j2")
    live = [{"id": id} for id in shown]
    text = strip.render(jobs=live_jobs(request), live=live)
    return HTMLResponse(text, headers={"Cache-Control": "no-store"})


@router.get("/jobs/{id}")
def show_job(request: Request, id: str) -> Response:
    """Show one job: how far it is, what it was asked, what came of it."""
    job = jobs_of(request).get(id)
    return page(
        request,
        "job.html.j2",
        job=job,
        live=[] if job.is_over else [job],
        kind=KINDS.get(job.kind, job.kind),
        state=STATES[job.state],
        place=place_of(job),
        took=duration(job),
        asked=asked_of(job),
        result=None if job.result is None else json.dumps(job.result, indent=1)[:20_000],
    )


@router.post("/jobs/{id}/cancel")
def cancel_job(request: Request, id: str, form: Form) -> RedirectResponse:
    """Stop a job. A training that was cancelled goes on from its last epoch when it is asked for again."""
    job = jobs_of(request).cancel(id)
    said = "was over already" if job.state in ("done", "failed") else "is cancelled"
    return redirect(local_path(str(form.get("back") or f"/jobs/{id}")), f"{job.title} {said}.")


@router.post("/jobs/{id}/retry")
def retry_job(request: Request, id: str) -> RedirectResponse:
    """Queue the same again."""
    return redirect(f"/jobs/{jobs_of(request).retry(id).id}")


def asked_of(job: Job) -> dict[str, str]:
    """Return the arguments of a job in words, without those that were left out."""
    told = {key: _told(value) for key, value in job.arguments.items() if value not in (None, [])}
    if job.arguments.get("array") == "":
        told["array"] = "the usual one"
    return told


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} = {v}" for k, v in value.items()) or "–"
    return "–" if value == "" else str(value)
