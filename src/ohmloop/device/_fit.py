"""Fit the published device law to measured sweeps.

Source: arXiv 2412.02779; the level table is taken on the rising ramp of the published recipe. (The code
released with that paper takes rows 2 to 101 of the file instead, whatever the ramp's length.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import (
    FiguresOfMerit,
    Sweep,
    figures_of_merit,
    log_deviations,
    mean_over_cycles,
    published_ramp,
)
from ohmloop.device._model import DeviceModel, Estimate, Source
from ohmloop.errors import DeviceError

TABLE_POINTS = 35
"""Points of the level table; a monotone window of that many steps needs none (arXiv 2412.02779)."""
RAMP_POINTS = 100
"""Length of the ramp that the table must stay inside (arXiv 2412.02779)."""
_FIGURES_LEFT_OUT = frozenset({"file", "format", "notes", "sha256"})


def level_table(mean: NDArray[np.float64], window: tuple[int, int]) -> tuple[float, ...] | None:
    """Return rho: the share of a weight that each of the equally spaced levels holds.

    The table is the window of 35 points that starts where the monotone window does, shifted back
    where it would leave the ramp; a shorter ramp is the table as a whole. Points in [a, b) are 1, the
    others (m - m_min) / (m_max - m_min) over the table; a point without a measurement (at compliance)
    takes the level of its nearest measured neighbour.

    Args:
        mean: ``n`` mean conductances of the rising ramp in siemens, NaN where missing.
        window: First and last row (a, b) of its monotone window.

    Returns:
        None where the monotone window has at least 35 steps: rho = 1.
    """
    a, b = window
    if b - a >= TABLE_POINTS:
        return None
    length = min(TABLE_POINTS, len(mean))
    start = max(0, min(a, min(len(mean), RAMP_POINTS) - length))
    rows = np.arange(start, start + length)
    values = mean[rows]
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        raise DeviceError("the ramp has no finite conductance; a level table needs some.")
    nearest = known[np.argmin(np.abs(np.arange(length)[:, None] - known[None, :]), axis=1)]
    values = values[nearest]
    span = values.max() - values.min()
    levels = (values - values.min()) / span if span > 0 else np.ones(length)
    levels[(rows >= a) & (rows < b)] = 1.0
    return tuple(float(level) for level in levels) if length >= 2 else None


def fit(
    sweeps: Sequence[Sweep], *, name: str, n_bootstrap: int = 1000, seed: int = 0
) -> DeviceModel:
    """Fit a device model to one sweep, or to the sweeps of several devices of one kind.

    *One device*: sigma is the published one, its interval a bootstrap over cycles.
    *Several devices*: sigma is taken over the trimmed log deviations of all of them, each about its
    own mean ramp, and its interval is a bootstrap over devices; the level table is the mean of the
    devices' tables, indexed by |theta| / max|theta|; ``figures["device_to_device"]`` is the standard
    deviation over devices of the mean ln G in the monotone window, which the law does not use.

    Args:
        sweeps: One for each device.
        name: What users will call the model.
        n_bootstrap: Resamples behind the interval.
        seed: Of the resampling.

    Raises:
        DeviceError: If there is no sweep, or one has no rising ramp.
    """
    if not sweeps:
        raise DeviceError("a device model needs at least one sweep; received none.")
    merits = [
        figures_of_merit(sweep, n_bootstrap=n_bootstrap if len(sweeps) == 1 else 0, seed=seed)
        for sweep in sweeps
    ]
    for merit in merits:
        if merit.sigma is None:
            raise DeviceError(
                f"{merit.file}: no rising ramp with positive conductance, hence no device law. "
                "Leave the file out, or measure from 0 V upwards."
            )
    if len(sweeps) == 1:
        return _one_device(sweeps[0], merits[0], name)
    return _several_devices(sweeps, merits, name, n_bootstrap, seed)


def _table(sweep: Sweep, merit: FiguresOfMerit) -> tuple[float, ...] | None:
    if merit.window is None:
        raise DeviceError(f"{merit.file}: no monotone window.")
    return level_table(mean_over_cycles(published_ramp(sweep).conductance), merit.window)


def _one_device(sweep: Sweep, merit: FiguresOfMerit, name: str) -> DeviceModel:
    low, high = merit.sigma_interval or (None, None)
    figures = {k: v for k, v in merit.to_dict().items() if k not in _FIGURES_LEFT_OUT}
    return DeviceModel(
        name=name,
        description=f"fitted from {sweep.file}",
        sigma=Estimate(value=merit.sigma or 0.0, low=low, high=high),
        rho=_table(sweep, merit),
        g_min=merit.g_min,
        g_max=merit.g_max,
        figures=figures,
        sources=(Source(file=sweep.file, sha256=sweep.sha256),),
    )


def _several_devices(
    sweeps: Sequence[Sweep],
    merits: Sequence[FiguresOfMerit],
    name: str,
    n_bootstrap: int,
    seed: int,
) -> DeviceModel:
    deviations, mean_ln_g = [], []
    for sweep, merit in zip(sweeps, merits, strict=True):
        conductance = published_ramp(sweep).conductance
        mean = mean_over_cycles(conductance)
        window = merit.window or (0, 0)
        deviations.append(log_deviations(conductance, mean, window))
        inside = mean[window[0] : window[1] + 1]
        mean_ln_g.append(float(np.log(inside[inside > 0]).mean()) if (inside > 0).any() else np.nan)
    rng = np.random.default_rng(seed)
    n = len(sweeps)
    resampled = [
        float(np.concatenate([deviations[k] for k in rng.integers(0, n, n)]).std())
        for _ in range(n_bootstrap)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975]) if n_bootstrap else (None, None)
    tables = [_table(sweep, merit) for sweep, merit in zip(sweeps, merits, strict=True)]
    known = [v for v in mean_ln_g if np.isfinite(v)]
    g_min = [m.g_min for m in merits if m.g_min is not None]
    g_max = [m.g_max for m in merits if m.g_max is not None]
    return DeviceModel(
        name=name,
        description=f"fitted from {n} devices",
        sigma=Estimate(
            value=float(np.concatenate(deviations).std()),
            low=None if low is None else float(low),
            high=None if high is None else float(high),
        ),
        rho=_mean_table(tables),
        g_min=min(g_min) if g_min else None,
        g_max=max(g_max) if g_max else None,
        figures={
            "devices": n,
            "cycles": sum(m.cycles for m in merits),
            "sigma_median_device": float(np.median([m.sigma or 0.0 for m in merits])),
            "monotonicity": float(np.mean([m.monotonicity or 0.0 for m in merits])),
            "usability": float(np.mean([m.usability or 0.0 for m in merits])),
            "device_to_device": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        },
        sources=tuple(Source(file=s.file, sha256=s.sha256) for s in sweeps),
    )


def _mean_table(tables: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    if all(table is None for table in tables):
        return None
    grid = np.linspace(0, 1, TABLE_POINTS)
    rows = [
        np.ones(TABLE_POINTS)
        if table is None
        else np.asarray(table)[np.rint(grid * (len(table) - 1)).astype(int)]
        for table in tables
    ]
    return tuple(float(v) for v in np.mean(rows, axis=0))
