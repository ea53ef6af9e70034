"""Workbooks: opened with bounds, and the sheet that holds the sweep found."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence

from ohmloop.data._columns import Arranged, Column, UnitChoice, arrange, with_role
from ohmloop.data._files import Content
from ohmloop.data._sweep import Note
from ohmloop.data._table import MAX_CELLS, sheet_columns
from ohmloop.errors import IngestError

MAX_UNZIPPED = 400 * 2**20
"""Most bytes that the parts of a workbook may unpack to."""
_CELL = re.compile(rb'<c [^>]*?\br="([A-Z]{1,3})(\d{1,7})"[^>]*?(/?)>')
_CYCLE = re.compile(r"^current[_ ]?cycle[_ ]?\d+$", re.I)

Sheets = Sequence[tuple[str, Sequence[Sequence[object]]]]


def open_sheets(content: Content) -> Sheets:
    """Return (name, rows) of every sheet, the visible order; IngestError if it cannot be opened."""
    from python_calamine import CalamineWorkbook

    _check_size(content)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(content.data))
        return [
            (name, book.get_sheet_by_name(name).to_python(skip_empty_area=False))
            for name in book.sheet_names
        ]
    except BaseException as error:
        # A panic of the Rust reader derives from BaseException; all else passes through.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise IngestError(
            f"{content.name}: the workbook is damaged or protected ({str(error)[:120]}). "
            "Open it in a spreadsheet program and save it again, or export CSV."
        ) from None


def _check_size(content: Content) -> None:
    """Refuse archives that unpack to too much, and sheets whose cells span too wide a range."""
    if not content.data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
            total = 0
            for info in archive.infolist():
                total += info.file_size
                if total > MAX_UNZIPPED:
                    raise IngestError(
                        f"{content.name}: the workbook unpacks to more than "
                        f"{MAX_UNZIPPED // 2**20} MiB. Export the sweep alone."
                    )
                if info.filename.endswith(".xml") and "worksheets/" in info.filename:
                    _check_span(content.name, archive.read(info))
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, IngestError):
            raise
        raise IngestError(
            f"{content.name}: the workbook is damaged ({str(error)[:80]}). Copy it from the "
            "instrument again."
        ) from error
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise IngestError(f"{content.name}: the workbook is damaged. Copy it again.") from error
        raise


def _check_span(name: str, xml: bytes) -> None:
    top_row = top_column = 0
    for match in _CELL.finditer(xml):
        if match[3]:
            continue  # A styled cell without a value: real workbooks claim 16,384 such columns.
        column = 0
        for letter in match[1]:
            column = column * 26 + letter - 64
        top_row, top_column = max(top_row, int(match[2])), max(top_column, column)
    if top_row * top_column > MAX_CELLS:
        raise IngestError(
            f"{name}: a sheet spans {top_row} rows and {top_column} columns, too large to be a "
            "sweep. Delete the stray cells, or export CSV."
        )


def is_perovskite(sheets: Sheets) -> bool:
    """Whether a sheet has the header `voltage`, `current_cycleN`, ... of the nanowire workbooks."""
    return any(_is_perovskite_header(rows[0]) for _, rows in sheets if rows)


def _is_perovskite_header(row: Sequence[object]) -> bool:
    names = [str(cell).strip().lower() for cell in row]
    return "voltage" in names and any(_CYCLE.match(name) for name in names)


def read_perovskite(sheets: Sheets, name: str) -> Arranged:
    """Read a nanowire workbook: volts and amperes, one voltage column, one current a cycle.

    A column without a header that holds numbers is a cycle too: the published figures count it.
    """
    index = next(k for k, (_, rows) in enumerate(sheets) if rows and _is_perovskite_header(rows[0]))
    title, rows = sheets[index]
    columns, _ = sheet_columns(rows)
    chosen: list[Column] = []
    unnamed = 0
    for column in columns:
        header = column.header.lower()
        if header == "voltage":
            chosen.append(with_role(column, "voltage"))
        elif _CYCLE.match(header):
            chosen.append(with_role(column, "current"))
        elif not header and _numbers(column):
            unnamed += 1
            chosen.append(with_role(_named(column, f"unnamed {unnamed}"), "current"))
        elif header or column.n_text:
            chosen.append(with_role(column, "other"))
    out = arrange(chosen, f'{name}, sheet "{title}"', UnitChoice("V", "A"))
    if unnamed:
        out.notes.append(
            Note("guess", f'sheet "{title}": {unnamed} columns without a header taken as cycles.')
        )
    _say_other_sheets(out, sheets, index)
    return out


def _numbers(column: Column) -> bool:
    import numpy as np

    return bool(np.isfinite(column.values).any())


def _named(column: Column, header: str) -> Column:
    return Column(header, column.values, column.n_text)


def read_plain(sheets: Sheets, name: str, units: UnitChoice) -> Arranged:
    """Read the first sheet that has voltage and current columns.

    Raises:
        IngestError: The reason for each sheet, if there is no such sheet.
    """
    reasons = []
    for index, (title, rows) in enumerate(sheets):
        columns, above = sheet_columns(rows)
        if not columns:
            reasons.append(f'sheet "{title}" holds no two columns of numbers')
            continue
        try:
            out = arrange(bare_pair(columns), f'{name}, sheet "{title}"', units)
        except IngestError as error:
            reasons.append(str(error))
            continue
        if above:
            out.notes.append(Note("ignored", f'sheet "{title}": {above} rows above the header.'))
        _say_other_sheets(out, sheets, index)
        return out
    raise IngestError(" ".join(reasons) or f"{name}: the workbook has no sheets.")


def bare_pair(columns: list[Column]) -> list[Column]:
    """Name two columns without any header V and I, the order every instrument writes."""
    if len(columns) == 2 and not any(column.header for column in columns):
        return [_named(columns[0], "V"), _named(columns[1], "I")]
    return columns


def _say_other_sheets(out: Arranged, sheets: Sheets, used: int) -> None:
    others = [title for k, (title, rows) in enumerate(sheets) if k != used and any(map(any, rows))]
    if others:
        out.notes.append(Note("ignored", f"other sheets: {', '.join(map(repr, others))}."))
