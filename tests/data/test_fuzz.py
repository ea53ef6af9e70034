"""200 mutated files for each reader: a right answer or a clear error, nothing else."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ohmloop.data import analyze_files, read
from ohmloop.errors import IngestError
from tests.data.formats import FORMATS, loop

N = 200
Mutation = Callable[[bytes, np.random.Generator], bytes]


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 30))):
        out[at] = int(rng.integers(0, 256))
    return bytes(out)


def drop_lines(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join(line for line in lines if rng.random() > 0.2)


def swap_cells(data: bytes, rng: np.random.Generator) -> bytes:
    words = (b"text", b"", b"NaN", b"inf", b"1e999", b"-", b"9.91e37", b"'; DROP", b"=1+1", b"\xff")
    cells = re.split(rb"([,;\t\n])", data)
    for at in rng.integers(0, len(cells), 1 + len(cells) // 20):
        if cells[at] not in (b",", b";", b"\t", b"\n"):
            cells[at] = words[int(rng.integers(len(words)))]
    return b"".join(cells)


def shuffle_lines(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join(lines[k] for k in rng.permutation(len(lines)))


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(0, len(data)))
    junk = (
        b"\0" * 50,
        b"," * 3000,
        b"9" * 5000,
        b"\n" * 500,
        b"\xef\xbb\xbf",
        b'"',
        rng.bytes(200),
    )
    return data[:at] + junk[int(rng.integers(len(junk)))] + data[at:]


def replace_header(data: bytes, rng: np.random.Generator) -> bytes:
    return b"x,y,z\n" + data.split(b"\n", 1)[-1]


MUTATIONS: tuple[Mutation, ...] = (
    truncate,
    flip,
    drop_lines,
    swap_cells,
    shuffle_lines,
    insert,
    replace_header,
)


def _numbers(data: bytes) -> set[float]:
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", "ignore")
    return {
        float(token.replace(",", "."))
        for pattern in (
            r"[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?",
            r"[+-]?\d*,?\d+(?:[eE][+-]?\d+)?",
            r"[+-]?\d+\.(?:[eE][+-]?\d+)?",
        )
        for token in re.findall(pattern, text)
        if len(token) < 300
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_give_an_answer_or_an_ingest_error(name: str, tmp_path: Path) -> None:
    writer, suffix, _ = FORMATS[name]
    good = writer(*loop(2))
    rng = np.random.default_rng(7)
    errors = 0
    for k in range(N):
        data = MUTATIONS[k % len(MUTATIONS)](good, rng)
        path = tmp_path / f"m{k}{suffix}"
        path.write_bytes(data)
        try:
            sweep = read(path)
        except IngestError as error:
            errors += 1
            message = str(error)
        else:
            message = ""
        assert message.isprintable()
        if message:
            continue
        if suffix == ".xlsx":
            continue  # The numbers are inside the archive, which guards itself by checksums.
        present = np.array(sorted(_numbers(data)))
        scale = 1e3 if name == "csv in mA" else 1.0
        for values, factor in ((sweep.voltage, 1.0), (sweep.current, scale)):
            finite = np.unique(values[np.isfinite(values)]) * factor
            nearest = np.searchsorted(present, finite)
            best = np.minimum(
                np.abs(present[np.clip(nearest, 0, len(present) - 1)] - finite),
                np.abs(present[np.clip(nearest - 1, 0, len(present) - 1)] - finite),
            )
            assert (best <= 1e-9 * np.abs(finite) + 1e-300).all(), f"{name} mutation {k}"
    assert 0 < errors < N


HOSTILE = (
    "-rf.csv",
    "a\nb.csv",
    "$(touch x).csv",
    "'; DROP TABLE.csv",
    "[red]markup[bold].csv",
    "\u202egnp.csv",
    "\u00fc" * 80 + ".csv",
    " .csv",
    "%s%n.csv",
)


def test_hostile_names_and_bad_neighbours_do_not_stop_the_rest(tmp_path: Path) -> None:
    writer, _, _ = FORMATS["pymeasure"]
    good = writer(*loop(3))
    for name in HOSTILE:
        (tmp_path / name).write_bytes(good)
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "empty.csv").write_bytes(b"")
    rows = analyze_files([tmp_path])
    assert len(rows) == len(HOSTILE) + 2
    assert sum(row.error is None for row in rows) == len(HOSTILE)
    sigma = {row.figures.sigma for row in rows if row.figures is not None}
    assert len(sigma) == 1
    json.dumps([row.to_dict() for row in rows], allow_nan=False)
    assert all(row.file.isprintable() for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "1,2\n" * 1_100_000,
        "1" * 20_000_000,
        "1," * 5_000_000,
        "\n" * 20_000_000,
        "V,I\n" + "9" * 10**7,
    ],
    ids=["rows", "digits", "cells", "blank", "cell"],
)
def test_huge_text_is_refused_in_time(text: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    path.write_text(text)
    with pytest.raises(IngestError, match=r"huge\.csv|too large"):
        read(path)


def test_file_over_the_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(IngestError, match="at most 64 MiB"):
        read(path)
