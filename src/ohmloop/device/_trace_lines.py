"""Traces of retention as averages over logarithmic time, and the two lines that each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import Retention
from ohmloop.device._trace_noise import TraceNoise, trace_noise
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]

PER_DECADE = 6
"""Averages for each factor ten of time: drift is fitted to them, so that each decade counts the same."""

FIRST = 1.02
"""Readings up to this multiple of the first one's time are averaged as the start of a trace."""


@dataclass(frozen=True, eq=False)
class Traces:
    """Every trace in averages over equal steps of logarithmic time.

    Attributes:
        names: ``k`` names.
        log_time: ``k`` arrays of ln(seconds).
        conductance: ``k`` arrays of means, siemens.
        readings: ``k`` arrays of how many readings a mean holds.
        bins: ``k`` arrays of the number of each step of the grid, counted from the first reading.
        start: ``k`` values of ln(seconds) of the first reading.
        noise: What each trace says about its readings, None where it says nothing.
    """

    names: tuple[str, ...]
    log_time: tuple[Array, ...]
    conductance: tuple[Array, ...]
    readings: tuple[Array, ...]
    bins: tuple[NDArray[np.int64], ...]
    start: Array
    noise: tuple[TraceNoise | None, ...]


def collect(traces: Sequence[Retention]) -> Traces:
    """Average all traces; those with fewer than two different times are left out.

    Raises:
        DeviceError: If none is left.
    """
    names, logs, means, counts, bins, noises, starts = [], [], [], [], [], [], []
    for item in traces:
        for k, name in enumerate(item.names):
            kept = np.isfinite(item.time[:, k]) & np.isfinite(item.conductance[:, k])
            kept &= item.time[:, k] > 0
            t, g = item.time[kept, k], item.conductance[kept, k]
            if len(t) < 2 or t[0] == t[-1]:
                continue
            # Readings about the first one stand alone: changes are counted from them.
            at = np.where(t <= FIRST * t[0], 0, 1 + np.floor(np.log10(t / t[0]) * PER_DECADE))
            at = at.astype(np.int64)
            if at[0] == at[-1]:
                at = np.arange(len(t), dtype=np.int64)  # a trace shorter than one step of the grid
            found, index, n = np.unique(at, return_inverse=True, return_counts=True)
            names.append(f"{item.file}: {name}")
            bins.append(found)
            counts.append(n.astype(np.float64))
            logs.append(np.bincount(index, np.log(t)) / n)
            starts.append(float(np.log(t[0])))
            means.append(np.bincount(index, g) / n)
            noises.append(trace_noise(t, g))
    if not names:
        raise DeviceError(
            "no trace has readings at two different times after 0 s; retention needs at least two."
        )
    return Traces(
        names=tuple(names),
        log_time=tuple(logs),
        conductance=tuple(means),
        readings=tuple(counts),
        bins=tuple(bins),
        start=np.array(starts),
        noise=tuple(noises),
    )


@dataclass(frozen=True, eq=False)
class Lines:
    """Both lines of every trace.

    Attributes:
        g0: ``k`` siemens at t0 by the power law.
        nu: ``k`` exponents.
        nu_error: ``k`` standard errors of them, NaN with two points.
        start: ``k`` siemens at t0 by the line in ln t.
        slope: ``k`` siemens for each factor e of time.
        power_residual: Root mean square of (measured - fitted) / fitted over all traces, power law.
        log_residual: The same of the line in ln t.
    """

    g0: Array
    nu: Array
    nu_error: Array
    start: Array
    slope: Array
    power_residual: float
    log_residual: float

    @classmethod
    def fit(cls, data: Traces, t0: float) -> Lines:
        """Fit ln G and G against ln(t / t0), trace by trace."""
        n = len(data.names)
        g0, nu, error, start, slope = (np.full(n, np.nan) for _ in range(5))
        squares, count = np.zeros(2), 0
        for k, (log_time, g) in enumerate(zip(data.log_time, data.conductance, strict=True)):
            x = log_time - np.log(t0)
            a, b, e = line_fit(x, np.log(g))
            g0[k], nu[k], error[k] = np.exp(a), -b, e
            start[k], slope[k], _ = line_fit(x, g)
            fitted = np.exp(a + b * x)
            line = start[k] + slope[k] * x
            squares += [((g / fitted - 1) ** 2).sum(), ((g - line) ** 2 / start[k] ** 2).sum()]
            count += len(g)
        rms = np.sqrt(squares / count)
        return cls(g0, nu, error, start, slope, float(rms[0]), float(rms[1]))


def line_fit(x: Array, y: Array) -> tuple[float, float, float]:
    """Return intercept, slope and the slope's standard error of y against x."""
    centre = x - x.mean()
    square = float(centre @ centre)
    slope = float(centre @ y) / square
    intercept = float(y.mean() - slope * x.mean())
    if len(x) < 3:
        return intercept, slope, float("nan")
    left = y - intercept - slope * x
    return intercept, slope, float(np.sqrt(left @ left / (len(x) - 2) / square))
