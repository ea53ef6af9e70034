"""Text and sheets as tables of numbers: delimiters, decimal commas, headers, bounded size."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ohmloop.data._columns import Column, number
from ohmloop.errors import IngestError

MAX_CELLS = 30_000_000
"""Most cells of one table: 240 MB as floats."""
MAX_COLUMNS = 16_384
MAX_ROWS = 1_000_000
"""Most rows of a text table: a minute of a sampling oscilloscope, not an I-V sweep."""
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?$")
_COMMA_NUMBER = re.compile(r"^[+-]?(\d+,?\d*|,\d+)([eEdD][+-]?\d+)?$")
_COMMENT = ("#", "%", "//", "!", ";;", "*")
_HEADER_SEARCH = 400
"""Lines that are searched for the start of the numbers: instruments write long preambles."""


class Layout(NamedTuple):
    """How a text table is written.

    Attributes:
        delimiter: One character, or "" for runs of blanks.
        decimal: "." or ",".
        first: Index of the first line of numbers.
        width: Cells in that line.
    """

    delimiter: str
    decimal: str
    first: int
    width: int


def parse_number(text: str, decimal: str = ".") -> float | None:
    """Return the number that a cell of text holds, None if it holds none (or is empty)."""
    text = text.strip().strip('"').strip()
    pattern = _COMMA_NUMBER if decimal == "," else _NUMBER
    if len(text) > 64 or not pattern.match(text):
        return None
    value = float(text.replace(",", ".").replace("d", "e").replace("D", "e"))
    return value if np.isfinite(value) else None


def split_line(line: str, delimiter: str) -> list[str]:
    """Split one line; quotes are honoured, blanks after a delimiter are dropped."""
    if not delimiter:
        return line.split()
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        return [
            cell.strip()
            for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        ]
    except (csv.Error, StopIteration):
        return [cell.strip() for cell in line.split(delimiter)]


def find_layout(lines: Sequence[str]) -> Layout | None:
    """Find where the numbers start and how they are delimited, None if there is no such table.

    The first line with at least two numbers that the next line confirms decides.
    """
    useful = [
        (k, line)
        for k, line in enumerate(lines[:_HEADER_SEARCH])
        if line.strip() and not line.lstrip().startswith(_COMMENT)
    ]
    if not useful:
        return None
    best: Layout | None = None
    for delimiter, decimal in (
        ("\t", "."),
        (";", "."),
        (",", "."),
        ("", "."),
        ("\t", ","),
        (";", ","),
        ("", ","),
    ):
        for (k, line), (_, after) in zip(useful, [*useful[1:], (-1, "")], strict=True):
            cells = split_line(line[:100_000], delimiter)
            if len(cells) < 2 or len(cells) > MAX_COLUMNS or _count(cells, decimal) < 2:
                continue
            follow = split_line(after[:100_000], delimiter)
            if after and _count(follow, decimal) < 2:
                continue
            if best is None or (k, -len(cells)) < (best.first, -best.width):
                best = Layout(delimiter, decimal, k, len(cells))
            break
    return best


def _count(cells: Sequence[str], decimal: str) -> int:
    return sum(parse_number(cell, decimal) is not None for cell in cells)


def header_above(lines: Sequence[str], layout: Layout) -> list[str]:
    """Return the header cells above the first line of numbers, [] where there is none.

    The nearest line with as many cells counts; a comment sign before it is taken off.
    """
    for line in reversed(lines[max(0, layout.first - 5) : layout.first]):
        text = line.strip()
        for sign in _COMMENT:
            text = text.removeprefix(sign)
        text = text.strip() if layout.delimiter != "\t" else text.strip(" \r\n")
        cells = split_line(text, layout.delimiter)
        if len(cells) == 1 or (not layout.delimiter and len(cells) != layout.width):
            # A header may be delimited otherwise than the numbers ("V (V), I (A)" above blanks).
            cells = next(
                (
                    c
                    for c in (split_line(text, d) for d in ("\t", ";", ","))
                    if len(c) == layout.width
                ),
                cells,
            )
        if len(cells) == layout.width or (len(cells) > 1 and layout.delimiter):
            return cells if _count(cells, layout.decimal) < len(cells) else []
    return []


def text_columns(lines: Sequence[str], layout: Layout, header: Sequence[str]) -> list[Column]:
    """Read the numbers from ``layout.first`` on; a cell without a number becomes NaN.

    Blank and comment lines are left out; rows stay in file order.

    Raises:
        IngestError: If the table is larger than `MAX_CELLS`.
    """
    rows = [
        split_line(line, layout.delimiter)
        for line in lines[layout.first :]
        if line.strip() and not line.lstrip().startswith(_COMMENT)
    ]
    width = max(layout.width, len(header))
    if len(rows) > MAX_ROWS or len(rows) * width > MAX_CELLS or width > MAX_COLUMNS:
        raise IngestError(
            f"a table of {len(rows)} rows and {width} columns is too large. Export the sweep alone."
        )
    values = np.full((len(rows), width), np.nan)
    texts = np.zeros(width, dtype=int)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row[:width]):
            value = parse_number(cell, layout.decimal)
            if value is not None:
                values[r, c] = value
            elif cell:
                texts[c] += 1
    names = [*header, *[""] * (width - len(header))]
    return [Column(names[c].strip(' "'), values[:, c], int(texts[c])) for c in range(width)]


def sheet_columns(rows: Sequence[Sequence[object]]) -> tuple[list[Column], int]:
    """Read the columns of a sheet: the header is the last row before the numbers.

    Returns:
        The columns, and the number of rows above the header that were left out.
    """
    width = max((len(row) for row in rows), default=0)
    first = next(
        (k for k, row in enumerate(rows) if sum(not np.isnan(number(c)) for c in row) >= 2), None
    )
    if first is None:
        return [], 0
    head = next(
        (
            k
            for k in range(first - 1, -1, -1)
            if any(isinstance(c, str) and c.strip() for c in rows[k])
        ),
        None,
    )
    names = (
        [str(cell).strip() if isinstance(cell, str) else "" for cell in rows[head]]
        if head is not None
        else []
    )
    names += [""] * (width - len(names))
    # Rows between header and first full row belong to the data: a gap may stand at the top.
    body = rows[(head + 1 if head is not None else first) :]
    values = np.full((len(body), width), np.nan)
    texts = np.zeros(width, dtype=int)
    for r, row in enumerate(body):
        for c, cell in enumerate(row):
            if isinstance(cell, str):
                parsed = parse_number(cell) if cell.strip() else None
                if parsed is not None:
                    values[r, c] = parsed
                elif cell.strip():
                    texts[c] += 1
            else:
                values[r, c] = number(cell)
    columns = [Column(names[c], values[:, c], int(texts[c])) for c in range(width)]
    return columns, head or 0
