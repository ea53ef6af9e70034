"""The published figures of merit: sigma, monotonicity, usability.

Source: Ye, Sun, Wang et al., arXiv 2412.02779 (2024); the definitions reproduce the 43 published
devices, to rounding. Kept exactly, odd constants included: they define the figures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ohmloop.data._sweep import FloatArray, Sweep

COMPLIANCE = 0.99
"""A point counts only below this share of its column's maximum over the ramp."""
ALLOWED_FALLS = 2
"""Steps of the mean ramp that need not increase inside the monotone window."""
TRIM = (0.05, 0.95)
"""The share of the sorted log deviations that sigma is taken over."""


class Ramp(NamedTuple):
    """The rising ramp of a sweep.

    Attributes:
        conductance: ``n_rows x n_cycles`` in siemens, NaN where missing or at compliance.
        voltage: ``n_rows`` in volts, mean over cycles.
        n_clipped: Current points left out because they reached the compliance limit.
    """

    conductance: FloatArray
    voltage: FloatArray
    n_clipped: int


class Published(NamedTuple):
    """The published figures; ``window`` is (a, b) in rows of the ramp, both ends included."""

    sigma: float
    monotonicity: float
    usability: float
    window: tuple[int, int]


def published_ramp(sweep: Sweep) -> Ramp:
    """Return the conductance of the rising ramp, cycle by cycle (steps 1 to 3).

    Where every cycle has its own voltage column, each gives its own rising ramp, and the ramps
    are aligned by their row number, shorter ones padded with NaN at the end.
    """
    voltage, current = sweep.voltage, sweep.current
    if _is_shared(voltage):
        rows = np.flatnonzero(voltage[:, 0] > 0)
        rows = rows[: len(rows) // 2]
        v, i = voltage[rows], current[rows]
    else:
        picked = [np.flatnonzero(voltage[:, c] > 0) for c in range(voltage.shape[1])]
        picked = [rows[: len(rows) // 2] for rows in picked]
        length = max((len(rows) for rows in picked), default=0)
        v = np.full((length, voltage.shape[1]), np.nan)
        i = np.full_like(v, np.nan)
        for c, rows in enumerate(picked):
            v[: len(rows), c], i[: len(rows), c] = voltage[rows, c], current[rows, c]
    if v.shape[0] == 0:
        return Ramp(i, np.empty(0), 0)
    kept_v, kept_i = _below_compliance(v), _below_compliance(i)
    n_clipped = int((np.isfinite(i) & np.isnan(kept_i)).sum())
    with np.errstate(over="ignore", invalid="ignore"):
        conductance = kept_i / (kept_v + 1e-8)
    conductance[~np.isfinite(conductance)] = np.nan
    return Ramp(conductance, mean_over_cycles(v), n_clipped)


def _is_shared(voltage: FloatArray) -> bool:
    return voltage.shape[1] == 1 or voltage.strides[1] == 0


def _below_compliance(columns: FloatArray) -> FloatArray:
    top = np.fmax.reduce(columns, axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(columns < COMPLIANCE * top, columns, np.nan)


def mean_over_cycles(values: FloatArray) -> FloatArray:
    """Return the mean over axis 1 of the values that are present, NaN in empty rows."""
    present = np.isfinite(values)
    count = present.sum(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.where(present, values, 0.0).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def monotone_window(ramp: FloatArray) -> tuple[int, int]:
    """Return the longest [a, b] with at most two steps that do not increase; ties go earliest.

    Args:
        ramp: ``n`` values, n >= 1; a step beside a NaN does not increase.

    Returns:
        First and last index of the window, 0 <= a <= b < n.
    """
    with np.errstate(invalid="ignore"):
        falls = np.flatnonzero(~(ramp[1:] > ramp[:-1])) + 1
    # A window is widest where it starts right after a fall (or at 0) and ends right before one.
    starts = np.concatenate([[0], falls])
    ends = np.concatenate([falls - 1, np.full(ALLOWED_FALLS + 1, len(ramp) - 1)])
    ends = ends[ALLOWED_FALLS : ALLOWED_FALLS + len(starts)]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])


def log_deviations(
    conductance: FloatArray, mean: FloatArray, window: tuple[int, int]
) -> FloatArray:
    """Return the trimmed, sorted x = ln(G / m + 1e-8) of the rows of the window (step 5)."""
    rows = slice(window[0], window[1] + 1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        x = np.log(conductance[rows] / mean[rows, None] + 1e-8).ravel()
    x = np.sort(x[np.isfinite(x)])
    return x[int(TRIM[0] * len(x)) : int(TRIM[1] * len(x)) + 1]


def published_figures(conductance: FloatArray) -> Published | None:
    """Return the published figures of a rising ramp, or None where it has no finite deviation.

    Args:
        conductance: ``n_rows x n_cycles`` in siemens, as `published_ramp` gives it.
    """
    if conductance.shape[0] == 0:
        return None
    mean = mean_over_cycles(conductance)
    window = monotone_window(mean)
    x = log_deviations(conductance, mean, window)
    if len(x) == 0:
        return None
    sigma = float(x.std())
    monotonicity = (window[1] - window[0]) / 100
    return Published(sigma, monotonicity, monotonicity * float(np.exp(-sigma)), window)
