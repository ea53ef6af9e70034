"""Intervals of fitted numbers from resampled cycles, devices or traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]
FEWEST = 3
"""Units below which a bootstrap says nothing about the spread between units."""


def resamples(n_units: int, n_bootstrap: int, seed: int) -> NDArray[np.int64]:
    """Return how often each unit is drawn, ``n_bootstrap x n_units``; no rows below `FEWEST` units."""
    if n_units < FEWEST or n_bootstrap < 2:
        return np.zeros((0, n_units), dtype=np.int64)
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_bootstrap)


def interval(value: float, draws: Sequence[float] | Array, n_units: int) -> Interval | None:
    """Return a 95 % interval around ``value`` from its bootstrap replicates, None where there is none.

    value -+ t(n - 1) sqrt(n / (n - 1)) s, with the bootstrap standard error s (Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapters 6 and 12): the factor undoes the bias of resampling n
    units, and Student's t its few degrees of freedom, without which plain percentiles hold the truth too
    rarely. Positive numbers are treated on the logarithmic scale where all replicates are positive.

    Args:
        value: The estimate.
        draws: Its replicates; those that are no number are left out.
        n_units: How many units were resampled.
    """
    from scipy.stats import t

    kept = np.asarray(draws, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if n_units < FEWEST or len(kept) < 10 or np.ptp(kept) <= 1e-12 * np.abs(kept).max():
        return None  # too few, or a number that was set rather than fitted
    factor = float(t.ppf(0.975, n_units - 1)) * np.sqrt(n_units / (n_units - 1))
    return float(value - factor * kept.std(ddof=1)), float(value + factor * kept.std(ddof=1))


def positive_interval(
    value: float, draws: Sequence[float] | Array, n_units: int
) -> Interval | None:
    """Return the interval of a number that cannot be negative; see `interval`."""
    kept = np.asarray(draws, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if value > 0 and len(kept) and (kept > 0).all():
        found = interval(float(np.log(value)), np.log(kept), n_units)
        return None if found is None else (float(np.exp(found[0])), float(np.exp(found[1])))
    found = interval(value, kept, n_units)
    return None if found is None else (max(0.0, found[0]), found[1])


def as_figures(
    values: Mapping[str, float | int | str | None], intervals: Mapping[str, Interval | None]
) -> dict[str, float | int | bool | str | list[float] | None]:
    """Return values, and beside each one that has it its interval, under stable names for JSON."""
    out: dict[str, float | int | bool | str | list[float] | None] = {}
    for key, value in values.items():
        out[key] = value
        if key in intervals:
            found = intervals[key]
            out[f"{key}_interval"] = None if found is None else list(found)
    return out
