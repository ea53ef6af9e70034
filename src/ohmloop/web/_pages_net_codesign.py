"""The co-design board: what device properties are worth, the loop's history, and its next step."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from ohmloop import units
from ohmloop.campaign import Config
from ohmloop.web import _net_codesign as net
from ohmloop.web._errors import NotFoundError
from ohmloop.web._lab import is_simulated, lab_page, opened, target, url, waiting
from ohmloop.web._net_codesign import Board
from ohmloop.web._pages import Form, actor_of, redirect
from ohmloop.web._pages_net_devices import workspace_of
from ohmloop.web._pages_net_jobs import jobs_of

router = APIRouter(prefix="/campaigns/{name}/codesign", include_in_schema=False)


@router.get("")
def show_board(request: Request, name: str) -> Response:
    """Show the loop of a campaign, or how to start one."""
    jobs = jobs_of(request)
    about = jobs.list(target=target(name), limit=30)
    mine = [
        j for j in about if j.kind.startswith("codesign") or j.kind in ("virtual-lab", "report")
    ]
    last = mine[0] if mine else None
    shared: dict[str, Any] = {
        "live": [job for job in mine if not job.is_over],
        "failed": last if last is not None and last.state == "failed" else None,
    }
    with opened(request, name) as campaign:
        if name not in workspace_of(request).loops():
            return lab_page(
                request,
                "codesign_new.html.j2",
                name,
                campaign,
                "codesign",
                has_objective=_is_task_accuracy(campaign.config),
                objectives=[o.name for o in campaign.config.objectives],
                **shared,
            )
        suggested, accepted = waiting(campaign.state)
        records = [r for t in campaign.state.trials.values() for r in t.records]
        return lab_page(
            request,
            "codesign.html.j2",
            name,
            campaign,
            "codesign",
            board=Board.of(workspace_of(request).campaign(name)),
            open_trials=[*suggested, *accepted],
            n_measured=len(records),
            is_simulated=any(is_simulated(r) for r in records),
            verdicts=net.VERDICTS,
            result=_result(request, name),
            energy=lambda value: "–" if value is None else units.format(value, "J"),
            **shared,
        )


def _is_task_accuracy(config: Config) -> bool:
    return [o.figure or o.name for o in config.objectives] == ["task_accuracy"]


def _result(request: Request, name: str) -> dict[str, Any] | None:
    found = jobs_of(request).list(target=target(name), kind="codesign-result", limit=5)
    return next((job.result for job in found if job.result is not None), None)


@router.get("/plots/{what}.json")
def draw(request: Request, name: str, what: str) -> JSONResponse:
    """Return one plot of the board for plotly."""
    board = Board.of(workspace_of(request).campaign(name))
    if what == "worth":
        return JSONResponse(net.worth_plot(board))
    if what == "history":
        return JSONResponse(net.history_plot(board))
    if what == "function":
        with opened(request, name) as campaign:
            return JSONResponse(net.function_plot(board, net.measured(campaign.state)))
    raise NotFoundError(f"the board has no plot {what[:40]}.")


@router.post("/new")
def start(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue the making of a loop: of this campaign, or of a new one beside it."""
    wanted = str(form.get("name", "")).strip()
    place = name if not wanted else workspace_of(request).new_name("campaign", wanted).name
    given = {
        key: str(form.get(key, "")).strip() for key in ("task", "method", "networks", "epochs")
    }
    jobs_of(request).submit(
        "codesign-new",
        target(place),
        {key: value for key, value in given.items() if value},
        title=f"Start the loop {place}",
    )
    # A campaign that is not there yet has no page.
    return redirect(f"/jobs/{_newest(request, place)}" if wanted else url(name, "codesign"))


def _newest(request: Request, name: str) -> str:
    job = jobs_of(request).latest("codesign-new", target(name))
    assert job is not None
    return job.id


@router.post("/step")
def step(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue one step of the loop."""
    return _submit(request, name, "codesign-step", _given(form, "q"), "Step of the loop")


@router.post("/virtual-lab")
def make_in_virtual_lab(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue the making of the waiting trials in the virtual lab: SIMULATED devices."""
    arguments = _given(form, "n_devices", "seed") | {"actor": actor_of(request) or ""}
    return _submit(request, name, "virtual-lab", arguments, "Make the waiting trials, SIMULATED")


@router.post("/result")
def result(request: Request, name: str, form: Form) -> RedirectResponse:
    """Queue the final test: what the loop came to on test data."""
    return _submit(request, name, "codesign-result", _given(form, "devices"), "Result of the loop")


@router.post("/report")
def report(request: Request, name: str) -> RedirectResponse:
    """Queue the report of the loop: one file."""
    return _submit(request, name, "report", {"what": "loop"}, "Report on the loop")


def _given(form: Form, *keys: str) -> dict[str, Any]:
    return {key: value for key in keys if (value := str(form.get(key, "")).strip())}


def _submit(
    request: Request, name: str, kind: str, arguments: dict[str, Any], title: str
) -> RedirectResponse:
    job = jobs_of(request).submit(kind, target(name), arguments, title=f"{title}: {name}")
    return redirect(f"{url(name, 'codesign')}#now", f"Queued as job {job.id}.")
