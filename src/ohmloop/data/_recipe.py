"""Which column is which, as a person confirmed it: kept, so that the next fifty files need no question."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ohmloop.data import _instruments, _workbook
from ohmloop.data._columns import Arranged, Column, UnitChoice, arrange, role_of, with_role
from ohmloop.data._files import Content, shown
from ohmloop.data._sweep import Note
from ohmloop.data._table import find_layout, header_above, sheet_columns, text_columns
from ohmloop.errors import IngestError
from ohmloop.units import split_header


@dataclass(frozen=True)
class FileRecipe:
    """The columns of a kind of file. A column is named by its header, or by its place: "#2".

    Attributes:
        voltage: The voltage column; several, one a current column, where each current has its own.
        currents: The current columns, one or more.
        cycle: A column that numbers the cycles; "" if none does.
        sheet: The workbook's sheet; "" for the first one that has the columns.
        voltage_unit: Unit of the voltages, like "mV"; "" as the header says, else V.
        current_unit: Unit of the currents, like "uA"; "" as the header says, else A.
        headers: All headers of the file that it was confirmed on; a file with the same ones is recognised.
            Empty: it is used only where it is named.

    Raises:
        IngestError: If columns are missing, named twice or do not pair, or a unit is none.
    """

    voltage: tuple[str, ...]
    currents: tuple[str, ...]
    cycle: str = ""
    sheet: str = ""
    voltage_unit: str = ""
    current_unit: str = ""
    headers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("voltage", "currents", "headers"):
            value = getattr(self, key)  # one header is as good as a list of one
            if isinstance(value, list | tuple):
                object.__setattr__(self, key, tuple(value))
            else:
                object.__setattr__(self, key, (value,))
        cells = (*self.voltage, *self.currents, *self.headers, self.cycle, self.sheet)
        if not all(isinstance(c, str) for c in (*cells, self.voltage_unit, self.current_unit)):
            raise IngestError("a recipe for files names columns, sheets and units by text.")
        if not self.voltage or not self.currents:
            raise IngestError("a recipe for files needs a voltage and a current column.")
        if len(self.voltage) not in (1, len(self.currents)):
            raise IngestError(
                f"a recipe for files has one voltage column, or one for each current column; received "
                f"{len(self.voltage)} and {len(self.currents)}."
            )
        named = [*self.voltage, *self.currents, *filter(None, (self.cycle,))]
        if "" in named or len(set(named)) != len(named):
            raise IngestError(
                f"a recipe for files names each column once; received {', '.join(map(repr, named))}."
            )
        for role, unit, symbol in (
            ("voltage", self.voltage_unit, "V"),
            ("current", self.current_unit, "A"),
        ):
            if unit and split_header(f"x ({unit})")[1] != symbol:
                raise IngestError(f"{unit!r} is no unit of {role}; write for example m{symbol}.")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, what is empty left out."""
        return {
            f.name: list(value) if isinstance(value, tuple) else value
            for f in fields(self)
            if (value := getattr(self, f.name))
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FileRecipe:
        """Return the recipe in plain data.

        Raises:
            IngestError: If a key is unknown or missing, or the recipe cannot be meant.
        """
        known = [f.name for f in fields(cls)]
        strange = [key for key in data if key not in known]
        if strange or not {"voltage", "currents"} <= set(data):
            wrong = f'"{strange[0]}" is no part of it' if strange else "those are needed"
            raise IngestError(
                f"a recipe for files has voltage, currents and may have {', '.join(known[2:])}; {wrong}."
            )
        return cls(**data)


@dataclass(frozen=True)
class FoundColumn:
    """One column of numbers in a file, for a person who says what it is.

    Attributes:
        sheet: Name of the workbook's sheet; "" in text files.
        number: Its place in the sheet, from 1.
        header: Text above it; "" if there is none.
        role: "voltage", "current", "cycle" or "other": what it is taken for without a recipe.
        unit: "V", "A", "Ohm", "s" or "S" if the header states one, with any prefix; else "".
        n_numbers: Cells with a finite number.
        low: Smallest number, in the file's own unit; NaN without one.
        high: Largest number.
    """

    sheet: str
    number: int
    header: str
    role: str
    unit: str
    n_numbers: int
    low: float
    high: float

    @property
    def name(self) -> str:
        """How a recipe names it: by its header, or "#2"."""
        return self.header or f"#{self.number}"


def columns_of(path: str | Path) -> list[FoundColumn]:
    """Return the columns of a table of text or of each sheet of a workbook.

    Files that say themselves what their columns are (Keithley buffers, EasyEXPERT) have none to choose: the
    list is empty.

    Raises:
        IngestError: If the file cannot be opened or holds no table.
    """
    return [
        _found(sheet, k, column)
        for sheet, columns in _tables(Content.load(Path(path)))
        for k, column in enumerate(columns, start=1)
    ]


def _found(sheet: str, number: int, column: Column) -> FoundColumn:
    finite = column.values[np.isfinite(column.values)]
    return FoundColumn(
        sheet=sheet,
        number=number,
        header=column.header,
        role=role_of(column.header) if column.header else "other",
        unit=split_header(column.header)[1] or "",
        n_numbers=len(finite),
        low=float(finite.min()) if len(finite) else float("nan"),
        high=float(finite.max()) if len(finite) else float("nan"),
    )


def confirmed(path: str | Path, recipe: FileRecipe) -> FileRecipe:
    """Return a recipe that recognises files like this one: with the headers of the table that it reads there.

    Raises:
        IngestError: If the file cannot be opened, or has no such columns.
    """
    content = Content.load(Path(path))
    title, columns, _ = _table_of(content, recipe)
    return replace(recipe, sheet=recipe.sheet and title, headers=tuple(c.header for c in columns))


def recognise(path: str | Path, recipes: Mapping[str, FileRecipe]) -> str | None:
    """Return the name of the recipe that was confirmed on a file with the same headers, None without one.

    Raises:
        IngestError: If the file cannot be opened.
    """
    if not any(recipe.headers for recipe in recipes.values()):
        return None
    tables = _tables(Content.load(Path(path)))
    for name, recipe in recipes.items():
        for sheet, columns in tables:
            same = recipe.headers and tuple(c.header for c in columns) == recipe.headers
            if same and recipe.sheet in ("", sheet):
                return name
    return None


def _tables(content: Content) -> list[tuple[str, list[Column]]]:
    """Return sheet -> columns; nothing for files that name their columns' roles themselves."""
    if content.is_workbook:
        found = [(t, sheet_columns(rows)[0]) for t, rows in _workbook.open_sheets(content)]
        return [(title, columns) for title, columns in found if columns]
    if _instruments.is_easyexpert(content) or _instruments.is_keithley(content):
        return []
    lines = content.lines
    if _instruments.is_pymeasure(content):
        lines = lines[next(k for k, line in enumerate(lines) if line.strip() == "#Data:") + 1 :]
    layout = find_layout(lines)
    if layout is None:
        raise IngestError(f"{content.name}: no table of numbers found.")
    return [("", text_columns(lines, layout, header_above(lines, layout)))]


def read_by_recipe(content: Content, recipe: FileRecipe) -> Arranged:
    """Read voltage and current as a recipe says.

    Raises:
        IngestError: If the file has no such column or sheet, or names its columns itself.
    """
    title, _, chosen = _table_of(content, recipe)
    where = f'{content.name}, sheet "{title}"' if title else content.name
    units = UnitChoice(recipe.voltage_unit or None, recipe.current_unit or None)
    out = arrange(chosen, where, units)
    out.notes.append(Note("guess", f"{where}: columns as a recipe says."))
    return out


def _table_of(content: Content, recipe: FileRecipe) -> tuple[str, list[Column], list[Column]]:
    """Return the first sheet that has a recipe's columns: its name, all its columns, and those chosen."""
    tables = _tables(content)
    if not tables:
        raise IngestError(
            f"{content.name}: this file says itself what its columns are, or has none; read it "
            "without a recipe."
        )
    if recipe.sheet:
        titles = [title for title, _ in tables]
        tables = [(title, columns) for title, columns in tables if title == recipe.sheet]
        if not tables:
            raise IngestError(
                f'{content.name}: no sheet "{recipe.sheet}" with numbers; sheets: '
                f"{', '.join(filter(None, titles)) or 'none, it is no workbook'}."
            )
    reasons = []
    for title, columns in tables:
        where = f'{content.name}, sheet "{title}"' if title else content.name
        try:
            return title, columns, _chosen(columns, recipe, where)
        except IngestError as error:
            reasons.append(str(error))
    raise IngestError(" ".join(reasons))


def _chosen(columns: Sequence[Column], recipe: FileRecipe, where: str) -> list[Column]:
    """Return the columns that a recipe names, V before its I, with their roles."""
    volts = [_column(columns, name, where) for name in recipe.voltage]
    amps = [_column(columns, name, where) for name in recipe.currents]
    out: list[Column] = []
    if len(volts) == 1:
        out = [_as(volts[0], "voltage", recipe.voltage_unit)]
        out += [_as(column, "current", recipe.current_unit) for column in amps]
    else:
        for v, a in zip(volts, amps, strict=True):
            out += [_as(v, "voltage", recipe.voltage_unit), _as(a, "current", recipe.current_unit)]
    if recipe.cycle:
        out.append(with_role(_column(columns, recipe.cycle, where), "cycle"))
    return out


def _as(column: Column, role: str, unit: str) -> Column:
    header = column.header
    if unit:  # what a person confirmed counts more than the header
        header = split_header(header)[0]
        header = "" if split_header(header)[1] else header
    return with_role(replace(column, header=header), "voltage" if role == "voltage" else "current")


def _column(columns: Sequence[Column], name: str, where: str) -> Column:
    for column in columns:
        if column.header == name:
            return column
    if name.startswith("#") and name[1:].isdecimal() and 1 <= int(name[1:]) <= len(columns):
        found = columns[int(name[1:]) - 1]
        return found if found.header else replace(found, header=f"column {name[1:]}")
    known = [c.header or f"#{k}" for k, c in enumerate(columns, start=1)]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean "{shown(close[0])}"?' if close else ""
    listed = ", ".join(f'"{shown(k[:40])}"' for k in known[:12])
    raise IngestError(f'{where}: no column "{shown(name[:40])}"; columns: {listed}.{hint}')
