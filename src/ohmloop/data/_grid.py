"""Any table as rows of text: what people hand back from a spreadsheet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ohmloop.data._files import Content
from ohmloop.data._table import MAX_CELLS, MAX_ROWS, parse_number
from ohmloop.data._workbook import open_sheets
from ohmloop.errors import IngestError


def read_table(path: str | Path, *, sheet: str = "") -> list[list[str]]:
    """Return the rows of a CSV file or of a workbook's sheet as text, an empty row as [].

    The delimiter is a tab or ``;`` if the first line has one, else ``,``; with the former two a decimal comma
    is turned into a point. Whole numbers of a workbook come without ".0". Row k of the result is row k + 1 of
    the sheet, or record k + 1 of the CSV.

    Args:
        path: A .csv, .txt, .tsv, .xlsx, .xls or .ods file.
        sheet: Name of the workbook's sheet; the first one where there is none of that name.

    Raises:
        IngestError: If the file cannot be opened, is damaged, or is larger than a table may be.
    """
    content = Content.load(Path(path))
    if content.is_workbook:
        sheets = open_sheets(content)
        found = dict(sheets).get(sheet, sheets[0][1] if sheets else [])
        rows = [[_text(cell) for cell in row] for row in found]
    else:
        rows = _text_rows(content)
    rows = [row if any(row) else [] for row in rows]
    while rows and not rows[-1]:
        rows.pop()
    if len(rows) > MAX_ROWS or sum(map(len, rows)) > MAX_CELLS:
        raise IngestError(f"{content.name}: the table has more than {MAX_ROWS} rows. Split it.")
    return rows


def _text_rows(content: Content) -> list[list[str]]:
    text = content.text
    first = next((line for line in text.splitlines() if line.strip()), "")
    # Not the most frequent one: "0,5;0,7" has more commas than semicolons.
    delimiter = next((sign for sign in "\t;" if sign in first), ",")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise IngestError(f"{content.name}: is no readable CSV ({error}).") from error
    if delimiter == ",":
        return [[cell.strip() for cell in row] for row in rows]
    return [[_point(cell.strip()) for cell in row] for row in rows]


def _point(cell: str) -> str:
    """Turn "1,5" into "1.5"; all else stays."""
    if "," in cell and parse_number(cell, ",") is not None:
        return cell.replace(",", ".")
    return cell


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    return str(cell).strip()
