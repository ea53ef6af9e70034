"""The networks of a loop or a sensitivity: one training a seed, side by side, each in its run folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ohmloop.crossbar import Hardware
from ohmloop.nn import Deployment
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.run import Executor, using
from ohmloop.tasks import task
from ohmloop.train import Run, fit, load_run


class Wanted(NamedTuple):
    """A network that should be there.

    Attributes:
        place: Its run folder; workers must see it too.
        task: Name of the task.
        method: How it is trained.
        seed: Of the training.
        hardware: What for; None for the method's own.
        data: Where the data lies, if not in the cache.
        model: Of the task; its own by default.
        deployment: What devices get beside their weights.
        epochs: Of one training; the task's own by default.
        limit: Use only that many development samples.
    """

    place: Path
    task: str
    method: str
    seed: int
    hardware: Hardware | None = None
    data: str | Path | None = None
    model: str | None = None
    deployment: Deployment | str | None = None
    epochs: int | None = None
    limit: int | None = None

    @property
    def is_there(self) -> bool:
        """Whether its run is finished."""
        return (self.place / "result.json").exists()


def train_missing(wanted: Sequence[Wanted], executor: Executor, progress: Progress) -> bool:
    """Train the networks that are not there yet, and say whether there was one.

    Several run side by side, each with the trials of its search one after the other; a single one has its
    trials side by side.
    """
    missing = [w for w in wanted if not w.is_there]
    if len(missing) == 1:
        _train(missing[0], progress, executor)
    elif missing:
        told = progress if executor.in_this_process else silent
        for n, _ in enumerate(executor.each(_train, [(w, told) for w in missing]), start=1):
            progress(ProgressEvent("networks", n, len(missing)))
    return bool(missing)


def _train(wanted: Wanted, progress: Progress, executor: Executor | None = None) -> None:
    fit(
        task(wanted.task, wanted.data),
        wanted.method,
        model=wanted.model,
        hardware=wanted.hardware,
        deployment=wanted.deployment,
        epochs=wanted.epochs,
        limit=wanted.limit,
        seed=wanted.seed,
        executor=executor,
        run_dir=wanted.place,
        progress=progress,
    )


def trained_networks(
    name: str,
    method: str,
    seeds: Sequence[int],
    keep: str | Path,
    *,
    hardware: Hardware | None = None,
    epochs: int | None = None,
    executor: Executor | str | None = None,
    progress: Progress = silent,
) -> list[Run]:
    """Return trained networks of one task and method, one a seed; those that are kept are not trained again.

    Args:
        name: Of the task.
        method: How they are trained.
        seeds: Of the trainings.
        keep: Folder of their run folders; workers must see it too.
        hardware: What for; by default what `ohmloop.train.fit` takes.
        epochs: Of one training; the task's own by default.
        executor: Where they are trained (`ohmloop.run`): one that is open, or its text.
        progress: Told after each network.
    """
    device = "" if hardware is None else hardware.device.name
    wanted = [
        Wanted(
            place=Path(keep) / re.sub(r"[^A-Za-z0-9.]+", "-", f"{name} {method} {device} {seed}"),
            task=name,
            method=method,
            seed=seed,
            hardware=hardware,
            epochs=epochs,
        )
        for seed in seeds
    ]
    with using(executor) as opened:
        train_missing(wanted, opened, progress)
    return [load_run(w.place) for w in wanted]
