"""What a loop came to: the pair of recipe and training, what each half alone reaches, and the trade-offs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop._files import write_whole
from ohmloop.campaign import Campaign, Trial, law_of
from ohmloop.codesign._loop import ACCURACY, CodesignLoop
from ohmloop.codesign._networks import train_missing
from ohmloop.codesign._sensitivity import mean_and_error
from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.device import DeviceModel, TaskAccuracy, load_task_accuracy
from ohmloop.errors import CampaignError
from ohmloop.nn import Deployment, analogize, digitize, evaluate_fleets, summary
from ohmloop.progress import Progress, silent
from ohmloop.run import Executor, using
from ohmloop.train import Run, unlabelled_inputs

TEST_SEED = 80_001
"""Seed of the virtual devices of the final test; nothing before it draws from there."""


@dataclass(frozen=True)
class Scored:
    """A test score with its standard error over trainings and virtual devices."""

    score: float
    error: float


@dataclass(frozen=True)
class Point:
    """One measured device among the trade-offs.

    Attributes:
        trial: Its trial.
        score: Expected score of the networks in use, on validation data.
        energy: Joules of one input on arrays of such devices; None where the device has no window.
        experiments: Devices that were made until it was there.
        on_front: Whether no other device is better in one of the three and as good in the others.
    """

    trial: str
    score: float
    energy: float | None
    experiments: int
    on_front: bool


@dataclass(frozen=True)
class Joint:
    """What a loop came to. Scores are on test data, on simulated devices of the measured laws.

    Attributes:
        trial: The trial believed best.
        recipe: Its recipe.
        method: The training of the pair.
        law: The device law of the pair.
        metric: Name of the score.
        both: The pair.
        device_alone: The best device with plain training.
        network_alone: The first device that worked, with training for it.
        neither: The first device that worked, with plain training.
        points: Measured devices in the order in which they were made.
        n_devices: Virtual devices of each score.
        n_steps: Steps that the loop had made by then.
    """

    trial: str
    recipe: dict[str, Any]
    method: str
    law: DeviceModel
    metric: str
    both: Scored
    device_alone: Scored
    network_alone: Scored
    neither: Scored
    points: tuple[Point, ...]
    n_devices: int
    n_steps: int

    @property
    def front(self) -> tuple[Point, ...]:
        """The devices on the Pareto front of score, energy and number of experiments."""
        return tuple(point for point in self.points if point.on_front)


def joint(
    loop: CodesignLoop,
    *,
    n_devices: int = 50,
    executor: Executor | str | None = None,
    progress: Progress = silent,
) -> Joint:
    """Return what a loop came to, and what each half alone would have reached; opens the test data.

    Plain networks, and ones trained for the first working device, are trained for it and kept in the folder, as
    is the result (`read_joint`).

    Args:
        loop: With at least one step and a device that works.
        n_devices: Virtual devices of each score.
        executor: Where networks are trained (`ohmloop.run`): one that is open, or its text.
        progress: Told of trainings.

    Raises:
        CampaignError: If no step was made, or no device works yet.
    """
    runs = loop.networks()
    with Campaign.open(loop.folder, writable=False) as campaign:
        best, law = loop._best(campaign)
        made = _made(campaign)
    if best is None or not made:
        raise CampaignError(f"{loop.folder}: no device works yet; go on with the loop.")
    first = made[0][1]
    with using(executor) as opened:
        plain = _trained(loop, "erm", law, opened, progress)
        adapted = _trained(loop, loop._asked(first), first, opened, progress)
    asked = load_task_accuracy(loop.folder / ACCURACY)
    points = _points(runs[0], asked, made)
    found = Joint(
        trial=best.id,
        recipe=dict(best.recipe),
        method=str(runs[0].config["method"]),
        law=law,
        metric=runs[0].task.metric.name,
        both=tested(runs, law, n_devices),
        device_alone=tested(plain, law, n_devices),
        network_alone=tested(adapted, first, n_devices),
        neither=tested(plain, first, n_devices),
        points=points,
        n_devices=n_devices,
        n_steps=len(loop.steps),
    )
    _keep(loop.folder / JOINT, found)
    return found


JOINT = "joint.json"


def _keep(path: Path, found: Joint) -> None:
    kept = {"schema_version": 1, **asdict(found), "law": found.law.model_dump(mode="json")}
    try:
        write_whole(path, json.dumps(kept, indent=1) + "\n")
    except OSError as error:
        raise CampaignError(f"{path} cannot be written: {error.strerror or error}.") from error


def read_joint(folder: str | Path) -> Joint | None:
    """Return what `joint` kept last in a loop's folder; None if it was never asked for.

    Its ``n_steps`` tells whether the loop has gone on since.

    Raises:
        CampaignError: If the file is damaged.
    """
    path = Path(folder) / JOINT
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("schema_version") != 1:
            raise ValueError("it is of another version of ohmloop")
        parts: dict[str, Any] = {name: Scored(**kept[name]) for name in _SCORES}
        parts["points"] = tuple(Point(**point) for point in kept["points"])
        parts["law"] = DeviceModel.model_validate(kept["law"])
        return Joint(**{**kept, **parts})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CampaignError(
            f"{path} is damaged ({error}). Make it anew: ohmloop codesign result {folder}"
        ) from error


_SCORES = ("both", "device_alone", "network_alone", "neither")


def _points(
    run: Run, asked: TaskAccuracy, made: Sequence[tuple[Trial, DeviceModel, int]]
) -> tuple[Point, ...]:
    """Return score, energy and number of every measured device, and which are on the front."""
    scores = [asked.of(device).mean for _, device, _ in made]
    energies = [energy_of(run, device) for _, device, _ in made]
    sign = 1.0 if asked.is_higher_better else -1.0
    values = [
        [sign * score, -math.inf if energy is None else -energy, -n]
        for score, energy, (_, _, n) in zip(scores, energies, made, strict=True)
    ]
    front = pareto_front(np.array(values))
    return tuple(
        Point(trial.id, score, energy, n, bool(on))
        for (trial, _, n), score, energy, on in zip(made, scores, energies, front, strict=True)
    )


def _made(campaign: Campaign) -> list[tuple[Trial, DeviceModel, int]]:
    """Return each working device, its law, and how many devices had been made with it, in order."""
    records = sorted(
        ((r, t) for t in campaign.trials.values() for r in t.records),
        # By the trial's own event: a device that was judged anew has a later one, and keeps its place.
        key=lambda pair: (pair[1].event, pair[0].device),
    )
    out = []
    for n, (record, trial) in enumerate(records, start=1):
        law = law_of(record.figures, trial.id) if record.is_usable else None
        if law is not None:
            out.append((trial, law, n))
    return out


def _trained(
    loop: CodesignLoop, method: str, law: DeviceModel, executor: Executor, progress: Progress
) -> list[Run]:
    train_missing(loop._wanted(method, law), executor, progress)
    return loop._loaded(method, law)


def tested(runs: Sequence[Run], law: DeviceModel, n_devices: int) -> Scored:
    """Return the test score of networks on simulated devices of one law."""
    scores = []
    for run in runs:
        deployment = Deployment.parse(str(run.config.get("deployment", "none")))
        seed, limit = run.config["seed"], run.config["limit"]
        unlabelled = None
        if deployment.needs_inputs:
            train, _ = run.task.development(seed, limit)
            unlabelled = unlabelled_inputs(train, seed, deployment.samples)
        fleet = evaluate_fleets(
            run.model,
            run.task.test(seed, limit),
            [Hardware(device=law)],
            n_devices=n_devices,
            seed=TEST_SEED,
            metric=run.task.metric,
            deployment=deployment,
            unlabelled=unlabelled,
        )[0]
        scores.append(fleet.scores)
    return Scored(*mean_and_error(np.stack(scores)))


def energy_of(run: Run, law: DeviceModel, array: Array | None = None) -> float | None:
    """Return the joules of one input on arrays of such devices, programming left out.

    Args:
        run: A trained network.
        law: The device.
        array: The array; by default 256 x 256 cells with 8-bit converters.

    Returns:
        None where the device has no conductance window.
    """
    if law.g_min is None or law.g_max is None or not 0 <= law.g_min < law.g_max:
        return None
    array = array or Array(dac=DAC(bits=8), adc=ADC(bits=8))
    model = digitize(copy.deepcopy(run.model))
    analogize(model, Hardware(device=law, array=array))
    _, validation = run.task.development(run.config["seed"], run.config["limit"])
    return summary(model, example=validation.x[:16], simulate=False).energy


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows no other row beats; larger is better in each of the ``n x m`` values.

    >>> pareto_front(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])).tolist()
    [True, True, False]
    """
    return np.array(
        [not ((values >= row).all(1) & (values > row).any(1)).any() for row in values], dtype=bool
    )
