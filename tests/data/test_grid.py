"""Tables that people hand back: delimiters, decimal commas, workbooks, and where each row stood."""

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.data import read_table
from ohmloop.errors import IngestError


def put(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1.5,x\n", [["a", "b"], ["1.5", "x"]]),
        ("a;b\n1,5;x\n", [["a", "b"], ["1.5", "x"]]),
        ("a\tb\r\n1,5e-3\t-0,2\r\n", [["a", "b"], ["1.5e-3", "-0.2"]]),
        ("a;b\nred, green;1,2,3\n", [["a", "b"], ["red, green", "1,2,3"]]),
        ('a,b\n"x, y","two\nlines"\n', [["a", "b"], ["x, y", "two\nlines"]]),
        ('a,b\n"1,5",2\n', [["a", "b"], ["1,5", "2"]]),  # a comma table has no decimal commas
        ("  a , b \n 1 , 2 \n", [["a", "b"], ["1", "2"]]),
    ],
)
def test_delimiters_and_decimal_commas(tmp_path: Path, text: str, rows: list[list[str]]) -> None:
    assert read_table(put(tmp_path, text)) == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_umlauts_survive_what_spreadsheet_programs_write(tmp_path: Path, encoding: str) -> None:
    assert read_table(put(tmp_path, "Träger;µm\n1;2\n", encoding))[0] == ["Träger", "µm"]


def test_an_empty_row_keeps_its_place_and_the_end_is_cut(tmp_path: Path) -> None:
    assert read_table(put(tmp_path, "\na,b\n,\n1,2\n,\n\n")) == [[], ["a", "b"], [], ["1", "2"]]


def test_a_workbook_gives_numbers_dates_and_truth_as_text(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    page = book.active
    assert page is not None
    page.append(["name", "n", "x", "yes", "day"])
    page.append([])
    page.append(["  b ", 3, 0.1, True, datetime.datetime(2026, 5, 1)])
    page.append([None, 3.0, 1e-7, False, None])
    other = book.create_sheet("trials")
    other.append(["t"])
    book.save(tmp_path / "t.xlsx")
    rows = read_table(tmp_path / "t.xlsx")
    assert rows[0] == ["name", "n", "x", "yes", "day"]
    assert rows[1] == []
    assert rows[2][:4] == ["b", "3", "0.1", "yes"]
    assert rows[2][4].startswith("2026-05-01")
    assert rows[3] == ["", "3", "1e-07", "no", ""]
    assert read_table(tmp_path / "t.xlsx", sheet="trials") == [["t"]]
    assert read_table(tmp_path / "t.xlsx", sheet="nowhere") == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 torn", "damaged"),
        (b"\x00\x01\x02", "is binary"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(IngestError, match=message):
        read_table(tmp_path / "t.csv")
    with pytest.raises(IngestError, match="cannot be opened"):
        read_table(tmp_path / "gone.csv")


@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_numbers_survive_a_german_table(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[float]]
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    lines = [";".join(repr(x).replace(".", ",") for x in row) for row in table]
    path.write_text("\n".join(lines) + "\n")
    assert [[float(x) for x in row] for row in read_table(path)] == table
