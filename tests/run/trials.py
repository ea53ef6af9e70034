"""Trials for the contract tests: functions at module level, as workers need them."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TrainError
from ohmloop.run import open_executor


def draw(seed: int, seconds: float = 0.0) -> list[float]:
    """Three numbers that depend on the seed alone; late if asked for."""
    time.sleep(seconds)
    return [float(x) for x in np.random.default_rng(seed).normal(size=3)]


def total(values: NDArray[np.float64], factor: float) -> float:
    return float(values.sum() * factor)


def fail(text: str) -> None:
    raise TrainError(text)


class Odd(Exception):
    """Cannot be unpickled: it wants two arguments and passes on one."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} because {why}")


def fail_oddly() -> None:
    raise Odd("nothing came", "it rained")


def leave() -> None:
    sys.exit(3)


def die_until(folder: str, times: int) -> int:
    """Be killed in the middle so many times, then return the number of attempts."""
    place = Path(folder)
    attempt = len(list(place.iterdir())) + 1
    (place / str(attempt)).write_text(str(os.getpid()))
    if attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def sleep(folder: str, seconds: float) -> None:
    """Leave the process's number in a file, then sleep."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(seconds)


def nested(seed: int) -> list[list[float]]:
    """Run trials on executors of its own."""
    out = []
    for text in ("in-process", "local:1"):
        with open_executor(text) as executor:
            out += [value for _, value in executor.each(draw, [(seed,)])]
    return out


def threads() -> tuple[int, str | None]:
    import torch

    return torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")


def give_back_a_function() -> object:
    return lambda: None


def process() -> int:
    return os.getpid()
