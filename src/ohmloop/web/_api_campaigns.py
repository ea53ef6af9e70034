"""``/api/v1/campaigns``: what stands there, what a person decided, what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Header, Query, Request, UploadFile
from fastapi.responses import FileResponse
from starlette.responses import Response

from ohmloop.campaign import Campaign, Config, Trial, list_templates, sentences
from ohmloop.web._api_common import (
    Actor,
    CampaignName,
    IfMatch,
    TrialId,
    actor_of,
    errors,
    jobs_of,
    opened,
    reader_of,
    seen_of,
    uploads_of,
    workspace_of,
)
from ohmloop.web._api_models import (
    Added,
    CampaignLine,
    CampaignOut,
    Decision,
    KeptFile,
    LogOut,
    NewCampaign,
    OwnExperiment,
    Result,
    SuggestionRequest,
    TrialOut,
    Undo,
    Undone,
)
from ohmloop.web._errors import NotFoundError, WebError
from ohmloop.web._helper import plain
from ohmloop.web._jobs import Job
from ohmloop.web._reader import Ingestion
from ohmloop.web._security import FILE_POLICY

router = APIRouter(prefix="/campaigns", tags=["campaigns"], responses=errors())

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Of the sender, for this trial: a second request with it records nothing.",
    ),
]


# -- reading ------------------------------------------------------------------------------------


@router.get("")
def list_campaigns(request: Request) -> list[CampaignLine]:
    """List the campaigns of the folder."""
    from ohmloop.errors import OhmloopError

    out = []
    for folder in workspace_of(request).campaigns():
        line = {"folder": folder, "name": "", "n_trials": 0, "last_event": 0, "problem": ""}
        try:
            with opened(request, folder) as campaign:
                line["name"] = campaign.config.name
                line["n_trials"] = len(campaign.trials)
                line["last_event"] = campaign.state.last_event
        except OhmloopError as error:
            line["problem"] = str(error)
        out.append(CampaignLine.model_validate(line))
    return out


@router.post("", status_code=201, responses=errors(409))
def new_campaign(request: Request, body: NewCampaign, actor: Actor = None) -> CampaignOut:
    """Start a campaign from a template or from a text."""
    if (body.template is None) == (body.text is None):
        raise WebError(f"give a template ({', '.join(list_templates())}) or a text, one of them.")
    place = workspace_of(request).new_name("campaign", body.folder)
    with Campaign.new(
        place, template=body.template, text=body.text, actor=actor_of(actor)
    ) as campaign:
        return _campaign(place.name, campaign)


@router.get("/{name}")
def get_campaign(request: Request, response: Response, name: CampaignName) -> CampaignOut:
    """Say where a campaign stands. No model is fitted; ask for a job "advice" for that."""
    with opened(request, name) as campaign:
        _tag(response, campaign)
        return _campaign(name, campaign)


@router.get("/{name}/trials")
def list_trials(
    request: Request,
    response: Response,
    name: CampaignName,
    status: Annotated[
        Literal["suggested", "accepted", "rejected", "withdrawn", "done"] | None, Query()
    ] = None,
) -> list[TrialOut]:
    """List the trials, by default all of them."""
    with opened(request, name) as campaign:
        _tag(response, campaign)
        return [
            _trial(campaign.config, trial)
            for trial in campaign.trials.values()
            if status in (None, trial.status)
        ]


@router.get("/{name}/trials/{trial}")
def get_trial(request: Request, response: Response, name: CampaignName, trial: TrialId) -> TrialOut:
    """Return one trial."""
    with opened(request, name) as campaign:
        _tag(response, campaign)
        return _trial(campaign.config, _found(campaign, trial))


@router.get("/{name}/log")
def get_log(
    request: Request,
    response: Response,
    name: CampaignName,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only later events.")] = 0,
) -> list[LogOut]:
    """Return every event in words, oldest first."""
    with opened(request, name) as campaign:
        _tag(response, campaign)
        return [
            LogOut.model_validate(line._asdict()) for line in campaign.log() if line.event > after
        ]


# -- deciding -----------------------------------------------------------------------------------


@router.post("/{name}/suggestions", status_code=202)
def ask_for_suggestions(
    request: Request, name: CampaignName, body: SuggestionRequest, actor: Actor = None
) -> Job:
    """Ask for suggestions: a job, whose result names the trials."""
    arguments = {**body.model_dump(), "actor": actor_of(actor) or ""}
    return jobs_of(request).submit(
        "suggest", f"campaign/{name}", arguments, title=f"Suggestions for {name}"
    )


@router.post("/{name}/trials", status_code=201, responses=errors(409))
def add_trial(
    request: Request,
    response: Response,
    name: CampaignName,
    body: OwnExperiment,
    actor: Actor = None,
) -> Added:
    """Add an experiment of one's own."""
    with opened(request, name, is_writable=True, actor=actor) as campaign:
        trial, outside = campaign.add(body.recipe, note=body.note)
        _tag(response, campaign)
        return Added(trial=_trial(campaign.config, trial), outside=outside)


@router.post("/{name}/trials/{trial}/decision", responses=errors(409))
def decide(
    request: Request,
    response: Response,
    name: CampaignName,
    trial: TrialId,
    body: Decision,
    actor: Actor = None,
    if_match: IfMatch = None,
) -> TrialOut:
    """Accept, reject or edit a trial."""
    with opened(request, name, is_writable=True, actor=actor, if_match=if_match) as campaign:
        found = _found(campaign, trial).id
        if body.decision == "accept":
            done = campaign.accept(found)
        elif body.decision == "reject":
            done = campaign.reject(found, body.reason)
        else:
            done = campaign.edit(found, **body.changes)
        _tag(response, campaign)
        return _trial(campaign.config, done)


@router.post("/{name}/undo", responses=errors(409))
def undo(
    request: Request,
    response: Response,
    name: CampaignName,
    body: Undo,
    actor: Actor = None,
    if_match: IfMatch = None,
) -> Undone:
    """Take an event back; the log keeps both."""
    with opened(request, name, is_writable=True, actor=actor, if_match=if_match) as campaign:
        event = campaign.undo(body.event)
        _tag(response, campaign)
        return Undone(event=event.id, kind=event.kind, last_event=campaign.state.last_event)


# -- recording ----------------------------------------------------------------------------------


@router.post("/{name}/trials/{trial}/records", responses=errors(409))
def record(
    request: Request,
    response: Response,
    name: CampaignName,
    trial: TrialId,
    body: Result,
    actor: Actor = None,
    if_match: IfMatch = None,
    key: Key = None,
) -> TrialOut:
    """Record the result of one device; call it again for each further one."""
    with opened(request, name, is_writable=True, actor=actor, if_match=if_match) as campaign:
        found = _found(campaign, trial).id
        done = campaign.record(
            found,
            values=body.values,
            errors=body.errors,
            failed_at=body.failed_at,
            passed=body.passed,
            device=body.device,
            note=body.note,
            key=None if key is None else f"api:{found}:{key}",
        )
        _tag(response, campaign)
        return _trial(campaign.config, done)


@router.get("/{name}/files")
def list_files(request: Request, name: CampaignName) -> list[KeptFile]:
    """List the raw files of a campaign."""
    with opened(request, name) as campaign:
        places = {sha256: campaign.file_path(sha256) for sha256 in campaign.files()}
        return [
            KeptFile(sha256=sha256, name=file, size=_size(places[sha256]))
            for sha256, file in campaign.files().items()
        ]


@router.post("/{name}/files", responses=errors(409))
def ingest(
    request: Request,
    name: CampaignName,
    file: Annotated[UploadFile, Form(description="A measurement file.")],
    trial: Annotated[
        str | None,
        Form(
            max_length=200,
            description="Its trial; without it the file's name decides: T007_dev2.csv.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        Form(max_length=200, description="Name of a kept mapping of columns."),
    ] = None,
    voltage_unit: Annotated[str | None, Form(max_length=20)] = None,
    current_unit: Annotated[str | None, Form(max_length=20)] = None,
    actor: Actor = None,
    if_match: IfMatch = None,
) -> Ingestion:
    """Keep a measurement file and record its figures of merit. The same file again changes nothing."""
    folder = workspace_of(request).campaign(name)
    upload = uploads_of(request).keep(file.filename or "", iter(lambda: file.file.read(2**20), b""))
    try:
        return reader_of(request).ingest(
            folder,
            [upload.path],
            trial=trial or None,
            recipe=recipe or None,
            voltage_unit=voltage_unit or None,
            current_unit=current_unit or None,
            actor=actor_of(actor),
            seen=seen_of(if_match),
        )[0]
    finally:
        uploads_of(request).drop(upload.id)


@router.get(
    "/{name}/files/{sha256}",
    response_class=FileResponse,
    responses={
        200: {
            "description": "The bytes as they were handed in.",
            "content": {"application/octet-stream": {}},
        }
    },
)
def get_file(request: Request, name: CampaignName, sha256: str) -> FileResponse:
    """Return a raw file."""
    with opened(request, name) as campaign:
        files = campaign.files()
        path = campaign.file_path(sha256) if sha256 in files else Path()
    if sha256 not in files or not path.is_file() or not workspace_of(request).is_inside(path):
        raise NotFoundError("this campaign keeps no file with this hash.")
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=files[sha256],
        headers={"Content-Security-Policy": FILE_POLICY},
    )


# -- helpers ------------------------------------------------------------------------------------


def _tag(response: Response, campaign: Campaign) -> None:
    response.headers["ETag"] = f'"{campaign.state.last_event}"'


def _found(campaign: Campaign, trial: str) -> Trial:
    from ohmloop.errors import CampaignError

    try:
        return campaign.state.trial(trial)
    except CampaignError as error:
        raise NotFoundError(str(error)) from None


def _campaign(folder: str, campaign: Campaign) -> CampaignOut:
    config, status = campaign.config, campaign.status(advice=False)
    return CampaignOut.model_validate(
        plain(
            {
                "folder": folder,
                "name": config.name,
                "last_event": campaign.state.last_event,
                "counts": status.counts,
                "n_done": status.n_done,
                "n_failed": status.n_failed,
                "failures_by_stage": status.failures_by_stage,
                "best": {k: {"trial": t, "value": v} for k, (t, v) in status.best.items()},
                "budget": {k: {"used": u, "total": t} for k, (u, t) in status.budget.items()},
                "pins": status.pins,
                "open_trials": [trial.id for trial in status.open_trials],
                "variables": list(config.variables),
                "objectives": [o.name for o in config.objectives],
                "stages": [s.name for s in config.stages],
            }
        )
    )


def _trial(config: Config, trial: Trial) -> TrialOut:
    values = plain(trial)
    reasons = values.pop("reasons")
    values["why"] = sentences(config, trial.reasons) if reasons else []
    return TrialOut.model_validate(values)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
