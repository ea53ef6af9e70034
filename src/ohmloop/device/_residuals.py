"""What a fitted pulse response or drift leaves unexplained, ready to be drawn or tabulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import PulseTrain, Retention
from ohmloop.device._drift import PowerDrift
from ohmloop.device._model import DeviceModel
from ohmloop.device._pulse_curve import accumulated, shape
from ohmloop.device._pulses import SoftPulses
from ohmloop.device._trace_lines import Lines, collect
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Residuals:
    """Measured against fitted, point by point.

    Attributes:
        kind: "pulses" or "retention".
        x: ``n`` numbers of pulses, or seconds.
        series: ``n`` indices into ``names``.
        names: What was fitted: branches or traces.
        measured: ``n`` siemens.
        fitted: ``n`` siemens.
        standard: What should be standard normal if the law holds: for pulses each step's surprise over its
            standard deviation, for retention each trace's exponent or last change. Empty where the law
            has no spread.
        standard_of: What ``standard`` is, in words.
    """

    kind: Literal["pulses", "retention"]
    x: Array
    series: NDArray[np.int64]
    names: tuple[str, ...]
    measured: Array
    fitted: Array
    standard: Array
    standard_of: str

    @property
    def relative(self) -> Array:
        """(measured - fitted) / fitted, ``n``."""
        return np.asarray(self.measured / self.fitted - 1, dtype=np.float64)


def pulse_residuals(model: DeviceModel, trains: Sequence[PulseTrain]) -> Residuals:
    """Return what the model's pulse response leaves unexplained of the readings.

    A step's surprise is the reading less what the law expects after the reading before; its variance is that of
    the pulses and of the two readings.

    Args:
        model: With ``physics.pulses``.
        trains: Those it was fitted to, or others of such devices.

    Raises:
        DeviceError: If the model has no exponential pulse response, or there is no reading.
    """
    physics = model.physics
    if physics is None or not isinstance(physics.pulses, SoftPulses):
        raise DeviceError(
            f'device "{model.name}" has no exponential pulse response to compare with.'
        )
    law, window = physics.pulses, physics.g_max - physics.g_min
    parts: list[tuple[Array, Array, Array]] = []
    names: list[str] = []
    surprise: list[Array] = []
    for train in trains:
        for b in train.branches():
            up = b.polarity > 0
            a, full = (
                (law.curvature_up, law.pulses_up) if up else (law.curvature_down, law.pulses_down)
            )
            start, change = (physics.g_min, window) if up else (physics.g_max, -window)
            share = b.total / full
            kept = np.isfinite(b.conductance)
            parts.append(
                (
                    b.total[kept].astype(np.float64),
                    b.conductance[kept],
                    start + change * shape(a, share[kept]),
                )
            )
            word = "potentiation" if up else "depression"
            names.append(f"{train.devices[b.device]}, cycle {b.cycle + 1}, {word}")
            noise = (window * law.noise, physics.read.absolute)
            surprise.append(_surprise(b.conductance, share, a, (start, change), noise, full))
    if not any(len(x) for x, _, _ in parts):
        raise DeviceError("no finite reading to compare the law with.")
    x, measured, fitted = (np.concatenate([p[k] for p in parts]) for k in range(3))
    return Residuals(
        kind="pulses",
        x=x,
        series=np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts]),
        names=tuple(names),
        measured=measured,
        fitted=fitted,
        standard=np.concatenate(surprise),
        standard_of="surprise of each step / its standard deviation",
    )


def _surprise(
    conductance: Array,
    share: Array,
    a: float,
    curve: tuple[float, float],
    noise: tuple[float, float],
    full: float,
) -> Array:
    """Return the standardised surprise of each step whose two readings are there."""
    start, change = curve
    steps = np.diff(share)
    keeps = np.exp(-a * steps)
    deviation = conductance - (start + change * shape(a, share))
    e = deviation[1:] - keeps * deviation[:-1]
    variance = noise[0] ** 2 * accumulated(a / full, steps * full) + noise[1] ** 2 * (1 + keeps**2)
    kept = np.isfinite(e) & (variance > 0)
    return np.asarray(e[kept] / np.sqrt(variance[kept]), dtype=np.float64)


def retention_residuals(model: DeviceModel, traces: Sequence[Retention]) -> Residuals:
    """Return what the model's law of drift leaves unexplained, each trace with its own line.

    Args:
        model: With ``physics.drift``.
        traces: Those it was fitted to, or others of such devices.

    Raises:
        DeviceError: If the model has no drift.
    """
    physics = model.physics
    if physics is None or physics.drift is None:
        raise DeviceError(f'device "{model.name}" has no law of drift to compare with.')
    data = collect(traces)
    drift = physics.drift
    lines = Lines.fit(data, drift.t0)
    power = isinstance(drift, PowerDrift)
    fitted = []
    for k, log_time in enumerate(data.log_time):
        x = log_time - np.log(drift.t0)
        line = lines.start[k] + lines.slope[k] * x
        fitted.append(lines.g0[k] * np.exp(-lines.nu[k] * x) if power else line)
    count = [len(x) for x in data.log_time]
    if isinstance(drift, PowerDrift):
        level = np.log(np.clip(lines.g0 / physics.g_max, 1e-7, 1.0))
        mean = np.clip(drift.nu.slope * level + drift.nu.offset, drift.nu.low, drift.nu.high)
        spread = np.full(len(level), drift.spread.offset)
        standard, what = lines.nu - mean, "exponent less its mean / spread"
    else:
        first = np.array([g[0] for g in data.conductance])
        scale = first if drift.scale == "relative" else np.ones(len(first))
        change = (np.array([g[-1] for g in data.conductance]) - first) / scale
        last, start = (np.array([x[k] for x in data.log_time]) - data.start for k in (-1, 0))
        standard, what = change - drift.shift * (last - start), "last change / its spread"
        spread = drift.rate * (last**drift.power - start**drift.power)
    usable = spread > 0
    return Residuals(
        kind="retention",
        x=np.exp(np.concatenate(data.log_time)),
        series=np.repeat(np.arange(len(count)), count),
        names=data.names,
        measured=np.concatenate(data.conductance),
        fitted=np.concatenate(fitted),
        standard=standard[usable] / spread[usable],
        standard_of=what,
    )
