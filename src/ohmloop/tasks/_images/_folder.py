"""A user's own images: a folder of class-named folders, as iNaturalist and torchvision's ImageFolder have it.

Either the classes lie side by side, and a fixed fifth of each becomes the test set, or `train` stands above
them beside `val` (or `validation`) and `test`. Then `test` is the test set, and `val` adds to the development
data, of which every seed takes another part for validation. Without `test`, `val` is the test set; without
either, a fixed fifth of `train`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import DataSet
from ohmloop.tasks._images._augment import crop_and_flip
from ohmloop.tasks._split import hold_out

SIDE = 64
"""Images are cut to a square about their middle and resized to this many pixels a side."""
_LAYOUT = (
    "    FOLDER/robin/1.jpg ... FOLDER/wren/2.jpg\n"
    "or the same under FOLDER/train, FOLDER/val and FOLDER/test."
)


class _Item(NamedTuple):
    path: Path
    label: int


class _Layout(NamedTuple):
    """Which images are in which part; ``test`` is None if it is to be held out of the others."""

    classes: tuple[str, ...]
    development: tuple[_Item, ...]
    test: tuple[_Item, ...] | None


def _describe(entry: Entry, folder: Path | None) -> Entry:
    """Return the entry with the number of classes of this folder."""
    layout = _survey(folder)
    return dataclasses.replace(entry, n_classes=len(layout.classes))


def _load(folder: Path | None) -> Source:
    layout = _survey(folder)
    if layout.test is None:
        x, y, _ = _read_all(layout.development)
        return hold_out(x, y)
    return Source(_read_all(layout.development), _read_all(layout.test))


def _survey(folder: Path | None) -> _Layout:
    """List the images of a folder without opening them.

    Raises:
        TaskError: If the folder is missing, laid out in another way, or too small to be divided.
    """
    if folder is None or not folder.is_dir():
        raise TaskError(
            f"no folder {folder} with images. Name yours: --data FOLDER, with one folder a class:\n{_LAYOUT}"
        )
    train, test = folder / "train", folder / "test"
    val = next((p for p in (folder / "val", folder / "validation") if p.is_dir()), None)
    if not train.is_dir():
        found = _classes(folder)
        _check_sizes(folder, found, least=3)
        return _Layout(tuple(found), _items(found, tuple(found)), None)
    found = _classes(train)
    names = tuple(found)
    held = test if test.is_dir() else val
    development = _items(found, names)
    if val is not None and val != held:
        development += _items(_known(val, names), names)
    _check_sizes(train, found, least=3 if held is None else 2)
    if held is None:
        return _Layout(names, development, None)
    items = _items(_known(held, names), names)
    if not items:
        raise TaskError(f"{held} holds no images; it should hold those to test on. Add some.")
    return _Layout(names, development, items)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each class folder, both sorted; what begins with a dot is passed over."""
    found: dict[str, list[Path]] = {}
    for place in _visible(folder):
        if not place.is_dir():
            raise TaskError(
                f"{place} lies beside the class folders; move it away. Expected is one folder a class:\n"
                f"{_LAYOUT}"
            )
        files = _visible(place)
        inner = next((file for file in files if file.is_dir()), None)
        if inner is not None:
            raise TaskError(
                f"{inner} is a folder inside the class folder {place.name}. Images should lie directly in "
                f"the folder of their class:\n{_LAYOUT}"
            )
        found[place.name] = files
    if len(found) < 2:
        raise TaskError(
            f"{folder} holds {len(found)} class folders; at least 2 are needed:\n{_LAYOUT}"
        )
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _known(folder: Path, names: tuple[str, ...]) -> dict[str, list[Path]]:
    found = _classes(folder)
    stray = sorted(set(found) - set(names))
    if stray:
        raise TaskError(
            f"{folder / stray[0]} is a class without training images: train has no folder {stray[0]!r}."
        )
    return found


def _check_sizes(folder: Path, found: dict[str, list[Path]], *, least: int) -> None:
    """Require enough images of each class for training, validation and, at times, the test."""
    for name, files in found.items():
        if len(files) < least:
            raise TaskError(
                f"{folder / name} holds {len(files)} images; at least {least} are needed, one for each "
                "of training, validation and test. Add images, or move the class away."
            )


def _items(found: dict[str, list[Path]], names: tuple[str, ...]) -> tuple[_Item, ...]:
    return tuple(_Item(path, names.index(name)) for name, files in found.items() for path in files)


def _read_all(items: tuple[_Item, ...]) -> Data:
    """Return the images ``n x 3 x 64 x 64`` uint8 and their classes."""
    x = np.empty((len(items), SIDE, SIDE, 3), np.uint8)
    for k, item in enumerate(items):
        x[k] = _read(item.path)
    y = np.array([item.label for item in items], np.int64)
    return Data(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y)


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            # Lets JPEG decode at a fraction of its size; twice the aim leaves the resize its quality.
            picture.draft("RGB", (2 * SIDE, 2 * SIDE))
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            square = ImageOps.fit(upright, (SIDE, SIDE), Image.Resampling.BILINEAR)
    except UnidentifiedImageError as error:
        raise TaskError(
            f"{path} is no image that can be read (JPEG, PNG, ...). Move it away or save it again."
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TaskError(
            f"{path} is a broken image: {error}. Move it away or save it again."
        ) from error
    return np.asarray(square, np.uint8)


DATA = {
    "images": DataSet(
        files=(),
        packages=(),
        by_hand=f"name your folder of images: --data FOLDER, with one folder a class:\n{_LAYOUT}",
    )
}

ENTRIES = {
    "images": Entry(
        description=f"your own images, one folder a class, resized to {SIDE} x {SIDE}",
        citation="yours",
        # Of no folder in particular; `adapt` counts the classes of yours.
        n_classes=0,
        input_shape=(3, SIDE, SIDE),
        default_model="resnet8",
        load=_load,
        data="images",
        augment=crop_and_flip,
        adapt=_describe,
        epochs=30,
    )
}
