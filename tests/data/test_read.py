"""Each reader: round trips against independent writers, and the traps of real files."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from ohmloop.data import find_files, read, sniff
from ohmloop.errors import IngestError
from tests.data.formats import FORMATS, keithley, loop, workbook


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("n_cycles", [1, 4])
def test_every_format_gives_back_what_was_written(name: str, n_cycles: int, tmp_path: Path) -> None:
    writer, suffix, expected = FORMATS[name]
    v, i = loop(n_cycles)
    path = tmp_path / f"file{suffix}"
    path.write_bytes(writer(v, i))
    assert sniff(path).format == expected
    sweep = read(path)
    assert sweep.format == expected
    assert sweep.n_cycles == n_cycles
    rows = len(v)
    assert np.array_equal(sweep.voltage[:rows, 0], v)
    np.testing.assert_allclose(sweep.current[:rows], i, rtol=1e-6)
    assert np.isnan(sweep.current[rows:]).all()


@pytest.mark.slow
def test_43_workbooks_have_the_cycles_that_their_sheets_hold(nanowires: Path) -> None:
    counts = {}
    for path in sorted((nanowires / "raw").glob("*.xlsx")):
        sweep = read(path)
        counts[path.name] = sweep.n_cycles
        with zipfile.ZipFile(path) as archive:
            xml = archive.read("xl/worksheets/sheet1.xml").decode()
        # Independent count: columns whose second row holds a number, less the voltage.
        second = re.search(r'<row r="2".*?</row>', xml, re.S)
        assert second is not None
        filled = re.findall(r'<c r="([A-Z]+)2"[^>]*>(?:<f>.*?</f>)?<v>', second[0])
        assert sweep.n_cycles == len(filled) - 1, path.name
    assert max(counts.values()) == 144
    assert len(counts) == 43


def test_gaps_texts_and_unnamed_columns_are_kept_or_said(tmp_path: Path) -> None:
    v, i = loop(3)
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["voltage", "current_cycle3", "current_cycle1", None, "comment", "current_cycle9"])
    for k, (a, row) in enumerate(zip(v.tolist(), i.tolist(), strict=True)):
        first = None if k == 4 else "overload" if k == 5 else row[0]
        sheet.append([a, first, row[1], row[2], "fine" if k == 2 else None, None])
    sheet.cell(1, 16384).font = openpyxl.styles.Font(bold=True)
    path = tmp_path / "gaps.xlsx"
    book.save(path)
    sweep = read(path)
    assert sweep.n_cycles == 3
    assert np.flatnonzero(np.isnan(sweep.current[:, 0])).tolist() == [4, 5]
    said = " ".join(note.text for note in sweep.notes)
    for word in ("without a header", "hold no number", "empty columns", "comment"):
        assert word in said


def test_keithley_overflow_is_missing_and_said(tmp_path: Path) -> None:
    v, i = loop(1)
    text = keithley(v, i).decode().replace(f"\n4,{float(i[3, 0])!r},", "\n4,9.910000E+37,")
    (tmp_path / "k.csv").write_text(text)
    sweep = read(tmp_path / "k.csv")
    assert np.isnan(sweep.current[3, 0])
    assert any("overflow" in note.text for note in sweep.notes)


def test_units_that_cannot_be_amperes_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "knowm.csv"
    path.write_text("\n".join(f"{k / 10},{k * 40.0}" for k in range(20)))
    with pytest.raises(IngestError, match="--current-unit"):
        read(path)
    sweep = read(path, current_unit="uA")
    assert np.nanmax(sweep.current) == pytest.approx(760e-6)


def test_two_voltages_for_one_current_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("V (V),Voltage (V),I (A)\n" + "\n".join(f"{k},{k + 1},1e-6" for k in range(9)))
    with pytest.raises(IngestError, match="cannot be paired"):
        read(path)


def test_pairs_of_voltage_and_current_are_cycles_with_their_own_voltage(tmp_path: Path) -> None:
    rows = "\n".join(f"{k / 10},{k}e-6,{k / 10 + 0.001},{k + 1}e-6" for k in range(1, 20))
    (tmp_path / "p.csv").write_text("V1 (V),I1 (A),V2 (V),I2 (A)\n" + rows)
    sweep = read(tmp_path / "p.csv")
    assert sweep.n_cycles == 2
    assert sweep.voltage[0].tolist() == [0.1, 0.101]


def test_noisy_measured_voltage_is_split_where_it_starts_over(tmp_path: Path) -> None:
    v, i = loop(5)
    rng = np.random.default_rng(0)
    text = "Voltage (V),Current (A)\n"
    for c in range(5):
        for a, b in zip(v, i[:, c], strict=True):
            text += f"{a + 0.003 * rng.standard_normal():.5f},{b:.4e}\n"
    (tmp_path / "n.csv").write_text(text)
    sweep = read(tmp_path / "n.csv")
    assert sweep.n_cycles == 5
    lengths = np.isfinite(sweep.current).sum(axis=0)
    assert np.abs(lengths - len(v)).max() <= 2


def test_cycle_column_decides(tmp_path: Path) -> None:
    text = "cycle,V (V),I (A)\n" + "".join(
        f"{c},{k / 10},{k}e-6\n" for c in range(3) for k in range(1, 9)
    )
    (tmp_path / "c.csv").write_text(text)
    assert read(tmp_path / "c.csv").n_cycles == 3


def test_cells_spread_over_a_whole_sheet_are_refused(tmp_path: Path) -> None:
    book = openpyxl.load_workbook(__import__("io").BytesIO(workbook(*loop(2))))
    book.active.cell(1_000_000, 16_000, 1.0)
    book.save(tmp_path / "wide.xlsx")
    with pytest.raises(IngestError, match="too large"):
        read(tmp_path / "wide.xlsx")


@pytest.mark.slow
def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(5):
            archive.writestr(f"xl/worksheets/sheet{k}.xml", b"0" * (100 * 2**20))
    with pytest.raises(IngestError, match="unpacks to more"):
        read(path)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: p.mkdir(), "regular file|cannot be opened"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_bytes(bytes(range(256)) * 9), "binary"),
        (lambda p: os.mkfifo(p), "regular file"),
        (lambda p: p.write_text("hello\nworld\n"), "no table"),
        (lambda p: p.write_text("V (V),I (A)\n1,1e-6\n1,2e-6\n1,3e-6\n"), "no I-V sweep"),
    ],
)
def test_what_is_no_measurement_is_said(make, match: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    make(path)
    with pytest.raises(IngestError, match=match):
        read(path)


def test_missing_file_is_named() -> None:
    with pytest.raises(IngestError, match=r"nowhere\.csv cannot be opened"):
        read("nowhere.csv")


def test_folders_are_searched_without_lock_and_hidden_files(tmp_path: Path) -> None:
    for name in ("b.csv", "a.xlsx", "~$a.xlsx", ".hidden.csv", "notes.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.txt").write_text("x")
    found = find_files([tmp_path, tmp_path / "b.csv"])
    assert [p.name for p in found] == ["a.xlsx", "b.csv", "c.txt"]


def test_reading_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "w.xlsx"
    path.write_bytes(workbook(*loop(2)))
    before = path.read_bytes()
    first, second = read(path), read(path)
    assert path.read_bytes() == before
    assert first.sha256 == second.sha256
