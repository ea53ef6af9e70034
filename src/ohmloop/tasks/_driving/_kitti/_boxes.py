"""Rotated boxes: overlap seen from above and in space, corners, non-maximum suppression.

A box is (x, y, z, l, w, h, yaw): centre, length along its own x, width along its own y, height; yaw turns x
towards y. All in float64, because overlaps near thresholds decide what counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating[Any]]
EDGE = 1e-9
"""Metres by which one box is widened before edges are clipped to it and the other is narrowed, so that edges
that coincide are counted once. The error in area is below the boxes' outline times this."""
_SIGNS = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) / 2
"""Corners of a box seen from above, counter-clockwise, in units of its length and width."""


def wrap(angle: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return angles in [-pi, pi), radians."""
    return (np.asarray(angle, np.float64) + np.pi) % (2 * np.pi) - np.pi


def corners(boxes: Boxes) -> NDArray[np.float64]:
    """Return the eight corners ``n x 8 x 3`` of boxes ``n x 7``: first the four below, then above."""
    b = boxes.astype(np.float64)
    flat = _outline(b[:, 3:5], b[:, 6]) + b[:, None, :2]
    low, high = b[:, 2] - b[:, 5] / 2, b[:, 2] + b[:, 5] / 2
    z = np.repeat(np.stack([low, high], 1), 4, axis=1)
    return np.concatenate([np.tile(flat, (1, 2, 1)), z[..., None]], -1)


def overlap_area(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the exact area ``n`` that pairs of boxes ``n x 7`` share seen from above, square metres.

    The outline of the common part consists of the pieces of each box's edges that lie in the other box. Its
    area is half the sum of cross products of the ends of these pieces (Green's theorem); pieces are found by
    clipping a line to a rectangle (Liang, Barsky 1984). Nothing is sorted, so nothing can be mis-sorted.
    """
    return _shared_area(a.astype(np.float64), b.astype(np.float64))


def _shared_area(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    # Everything in b's own frame, so that cross products stay small.
    shift = _turn(a[:, None, :2] - b[:, None, :2], -b[:, 6])
    turn = a[:, 6] - b[:, 6]
    edges_a = _outline(a[:, 3:5], turn) + shift
    edges_b = _outline(b[:, 3:5], np.zeros(len(b)))
    # The edges of b in a's frame are clipped there; the parameters along them are the same in both.
    seen = _turn(edges_b - shift, -turn)
    return _sweep(edges_a, edges_a, b[:, 3:5] / 2 + EDGE) + _sweep(
        edges_b, seen, a[:, 3:5] / 2 - EDGE
    )


def _turn(points: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn points ``n x k x 2`` by angles ``n``."""
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = points[..., 0], points[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], -1)


def _outline(sides: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return corners ``n x 4 x 2``, counter-clockwise, of rectangles about the origin."""
    return _turn(_SIGNS * sides[:, None], angle)


def _sweep(
    corner: NDArray[np.float64], seen: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return half the summed cross products of the pieces of edges inside rectangles, ``n``.

    Args:
        corner: ``n x 4 x 2`` ends of edges in the frame of the sum.
        seen: The same in the frame of the rectangle.
        half: ``n x 2`` half sides of the rectangle.
    """
    start, along = seen, np.roll(seen, -1, axis=1) - seen
    half = half[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-half - start) / along, (half - start) / along
    # Along an axis that the edge does not move on, it is inside for all of its length or for none.
    inside = np.abs(start) <= half
    still = along == 0
    enter = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(one, two)).max(-1)
    leave = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(one, two)).min(-1)
    enter, leave = np.clip(enter, 0, 1), np.clip(leave, 0, 1)
    length = np.maximum(leave - enter, 0)
    step = np.roll(corner, -1, axis=1) - corner
    # cross(p + t0 d, p + t1 d) = (t1 - t0) cross(p, d)
    cross = corner[..., 0] * step[..., 1] - corner[..., 1] * step[..., 0]
    return np.asarray((length * cross).sum(-1) / 2)


def _pairs(a: Boxes, b: Boxes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the numbers of the pairs whose circles around their corners touch."""
    reach = np.hypot(a[:, 3], a[:, 4])[:, None] + np.hypot(b[:, 3], b[:, 4])
    apart = np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1])
    first, second = np.nonzero(apart < reach / 2)
    return first, second


def bev_iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return intersection over union ``n x m`` of boxes ``n x 7`` and ``m x 7`` seen from above."""
    out = np.zeros((len(a), len(b)))
    i, j = _pairs(a, b)
    shared = np.maximum(overlap_area(a[i], b[j]), 0)
    union = a[i, 3] * a[i, 4] + b[j, 3] * b[j, 4] - shared
    out[i, j] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return out


def iou_3d(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return intersection over union ``n x m`` of volumes of boxes ``n x 7`` and ``m x 7``."""
    out = np.zeros((len(a), len(b)))
    i, j = _pairs(a, b)
    top = np.minimum(a[i, 2] + a[i, 5] / 2, b[j, 2] + b[j, 5] / 2)
    bottom = np.maximum(a[i, 2] - a[i, 5] / 2, b[j, 2] - b[j, 5] / 2)
    shared = np.maximum(overlap_area(a[i], b[j]), 0) * np.maximum(top - bottom, 0)
    union = a[i, 3:6].prod(1) + b[j, 3:6].prod(1) - shared
    out[i, j] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return out


def suppress(
    boxes: Boxes, scores: NDArray[np.floating], threshold: float, limit: int
) -> NDArray[np.intp]:
    """Return the numbers of at most ``limit`` boxes, best first, none of which overlaps a better one.

    Args:
        boxes: ``n x 7``.
        scores: ``n``.
        threshold: Largest intersection over union, seen from above, that two kept boxes may have.
        limit: Boxes to keep.
    """
    boxes = boxes.astype(np.float64)
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[bev_iou(boxes[best : best + 1], boxes[left])[0] <= threshold]
    return np.array(kept, np.intp)
