"""Drives MetaDrive for another process: one JSON request a line on stdin, one JSON answer a line on stdout.

Run by the Python of an environment that has metadrive-simulator 0.3.0.1; it imports nothing of ohmloop, since
that environment needs another NumPy. Requests:

    {"do": "reset", "seed": 3}            -> {"x": [275 numbers], "done": false, "progress": 0.0}
    {"do": "step", "action": [.1, .5]}    -> {"x": ..., "done": false, "progress": .02, "end": null}
    {"do": "expert"}                      -> {"action": [.1, .5]}, of the package's own NumPy code

An action is steering and throttle, cut to -1..1 by the simulator. "end" is "finished", "crash", "off_road" or
"timeout" once "done". A failure answers {"error": "..."}.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
from typing import Any

import numpy as np

FIRST_SEED, N_SEEDS = 0, 10_000
MAX_STEPS = 800
"""80 s; the expert needs at most 57 s for a test route."""
STANDING = 100
"""A drive without progress for 10 s is over, a "timeout": traffic never makes the expert wait so long."""
LIDAR = {
    "num_lasers": 240,
    "distance": 50,
    "num_others": 4,
    "gaussian_noise": 0.0,
    "dropout_prob": 0.0,
}
"""What the expert was trained with (metadrive/examples/ppo_expert/numpy_expert.py)."""


def make() -> Any:
    """Return the simulator: three random blocks a route, traffic density .1, no picture."""
    return importlib.import_module("metadrive").MetaDriveEnv(
        {
            "use_render": False,
            # Reused objects carry traces of earlier drives: a seed would not give the same drive again.
            "force_destroy": True,
            "num_buffering_objects": 0,
            "start_seed": FIRST_SEED,
            "environment_num": N_SEEDS,
            "random_agent_model": False,
            "random_traffic": False,
            "traffic_density": 0.1,
            "map": 3,
            "horizon": MAX_STEPS,
            "vehicle_config": {"lidar": LIDAR},
        }
    )


def progress(vehicle: Any) -> float:
    """Return the share of the route behind the vehicle, along the reference lanes, 0 to 1."""
    route = vehicle.navigation
    graph = route.map.road_network.graph
    marks = route.checkpoints
    # Neither pairwise nor strict=True: the environment may have Python 3.8.
    lengths = [graph[marks[k]][marks[k + 1]][0].length for k in range(len(marks) - 1)]
    passed = route._target_checkpoints_index[0]
    along, _ = route.current_ref_lanes[0].local_coordinates(vehicle.position)
    done = sum(lengths[:passed]) + min(max(along, 0.0), lengths[min(passed, len(lengths) - 1)])
    return float(min(max(done / sum(lengths), 0.0), 1.0))


def ending(info: dict[str, Any]) -> str:
    """Return why a drive is over."""
    if info["arrive_dest"]:
        return "finished"
    if info["crash"]:
        return "crash"
    return "off_road" if info["out_of_road"] else "timeout"


class Drive:
    """The one simulator of a process."""

    def __init__(self) -> None:
        """Start it with the first reset: a wrong request should not cost the start."""
        self.env: Any = None
        self.start = self.furthest = 0.0
        self.waited = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        if request["do"] == "reset":
            return self.reset(int(request["seed"]))
        if request["do"] == "step":
            return self.step(request["action"])
        if request["do"] == "expert":
            expert = importlib.import_module("metadrive.examples").expert
            return {"action": [float(a) for a in expert(self.env.vehicle, deterministic=True)]}
        raise ValueError(f"unknown request {request['do']!r}")

    def reset(self, seed: int) -> dict[str, Any]:
        """Return the start of a route. Global generators are seeded too: parts of MetaDrive use them."""
        if self.env is None:
            self.env = make()
        random.seed(seed)
        np.random.seed(seed)
        x = self.env.reset(force_seed=seed)
        self.start = progress(self.env.vehicle)
        self.furthest, self.waited = 0.0, 0
        return {"x": [float(v) for v in x], "done": False, "progress": 0.0, "end": None}

    def step(self, action: list[float]) -> dict[str, Any]:
        """Return what follows one action."""
        x, _, done, info = self.env.step([float(a) for a in action])
        share = progress(self.env.vehicle)
        end = ending(info) if done else None
        if end == "finished":
            share = 1.0
        # A route begins some metres into its first road.
        share = max(0.0, (share - self.start) / (1 - self.start))
        self.waited = 0 if share > self.furthest + 1e-3 else self.waited + 1
        if self.waited == 0:
            self.furthest = share
        if end is None and self.waited >= STANDING:
            end = "timeout"
        return {"x": [float(v) for v in x], "done": end is not None, "progress": share, "end": end}


def main() -> None:
    """Answer until stdin ends. The simulator prints: its stdout goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    drive = Drive()
    for line in sys.stdin:
        try:
            answer = drive.answer(json.loads(line))
        # Whatever it is, the other process must hear of it.
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
