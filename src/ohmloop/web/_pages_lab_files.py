"""Measurement files: dropped, looked at, their columns confirmed, attached to trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from ohmloop.campaign import Campaign
from ohmloop.data import FileRecipe
from ohmloop.web import _lab_plots as plots
from ohmloop.web._errors import NotFoundError, WebError
from ohmloop.web._lab import lab_page, opened, seen_in, url
from ohmloop.web._pages import Again, Form, actor_of, redirect
from ohmloop.web._pages_lab_overview import csv_response
from ohmloop.web._reader import Ingestion, Preview
from ohmloop.web._security import FILE_POLICY
from ohmloop.web._waiting import Waiting, WaitingFiles

router = APIRouter(prefix="/campaigns/{name}", include_in_schema=False)

ROLES = {
    "": "leave out",
    "voltage": "voltage",
    "current": "current",
    "cycle": "number of the cycle",
}
_CHUNK = 1 << 20


def _files(request: Request) -> WaitingFiles:
    state = request.app.state
    return WaitingFiles(state.workspace, state.uploads, state.reader)


@router.get("/files")
def files(request: Request, name: str, trial: str = "") -> HTMLResponse:
    """Show what waits, take more, and list what is kept."""
    with opened(request, name) as campaign:
        wanted = campaign.state.trial(trial).id if trial else ""
        owners = _owners(campaign)
        return lab_page(
            request,
            "files.html.j2",
            name,
            campaign,
            "files",
            config=campaign.config,
            items=_files(request).list(name),
            choices=_choices(campaign),
            wanted=wanted,
            kept=[
                {"sha": sha, "name": file, "trial": owners.get(sha, "")}
                for sha, file in sorted(campaign.files().items(), key=lambda item: item[1])
            ],
            recipes=campaign.file_recipes,
        )


def _choices(campaign: Campaign) -> list[str]:
    """Return the trials that can take results, those that wait for some first."""
    able = [t for t in campaign.trials.values() if t.status not in ("rejected", "withdrawn")]
    return [t.id for t in able if t.status == "accepted"] + [
        t.id for t in able if t.status != "accepted"
    ]


def _owners(campaign: Campaign) -> dict[str, str]:
    return {r.file: t.id for t in campaign.trials.values() for r in t.records if r.file}


@router.post("/files")
async def drop(request: Request, name: str, form: Form) -> Response:
    """Take files, several at once, and read each in the reader's process."""
    wanted = str(form.get("trial", ""))
    sent = [f for f in form.getlist("file") if isinstance(f, UploadFile) and f.filename]
    if not sent:
        raise WebError("no file was chosen. Choose one or more, or drop them on the page.")

    def read_all() -> list[Waiting]:
        with opened(request, name) as campaign:
            able = _choices(campaign)
            waits = [t for t in able if campaign.trials[t].status == "accepted"]
        if wanted in able:
            default = wanted
        else:
            default = waits[0] if len(waits) == 1 else ""
        keeper = _files(request)
        return [keeper.add(name, str(f.filename), _chunks(f.file), able, default) for f in sent]

    items = await run_in_threadpool(read_all)
    if len(items) == 1 and items[0].preview is not None:
        return redirect(url(name, "files", items[0].id))
    return redirect(url(name, "files"))


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


@router.get("/files/{id}")
def look(request: Request, name: str, id: str) -> HTMLResponse:
    """Show what was recognised in a file, and ask what it belongs to."""
    item = _files(request).get(name, id)
    with opened(request, name) as campaign:
        return _file_page(request, name, campaign, url(name, "files", id), item.preview, item=item)


def _file_page(
    request: Request,
    name: str,
    campaign: Campaign,
    place: str,
    preview: Preview | None,
    *,
    item: Waiting | None = None,
    kept: dict[str, str] | None = None,
) -> HTMLResponse:
    """Return the page of a file that waits (``item``), or that the campaign keeps (``kept``)."""
    return lab_page(
        request,
        "file.html.j2",
        name,
        campaign,
        "files",
        config=campaign.config,
        item=item,
        kept=kept,
        preview=preview,
        place=place,
        choices=_choices(campaign),
        sheets=[] if item is None else _sheets(item),
        roles=ROLES,
        recipe=(item.recipe if item is not None else None) or {},
        points=_points(preview),
    )


def _points(preview: Preview | None) -> dict[str, Any] | None:
    if preview is None or not preview.currents:
        return None
    rows = plots.loop_table(preview.voltage, preview.currents[:1], preview.cycle_names)
    return dict(plots.table_head(rows[:61]))


def _sheets(item: Waiting) -> list[dict[str, Any]]:
    """Return the columns sheet by sheet, with the role that each has or is taken for."""
    if item.preview is None:
        return []
    out: dict[str, dict[str, Any]] = {}
    recipe = item.recipe
    for column in item.preview.columns:
        sheet = out.setdefault(column.sheet, {"name": column.sheet, "columns": [], "chosen": False})
        role = column.role if column.role in ROLES else ""
        if recipe is not None:
            role = next(
                (
                    r
                    for r, names in (
                        ("voltage", recipe.get("voltage", [])),
                        ("current", recipe.get("currents", [])),
                        ("cycle", [recipe.get("cycle", "")]),
                    )
                    if column.name in names
                ),
                "",
            )
            sheet["chosen"] = recipe.get("sheet", "") == column.sheet
        sheet["columns"].append({"at": column, "role": role})
    sheets = list(out.values())
    if sheets and not any(sheet["chosen"] for sheet in sheets):
        sheets[0]["chosen"] = True
    return sheets


@router.post("/files/{id}/mapping")
def confirm(request: Request, name: str, id: str, form: Form) -> Response:
    """Read the file again, its columns as a person says; keep the mapping under a name if asked."""
    keeper = _files(request)
    item = keeper.get(name, id)
    request.state.again = _mapping_again(item)
    recipe = _recipe_of(item, {k: str(v) for k, v in form.items()})
    item = keeper.remap(item, recipe.to_dict())
    if item.problem:
        return redirect(url(name, "files", id) + "#mapping")
    said = "The file is read with these columns."
    if keep := str(form.get("keep", "")).strip():
        with opened(request, name, form) as campaign:
            campaign.save_file_recipe(keep, recipe)
        said += f' Further files with the same headers are read as "{keep}", without a question.'
    return redirect(url(name, "files", id), said)


def _mapping_again(item: Waiting) -> Again:
    """Return how the form that says which column is which is shown again."""
    columns = {
        f"role.{number}.{column['at'].number}": (
            f"column {column['at'].number}"
            + (f" of sheet {sheet['name']}" if sheet["name"] else "")
        )
        for number, sheet in enumerate(_sheets(item))
        for column in sheet["columns"]
    }
    return Again(
        choices={name: list(ROLES.items()) for name in columns},
        labels={**columns, "keep": "keep this for further files as"},
    )


def _recipe_of(item: Waiting, form: dict[str, str]) -> FileRecipe:
    """Return the mapping that the form of `_sheets` says.

    Raises:
        WebError: If no column is the voltage, or none the current.
    """
    sheets = _sheets(item)
    sheet = form.get("sheet", sheets[0]["name"] if sheets else "")
    columns = [c["at"] for s in sheets if s["name"] == sheet for c in s["columns"]]
    number = next((k for k, s in enumerate(sheets) if s["name"] == sheet), 0)
    chosen: dict[str, list[str]] = {role: [] for role in ROLES}
    for column in columns:
        role = form.get(f"role.{number}.{column.number}", "")
        chosen.setdefault(role, []).append(_name_of(column, columns))
    if not chosen["voltage"] or not chosen["current"]:
        raise WebError(
            f"{item.name}: say which column is the voltage and which holds currents; one of each at least."
        )
    if len(chosen["cycle"]) > 1:
        raise WebError(f"{item.name}: only one column numbers the cycles.")
    return FileRecipe(
        voltage=tuple(chosen["voltage"]),
        currents=tuple(chosen["current"]),
        cycle=next(iter(chosen["cycle"]), ""),
        sheet=sheet,
        voltage_unit=form.get("voltage_unit", "").strip(),
        current_unit=form.get("current_unit", "").strip(),
        headers=tuple(c.header for c in columns),
    )


def _name_of(column: Any, columns: Sequence[Any]) -> str:
    """Return how a recipe names a column: by its place where its header is not the only one of its kind."""
    twice = sum(c.header == column.header for c in columns) > 1
    return f"#{column.number}" if twice else column.name


@router.post("/files/attach")
def attach(request: Request, name: str, form: Form) -> Response:
    """Attach files to trials: keep them and record what they say."""
    keeper = _files(request)
    items = [keeper.get(name, str(id)) for id in form.getlist("id")]
    if not items:
        raise WebError("no file is ticked. Tick the ones to attach.")
    request.state.again = _attach_again(request, name, items)
    wanted = {item.id: str(form.get(f"trial.{item.id}", "")) for item in items}
    lost = [item.name for item in items if not wanted[item.id]]
    if lost:
        raise WebError(f"{', '.join(lost)}: say which trial it belongs to.")
    request.state.campaign = name
    told = list[Ingestion]()
    for group in _groups(items, wanted):
        results = request.app.state.reader.ingest(
            request.app.state.workspace.campaign(name),
            [keeper.path(item) for item in group.values()],
            trial=wanted[next(iter(group.values())).id],
            recipe=next(iter(group.values())).recipe,
            actor=actor_of(request),
            seen=seen_in(form),
        )
        for result in results:
            told.append(result)
            if result.status != "refused":
                keeper.drop(group[result.file])
    lines = [f"{r.file}: {r.trial} {r.status}; {r.text}" for r in told]
    trials = {r.trial for r in told if r.status != "refused"}
    is_bad = any(r.status == "refused" for r in told)
    is_one = len(trials) == 1 and not is_bad
    place = url(name, "trials", trials.pop()) if is_one else url(name, "files")
    return redirect(place, "\n".join(lines), is_bad=is_bad)


def _attach_again(request: Request, name: str, items: Sequence[Waiting]) -> Again:
    """Return how the form that attaches files is shown again."""
    with opened(request, name) as campaign:
        trials = [("", "which?"), *((trial, trial) for trial in campaign.trials)]
    return Again(
        choices={f"trial.{item.id}": trials for item in items},
        labels={f"trial.{item.id}": f"trial of {item.name}" for item in items},
    )


def _groups(items: Sequence[Waiting], wanted: dict[str, str]) -> list[dict[str, Waiting]]:
    """Return files that can be recorded together, by name: of one trial, with one mapping, no name twice.

    Together, because what one of them adds to a trial must not look like somebody else's change to the next.
    """
    groups: list[dict[str, Waiting]] = []
    for item in items:
        for group in groups:
            first = next(iter(group.values()))
            same = wanted[first.id] == wanted[item.id] and first.recipe == item.recipe
            if same and item.name not in group:
                group[item.name] = item
                break
        else:
            groups.append({item.name: item})
    return groups


@router.post("/files/{id}/leave-out")
def leave_out(request: Request, name: str, id: str, form: Form) -> Response:
    """Forget a dropped file; nothing was recorded of it."""
    keeper = _files(request)
    item = keeper.get(name, id)
    keeper.drop(item)
    return redirect(url(name, "files"), f"{item.name} is left out; nothing was recorded of it.")


@router.get("/files/{id}/loop.{form}")
def loop(request: Request, name: str, id: str, form: str) -> Response:
    """Return the I-V loop of a file that waits, for plotly or as CSV."""
    return _loop(_files(request).get(name, id).preview, form)


def _loop(preview: Preview | None, form: str) -> Response:
    if preview is None or not preview.currents or form not in ("json", "csv"):
        raise NotFoundError("there is no loop to draw of this file.")
    voltage = preview.voltages or preview.voltage
    if form == "json":
        return JSONResponse(plots.loop(voltage, preview.currents, preview.cycle_names))
    table = plots.loop_table(voltage, preview.currents, preview.cycle_names)
    return csv_response(plots.to_csv(table), f"{preview.name}-loop.csv")


# -- kept files ---------------------------------------------------------------------------------


def _kept(request: Request, name: str, sha: str) -> tuple[Path, str, dict[str, Any] | None]:
    """Return where a kept file lies, its name, and the mapping that it was read by.

    Raises:
        NotFoundError: If the campaign has none of this hash.
    """
    with opened(request, name) as campaign:
        known = campaign.files()
        if sha not in known:
            raise NotFoundError("the campaign keeps no such file.")
        used = [e.data.get("recipe") for e in campaign.state.history if e.data.get("file") == sha]
        return campaign.file_path(sha), known[sha], used[-1] if used else None


def _kept_preview(request: Request, name: str, sha: str) -> Preview:
    path, file, recipe = _kept(request, name, sha)
    preview: Preview = request.app.state.reader.preview(path, recipe=recipe)
    return preview.model_copy(update={"name": file})


@router.get("/raw/{sha}")
def raw(request: Request, name: str, sha: str) -> Response:
    """Return a kept file as it was measured, to be saved."""
    path, file, _ = _kept(request, name, sha)
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=file,
        headers={"Content-Security-Policy": FILE_POLICY},
    )


@router.get("/raw/{sha}/loop")
def kept_loop_page(request: Request, name: str, sha: str) -> HTMLResponse:
    """Show the I-V loop and the figures of a kept file again."""
    preview = _kept_preview(request, name, sha)
    with opened(request, name) as campaign:
        kept = {"trial": _owners(campaign).get(sha, ""), "sha": sha}
        return _file_page(request, name, campaign, url(name, "raw", sha), preview, kept=kept)


@router.get("/raw/{sha}/loop.{form}")
def kept_loop(request: Request, name: str, sha: str, form: str) -> Response:
    """Return the I-V loop of a kept file, for plotly or as CSV."""
    return _loop(_kept_preview(request, name, sha), form)
