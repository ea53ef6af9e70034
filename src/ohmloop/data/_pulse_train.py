"""What a measured pulse train is, and how files of them are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import _traces
from ohmloop.data._sweep import FloatArray, Note
from ohmloop.data._trace_roles import unit_of
from ohmloop.errors import IngestError

IntArray = NDArray[np.int64]
Polarity = Literal["up", "down"]
_UP = re.compile(r"^(\+?1|up|\+|pos\w*|set|potentiat\w*|ltp|write|program\w*)$", re.I)
_DOWN = re.compile(r"^(-1|down|-|neg\w*|reset|depress\w*|ltd|erase)$", re.I)
# ArC ONE: the tag starts with the operation; S marks a read at the start, P a pulse (manual of ArC ONE).
_ARC = ("wordline", "bitline", "resistance", "amplitude", "pulse width", "tag")


@dataclass(frozen=True, eq=False)
class PulseTrain:
    """Conductance after each programming pulse, row by row in file order, SI units.

    Attributes:
        conductance: ``n`` readings in siemens, NaN where missing.
        pulses: ``n`` numbers of pulses since the row before (of the same cycle and device); 0 for a
            reading before any pulse.
        polarity: ``n``: +1 where the pulses potentiate, -1 where they depress, 0 where there was none.
        amplitude: ``n`` volts, NaN where the file does not say.
        width: ``n`` seconds, NaN where the file does not say.
        cycle: ``n`` numbers of the cycle, from 0 within each device: one potentiation and one depression.
        device: ``n`` indices into ``devices``.
        devices: Names of the devices.
        read_voltage: Of the readings in volts, None where unknown or not constant.
        file: Base name of the file.
        format: "arc-one-csv" or "table".
        sha256: Hash of the file's bytes (64 hex digits).
        notes: What was guessed or left out.
    """

    conductance: FloatArray
    pulses: IntArray
    polarity: IntArray
    amplitude: FloatArray
    width: FloatArray
    cycle: IntArray
    device: IntArray
    devices: tuple[str, ...]
    read_voltage: float | None
    file: str
    format: str
    sha256: str
    notes: tuple[Note, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.conductance)
        for name in ("pulses", "polarity", "amplitude", "width", "cycle", "device"):
            if len(getattr(self, name)) != n:
                raise IngestError(
                    f"{self.file}: {name} has {len(getattr(self, name))} rows for {n} readings."
                )

    @property
    def n_cycles(self) -> int:
        """Number of cycles, summed over the devices."""
        return len(set(zip(self.device.tolist(), self.cycle.tolist(), strict=True)))

    def branches(self) -> list[Branch]:
        """Return the runs of one polarity, device by device, in the order in which they were measured."""
        return [branch for d in range(len(self.devices)) for branch in _branches(self, d)]


class Branch(NamedTuple):
    """One run of pulses of one polarity on one device.

    Attributes:
        device: Index of the device.
        cycle: Number of the cycle.
        polarity: +1 or -1.
        total: ``m`` pulses so far at each reading, rising; starts with 0.
        conductance: ``m`` siemens; the first one was read before the first pulse, NaN where nobody did.
        amplitude: ``m - 1`` volts.
        rows: ``m`` rows of the train that the readings stand in; -1 where there is none.
    """

    device: int
    cycle: int
    polarity: int
    total: IntArray
    conductance: FloatArray
    amplitude: FloatArray
    rows: IntArray


def _branches(train: PulseTrain, device: int) -> list[Branch]:
    rows = np.flatnonzero(train.device == device)
    out: list[Branch] = []
    before = -1
    start = 0
    while start < len(rows):
        sign, cycle = train.polarity[rows[start]], train.cycle[rows[start]]
        stop = start
        while (
            stop < len(rows)
            and train.polarity[rows[stop]] == sign
            and (sign == 0 or train.cycle[rows[stop]] == cycle)
        ):
            stop += 1
        run = rows[start:stop]
        if sign != 0:
            first = np.nan if before < 0 else train.conductance[before]
            out.append(
                Branch(
                    device,
                    int(cycle),
                    int(sign),
                    np.concatenate([[0], np.cumsum(train.pulses[run])]),
                    np.concatenate([[first], train.conductance[run]]),
                    train.amplitude[run],
                    np.concatenate([[before], run]),
                )
            )
        before = int(run[-1])
        start = stop
    return out


def is_arc_one(grid: _traces.Grid) -> bool:
    """Whether the header is that of ArC ONE's export."""
    names = [c.header.lower() for c in grid.columns]
    return all(any(name.startswith(word) for name in names) for word in _ARC)


def read_pulse_train(
    path: str | Path,
    *,
    columns: str | None = None,
    polarity: Polarity | None = None,
    read_voltage: float | None = None,
    current_unit: str | None = None,
    window: tuple[float, float] | None = None,
) -> PulseTrain:
    """Read a file of conductances after programming pulses.

    Understood are tables with a column of conductance, resistance or current, and one that tells the
    direction of a pulse: a signed amplitude, a polarity (up/down, set/reset, +1/-1), or one column for
    potentiation and one for depression, which are taken as pulse after pulse of one cycle each.
    Columns of cycle, device, pulse number, width and read voltage are used where they are there. Several
    columns of readings on one row are repeated readings of the same state, and are averaged.

    Args:
        path: CSV, text or workbook, gzipped or not; never changed.
        columns: A header of the user's own, for files without or with an odd one: names of roles with
            units, in the order of the columns ("skip, amplitude (V), width (ns), resistance (kOhm)");
            a last "..." repeats the one before.
        polarity: What all pulses do, for files that hold one direction only without saying so.
        read_voltage: Of currents, in volts, where the file does not say it.
        current_unit: Unit of current columns whose header states none, like "uA".
        window: Conductances in siemens that the smallest and the largest number stand for, where the
            file holds normalised ones ("up (norm), down (norm)").

    Raises:
        IngestError: What is wrong with the file, and what to type.
    """
    content = _traces.load(Path(path))
    grid = pulse_grid(_traces.grids(content, columns))
    notes = list(grid.notes)
    if is_arc_one(grid):
        grid = _arc_units(grid)
    if grid.of("up") or grid.of("down"):
        train = _two_columns(grid, notes, window)
    else:
        train = _rows(grid, notes, polarity, read_voltage, current_unit, window)
    if np.isfinite(train.conductance).sum() < 3:
        raise IngestError(f"{grid.name}: a pulse train needs at least three readings.")
    return train


def pulse_grid(found: list[_traces.Grid]) -> _traces.Grid:
    """Return the first sheet that holds readings and something about pulses, else the first."""
    for grid in found:
        if has_pulses(grid):
            return grid
    return found[0]


def has_pulses(grid: _traces.Grid) -> bool:
    if grid.of("up") or grid.of("down"):
        return True
    read = grid.of("conductance") or grid.of("resistance") or grid.of("current")
    return bool(read) and any(
        grid.of(role) for role in ("amplitude", "polarity", "pulse", "pulses", "width")
    )


def _arc_units(grid: _traces.Grid) -> _traces.Grid:
    """ArC ONE writes resistance in ohms without saying so."""
    return replace(
        grid,
        columns=[
            replace(c, header="Resistance (Ohm)") if c.header.lower() == "resistance" else c
            for c in grid.columns
        ],
    )


def _two_columns(
    grid: _traces.Grid, notes: list[Note], window: tuple[float, float] | None
) -> PulseTrain:
    """One column of potentiation and one of depression; several pairs are several cycles."""
    ups, downs = grid.of("up"), grid.of("down")
    if len(ups) != len(downs):
        raise IngestError(
            f"{grid.name}: {len(ups)} columns of potentiation and {len(downs)} of depression. "
            'Give one of each a cycle, for example --columns "up (uS), down (uS)".'
        )
    parts: list[FloatArray] = []
    signs: list[int] = []
    cycles: list[int] = []
    for k, (up, down) in enumerate(zip(ups, downs, strict=True)):
        for column, sign in ((up, 1), (down, -1)):
            values = _traces.si(grid, column, notes)
            ends = np.flatnonzero(np.isfinite(values))
            parts.append(values[: int(ends[-1]) + 1])
            signs.append(sign)
            cycles.append(k)
    length = [len(part) for part in parts]
    values = _scaled(grid, np.concatenate(parts), [*ups, *downs], window, notes)
    n = len(values)
    notes.append(
        Note(
            "guess",
            f"{grid.name}: one pulse a row; the depression follows the potentiation beside it.",
        )
    )
    return PulseTrain(
        conductance=values,
        pulses=np.ones(n, dtype=np.int64),
        polarity=np.repeat(np.array(signs, dtype=np.int64), length),
        amplitude=np.full(n, np.nan),
        width=np.full(n, np.nan),
        cycle=np.repeat(np.array(cycles, dtype=np.int64), length),
        device=np.zeros(n, dtype=np.int64),
        devices=("device 1",),
        read_voltage=None,
        file=grid.file,
        format="table",
        sha256=grid.sha256,
        notes=tuple(notes),
    )


def _scaled(
    grid: _traces.Grid,
    values: FloatArray,
    columns: list[_traces.Cells],
    window: tuple[float, float] | None,
    notes: list[Note],
) -> FloatArray:
    """Give normalised numbers their conductance; others must be positive as they are."""
    normalised = all(unit_of(c.header)[1] == "norm" for c in columns)
    if not normalised:
        if window is not None:
            raise IngestError(
                f"{grid.name}: --window is for normalised numbers, and these have a unit."
            )
        return _traces.positive(grid, values[:, None])[:, 0]
    if window is None or not 0 < window[0] < window[1]:
        raise IngestError(
            f"{grid.name}: the numbers are normalised. Say which conductances their smallest and largest stand "
            'for, for example --window "1 uS, 50 uS".'
        )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if not low < high:
        raise IngestError(f"{grid.name}: all numbers are {low:g}: no pulse changed anything.")
    notes.append(
        Note(
            "guess", f"{grid.name}: {low:g} to {high:g} taken as {window[0]:g} to {window[1]:g} S."
        )
    )
    return np.asarray(window[0] + (values - low) / (high - low) * (window[1] - window[0]))


def _rows(
    grid: _traces.Grid,
    notes: list[Note],
    polarity: Polarity | None,
    read_voltage: float | None,
    current_unit: str | None,
    window: tuple[float, float] | None,
) -> PulseTrain:
    columns = grid.of("conductance")
    if columns and all(unit_of(c.header)[1] == "norm" for c in columns):
        if len(columns) > 1:
            raise IngestError(
                f"{grid.name}: one column of normalised conductance is read, not {len(columns)}."
            )
        values = _scaled(grid, columns[0].values, columns, window, notes)[:, None]
        names, volts = [columns[0].header], read_voltage
    else:
        names, values, volts = _traces.readings(
            grid, notes, read_voltage=read_voltage, current_unit=current_unit
        )
    if len(names) > 1:
        notes.append(Note("guess", f"{grid.name}: {len(names)} readings a row averaged."))
    n_read = np.isfinite(values).sum(axis=1)
    conductance = np.divide(
        np.where(np.isfinite(values), values, 0).sum(axis=1),
        n_read,
        out=np.full(len(values), np.nan),
        where=n_read > 0,
    )
    amplitude = _optional(grid, "amplitude", notes)
    width = _optional(grid, "width", notes)
    devices, device = _devices(grid)
    sign = _signs(grid, amplitude, polarity)
    pulses = _pulses(grid, device, sign)
    sign = np.where(pulses == 0, 0, sign)
    return PulseTrain(
        conductance=conductance,
        pulses=pulses,
        polarity=sign,
        amplitude=amplitude,
        width=width,
        cycle=_cycles(grid, device, sign),
        device=device,
        devices=devices,
        read_voltage=None if volts is None else abs(volts),
        file=grid.file,
        format="arc-one-csv" if is_arc_one(grid) else "table",
        sha256=grid.sha256,
        notes=tuple(notes),
    )


def _optional(grid: _traces.Grid, role: str, notes: list[Note]) -> FloatArray:
    columns = grid.of(role)
    if len(columns) > 1:
        raise IngestError(
            f"{grid.name}: {len(columns)} columns of {role} ({[c.header for c in columns]}). "
            'Name the one that counts, and "skip" for the others, with --columns.'
        )
    if not columns:
        return np.full(len(grid.columns[0].values), np.nan)
    return _traces.si(grid, columns[0], notes)


def _devices(grid: _traces.Grid) -> tuple[tuple[str, ...], IntArray]:
    """Return the names of the devices and each row's index; wordline and bitline together name one."""
    labels = [c.labels() for c in grid.of("device")]
    n = len(grid.columns[0].values)
    keys = ["/".join(parts) for parts in zip(*labels, strict=True)] if labels else ["device 1"] * n
    order = list(dict.fromkeys(keys))
    index = {key: k for k, key in enumerate(order)}
    return tuple(order), np.array([index[key] for key in keys], dtype=np.int64)


def _signs(grid: _traces.Grid, amplitude: FloatArray, polarity: Polarity | None) -> IntArray:
    """Return +1 or -1 for each row, 0 where there was no pulse."""
    n = len(amplitude)
    named = grid.of("polarity")
    if named:
        return _named_signs(grid, named[0])
    if polarity is not None:
        return np.full(n, 1 if polarity == "up" else -1, dtype=np.int64)
    known = amplitude[np.isfinite(amplitude)]
    if (known > 0).any() and (known < 0).any():
        return np.nan_to_num(np.sign(amplitude)).astype(np.int64)
    what = (
        "the amplitudes have one sign" if len(known) else "no column tells the direction of a pulse"
    )
    raise IngestError(
        f"{grid.name}: {what}. Say what all pulses do, --polarity up (or down); or name a column "
        'that tells it: --columns "polarity, conductance (uS)" with up and down in it.'
    )


def _named_signs(grid: _traces.Grid, column: _traces.Cells) -> IntArray:
    out = np.zeros(len(column.values), dtype=np.int64)
    for k, label in enumerate(column.labels()):
        if _UP.match(label):
            out[k] = 1
        elif _DOWN.match(label):
            out[k] = -1
        elif label not in ("", "0", "read", "none"):
            raise IngestError(
                f'{grid.name}, row {k + 1} below the header: polarity "{label}". Expected up or down '
                "(also set/reset, ltp/ltd, +1/-1), or 0 for a reading without a pulse."
            )
    return out


def _pulses(grid: _traces.Grid, device: IntArray, sign: IntArray) -> IntArray:
    """Return how many pulses came before each row's reading, since the row before."""
    n = len(device)
    counts = grid.of("pulses")
    if counts:
        values = counts[0].values
        if (
            not np.isfinite(values).all()
            or (values < 0).any()
            or (values != np.round(values)).any()
        ):
            raise IngestError(
                f'{grid.name}: column "{counts[0].header}" counts pulses: whole numbers from 0 on.'
            )
        return values.astype(np.int64)
    numbers = grid.of("pulse")
    if not numbers or not np.isfinite(numbers[0].values).all():
        return np.where(sign == 0, 0, 1).astype(np.int64)
    values = numbers[0].values
    out = np.ones(n, dtype=np.int64)
    for d in range(int(device.max()) + 1):
        rows = np.flatnonzero(device == d)
        steps = np.diff(values[rows])
        rising = steps[steps > 0]
        usual = float(np.median(rising)) if len(rising) else 1.0
        # A number that starts over counts from the start of its branch; 0 is a reading before any pulse.
        first = values[rows[0]]
        head = first if first in (0, usual) else usual
        restart = np.where(values[rows[1:]] == 0, 0, usual)
        out[rows] = np.rint(np.concatenate([[head], np.where(steps > 0, steps, restart)]))
    return np.where((sign == 0) & (out > 0), 0, out)


def _cycles(grid: _traces.Grid, device: IntArray, sign: IntArray) -> IntArray:
    """Return each row's cycle within its device: a column says it, or the return to the first polarity."""
    out = np.zeros(len(device), dtype=np.int64)
    named = grid.of("cycle")
    labels = named[0].labels() if named else []
    for d in range(int(device.max()) + 1):
        rows = np.flatnonzero(device == d)
        if named:
            order = {key: k for k, key in enumerate(dict.fromkeys(labels[r] for r in rows))}
            out[rows] = [order[labels[r]] for r in rows]
            continue
        cycle, first, last = 0, 0, 0
        for r in rows:
            now = int(sign[r])
            if now != 0:
                first = first or now
                if now == first and last == -first:
                    cycle += 1
                last = now
            out[r] = cycle
    return out
