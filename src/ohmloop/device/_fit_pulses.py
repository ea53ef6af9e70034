"""Fit the exponential pulse response to measured potentiation and depression.

Sources:
    Chen, Peng, Yu, IEDM 2017, and IEEE TCAD 37, 3067 (2018) (NeuroSim): the curve
    G(p) = B (1 - exp(-p / A)) + G_min.
    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993): intervals (see `ohmloop.device._intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import PulseTrain
from ohmloop.device._intervals import Interval, as_figures, interval, positive_interval, resamples
from ohmloop.device._model import DeviceModel, Estimate, Source
from ohmloop.device._noise import ReadNoise, Variation, WriteNoise
from ohmloop.device._physics import Physics
from ohmloop.device._pulse_curve import (
    Curve,
    accumulated,
    asymmetry,
    covariance,
    nonlinearity,
    shape,
)
from ohmloop.device._pulse_data import SIGNS, WORD, Branches
from ohmloop.device._pulses import SoftPulses
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]


def fit_pulses(
    trains: Sequence[PulseTrain], *, name: str, n_bootstrap: int = 400, seed: int = 0
) -> DeviceModel:
    """Fit the pulse response of a device, or of several of a kind, to trains of identical pulses.

    The mean curve of each polarity is fitted by generalised least squares: the weights know that the noise
    of pulses adds up along a curve and that of readings does not. The noise of a pulse and that of a reading
    follow from the variance and the first autocovariance of what one step leaves unexplained. Intervals: 95 %,
    bootstrap over devices where there are at least three, else over cycles; None below three of them.
    ``figures`` holds each number with its interval; ``physics`` the law for simulation.

    Args:
        trains: One for each file; devices of different files count as different devices.
        name: What users will call the model.
        n_bootstrap: Resamples behind the intervals.
        seed: Of the resampling.

    Returns:
        The model; ``sigma`` is the standard deviation of ln(G / fitted curve), ``physics.pulses`` the law.

    Raises:
        DeviceError: If one polarity is missing, or pulses are not identical, or nothing changes.

    >>> import numpy as np
    >>> up = 1e-6 + 1e-7 * np.arange(1, 21)
    >>> train = PulseTrain(
    ...     conductance=np.concatenate([up, up[::-1] - 1e-7]), pulses=np.ones(40, int),
    ...     polarity=np.repeat([1, -1], 20), amplitude=np.full(40, np.nan), width=np.full(40, np.nan),
    ...     cycle=np.zeros(40, int), device=np.zeros(40, int), devices=("a",), read_voltage=None,
    ...     file="a.csv", format="table", sha256="0" * 64,
    ... )
    >>> round(abs(fit_pulses([train], name="line").physics.pulses.curvature_up), 6)
    0.0
    """
    data = Branches.collect(trains)
    fit = _Fit(data)
    weights = resamples(data.n_units, n_bootstrap, seed)
    values = fit.values(np.ones(data.n_units))
    draws = [fit.values(row) for row in weights]
    spread = _device_spread(data, fit)
    return _model(trains, data, fit, name, values, draws, spread, (n_bootstrap, seed))


class _Fit:
    """Everything that one resampling of the units needs, prepared once."""

    def __init__(self, data: Branches) -> None:
        self.data = data
        self.sums = {s: _unit_sums(data.rows[s], data.unit[s], data.n_units) for s in SIGNS}
        everyone = np.ones(data.n_units)
        self.first = {}
        self.curve = {}
        for s in SIGNS:
            mean = self._mean(s, everyone)
            keep = np.isfinite(mean)
            plain = Curve(data.total[s], keep, None)
            found = plain.fit(mean)
            for _ in range(2):  # the weights depend on the fit, weakly
                q, r = _noise(_moments(data, s, found), np.ones(data.n_units))
                weights = covariance(data.total[s], found[2], q, r)
                curve = Curve(data.total[s], keep, weights)
                found = curve.fit(mean)
            self.curve[s], self.first[s] = curve, found
            if found[1] * s <= 0:
                raise DeviceError(
                    f"{WORD[s]} pulses move the conductance by {found[1]:.3g} S, the wrong way or not at all. "
                    "Is the polarity swapped? Otherwise these devices do not switch."
                )
        self.moments = {s: _moments(data, s, self.first[s]) for s in SIGNS}
        self.logs = {s: _log_sums(data, s, self.first[s]) for s in SIGNS}

    def _mean(self, s: int, weight: Array) -> Array:
        total, count = self.sums[s]
        n = weight @ count
        return np.asarray(
            np.divide(weight @ total, n, out=np.full(n.shape, np.nan), where=n > 0),
            dtype=np.float64,
        )

    def values(self, weight: Array) -> dict[str, float]:
        """Return every fitted number for units that count ``weight`` times; NaN where that has no data."""
        found, variances = {}, {}
        for s in SIGNS:
            mean = self._mean(s, weight)
            if not np.isfinite(mean[self.curve[s].at]).all():
                return {}
            found[s] = self.curve[s].fit(mean)
            variances[s] = _noise(self.moments[s], weight)
        (u0, du, au), (d0, dd, ad) = found[1], found[-1]
        low, high = 0.5 * (u0 + d0 + dd), 0.5 * (u0 + du + d0)
        n = {s: float(weight @ self.moments[s].n) for s in SIGNS}
        share = {s: n[s] / (n[1] + n[-1]) for s in SIGNS}
        q = sum(share[s] * variances[s][0] for s in SIGNS)
        r = sum(share[s] * variances[s][1] for s in SIGNS)
        logs = sum((weight @ self.logs[s] for s in SIGNS), np.zeros(2))
        return {
            "g_min": low,
            "g_max": high,
            "curvature_up": au,
            "curvature_down": ad,
            "nonlinearity_up": nonlinearity(au),
            "nonlinearity_down": nonlinearity(ad),
            "asymmetry": asymmetry(au, ad),
            "noise": float(np.sqrt(q)) / (high - low),
            "read_noise": float(np.sqrt(r)),
            "sigma": float(np.sqrt(logs[0] / max(logs[1], 1.0))),
        }


def _unit_sums(rows: Array, unit: NDArray[np.int64], n: int) -> tuple[Array, Array]:
    """Sum the branches of each unit, and count their readings: ``n x m`` twice."""
    total, count = np.zeros((n, rows.shape[1])), np.zeros((n, rows.shape[1]))
    np.add.at(total, unit, np.nan_to_num(rows))
    np.add.at(count, unit, np.isfinite(rows).astype(float))
    return total, count


@dataclass(frozen=True, eq=False)
class _Moments:
    """Sums over each unit of what one step leaves unexplained.

    Attributes:
        square: ``n_units`` sums of e_k^2 (S^2).
        lagged: ``n_units`` sums of e_k e_(k+1).
        n: ``n_units`` numbers of e_k.
        n_lagged: ``n_units`` numbers of products.
        rho: What a step leaves of a deviation.
        added: Variance between two readings for a variance of 1 a pulse.
    """

    square: Array
    lagged: Array
    n: Array
    n_lagged: Array
    rho: float
    added: float


def _moments(data: Branches, s: int, found: tuple[float, float, float]) -> _Moments:
    start, change, a = found
    total = data.total[s]
    deviation = data.rows[s] - (start + change * shape(a, total / total[-1]))
    per_row = float(np.median(np.diff(total)))
    rho = float(np.exp(-a * per_row / total[-1]))
    added = float(accumulated(a / total[-1], np.array(per_row)))
    e = deviation[:, 1:] - np.exp(-a * np.diff(total) / total[-1]) * deviation[:, :-1]
    for d in np.unique(data.device[s]):
        # What all cycles of a device share is its own curve, not noise.
        own = np.flatnonzero(data.device[s] == d)
        n = np.isfinite(e[own]).sum(axis=0)
        shared = np.where(n > 1, np.nan_to_num(e[own]).sum(axis=0) / np.maximum(n, 1), 0.0)
        e[own] = (e[own] - shared) * np.sqrt(np.where(n > 1, n / np.maximum(n - 1, 1), 1.0))
    product = e[:, 1:] * e[:, :-1]
    sums = []
    for values in (e**2, product):
        kept = np.isfinite(values)
        for column in (np.where(kept, values, 0).sum(axis=1), kept.sum(axis=1).astype(float)):
            sums.append(np.bincount(data.unit[s], column, data.n_units).astype(np.float64))
    return _Moments(sums[0], sums[2], sums[1], sums[3], rho, added)


def _noise(moments: _Moments, weight: Array) -> tuple[float, float]:
    """Return the variances of one pulse and of one reading, in S^2.

    e_k = w_k + v_(k+1) - rho v_k: its variance is q + r (1 + rho^2), its first autocovariance -rho r.
    """
    n, lagged = float(weight @ moments.n), float(weight @ moments.n_lagged)
    if n == 0:
        return 0.0, 0.0
    square = float(weight @ moments.square) / n
    covariance = float(weight @ moments.lagged) / lagged if lagged else 0.0
    rho = moments.rho
    r = min(max(0.0, -covariance / rho), square / (1 + rho**2))
    return max(0.0, square - r * (1 + rho**2)) / moments.added, r


def _log_sums(data: Branches, s: int, found: tuple[float, float, float]) -> Array:
    """Return ``n_units x 2``: sums of squares of ln(G / curve), and their numbers."""
    start, change, a = found
    curve = start + change * shape(a, data.total[s] / data.total[s][-1])
    ratio = data.rows[s] / np.where(curve > 0, curve, np.nan)
    square = np.log(np.where(ratio > 0, ratio, np.nan)) ** 2
    kept = np.isfinite(square)
    return np.stack(
        [
            np.bincount(data.unit[s], np.where(kept, square, 0).sum(axis=1), data.n_units),
            np.bincount(data.unit[s], kept.sum(axis=1).astype(float), data.n_units),
        ],
        axis=1,
    )


def _device_spread(data: Branches, fit: _Fit) -> tuple[Array, Array] | None:
    """Return ln of each device's factor on conductances and on steps; None below three devices.

    Both factors are fitted at once: G_d(p) = f * curve(s p), curve being that of all devices.
    """
    if data.n_devices < 3:
        return None
    grid = np.exp(np.linspace(-1.2, 1.2, 481))
    window, steps = np.full(data.n_devices, np.nan), np.full(data.n_devices, np.nan)
    for d in range(data.n_devices):
        error, top = np.zeros(len(grid)), np.zeros(len(grid))
        base = np.zeros(len(grid))
        square = 0.0
        for s in SIGNS:
            rows = data.rows[s][data.device[s] == d]
            if not len(rows):
                continue
            count = np.isfinite(rows).sum(axis=0)
            use = count > 0
            mean = np.nan_to_num(rows).sum(axis=0)[use] / count[use]
            start, change, a = fit.first[s]
            share = data.total[s][use] / data.total[s][-1]
            curves = start + change * np.stack([shape(a, f * share) for f in grid])
            top += curves @ mean
            base += (curves**2).sum(axis=1)
            square += float(mean @ mean)
        if square == 0.0:
            continue
        error = square - top**2 / base
        k = int(np.argmin(error))
        window[d], steps[d] = np.log(top[k] / base[k]), np.log(grid[k])
    return window, steps


def _model(
    trains: Sequence[PulseTrain],
    data: Branches,
    fit: _Fit,
    name: str,
    values: dict[str, float],
    draws: list[dict[str, float]],
    spread: tuple[Array, Array] | None,
    resampling: tuple[int, int],
) -> DeviceModel:
    if not values["g_min"] < values["g_max"]:
        raise DeviceError("potentiation and depression leave no window: nothing switches.")
    good = [d for d in draws if d]
    limits: dict[str, Interval | None] = {}
    for key, value in values.items():
        of = positive_interval if key in ("noise", "read_noise", "sigma") else interval
        limits[key] = of(value, [d[key] for d in good], data.n_units)
    extra, more = _spread_figures(spread, *resampling)
    pulses = {s: float(data.total[s][-1]) for s in SIGNS}
    figures = as_figures(
        {
            **{f"pulse_{k}": v for k, v in values.items() if k != "sigma"},
            **extra,
            "pulses_up": pulses[1],
            "pulses_down": pulses[-1],
            "pulse_devices": data.n_devices,
            "pulse_cycles": sum(t.n_cycles for t in trains),
            "pulse_resampled": data.unit_name if data.n_units >= 3 else "nothing",
        },
        {**{f"pulse_{k}": v for k, v in limits.items()}, **more},
    )
    for k, note in enumerate(data.notes):
        figures[f"pulse_note_{k + 1}"] = note
    sigma = limits["sigma"]
    return DeviceModel(
        name=name,
        description=f"pulse response fitted from {_files(trains)}",
        sigma=Estimate(
            value=values["sigma"],
            low=None if sigma is None else sigma[0],
            high=None if sigma is None else sigma[1],
        ),
        g_min=max(values["g_min"], 0.0),
        g_max=values["g_max"],
        figures=figures,
        sources=tuple(Source(file=t.file, sha256=t.sha256) for t in trains),
        physics=_physics(trains, values, extra, pulses),
    )


def _spread_figures(
    spread: tuple[Array, Array] | None, n_bootstrap: int, seed: int
) -> tuple[dict[str, float | None], dict[str, Interval | None]]:
    values: dict[str, float | None] = {}
    limits: dict[str, Interval | None] = {}
    for key, logs in zip(
        ("pulse_device_window", "pulse_device_steps"), spread or (None, None), strict=True
    ):
        kept = np.zeros(0) if logs is None else logs[np.isfinite(logs)]
        if len(kept) < 3:
            values[key], limits[key] = None, None
            continue
        values[key] = float(kept.std(ddof=1))
        n = len(kept)
        draws = []
        for w in resamples(n, n_bootstrap, seed):
            middle = w @ kept / n
            draws.append(float(np.sqrt(w @ (kept - middle) ** 2 / (n - 1))))
        limits[key] = positive_interval(float(kept.std(ddof=1)), draws, n)
    return values, limits


def _physics(
    trains: Sequence[PulseTrain],
    values: dict[str, float],
    extra: dict[str, float | None],
    pulses: dict[int, float],
) -> Physics:
    where = f"fitted from {_files(trains)}"
    volts = {t.read_voltage for t in trains}
    amplitude = np.concatenate([t.amplitude * np.abs(t.polarity) for t in trains])
    sign = np.concatenate([t.polarity for t in trains])
    width = np.concatenate([t.width for t in trains])
    width = width[np.isfinite(width) & (width > 0)]
    read = volts.pop() if len(volts) == 1 else None
    return Physics(
        g_min=max(values["g_min"], 0.0),
        g_max=values["g_max"],
        write=WriteNoise(
            source="not measured by pulse trains; program pulse by pulse (write_verify)"
        ),
        read=ReadNoise(absolute=values["read_noise"], source=where),
        variation=Variation(
            window=extra["pulse_device_window"] or 0.0,
            steps=extra["pulse_device_steps"] or 0.0,
            source=where,
        ),
        pulses=SoftPulses(
            pulses_up=pulses[1],
            pulses_down=pulses[-1],
            curvature_up=values["curvature_up"],
            curvature_down=values["curvature_down"],
            noise=values["noise"],
            source=where,
        ),
        read_voltage=read or None,
        set_voltage=_middle(amplitude[sign > 0]),
        reset_voltage=_middle(amplitude[sign < 0]),
        pulse_width=float(np.median(width)) if len(width) and np.ptp(width) == 0 else None,
        source=where,
    )


def _middle(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _files(items: Sequence[PulseTrain]) -> str:
    return items[0].file if len(items) == 1 else f"{len(items)} files"
