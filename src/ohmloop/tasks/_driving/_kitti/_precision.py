"""Average precision of the KITTI object benchmark: boxes in space, 40 recall positions.

The rules are those of the benchmark's development kit (evaluate_object.cpp, Geiger et al. 2012; 40 positions
since 2019, after Simonelli et al., ICCV 2019), written anew for arrays:

* An object counts at a difficulty if its image box is high enough, and it is neither too hidden nor too far
  outside the image. Others of its class, and a class that is easily taken for it (Van, Person_sitting), are
  ignored: finding them is neither right nor wrong.
* Detections whose image box is too low are ignored too: they can take an object out of the count, and are
  never wrong.
* Each object in turn takes the free detection that overlaps it most (by more than the class's threshold).
* Thresholds of the score are those where recall passes 1/40, 2/40, ...; precision at each is the best at it
  or at a higher recall.
* DontCare regions have no box in space, so they excuse nothing here (they do for image boxes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.tasks._driving._kitti._boxes import Boxes, iou_3d
from ohmloop.tasks._driving._kitti._reader import CLASSES, Labels

POSITIONS = 40
OVERLAP = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
SIMILAR = {"Car": "Van", "Pedestrian": "Person_sitting", "Cyclist": ""}
DIFFICULTIES = ("easy", "moderate", "hard")
MIN_HEIGHT = (40, 25, 25)
MAX_OCCLUDED = (0, 1, 2)
MAX_TRUNCATED = (0.15, 0.3, 0.5)


class Detections(NamedTuple):
    """What was found in a scene.

    Attributes:
        boxes: ``n x 7`` in the scanner's frame.
        scores: ``n``.
        classes: ``n`` numbers in `CLASSES`.
        heights: ``n`` heights of the image boxes, pixels.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    heights: NDArray[np.float64]


def difficulties(labels: Labels) -> NDArray[np.bool_]:
    """Return whether objects count as easy, moderate and hard, ``n x 3``."""
    height = (labels.image[:, 3] - labels.image[:, 1])[:, None]
    return np.asarray(
        (height >= np.array(MIN_HEIGHT))
        & (labels.occluded[:, None] <= np.array(MAX_OCCLUDED))
        & (labels.truncated[:, None] <= np.array(MAX_TRUNCATED))
    )


def average_precision(labels: Sequence[Labels], found: Sequence[Detections]) -> NDArray[np.float64]:
    """Return average precisions ``3 x 3`` (classes x difficulties) in [0, 1].

    NaN where the scenes have no object of a class that counts at a difficulty.

    Args:
        labels: Of each scene.
        found: In each scene, in the same order.
    """
    counts = [difficulties(scene) for scene in labels]
    overlaps = [iou_3d(s.boxes, f.boxes) for s, f in zip(labels, found, strict=True)]
    out = np.full((len(CLASSES), len(DIFFICULTIES)), np.nan)
    for c, name in enumerate(CLASSES):
        for d in range(len(DIFFICULTIES)):
            scenes = [
                _pick(s, f, n[:, d], o, name, MIN_HEIGHT[d])
                for s, f, n, o in zip(labels, found, counts, overlaps, strict=True)
            ]
            out[c, d] = _precision([scene for scene in scenes if scene is not None])
    return out


class _Scene(NamedTuple):
    """One scene for one class and difficulty: rows are objects, columns detections that matter."""

    counts: NDArray[np.bool_]  # objects that count; the others are ignored
    ignored: NDArray[np.bool_]  # detections that are too low
    scores: NDArray[np.float64]
    overlap: NDArray[np.float64]  # 0 where too small to match


def _pick(
    labels: Labels,
    found: Detections,
    counts: NDArray[np.bool_],
    overlap: NDArray[np.float64],
    name: str,
    min_height: int,
) -> _Scene | None:
    same = np.array([n == name for n in labels.names], bool)
    rows = same | np.array([n == SIMILAR[name] for n in labels.names], bool)
    # As in the kit: a low detection is ignored before its class is asked for.
    low = found.heights < min_height
    columns = (found.classes == CLASSES.index(name)) | low
    if not rows.any() and not (columns & ~low).any():
        return None
    part = overlap[np.ix_(rows, columns)]
    return _Scene(
        (same & counts)[rows],
        low[columns],
        found.scores[columns],
        np.where(part > OVERLAP[name], part, 0),
    )


def _precision(scenes: Sequence[_Scene]) -> float:
    n_objects = sum(int(scene.counts.sum()) for scene in scenes)
    if n_objects == 0:
        return float("nan")
    hits = np.concatenate([_scores_of_hits(scene) for scene in scenes])
    thresholds = _thresholds(hits, n_objects)
    right, wrong = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for scene in scenes:
        tp, fp = _count(scene, thresholds)
        right += tp
        wrong += fp
    precision = np.zeros(POSITIONS + 1)
    precision[: len(thresholds)] = right / np.maximum(right + wrong, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # Position 0 is the best score alone; it was dropped with the step from 11 positions to 40.
    return float(best[1:].mean())


def _scores_of_hits(scene: _Scene) -> NDArray[np.float64]:
    """Return the scores of right detections, each object taking the free one of the highest score."""
    free = np.ones(len(scene.scores), bool)
    out = []
    for counts, row in zip(scene.counts, scene.overlap, strict=True):
        candidates = np.flatnonzero(free & (row > 0))
        if len(candidates) == 0:
            continue
        best = candidates[np.argmax(scene.scores[candidates])]
        free[best] = False
        if counts and not scene.ignored[best]:
            out.append(scene.scores[best])
    return np.array(out, np.float64)


def _thresholds(hits: NDArray[np.float64], n_objects: int) -> NDArray[np.float64]:
    """Return the scores at which recall comes closest to 0, 1/40, 2/40, ..."""
    ordered = np.sort(hits)[::-1]
    out: list[float] = []
    for i, score in enumerate(ordered):
        target = len(out) / POSITIONS
        here, last = (i + 1) / n_objects, i == len(ordered) - 1
        following = here if last else (i + 2) / n_objects
        if last or following - target >= target - here:
            out.append(float(score))
    return np.array(out)


def _count(
    scene: _Scene, thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return right and wrong detections at each of the thresholds ``t``."""
    # t x detections: above the threshold, and not yet taken
    active = scene.scores >= thresholds[:, None]
    free = active.copy()
    right = np.zeros(len(thresholds), np.int64)
    each = np.arange(len(thresholds))
    for counts, row in zip(scene.counts, scene.overlap, strict=True):
        if not row.any():
            continue
        fitting = free & (row > 0)
        proper = fitting & ~scene.ignored
        has_proper = proper.any(1)
        # The largest overlap among proper ones, else the first ignored one.
        best = np.where(has_proper, np.where(proper, row, -1).argmax(1), fitting.argmax(1))
        takes = fitting.any(1)
        free[each[takes], best[takes]] = False
        if counts:
            right += has_proper
    return right, (free & ~scene.ignored).sum(1)
