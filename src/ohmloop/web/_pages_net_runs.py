"""Runs: trained networks, how they do on virtual devices, and what is proven about them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)

from ohmloop.web import _net_catalogue, _net_runs
from ohmloop.web import _net_certified as certified
from ohmloop.web import _net_devices as net
from ohmloop.web import _net_run_plots as plots
from ohmloop.web._errors import NotFoundError, WebError
from ohmloop.web._jobs import Job
from ohmloop.web._net_arrays import check_array
from ohmloop.web._net_runs import RunView
from ohmloop.web._pages import Form, page, redirect, segment
from ohmloop.web._pages_net_devices import workspace_of
from ohmloop.web._pages_net_jobs import asked_of, jobs_of
from ohmloop.web._security import FILE_POLICY

router = APIRouter(include_in_schema=False)

LEVELS = "0.2, 0.5, 1"
"""Noise that the form offers first: little, that of a usable nanowire, and much."""
STATEMENTS = {
    "yield": "what share of random devices reaches which accuracy, and which inputs they get right",
    "percentile": "the same after all conductances have shifted together",
    "drift": "which classes survive which shifts, for each input",
    "box": "every weight off at once by some percent, in the worst direction (certain, needs no law)",
    "kl": "devices from another law nearby",
    "published": "the statement of the published method, for comparison",
}
"""Statement that can be asked for -> what it is about."""
MOST = 6
"""Runs on one plot, at most."""


@router.get("/runs")
def show_runs(
    request: Request,
    names: Annotated[list[str], Query(alias="with", max_length=60)] = [],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Show all runs, and those that were ticked on one plot."""
    _net_catalogue.warm(workspace_of(request).private)
    chosen = _chosen(request, names)
    return page(
        request,
        "runs.html.j2",
        rows=_net_runs.rows(workspace_of(request), jobs_of(request)),
        chosen=chosen,
        ticked={view.name for view in chosen},
        query="&".join(f"with={segment(view.name)}" for view in chosen),
    )


@router.get("/runs/plots/accuracy.json")
def draw_runs(
    request: Request,
    names: Annotated[list[str], Query(alias="with", max_length=60)] = [],  # noqa: B006  # FastAPI copies it
) -> JSONResponse:
    """Return score against sigma of several runs for plotly."""
    return JSONResponse(plots.accuracy_plot(_chosen(request, names)))


def _chosen(request: Request, names: list[str]) -> list[RunView]:
    wanted = list(dict.fromkeys(names))
    if len(wanted) > MOST:
        raise WebError(f"at most {MOST} runs on one plot; {len(wanted)} were ticked.")
    return [RunView.of(workspace_of(request), name) for name in wanted]


@router.get("/runs/{name}")
def show_run(request: Request, name: str) -> Response:
    """Show one run: from its first epoch in the queue to its certificates."""
    workspace, jobs = workspace_of(request), jobs_of(request)
    about = jobs.list(target=f"run/{name}", limit=20)
    live = [job for job in about if not job.is_over]
    last = about[0] if about else None
    if name not in workspace.runs():
        return _not_begun(request, name, about, live)
    view = RunView.of(workspace, name)
    kept = () if view.record is None else view.record.certificates
    return page(
        request,
        "run.html.j2",
        view=view,
        own=view.own,
        live=live,
        failed=last if last is not None and last.state == "failed" else None,
        unfinished=_unfinished(view, about),
        groups=_net_runs.certificates(view),
        panels=certified.panels(view),
        together=_net_runs.together(kept),
        on_arrays=[e for e in view.evaluations if e.arrays is not None],
        settings=view.settings(),
        files=_net_runs.files(workspace, name),
        reports=workspace.reports(workspace.run(name)),
        net=_net_runs,
        devices_height=plots.devices_height(view),
        levels="" if view.array else LEVELS,  # empty: what it was trained for
        statements=STATEMENTS,
        own_devices=[d.name for d in net.own_devices(workspace) if d.model is not None],
        built_in=[d.name for d in net.built_in()],
    )


def _not_begun(request: Request, name: str, about: list[Job], live: list[Job]) -> Response:
    """Show a training that has no folder yet: it waits, failed at once, or was cancelled before."""
    train = next((job for job in about if job.kind == "train"), None)
    if train is None:
        raise NotFoundError(f'there is no run called "{name[:80]}" in this folder.')
    return page(
        request, "run_waits.html.j2", run_name=name, job=train, live=live, asked=asked_of(train)
    )


def _unfinished(view: RunView, about: list[Job]) -> Job | None:
    """Return the training to go on with, of a run that was left unfinished."""
    if view.record is not None or view.problem:
        return None
    return next((job for job in about if job.kind == "train" and job.is_over), None)


@router.get("/runs/{name}/plots/{what}.json")
def draw_run(request: Request, name: str, what: str) -> JSONResponse:
    """Return one plot of a run for plotly."""
    view = RunView.of(workspace_of(request), name)
    if what == "accuracy":
        return JSONResponse(plots.accuracy_plot([view]))
    if what == "devices":
        return JSONResponse(plots.devices_plot(view))
    if what == "history":
        return JSONResponse(plots.history_plot(view))
    if (kind := what.removeprefix("certified-")) in certified.PANELS and kind != what:
        return JSONResponse(certified.plot(view, kind))
    raise NotFoundError(f"a run has no plot {what[:40]}.")


@router.get("/runs/{name}/certificates.csv")
def certified_curves(request: Request, name: str) -> PlainTextResponse:
    """Return the curves of the certificates as CSV."""
    text = certified.to_csv(RunView.of(workspace_of(request), name))
    return PlainTextResponse(text, media_type="text/csv")


@router.get("/runs/{name}/scores.csv")
def scores(request: Request, name: str) -> PlainTextResponse:
    """Return the score of every virtual device as CSV."""
    text = plots.accuracy_csv(RunView.of(workspace_of(request), name))
    return PlainTextResponse(text, media_type="text/csv")


@router.get("/runs/{name}/files/{path:path}")
def take_file(request: Request, name: str, path: str) -> FileResponse:
    """Return a file of a run, to be saved."""
    workspace = workspace_of(request)
    if path not in {file.path for file in _net_runs.files(workspace, name)}:
        raise NotFoundError(f'run {name} has no file "{path[:80]}".')
    return FileResponse(workspace.run(name) / path, filename=f"{name}-{path.replace('/', '-')}")


@router.get("/runs/{name}/reports/{file}")
def show_report(request: Request, name: str, file: str) -> FileResponse:
    """Return a report of a run: shown, but nothing in it runs."""
    workspace = workspace_of(request)
    place = workspace.report(workspace.run(name), file)
    return FileResponse(place, headers={"Content-Security-Policy": FILE_POLICY})


@router.post("/runs/{name}/evaluate")
def evaluate(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue the scoring on virtual devices."""
    arguments: dict[str, Any] = {
        "sigmas": _numbers(str(form.get("sigmas", ""))),
        "devices": [d for d in map(str, form.getlist("devices")) if d],
    }
    for key in ("n_devices", "seed"):
        if str(form.get(key, "")).strip():
            arguments[key] = str(form[key]).strip()
    if form.get("on_arrays"):
        text = str(form.get("array", "")).strip()
        if text:  # the list of words takes another process some seconds, once
            check_array(text, _net_catalogue.catalogue(workspace_of(request).private).array)
        arguments["array"] = text
    where = ", on arrays" if "array" in arguments else ""
    return _submit(request, name, "evaluate", arguments, f"Test {name} on virtual devices{where}")


@router.post("/runs/{name}/certify")
def certify(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue certificates."""
    statements = [str(s) for s in form.getlist("statements")]
    if not statements:
        raise WebError("tick at least one statement to prove.")
    arguments: dict[str, Any] = {"statements": statements}
    if str(form.get("device", "")).strip():
        arguments["device"] = str(form["device"]).strip()
    if str(form.get("n_devices", "")).strip():
        arguments["n_devices"] = str(form["n_devices"]).strip()
    sure = _numbers(str(form.get("confidence", "95")).replace("%", ""))
    if len(sure) != 1 or not 50 <= sure[0] < 100:
        raise WebError("the confidence is one number of percent, from 50 to below 100.")
    arguments["alpha"] = round(1 - sure[0] / 100, 12)
    return _submit(request, name, "certify", arguments, f"Certify {name}")


@router.post("/runs/{name}/report")
def report(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue the report: one file that holds what this page shows."""
    arguments = {"what": "run", "pdf": bool(form.get("pdf"))}
    return _submit(request, name, "report", arguments, f"Report on {name}")


def _submit(
    request: Request, name: str, kind: str, arguments: dict[str, Any], title: str
) -> RedirectResponse:
    workspace_of(request).run(name)
    job = jobs_of(request).submit(kind, f"run/{name}", arguments, title=title)
    return redirect(f"/runs/{segment(name)}#now", f"Queued as job {job.id}.")


def _numbers(text: str) -> list[float]:
    """Return the numbers of a text; blanks, semicolons, and commas before a blank part them.

    Raises:
        WebError: Naming what is no number.
    """
    out = []
    for part in re.split(r"[\s;]+|,\s*", text.strip()):
        if not part:
            continue
        try:
            out.append(float(part))
        except ValueError:
            raise WebError(f'"{part[:40]}" is no number; write levels like {LEVELS}.') from None
    return out
