"""Labelled photographs: a table of files, and the pixels from an archive or a folder."""

from __future__ import annotations

import csv
import io
import lzma
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError

LABELS, ARCHIVE, UNPACKED = "labels.csv", "images.zip", "images"
# All that zipfile and its decompressors raise for damaged, locked or strange archives.
ZIP_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_COLUMNS = ("file", "species", "scientific_name")
# A photograph of a camera; what is larger in such an archive is a mistake or a trap.
_MAX_BYTES, _MAX_PIXELS = 64 * 2**20, 64 * 10**6


class Photo(NamedTuple):
    """One photograph.

    Attributes:
        file: Place in the archive.
        species: Common name, capitals.
        scientific: Scientific name, capitals.
    """

    file: str
    species: str
    scientific: str


def read_photos(folder: Path) -> list[Photo]:
    """Return the rows of ``labels.csv``, in its order.

    Raises:
        TaskError: If the table is unreadable, lacks a column or has an empty cell.
    """
    path = folder / LABELS
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            rows, columns = list(table), table.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
    if not set(_COLUMNS) <= set(columns) or not rows:
        raise TaskError(
            f"{path} needs rows under {', '.join(_COLUMNS)}; it has {', '.join(columns)}."
        )
    photos = []
    for line, row in enumerate(rows, 2):
        name, species, scientific = ((row[key] or "").strip() for key in _COLUMNS)
        if not name or not species:
            raise TaskError(f"{path} line {line}: a photograph needs a file and a species.")
        photos.append(Photo(name, species.upper(), " ".join(scientific.upper().split())))
    return photos


def read_pixels(folder: Path, files: Sequence[str], size: int) -> NDArray[np.uint8]:
    """Return photographs ``n x 3 x size x size``, RGB: the middle square, resized bilinearly.

    Raises:
        TaskError: If a file is missing, is no image, or is unreasonably large.
    """
    out = np.empty((len(files), 3, size, size), np.uint8)
    with _opened(folder) as read:
        for place, name in enumerate(files):
            out[place] = _pixels(read(name), size, f"{folder}: {name}")
    return out


@contextmanager
def _opened(folder: Path) -> Iterator[Callable[[str], bytes]]:
    path = folder / ARCHIVE
    if not path.exists():
        yield lambda name: _from_folder(folder / UNPACKED, name)
        return
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise TaskError(f"{path} cannot be read: {error}. Get it again.") from error
    with archive:
        yield lambda name: _from_archive(archive, name, path)


def _from_archive(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = archive.getinfo(name)
        if info.file_size > _MAX_BYTES:
            raise TaskError(
                f"{path}: {name} has {info.file_size} bytes, too many for a photograph."
            )
        return archive.read(info)
    except KeyError as error:
        raise TaskError(f"{path} has no {name}, which {LABELS} names.") from error
    except TaskError:
        raise
    except ZIP_ERRORS as error:
        raise TaskError(f"{path}: {name} cannot be unpacked: {error}.") from error


def _from_folder(root: Path, name: str) -> bytes:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise TaskError(f"{LABELS} names {name}, which lies outside of {root}.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TaskError(f"{path} has too many bytes for a photograph.")
        return path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}, which {LABELS} names, cannot be read: {error}.") from error


def _pixels(data: bytes, size: int, what: str) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow's own alarms about odd files; the size is judged here.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise TaskError(f"{what} has {width} x {height} pixels, too many for a photograph.")
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            square = (left, top, left + side, top + side)
            rgb = image.convert("RGB").crop(square).resize((size, size), Image.Resampling.BILINEAR)
    except TaskError:
        raise
    except (
        OSError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        ValueError,
        SyntaxError,  # Pillow's word for a damaged PNG
    ) as error:
        raise TaskError(f"{what} is no readable JPEG or PNG: {error}.") from error
    return np.asarray(rgb, np.uint8).transpose(2, 0, 1)
