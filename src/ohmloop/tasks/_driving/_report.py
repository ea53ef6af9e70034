"""What a set of drives came to, and the loop that drives: the same for every simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

End = Literal["finished", "crash", "off_road", "timeout"]


class Seen(NamedTuple):
    """What a simulator says after each step.

    Attributes:
        x: What the network sees next.
        progress: Share of the route that is behind the car, 0 to 1.
        end: Why the drive is over; None while it goes on.
    """

    x: NDArray[np.float32]
    progress: float
    end: End | None


class Simulator(Protocol):
    """Something to drive in. A seed names one route with its traffic and gives it exactly again."""

    def reset(self, seed: int) -> Seen:
        """Return the start of a route."""

    def step(self, out: NDArray[np.float64]) -> Seen:
        """Return what follows the network's output (one row of it)."""


@dataclass(frozen=True)
class Drive:
    """One route, driven.

    Attributes:
        seed: Of the route.
        end: How it ended.
        progress: Share of the route driven, 0 to 1.
        n_steps: Decisions taken.
    """

    seed: int
    end: End
    progress: float
    n_steps: int


@dataclass(frozen=True)
class DriveReport:
    """Drives of one network on a fixed set of routes."""

    drives: tuple[Drive, ...]

    def share(self, end: End) -> float:
        """Return the share of drives that ended so."""
        return sum(drive.end == end for drive in self.drives) / len(self.drives)

    @property
    def finished(self) -> float:
        """Share of routes driven to their end."""
        return self.share("finished")

    @property
    def progress(self) -> float:
        """Mean share of a route driven."""
        return sum(drive.progress for drive in self.drives) / len(self.drives)

    @property
    def figures(self) -> dict[str, float]:
        """What a measure by doing says of the drives, by name: the score, then the further figures."""
        return {
            "finished": self.finished,
            "collisions": self.share("crash"),
            "progress": self.progress,
        }


def drive_routes(model: nn.Module, simulator: Simulator, seeds: Sequence[int]) -> DriveReport:
    """Drive each route once; the network sees one input ``1 x ...`` at a time, on its own device."""
    some = next(model.parameters())

    def policy(x: NDArray[np.float32]) -> NDArray[np.float64]:
        out = model(torch.from_numpy(x)[None].to(some.device, some.dtype))
        return np.asarray(out[0].double().cpu().numpy())

    with torch.no_grad():
        return DriveReport(tuple(drive_route(policy, simulator, seed) for seed in seeds))


def drive_route(
    policy: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    simulator: Simulator,
    seed: int,
) -> Drive:
    """Drive one route with anything that maps an input to an output row."""
    seen, n = simulator.reset(seed), 0
    while seen.end is None:
        # A network broken by noise may say NaN or infinity: that is no command, the car does nothing.
        out = np.nan_to_num(policy(seen.x), nan=0.0, posinf=1e6, neginf=-1e6)
        seen, n = simulator.step(out), n + 1
    return Drive(seed=seed, end=seen.end, progress=seen.progress, n_steps=n)
