"""Devices side by side: their laws, where they come from, and a form that fits one's own."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.datastructures import UploadFile

from ohmloop.device import export_device
from ohmloop.errors import DeviceError
from ohmloop.web import _net_devices as net
from ohmloop.web._errors import NotFoundError, WebError
from ohmloop.web._pages import Form, page, redirect, segment
from ohmloop.web._pages_net_jobs import jobs_of
from ohmloop.web._uploads import Uploads
from ohmloop.web._workspace import Workspace

router = APIRouter(include_in_schema=False)

MOST = 7
"""Devices beside each other, at most: as many as there are colours that can be told apart."""
_EXPORTS = {"json": "json", "aihwkit": "py", "crosssim": "py"}

With = Annotated[list[str], Query(alias="with", max_length=60)]


def workspace_of(request: Request) -> Workspace:
    """Return the served workspace."""
    workspace: Workspace = request.app.state.workspace
    return workspace


@router.get("/devices")
def show_devices(
    request: Request,
    names: With = [],  # noqa: B006  # FastAPI copies it
    level: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Show all devices, and those that were ticked beside each other."""
    workspace = workspace_of(request)
    chosen = _chosen(workspace, names, level)
    own, known = net.own_devices(workspace), net.built_in()
    query = "&".join(f"with={segment(s.name)}" for s in chosen)
    return page(
        request,
        "devices.html.j2",
        own=own,
        wires=[s for s in known if s.origin == "nanowire"],
        cells=[s for s in known if s.origin == "cell"],
        chosen=chosen,
        ticked={s.name for s in chosen},
        facts=_facts(chosen),
        query=query,
        most=MOST,
        net=net,
        live=[j for j in jobs_of(request).list(kind="device-fit", limit=10) if not j.is_over],
    )


@router.get("/devices/plots/{what}.json")
def draw_devices(
    request: Request,
    what: Literal["law", "table"],
    names: With = [],  # noqa: B006  # FastAPI copies it
) -> JSONResponse:
    """Return the curves of some devices for plotly."""
    chosen = _chosen(workspace_of(request), names, "")
    return JSONResponse(net.law_plot(chosen) if what == "law" else net.table_plot(chosen))


@router.post("/devices/fit")
def fit_device(request: Request, form: Form) -> RedirectResponse:
    """Queue the fit of a device to uploaded files."""
    name = str(form.get("name", ""))
    place = workspace_of(request).new_name("device", name)
    kept: Uploads = request.app.state.uploads
    files = [f for f in form.getlist("files") if isinstance(f, UploadFile) and f.filename]
    uploads = [
        kept.keep(f.filename or "", iter(partial(f.file.read, 2**20), b"")).id for f in files
    ]
    if not uploads:
        raise WebError("choose at least one file with measurements of the device.")
    arguments: dict[str, Any] = {"uploads": uploads}
    for key in ("kind", "read_voltage", "voltage_unit", "current_unit"):
        value = str(form.get(key, "")).strip()
        if value:
            arguments[key] = value
    job = jobs_of(request).submit(
        "device-fit", f"device/{place.stem}", arguments, title=f"Fit the device {place.stem}"
    )
    return redirect(f"/jobs/{job.id}")


@router.get("/devices/{name}")
def show_device(request: Request, name: str) -> Response:
    """Show one device: its law, its figures, its constants, and every source."""
    shown = _find(workspace_of(request), name)
    assert shown.model is not None
    return page(
        request,
        "device.html.j2",
        device=shown,
        model=shown.model,
        figures=net.figure_lines(shown.model),
        constants=net.constant_lines(shown.model),
        exports=_EXPORTS,
    )


@router.get("/devices/{name}/export/{target}")
def export(request: Request, name: str, target: str) -> Response:
    """Return a device as a file for this or another simulator."""
    shown = _find(workspace_of(request), name)
    assert shown.model is not None
    if target not in _EXPORTS:
        raise NotFoundError(
            f"there is no export to {target[:40]}; there are {', '.join(_EXPORTS)}."
        )
    tail = "" if target == "json" else f"-{target}"
    file = f"{shown.name}{tail}.{_EXPORTS[target]}"
    return Response(
        export_device(shown.model, target),
        media_type="application/json" if target == "json" else "text/x-python",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{segment(file)}"},
    )


def _find(workspace: Workspace, name: str) -> net.Shown:
    try:
        return net.find(workspace, name)
    except DeviceError as error:
        # A file that is there and damaged is no page that is missing.
        if name in workspace.devices() or name.startswith("lognormal:"):
            raise
        raise NotFoundError(str(error)) from None


def _chosen(workspace: Workspace, names: list[str], level: str) -> list[net.Shown]:
    wanted = list(dict.fromkeys(names))
    if level.strip():
        wanted.append(f"lognormal:{level.strip().removeprefix('lognormal:')}")
    if len(wanted) > MOST:
        raise WebError(f"at most {MOST} devices beside each other; {len(wanted)} were ticked.")
    return [_find(workspace, name) for name in wanted]


def _facts(chosen: list[net.Shown]) -> list[tuple[str, list[str]]]:
    """Return what is compared: a row of values for each property that one of the devices has."""

    def sigma(s: net.Shown) -> str:
        known = f" ({s.interval})" if s.interval else ""
        return f"{s.sigma:.3f}{known}"

    rows: list[tuple[str, list[str]]] = [
        ("what it is", [s.kind for s in chosen]),
        ("sigma of ln G (95 % interval)", [sigma(s) for s in chosen]),
        ("that means", [s.factor for s in chosen]),
        ("level table rho", [s.table for s in chosen]),
        ("conductance window", [s.window or "–" for s in chosen]),
        ("on/off ratio", [s.told("on_off_ratio") for s in chosen]),
        ("monotone part of the ramp", [s.told("monotonicity", 2) for s in chosen]),
        ("usability", [s.told("usability") for s in chosen]),
        ("cycles measured", [s.told("cycles") for s in chosen]),
        ("physics of one cell", ["yes" if s.model and s.model.physics else "–" for s in chosen]),
        ("source", [s.source for s in chosen]),
    ]
    return [(what, values) for what, values in rows if any(v not in ("", "–") for v in values)]
