"""The official folder of the KITTI object benchmark, read into the frame of the laser scanner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._kitti._boxes import Boxes, corners, wrap

CLASSES = ("Car", "Pedestrian", "Cyclist")
IMAGE_SIZE = (1242, 375)
"""Width and height of most images; used where the image itself is not there."""
NEAREST = 0.1
"""Metres before the camera at which boxes are cut for projection."""


class Calibration(NamedTuple):
    """How laser scanner, camera and image belong together.

    Attributes:
        camera: ``3 x 4`` projection of rectified camera coordinates to pixels (P2, the left colour camera).
        lidar_to_camera: ``3 x 4`` from the scanner's frame to rectified camera coordinates.
    """

    camera: NDArray[np.float64]
    lidar_to_camera: NDArray[np.float64]

    def to_camera(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return points ``n x 3`` of the scanner's frame in rectified camera coordinates."""
        turn, shift = self.lidar_to_camera[:, :3], self.lidar_to_camera[:, 3]
        moved: NDArray[np.float64] = points.astype(np.float64)
        return moved @ turn.T + shift

    def to_lidar(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return points ``n x 3`` of rectified camera coordinates in the scanner's frame."""
        turn, shift = self.lidar_to_camera[:, :3], self.lidar_to_camera[:, 3]
        back = np.linalg.inv(turn).astype(np.float64)
        return (points - shift).astype(np.float64) @ back.T

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return pixels and depth ``n x 3`` of points ``n x 3`` in rectified camera coordinates."""
        seen = points @ self.camera[:, :3].T + self.camera[:, 3]
        depth = np.maximum(seen[:, 2:], 1e-6)
        return np.concatenate([seen[:, :2] / depth, seen[:, 2:]], 1)

    def heading(self, rotation_y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return yaw in the scanner's frame of rotations about the camera's downward y, and back again.

        The camera looks along the scanner's x, up to a degree or so that boxes leave out.
        """
        return wrap(-np.asarray(rotation_y) - np.pi / 2)

    def image_boxes(self, boxes: Boxes, size: tuple[int, int] = IMAGE_SIZE) -> NDArray[np.float64]:
        """Return left, top, right, bottom ``n x 4`` of boxes ``n x 7`` in the image, cut at its edges.

        Boxes behind the camera have no area.
        """
        if len(boxes) == 0:
            return np.zeros((0, 4))
        points = self.to_camera(corners(boxes).reshape(-1, 3))
        behind = (points[:, 2:] < NEAREST).reshape(-1, 8).all(1, keepdims=True)
        points[:, 2] = np.maximum(points[:, 2], NEAREST)
        pixels = self.to_image(points)[:, :2].reshape(-1, 8, 2)
        limit = np.array(size) - 1.0
        low = np.clip(pixels.min(1), 0, limit)
        high = np.clip(pixels.max(1), 0, limit)
        high = np.where(behind, low, high)
        return np.concatenate([low, high], 1)


class Labels(NamedTuple):
    """The labelled objects of a scene; DontCare regions have no box in space and come apart.

    Attributes:
        names: ``n`` classes as written ("Car", "Van", ...).
        boxes: ``n x 7`` in the scanner's frame.
        image: ``n x 4`` left, top, right, bottom, pixels.
        occluded: ``n``: 0 fully visible, 1 partly, 2 largely hidden, 3 unknown.
        truncated: ``n``: share outside the image, 0 to 1.
        dont_care: ``k x 4`` regions of the image whose objects were not labelled.
    """

    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    image: NDArray[np.float64]
    occluded: NDArray[np.int64]
    truncated: NDArray[np.float64]
    dont_care: NDArray[np.float64]


def read_calibration(path: Path) -> Calibration:
    """Read a file of calib/.

    Raises:
        TaskError: If P2, R0_rect or Tr_velo_to_cam is missing or damaged.
    """
    found = {}
    for line in _text(path).splitlines():
        key, colon, rest = line.partition(":")
        if colon:
            found[key.strip()] = rest.split()
    values = {}
    for key, shape in (("P2", (3, 4)), ("R0_rect", (3, 3)), ("Tr_velo_to_cam", (3, 4))):
        try:
            values[key] = np.array([float(v) for v in found[key]]).reshape(shape)
        except (KeyError, ValueError) as error:
            raise TaskError(
                f"{path}: {key} should be {shape[0] * shape[1]} numbers; found "
                f"{' '.join(found.get(key, ['nothing']))[:60]!r}."
            ) from error
    return Calibration(values["P2"], values["R0_rect"] @ values["Tr_velo_to_cam"])


def read_labels(path: Path, calibration: Calibration) -> Labels:
    """Read a file of label_2/ into the scanner's frame.

    A line is: class, truncation, occlusion, alpha, image box (4), height, width, length, place of the bottom's
    centre in camera coordinates (3), rotation about the camera's y.

    Raises:
        TaskError: If a line has fewer than 15 columns, or one that is no number.
    """
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words[1:15]])
        except ValueError as error:
            raise TaskError(f"{path} line {number}: {error}.") from error
        if len(rows[-1]) < 14:
            raise TaskError(f"{path} line {number} has {len(words)} columns, a label has 15.")
        names.append(words[0])
    table = np.array(rows, np.float64).reshape(-1, 14)
    real = np.array([name != "DontCare" for name in names], bool)
    kept = table[real]
    height, width, length = kept[:, 7:10].T
    centre = calibration.to_lidar(kept[:, 10:13])
    centre[:, 2] += height / 2
    yaw = calibration.heading(kept[:, 13])
    return Labels(
        tuple(name for name in names if name != "DontCare"),
        np.column_stack([centre, length, width, height, yaw]),
        kept[:, 3:7],
        kept[:, 1].astype(np.int64),
        kept[:, 0],
        table[~real, 3:7],
    )


def read_points(path: Path) -> NDArray[np.float32]:
    """Read a file of velodyne/: points ``n x 4`` of x, y, z (metres) and reflectance (0 to 1)."""
    try:
        flat = np.fromfile(path, "<f4")
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
    if flat.size % 4:
        raise TaskError(
            f"{path} holds {flat.size} numbers; points have 4 each. Get the file again."
        )
    return flat.reshape(-1, 4).astype(np.float32)


def in_view(
    points: NDArray[np.float32], calibration: Calibration, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which points ``n x 4`` the camera sees: only these parts of the scans are labelled."""
    pixels = calibration.to_image(calibration.to_camera(points[:, :3].astype(np.float64)))
    inside = (pixels[:, :2] >= 0) & (pixels[:, :2] < np.array(size))
    return np.asarray(inside.all(1) & (pixels[:, 2] > 0))


def image_size(folder: Path, name: str) -> tuple[int, int]:
    """Return width and height of a scene's image, `IMAGE_SIZE` if the images are not there."""
    path = folder / "training" / "image_2" / f"{name}.png"
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError:
        return IMAGE_SIZE
    # A PNG begins with its signature and the IHDR block: width and height at 16 and 20, big-endian.
    if head[12:16] != b"IHDR":
        raise TaskError(f"{path} is no PNG image.")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def split_names(folder: Path) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of training and validation scenes.

    ImageSets/train.txt and val.txt where they are there (the usual halves of Chen et al., NeurIPS 2015).
    Without them every second labelled scene, in order of names, is for validation; the scenes of one drive
    are not kept apart then, so the figures cannot be compared with published ones.

    Raises:
        TaskError: If a part is empty, or the two share scenes.
    """
    lists = [folder / "ImageSets" / f"{part}.txt" for part in ("train", "val")]
    if all(path.exists() for path in lists):
        train, held = (_text(path).split() for path in lists)
    else:
        names = sorted(p.stem for p in (folder / "training" / "label_2").glob("*.txt"))
        train, held = names[::2], names[1::2]
    both = set(train) & set(held)
    if not train or not held or both:
        raise TaskError(
            f"{folder}: {len(train)} scenes to train, {len(held)} to test on, {len(both)} in both; each part "
            "needs its own. Look at ImageSets/train.txt and val.txt, and at training/label_2."
        )
    return train, held


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
