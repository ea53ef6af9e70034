"""What a lab expects of a memristor: states, SET and RESET voltages, cycle by cycle.

Definitions (terms as in Ielmini & Waser, "Resistive Switching", Wiley 2016; Lanza et al., Adv. Electron.
Mater. 5, 1800143 (2019) for the reporting of spreads):

* *branches*: of the positive half of a cycle (V > 0), the way out up to the largest voltage and the
  way back after it; likewise for the negative half.
* *state at the read voltage*: conductance |I| / V at +V_read, interpolated linearly in V on each branch.
  The device's high- and low-resistance state (HRS, LRS) are the lower and the higher of the two.
* *on/off ratio* of a cycle: conductance on the way back over that on the way out. Above 1 the positive
  half switches on (counter-clockwise), below 1 it switches off (clockwise).
* *switched cycle*: the ratio, in the direction of most cycles, is at least `SWITCH_RATIO`.
* *SET voltage* of a switched cycle: centre of the steepest rise of log10 |I| over a window of
  `SLOPE_WINDOW` of the largest voltage, on the way out of the half that switches on.
* *RESET voltage* of a switched cycle: on the way out of the other half, the same for the steepest
  *fall* of log10 G, G = |I / V|, if it is at least `RESET_FALL` and this half takes the
  conductance at the read voltage down by `SWITCH_RATIO`. A volatile device, back in its HRS by then,
  has no RESET.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ohmloop.data._published import COMPLIANCE
from ohmloop.data._sweep import FloatArray, Sweep

SWITCH_RATIO = 2.0
"""Least on/off ratio of a cycle that counts as switched: below it a loop is hardly told from drift."""
SLOPE_WINDOW = 0.05
"""Width of the slope window as a share of the largest voltage."""
FLOOR_SHARE = 0.1
"""SET and RESET are looked for above this share of the largest voltage, clear of the noise floor."""
RESET_FALL = 0.1
"""Least fall of log10 G (20 %) over the window that counts as a RESET."""
READ_SHARE = 0.2
"""Default read voltage as a share of the largest positive voltage."""


class Branch(NamedTuple):
    """One way of one half of a cycle: ``n`` magnitudes of voltage and of current."""

    voltage: FloatArray
    current: FloatArray


class CycleStates(NamedTuple):
    """Per-cycle values, ``n_cycles`` each, NaN where a cycle does not give one.

    Attributes:
        on_off: Conductance on the way back over that on the way out, at the read voltage.
        hrs: Resistance of the high-resistance state in ohm.
        lrs: Resistance of the low-resistance state in ohm.
        set_voltage: In volts, signed.
        reset_voltage: In volts, signed.
        switched: Whether the cycle switched.
        clockwise: Whether the positive half switches off in most cycles.
    """

    on_off: FloatArray
    hrs: FloatArray
    lrs: FloatArray
    set_voltage: FloatArray
    reset_voltage: FloatArray
    switched: np.ndarray
    clockwise: bool


def half(voltage: FloatArray, current: FloatArray, sign: int) -> tuple[Branch, Branch]:
    """Return the way out and the way back of one half of a cycle; either may be empty."""
    rows = np.flatnonzero((sign * voltage > 0) & np.isfinite(current))
    # The magnitude: many instruments, the public nanowires' too, write |I| in both halves.
    v, i = sign * voltage[rows], np.abs(current[rows])
    if len(v) == 0:
        empty = Branch(v, i)
        return empty, empty
    top = int(np.argmax(v))
    return Branch(v[: top + 1], i[: top + 1]), Branch(v[top:], i[top:])


def conductance_at(branch: Branch, read_voltage: float) -> float:
    """Return I / V at ``read_voltage``, interpolated; NaN outside the branch or if not positive."""
    order = np.argsort(branch.voltage, kind="stable")
    v, i = branch.voltage[order], branch.current[order]
    if len(v) < 2 or not v[0] <= read_voltage <= v[-1]:
        return float("nan")
    value = float(np.interp(read_voltage, v, i)) / read_voltage
    return value if value > 0 else float("nan")


def steepest(branch: Branch, values: FloatArray, sign: int) -> tuple[float, float]:
    """Return (voltage, step) of the steepest rise (sign 1) or fall (-1) of ``values``.

    ``step`` is the change over the slope window, positive in the direction asked for; NaN twice
    where the branch is too short. Points at the compliance limit are left out.
    """
    v = branch.voltage
    if len(v) < 4:
        return float("nan"), float("nan")
    keep = (v >= FLOOR_SHARE * v.max()) & np.isfinite(values)
    if sign > 0:
        # Up to the first point at the limit: what follows is the instrument's plateau.
        limit = np.flatnonzero(branch.current >= COMPLIANCE * branch.current.max())
        keep[int(limit[0]) + 1 :] = False
    v, values = v[keep], values[keep]
    if len(v) < 3:
        return float("nan"), float("nan")
    step = float(np.median(np.abs(np.diff(v)))) or 1.0
    width = min(max(1, round(SLOPE_WINDOW * v.max() / step)), len(v) - 1)
    change = sign * (values[width:] - values[:-width])
    k = int(np.argmax(change))
    return float((v[k] + v[k + width]) / 2), float(change[k])


def _log10(values: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log10(np.where(values > 0, values, np.nan))
    return np.asarray(out, dtype=np.float64)


def default_read_voltage(sweep: Sweep) -> float:
    """Return `READ_SHARE` of the largest voltage, 0 where no voltage is positive."""
    top = float(np.nanmax(sweep.voltage))
    return READ_SHARE * top if top > 0 else 0.0


def cycle_states(sweep: Sweep, read_voltage: float) -> CycleStates:
    """Compute the states and switching voltages of every cycle.

    Args:
        sweep: The measurement.
        read_voltage: In volts, positive.
    """
    n = sweep.current.shape[1]
    out, hrs, lrs, v_set, v_reset = (np.full(n, np.nan) for _ in range(5))
    halves = []
    for c in range(n):
        v, i = sweep.voltage[:, c], sweep.current[:, c]
        positive, negative = half(v, i, 1), half(v, i, -1)
        halves.append((positive, negative))
        forward, back = (conductance_at(branch, read_voltage) for branch in positive)
        if np.isfinite(forward) and np.isfinite(back):
            out[c] = back / forward
            hrs[c], lrs[c] = 1 / min(forward, back), 1 / max(forward, back)
    valid = np.isfinite(out)
    clockwise = bool(valid.any() and np.median(out[valid]) < 1)
    with np.errstate(invalid="ignore"):
        switched = (1 / out if clockwise else out) >= SWITCH_RATIO
    for c in np.flatnonzero(switched).tolist():
        on, off = halves[c][::-1] if clockwise else halves[c]
        on_sign = -1 if clockwise else 1
        voltage, rise = steepest(on[0], _log10(on[0].current), 1)
        if rise > 0:
            v_set[c] = on_sign * voltage
        before, after = (conductance_at(branch, read_voltage) for branch in off)
        if not before >= SWITCH_RATIO * after:
            continue
        log_g = _log10(off[0].current / off[0].voltage)
        voltage, fall = steepest(off[0], log_g, -1)
        if fall > RESET_FALL:
            v_reset[c] = -on_sign * voltage
    return CycleStates(out, hrs, lrs, v_set, v_reset, switched, clockwise)
