"""Closed loop: MetaDrive (Li et al. 2021, arXiv 2109.12674) with its pretrained PPO driver.

The driver sees 275 numbers (its state, the way ahead, 4 neighbours, 240 lidar distances), all 0 to 1, and says
steering and throttle. `load` gives what the driver did on routes of its own, so that training under noise is
regression to it; `measure` drives the test routes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._metadrive_env import BY_HAND, MetaDrive, make_environment
from ohmloop.tasks._driving._report import DriveReport, drive_routes
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import NPZ_ERRORS, DataSet, Member, Package, need_file
from ohmloop.tasks._metric import RSquared

N_INPUTS, N_ACTIONS = 275, 2
TEST_ROUTES = tuple(range(10))
"""Seeds of the routes that `measure` drives; their maps and traffic occur in no training data."""
TRAINING_ROUTES = tuple(range(1000, 1024))
DISTURBANCE = 0.3
"""Deviation of the noise on the recorded driver's actions, on every other training route: the records show
how to come back (Laskey et al. 2017, DART). The labels are the undisturbed actions."""
RECORDS = "expert_drives.npz"
WEIGHTS = "expert_weights.npz"


def drive_metadrive(
    model: nn.Module, simulator: MetaDrive, seeds: tuple[int, ...] = TEST_ROUTES
) -> DriveReport:
    """Return how a network ``B x 275`` -> ``B x 2`` drives the routes of the seeds."""
    return drive_routes(model, simulator, seeds)


def _measure(folder: Path | None) -> Measure:
    assert folder is not None
    simulator = MetaDrive(folder)

    def measure(model: nn.Module) -> dict[str, float]:
        report = drive_metadrive(model, simulator)
        # Unlike the highway, these roads have an edge that a car can leave.
        return report.figures | {"off_road": report.share("off_road")}

    return measure


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    """Return the driver with its published weights, or ("tanh-mlp") the same network untrained.

    The last layer holds the two mean actions; the two columns of log-deviations, which only exploration
    uses, are left out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(N_INPUTS, 256),
            nn.Tanh(),
            nn.Linear(256, 256),
            nn.Tanh(),
            nn.Linear(256, N_ACTIONS),
        )
    if name == "ppo-expert":
        assert folder is not None
        model.load_state_dict(_weights(need_file(folder, WEIGHTS)))
    return model


def _weights(path: Path) -> dict[str, torch.Tensor]:
    state = {}
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            for k, layer in enumerate(("fc_1", "fc_2", "fc_out")):
                kernel, bias = (file[f"default_policy/{layer}/{n}"] for n in ("kernel", "bias"))
                kept = N_ACTIONS if layer == "fc_out" else len(bias)
                state[f"{2 * k}.weight"] = torch.from_numpy(kernel[:, :kept].T.copy())
                state[f"{2 * k}.bias"] = torch.from_numpy(bias[:kept].copy())
    except NPZ_ERRORS as error:
        raise TaskError(f"{path} is not MetaDrive's expert: {error}. {BY_HAND}") from error
    return state


def _load(folder: Path | None) -> Source:
    """Return what the expert saw ``n x 275`` and did ``n x 2``; recorded first if it was not (a minute)."""
    assert folder is not None
    path = folder / RECORDS
    if not path.is_file():
        record(folder)
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            x, y, seed = file["x"], file["y"], file["seed"]
        if x.shape != (len(y), N_INPUTS) or y.shape[1:] != (N_ACTIONS,) or seed.shape != (len(y),):
            raise ValueError(f"arrays of {x.shape}, {y.shape} and {seed.shape}")
    except NPZ_ERRORS as error:
        raise TaskError(f"{path} is damaged: {error}. Delete it; it is recorded anew.") from error
    test = np.isin(seed, TEST_ROUTES)
    return Source(Data(x[~test], y[~test], seed[~test]), Data(x[test], y[test], seed[test]))


def record(folder: Path) -> None:
    """Drive all routes with the expert and write `RECORDS`."""
    simulator = MetaDrive(folder)
    model = _build("ppo-expert", 0, folder)
    parts = []
    for k, seed in enumerate((*TRAINING_ROUTES, *TEST_ROUTES)):
        disturbed = seed in TRAINING_ROUTES and k % 2 == 1
        parts.append(_record_route(simulator, model, seed, DISTURBANCE if disturbed else 0.0))
    simulator.close()
    seeds = [
        np.full(len(x), s)
        for s, (x, _) in zip((*TRAINING_ROUTES, *TEST_ROUTES), parts, strict=True)
    ]
    # Written aside, then renamed: an interrupted run leaves no half file.
    aside = folder / f".{os.getpid()}-{RECORDS}"
    with aside.open("wb") as file:
        np.savez_compressed(
            file,
            x=np.concatenate([x for x, _ in parts]),
            y=np.concatenate([y for _, y in parts]),
            seed=np.concatenate(seeds).astype(np.int64),
        )
    os.replace(aside, folder / RECORDS)


def _record_route(
    simulator: MetaDrive, model: nn.Module, seed: int, disturbance: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    xs, ys = [], []
    seen = simulator.reset(seed)
    with torch.no_grad():
        while seen.end is None:
            action = model(torch.from_numpy(seen.x)[None])[0].numpy()
            xs.append(seen.x)
            ys.append(action)
            seen = simulator.step(action + disturbance * rng.standard_normal(N_ACTIONS))
    return np.stack(xs), np.stack(ys)


def _finish(folder: Path) -> None:
    make_environment(folder)
    record(folder)


DATA = {
    "metadrive": DataSet(
        files=(WEIGHTS,),
        packages=(
            Package(
                "pypi",
                "metadrive-simulator",
                "0.3.0.1",
                {
                    WEIGHTS: Member(
                        f"metadrive/examples/ppo_expert/{WEIGHTS}",
                        "ed66fed9ecfbe7c1acd18a9d95c659119892dcc773758f40849c3390c6f38eaf",
                    )
                },
            ),
        ),
        by_hand=BY_HAND,
        setup=_finish,
        made=("env", RECORDS),
    )
}

ENTRIES = {
    "metadrive": Entry(
        description="lidar and state of a simulated car; steering and throttle of a PPO driver, closed loop",
        citation="MetaDrive: Li, Peng, Feng, Zhang, Xue, Zhou 2021 (Apache-2.0), simulator and weights",
        n_classes=N_ACTIONS,
        input_shape=(N_INPUTS,),
        default_model="ppo-expert",
        load=_load,
        data="metadrive",
        scaling="none",
        models=("ppo-expert", "tanh-mlp"),
        build=_build,
        metric=RSquared(),
        measure=_measure,
        pretrained=("ppo-expert",),
        epochs=20,
        batch_size=64,
        lr=3e-4,
    )
}
