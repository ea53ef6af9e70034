"""Tables of pulse trains and retention: which column is what, in which unit, and what was said about it.

Sources of the layouts: ArC ONE control software, CSV export (``Wordline, Bitline, Resistance, Amplitude (V),
Pulse width (s), Tag, ...``); plain tables with headers; tables without, whose columns the user names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ohmloop.data import _table, _workbook
from ohmloop.data._columns import OVERFLOW, PLAUSIBLE_V, number
from ohmloop.data._files import MAX_BYTES, Content, shown
from ohmloop.data._sweep import FloatArray, Note
from ohmloop.data._trace_roles import QUANTITY, ROLES, column_role, unit_of
from ohmloop.errors import IngestError

_GZIP = b"\x1f\x8b"
_SIGNS = ("#", "%", "//", "!", ";;", "*")
PLAUSIBLE_READ_A = 0.1
"""No memristor is read at more than this: a bare number above is in another unit."""
PLAUSIBLE_WIDTH = 0.01
"""A bare pulse width up to this can only be seconds; above it may be microseconds or nanoseconds."""


@dataclass(frozen=True, eq=False)
class Cells:
    """One column: its header, numbers (NaN where there is none), and texts where it holds any.

    Attributes:
        header: As written, or as the user named it.
        role: One of `ROLES`, or "other".
        values: ``n_rows`` numbers in the file's unit.
        texts: Row -> text, for cells that hold a text instead of a number.
    """

    header: str
    role: str
    values: FloatArray
    texts: dict[int, str] = field(default_factory=dict)

    def labels(self) -> list[str]:
        """Return each cell as a short text; a whole number without ".0"."""
        return [
            self.texts.get(k, "" if np.isnan(v) else f"{v:g}")
            for k, v in enumerate(self.values.tolist())
        ]


@dataclass(frozen=True, eq=False)
class Grid:
    """The table of one file.

    Attributes:
        name: Base name of the file, with the sheet of a workbook.
        sha256: Of the file's bytes.
        columns: Its columns.
        notes: What was left out.
        first: Line or row of the file where the numbers start, counted from 1.
        file: Base name of the file.
    """

    name: str
    sha256: str
    columns: list[Cells]
    notes: list[Note]
    first: int
    file: str

    def of(self, role: str) -> list[Cells]:
        """Return the columns of a role that hold anything."""
        return [
            c for c in self.columns if c.role == role and (c.texts or np.isfinite(c.values).any())
        ]

    def suggestion(self, missing: Cells, unit: str) -> str:
        """Return what to type for ``--columns`` when one unit is missing."""
        names = [
            f"{c.role} ({unit})"
            if c is missing
            else c.header
            if c.role not in ("other", "skip") and "," not in c.header
            else "skip"
            for c in self.columns[:8]
        ]
        more = ", ..." if len(self.columns) > 8 else ""
        return f'--columns "{", ".join(names)}{more}"'


def load(path: Path) -> Content:
    """Read a file, unpacking one that is gzipped; IngestError beyond the bound of other files."""
    content = Content.load(path)
    if content.data.startswith(_GZIP):
        unpack = zlib.decompressobj(31)
        try:
            data = unpack.decompress(content.data, MAX_BYTES + 1)
        except zlib.error as error:
            raise IngestError(f"{content.name}: the gzip file is damaged ({error}).") from error
        if len(data) > MAX_BYTES:
            raise IngestError(
                f"{content.name} unpacks to more than {MAX_BYTES // 2**20} MiB. Export fewer readings."
            )
        inner = Content(content.name, data)
        inner.__dict__["sha256"] = content.sha256  # of the file as it lies there
        content = inner
    if not content.is_workbook:
        rows = content.data.count(b"\n") + content.data.count(b"\r")
        if rows > 2 * _table.MAX_ROWS:
            raise IngestError(
                f"{content.name}: more than {_table.MAX_ROWS} rows. Export fewer readings, or split it."
            )
    return content


def grids(content: Content, columns: str | None) -> list[Grid]:
    """Return the table of a text file, or those of a workbook's sheets.

    Args:
        content: What `load` gave.
        columns: The user's own header: roles with units, "skip", and a last "..." that repeats the
            one before for all further columns.

    Raises:
        IngestError: If there is no table of numbers, or ``columns`` does not fit.
    """
    if content.is_workbook:
        sheets = _workbook.open_sheets(content)
        found = [_sheet(content, title, rows, columns) for title, rows in sheets]
        tables = [grid for grid in found if grid is not None]
    else:
        tables = [_text(content, columns)]
    if not tables:
        raise IngestError(f"{content.name}: no sheet holds a table of numbers.")
    return tables


def _text(content: Content, columns: str | None) -> Grid:
    lines = content.lines
    layout = _below_header(lines) or _table.find_layout(lines) or _single_column(lines)
    if layout is None:
        raise IngestError(
            f"{content.name}: no table of numbers found. Expected columns such as time and conductance, "
            "delimited by comma, semicolon, tab or blanks."
        )
    header = _table.header_above(lines, layout) if layout.width > 1 else _one_header(lines, layout)
    rows = [
        _table.split_line(line, layout.delimiter) if layout.width > 1 else [line.strip()]
        for line in lines[layout.first :]
        if line.strip() and not line.lstrip().startswith(_SIGNS)
    ]
    return _grid(content, content.name, header, rows, columns, layout.first + 1, layout.decimal)


def _below_header(lines: Sequence[str]) -> _table.Layout | None:
    """Find the numbers by the header above them: texts and overloads may stand among the first ones."""
    for k, line in enumerate(lines[:400]):
        for delimiter in ("\t", ";", ","):
            cells = [c.strip(' "') for c in _table.split_line(line.lstrip("#% "), delimiter)]
            if not 2 <= len(cells) <= _table.MAX_COLUMNS:
                continue
            if any(_table.parse_number(c) is not None for c in cells):
                continue
            roles = {column_role(c) for c in cells} - {"other", "skip"}
            if len(roles) < 2 or not roles & {*QUANTITY} or k + 1 >= len(lines):
                continue
            first = _table.split_line(lines[k + 1], delimiter)
            comma = delimiter != "," and any(
                "," in c and _table.parse_number(c, ",") is not None for c in first
            )
            return _table.Layout(delimiter, "," if comma else ".", k + 1, len(cells))
    return None


def _single_column(lines: Sequence[str]) -> _table.Layout | None:
    for k, line in enumerate(lines[:400]):
        if _table.parse_number(line) is not None:
            return _table.Layout(",", ".", k, 1)
    return None


def _one_header(lines: Sequence[str], layout: _table.Layout) -> list[str]:
    above = [line.strip().lstrip("#% ") for line in lines[: layout.first] if line.strip()]
    return above[-1:]


def _sheet(
    content: Content, title: str, rows: Sequence[Sequence[object]], columns: str | None
) -> Grid | None:
    first = next(
        (k for k, row in enumerate(rows) if any(not np.isnan(number(c)) for c in row)), None
    )
    if first is None:
        return None
    header = (
        [str(c).strip() if isinstance(c, str) else "" for c in rows[first - 1]] if first else []
    )
    name = f'{content.name}, sheet "{shown(title)}"'
    body = [list(row) for row in rows[first:]]
    while body and not any(cell not in ("", None) for cell in body[-1]):
        body.pop()
    return _grid(content, name, header, body, columns, first + 1, ".")


def _grid(
    content: Content,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    columns: str | None,
    first: int,
    decimal: str,
) -> Grid:
    width = max([len(header), *map(len, rows)])
    if (
        len(rows) > _table.MAX_ROWS
        or len(rows) * width > _table.MAX_CELLS
        or width > _table.MAX_COLUMNS
    ):
        raise IngestError(
            f"{name}: a table of {len(rows)} rows and {width} columns is too large. Export fewer readings."
        )
    values = np.full((len(rows), width), np.nan)
    texts: list[dict[int, str]] = [{} for _ in range(width)]
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if isinstance(cell, str):
                value = _table.parse_number(cell, decimal)
                if value is not None:
                    values[r, c] = value
                elif cell.strip():
                    texts[c][r] = shown(cell.strip().strip('"'))[:60]
            else:
                values[r, c] = number(cell)
    named = _named(columns, width, name) if columns else [*header, *[""] * (width - len(header))]
    names = [text.strip(' "').lstrip("# ") for text in named]
    cells = [
        Cells(names[c], column_role(names[c]), values[:, c], texts[c])
        for c in range(width)
        if names[c] or columns is None
    ]
    return Grid(name, content.sha256, cells, [], first, content.name)


def _named(columns: str, width: int, name: str) -> list[str]:
    """Return the user's header, checked and filled up to ``width``."""
    parts = [part.strip() for part in columns.split(",")]
    if parts[-1] == "..." and len(parts) > 1:
        parts = parts[:-1] + [parts[-2]] * (width - len(parts) + 1)
    if len(parts) > width:
        raise IngestError(
            f"{name}: --columns names {len(parts)} columns, but the table has {width}."
        )
    for part in parts:
        if column_role(part) == "other":
            raise IngestError(
                f'{name}: --columns: "{shown(part[:40])}" is no kind of column. Choose from '
                f'{", ".join(ROLES)}, a quantity with its unit, like "conductance (uS)"; a last "..." '
                "repeats the one before."
            )
    return [*parts, *["skip"] * (width - len(parts))]


def si(grid: Grid, column: Cells, notes: list[Note], stated: str | None = None) -> FloatArray:
    """Return a column in SI units (S for "up" and "down"), overflow and texts as NaN, with notes.

    Args:
        grid: Where it stands, for messages.
        column: One of its columns.
        notes: What is said is added here.
        stated: Unit that the user gave for columns without one, like "uA".

    Raises:
        IngestError: If the unit is not known and cannot be told from the numbers.
    """
    values = column.values
    over = np.abs(values) >= OVERFLOW
    if over.any():
        values = np.where(over, np.nan, values)
        notes.append(_left(grid, column, int(over.sum()), "overflow readings"))
    if column.texts:
        sample = next(iter(column.texts.values()))
        notes.append(_left(grid, column, len(column.texts), f'cells hold no number ("{sample}")'))
    _, unit, factor = unit_of(column.header)
    if unit is None and stated is not None:
        _, unit, factor = unit_of(f"x ({stated})")
        if unit != QUANTITY[column.role]:
            raise IngestError(
                f"{stated!r} is no unit of {column.role}; write for example u{QUANTITY[column.role]}."
            )
    if unit is None:
        unit, factor = _plausible(grid, column, values, notes), 1.0
    out = values / round(1 / factor) if factor and factor < 1 else values * (factor or 1.0)
    if column.role in ("up", "down") and unit == "Ohm":
        return inverse(out)
    return out


def inverse(resistance: FloatArray) -> FloatArray:
    """Return 1 / R, NaN where R is zero."""
    return np.divide(1.0, resistance, out=np.full_like(resistance, np.nan), where=resistance != 0)


def _left(grid: Grid, column: Cells, n: int, what: str) -> Note:
    return Note("ignored", f'{grid.name}: {n} {what} in column "{shown(column.header[:40])}".')


def _plausible(grid: Grid, column: Cells, values: FloatArray, notes: list[Note]) -> str:
    """Return the SI unit where the numbers can be in no other, else raise."""
    symbol = QUANTITY[column.role]
    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if len(finite) else 0.0
    limit = {
        "amplitude": PLAUSIBLE_V,
        "voltage": PLAUSIBLE_V,
        "current": PLAUSIBLE_READ_A,
        "width": PLAUSIBLE_WIDTH,
    }.get(column.role, 0.0)
    if top > limit or column.role in ("time", "conductance", "resistance", "up", "down"):
        raise IngestError(
            f'{grid.name}: column "{shown(column.header[:40])}" ({column.role}) states no unit and reaches '
            f"{top:g}. Say which one it has, for example {grid.suggestion(column, _example(symbol))}."
        )
    notes.append(
        Note(
            "guess",
            f'{grid.name}: column "{shown(column.header[:40])}" states no unit; taken as {symbol} '
            f"(largest magnitude {top:.3g}).",
        )
    )
    return symbol


def _example(symbol: str) -> str:
    return {"S": "uS", "Ohm": "kOhm", "A": "uA", "V": "V"}.get(symbol, symbol)


def readings(
    grid: Grid, notes: list[Note], *, read_voltage: float | None, current_unit: str | None
) -> tuple[list[str], FloatArray, float | None]:
    """Return names and conductances (``n_rows x n_columns``) of what was read, and the read voltage.

    Conductance columns come first, then resistances, then currents, which need a read voltage: a column
    of the file, or the one given.

    Raises:
        IngestError: If nothing was read, or a current has no voltage.
    """
    volts, column_volts = read_voltage, grid.of("voltage")
    for role in ("conductance", "resistance", "current"):
        columns = grid.of(role)
        if not columns:
            continue
        said: list[Note] = []
        raw = np.stack(
            [si(grid, c, said, current_unit if role == "current" else None) for c in columns],
            axis=1,
        )
        notes += _merged(said)
        if role == "resistance":
            raw = inverse(raw)
        if role == "current":
            if volts is None and len(column_volts) == 1:
                bias = si(grid, column_volts[0], notes)
                volts = _one_value(bias)
                raw = _signed(grid, raw, bias, notes)
                raw = raw / np.where(bias == 0, np.nan, bias)[:, None]
            elif volts is None:
                raise IngestError(
                    f"{grid.name}: currents without the voltage they were read at. "
                    "Say it: --read-voltage 0.1 V."
                )
            else:
                raw = raw / volts
        lower = [c.header for other in ("resistance", "current") for c in grid.of(other)]
        if role == "conductance" and lower:
            notes.append(Note("ignored", f"{grid.name}: conductance taken, {lower[:5]} not used."))
        elif role == "resistance" and grid.of("current"):
            notes.append(Note("ignored", f"{grid.name}: resistance taken, the current not used."))
        return [c.header for c in columns], positive(grid, raw), volts
    raise IngestError(
        f"{grid.name}: no column of conductance, resistance or current. Expected a header like "
        f'"Conductance (uS)"; found {[c.header for c in grid.columns[:6]]}. Name the columns: '
        '--columns "time (s), conductance (uS)".'
    )


def _merged(notes: list[Note]) -> list[Note]:
    """Keep three notes of many columns, and say how many more there are."""
    if len(notes) <= 4:
        return notes
    return [
        *notes[:3],
        Note(notes[3].kind, f"and {len(notes) - 3} notes like these on other columns."),
    ]


def _signed(grid: Grid, current: FloatArray, bias: FloatArray, notes: list[Note]) -> FloatArray:
    """Give currents written as magnitudes the sign of their voltage, where all of them lack it."""
    known = np.isfinite(current) & np.isfinite(bias)[:, None]
    against = (current * np.sign(bias)[:, None])[known]
    if len(against) and (against < 0).all():
        notes.append(
            Note(
                "guess",
                f"{grid.name}: every current has the sign opposite to its voltage; taken as magnitudes.",
            )
        )
        return -current
    return current


def _one_value(values: FloatArray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite[0]) if len(finite) and np.ptp(finite) < 1e-6 * abs(finite[0]) else None


def positive(grid: Grid, values: FloatArray) -> FloatArray:
    wrong = np.argwhere(values <= 0)
    if len(wrong):
        r, c = wrong[0]
        raise IngestError(
            f"{grid.name}, row {int(r) + 1} of the numbers: a conductance of {values[r, c]:g} S. It must be "
            "positive: check the sign of the read voltage and the offset of the instrument, or say "
            'that they are normalised: --columns "up (norm), down (norm)" --window "1 uS, 50 uS".'
        )
    return values
