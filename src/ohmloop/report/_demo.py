"""The main job in one call: measured devices, networks trained in several ways, one `Study`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ohmloop.data import analyze_files
from ohmloop.device import DeviceModel, fit, list_devices
from ohmloop.errors import IngestError
from ohmloop.progress import Progress, silent
from ohmloop.report._study import MethodResult, Study, choose_devices

SIGMAS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
METHODS = ("erm", "bayesmulti", "weight-noise")


def devices_from(folder: Path) -> tuple[tuple[DeviceModel, ...], list[str]]:
    """Fit one device model to each measurement file below ``folder``.

    Returns:
        The models, and a sentence for each file that gave none.

    Raises:
        IngestError: If no file gives a device.
    """
    models: list[DeviceModel] = []
    left_out: list[str] = []
    for row in analyze_files([folder]):
        if row.sweep is None or row.figures is None or row.figures.sigma is None:
            left_out.append(f"{row.file}: {row.error or 'no rising ramp, hence no device law.'}")
            continue
        model = fit([row.sweep], name=f"device-{len(models) + 1:02d}", n_bootstrap=200)
        known = next(
            (
                preset
                for preset in list_devices()
                if preset.sources and preset.sources[0].sha256 == row.figures.sha256
            ),
            None,
        )
        if known is not None:
            # The very file behind a preset: its name, recipe and published figures are known.
            kept = ("name", "description", "recipe", "published", "citation")
            model = model.model_copy(update={key: getattr(known, key) for key in kept})
        models.append(model)
    if not models:
        raise IngestError(f"{folder}: no file gave a device. " + " ".join(left_out[:3]))
    return tuple(models), left_out


def run_study(
    devices: Sequence[DeviceModel],
    *,
    task: str = "digits",
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 60,
    n_devices: int = 30,
    workers: int = 2,
    progress: Progress = silent,
) -> Study:
    """Train by each method, and measure every network under each device's law.

    Args:
        devices: Measured device models.
        task: Name of a task.
        methods: Texts of methods, plain training first.
        seeds: Training seeds.
        epochs: Of one training.
        n_devices: Virtual devices for each law and seed.
        workers: Processes that train side by side.
        progress: Told after each finished training.
    """
    from ohmloop.crossbar import Hardware
    from ohmloop.tasks import task as load_task
    from ohmloop.train import compare, environment

    found = load_task(task)
    best, median = choose_devices(tuple(devices))
    levels = [Hardware.model_validate({"device": f"lognormal:{s:g}"}) for s in SIGMAS]
    own = [Hardware(device=device) for device in devices]
    rows = compare(
        task,
        methods,
        [*levels, *own],
        # Objectives under drift may assume the median device, and nothing of the others.
        objective=[Hardware(device=devices[median])],
        seeds=seeds,
        n_devices=n_devices,
        epochs=epochs,
        workers=workers,
        progress=progress,
    )
    train, validation = found.development(seeds[0])
    test = found.test(seeds[0])
    labels = np.bincount(test.y.numpy())
    results = tuple(
        MethodResult(
            method=row.method,
            cost=row.cost,
            clean=row.clean,
            sweep=row.scores[: len(SIGMAS)],
            on_devices=row.scores[len(SIGMAS) :],
            seconds=row.seconds,
            settings=row.settings,
        )
        for row in rows
    )
    hashes = tuple((s.file, s.sha256) for device in devices for s in device.sources)
    return Study(
        task=f"{found.name} ({found.entry.description})",
        model=found.default_model,
        epochs=epochs,
        seeds=tuple(seeds),
        n_devices=n_devices,
        sigmas=SIGMAS,
        devices=tuple(devices),
        best=best,
        median=median,
        results=results,
        chance=float(labels.max() / labels.sum()),
        split_sizes=(len(train.y), len(validation.y), len(test.y)),
        provenance=(
            *environment().items(),
            ("data of the task", found.entry.citation),
            *((f"sha256 of {file}", value) for file, value in hashes),
        ),
    )
