"""Real chips: what they said, or how they scored, from a table."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.certify._votes import Votes
from ohmloop.errors import CertifyError


def read_votes(
    path: str | Path,
    *,
    labels: Sequence[int] | NDArray[Any] | None = None,
    digital: Sequence[int] | NDArray[Any] | None = None,
) -> Votes:
    """Read what real chips said: a CSV with one row a chip and one column an input, classes as integers.

    The first row holds the names of the columns; a first column named "chip" holds names and is skipped. With
    real chips a yield statement needs no model of the device: it assumes that the chips are an independent
    sample of those that the statement is about.

    Args:
        path: The file.
        labels: ``n`` true classes.
        digital: ``n`` classes of the digital network.

    Raises:
        CertifyError: If the file cannot be read, a cell is no class, or lengths differ.
    """
    names, rows, digest = _table(path)
    try:
        classes = np.array([[int(v) for v in row] for row in rows], dtype=np.int32)
    except ValueError as error:
        raise CertifyError(
            f"{path}: expected whole numbers, the class that each chip gives to each input: {error}."
        ) from error
    for what, given in (("labels", labels), ("digital", digital)):
        if given is not None and len(given) != len(names):
            raise CertifyError(
                f"{path} holds {len(names)} inputs, but {what} has {len(given)} classes."
            )
    return Votes(
        classes=classes,
        digital=None if digital is None else np.asarray(digital, dtype=np.int32),
        labels=None if labels is None else np.asarray(labels, dtype=np.int64),
        law=None,
        law_words=f"{len(classes)} measured chips ({Path(path).name})",
        cells=None,
        weights="",
        data=digest,
        seed=None,
        deployment="as measured",
        is_measured=True,
    )


def read_scores(path: str | Path, column: str = "accuracy") -> NDArray[np.float64]:
    """Read one score for each real chip: a CSV with a header, one row a chip.

    Raises:
        CertifyError: If the file cannot be read, or the column is missing or no number.
    """
    names, rows, _ = _table(path)
    if column not in names:
        raise CertifyError(f"{path} has no column {column!r}; its columns are {', '.join(names)}.")
    try:
        found = np.array([float(row[names.index(column)]) for row in rows])
    except ValueError as error:
        raise CertifyError(f"{path}, column {column!r}: {error}.") from error
    if not np.isfinite(found).all():
        raise CertifyError(f"{path}, column {column!r}: a score is missing or not finite.")
    return found


def _table(path: str | Path) -> tuple[list[str], list[list[str]], str]:
    """Return column names, rows without the column "chip", and the sha256 of a CSV file."""
    try:
        raw = Path(path).read_bytes()
        lines = [row for row in csv.reader(raw.decode("utf-8-sig").splitlines()) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CertifyError(f"{path} cannot be read as CSV: {error}.") from error
    if len(lines) < 2:
        raise CertifyError(f"{path} holds no chip: expected a header and one row for each chip.")
    head = [name.strip() for name in lines[0]]
    skip = 1 if head[0].lower() == "chip" else 0
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(head):
            raise CertifyError(
                f"{path} line {number} has {len(row)} cells, the header {len(head)}."
            )
    if skip and len({row[0] for row in lines[1:]}) < len(lines) - 1:
        raise CertifyError(
            f"{path}: a chip stands in several rows. Bounds need independent chips: keep one row of each."
        )
    return head[skip:], [row[skip:] for row in lines[1:]], hashlib.sha256(raw).hexdigest()
