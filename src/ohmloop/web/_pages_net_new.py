"""The form for a new run: what to learn, how, and for which device; its defaults train at one click."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from ohmloop.web import _net_devices as net
from ohmloop.web._errors import WebError
from ohmloop.web._net_arrays import CHOICES, WORDS, array_in
from ohmloop.web._net_catalogue import Catalogue, MethodEntry, catalogue
from ohmloop.web._net_words import METHODS
from ohmloop.web._pages import Again, Form, page, redirect, segment
from ohmloop.web._pages_net_devices import workspace_of
from ohmloop.web._pages_net_jobs import jobs_of
from ohmloop.web._workspace import Workspace

router = APIRouter(include_in_schema=False)

TASK, METHOD, DEVICE = "digits", "weight-noise", "lognormal:0.5"
"""What one click trains: a minute on any machine, and a network that withstands its device."""


@router.get("/runs/new")
async def new_run(
    request: Request,
    task: Annotated[str, Query(max_length=60)] = TASK,
    device: Annotated[str, Query(max_length=80)] = DEVICE,
) -> Response:
    """Show the form, filled in with defaults that work."""
    workspace = workspace_of(request)
    known = await run_in_threadpool(catalogue, workspace.private)
    chosen = net.find(workspace, device) if device != DEVICE else None
    level = device.removeprefix("lognormal:") if device.startswith("lognormal:") else ""
    return page(
        request,
        "run_new.html.j2",
        catalogue=known,
        here_tasks=[t for t in known.tasks if not t.missing],
        missing_tasks=[t for t in known.tasks if t.missing],
        methods=[m for name in METHODS if (m := known.method(name)) is not None],
        words=METHODS,
        chosen_task=task if known.task(task) else TASK,
        method=METHOD,
        level=level,
        device="" if level else chosen.name if chosen else "",
        own=[d for d in net.own_devices(workspace) if d.model is not None],
        built_in=net.built_in(),
        array_choices=CHOICES,
        array_help=WORDS,
        wanted=free_name(workspace, f"{task}-{METHOD}"),
    )


@router.post("/runs/new")
async def start_run(request: Request, form: Form) -> RedirectResponse:
    """Queue a training."""
    workspace = workspace_of(request)
    known = await run_in_threadpool(catalogue, workspace.private)
    task, method = str(form.get("task", TASK)), str(form.get("method", METHOD))
    request.state.again = _again(workspace, known)
    settings = str(form.get("settings", "")).strip().strip(",")
    arguments = _arguments(workspace, form, known, task, method, settings)
    name = str(form.get("name", "")).strip()
    place = workspace.new_name("run", name or free_name(workspace, f"{task}-{method}"))
    job = jobs_of(request).submit(
        "train",
        f"run/{place.name}",
        arguments,
        title=f"Train {place.name}: {task} by {method} for {arguments['device']}"
        + (", on arrays" if "array" in arguments else ""),
    )
    return redirect(f"/runs/{segment(place.name)}", f"Queued as job {job.id}.")


def _arguments(
    workspace: Workspace, form: Form, known: Catalogue, task: str, method: str, settings: str
) -> dict[str, Any]:
    """Return the arguments of the job; weight noise without settings shakes as hard as the device does."""
    entry, kind = known.task(task), known.method(method)
    if entry is None:
        raise WebError(f'there is no task "{task[:60]}"; choose one of the list.')
    if kind is None:
        raise WebError(f'there is no method "{method[:60]}"; choose one of the list.')
    _check_settings(kind, settings)
    device = device_in(form)
    if method == METHOD and not settings:
        settings = f"level={net.find(workspace, device).sigma:.3g}"
    model = str(form.get("model", "")).strip()
    if model and model not in entry.models:
        raise WebError(
            f'{task} has no network "{model[:60]}"; it has {", ".join(entry.models)}. Leave it empty for '
            f"{entry.default_model}."
        )
    arguments: dict[str, Any] = {
        "task": task,
        "method": f"{method}:{settings}" if settings else method,
        "device": device,
        "seed": _whole(form, "seed", 0),
    }
    array = array_in(form, known.array)
    if array is not None:
        arguments["array"] = array
    epochs = _whole(form, "epochs", None)
    deployment = str(form.get("deployment", "")).strip()
    return arguments | {
        key: value
        for key, value in (("model", model), ("epochs", epochs), ("deployment", deployment))
        if value
    }


def _again(workspace: Workspace, known: Catalogue) -> Again:
    """Return how the form is shown again where something does not fit."""
    devices = [d.name for d in (*net.own_devices(workspace), *net.built_in())]
    return Again(
        choices={
            "task": [(t.name, f"{t.name}: {t.description}") for t in known.tasks],
            "method": [(name, f"{name}: {words}") for name, words in METHODS.items()],
            "device": [("", "a log-normal law of the level beside"), *((d, d) for d in devices)],
            "array": list(CHOICES.items()),
        },
        labels={"array": "arrays", "array_own": "arrays, written out", "model": "network"},
    )


def device_in(form: Form) -> str:
    """Return the device that a form names: one of the list, or a log-normal law of some level."""
    named = str(form.get("device", "")).strip()
    if named:
        return named
    text = str(form.get("level", "")).strip() or "0.5"
    try:
        level = float(text.replace(",", "."))
    except ValueError:
        raise WebError(
            f'the level of the noise is a number like 0.5; received "{text[:40]}".'
        ) from None
    if not 0 <= level < 20:
        raise WebError(f"the level of the noise lies between 0 and 20; received {level:g}.")
    return f"lognormal:{level:g}"


def _whole(form: Form, key: str, default: int | None) -> int | None:
    text = str(form.get(key, "")).strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise WebError(f'{key} is a whole number; received "{text[:40]}".')
    return int(text)


def _check_settings(method: MethodEntry, settings: str) -> None:
    """Refuse a setting that the method does not have; the job itself checks the values."""
    for part in filter(None, settings.split(",")):
        key = part.partition("=")[0].strip().replace("-", "_")
        if "=" in part and key in method.settings:
            continue
        close = difflib.get_close_matches(key, method.settings, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise WebError(
            f'"{part.strip()[:60]}" is no setting of {method.name}.{hint} Write key=value, with '
            f"{', '.join(method.settings) or 'none: it has no settings'}."
        )


def free_name(workspace: Workspace, wanted: str) -> str:
    """Return a name for a run that nothing has yet: the wanted one with the next number."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", wanted).strip("-.")[:60] or "run"
    taken = {name.lower() for name in workspace.runs()}
    number = 1
    while f"{stem}-{number}".lower() in taken:
        number += 1
    return f"{stem}-{number}"
