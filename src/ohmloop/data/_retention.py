"""What a measured retention trace is, how files of them are read, and which kind of file a file is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ohmloop.data import _traces
from ohmloop.data._pulse_train import PulseTrain, has_pulses, is_arc_one, read_pulse_train
from ohmloop.data._read import read, sniff_content
from ohmloop.data._sweep import FloatArray, Note, Sweep
from ohmloop.errors import IngestError

Kind = Literal["sweep", "pulse-train", "retention"]
KINDS: tuple[Kind, ...] = ("sweep", "pulse-train", "retention")
# A voltage that moves less than this over a file is that of repeated reading, not of a sweep.
_STEADY = 1e-3


@dataclass(frozen=True, eq=False)
class Retention:
    """Conductance against time after programming, one column a device or level, SI units.

    Attributes:
        time: ``n_times x n_traces`` seconds after programming, rising in each column where known; NaN
            below shorter traces. Broadcast (read-only) where all traces share their times.
        conductance: ``n_times x n_traces`` siemens, NaN where missing.
        names: The ``n_traces`` names as the file gives them ("Current3", "cell 5").
        read_voltage: Of the readings in volts, None where unknown.
        file: Base name of the file.
        format: "table".
        sha256: Hash of the file's bytes (64 hex digits).
        notes: What was guessed or left out.
    """

    time: FloatArray
    conductance: FloatArray
    names: tuple[str, ...]
    read_voltage: float | None
    file: str
    format: str
    sha256: str
    notes: tuple[Note, ...] = field(default=())

    def __post_init__(self) -> None:
        expected = (self.time.shape[0], len(self.names))
        if self.time.shape != expected or self.conductance.shape != expected:
            raise IngestError(
                f"{self.file}: expected time and conductance of shape {expected} (times x traces), "
                f"received {self.time.shape} and {self.conductance.shape}."
            )

    @property
    def n_traces(self) -> int:
        """Number of traces with at least two readings."""
        return int((np.isfinite(self.conductance).sum(axis=0) > 1).sum())


@dataclass(frozen=True)
class KindGuess:
    """What a file holds.

    Attributes:
        kind: "sweep", "pulse-train" or "retention".
        confidence: From 0 to 1.
        reason: What in the file decided, in words.
    """

    kind: Kind
    confidence: float
    reason: str


def sniff_kind(path: str | Path, *, columns: str | None = None) -> KindGuess:
    """Say whether a file holds sweeps, pulse trains or retention, and why, from its content.

    Args:
        path: The file.
        columns: The user's own header, as in `read_pulse_train`.

    Raises:
        IngestError: If the file cannot be opened or holds no table.
    """
    content = _traces.load(Path(path))
    if columns is None:
        instrument = sniff_content(content)
        if instrument.format in ("perovskite-workbook", "keithley-csv", "easyexpert-csv"):
            return KindGuess("sweep", instrument.confidence, instrument.reason)
    try:
        tables = _traces.grids(content, columns)
    except IngestError:
        if columns is not None:
            raise
        return KindGuess("sweep", 0.1, "no table whose columns tell more")
    guesses = [_kind_of(grid) for grid in tables]
    return max(guesses, key=lambda guess: guess.confidence)


def _kind_of(grid: _traces.Grid) -> KindGuess:
    if is_arc_one(grid):
        return KindGuess("pulse-train", 1.0, "the header of an ArC ONE export")
    read_out = grid.of("conductance") or grid.of("resistance") or grid.of("current")
    if has_pulses(grid) and not (grid.of("time") and not grid.of("amplitude")):
        return KindGuess("pulse-train", 0.9, "readings beside columns about pulses")
    if not read_out:
        return KindGuess("sweep", 0.1, "no column that tells more")
    volts = grid.of("voltage")
    moving = [c for c in volts if np.nanmax(c.values) - np.nanmin(c.values) > _STEADY]
    if moving:
        return KindGuess("sweep", 0.9, f'the voltage "{moving[0].header}" moves')
    if grid.of("time"):
        return KindGuess("retention", 0.9, "readings against time at a steady or no voltage")
    if volts:
        return KindGuess("retention", 0.6, "the voltage is the same in every row: repeated reading")
    if grid.of("current") or len(grid.columns) == 2:
        return KindGuess("sweep", 0.2, "no column of time or pulses")
    return KindGuess("retention", 0.4, "readings only, without voltage or pulses")


def read_retention(
    path: str | Path,
    *,
    columns: str | None = None,
    interval: float | None = None,
    across: bool = False,
    read_voltage: float | None = None,
    current_unit: str | None = None,
) -> Retention:
    """Read a file of conductances against the time after programming.

    Understood are one column of time with any number of columns of conductance, resistance or current, each
    a trace; and long tables, where a column of device or level (or both) says which trace a row belongs to.

    Args:
        path: CSV, text or workbook, gzipped or not; never changed.
        columns: A header of the user's own, as in `read_pulse_train`: "time (s), conductance (uS), ...".
        interval: Seconds from one reading to the next, where the file has no column of time; the first
            reading is then taken to come one interval after programming.
        across: Whether the readings of a trace stand side by side in one row, each row a trace.
        read_voltage: Of currents, in volts, where the file does not say it.
        current_unit: Unit of current columns whose header states none, like "uA".

    Raises:
        IngestError: What is wrong with the file, and what to type.
    """
    if interval is not None and not (interval > 0 and np.isfinite(interval)):
        raise IngestError(f"the interval is a time above 0 s; received {interval!r}.")
    content = _traces.load(Path(path))
    grid = _retention_grid(_traces.grids(content, columns))
    notes = list(grid.notes)
    names, values, volts = _traces.readings(
        grid, notes, read_voltage=read_voltage, current_unit=current_unit
    )
    labels = [c.labels() for role in ("device", "level", "cycle") for c in grid.of(role)]
    keys = ["/".join(parts) for parts in zip(*labels, strict=True)] if labels else []
    if across:
        values = values.T
        names = keys or [f"row {k + 1}" for k in range(values.shape[1])]
        keys = []
    time = _time(grid, notes, interval, len(values), across)
    if keys:
        names, time, values = _long(grid, keys, names, time, values)
    else:
        time = np.broadcast_to(time[:, None], values.shape)
    _check(grid, time, values, names)
    return Retention(
        time=time,
        conductance=values,
        names=tuple(names),
        read_voltage=None if volts is None else abs(volts),
        file=grid.file,
        format="table",
        sha256=grid.sha256,
        notes=tuple(notes),
    )


def _retention_grid(found: list[_traces.Grid]) -> _traces.Grid:
    for grid in found:
        if grid.of("conductance") or grid.of("resistance") or grid.of("current"):
            return grid
    return found[0]


def _time(
    grid: _traces.Grid, notes: list[Note], interval: float | None, rows: int, across: bool
) -> FloatArray:
    columns = [] if across else grid.of("time")
    if len(columns) > 1:
        raise IngestError(
            f"{grid.name}: {len(columns)} columns of time ({[c.header for c in columns]}). "
            'Name the one that counts, and "skip" for the others, with --columns.'
        )
    if columns and interval is not None:
        raise IngestError(
            f'{grid.name}: the file has its own time, "{columns[0].header}". Leave --interval out.'
        )
    if columns:
        return _traces.si(grid, columns[0], notes)
    if interval is None:
        raise IngestError(
            f"{grid.name}: no column of time. Say how far apart the readings are, --interval 1s, or name the "
            'column: --columns "time (s), conductance (uS), ...".'
        )
    notes.append(
        Note(
            "guess",
            f"{grid.name}: a reading every {interval:g} s, the first one after {interval:g} s.",
        )
    )
    return interval * np.arange(1.0, rows + 1)


def _long(
    grid: _traces.Grid, keys: list[str], names: list[str], time: FloatArray, values: FloatArray
) -> tuple[list[str], FloatArray, FloatArray]:
    """Split a long table into its traces; several columns of readings are traces of their own."""
    order = list(dict.fromkeys(keys))
    where = {key: k for k, key in enumerate(order)}
    index = np.array([where[key] for key in keys])
    rows = np.bincount(index).max()
    width = values.shape[1]
    if rows * len(order) * width > 4 * max(values.size, 10_000):
        raise IngestError(
            f"{grid.name}: {len(order)} traces of very different length (the longest has {rows} rows). "
            "Is one of the columns that name a trace a running number? Call it skip with --columns."
        )
    times, out = (np.full((rows, len(order) * width), np.nan) for _ in range(2))
    for k in range(len(order)):
        chosen = np.flatnonzero(index == k)
        for c in range(width):
            times[: len(chosen), k * width + c] = time[chosen]
            out[: len(chosen), k * width + c] = values[chosen, c]
    labels = [key if width == 1 else f"{key}, {name}" for key in order for name in names]
    return labels, times, out


def _check(grid: _traces.Grid, time: FloatArray, values: FloatArray, names: list[str]) -> None:
    known = np.isfinite(time) & np.isfinite(values)
    if not (known.sum(axis=0) > 1).any():
        raise IngestError(
            f"{grid.name}: no trace has two readings with a time; retention needs at least two."
        )
    if (time[known] < 0).any():
        raise IngestError(f"{grid.name}: a time is negative; count from the end of programming.")
    shared = time.strides[1] == 0
    for k in range(1 if shared else time.shape[1]):
        column = time[np.isfinite(time[:, k]), k]
        falls = np.flatnonzero(np.diff(column) < 0)
        if len(falls):
            at = int(falls[0])
            which = "" if shared else f', trace "{names[k]}"'
            raise IngestError(
                f"{grid.name}{which}: time falls from {column[at]:g} to {column[at + 1]:g} s at reading "
                f"{at + 2}. If several traces follow each other, add a column that names them and call it "
                'device: --columns "device, time (s), conductance (uS)".'
            )


def read_measurement(
    path: str | Path,
    *,
    kind: Kind | None = None,
    columns: str | None = None,
    polarity: Literal["up", "down"] | None = None,
    interval: float | None = None,
    across: bool = False,
    read_voltage: float | None = None,
    voltage_unit: str | None = None,
    current_unit: str | None = None,
    window: tuple[float, float] | None = None,
) -> Sweep | PulseTrain | Retention:
    """Read a file of any kind; the arguments are those of `read`, `read_pulse_train`, `read_retention`.

    Arguments that only another kind of file takes are left alone, so that one call serves a mixed list.

    Args:
        path: The file; never changed.
        kind: What it holds; by its content where None (`sniff_kind`).
        columns: The user's own header, for pulse trains and retention.
        polarity: What all pulses do.
        interval: Seconds between readings of retention.
        across: Whether a row holds a whole trace of retention.
        read_voltage: Of currents, in volts.
        voltage_unit: For voltage columns of sweeps that state none.
        current_unit: For current columns that state none.
        window: What normalised numbers of a pulse train stand for, in siemens.

    Raises:
        IngestError: What is wrong with the file, and what to type.
    """
    if kind is not None and kind not in KINDS:
        raise IngestError(f"kind is one of {', '.join(KINDS)}; received {kind!r}.")
    chosen = kind or sniff_kind(path, columns=columns).kind
    if chosen == "sweep":
        return read(path, voltage_unit=voltage_unit, current_unit=current_unit)
    if chosen == "pulse-train":
        return read_pulse_train(
            path,
            columns=columns,
            polarity=polarity,
            read_voltage=read_voltage,
            current_unit=current_unit,
            window=window,
        )
    return read_retention(
        path,
        columns=columns,
        interval=interval,
        across=across,
        read_voltage=read_voltage,
        current_unit=current_unit,
    )
