"""Simulated street scenes in the KITTI format: a spinning laser scanner, ray-traced.

Not a measurement, and no stand-in for KITTI's figures: cars, pedestrians and cyclists are a few boxes each, the
ground is a plane, returns have a range noise and drop-outs, and nothing else. It lets the whole way from files
to average precision be run anywhere. Every scene follows from its number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.tasks._driving._kitti._boxes import bev_iou, corners
from ohmloop.tasks._driving._kitti._reader import NEAREST, Calibration

ELEVATIONS = np.radians(np.linspace(2.0, -24.8, 32))
"""Beams: the vertical field of KITTI's 64-beam scanner, at half its beams."""
AZIMUTHS = np.radians(np.arange(-45.0, 45.0, 0.5))
"""The part of a turn that the camera sees; KITTI's scanner turns .17 degrees a shot."""
HEIGHT = 1.73
RANGE_NOISE = 0.02
"""Metres, the accuracy that the maker of the scanner states."""
LOST = 0.1
"""Share of returns that do not come back."""
MAX_RANGE = 60.0
FEWEST = 5
"""Returns from which an object is labelled; with fewer it is DontCare."""
SEED = 2412_02779

CALIBRATION = Calibration(
    np.array([[721.5, 0, 609.5, 0], [0, 721.5, 172.9, 0], [0, 0, 1, 0]]),
    np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]], np.float64),
)
"""The camera of KITTI in round numbers, 27 cm before and 8 cm below the scanner."""

# Parts of an object, in shares of its length, width and height: from x, to x, from y, to y, from z, to z.
_PARTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "Car": ((-0.5, 0.5, -0.5, 0.5, 0.12, 0.6), (-0.42, 0.2, -0.44, 0.44, 0.6, 1.0)),
    "Van": ((-0.5, 0.5, -0.5, 0.5, 0.1, 1.0),),
    "Pedestrian": (
        (-0.5, 0.0, -0.35, -0.05, 0.0, 0.48),
        (0.0, 0.5, 0.05, 0.35, 0.0, 0.48),
        (-0.25, 0.25, -0.5, 0.5, 0.48, 0.85),
        (-0.15, 0.15, -0.18, 0.18, 0.85, 1.0),
    ),
    "Cyclist": (
        (-0.5, 0.5, -0.1, 0.1, 0.0, 0.45),
        (0.15, 0.3, -0.5, 0.5, 0.5, 0.6),
        (-0.25, 0.1, -0.4, 0.4, 0.45, 0.85),
        (-0.05, 0.12, -0.18, 0.18, 0.85, 1.0),
    ),
    "": ((-0.5, 0.5, -0.5, 0.5, 0.0, 1.0),),
}
# Mean and deviation of length, width and height, metres; the first three are about those of KITTI's labels.
_SIZES = {
    "Car": ((3.9, 0.35), (1.63, 0.08), (1.53, 0.1)),
    "Pedestrian": ((0.8, 0.12), (0.65, 0.08), (1.75, 0.09)),
    "Cyclist": ((1.76, 0.12), (0.6, 0.07), (1.73, 0.08)),
    "Van": ((5.0, 0.4), (1.9, 0.08), (2.2, 0.15)),
    "pole": ((0.15, 0.04), (0.15, 0.04), (3.5, 0.6)),
    "bush": ((1.4, 0.5), (1.0, 0.3), (0.9, 0.3)),
    "wall": ((7.0, 2.0), (0.4, 0.1), (2.5, 0.6)),
}
# Fewest and most of a kind in a scene.
_COUNTS = {
    "wall": (0, 2),
    "Car": (2, 4),
    "Van": (0, 1),
    "Cyclist": (1, 3),
    "Pedestrian": (1, 3),
    "bush": (0, 2),
    "pole": (0, 3),
}


class Scene(NamedTuple):
    """One simulated scene.

    Attributes:
        points: ``n x 4`` in the scanner's frame.
        labels: Lines of a label file.
    """

    points: NDArray[np.float32]
    labels: tuple[str, ...]


def simulate(number: int) -> Scene:
    """Return the scene of a number."""
    rng = np.random.default_rng([SEED, number])
    slope = rng.normal(0, 0.008, 2)
    kinds, boxes = _place(rng, slope)
    ranges, hit, visible = _trace(kinds, boxes, slope)
    back = np.isfinite(ranges) & (ranges < MAX_RANGE) & (rng.random(len(ranges)) > LOST)
    noisy = (ranges + rng.normal(0, RANGE_NOISE, len(ranges)))[back]
    shine = np.append(rng.uniform(0.1, 0.6, len(kinds)), 0.25)
    reflectance = np.clip(shine[hit] + rng.normal(0, 0.05, len(hit)), 0, 0.99)
    points = np.column_stack([noisy[:, None] * _rays()[back], reflectance[back]])
    returns = np.bincount(hit[back], minlength=len(kinds) + 1)
    lines = [
        _label(kind, box, share, int(n))
        for kind, box, share, n in zip(kinds, boxes, visible, returns, strict=False)
        if kind[0].isupper()
    ]
    return Scene(points.astype(np.float32), tuple(lines))


def _place(
    rng: np.random.Generator, slope: NDArray[np.float64]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return kinds and boxes ``n x 7`` of what stands in a scene, nothing in one another."""
    kinds: list[str] = []
    boxes = np.zeros((0, 7))
    for kind, (fewest, most) in _COUNTS.items():
        for _ in range(rng.integers(fewest, most + 1)):
            size = np.array([max(rng.normal(m, s), 0.5 * m) for m, s in _SIZES[kind]])
            box = _free(rng, size, kind, boxes)
            if box is not None:
                box[2] = -HEIGHT + slope @ box[:2] + size[2] / 2
                kinds.append(kind)
                boxes = np.vstack([boxes, box])
    return kinds, boxes


def _free(
    rng: np.random.Generator, size: NDArray[np.float64], kind: str, boxes: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return a box where there is room, None after twenty attempts."""
    for _ in range(20):
        x = rng.uniform(4.0, 22.0)
        y = rng.uniform(-1, 1) * min(0.75 * x, 10.5)
        along = kind in ("Car", "Van", "wall") and rng.random() < 0.7
        yaw = rng.choice([0, np.pi]) + rng.normal(0, 0.1) if along else rng.uniform(-np.pi, np.pi)
        box = np.array([x, y, 0, *size, yaw])
        roomy = box + np.array([0, 0, 0, 0.4, 0.4, 0, 0])
        if not (bev_iou(roomy[None], boxes) > 0).any():
            return box
    return None


def _rays() -> NDArray[np.float64]:
    """Return directions ``beams * azimuths x 3`` of unit length."""
    elevation, azimuth = (g.ravel() for g in np.meshgrid(ELEVATIONS, AZIMUTHS, indexing="ij"))
    flat = np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], 1)


def _trace(
    kinds: Sequence[str], boxes: NDArray[np.float64], slope: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return ranges ``R`` (infinite without a hit), what was hit, and each object's visible share.

    What was hit is the number of the object, or the number of objects for the ground.
    """
    rays = _rays()
    each = [_range_to(rays, kind, box) for kind, box in zip(kinds, boxes, strict=True)]
    # The ground: z = -height + slope . (x, y)
    down = rays[:, 2] - rays[:, :2] @ slope
    with np.errstate(divide="ignore"):
        ground = np.where(down < 0, -HEIGHT / down, np.inf)
    ranges = np.stack([*each, ground])
    hit = ranges.argmin(0)
    alone = np.isfinite(ranges[:-1]) & (ranges[:-1] <= ground)
    seen = hit == np.arange(len(kinds))[:, None]
    share = (seen & alone).sum(1) / np.maximum(alone.sum(1), 1)
    return ranges.min(0), hit, share


def _range_to(
    rays: NDArray[np.float64], kind: str, box: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ranges ``R`` at which rays from the scanner enter an object (slab method)."""
    c, s = np.cos(box[6]), np.sin(box[6])
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    origin = turn @ -box[:3]
    with np.errstate(divide="ignore"):
        inverse = 1 / (rays @ turn.T)
    best = np.full(len(rays), np.inf)
    for part in _PARTS.get(kind, _PARTS[""]):
        bounds = np.array(part).reshape(3, 2) - np.array([[0, 0], [0, 0], [0.5, 0.5]])
        low, high = (bounds * box[3:6, None]).T
        one, two = (low - origin) * inverse, (high - origin) * inverse
        enter, leave = np.minimum(one, two).max(1), np.maximum(one, two).min(1)
        best = np.where((enter < leave) & (enter > 0), np.minimum(best, enter), best)
    return best


def _label(kind: str, box: NDArray[np.float64], visible: float, returns: int) -> str:
    """Return a line of a label file; alpha is rotation_y less the direction to the object."""
    image = CALIBRATION.image_boxes(box[None])[0]
    edges = " ".join(f"{v:.2f}" for v in image)
    if returns < FEWEST:
        return f"DontCare -1 -1 -10 {edges} -1 -1 -1 -1000 -1000 -1000 -10"
    occluded = 0 if visible >= 0.8 else 1 if visible >= 0.4 else 2
    bottom = box[:3] - np.array([0, 0, box[5] / 2])
    x, y, z = CALIBRATION.to_camera(bottom[None])[0]
    rotation = float(CALIBRATION.heading(box[6:])[0])
    alpha = (rotation - np.arctan2(x, z) + np.pi) % (2 * np.pi) - np.pi
    return (
        f"{kind} {_truncated(box, image):.2f} {occluded} {alpha:.2f} {edges} "
        f"{box[5]:.2f} {box[4]:.2f} {box[3]:.2f} {x:.2f} {y:.2f} {z:.2f} {rotation:.2f}"
    )


def _truncated(box: NDArray[np.float64], image: NDArray[np.float64]) -> float:
    """Return the share of an object's image box that lies outside the image."""
    points = CALIBRATION.to_camera(corners(box[None])[0])
    points[:, 2] = np.maximum(points[:, 2], NEAREST)
    pixels = CALIBRATION.to_image(points)[:, :2]
    whole = np.prod(np.ptp(pixels, axis=0))
    return float(1 - np.prod(image[2:] - image[:2]) / whole)


def write_scenes(folder: Path, n_train: int, n_test: int) -> None:
    """Write simulated scenes as a folder of the KITTI object benchmark, images left out."""
    places = {p: folder / "training" / p for p in ("velodyne", "label_2", "calib")}
    for place in (*places.values(), folder / "ImageSets"):
        place.mkdir(parents=True, exist_ok=True)
    names = [f"{k:06d}" for k in range(n_train + n_test)]
    for part, chosen in (("train", names[:n_train]), ("val", names[n_train:])):
        text = "".join(f"{name}\n" for name in chosen)
        (folder / "ImageSets" / f"{part}.txt").write_text(text, encoding="ascii")
    calibration = "".join(
        f"{key}: {' '.join(f'{v:.6e}' for v in matrix.ravel())}\n"
        for key, matrix in (
            ("P2", CALIBRATION.camera),
            ("R0_rect", np.eye(3)),
            ("Tr_velo_to_cam", CALIBRATION.lidar_to_camera),
        )
    )
    for number, name in enumerate(names):
        scene = simulate(number)
        scene.points.astype("<f4").tofile(places["velodyne"] / f"{name}.bin")
        text = "".join(f"{line}\n" for line in scene.labels)
        (places["label_2"] / f"{name}.txt").write_text(text, encoding="ascii")
        (places["calib"] / f"{name}.txt").write_text(calibration, encoding="ascii")
