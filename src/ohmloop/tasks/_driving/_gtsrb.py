"""The German Traffic Sign Recognition Benchmark at 32 x 32 (Stallkamp et al. 2012).

Frames of one track show one sign from a car that passes it; they are nearly alike, so tracks are never torn
apart. The official test set has no tracks: its frames come from other signs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import NPZ_ERRORS, DataSet
from ohmloop.tasks._images._augment import shift_and_relight

N_CLASSES = 43
SIDE = 32
TRACKS = 10_000
"""Tracks are numbered from 0 in each class; this times the class is added to tell them apart."""


def _load(folder: Path | None) -> Source:
    assert folder is not None
    if (folder / "train.npz").is_file():
        parts = (_packed(folder / "train.npz"), _packed(folder / "test.npz"))
    else:
        root = folder / "GTSRB" if (folder / "GTSRB").is_dir() else folder
        parts = (_data(list(_training_frames(root))), _data(list(_test_frames(root))))
    return Source(*(data._replace(x=_relight(data.x)) for data in parts))


def _relight(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring each image ``n x 3 x 32 x 32`` to mean 128 and deviation near 40, whatever the light was.

    Signs are photographed from full sun to deep dusk. Evening the contrast is what the best entries of the
    benchmark do too (Ciresan et al. 2012). What lies over 3 deviations is cut; the 3 beside the
    deviation, in grey levels, keep noise of images without contrast from being blown up.
    """
    out = np.empty_like(x)
    # By slices: float copies of all images at once would take a gigabyte.
    for start in range(0, len(x), 1024):
        part = x[start : start + 1024].astype(np.float32)
        middle = part.mean((1, 2, 3), keepdims=True)
        spread = part.std((1, 2, 3), keepdims=True) + 3
        out[start : start + 1024] = np.rint(np.clip(128 + 40 * (part - middle) / spread, 0, 255))
    return out


def _packed(path: Path) -> Data:
    """Read ``images`` n x 32 x 32 x 3 uint8, ``labels`` n and, for training, ``tracks`` n."""
    is_train = path.stem == "train"
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as content:
            x, y = content["images"], content["labels"]
            tracks = content["tracks"] if is_train else None
    except NPZ_ERRORS as error:
        wanted = "images, labels" + (", tracks" if is_train else "")
        raise TaskError(f"{path} should hold the arrays {wanted}: {error}.") from error
    if x.dtype != np.uint8 or x.shape[1:] != (SIDE, SIDE, 3):
        raise TaskError(
            f"{path}: images are {x.dtype} {x.shape}; expected uint8 n x {SIDE} x {SIDE} x 3."
        )
    for values in (y, *(() if tracks is None else (tracks,))):
        if values.shape != (len(x),) or values.dtype.kind not in "iu":
            raise TaskError(
                f"{path}: {len(x)} images, but labels or tracks {values.dtype} {values.shape}; "
                "expected one whole number an image."
            )
    return _checked(str(path), x, y, tracks)


def _checked(
    where: str, x: NDArray[np.uint8], y: NDArray[np.int64], tracks: NDArray[np.int64] | None
) -> Data:
    if not len(x) or y.min() < 0 or y.max() >= N_CLASSES:
        raise TaskError(f"{where}: labels should be 0 to {N_CLASSES - 1}, of one image at least.")
    return Data(
        np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
        y.astype(np.int64),
        None if tracks is None else tracks.astype(np.int64),
    )


class _Frame(NamedTuple):
    path: Path
    label: int
    track: int | None


def _training_frames(root: Path) -> Iterator[_Frame]:
    """Yield the frames that the table of each class folder names; "00003_00012.ppm" is of track 3."""
    base = _first(root, "Final_Training/Images", "Training")
    tables = sorted(base.glob("*/GT-*.csv"))
    if not tables:
        raise TaskError(f"{base} has no class folders 00000 to 00042 with a table GT-*.csv each.")
    for table in tables:
        for name, label in _rows(table):
            head = name.split("_")[0]
            if not head.isdecimal():
                raise TaskError(f"{table}: {name!r} should be named TRACK_FRAME.ppm.")
            yield _Frame(table.parent / name, label, label * TRACKS + int(head))


def _test_frames(root: Path) -> Iterator[_Frame]:
    images = _first(root, "Final_Test/Images")
    # The solution comes in an archive of its own, and people unpack it in different places.
    name = "GT-final_test.csv"
    # The archives bring a folder GTSRB, but the solution's has none: it lies beside that folder then.
    beside = (f"../{name}",) if root.name == "GTSRB" else ()
    table = _first(root, name, f"Final_Test/{name}", f"Final_Test/Images/{name}", *beside)
    for file, label in _rows(table):
        yield _Frame(images / file, label, None)


def _first(root: Path, *places: str) -> Path:
    for place in places:
        if (root / place).exists():
            return root / place
    raise TaskError(f"{root} has no {' or '.join(places)}. {_BY_HAND}")


def _rows(table: Path) -> Iterator[tuple[str, int]]:
    """Yield file name and class of each line of a table, whose columns are separated by semicolons."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{table} cannot be read: {error}.") from error
    for row in csv.DictReader(lines, delimiter=";"):
        name, label = row.get("Filename"), row.get("ClassId")
        if not name or label is None or not label.isdecimal():
            raise TaskError(
                f"{table}: expected the columns Filename and ClassId (a number), separated by "
                f"semicolons; received {dict(row)}."
            )
        yield name, int(label)


def _data(frames: list[_Frame]) -> Data:
    if not frames:
        raise TaskError("the tables of the German traffic signs name no images.")
    x = np.stack([_read(frame.path) for frame in frames])
    y = np.array([frame.label for frame in frames], np.int64)
    tracks = [frame.track for frame in frames if frame.track is not None]
    return _checked(
        str(frames[0].path.parent), x, y, np.array(tracks, np.int64) if tracks else None
    )


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            resized = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TaskError(f"{path} cannot be read: {error}. Get the data set again.") from error
    return np.asarray(resized, np.uint8)


_BY_HAND = (
    "get GTSRB_Final_Training_Images, GTSRB_Final_Test_Images and GTSRB_Final_Test_GT of the German Traffic "
    "Sign Recognition Benchmark (Institut fuer Neuroinformatik, Bochum), unpack them in one folder and name "
    "it: --data FOLDER. It should hold Final_Training/Images/00000 to 00042, Final_Test/Images and "
    "GT-final_test.csv, or train.npz (images n x 32 x 32 x 3 uint8, labels, tracks) and test.npz (images, "
    "labels)."
)

DATA = {
    "gtsrb": DataSet(
        files=(
            "train.npz|Final_Training|Training|GTSRB/Final_Training|GTSRB/Training",
            "test.npz|Final_Test|GTSRB/Final_Test",
        ),
        packages=(),
        by_hand=_BY_HAND,
    )
}

ENTRIES = {
    "gtsrb": Entry(
        description="32 x 32 colour photographs of 43 German traffic signs",
        citation="Stallkamp, Schlipsing, Salmen, Igel 2012 (for research; cite)",
        n_classes=N_CLASSES,
        input_shape=(3, SIDE, SIDE),
        default_model="cnn-bn",
        load=_load,
        data="gtsrb",
        augment=shift_and_relight,
        epochs=20,
    )
}
