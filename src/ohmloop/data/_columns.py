"""Named columns become voltage and current: roles, units, pairing, cycles."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from ohmloop.data._cycles import split_cycles
from ohmloop.data._files import shown
from ohmloop.data._sweep import FloatArray, Note
from ohmloop.errors import IngestError
from ohmloop.units import split_header

Role = Literal["voltage", "current", "cycle", "other"]

# No memristor is swept beyond this, and none carries it: a bare number above is in another unit.
PLAUSIBLE_V = 60.0
PLAUSIBLE_A = 2.0
# Instruments of Keithley and Keysight report an overflow as 9.9e37 or 9.91e37 (SCPI-1999, 7.2.1).
OVERFLOW = 9.0e37

_TERMINAL = (
    r"\d*|in|out|d|g|s|ds|gs|te|be|anode|cathode|top|bottom|dev|device|mem|meas|measured|app|"
    r"applied|source|force|read|sweep"
)
_VOLTAGE = re.compile(rf"^(.*volt.*|.*bias.*|u|[vu][_ ]?({_TERMINAL})|({_TERMINAL})[_ ]?v)$", re.I)
_CURRENT = re.compile(
    rf"^(.*curr.*|.*ampere.*|.*\bamps?\b.*|i[_ ]?({_TERMINAL})|({_TERMINAL})[_ ]?i|abs\(?i\)?)$",
    re.I,
)
_CYCLE = re.compile(
    r"^(cycle|loop|sweep|repeat|run|iteration)s?([ _]?(no|nr|number|index|id|#))?\.?$", re.I
)
_OTHER = re.compile(
    r"time|date|stamp|index|resist|conduct|temp|status|range|power|capacit|complian|limit|point|"
    r"density|unit|^t$|^#$|^no\.?$|^r$|^g$|^id$",
    re.I,
)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a file: header as written, values as plain numbers (NaN where there is none).

    Attributes:
        header: Text above the column; empty if there is none.
        values: ``n_rows``, in the file's own unit.
        n_text: Cells that held text instead of a number.
        role: What the column holds, where the format itself says so.
    """

    header: str
    values: FloatArray
    n_text: int = 0
    role: Role | None = None


class Arranged(NamedTuple):
    """Columns in SI units, ready to be a `Sweep`."""

    voltage: FloatArray
    current: FloatArray
    names: tuple[str, ...]
    notes: list[Note]


class UnitChoice(NamedTuple):
    """Units that the user states for columns whose header has none: "mV", "uA"."""

    voltage: str | None = None
    current: str | None = None


def role_of(header: str) -> Role:
    """Guess what a column holds from its header."""
    name, unit, _ = split_header(header)
    if _CYCLE.match(name) and unit is None:
        return "cycle"
    if unit == "V" and not _OTHER.search(name):
        return "voltage"
    if unit == "A" and not _OTHER.search(name):
        return "current"
    if unit is not None or _OTHER.search(name):
        return "other"
    if _CURRENT.match(name):
        return "current"
    return "voltage" if _VOLTAGE.match(name) else "other"


def arrange(columns: Sequence[Column], where: str, units: UnitChoice) -> Arranged:
    """Turn columns into voltage and current, cycle by cycle.

    Understands one voltage column with any number of currents; pairs (V, I, V, I, ...); and one
    voltage with one current that holds several sweeps in a row, split where the voltage returns
    to its start or where a cycle column says so.

    Args:
        columns: As they stand in the file.
        where: File and sheet, for messages.
        units: Units for columns whose header states none.

    Raises:
        IngestError: If it is not clear which column is which, or a needed unit is not known.
    """
    notes: list[Note] = []
    roles = [column.role or role_of(column.header) for column in columns]
    volts = [k for k, role in enumerate(roles) if role == "voltage"]
    amps = [
        k
        for k, role in enumerate(roles)
        if role == "current" and np.isfinite(columns[k].values).any()
    ]
    empty = [
        columns[k].header
        for k, role in enumerate(roles)
        if role == "current" and not np.isfinite(columns[k].values).any()
    ]
    if empty:
        notes.append(Note("ignored", f"{where}: empty columns {_list(empty)}."))
    left = [
        c.header for c, role in zip(columns, roles, strict=True) if role == "other" and c.header
    ]
    if left:
        notes.append(
            Note("ignored", f"{where}: columns that are no voltage or current: {_list(left)}.")
        )
    if not volts or not amps:
        missing = "voltage" if not volts else "current"
        raise IngestError(
            f"{where}: no {missing} column with numbers. Expected headers like "
            f'"Voltage (V)" and "Current (A)"; found {_list([c.header for c in columns]) or "none"}.'
        )
    pairs = _pair(volts, amps, columns, where, notes)
    for k in sorted({k for pair in pairs for k in pair}):
        if columns[k].n_text:
            notes.append(
                Note(
                    "ignored",
                    f"{where}: {columns[k].n_text} cells of column {_list([columns[k].header])} "
                    "hold no number.",
                )
            )
    si = {
        k: _to_si(columns[k], roles[k], where, units, notes) for k in {k for p in pairs for k in p}
    }
    if len(pairs) == 1:
        return _one_pair(si, pairs[0], columns, roles, where, notes)
    names = _unique([columns[a].header or f"column {a + 1}" for _, a in pairs])
    current = np.stack([si[a] for _, a in pairs], axis=1)
    if len({v for v, _ in pairs}) == 1:
        voltage = np.broadcast_to(si[pairs[0][0]][:, None], current.shape)
    else:
        voltage = _share(np.stack([si[v] for v, _ in pairs], axis=1))
    return Arranged(voltage, current, names, notes)


def _one_pair(
    si: dict[int, FloatArray],
    pair: tuple[int, int],
    columns: Sequence[Column],
    roles: Sequence[Role],
    where: str,
    notes: list[Note],
) -> Arranged:
    v, a = pair
    labels = [columns[k].values for k, role in enumerate(roles) if role == "cycle"]
    parts, note = split_cycles(si[v], labels[0] if len(labels) == 1 else None)
    if note:
        notes.append(Note("guess", f"{where}: {note}"))
    voltage, current = stack([(si[v][part], si[a][part]) for part in parts])
    names = (
        (columns[a].header or "current",)
        if len(parts) == 1
        else tuple(f"cycle {k + 1}" for k in range(len(parts)))
    )
    return Arranged(voltage, current, names, notes)


def stack(parts: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Put cycles of different length side by side, NaN below the shorter ones."""
    rows = max(len(v) for v, _ in parts)
    voltage, current = (np.full((rows, len(parts)), np.nan) for _ in range(2))
    for k, (v, i) in enumerate(parts):
        voltage[: len(v), k], current[: len(i), k] = v, i
    return _share(voltage), current


def _share(voltage: FloatArray) -> FloatArray:
    """Return a broadcast of one column where all columns are the same."""
    first = voltage[:, :1]
    if voltage.shape[1] > 1 and np.array_equal(
        voltage, np.broadcast_to(first, voltage.shape), True
    ):
        return np.broadcast_to(first, voltage.shape)
    return voltage


def _pair(
    volts: list[int], amps: list[int], columns: Sequence[Column], where: str, notes: list[Note]
) -> list[tuple[int, int]]:
    if len(volts) == 1:
        return [(volts[0], a) for a in amps]
    if len(volts) == len(amps) and all(v < a for v, a in zip(volts, amps, strict=True)):
        if all(a < v for a, v in zip(amps, volts[1:], strict=False)):
            return list(zip(volts, amps, strict=True))
        # V1, V2, I1, I2: numbered alike, they belong together.
    tails = {_tail(columns[v].header): v for v in volts}
    matched = [
        (tails[_tail(columns[a].header)], a) for a in amps if _tail(columns[a].header) in tails
    ]
    if len(tails) == len(volts) and len(matched) == len(amps):
        moving = [p for p in matched if np.ptp(_finite(columns[p[0]].values)) > 0]
        if moving and len(moving) < len(matched):
            held = [columns[v].header for v, _ in matched if (v, _) not in moving]
            notes.append(Note("ignored", f"{where}: terminals held at one voltage: {_list(held)}."))
        if moving:
            return moving
    raise IngestError(
        f"{where}: {len(volts)} voltage columns ({_list([columns[k].header for k in volts])}) and "
        f"{len(amps)} current columns ({_list([columns[k].header for k in amps])}) cannot be "
        "paired. Keep one voltage column, or order them V, I, V, I."
    )


def _finite(values: FloatArray) -> FloatArray:
    kept = values[np.isfinite(values)]
    return kept if len(kept) else np.zeros(1)


def _tail(header: str) -> str:
    """What follows the V or I of a header, units aside: "V2" -> "2", "Vanode" -> "anode"."""
    name = split_header(header)[0].lower()
    for word in ("voltage", "current", "volt", "curr", "v", "i"):
        if name.startswith(word):
            return name[len(word) :].strip(" _")
    return name


def _to_si(
    column: Column, role: Role, where: str, units: UnitChoice, notes: list[Note]
) -> FloatArray:
    symbol = "V" if role == "voltage" else "A"
    values = column.values
    overflow = np.abs(values) >= OVERFLOW
    if overflow.any():
        values = np.where(overflow, np.nan, values)
        notes.append(
            Note(
                "ignored",
                f'{where}: {int(overflow.sum())} overflow readings in "{shown(column.header[:40])}".',
            )
        )
    if not np.isfinite(values).any():
        raise IngestError(f'{where}: column "{shown(column.header[:40])}" holds no finite number.')
    _, unit, factor = split_header(column.header)
    if unit == symbol and factor is not None:
        return _scaled(values, factor)
    stated = units.voltage if role == "voltage" else units.current
    if stated is not None:
        _, unit, factor = split_header(f"x ({stated})")
        if unit != symbol or factor is None:
            raise IngestError(f"{stated!r} is no unit of {role}; write for example m{symbol}.")
        return _scaled(values, factor)
    limit = PLAUSIBLE_V if role == "voltage" else PLAUSIBLE_A
    top = float(np.nanmax(np.abs(values)))
    if top > limit:
        raise IngestError(
            f'{where}: column "{shown(column.header[:40])}" states no unit and reaches {top:g}, too much for '
            f"{symbol}. Say which unit it has: --{role}-unit m{symbol} (or u{symbol}, n{symbol})."
        )
    if column.role is None:
        notes.append(
            Note(
                "guess",
                f'{where}: column "{shown(column.header[:40])}" states no unit; taken as {symbol} '
                f"(largest magnitude {top:.3g}).",
            )
        )
    return values


def _scaled(values: FloatArray, factor: float) -> FloatArray:
    if factor == 1:
        return values
    # Dividing by 1000 rounds once, multiplying by the inexact 0.001 twice.
    return values / round(1 / factor) if factor < 1 else values * factor


def _unique(names: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(out)


def _list(names: Sequence[str], most: int = 5) -> str:
    quoted = [f'"{shown(name[:40])}"' for name in names[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(quoted) + more


def with_role(column: Column, role: Role) -> Column:
    """Return ``column`` with its role settled."""
    return replace(column, role=role)


def number(cell: object) -> float:
    """Return the number in a cell, NaN for anything else; booleans and dates are no numbers."""
    if isinstance(cell, bool):
        return math.nan
    if isinstance(cell, int | float):
        try:
            return float(cell) if math.isfinite(cell) else math.nan
        except OverflowError:
            return math.nan
    return math.nan
