"""The lab book: settings, the log, the sheet for spreadsheet programs, and reports."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from ohmloop.campaign import Campaign, parse_config, read_config
from ohmloop.errors import CampaignError, ConflictError
from ohmloop.store import Store
from ohmloop.web._errors import NotFoundError, WebError
from ohmloop.web._jobs import Jobs
from ohmloop.web._lab import lab_page, opened, seen_in, target, url
from ohmloop.web._pages import Form, actor_of, page, redirect
from ohmloop.web._places import place_in
from ohmloop.web._security import FILE_POLICY
from ohmloop.web._uploads import safe_name
from ohmloop.web._workspace import Workspace

router = APIRouter(prefix="/campaigns/{name}", include_in_schema=False)
SETTINGS = "campaign.toml"
SHEETS = {
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "csv": "text/csv; charset=utf-8",
}


# -- settings -----------------------------------------------------------------------------------


@router.get("/settings")
def settings(request: Request, name: str) -> Response:
    """Show campaign.toml as text to change; one that was damaged by hand too."""
    return _settings_page(request, name)


def _settings_page(
    request: Request,
    name: str,
    typed: str | None = None,
    problem: str = "",
    status: int = 200,
    was: str | None = None,
) -> HTMLResponse:
    """Return the page of the settings.

    Args:
        request: To answer.
        name: Of the campaign.
        typed: What the person typed; None for the file as it is.
        problem: What is wrong with it.
        status: Of the answer.
        was: Digest of the file that it was typed for; that of the file as it is now by default.
    """
    folder: Path = request.app.state.workspace.campaign(name)
    content = (folder / SETTINGS).read_bytes()
    found = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    broken = _problem_of(folder)
    text = found if typed is None else typed
    told = problem or broken
    shown: dict[str, Any] = {
        "text": text,
        "problem": told,
        "is_typed": typed is not None,
        "broken": broken,
        "found": found if status == 409 else "",
        "was": was or _digest(content),
        # What was typed fits where somebody else changed the file: there is no line to point at.
        "place": place_in(text, told) if told and status != 409 else None,
    }
    if not broken:
        with opened(request, name) as campaign:
            config = campaign.config
            return lab_page(
                request,
                "settings.html.j2",
                name,
                campaign,
                "settings",
                status=status,
                config=config,
                **shown,
            )
    with Store.open(folder, writable=False) as store:
        last = store.events()[-1].id
    return page(
        request,
        "settings.html.j2",
        status=status,
        campaign=name,
        base=url(name),
        title=name,
        seen=last,
        tab="settings",
        config=None,
        **shown,
    )


def _problem_of(folder: Path) -> str:
    """Return why the settings of a campaign cannot be read; empty where they can."""
    try:
        read_config(folder / SETTINGS)
    except CampaignError as error:
        return str(error)
    return ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@router.post("/settings")
def save_settings(request: Request, name: str, form: Form) -> Response:
    """Replace campaign.toml by another text, which is checked first; also one that nobody can read any more."""
    folder: Path = request.app.state.workspace.campaign(name)
    text = str(form.get("text", "")).replace("\r\n", "\n")
    was = str(form.get("was", "")) or None
    try:
        parse_config(text)
    except CampaignError as error:
        return _settings_page(request, name, text, str(error), 422, was)
    if _problem_of(folder):
        try:
            Campaign.mend(folder, text, was=was or "", actor=actor_of(request))
        except ConflictError as error:
            return _settings_page(request, name, text, str(error), 409)
        return redirect(
            url(name, "settings"), "The settings are mended; the campaign is open again."
        )
    with opened(request, name, form) as campaign:
        before = campaign.state.last_event
        campaign.configure(text)
        changed = campaign.state.last_event != before
    said = (
        "The settings are saved; trials keep what they have." if changed else "Nothing has changed."
    )
    return redirect(url(name, "settings"), said)


# -- log ----------------------------------------------------------------------------------------


@router.get("/log")
def log(request: Request, name: str) -> HTMLResponse:
    """Show every event, latest first, each with the way to take it back."""
    with opened(request, name) as campaign:
        return lab_page(
            request, "log.html.j2", name, campaign, "log", log=list(reversed(campaign.log()))
        )


# -- sheets -------------------------------------------------------------------------------------


@router.get("/sheet.{form}")
def sheet(request: Request, name: str, form: str) -> Response:
    """Return the trial sheet, to be filled in with a spreadsheet program."""
    if form not in SHEETS:
        raise NotFoundError("the sheet is there as .xlsx and .csv.")
    folder = request.app.state.workspace.campaign(name)
    place = tempfile.TemporaryDirectory(prefix="ohmloop-")
    path = request.app.state.reader.export_sheet(folder, Path(place.name) / f"trials.{form}")
    return FileResponse(
        path,
        media_type=SHEETS[form],
        filename=f"{name}.{form}",
        background=BackgroundTask(place.cleanup),
    )


@router.post("/sheet")
async def take_sheet(request: Request, name: str, form: Form) -> Response:
    """Read a sheet that was filled in: all of it, or nothing."""
    sent = form.get("file")
    if not isinstance(sent, UploadFile) or not sent.filename:
        raise WebError("no sheet was chosen.")
    file, earlier = sent, str(form.get("earlier", "")).strip() or None
    folder = request.app.state.workspace.campaign(name)
    request.state.campaign = name

    def read() -> str:
        with tempfile.TemporaryDirectory(prefix="ohmloop-") as place:
            path = Path(place) / safe_name(str(file.filename))
            path.write_bytes(file.file.read())
            done = request.app.state.reader.import_sheet(
                folder, path, earlier=earlier, actor=actor_of(request), seen=seen_in(form)
            )
        counts = (
            (done.recorded, "result"),
            (done.added, "new trial"),
            (done.decided, "decision"),
            (done.unchanged, "row known before"),
        )
        said = ", ".join(_count(n, what) for n, what in counts if n) or "nothing new"
        return "\n".join([f"From the sheet: {said}.", *done.notes])

    return redirect(url(name, "trials"), await run_in_threadpool(read))


def _count(n: int, what: str) -> str:
    if what == "row known before":
        return f"{n} {'row' if n == 1 else 'rows'} known before"
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


# -- reports ------------------------------------------------------------------------------------


@router.get("/reports")
def reports(request: Request, name: str) -> HTMLResponse:
    """List the reports, and make new ones."""
    space: Workspace = request.app.state.workspace
    jobs: Jobs = request.app.state.jobs
    folder = space.campaign(name)
    last = jobs.latest("report", target(name))
    with opened(request, name) as campaign:
        return lab_page(
            request,
            "reports.html.j2",
            name,
            campaign,
            "reports",
            job=last if last is not None and not last.is_over else None,
            failed=last.error if last is not None and last.state == "failed" else "",
            reports=[
                {"name": file, "at": (folder / "reports" / file).stat().st_mtime}
                for file in space.reports(folder)
            ],
        )


@router.post("/reports")
def make_report(request: Request, name: str, form: Form) -> Response:
    """Write the report in the background."""
    request.app.state.workspace.campaign(name)
    jobs: Jobs = request.app.state.jobs
    last = jobs.latest("report", target(name))
    if last is None or last.is_over:
        wanted = {"what": "campaign", "pdf": "pdf" in form}
        jobs.submit("report", target(name), wanted, title=f"Report of {name}")
    return redirect(url(name, "reports"))


@router.get("/reports/{file}")
def report(request: Request, name: str, file: str) -> Response:
    """Return a report; nothing in it can run or reach the page."""
    space: Workspace = request.app.state.workspace
    path = space.report(space.campaign(name), file)
    shown = "inline" if path.suffix in (".html", ".pdf", ".svg") else "attachment"
    return FileResponse(
        path,
        headers={
            "Content-Security-Policy": FILE_POLICY,
            "Content-Disposition": f"{shown}; filename*=UTF-8''{quote(file)}",
        },
    )
