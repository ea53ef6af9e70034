"""``/api/v1/jobs``, ``runs`` and ``devices``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from ohmloop.device import DeviceModel, list_devices, list_presets, load_device
from ohmloop.errors import DeviceError
from ohmloop.web._api_common import Body, errors, jobs_of, workspace_of
from ohmloop.web._errors import NotFoundError
from ohmloop.web._jobs import Job

router = APIRouter(responses=errors())


class NewJob(Body):
    """A job to queue; the arguments of each kind are checked when it is submitted."""

    kind: Annotated[str, Field(max_length=40, description='"suggest", "train", "evaluate", ...')]
    target: Annotated[
        str, Field(max_length=200, description='"campaign/NAME", "run/NAME" or "device/NAME".')
    ]
    arguments: dict[str, Any] = Field(default_factory=dict)
    title: Annotated[str, Field(max_length=200)] = ""


@router.get("/jobs", tags=["jobs"])
def list_jobs(
    request: Request,
    target: Annotated[str | None, Query(max_length=200)] = None,
    kind: Annotated[str | None, Query(max_length=40)] = None,
    active: Annotated[bool, Query(description="Only those that wait or run.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[Job]:
    """List jobs, newest first."""
    return jobs_of(request).list(target=target, kind=kind, is_active=active, limit=limit)


@router.post("/jobs", tags=["jobs"], status_code=202, responses=errors(409))
def submit_job(request: Request, body: NewJob) -> Job:
    """Queue a job."""
    title = body.title or f"{body.kind}, {body.target.partition('/')[2]}"
    return jobs_of(request).submit(body.kind, body.target, body.arguments, title=title)


@router.get("/jobs/{id}", tags=["jobs"])
def get_job(request: Request, id: str) -> Job:
    """Return a job as it is now."""
    return jobs_of(request).get(id)


@router.post("/jobs/{id}/cancel", tags=["jobs"])
def cancel_job(request: Request, id: str) -> Job:
    """Stop a job; one that is over stays as it is."""
    return jobs_of(request).cancel(id)


@router.post("/jobs/{id}/retry", tags=["jobs"], status_code=202, responses=errors(409))
def retry_job(request: Request, id: str) -> Job:
    """Queue the same again, as a new job."""
    return jobs_of(request).retry(id)


@router.get(
    "/jobs/{id}/events",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: the job as JSON, now and after each change, until it is over.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def watch_job(request: Request, id: str) -> StreamingResponse:
    """Follow a job: an event ``job`` with the job as JSON, now and after each change."""
    jobs = jobs_of(request)
    jobs.get(id)

    async def events() -> AsyncIterator[str]:
        async for job in jobs.watch(id):
            yield f"event: job\ndata: {job.model_dump_json()}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


# -- runs and devices ---------------------------------------------------------------------------


class RunLine(BaseModel):
    """A training in a list."""

    name: str
    is_finished: bool


class RunOut(RunLine):
    """A training: its configuration, and what came of it."""

    config: dict[str, Any]
    result: dict[str, Any] | None = Field(description="Null while it is not finished.")


class DeviceLine(BaseModel):
    """A device model in a list."""

    name: str
    description: str
    sigma: float | None
    is_built_in: bool
    problem: str = Field(description="Why its file cannot be read; empty where it can.")


@router.get("/runs", tags=["runs"])
def list_runs(request: Request) -> list[RunLine]:
    """List the trainings of the folder."""
    space = workspace_of(request)
    return [RunLine(name=n, is_finished=_result(space.run(n)) is not None) for n in space.runs()]


@router.get("/runs/{name}", tags=["runs"])
def get_run(request: Request, name: str) -> RunOut:
    """Return a training's configuration and result."""
    folder = workspace_of(request).run(name)
    result = _result(folder)
    return RunOut(
        name=name,
        is_finished=result is not None,
        config=_json(folder / "config.json") or {},
        result=result,
    )


@router.get("/devices", tags=["devices"])
def list_all_devices(request: Request) -> list[DeviceLine]:
    """List the devices: the workspace's own, 43 measured nanowires, and published cells."""
    out = []
    for name in workspace_of(request).devices():
        try:
            out.append(_line(name, load_device(workspace_of(request).device(name)), False))
        except DeviceError as error:
            line = DeviceLine(
                name=name, description="", sigma=None, is_built_in=False, problem=str(error)
            )
            out.append(line)
    return out + [_line(d.name, d, True) for d in (*list_devices(), *list_presets())]


@router.get("/devices/{name}", tags=["devices"])
def get_device(request: Request, name: str) -> dict[str, Any]:
    """Return a device model as JSON: one of the workspace, or a built-in one."""
    space = workspace_of(request)
    if name in space.devices():
        return load_device(space.device(name)).model_dump(mode="json")
    for device in (*list_devices(), *list_presets()):
        if device.name == name:
            return device.model_dump(mode="json")
    raise NotFoundError(f'there is no device "{name[:80]}"; GET /api/v1/devices lists them.')


def _line(name: str, device: DeviceModel, is_built_in: bool) -> DeviceLine:
    return DeviceLine(
        name=name,
        description=device.description,
        sigma=device.sigma.value,
        is_built_in=is_built_in,
        problem="",
    )


def _result(folder: Path) -> dict[str, Any] | None:
    return _json(folder / "result.json") if (folder / "result.json").is_file() else None


def _json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds; None where it holds no record."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
