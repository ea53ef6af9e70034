"""Frogs by their calls: MFCC of syllables, with recordings kept apart."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Entry, Source
from ohmloop.tasks._fetch import DataSet, find_file
from ohmloop.tasks._species._photos import ZIP_ERRORS
from ohmloop.tasks._split import hold_out

N_MFCC = 22
SPECIES = (
    "AdenomeraAndre",
    "AdenomeraHylaedactylus",
    "Ameeregatrivittata",
    "HylaMinuta",
    "HypsiboasCinerascens",
    "HypsiboasCordobae",
    "LeptodactylusFuscus",
    "OsteocephalusOophagus",
    "Rhinellagranulosa",
    "ScinaxRuber",
)
TABLES = ("frogs_mfcc.csv", "Frogs_MFCCs.csv")
# As the archive is named today, and in links of older papers.
ARCHIVES = ("anuran+calls+mfccs.zip", "Anuran Calls (MFCCs).zip")
_MAX_BYTES = 2**28


def _text(folder: Path) -> tuple[Path, str]:
    """Return the table and where it was found."""
    path = next((p for name in (*TABLES, *ARCHIVES) if (p := find_file(folder, name))), None)
    if path is None:
        raise TaskError(f"{folder} has none of {', '.join((*TABLES, *ARCHIVES))}.")
    try:
        if path.suffix == ".zip":
            return path, _unpacked(path).decode("utf-8-sig")
        if path.suffix == ".gz":
            raise TaskError(f"{path}: unpack this table (gunzip) first.")
        return path, path.read_text("utf-8-sig")
    except TaskError:
        raise
    except ZIP_ERRORS as error:
        raise TaskError(f"{path} cannot be read: {error}. Get it again.") from error


def _unpacked(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        member = next((m for m in archive.infolist() if Path(m.filename).name in TABLES), None)
        if member is None or member.file_size > _MAX_BYTES:
            raise TaskError(f"{path} should hold {TABLES[1]}.")
        return archive.read(member)


def _species(name: str) -> int:
    if name not in SPECIES:
        raise ValueError(f"{name!r} is none of the species {', '.join(SPECIES)}")
    return SPECIES.index(name)


def _frogs(folder: Path | None) -> Source:
    """Return syllables; the test part is a fifth of each species' recordings, at least one.

    A species of one recording would stay on the side of development, as nothing else is left to learn from;
    the public table has three or more of each.
    """
    assert folder is not None
    path, text = _text(folder)
    x, y, recordings = [], [], []
    table = csv.DictReader(io.StringIO(text, newline=""))
    columns = {"".join((name or "").split()): name for name in table.fieldnames or ()}
    wanted = [*(f"MFCCs_{k + 1}" for k in range(N_MFCC)), "Species", "RecordID"]
    lacking = [name for name in wanted if name not in columns]
    if lacking:
        raise TaskError(f"{path} lacks the columns {', '.join(lacking)}.")
    for line, row in enumerate(table, 2):
        cells = [row[columns[name]] or "" for name in wanted]
        try:
            x.append([float(cell) for cell in cells[:N_MFCC]])
            y.append(_species(cells[N_MFCC].strip()))
            recordings.append(int(cells[N_MFCC + 1]))
        except ValueError as error:
            raise TaskError(f"{path} line {line}: {error}. Get the table again.") from error
    values = np.array(x, np.float32).reshape(-1, N_MFCC)
    if len(set(y)) != len(SPECIES) or not np.isfinite(values).all():
        raise TaskError(
            f"{path} should hold finite numbers of {len(SPECIES)} species. Get it again."
        )
    return hold_out(values, np.array(y, np.int64), np.array(recordings, np.int64))


DATA = {
    "anuran": DataSet(
        files=("|".join((*TABLES, *ARCHIVES)),),
        packages=(),
        by_hand="get Anuran Calls (MFCCs) from the UCI machine learning repository, place its zip file or "
        f"{TABLES[1]} in a folder and name it: --data FOLDER.",
    )
}
ENTRIES = {
    "anuran": Entry(
        description="22 MFCC of a syllable of a frog's call, ten species; whole recordings test",
        citation="Colonna, Nakamura, Cristo, Gordo 2015, Anuran Calls (MFCCs), UCI (CC BY 4.0)",
        n_classes=len(SPECIES),
        input_shape=(N_MFCC,),
        default_model="mlp",
        load=_frogs,
        data="anuran",
        scaling="features",
        epochs=20,
    )
}
