"""One interface for every method: a task and a method in, a trained network with its history out."""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ohmloop import bo
from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import Where, accuracy, analogize, evaluate_fleets
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.tasks import Split, Task, task
from ohmloop.train._folder import open_run, read_json, write_json, write_weights
from ohmloop.train._loop import Recipe, Schedule, noisy_layers, train_once
from ohmloop.train._methods import (
    BayesFT,
    BayesMulti,
    Dropout,
    Erm,
    Method,
    Multinomial,
    Noise,
    WeightNoise,
    dropout_masks,
    multinomial_masks,
    parse_method,
)

# Seeds of the devices that an objective draws; evaluation draws from other seeds.
OBJECTIVE_SEED = 90_001


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        noise: The settings tried.
        objective: What the search saw, in [0, 1].
    """

    noise: Noise
    objective: float


@dataclass(frozen=True, eq=False)
class RunResult:
    """A trained network.

    Attributes:
        model: On its device, analog, in eval mode.
        method: As asked for.
        noise: The settings of the training that was kept.
        cost: Trainings in all.
        history: One entry an epoch of the training that was kept.
        trials: Those of the search, in order; empty without one.
        validation_accuracy: Of the nominal weights, on all validation data.
        data_seen: Which parts of the data were used; never "test".
        folder: The run folder, None without one.
    """

    model: nn.Module
    method: Method
    noise: Noise
    cost: int
    history: list[dict[str, float]]
    trials: tuple[Trial, ...]
    validation_accuracy: float
    data_seen: tuple[str, ...] = ("train", "validation")
    folder: Path | None = field(default=None)


class _Setting(NamedTuple):
    task: Task
    model: str | None
    hardwares: tuple[Hardware, ...]
    where: Where
    recipe: Recipe
    device: str
    train: Split
    validation: Split
    progress: Progress

    def fresh(self) -> nn.Module:
        model = self.task.model(self.model, seed=self.recipe.seed).to(self.device)
        return analogize(model, self.hardwares[0], where=self.where)


class _Outcome(NamedTuple):
    model: nn.Module
    history: list[dict[str, float]]
    objective: float


def fit(
    task: Task,
    method: Method | str,
    *,
    model: str | None = None,
    hardware: Hardware | Sequence[Hardware] | None = None,
    where: Where = None,
    epochs: int = 60,
    batch_size: int = 64,
    lr: float = 3e-3,
    schedule: Schedule = "cosine",
    seed: int = 0,
    limit: int | None = None,
    device: str = "cpu",
    run_dir: str | Path | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Train a network on a task by a method.

    Initial weights, data division, batch order, optimiser and epochs depend on the seed and the
    arguments only, so methods differ by their noise alone. Only training and validation data are
    opened. With a run folder, a killed run goes on where it was and ends with the same weights.

    Args:
        task: What to learn.
        method: A method, or its text ("bayesmulti:objective=drift-validation").
        model: Name of a reference network; the task's own by default.
        hardware: What the network will run on; objectives under drift average over several. By
            default log-normal noise of sigma 0.5.
        where: Which layers are analog, as in `ohmloop.nn.analogize`.
        epochs: Of one training.
        batch_size: Inputs a step.
        lr: Largest learning rate of Adam.
        schedule: "cosine" (down to zero) or "constant".
        seed: Of everything random.
        limit: Use only that many development samples.
        device: Where torch computes: "cpu", "cuda".
        run_dir: Folder of the run; nothing is written without one.
        progress: Told after each epoch and each trial.

    Raises:
        TrainError: If a setting is wrong, or the folder holds another run.
    """
    chosen = parse_method(method) if isinstance(method, str) else method
    if schedule not in ("cosine", "constant"):
        raise TrainError(f'schedule is "cosine" or "constant"; received {schedule!r}.')
    if epochs < 1 or batch_size < 1 or not lr > 0:
        raise TrainError(
            f"epochs and batch size must be at least 1 and lr positive; received {epochs}, "
            f"{batch_size}, {lr:g}."
        )
    hardwares = _hardwares(hardware)
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
                "epochs": epochs,
                "batch_size": batch_size,
                "lr": lr,
                "schedule": schedule,
                "seed": seed,
                "limit": limit,
            },
        )
    train, validation = task.development(seed, limit)
    setting = _Setting(
        task,
        model,
        hardwares,
        where,
        Recipe(epochs, batch_size, lr, seed, schedule),
        device,
        train,
        validation,
        progress,
    )
    outcome, noise, trials = _run(setting, chosen, folder)
    result = RunResult(
        model=outcome.model,
        method=chosen,
        noise=noise,
        cost=max(1, len(trials)),
        history=outcome.history,
        trials=trials,
        validation_accuracy=accuracy(outcome.model, validation),
        folder=folder,
    )
    if folder is not None:
        _write(folder, result)
    return result


def _hardwares(hardware: Hardware | Sequence[Hardware] | None) -> tuple[Hardware, ...]:
    if hardware is None:
        return (Hardware.model_validate({"device": "lognormal:0.5"}),)
    found = (hardware,) if isinstance(hardware, Hardware) else tuple(hardware)
    if not found:
        raise TrainError("at least one hardware is needed; received an empty list.")
    return found


def _run(
    setting: _Setting, method: Method, folder: Path | None
) -> tuple[_Outcome, Noise, tuple[Trial, ...]]:
    depth = len(noisy_layers(setting.fresh()))
    if isinstance(method, Erm):
        noise = Noise()
    elif isinstance(method, Dropout):
        noise = dropout_masks([method.rate] * depth)
    elif isinstance(method, Multinomial):
        p1 = None if method.p1 is None else [method.p1] * depth
        noise = multinomial_masks([method.p0] * depth, p1)
    elif isinstance(method, WeightNoise) and method.level is not None:
        noise = Noise(level=method.level, distribution=method.distribution)
    else:
        return _search(setting, method, depth, folder)
    return _train(setting, noise, folder, method.name, None), noise, ()


Objective = Callable[[nn.Module], float]


def _train(
    setting: _Setting, noise: Noise, folder: Path | None, label: str, objective: Objective | None
) -> _Outcome:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    model = setting.fresh()
    history = train_once(
        model,
        setting.train,
        setting.validation,
        noise,
        setting.recipe,
        folder=folder,
        label=label,
        progress=setting.progress,
    )
    return _Outcome(model, history, objective(model) if objective is not None else float("nan"))


def _drift(setting: _Setting, n_draws: int) -> Objective:
    def objective(model: nn.Module) -> float:
        results = evaluate_fleets(
            model, setting.validation, setting.hardwares, n_devices=n_draws, seed=OBJECTIVE_SEED
        )
        return float(np.mean([result.mean for result in results]))

    return objective


def _search(
    setting: _Setting, method: Method, depth: int, folder: Path | None
) -> tuple[_Outcome, Noise, tuple[Trial, ...]]:
    propose, n_trials, objective = _plan(setting, method, depth)
    trials: list[Trial] = []
    points: list[list[float]] = []
    best: _Outcome | None = None
    for k in range(n_trials):
        place = None if folder is None else folder / "trials" / f"{k:02d}"
        point, noise = propose(points, [trial.objective for trial in trials])
        outcome = _trial(setting, noise, place, f"{method.name} {k + 1}/{n_trials}", objective)
        points.append(point)
        trials.append(Trial(noise, outcome.objective))
        if best is None or outcome.objective > max(t.objective for t in trials[:-1]):
            best = outcome
        setting.progress(ProgressEvent(f"{method.name} trials", k + 1, n_trials))
    assert best is not None
    index = int(np.nanargmax([trial.objective for trial in trials]))
    return best, trials[index].noise, tuple(trials)


def _trial(
    setting: _Setting, noise: Noise, place: Path | None, label: str, objective: Objective
) -> _Outcome:
    """Run one trial, or read it back if its folder says that it is finished."""
    outcome = _train(setting, noise, place, label, objective)
    if place is not None:
        write_json(
            place / "trial.json",
            {"noise": noise.model_dump(mode="json"), "objective": outcome.objective},
        )
    return outcome


Propose = Callable[[list[list[float]], list[float]], tuple[list[float], Noise]]


def _plan(setting: _Setting, method: Method, depth: int) -> tuple[Propose, int, Objective]:
    if isinstance(method, WeightNoise):
        grid, distribution = method.grid, method.distribution

        def next_level(points: list[list[float]], values: list[float]) -> tuple[list[float], Noise]:
            level = grid[len(points)]
            return [level], Noise(level=level, distribution=distribution)

        return next_level, len(grid), _drift(setting, 20)
    if depth == 0:
        raise TrainError(f"{method.name} needs a network of at least two layers.")
    if isinstance(method, BayesFT):
        highs = [method.max_rate] * depth
        make: Callable[[Sequence[float]], Noise] = dropout_masks
        objective = _drift(setting, method.n_draws)
    elif isinstance(method, BayesMulti):
        two = method.parametrisation == "two"
        highs = [method.max_p0] * depth + [1.0] * (depth if two else 0)

        def make(point: Sequence[float]) -> Noise:
            if not two:
                return multinomial_masks(point)
            # p0 + p1 <= 1: what is above it is cut from p1, as the probabilities demand.
            p0 = list(point[:depth])
            p1 = [min(b, 1 - a) for a, b in zip(p0, point[depth:], strict=True)]
            return multinomial_masks(p0, p1)

        if method.objective == "clean-train":
            train = setting.train

            def objective(model: nn.Module) -> float:
                return accuracy(model, train)
        else:
            objective = _drift(setting, method.n_draws)
    else:
        raise TrainError(f"{method.name} is not a method that this version trains.")
    seed = setting.recipe.seed
    names = [f"layer_{k}" for k in range(len(highs))]
    problem = bo.Problem(
        space=bo.Space(
            tuple(bo.Real(name=n, low=0.0, high=h) for n, h in zip(names, highs, strict=True))
        ),
        objectives=(bo.Objective(name="accuracy"),),
        settings=bo.Settings(n_initial=method.n_initial),
    )

    def propose(points: list[list[float]], values: list[float]) -> tuple[list[float], Noise]:
        seen = [
            bo.Observation(
                point=dict(zip(names, p, strict=True)),
                values={"accuracy": (v,)} if math.isfinite(v) else {},
            )
            for p, v in zip(points, values, strict=True)
        ]
        found = bo.suggest(problem, seen, seed=seed)[0].point
        point = [float(found[n]) for n in names]
        return point, make(point)

    return propose, method.n_initial + method.n_iterations, objective


def _write(folder: Path, result: RunResult) -> None:
    import json

    write_weights(folder / "weights.pt", result.model.state_dict())
    lines = "".join(json.dumps(entry) + "\n" for entry in result.history)
    (folder / "history.jsonl").write_text(lines, encoding="utf-8")
    write_json(
        folder / "result.json",
        {
            "method": str(result.method),
            "noise": result.noise.model_dump(mode="json"),
            "cost": result.cost,
            "validation_accuracy": result.validation_accuracy,
            "data_seen": list(result.data_seen),
            "trials": [
                {"noise": t.noise.model_dump(mode="json"), "objective": t.objective}
                for t in result.trials
            ],
        },
    )


# What torch.load raises on bytes that are no weights.
_DAMAGE = (pickle.UnpicklingError, struct.error)


class Run(NamedTuple):
    """A finished run, read back: the network on its hardware, its task and its configuration."""

    model: nn.Module
    task: Task
    config: dict[str, Any]


def load_run(folder: str | Path) -> Run:
    """Read a finished run.

    Raises:
        TrainError: If the folder holds no finished run.
    """
    path = Path(folder)
    config = read_json(path / "config.json")
    if not (path / "result.json").exists():
        raise TrainError(
            f"{path} is not finished. Run the same `ohmloop train` command again; it goes on from "
            "its last epoch."
        )
    found = task(config["task"], config["data"], standardise=config["standardise"])
    model = found.model(config["model"], seed=config["seed"])
    try:
        model.load_state_dict(torch.load(path / "weights.pt", weights_only=True))
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, *_DAMAGE) as error:
        raise TrainError(f"{path / 'weights.pt'} is damaged: {error}.") from error
    where = None if config["where"] == "None" else _literal(config["where"])
    analogize(model, Hardware.model_validate(config["hardware"][0]), where=where)
    return Run(model.eval(), found, config)


def _literal(text: str) -> Where:
    import ast

    try:
        value: Where = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise TrainError(
            f"this run was made analog by where={text}, which cannot be read back; load weights.pt "
            "into your own model and call analogize yourself."
        ) from error
    return value
