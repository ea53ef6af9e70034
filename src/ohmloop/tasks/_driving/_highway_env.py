"""highway-env (Leurent 2018, MIT) as a simulator, and the planner that teaches in it.

Both see the same numbers and nothing else, so a network can learn all that the planner does. Other cars follow
IDM and MOBIL (Treiber 2000, Kesting 2007), as highway-env has them.
"""

from __future__ import annotations

import importlib
import itertools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._report import End, Seen

VERSIONS = "highway-env==1.12.1 gymnasium==1.4.0"
N_LANES = 4
DURATION = 40
"""Decisions, one a second; five steps of the simulation between two."""
TARGET_SPEEDS = (20.0, 25.0, 30.0)
LANE_WIDTH = 4.0
CAR_LENGTH = 5.0
SIGHT = 100.0
"""Metres; a car further off is not seen."""
LEFT, IDLE, RIGHT, FASTER, SLOWER = range(5)
N_INPUTS = 8 + 3 * 2 * 3
"""Of the own car: wanted lane from the left / 3; offsets of the body and of its lane from the wanted lane,
in lanes; speed across / 5 m/s; (speed - 25 m/s) / 5 m/s; wanted speed as one of three. Then for the lane left
of the wanted one, that one, and the one right of it: the next car ahead and the next behind, each as seen (1 or
0), distance of centres / 100 m, difference of speed / 10 m/s."""


class Highway:
    """One-way road of four lanes with 20 cars; a route is its distance within 40 s."""

    def __init__(self, route: float) -> None:
        """Make the road; ``route`` in metres."""
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            gymnasium: Any = importlib.import_module("gymnasium")
            importlib.import_module("highway_env")  # registers the environment
        except ImportError as error:
            raise TaskError(
                f"the highway needs packages that are not here ({error.name}). Install them with\n"
                '    pip install -c constraints.txt "ohmloop[driving]"\n'
                f"or: pip install {VERSIONS}"
            ) from error
        self._env: Any = gymnasium.make(
            "highway-fast-v0",
            config={
                "lanes_count": N_LANES,
                "vehicles_count": 20,
                "vehicles_density": 0.8,
                "duration": 10 * DURATION,
                "policy_frequency": 1,
                "simulation_frequency": 5,
                # Ours is `_observe`; this one costs nothing, the usual one a quarter of the time.
                "observation": {"type": "AttributesObservation", "attributes": ["time"]},
                "action": {"type": "DiscreteMetaAction", "target_speeds": list(TARGET_SPEEDS)},
            },
            disable_env_checker=True,
        ).unwrapped
        self._route = route
        self._start = 0.0
        self._n = 0

    def reset(self, seed: int) -> Seen:
        """Return the start of a route."""
        self._env.reset(seed=seed)
        self._start = float(self._env.vehicle.position[0])
        self._n = 0
        return Seen(self._observe(), 0.0, None)

    def step(self, out: NDArray[np.float64]) -> Seen:
        """Return what follows the decision of the largest of five outputs."""
        self._env.step(int(np.argmax(out)))
        self._n += 1
        share = (float(self._env.vehicle.position[0]) - self._start) / self._route
        end: End | None = None
        if self._env.vehicle.crashed:
            end = "crash"
        elif share >= 1:
            end = "finished"
        elif self._n >= DURATION:
            end = "timeout"
        return Seen(self._observe(), float(np.clip(share, 0, 1)), end)

    def _observe(self) -> NDArray[np.float32]:
        own = self._env.vehicle
        lane = int(own.target_lane_index[2])
        x = np.zeros(N_INPUTS, np.float32)
        x[0] = lane / (N_LANES - 1)
        x[1] = own.position[1] / LANE_WIDTH - lane
        x[2] = own.lane_index[2] - lane
        x[3] = own.velocity[1] / 5
        x[4] = (own.speed - TARGET_SPEEDS[1]) / 5
        x[5 + own.speed_index] = 1
        others = np.array(
            [(*v.position, v.speed, v.velocity[1]) for v in self._env.road.vehicles if v is not own]
        ).reshape(-1, 4)
        gap, cross = others[:, 0] - own.position[0], others[:, 1] / LANE_WIDTH - lane
        soon = cross + others[:, 3] / LANE_WIDTH
        for k, side in enumerate((-1, 0, 1)):
            # A car between lanes is in both, and one that moves over is where it will be in a second.
            beside = np.minimum(np.abs(cross - side), np.abs(soon - side)) < 0.7
            beside &= np.abs(gap) < SIGHT
            for j, there in enumerate((beside & (gap >= 0), beside & (gap < 0))):
                if there.any():
                    nearest = np.flatnonzero(there)[np.abs(gap[there]).argmin()]
                    first = 8 + 3 * (2 * k + j)
                    x[first : first + 3] = (
                        1,
                        gap[nearest] / SIGHT,
                        (others[nearest, 2] - own.speed) / 10,
                    )
        return x


PLAN = np.array(list(itertools.product(range(5), repeat=3)))
"""All plans of three decisions, ``125 x 3``; the last is held to the end of the look-ahead."""
STEP, LOOK_AHEAD = 0.2, 6.0
HEADWAY = 0.8
"""Seconds to the car ahead below which a plan costs."""


def plan(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the value ``5`` of each decision: that of the best of the plans that begin with it.

    Every plan is rolled out for six seconds: the own speed follows the wanted one with highway-env's time
    constant of .6 s; the car moves to another lane at once for those ahead and behind there; other cars keep
    their speed, those behind brake with up to 3 m/s2 to stay off. A plan is worth its distance, less 300 m for
    an overlap, less what it falls short of the headway, less a metre or two for each change.
    """
    n = len(PLAN)
    lanes = round(float(x[0]) * (N_LANES - 1))
    lane, index = np.full(n, lanes), np.full(n, int(x[5:8].argmax()))
    v = np.full(n, float(x[4]) * 5 + TARGET_SPEEDS[1])
    own = np.zeros(n)
    value = np.zeros(n)
    cars = x[8:].reshape(3, 2, 3).astype(np.float64)
    # Distance and speed of the cars `side x (ahead, behind)`, one copy for each plan.
    where = np.where(cars[..., 0] > 0, cars[..., 1] * SIGHT, np.array([1e3, -1e3]))
    place = np.repeat(where[None], n, 0)
    speed = np.repeat((cars[..., 2] * 10 + v[0])[None], n, 0)
    # While the body is between lanes, the lane it leaves counts too.
    leaving = (
        np.full(n, round(float(np.clip(x[1], -1, 1)))) if abs(x[1]) > 0.5 else np.zeros(n, int)
    )
    rows, crashed = np.arange(n), np.zeros(n, bool)
    for k in range(round(LOOK_AHEAD / STEP)):
        second, start = divmod(k, round(1 / STEP))
        if start == 0 and second < PLAN.shape[1]:
            action = PLAN[:, second]
            before = lane
            lane = np.clip(lane + (action == RIGHT) - (action == LEFT), 0, N_LANES - 1)
            nearest = np.rint((v - TARGET_SPEEDS[0]) / 5).astype(int)
            index = np.where(
                action == FASTER, nearest + 1, np.where(action == SLOWER, nearest - 1, index)
            )
            index = np.clip(index, 0, 2)
            # Beyond the lanes seen nothing is known: such a plan is not better than staying.
            far = np.abs(lane - lanes) > 1
            value -= 1e3 * far + 2.0 * (action != IDLE) / (1 + second)
            value -= 1e3 * ((action == LEFT) | (action == RIGHT)) * (before == lane)
            leaving = np.where(start == 0, np.where(second > 0, before - lanes, leaving), leaving)
        v = v + STEP * (np.array(TARGET_SPEEDS)[index] - v) / 0.6
        own = own + STEP * v
        for side in (lane - lanes, leaving):
            column = np.clip(side + 1, 0, 2)
            ahead, behind = place[rows, column, 0] - own, own - place[rows, column, 1]
            closing = np.maximum(0, speed[rows, column, 1] - v)
            brake = (behind < 2 * CAR_LENGTH + closing**2 / 6 + 5) & (behind > 0)
            speed[rows, column, 1] -= np.where(brake, 3 * STEP, 0) / 2
            crash = (np.abs(ahead) < CAR_LENGTH + 1) | (np.abs(behind) < CAR_LENGTH + 1)
            crash |= (ahead < 0) & (place[rows, column, 0] < 500)
            crashed |= crash
            short = np.maximum(0, HEADWAY * v + CAR_LENGTH - ahead)
            value -= 1.0 * short * STEP
        place = place + STEP * speed[:, :, :]
    value += own + 2.0 * v - 300 * crashed
    return np.array([value[PLAN[:, 0] == a].max() for a in range(5)])
