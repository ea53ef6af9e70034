"""The worker's process: one job at a time, torch kept warm. Started by `ohmloop.web._jobs.Jobs`.

Each kind calls what the command line calls, and returns plain data. A job may be repeated from its start after
the server was restarted: what it records carries a key, and what it computes is kept by the library.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmloop.errors import DeviceError
from ohmloop.progress import Progress, ProgressEvent
from ohmloop.web import _kinds as kinds
from ohmloop.web._helper import answer_questions
from ohmloop.web._uploads import Uploads
from ohmloop.web._workspace import Workspace

if TYPE_CHECKING:
    from ohmloop.crossbar import Hardware
    from ohmloop.device import DeviceModel

MOST_OFTEN = 0.2
"""Seconds between two progress events of one step: faster than that nobody looks."""


_MEASURED = "virtual-lab-"


@dataclass(frozen=True)
class _Task:
    """A job as the worker sees it."""

    workspace: Workspace
    folder: Path
    key: str
    progress: Progress

    def device(self, name: str) -> DeviceModel:
        """Return a device of the workspace, a built-in one, or "lognormal:S"; never a file elsewhere."""
        from ohmloop.device import list_devices, list_presets, load_device

        if name in self.workspace.devices():
            return load_device(self.workspace.device(name))
        built_in = {d.name for d in (*list_devices(), *list_presets())}
        if name in built_in or name.startswith("lognormal:"):
            return load_device(name)
        raise DeviceError(
            f'there is no device "{name[:80]}": take one of the page of devices, or lognormal:SIGMA.'
        )

    def hardware(self, name: str, array: str | None = None) -> Hardware:
        """Return hardware of a device, on arrays where ``array`` says which ("" for the default ones)."""
        from ohmloop.crossbar import Array, Hardware

        given: dict[str, Any] = {"device": self.device(name)}
        if array is not None:
            given["array"] = Array.parse(array)
        return Hardware.model_validate(given)


def main() -> None:
    """Import what is slow to import, then answer the server's questions."""
    if hasattr(os, "nice"):
        os.nice(5)  # pages stay quick while it works
    workspace = Workspace(Path(sys.argv[1]))
    for place in workspace.private.glob(f"{_MEASURED}*"):  # of a job that was cancelled
        shutil.rmtree(place, ignore_errors=True)
    import ohmloop.bo._surrogate
    import ohmloop.train._fit  # noqa: F401

    def handle(question: dict[str, Any], progress: Progress) -> Any:
        kind = question["kind"]
        arguments = kinds.KINDS[kind].model_validate(question["arguments"])
        what, _, name = question["target"].partition("/")
        task = _Task(
            workspace,
            _folder(workspace, what, name),
            # A database of jobs may be deleted, and numbers start again: the moment tells them apart.
            f"job:{question['id']}:{question['created']}",
            _seldom(progress),
        )
        return _DO[kind](task, arguments)

    answer_questions(handle)


def _folder(workspace: Workspace, what: str, name: str) -> Path:
    """Return where a target lies, or is going to lie."""
    if what == "campaign":
        known = name in workspace.campaigns()
        return workspace.campaign(name) if known else workspace.new_name("campaign", name)
    if what == "run":
        return workspace.run(name) if name in workspace.runs() else workspace.new_name("run", name)
    # After a restart the device may have been written already: it is written again.
    known = name in workspace.devices()
    return workspace.device(name) if known else workspace.new_name("device", name)


def _seldom(progress: Progress) -> Progress:
    """Leave out progress that comes too fast; the first and last of each step are told always."""
    last: dict[str, float] = {}

    def tell(event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.done >= event.total or now - last.get(event.label, 0.0) >= MOST_OFTEN:
            last[event.label] = now
            progress(event)

    return tell


# -- campaigns ----------------------------------------------------------------------------------


def _suggest(task: _Task, asked: kinds.Suggest) -> dict[str, Any]:
    from ohmloop.campaign import Campaign

    with Campaign.open(task.folder, actor=asked.actor or None) as campaign:
        made = campaign.suggest(asked.q, context=asked.context, pin=asked.pin, key=task.key)
        return {"trials": [trial.id for trial in made]}


def _reroll(task: _Task, asked: kinds.Reroll) -> dict[str, Any]:
    from ohmloop.campaign import Campaign

    with Campaign.open(task.folder, actor=asked.actor or None) as campaign:
        made = campaign.reroll(*asked.trials, context=asked.context, key=task.key)
        return {"trials": [trial.id for trial in made]}


def _advice(task: _Task, asked: kinds.Advice) -> dict[str, Any]:
    from ohmloop.campaign import Campaign

    with Campaign.open(task.folder, writable=False) as campaign:
        advice = campaign.advice()
        best = campaign.best()
        return {
            "verdict": advice.verdict,
            "text": advice.text,
            "worth": list(advice.worth),
            "best": [{"trial": trial.id, "measured": means} for trial, means in best],
            "event": campaign.state.last_event,
        }


def _virtual_lab(task: _Task, asked: kinds.VirtualLab) -> dict[str, Any]:
    from ohmloop.campaign import Campaign, make_in_virtual_lab
    from ohmloop.campaign._virtual import take_in

    with (
        Campaign.open(task.folder, actor=asked.actor or None) as campaign,
        tempfile.TemporaryDirectory(dir=task.workspace.private, prefix=_MEASURED) as place,
    ):
        measured = Path(place) / "measured"
        made = make_in_virtual_lab(campaign, measured, n_devices=asked.n_devices, seed=asked.seed)
        take_in(campaign, measured, made, key=task.key, progress=task.progress)
    return {"made": made, "is_simulated": True}


# -- runs and devices ---------------------------------------------------------------------------


def _train(task: _Task, asked: kinds.Train) -> dict[str, Any]:
    from ohmloop.tasks import task as load
    from ohmloop.train import fit

    task.folder.parent.mkdir(exist_ok=True)
    result = fit(
        load(asked.task),
        asked.method,
        model=asked.model,
        hardware=task.hardware(asked.device, asked.array),
        deployment=asked.deployment,
        epochs=asked.epochs,
        seed=asked.seed,
        run_dir=task.folder,
        progress=task.progress,
    )
    return {
        "run": task.folder.name,
        "validation_score": result.validation_score,
        "chip_score": result.chip_score,
        "cost": result.cost,
        "method": str(result.method),
    }


def _evaluate(task: _Task, asked: kinds.Evaluate) -> dict[str, Any]:
    from ohmloop.crossbar import Array, Hardware
    from ohmloop.nn import Deployment
    from ohmloop.train import evaluate_folder, read_run

    names = [*asked.devices, *(f"lognormal:{sigma:g}" for sigma in asked.sigmas)]
    hardwares: list[Hardware] | None = None
    if names:
        hardwares = [task.hardware(name, asked.array) for name in names]
    elif asked.array is not None:
        array = Array.parse(asked.array)
        own = [kept["device"] for kept in read_run(task.folder).config["hardware"]]
        hardwares = [Hardware.model_validate({"device": d, "array": array}) for d in own]
    made = evaluate_folder(
        task.folder,
        hardwares,
        deployment=None if asked.deployment is None else Deployment.parse(asked.deployment),
        n_devices=asked.n_devices,
        seed=asked.seed,
        progress=task.progress,
    )
    wanted = {"name", "device", "sigma", "metric", "digital", "mean", "std", "worst_tenth"}
    return {"evaluations": [e.model_dump(mode="json", include=wanted) for e in made]}


def _certify(task: _Task, asked: kinds.Certify) -> dict[str, Any]:
    from ohmloop.certify import certify_folder, statements_on
    from ohmloop.crossbar import Hardware
    from ohmloop.train import read_run

    own = Hardware.model_validate(read_run(task.folder).config["hardware"][0])
    hardware = own if asked.device is None else task.hardware(asked.device)
    made = certify_folder(
        task.folder,
        hardware,
        statements=statements_on(hardware, asked.statements),  # type: ignore[arg-type]  # checked there
        n_devices=asked.n_devices,
        alpha=asked.alpha,
        seed=asked.seed,
        progress=task.progress,
    )
    return {
        "certificates": [
            {"statement": c.statement, "kind": c.kind, "claim": c.claim, "law": c.law_words}
            for c in made
        ]
    }


def _device_fit(task: _Task, asked: kinds.DeviceFit) -> dict[str, Any]:
    from ohmloop.data import read_measurement
    from ohmloop.device import fit_measurements, save_device

    uploads = Uploads(task.workspace)
    files = [uploads.get(id) for id in asked.uploads]
    found = []
    for number, file in enumerate(files):
        task.progress(ProgressEvent("files read", number, len(files), file.name))
        found.append(
            read_measurement(
                file.path,
                kind=asked.kind,
                read_voltage=asked.read_voltage,
                voltage_unit=asked.voltage_unit,
                current_unit=asked.current_unit,
            )
        )
    task.progress(ProgressEvent("files read", len(files), len(files)))
    model = fit_measurements(found, name=task.folder.stem)
    task.folder.parent.mkdir(exist_ok=True)
    save_device(model, task.folder)
    notes = list(dict.fromkeys(note.text for item in found for note in item.notes))
    for file in files:
        uploads.drop(file.id)
    return {"device": model.name, "sigma": model.sigma.value, "notes": notes}


# -- both halves --------------------------------------------------------------------------------


def _sensitivity(task: _Task, asked: kinds.Sensitivity) -> dict[str, Any]:
    from ohmloop.codesign import sensitivity
    from ohmloop.device import save_task_accuracy
    from ohmloop.train import load_run

    found = sensitivity(
        [load_run(task.workspace.run(name)) for name in asked.runs],
        None if asked.device is None else task.hardware(asked.device),
        properties=asked.properties,
        n_points=asked.points,
        n_devices=asked.devices,
        progress=task.progress,
    )
    if (task.folder / "campaign.db").is_file():
        save_task_accuracy(found.surrogate, task.folder / "task-accuracy.json")
    values = found.to_dict()
    values.pop("surrogate")  # some thousand numbers; the campaign's file has them
    return {**values, "sentences": found.sentences()}


def _codesign_new(task: _Task, asked: kinds.CodesignNew) -> dict[str, Any]:
    from ohmloop.codesign import CodesignLoop, LoopSettings

    if task.folder.name not in task.workspace.loops():
        settings = LoopSettings(
            task=asked.task, method=asked.method, networks=asked.networks, epochs=asked.epochs
        )
        CodesignLoop.new(task.folder, settings, template_name=asked.template)
    return {"campaign": task.folder.name}


def _codesign_step(task: _Task, asked: kinds.CodesignStep) -> dict[str, Any]:
    from ohmloop.codesign import CodesignLoop

    return vars(CodesignLoop.open(task.folder).step(q=asked.q, progress=task.progress))


def _codesign_result(task: _Task, asked: kinds.CodesignResult) -> dict[str, Any]:
    from ohmloop.codesign import CodesignLoop, joint

    return vars(
        joint(CodesignLoop.open(task.folder), n_devices=asked.devices, progress=task.progress)
    )


def _report(task: _Task, asked: kinds.Report) -> dict[str, Any]:
    from ohmloop.report import write_report

    page = write_report(task.folder, kind=asked.what, pdf=asked.pdf)
    return {"files": [page.name, *([page.with_suffix(".pdf").name] if asked.pdf else [])]}


_DO: dict[str, Callable[[_Task, Any], dict[str, Any]]] = {
    "suggest": _suggest,
    "reroll": _reroll,
    "advice": _advice,
    "virtual-lab": _virtual_lab,
    "train": _train,
    "evaluate": _evaluate,
    "certify": _certify,
    "device-fit": _device_fit,
    "sensitivity": _sensitivity,
    "codesign-new": _codesign_new,
    "codesign-step": _codesign_step,
    "codesign-result": _codesign_result,
    "report": _report,
}

if __name__ == "__main__":
    main()
