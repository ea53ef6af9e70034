"""Data sets, splits, reference models and metrics behind one `Task`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._fetch import FILES, find_folder, idx_path

if TYPE_CHECKING:
    from torch import Tensor, nn

TEST_SEED = 20240101
"""Fixes the test set of data sets without an official one; the training seed never moves it."""
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2


class Split(NamedTuple):
    """Inputs and labels: ``x`` float32 of shape ``n x ...``, ``y`` int64 class numbers."""

    x: Tensor
    y: Tensor


class _Raw(NamedTuple):
    x: NDArray[np.float32]
    y: NDArray[np.int64]


class _Source(NamedTuple):
    development: _Raw
    test: _Raw


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task: data in three parts, reference models, accuracy as the metric.

    Attributes:
        name: As users type it.
        description: What the inputs are, for a person.
        n_classes: Number of classes.
        input_shape: Shape of one input.
        default_model: Name of the reference network.
        citation: Source and licence of the data.
        folder: Where the data lies, None if it comes with a package.
        standardise: Whether inputs are scaled by statistics of the training data, or left as they are
            stored (pixels from 0 to 16 or 255).
    """

    name: str
    description: str
    n_classes: int
    input_shape: tuple[int, ...]
    default_model: str
    citation: str
    folder: Path | None
    standardise: bool
    _load: Callable[[Path | None], _Source]
    _scale: Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]

    def development(self, seed: int, limit: int | None = None) -> tuple[Split, Split]:
        """Return (train, validation); the test set is not part of either.

        A fifth of the development data validates, stratified by class; which fifth depends on the
        seed. Inputs are standardised by statistics of the training part alone.

        Args:
            seed: Of the division.
            limit: Use only that many of the development data, stratified; all by default.
        """
        x, y, train, held = self._divide(seed, limit)
        scale = self._scaling(x[train])
        return _split(x[train], y[train], scale), _split(x[held], y[held], scale)

    def test(self, seed: int, limit: int | None = None) -> Split:
        """Return the test set, scaled like the training data of ``seed`` and ``limit``.

        Its samples are the same for every seed.
        """
        x, _, train, _ = self._divide(seed, limit)
        return _split(*self._load(self.folder).test, self._scaling(x[train]))

    def _scaling(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self.standardise:
            return self._scale(x)
        return np.zeros((), np.float32), np.ones((), np.float32)

    def _divide(
        self, seed: int, limit: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        x, y = self._load(self.folder).development
        rng = np.random.default_rng(seed)
        if limit is not None and limit < len(y):
            keep = _stratified(y, limit / len(y), rng)
            x, y = x[keep], y[keep]
        held = _stratified(y, VALIDATION_SHARE, rng)
        return x, y, np.setdiff1d(np.arange(len(y)), held), held

    def model(self, name: str | None = None, *, seed: int = 0) -> nn.Module:
        """Return a reference network with initial weights from ``seed``."""
        from ohmloop.tasks._models import build_model

        return build_model(name or self.default_model, self.input_shape, self.n_classes, seed)


def _split(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    scale: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> Split:
    import torch

    scaled = ((x - scale[0]) / scale[1]).astype(np.float32)
    return Split(torch.from_numpy(scaled), torch.from_numpy(y.astype(np.int64)))


def _stratified(y: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return sorted indices of about ``share`` of each class, at least one of each."""
    picked = []
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        picked.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(picked))


def _hold_out(x: NDArray[np.float32], y: NDArray[np.int64]) -> _Source:
    test = _stratified(y, TEST_SHARE, np.random.default_rng(TEST_SEED))
    rest = np.setdiff1d(np.arange(len(y)), test)
    return _Source(_Raw(x[rest], y[rest]), _Raw(x[test], y[test]))


def _per_feature(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    spread = x.std(axis=0)
    return x.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32)


def _per_image_set(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.asarray(x.mean(), np.float32), np.asarray(max(float(x.std()), 1e-6), np.float32)


def _digits(folder: Path | None) -> _Source:
    from sklearn.datasets import load_digits

    data = load_digits()
    return _hold_out(data.images[:, None].astype(np.float32), data.target.astype(np.int64))


def _iris(folder: Path | None) -> _Source:
    from sklearn.datasets import load_iris

    data = load_iris()
    return _hold_out(data.data.astype(np.float32), data.target.astype(np.int64))


_PENGUINS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
_SPECIES = ("Adelie", "Chinstrap", "Gentoo")


def _penguins(folder: Path | None) -> _Source:
    text = resources.files("ohmloop.tasks").joinpath("data/penguins.csv").read_text("utf-8")
    rows = [
        row
        for row in csv.DictReader(text.splitlines())
        if all(row[key] not in ("", "NA") for key in _PENGUINS)
    ]
    x = np.array([[float(row[key]) for key in _PENGUINS] for row in rows], dtype=np.float32)
    y = np.array([_SPECIES.index(row["species"]) for row in rows], dtype=np.int64)
    return _hold_out(x, y)


def _idx(folder: Path | None) -> _Source:
    from ohmloop.tasks._idx import read_idx

    assert folder is not None
    train_x, train_y, test_x, test_y = (read_idx(idx_path(folder, name)) for name in FILES)
    for x, y in ((train_x, train_y), (test_x, test_y)):
        if x.ndim != 3 or x.shape[1:] != (28, 28) or y.shape != (len(x),) or y.max() > 9:
            raise TaskError(
                f"{folder}: images {x.shape} and labels {y.shape} do not belong together."
            )
    return _Source(
        _Raw(train_x[:, None].astype(np.float32), train_y.astype(np.int64)),
        _Raw(test_x[:, None].astype(np.float32), test_y.astype(np.int64)),
    )


class _Entry(NamedTuple):
    description: str
    n_classes: int
    input_shape: tuple[int, ...]
    default_model: str
    citation: str
    load: Callable[[Path | None], _Source]
    images: bool


_TASKS = {
    "digits": _Entry(
        "8 x 8 images of handwritten digits",
        10,
        (1, 8, 8),
        "mlp",
        "Alpaydin & Kaynak 1998, UCI; as scikit-learn brings it (BSD)",
        _digits,
        True,
    ),
    "fashion-mnist": _Entry(
        "28 x 28 images of clothes",
        10,
        (1, 28, 28),
        "lenet",
        "Xiao, Rasul, Vollgraf 2017 (MIT)",
        _idx,
        True,
    ),
    "iris": _Entry(
        "four measures of iris flowers, three species",
        3,
        (4,),
        "mlp",
        "Fisher 1936, Anderson 1936; as scikit-learn brings it (BSD)",
        _iris,
        False,
    ),
    "mnist": _Entry(
        "28 x 28 images of handwritten digits",
        10,
        (1, 28, 28),
        "lenet",
        "LeCun, Bottou, Bengio, Haffner 1998",
        _idx,
        True,
    ),
    "penguins": _Entry(
        "four measures of penguins, three species; rows with gaps left out",
        3,
        (4,),
        "mlp",
        "Gorman, Williams, Fraser 2014; Horst, Hill, Gorman, palmerpenguins (CC0)",
        _penguins,
        False,
    ),
}


def list_tasks() -> tuple[str, ...]:
    """Return the names of the tasks."""
    return tuple(sorted(_TASKS))


def task(name: str, folder: str | Path | None = None, *, standardise: bool = True) -> Task:
    """Return a task by name.

    Args:
        name: One of `list_tasks`.
        folder: Where the four IDX files of mnist or fashion-mnist lie, if not in the cache.
        standardise: False leaves the inputs as they are stored.

    Raises:
        TaskError: If there is no such task, or its data is not here; the text says how to get it.

    >>> task("digits").n_classes
    10
    """
    entry = _TASKS.get(name)
    if entry is None:
        raise TaskError(f"no task {name!r}; one of {', '.join(list_tasks())}.")
    return Task(
        name=name,
        description=entry.description,
        n_classes=entry.n_classes,
        input_shape=entry.input_shape,
        default_model=entry.default_model,
        citation=entry.citation,
        folder=find_folder(name, folder) if entry.load is _idx else None,
        standardise=standardise,
        _load=entry.load,
        _scale=_per_image_set if entry.images else _per_feature,
    )
