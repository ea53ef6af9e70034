"""One interface for every method: a task and a method in, a trained network with its history out."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ohmloop._compute import check_compute
from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import (
    Deployment,
    Where,
    analogize,
    digitize,
    fits_readout,
    has_arrays,
    mark_noisy_statistics,
    pretrained_norms,
    score,
)
from ohmloop.progress import Progress, silent
from ohmloop.run import Executor, using
from ohmloop.tasks import Task, task
from ohmloop.train._folder import finished_config, open_run, read_json, write_json, write_weights
from ohmloop.train._loop import Lesson, Recipe, Schedule, has_ranges
from ohmloop.train._methods import AsItComes, Distillation, Method, Steady, parse_method
from ohmloop.train._noise import Noise, noisy_layers
from ohmloop.train._search import search
from ohmloop.train._setting import (
    CALIBRATION,
    Outcome,
    Setting,
    Trial,
    calibrated,
    on_array,
    unlabelled_inputs,
)
from ohmloop.train._steady import train_steady
from ohmloop.train._team import Team, check_processes

CHIPS = 20
"""Chips that a network trained for arrays is validated on: the standard error of the mean is under a quarter of
the spread between chips."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """A trained network.

    Attributes:
        model: On its device, analog, in eval mode; on arrays with the ranges of its converters set.
        method: As asked for.
        noise: The settings of the training that was kept.
        cost: Passes over the training data in all, in units of one plain training: trials, a teacher,
            and further passes of a step count.
        history: One entry an epoch of the training that was kept.
        trials: Those of the search, in order; empty without one.
        validation_score: Of the nominal weights, on all validation data.
        data_seen: Which parts of the data were used; never "test".
        folder: The run folder, None without one.
        chip_score: Mean validation score on `CHIPS` simulated chips of each array that it was trained for, as
            its deployment leaves them; None for the law on weights.
    """

    model: nn.Module
    method: Method
    noise: Noise
    cost: float
    history: list[dict[str, float]]
    trials: tuple[Trial, ...]
    validation_score: float
    data_seen: tuple[str, ...] = ("train", "validation")
    folder: Path | None = field(default=None)
    chip_score: float | None = None


def fit(
    task: Task,
    method: Method | str,
    *,
    model: str | None = None,
    hardware: Hardware | Sequence[Hardware] | None = None,
    where: Where = None,
    deployment: Deployment | str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: Schedule = "cosine",
    seed: int = 0,
    limit: int | None = None,
    device: str = "cpu",
    processes: int = 1,
    workers: int = 1,
    executor: Executor | str | None = None,
    run_dir: str | Path | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Train a network on a task by a method.

    Initial weights, data division, batch order, optimiser and epochs depend on the seed and the
    arguments only, so methods differ by what they add alone. Only training and validation data are
    opened. With a run folder, a killed run goes on where it was and ends with the same weights.

    For hardware with an array, noise on weights stays what each method says, and trainings do not see the
    array: trials of searches are judged, and the network is validated, on chips of it, programmed and read,
    with the converters' ranges set from training inputs. `steady` scales its noise by the error of the
    array's products. `hardware-aware` alone trains through the array: a fresh chip at each step.

    Args:
        task: What to learn.
        method: A method, or its text ("bayesmulti:objective=drift-validation").
        model: Name of a reference network; the task's own by default.
        hardware: What the network will run on; objectives under drift average over several: all with an
            array, or all the law on weights. By default log-normal noise of sigma 0.5.
        where: Which layers are analog, as in `ohmloop.nn.analogize`.
        deployment: What each device gets beside its weights, for objectives under drift; by default
            nothing, and for `steady` the calibration "readout", or "channel" where outputs are a vocabulary,
            too many for one.
        epochs: Of one training; the task's own by default, as are the next two.
        batch_size: Inputs a step.
        lr: Largest learning rate of Adam.
        schedule: "cosine" (down to zero) or "constant".
        seed: Of everything random.
        limit: Use only that many development samples.
        device: Where torch computes: "cpu", "cuda".
        processes: Of this machine that share each training, every batch divided among them: with "cuda" a GPU
            each, with "cpu" a share of the cores. The steps are those of one process up to the order of sums
            (docs/scaling.md). A script keeps its work under ``if __name__ == "__main__":``.
        workers: Short for the executor "local:N".
        executor: Where the trials of a search run (`ohmloop.run`, docs/scaling.md): one that is open, or its
            text. The result depends on it only as far as sums on more threads round otherwise. The network
            that is kept is trained to its end, and judged, here.
        run_dir: Folder of the run; nothing is written without one.
        progress: Told after each epoch and each trial.

    Raises:
        TrainError: If a setting is wrong, the folder holds another run, or several processes cannot share the
            training.
        ExecutorError: If one of several processes is lost.
    """
    chosen = parse_method(method) if isinstance(method, str) else method
    check_compute(device, TrainError)
    check_processes(processes, device)
    recipe = _recipe(task, epochs, batch_size, lr, schedule, seed)
    hardwares = _hardwares(hardware)
    given = _default_deployment(chosen, task) if deployment is None else deployment
    deployed = Deployment.parse(given) if isinstance(given, str) else given
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None:
        open_run(
            folder,
            {
                "task": task.name,
                "standardise": task.standardise,
                "data": None if task.folder is None else str(task.folder),
                "model": model or task.default_model,
                "method": str(chosen),
                "hardware": [h.model_dump(mode="json") for h in hardwares],
                "where": repr(where),
                "deployment": str(deployed),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "lr": recipe.lr,
                "schedule": schedule,
                "seed": seed,
                "limit": limit,
            },
        )
    # What scores by doing opens test data; nothing in a training, and none of its processes, needs it.
    task = dataclasses.replace(task, entry=dataclasses.replace(task.entry, measure=None))
    train, validation = task.development(seed, limit)
    augment = None if task.entry.augment is None else task.augment
    lesson = Lesson(train, validation, task.metric, None, augment)
    with ExitStack() as stack:
        opened = stack.enter_context(using(executor, workers))
        team = stack.enter_context(Team(processes, device)) if processes > 1 else None
        setting = Setting(
            task=task,
            model=model,
            hardwares=hardwares,
            where=where,
            recipe=recipe,
            device=device,
            lesson=lesson,
            deployment=deployed,
            progress=progress,
            executor=opened,
            team=team,
        )
        outcome, noise, trials, cost = _run(setting, chosen, folder)
    chip_score = None
    if setting.has_arrays:
        calibrated(outcome.model, hardwares[0], setting.unlabelled[:CALIBRATION])
        fleets = setting.devices(outcome.model, CHIPS)
        chip_score = float(np.mean([fleet.mean for fleet in fleets]))
    result = RunResult(
        model=outcome.model.eval(),
        method=chosen,
        noise=noise,
        cost=cost,
        history=outcome.history,
        trials=trials,
        validation_score=score(outcome.model, validation, task.metric),
        folder=folder,
        chip_score=chip_score,
    )
    if folder is not None:
        _write(folder, result)
    return result


def _default_deployment(method: Method, task: Task) -> str:
    """Return the deployment that a method's objectives suppose where none is given."""
    outputs = task.n_classes  # 0: the vocabulary of whatever model lies in a folder
    too_many = outputs == 0 or not fits_readout(outputs)
    return "channel" if method.deployment == "readout" and too_many else method.deployment


def _recipe(
    task: Task,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    schedule: Schedule,
    seed: int,
) -> Recipe:
    if schedule not in ("cosine", "constant"):
        raise TrainError(f'schedule is "cosine" or "constant"; received {schedule!r}.')
    entry = task.entry
    chosen = Recipe(
        entry.epochs if epochs is None else epochs,
        entry.batch_size if batch_size is None else batch_size,
        entry.lr if lr is None else lr,
        seed,
        schedule,
    )
    if chosen.epochs < 1 or chosen.batch_size < 1 or not chosen.lr > 0:
        raise TrainError(
            f"epochs and batch size must be at least 1 and lr positive; received {chosen.epochs}, "
            f"{chosen.batch_size}, {chosen.lr:g}."
        )
    return chosen


def _hardwares(hardware: Hardware | Sequence[Hardware] | None) -> tuple[Hardware, ...]:
    if hardware is None:
        return (Hardware.model_validate({"device": "lognormal:0.5"}),)
    found = (hardware,) if isinstance(hardware, Hardware) else tuple(hardware)
    if not found:
        raise TrainError("at least one hardware is needed; received an empty list.")
    if len({h.array is not None for h in found}) > 1:
        raise TrainError(
            "some of the hardware has an array and some is the law on weights; a network is trained for one "
            "kind. Give every Hardware an array, or none, and score the run on the others: "
            "evaluate_run(run, [...])."
        )
    return found


def _check_through(noise: Noise, hardwares: tuple[Hardware, ...]) -> None:
    """Raise TrainError if one training cannot run through all of these arrays."""
    if noise.on_chips and any(h.array != hardwares[0].array for h in hardwares):
        raise TrainError(
            "hardware-aware trains through arrays of one kind, whose converters share their ranges; received "
            "several kinds. Devices and times may differ: give them the same array, or train once for each."
        )


def _run(
    setting: Setting, method: Method, folder: Path | None
) -> tuple[Outcome, Noise, tuple[Trial, ...], float]:
    model = setting.fresh()
    setting.check(model)
    depth = len(noisy_layers(model))
    if isinstance(method, AsItComes):
        return Outcome(model, [], float("nan")), Noise(), (), 0.0
    if isinstance(method, Steady):
        return train_steady(setting.measure() if setting.has_arrays else setting, method, folder)
    noise = method.noise_on_arrays(depth) if setting.has_arrays else method.noise(depth)
    if noise is None:
        outcome, noise, trials = search(setting, method, depth, folder)
        return outcome, noise, trials, float(len(trials))
    _check_through(noise, setting.hardwares)
    cost = noise.passes
    if isinstance(method, Distillation):
        teacher = setting.fresh()
        if not setting.task.is_pretrained(setting.model):
            place = None if folder is None else folder / "teacher"
            setting.train(teacher, Noise(), place, "teacher")
            cost += 1
        model.load_state_dict(teacher.state_dict())
        setting = setting._replace(lesson=setting.lesson._replace(teacher=teacher.eval()))
    return setting.train(model, noise, folder, method.name), noise, (), cost


def _write(folder: Path, result: RunResult) -> None:
    write_weights(folder / "weights.pt", result.model.state_dict())
    lines = "".join(json.dumps(entry) + "\n" for entry in result.history)
    (folder / "history.jsonl").write_text(lines, encoding="utf-8")
    write_json(
        folder / "result.json",
        {
            "method": str(result.method),
            "noise": result.noise.model_dump(mode="json"),
            "cost": result.cost,
            "validation_score": (
                result.validation_score if math.isfinite(result.validation_score) else None
            ),
            "chip_score": (
                result.chip_score
                if result.chip_score is not None and math.isfinite(result.chip_score)
                else None
            ),
            "data_seen": list(result.data_seen),
            "trials": [
                {
                    "number": t.number,
                    "epochs": t.epochs,
                    "noise": t.noise.model_dump(mode="json"),
                    "objective": t.objective if math.isfinite(t.objective) else None,
                    "clean": t.clean if math.isfinite(t.clean) else None,
                }
                for t in result.trials
            ],
        },
    )


# What torch.load raises on bytes that are no weights.
_DAMAGE = (pickle.UnpicklingError, struct.error)


class Run(NamedTuple):
    """A finished run, read back: the network on its hardware, its task and its configuration.

    Attributes:
        model: On the hardware that it was trained for, the first if there were several.
        task: What it was trained on.
        config: As `fit` wrote it.
    """

    model: nn.Module
    task: Task
    config: dict[str, Any]

    def on(self, hardware: Hardware) -> nn.Module:
        """Return the network on another hardware: a copy; `model` itself where both are the law on weights.

        On an array, ranges of its converters are set from training inputs, the same for all chips.
        """
        if hardware.array is None and not has_arrays(self.model):
            return self.model
        where = where_of(self.config)
        if hardware.array is None:
            return analogize(digitize(copy.deepcopy(self.model)), hardware, where=where)
        return on_array(self.model, hardware, where, _inputs(self.task, self.config))


def _inputs(task: Task, config: dict[str, Any]) -> torch.Tensor:
    """Return the training inputs that converters are calibrated on."""
    seed = config["seed"]
    return unlabelled_inputs(task.development(seed, config["limit"])[0], seed)[:CALIBRATION]


def load_run(folder: str | Path) -> Run:
    """Read a finished run.

    A network that was trained for an array stands on it, with the ranges of its converters as `fit` left them:
    they are set anew from the same training inputs, which takes the task's data.

    Raises:
        TrainError: If the folder holds no finished run.
    """
    path = Path(folder)
    config = finished_config(path)
    found = task(config["task"], config["data"], standardise=config["standardise"])
    model = found.model(config["model"], seed=config["seed"])
    frozen = pretrained_norms(model) if _kept_norms(path) else []
    try:
        model.load_state_dict(torch.load(path / "weights.pt", weights_only=True))
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, *_DAMAGE) as error:
        raise TrainError(f"{path / 'weights.pt'} is damaged: {error}.") from error
    if config["method"] != str(AsItComes()):
        mark_noisy_statistics(model, frozen)
    hardware = Hardware.model_validate(config["hardware"][0])
    analogize(model.eval(), hardware, where=where_of(config))
    if has_ranges(hardware):
        calibrated(model, hardware, _inputs(found, config))
    return Run(model.eval(), found, config)


def _kept_norms(path: Path) -> bool:
    """Return whether a finished run's training left the statistics of batch norm as they came."""
    try:
        return bool(read_json(path / "result.json")["noise"].get("frozen_norm", False))
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{path / 'result.json'} is damaged: {error!r}.") from error


def where_of(config: dict[str, Any]) -> Where:
    """Return which layers a run made analog; TrainError if its configuration cannot say."""
    import ast

    text = config["where"]
    if text == "None":
        return None
    try:
        value: Where = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise TrainError(
            f"this run was made analog by where={text}, which cannot be read back; load weights.pt "
            "into your own model and call analogize yourself."
        ) from error
    return value
