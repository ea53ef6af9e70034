"""Pulse trains as matrices: branches of one polarity, pulse by pulse, checked and cut to one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import Branch, PulseTrain
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]

SAME_AMPLITUDE = 0.02
"""Pulses whose amplitudes differ by less than this share are taken as identical."""
_SHORTEST = 0.8  # of the median branch: shorter ones were broken off and are left out
SIGNS = (1, -1)
WORD = {1: "potentiation", -1: "depression"}


@dataclass(frozen=True, eq=False)
class Branches:
    """Readings as matrices: one row a branch, one column a number of pulses.

    Attributes:
        total: Polarity -> ``m`` pulses so far.
        rows: Polarity -> ``b x m`` siemens.
        unit: Polarity -> ``b`` index of the unit that is resampled.
        device: Polarity -> ``b`` index of the device.
        n_units: Number of units.
        unit_name: "devices" or "cycles".
        n_devices: Number of devices.
        notes: What was left out.
    """

    total: dict[int, Array]
    rows: dict[int, Array]
    unit: dict[int, NDArray[np.int64]]
    device: dict[int, NDArray[np.int64]]
    n_units: int
    unit_name: str
    n_devices: int
    notes: tuple[str, ...]

    @classmethod
    def collect(cls, trains: Sequence[PulseTrain]) -> Branches:
        """Sort the branches by polarity, and check that one law can describe them."""
        if not trains:
            raise DeviceError("a pulse response needs at least one pulse train; received none.")
        found: list[tuple[int, Branch]] = []
        n_devices = 0
        for train in trains:
            found += [(n_devices + b.device, b) for b in train.branches()]
            n_devices += len(train.devices)
        notes: list[str] = []
        total, rows, unit_key, device = {}, {}, {}, {}
        for sign in SIGNS:
            chosen = [(d, b) for d, b in found if b.polarity == sign]
            _check_polarity(chosen, sign)
            chosen, total[sign], rows[sign] = _aligned(chosen, sign, notes)
            device[sign] = np.array([d for d, _ in chosen], dtype=np.int64)
            unit_key[sign] = [(d, b.cycle) for d, b in chosen]
        used = sorted({d for sign in SIGNS for d in device[sign].tolist()})
        device = {s: np.searchsorted(used, device[s]).astype(np.int64) for s in SIGNS}
        if len(used) >= 3:
            return cls(total, rows, device, device, len(used), "devices", len(used), tuple(notes))
        keys = sorted({key for sign in SIGNS for key in unit_key[sign]})
        index = {key: k for k, key in enumerate(keys)}
        unit = {s: np.array([index[key] for key in unit_key[s]], dtype=np.int64) for s in SIGNS}
        return cls(total, rows, unit, device, len(keys), "cycles", len(used), tuple(notes))


def _check_polarity(chosen: Sequence[tuple[int, Branch]], sign: int) -> None:
    word = WORD[sign]
    if not chosen:
        raise DeviceError(
            f"no {word} pulse in the data; the pulse response needs both directions. Add a file that holds "
            f"{word}, or check which polarity the columns were read as."
        )
    amplitude = np.concatenate([b.amplitude for _, b in chosen])
    amplitude = np.abs(amplitude[np.isfinite(amplitude)])
    if len(amplitude) and np.ptp(amplitude) > SAME_AMPLITUDE * np.median(amplitude):
        raise DeviceError(
            f"{word}: pulses of {amplitude.min():g} to {amplitude.max():g} V. "
            "The law describes identical pulses, not a staircase of amplitudes. Give the rows of one amplitude."
        )


def _aligned(
    chosen: list[tuple[int, Branch]], sign: int, notes: list[str]
) -> tuple[list[tuple[int, Branch]], Array, Array]:
    """Cut branches to their common length; leave out those broken off early."""
    length = np.array([len(b.total) for _, b in chosen])
    kept = [c for c, n in zip(chosen, length, strict=True) if n >= _SHORTEST * np.median(length)]
    if len(kept) < len(chosen):
        notes.append(f"{WORD[sign]}: {len(chosen) - len(kept)} short branches left out.")
    m = min(len(b.total) for _, b in kept)
    if m < 4:
        raise DeviceError(
            f"{WORD[sign]}: a branch of {m - 1} readings is too short; three pulses are the least."
        )
    if m < max(len(b.total) for _, b in kept):
        notes.append(f"{WORD[sign]}: branches cut to their common {m - 1} readings.")
    total = kept[0][1].total[:m].astype(np.float64)
    for _, branch in kept:
        if not np.array_equal(branch.total[:m], total):
            raise DeviceError(
                f"{WORD[sign]}: readings after different numbers of pulses in different cycles. "
                "Give cycles that were read at the same pulses."
            )
    rows = np.stack([b.conductance[:m] for _, b in kept])
    if not np.isfinite(rows[:, 1:]).any():
        raise DeviceError(f"{WORD[sign]}: no finite reading.")
    return kept, total, rows
