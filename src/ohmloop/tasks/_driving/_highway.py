"""Closed loop: decisions on a simulated highway (highway-env), learnt from a planner that looks ahead.

`load` gives what the planner decided on training routes (imitation); `measure` drives the test routes with the
network's own decisions.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._highway_env import N_INPUTS, VERSIONS, Highway, plan
from ohmloop.tasks._driving._report import DriveReport, drive_routes
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import NPZ_ERRORS, DataSet

ROUTE = 820.0
"""Metres within 40 s, 20.5 m/s: who always drives at the lowest speed, 20 m/s, is late."""
TEST_ROUTES = tuple(range(10))
TRAINING_ROUTES = tuple(range(1000, 1090))
DISTURBANCE = 0.25
"""Share of decisions that chance takes, on two of three training routes: the records show what to do after a
mistake (Laskey et al. 2017, DART). The labels are the planner's."""
RECORDS = "planner_drives.npz"


def drive_highway(
    model: nn.Module, simulator: Highway, seeds: tuple[int, ...] = TEST_ROUTES
) -> DriveReport:
    """Return how a network ``B x 26`` -> ``B x 5`` drives the routes of the seeds."""
    return drive_routes(model, simulator, seeds)


def _measure(folder: Path | None) -> Measure:
    simulator = Highway(ROUTE)
    return lambda model: drive_highway(model, simulator).figures


def _load(folder: Path | None) -> Source:
    """Return what the planner saw ``n x 26`` and decided ``n``."""
    assert folder is not None
    path = folder / RECORDS
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            x, y, seed = file["x"], file["y"], file["seed"]
        if x.shape != (len(y), N_INPUTS) or y.ndim != 1 or seed.shape != (len(y),):
            raise ValueError(f"arrays of {x.shape}, {y.shape} and {seed.shape}")
    except NPZ_ERRORS as error:
        raise TaskError(
            f"{path} is damaged: {error}. Record it anew: delete it, then\n    ohmloop fetch highway"
        ) from error
    test = np.isin(seed, TEST_ROUTES)
    return Source(Data(x[~test], y[~test], seed[~test]), Data(x[test], y[test], seed[test]))


def record(folder: Path) -> None:
    """Drive all routes with the planner and write `RECORDS` (a few minutes)."""
    simulator = Highway(ROUTE)
    xs, ys, seeds = [], [], []
    for k, seed in enumerate((*TRAINING_ROUTES, *TEST_ROUTES)):
        disturbed = seed in TRAINING_ROUTES and k % 3 > 0
        x, y = _record_route(simulator, seed, DISTURBANCE if disturbed else 0.0)
        xs.append(x)
        ys.append(y)
        seeds.append(np.full(len(y), seed, np.int64))
    # Written aside, then renamed: an interrupted run leaves no half file.
    aside = folder / f".{os.getpid()}-{RECORDS}"
    with aside.open("wb") as file:
        np.savez_compressed(
            file, x=np.concatenate(xs), y=np.concatenate(ys), seed=np.concatenate(seeds)
        )
    os.replace(aside, folder / RECORDS)


def _record_route(
    simulator: Highway, seed: int, disturbance: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    xs, ys = [], []
    seen = simulator.reset(seed)
    while seen.end is None:
        value = plan(seen.x)
        xs.append(seen.x)
        ys.append(int(value.argmax()))
        mistake = rng.random() < disturbance
        seen = simulator.step(rng.random(5) if mistake else value)
    return np.stack(xs), np.array(ys, np.int64)


DATA = {
    "highway": DataSet(
        files=(RECORDS,),
        packages=(),
        by_hand=(
            f"place {RECORDS}, fetched elsewhere, in a folder and name it: --data FOLDER. Fetching drives a "
            'planner in highway-env, which needs: pip install -c constraints.txt "ohmloop[driving]" '
            f"(or pip install {VERSIONS})."
        ),
        setup=record,
        made=(RECORDS,),
    )
}

ENTRIES = {
    "highway": Entry(
        description="cars around on a simulated highway; a planner's decisions, closed loop",
        citation="highway-env: Leurent 2018 (MIT)",
        n_classes=5,
        input_shape=(N_INPUTS,),
        default_model="mlp",
        load=_load,
        data="highway",
        scaling="none",
        measure=_measure,
        epochs=40,
        batch_size=64,
        lr=3e-3,
    )
}
