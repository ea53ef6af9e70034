"""Trainings on several processes, seen from the process that asks for them."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import nn

from ohmloop.errors import TrainError
from ohmloop.nn import mark_noisy_statistics
from ohmloop.progress import Progress, silent
from ohmloop.run._group import Group, Say, Seat
from ohmloop.train._loop import Chips, Diverged, Lesson, Recipe, run_training
from ohmloop.train._noise import Noise, frozen_norms
from ohmloop.train._peers import Peers, meet
from ohmloop.train._sharded import Sharded, check_shardable


class Modes(NamedTuple):
    """How torch computes here, which a new process would not know.

    Attributes:
        autocast: Type of torch.autocast; None where it is off.
        matmul: `torch.get_float32_matmul_precision`.
        is_deterministic: `torch.are_deterministic_algorithms_enabled`.
    """

    autocast: torch.dtype | None
    matmul: str
    is_deterministic: bool

    @classmethod
    def here(cls, device: str) -> Modes:
        """Return those of this process."""
        return cls(
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        )

    @contextmanager
    def active(self, device: str) -> Iterator[None]:
        """Compute like this in the block."""
        torch.set_float32_matmul_precision(self.matmul)
        torch.use_deterministic_algorithms(self.is_deterministic)
        kind = self.autocast
        with nullcontext() if kind is None else torch.autocast(device, dtype=kind):
            yield


class _Job(NamedTuple):
    """One training, without its data."""

    model: nn.Module
    noise: Noise
    recipe: Recipe
    chips: Chips | None
    until: int | None
    folder: Path | None
    label: str


class Team:
    """Processes that train together, each on a GPU of its own, or on its share of the cores.

    They start with the first training and stay until the team is closed. Pickled, a team travels without
    them, so that a trial in an executor's worker has a team of its own.

    Args:
        n: Processes.
        device: Where they compute: "cpu", or "cuda" for one GPU each.
    """

    def __init__(self, n: int, device: str) -> None:
        self.n, self.device = n, device
        self._group = Group(n)
        self._sent: tuple[Lesson, Path] | None = None

    def __reduce__(self) -> tuple[type[Team], tuple[int, str]]:
        return type(self), (self.n, self.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._group.close()
        self._sent = None

    def train(
        self,
        model: nn.Module,
        lesson: Lesson,
        noise: Noise,
        recipe: Recipe,
        *,
        chips: Chips | None,
        until: int | None,
        folder: Path | None,
        label: str,
        progress: Progress,
    ) -> list[dict[str, float]]:
        """Train ``model`` in place and return its history, as `ohmloop.train.train_once` does.

        Raises:
            TrainError: As there; or if something in it cannot be divided among processes.
            ExecutorError: If a process is lost.
        """
        check_shardable(model, lesson, noise)
        _check_gpus(self.n, self.device)
        if self._sent is None or self._sent[0] is not lesson or not self._sent[1].exists():
            self._sent = lesson, self._keep("lesson", lesson)
        job = self._keep("job", _Job(model, noise, recipe, chips, until, folder, label))
        modes = Modes.here(self.device)
        found = self._group.run(_train, (self.device, modes, job, self._sent[1]), progress)
        if isinstance(found, Diverged):
            raise found
        place = next(model.parameters()).device
        state = torch.load(job.with_name(_TRAINED), weights_only=True, map_location=place)
        frozen = frozen_norms(model, noise)
        model.load_state_dict(state)
        mark_noisy_statistics(model, frozen)
        model.eval()
        history: list[dict[str, float]] = found
        return history

    def _keep(self, name: str, value: Any) -> Path:
        """Write a value to where the processes find it."""
        path = self._group.scratch / f"{name}.pt"
        try:
            # Replaced, not overwritten: processes have the former one mapped into memory.
            path.unlink(missing_ok=True)
            torch.save(value, path)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TrainError(
                f"the {name} of this training cannot be sent to other processes: {error}. What a task or "
                "network is made of must stand at the top level of a module; or leave out --processes "
                "(processes=1)."
            ) from error
        return path


_TRAINED = "trained.pt"


def check_processes(n: int, device: str) -> None:
    """Raise TrainError if trainings cannot run on so many processes."""
    if n < 1:
        raise TrainError(f"processes is at least 1; received {n}.")
    if n == 1:
        return
    if device not in ("cpu", "cuda"):
        raise TrainError(
            f'several processes compute on "cpu" or on "cuda", a GPU each; received {device!r}.'
        )
    if importlib.util.find_spec("accelerate") is None:
        raise TrainError(
            'training on several processes needs accelerate: pip install "ohmloop[multi-gpu]"'
        )


def _check_gpus(n: int, device: str) -> None:
    seen = torch.cuda.device_count() if device == "cuda" else n
    if seen < n:
        raise TrainError(
            f"{n} processes need a GPU each; torch sees {seen} here. Lower --processes (processes=), or ask "
            f"the executor for them: gpus={n}."
        )


def _train(
    seat: Seat, say: Say, device: str, modes: Modes, job: Path, lesson: Path
) -> list[dict[str, float]] | Diverged:
    """Train, in one of the processes; the first one leaves the weights beside the job."""
    peers = meet(seat, device)
    try:
        with modes.active(device):
            return _trained(peers, say, job, lesson)
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()  # Fleets of the process that asks may need the room.


def _trained(
    peers: Peers, say: Say, job_path: Path, lesson_path: Path
) -> list[dict[str, float]] | Diverged:
    job: _Job = torch.load(job_path, weights_only=False, map_location=peers.place)
    # Mapped into memory, so that processes share one copy of the data.
    lesson: Lesson = torch.load(lesson_path, weights_only=False, map_location="cpu", mmap=True)
    if lesson.teacher is not None:
        lesson = lesson._replace(teacher=lesson.teacher.to(peers.place))
    training = Sharded(peers, job.model, lesson, job.noise, job.recipe, job.chips)
    try:
        history = run_training(
            training,
            until=job.until,
            folder=job.folder,
            label=job.label,
            progress=say if training.is_first else silent,
        )
    except Diverged as error:
        return error  # The same in all of them: they may go on with another training.
    if training.is_first:
        torch.save(job.model.state_dict(), job_path.with_name(_TRAINED))
    return history
