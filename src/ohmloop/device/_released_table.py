"""The level table as the code released with arXiv 2412.02779 reads it, to compare with published accuracies.

The curve is rows 2 to 101 of the file, whatever the ramp's length, compliance included: short sweeps thereby
include their way back, and clipped ones their part at compliance. Of the ways to read the paper's recipe
(window, 35 points, scaling) this one was chosen because accuracies simulated with it rank the 43 published
devices as the published accuracies do; docs/codesign.md compares others. `ohmloop.device.fit` takes the rising
ramp instead, as the figures of merit do.
"""

from __future__ import annotations

import numpy as np

from ohmloop.data import Sweep, mean_over_cycles, monotone_window
from ohmloop.device._fit import RAMP_POINTS, TABLE_POINTS
from ohmloop.errors import DeviceError


def released_level_table(sweep: Sweep) -> tuple[float, ...] | None:
    """Return rho on rows 2 to 101 of the file, with the monotone window found on that very curve.

    The table is the 35 points from the window's start, shifted back where they would leave the curve: 1 inside
    the window [a, b), elsewhere the share between the smallest and largest conductance of the whole curve.

    Returns:
        None where the curve has a monotone window of at least 35 steps: rho = 1.

    Raises:
        DeviceError: If none of these rows has a finite conductance.
    """
    rows = slice(1, 1 + RAMP_POINTS)
    voltage, current = sweep.voltage[rows], sweep.current[rows]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        conductance = current / (voltage + 1e-8)
    conductance[~np.isfinite(conductance)] = np.nan
    curve = np.abs(mean_over_cycles(conductance))
    known = np.flatnonzero(np.isfinite(curve))
    if len(known) < 2:
        raise DeviceError(f"{sweep.file}: rows 2 to 101 hold no conductance.")
    curve = np.interp(np.arange(len(curve)), known, curve[known])
    start, stop = monotone_window(curve)
    length = min(TABLE_POINTS, len(curve))
    if stop - start >= TABLE_POINTS:
        return None
    first = max(0, min(start, len(curve) - length))
    at = np.arange(first, first + length)
    span = curve.max() - curve.min()
    levels = (curve[at] - curve.min()) / span if span > 0 else np.ones(length)
    levels[(at >= start) & (at < stop)] = 1.0
    return tuple(float(level) for level in levels)
