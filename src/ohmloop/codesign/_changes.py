"""Improvements that a lab could make, each as the hardware that it would give."""

from __future__ import annotations

from typing import NamedTuple

from ohmloop.codesign._axes import hardware_at
from ohmloop.crossbar import Hardware

MORE_LEVELS = 10
"""Levels added to a level table or to a cell in one improvement."""


class Change(NamedTuple):
    """One improvement: its property, a phrase for it, the values before and after, and what it makes."""

    name: str
    phrase: str
    before: float
    after: float
    hardware: Hardware


def changes_of(base: Hardware) -> list[Change]:
    """Return the improvements that mean something on a hardware, one a property."""
    out = []
    sigma = base.device.sigma.value if base.array is None else base.device.cell().write.sigma
    if sigma > 0:
        out.append(_change(base, "sigma", "halving sigma", sigma, sigma / 2))
    return out + (_of_law(base) if base.array is None else _of_array(base))


def _change(base: Hardware, name: str, phrase: str, before: float, after: float) -> Change:
    return Change(name, phrase, before, after, hardware_at(base, {name: after}, None))


def _of_law(base: Hardware) -> list[Change]:
    table = base.device.rho
    if table is None or not base.use_rho or min(table) >= 1.0:
        return []
    full = sum(level >= 1.0 for level in table)
    longer = widened(table, MORE_LEVELS)
    more = Change(
        "levels",
        f"{sum(v >= 1.0 for v in longer) - full} more monotone levels",
        float(full),
        float(sum(level >= 1.0 for level in longer)),
        hardware_at(base, {"distortion": 0.0}, longer),
    )
    return [
        more,
        Change(
            "distortion",
            "a monotone ramp throughout",
            float(full),
            float(len(table)),
            hardware_at(base, {"distortion": 0.0}, None),
        ),
    ]


def widened(table: tuple[float, ...], n: int) -> tuple[float, ...]:
    """Return a level table whose longest stretch of ones is ``n`` levels longer: upwards, then downwards.

    >>> widened((0.2, 1.0, 1.0, 0.5), 1)
    (0.2, 1.0, 1.0, 1.0)
    """
    start, stop, at = 0, 0, 0
    for k, level in enumerate((*table, 0.0)):
        if level < 1.0:
            if k - at > stop - start:
                start, stop = at, k
            at = k + 1
    top = min(len(table), stop + n)
    bottom = max(0, start - (n - (top - stop)))
    return tuple(1.0 if bottom <= k < top else level for k, level in enumerate(table))


def _of_array(base: Hardware) -> list[Change]:
    cell, array = base.device.cell(), base.array
    assert array is not None
    out = []
    levels = cell.levels or len(cell.targets)
    if levels:
        more = float(levels + MORE_LEVELS)
        out.append(_change(base, "levels", f"{MORE_LEVELS} more levels", float(levels), more))
    if cell.g_min > 0:
        ratio = cell.g_max / cell.g_min
        out.append(_change(base, "window", "doubling the on/off ratio", ratio, 2 * ratio))
    if cell.read.relative > 0:
        now = cell.read.relative
        out.append(_change(base, "read_noise", "halving the read noise", now, now / 2))
    stuck = cell.faults.p_low + cell.faults.p_high
    if stuck > 0:
        out.append(_change(base, "faults", "no stuck cells", stuck, 0.0))
    if cell.drift is not None and base.seconds > 10.0:
        phrase = "reading ten times sooner"
        out.append(_change(base, "seconds", phrase, base.seconds, base.seconds / 10))
    if array.adc is not None:
        bits = float(array.adc.bits)
        out.append(_change(base, "adc_bits", "one more bit in the ADC", bits, bits + 1))
    return out
