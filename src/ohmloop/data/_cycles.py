"""One long record of voltage, split into the cycles that a person would count."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ohmloop.data._sweep import FloatArray

TURN = 0.1
"""A reversal counts when the voltage comes back by this share of its range: above any noise of a
source, below any real branch."""


def split_cycles(
    voltage: FloatArray, labels: FloatArray | None = None
) -> tuple[list[slice], str | None]:
    """Return the row ranges of the cycles, and in words what was done (None if nothing).

    With ``labels`` (a cycle column of whole numbers) a cycle is a run of one label. Otherwise a cycle
    ends where the voltage, after at least one reversal each way, is back at its first value and
    moves on in its first direction.

    Args:
        voltage: ``n_rows`` in volts; NaN allowed.
        labels: ``n_rows``, or None.
    """
    if labels is not None and len(voltage) > 0 and np.isfinite(labels).all():
        cuts = np.flatnonzero(np.diff(labels) != 0) + 1
        parts = _slices(cuts, len(voltage))
        return parts, f"{len(parts)} cycles, from the cycle column."
    rows = np.flatnonzero(np.isfinite(voltage))
    if len(rows) < 4:
        return [slice(0, len(voltage))], None
    v = voltage[rows]
    turns = _turns(v)
    if len(turns) < 3:
        return [slice(0, len(voltage))], None
    rising = v[turns[0]] > v[0]
    sign = 1.0 if rising else -1.0
    # Turning points alternate; every second one starts the way back towards the first value.
    starts: list[int] = []
    for bottom, top in zip(turns[1::2], turns[2::2], strict=False):
        if sign * (v[top] - v[0]) <= TURN * float(np.ptp(v)):
            continue  # The record ends where it began: no new cycle starts there.
        branch = sign * v[bottom : top + 1]
        reached = np.flatnonzero(branch >= sign * v[0])
        first = bottom + (int(reached[0]) if len(reached) else 0)
        while first < top and v[first + 1] == v[first] and v[first] == v[0]:
            first += 1  # The end of one cycle and the start of the next are the same voltage.
        starts.append(int(rows[first]))
    if not starts:
        return [slice(0, len(voltage))], None
    parts = _slices(np.array(starts), len(voltage))
    text = f"{len(parts)} cycles in one column, split where the voltage starts over."
    lengths = [part.stop - part.start for part in parts]
    if lengths[-1] < 0.9 * np.median(lengths[:-1]):
        text += f" The last one is short ({lengths[-1]} rows)."
    return parts, text


def _slices(cuts: np.ndarray, n: int) -> list[slice]:
    edges = [0, *(int(c) for c in cuts), n]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def _turns(v: FloatArray) -> list[int]:
    """Return the rows where ``v`` reverses by more than `TURN` of its range, the last extreme too."""
    threshold = TURN * float(np.ptp(v))
    if threshold == 0:
        return []
    turns: list[int] = []
    low = high = 0
    direction = 0
    for k, value in enumerate(v.tolist()):
        if direction >= 0 and value > v[high]:
            high = k
        if direction <= 0 and value < v[low]:
            low = k
        if direction >= 0 and v[high] - value > threshold:
            if direction > 0 or high > 0:
                turns.append(high)
            direction, low = -1, k
        elif direction <= 0 and value - v[low] > threshold:
            if direction < 0 or low > 0:
                turns.append(low)
            direction, high = 1, k
    turns.append(high if direction > 0 else low)
    return turns
