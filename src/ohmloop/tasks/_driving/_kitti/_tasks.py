"""The tasks: KITTI from a folder, and simulated scenes in its format."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ohmloop.tasks._driving._kitti._metric import AnchorF1, detections
from ohmloop.tasks._driving._kitti._precision import average_precision
from ohmloop.tasks._driving._kitti._reader import (
    CLASSES,
    Calibration,
    Labels,
    image_size,
    in_view,
    read_calibration,
    read_labels,
    read_points,
    split_names,
)
from ohmloop.tasks._driving._kitti._scenes import write_scenes
from ohmloop.tasks._driving._pillars import build_pillars, pillars_names
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import DataSet, cache_folder

if TYPE_CHECKING:
    from torch import nn

KITTI_POINTS, SCENE_POINTS = 20_000, 5_120
"""Points of a scene that a network gets; a scan of KITTI has 17,000 to 20,000 in the camera's view."""
N_TRAIN, N_TEST = 1000, 150
"""Simulated scenes. 40 recall positions need more than 40 objects of each class and difficulty."""
SCENES = "kitti-scenes-1"
"""Folder in the cache; the number changes with the simulation."""
BATCH = 8


def fit_points(points: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Return ``n x 4``: zeros fill up what is missing, too many points are thinned evenly in their order."""
    if len(points) > n:
        return points[np.linspace(0, len(points) - 1, n).round().astype(np.int64)]
    return np.pad(points, ((0, n - len(points)), (0, 0)))


def targets(labels: Labels) -> NDArray[np.float32]:
    """Return the objects ``G x 8`` that networks are trained on: box and number of the class."""
    known = [k for k, name in enumerate(labels.names) if name in CLASSES]
    kinds = [CLASSES.index(labels.names[k]) for k in known]
    return np.column_stack([labels.boxes[known], kinds]).astype(np.float32).reshape(-1, 8)


class _Scene:
    """A scene's files, read on demand."""

    def __init__(self, folder: Path, name: str) -> None:
        part = folder / "training"
        self.calibration: Calibration = read_calibration(part / "calib" / f"{name}.txt")
        self.size = image_size(folder, name)
        self.labels: Labels = read_labels(part / "label_2" / f"{name}.txt", self.calibration)
        self._points = part / "velodyne" / f"{name}.bin"

    def points(self, n: int) -> NDArray[np.float32]:
        points = read_points(self._points)
        return fit_points(points[in_view(points, self.calibration, self.size)], n)


def _part(folder: Path, names: Sequence[str], n: int) -> Data:
    scenes = [_Scene(folder, name) for name in names]
    objects = [targets(scene.labels) for scene in scenes]
    y = np.zeros((len(scenes), max(1, *(len(o) for o in objects)), 8), np.float32)
    y[..., 7] = -1
    x = np.empty((len(scenes), n, 4), np.float32)
    for k, (scene, own) in enumerate(zip(scenes, objects, strict=True)):
        y[k, : len(own)] = own
        x[k] = scene.points(n)
    return Data(x, y)


@lru_cache(maxsize=1)
def load_folder(folder: Path, n: int) -> Source:
    """Return the scenes of a folder: the official training half, and the validation half as test."""
    train, held = split_names(folder)
    return Source(_part(folder, train, n), _part(folder, held, n))


def measure_folder(folder: Path, n: int) -> Measure:
    """Return what gives a network's mean of nine average precisions on the validation half."""
    _, names = split_names(folder)
    scenes = [_Scene(folder, name) for name in names]
    x = torch.from_numpy(load_folder(folder, n).test.x)

    def score(model: nn.Module) -> float:
        return float(np.nanmean(precisions(model, scenes, x)))

    return score


def precisions(model: nn.Module, scenes: Sequence[_Scene], x: torch.Tensor) -> NDArray[np.float64]:
    """Return average precisions ``3 x 3`` (classes x difficulties) of a network in eval mode."""
    place = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for first in range(0, len(scenes), BATCH):
            out = model(x[first : first + BATCH].to(place))
            for one, scene in zip(out, scenes[first : first + BATCH], strict=True):
                found.append(detections(one, scene.calibration, scene.size))
    return average_precision([scene.labels for scene in scenes], found)


def scenes_folder() -> Path:
    """Return the folder of the simulated scenes, made on first use (about half a minute, 94 MB)."""
    target = cache_folder(SCENES)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{SCENES}-"))
        try:
            write_scenes(made, N_TRAIN, N_TEST)
            os.replace(made, target)
        except OSError:
            # Another process was first: its scenes are the same.
            if not target.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return target


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    return build_pillars(name, seed)


def _kitti(folder: Path | None) -> Source:
    assert folder is not None
    return load_folder(folder, KITTI_POINTS)


def _measure_kitti(folder: Path | None) -> Measure:
    assert folder is not None
    return measure_folder(folder, KITTI_POINTS)


DATA = {
    "kitti": DataSet(
        files=("training/velodyne", "training/label_2", "training/calib"),
        packages=(),
        by_hand=(
            "Register at the KITTI Vision Benchmark Suite (cvlibs.net, 3D object detection), get the Velodyne "
            "point clouds, the camera calibration matrices and the training labels, unpack them in one folder "
            "(training/velodyne, training/calib, training/label_2; image_2 gives exact image sizes, and "
            "ImageSets/train.txt and val.txt the usual halves), and name it: --data FOLDER. Without the data, "
            "the task kitti-scenes runs on simulated scenes."
        ),
    )
}


def _load_scenes(folder: Path | None) -> Source:
    return load_folder(scenes_folder(), SCENE_POINTS)


def _measure_scenes(folder: Path | None) -> Measure:
    return measure_folder(scenes_folder(), SCENE_POINTS)


ENTRIES = {
    "kitti": Entry(
        description="laser scans of streets; boxes of cars, pedestrians and cyclists in space",
        citation=(
            "Geiger, Lenz, Urtasun, CVPR 2012 (CC BY-NC-SA 3.0); network: Lang et al., CVPR 2019. The test "
            "part is the usual validation half; labels of the official test scans are not public"
        ),
        n_classes=len(CLASSES),
        input_shape=(KITTI_POINTS, 4),
        default_model="pillars",
        load=_kitti,
        data="kitti",
        scaling="none",
        models=tuple(pillars_names()),
        build=_build,
        metric=AnchorF1(),
        measure=_measure_kitti,
        epochs=80,
        batch_size=4,
        lr=1e-3,
    ),
    "kitti-scenes": Entry(
        description="simulated laser scans in the KITTI format; boxes of cars, pedestrians, cyclists in space",
        citation="made by ohmloop (ray-traced boxes; not measured); network: Lang et al., CVPR 2019",
        n_classes=len(CLASSES),
        input_shape=(SCENE_POINTS, 4),
        default_model="pillars-small",
        load=_load_scenes,
        scaling="none",
        models=tuple(pillars_names()),
        build=_build,
        metric=AnchorF1(),
        measure=_measure_scenes,
        epochs=10,
        batch_size=4,
        lr=3e-3,
    ),
}
