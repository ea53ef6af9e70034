"""Text files of instruments: PyMeasure, Keithley 2450/2470, Keysight B1500, and plain tables.

Sources of the layouts: PyMeasure documentation, "Results" (comment header, ``#Data:``); Keithley 2450
and 2470 reference manuals, ``buffer.save`` and ``buffer.saveappend`` (the index starts at 1 with each
append; four layouts of date and time; 9.91e37 for an overflow); Keysight EasyEXPERT user's guide,
"text data" export (``SetupTitle``, ``DataName``, ``DataValue`` records).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ohmloop.data._columns import Arranged, Column, UnitChoice, arrange, stack, with_role
from ohmloop.data._files import Content
from ohmloop.data._sweep import Note
from ohmloop.data._table import (
    Layout,
    find_layout,
    header_above,
    parse_number,
    split_line,
    text_columns,
)
from ohmloop.data._workbook import bare_pair
from ohmloop.errors import IngestError

_HEAD = 400


def is_pymeasure(content: Content) -> bool:
    """Whether a ``#Procedure:`` line and a ``#Data:`` line open the file."""
    head = [line.strip() for line in content.lines[:_HEAD]]
    return any(line.startswith("#Procedure:") for line in head) and "#Data:" in head


def read_pymeasure(content: Content, units: UnitChoice) -> Arranged:
    """Read the table below ``#Data:``."""
    lines = content.lines
    start = next(k for k, line in enumerate(lines) if line.strip() == "#Data:") + 1
    if start >= len(lines) or not lines[start].strip():
        raise IngestError(f"{content.name}: nothing stands below #Data:. Did the run start at all?")
    header = split_line(lines[start], ",")
    columns = text_columns(lines, Layout(",", ".", start + 1, len(header)), header)
    return arrange(columns, content.name, units)


def _keithley_header(line: str) -> list[str] | None:
    cells = split_line(line, ",")
    lower = [cell.lower() for cell in cells]
    if lower and lower[0] == "index" and any(c.startswith("reading") for c in lower):
        return cells
    return None


def is_keithley(content: Content) -> bool:
    """Whether a header line with ``Index`` and ``Reading`` stands near the top."""
    return any(_keithley_header(line) for line in content.lines[:60])


def read_keithley(content: Content, units: UnitChoice) -> Arranged:
    """Read a saved reading buffer: the reading, its unit, and the source value beside it.

    Each append (a new header, or an index that starts again) is a block; a block may hold several
    cycles.
    """
    header: list[str] | None = None
    blocks: list[list[list[str]]] = []
    last_index = np.inf
    headers: list[list[str]] = []
    for line in content.lines:
        found = _keithley_header(line)
        if found is not None:
            header, last_index = found, np.inf
            continue
        cells = split_line(line, ",")
        index = parse_number(cells[0]) if cells else None
        if header is None or index is None:
            continue
        if index <= last_index:
            blocks.append([])
            headers.append(header)
        blocks[-1].append(cells)
        last_index = index
    if not blocks:
        raise IngestError(f"{content.name}: a Keithley buffer without any reading. Save it again.")
    parts: list[Arranged] = []
    for k, (head, rows) in enumerate(zip(headers, blocks, strict=True)):
        where = content.name if len(blocks) == 1 else f"{content.name}, block {k + 1}"
        parts.append(arrange(_keithley_columns(head, rows, where), where, units))
    return join_blocks(parts)


def _keithley_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], where: str
) -> list[Column]:
    """Give each value column the unit that stands to its right ("Amp DC", "Volt DC")."""
    lower = [cell.lower() for cell in header]
    columns: list[Column] = []
    seen: set[str] = set()
    for c, name in enumerate(lower):
        if not (name.startswith("reading") or name in {"value", "source value", "source"}):
            continue
        unit_at = next(
            (k for k in range(c + 1, min(c + 3, len(lower))) if "unit" in lower[k]), None
        )
        units = {row[unit_at].lower() for row in rows if unit_at is not None and unit_at < len(row)}
        units.discard("")
        kinds = {_KEITHLEY_UNITS.get(unit.split()[0]) for unit in units}
        if len(kinds) > 1:
            raise IngestError(
                f'{where}: column "{header[c]}" mixes the units {sorted(units)}. Save a buffer '
                "that measures one quantity."
            )
        kind = next(iter(kinds), None)
        values = [parse_number(row[c]) if c < len(row) else None for row in rows]
        texts = sum(
            v is None and c < len(row) and bool(row[c]) for v, row in zip(values, rows, strict=True)
        )
        column = Column(
            f"{header[c]} ({kind})" if kind else header[c],
            np.array([np.nan if v is None else v for v in values]),
            texts,
        )
        role = {"V": "voltage", "A": "current"}.get(kind or "")
        if role is None or role in seen:
            columns.append(with_role(column, "other"))
        else:
            seen.add(role)
            columns.append(with_role(column, "voltage" if role == "voltage" else "current"))
    if seen != {"voltage", "current"}:
        raise IngestError(
            f"{where}: a Keithley buffer needs readings in ampere and source values in volt (or the "
            f"reverse); found {sorted(seen) or 'neither'}. Save the buffer with its source values "
            "(buffer style FULL or STANDARD)."
        )
    return columns


_KEITHLEY_UNITS = {
    "amp": "A",
    "amps": "A",
    "a": "A",
    "volt": "V",
    "volts": "V",
    "v": "V",
    "ohm": "Ohm",
}


def is_easyexpert(content: Content) -> bool:
    """Whether ``DataName`` records, and ``SetupTitle`` or ``TestParameter`` ones, are there."""
    starts = {line.split(",", 1)[0].strip().strip('"') for line in content.lines[:2000]}
    return "DataName" in starts and bool(
        starts & {"SetupTitle", "TestParameter", "MetaData", "DataValue"}
    )


def read_easyexpert(content: Content, units: UnitChoice) -> Arranged:
    """Read every ``DataName`` / ``DataValue`` block; each block is one sweep."""
    blocks: list[tuple[list[str], list[list[str]]]] = []
    for line in content.lines:
        cells = split_line(line, ",")
        if not cells:
            continue
        if cells[0] == "DataName":
            blocks.append((cells[1:], []))
        elif cells[0] == "DataValue" and blocks:
            blocks[-1][1].append(cells[1:])
    blocks = [(names, rows) for names, rows in blocks if rows]
    if not blocks:
        raise IngestError(f"{content.name}: no DataValue record. Export with data, not setup only.")
    parts = []
    for k, (names, rows) in enumerate(blocks):
        where = content.name if len(blocks) == 1 else f"{content.name}, block {k + 1}"
        columns = []
        for c, name in enumerate(names):
            values = [parse_number(row[c]) if c < len(row) else None for row in rows]
            texts = sum(
                v is None and c < len(r) and bool(r[c]) for v, r in zip(values, rows, strict=True)
            )
            columns.append(
                Column(name, np.array([np.nan if v is None else v for v in values]), texts)
            )
        # EasyEXPERT exports volts and amperes without a prefix; a stated unit would be in the name.
        parts.append(
            arrange(columns, where, UnitChoice(units.voltage or "V", units.current or "A"))
        )
    return join_blocks(parts)


def join_blocks(parts: Sequence[Arranged]) -> Arranged:
    """Put the cycles of several blocks side by side."""
    if len(parts) == 1:
        return parts[0]
    cycles = [
        (part.voltage[:, c], part.current[:, c])
        for part in parts
        for c in range(part.voltage.shape[1])
    ]
    voltage, current = stack(cycles)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    notes.append(Note("guess", f"{len(parts)} blocks of data taken as {len(cycles)} cycles."))
    return Arranged(voltage, current, tuple(f"cycle {k + 1}" for k in range(len(cycles))), notes)


def read_text(content: Content, units: UnitChoice) -> Arranged:
    """Read any delimited table with voltage and current columns."""
    layout = find_layout(content.lines)
    if layout is None:
        raise IngestError(
            f"{content.name}: no table of numbers found. Expected a column of voltages and one of "
            "currents, delimited by comma, semicolon, tab or blanks."
        )
    header = header_above(content.lines, layout)
    columns = text_columns(content.lines, layout, header)
    named = bare_pair(columns)
    out = arrange(named, content.name, units)
    if named is not columns:
        out.notes.append(
            Note(
                "guess", f"{content.name}: no header; the first column taken as V, the second as I."
            )
        )
    return out
