"""From a path to a `Sweep`: which reader, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ohmloop.data import _instruments, _workbook
from ohmloop.data._columns import Arranged, UnitChoice
from ohmloop.data._files import Content
from ohmloop.data._recipe import FileRecipe, read_by_recipe
from ohmloop.data._sweep import Sweep
from ohmloop.data._table import find_layout
from ohmloop.errors import IngestError


@dataclass(frozen=True)
class Guess:
    """Which format a file has.

    Attributes:
        format: "perovskite-workbook", "workbook", "pymeasure-csv", "keithley-csv",
            "easyexpert-csv" or "text".
        confidence: From 0 to 1; 1 means a signature that no other format has.
        reason: What in the file decided, in words.
    """

    format: str
    confidence: float
    reason: str


def sniff(path: str | Path) -> Guess:
    """Say which format a file has, and why, from its content; the name does not count.

    Raises:
        IngestError: If the file cannot be opened, or is neither text nor a workbook.
    """
    return sniff_content(Content.load(Path(path)))


def sniff_content(content: Content) -> Guess:
    """Say which format the bytes of a file have; see `sniff`."""
    if content.is_workbook:
        return _sniff_workbook(_workbook.open_sheets(content))
    return _sniff_text(content)


def _sniff_workbook(sheets: _workbook.Sheets) -> Guess:
    if _workbook.is_perovskite(sheets):
        return Guess("perovskite-workbook", 1.0, "a sheet has the columns voltage, current_cycleN")
    return Guess("workbook", 0.5, "a workbook; its columns are judged by their headers")


def _sniff_text(content: Content) -> Guess:
    if _instruments.is_pymeasure(content):
        return Guess("pymeasure-csv", 1.0, "#Procedure: and #Data: lines")
    if _instruments.is_easyexpert(content):
        return Guess("easyexpert-csv", 1.0, "SetupTitle / DataName / DataValue records")
    if _instruments.is_keithley(content):
        return Guess("keithley-csv", 0.9, "a header that starts with Index and Reading")
    if find_layout(content.lines) is not None:
        return Guess("text", 0.4, "lines of delimited numbers")
    return Guess("text", 0.1, "text without an obvious table")


def read(
    path: str | Path,
    *,
    voltage_unit: str | None = None,
    current_unit: str | None = None,
    recipe: FileRecipe | None = None,
) -> Sweep:
    """Read a measurement file of any known format.

    Args:
        path: The file; never changed.
        voltage_unit: Unit of voltage columns whose header states none, like "mV".
        current_unit: Unit of current columns whose header states none, like "uA".
        recipe: Which column is which, where a person confirmed it; the units are in it.

    Returns:
        The sweep in volts and amperes; its notes say what was guessed and what was left out.

    Raises:
        IngestError: What is wrong with the file, and what to do about it.
    """
    content = Content.load(Path(path))
    units = UnitChoice(voltage_unit, current_unit)
    if recipe is not None:
        guess, out = sniff_content(content), read_by_recipe(content, recipe)
    elif content.is_workbook:
        sheets = _workbook.open_sheets(content)
        guess = _sniff_workbook(sheets)
        if guess.format == "perovskite-workbook":
            out = _workbook.read_perovskite(sheets, content.name)
        else:
            out = _workbook.read_plain(sheets, content.name, units)
    else:
        guess = _sniff_text(content)
        out = _TEXT[guess.format](content, units)
    _check(out, content.name)
    return Sweep(
        voltage=out.voltage,
        current=out.current,
        cycle_names=out.names,
        file=content.name,
        format=guess.format,
        sha256=content.sha256,
        notes=tuple(out.notes),
    )


_TEXT = {
    "pymeasure-csv": _instruments.read_pymeasure,
    "keithley-csv": _instruments.read_keithley,
    "easyexpert-csv": _instruments.read_easyexpert,
    "text": _instruments.read_text,
}


def _check(out: Arranged, name: str) -> None:
    rows = int((np.isfinite(out.voltage) & np.isfinite(out.current)).any(axis=1).sum())
    if rows < 2:
        raise IngestError(
            f"{name}: {rows} rows have both a voltage and a current; a sweep needs at least two."
        )
    if np.nanmax(out.voltage) == np.nanmin(out.voltage):
        raise IngestError(
            f"{name}: the voltage is {np.nanmax(out.voltage):g} V throughout; this is no I-V sweep."
        )
