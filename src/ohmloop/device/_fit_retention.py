"""Fit drift, broadening and read noise to traces of conductance against time.

Sources:
    Nandakumar et al., ICECS 2019, and Joshi et al., Nature Communications 11, 2473 (2020): power-law drift
    G = G0 (t / t0)^-nu with a spread of exponents that depends on the conductance.
    Ielmini & Waser (eds.), "Resistive Switching" (Wiley 2016): shift and broadening in logarithmic time.
    Noise of fast readings: see `ohmloop.device._trace_noise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.data import Retention
from ohmloop.device._drift import LogLaw, PowerDrift, WalkDrift
from ohmloop.device._intervals import Interval, as_figures, interval, positive_interval, resamples
from ohmloop.device._model import DeviceModel, Estimate, Source
from ohmloop.device._noise import Flicker, ReadNoise, WriteNoise
from ohmloop.device._physics import Physics
from ohmloop.device._trace_lines import Lines, Traces, collect, line_fit
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]
Law = Literal["power", "walk"]

LEVEL_TRACES = 8
"""Traces, and a factor of `LEVEL_RANGE` between their conductances, from which on levels are compared."""
LEVEL_RANGE = 1.5
_FLICKER_SHARE = 0.1  # of the white variance that 1/f noise must add over a trace to count


def fit_retention(
    traces: Sequence[Retention],
    *,
    name: str,
    g_max: float | None = None,
    law: Law | None = None,
    n_bootstrap: int = 400,
    seed: int = 0,
) -> DeviceModel:
    """Fit what happens to a programmed conductance with time, and the noise of reading it.

    Two laws compete. *power*: ln G falls along a line in ln t, the exponent differing from trace to trace
    and, where at least eight traces show it at the 5 % level, depending on ln(G / g_max). *walk*: G moves
    along a line in ln t, in either direction, and traces spread apart. The power law is taken where most
    exponents are positive (their mean exceeds their spread: the law has no negative ones) and its residual
    is not the larger one; ``figures`` reports both residuals. Intervals: 95 %, bootstrap over traces; None
    below three.

    Args:
        traces: One for each file; every column is a trace of its own.
        name: What users will call the model.
        g_max: Upper end of the window in siemens that level dependence refers to; by default the largest
            conductance of the traces.
        law: "power" or "walk" to take that one; None to choose.
        n_bootstrap: Resamples behind the intervals.
        seed: Of the resampling.

    Returns:
        The model; ``sigma`` is the standard deviation over traces of ln(G at the end / G at the start),
        ``physics.drift`` and ``physics.read`` the laws.

    Raises:
        DeviceError: If no trace has two times, or ``law`` is unknown or cannot describe the traces.

    >>> import numpy as np
    >>> t = np.geomspace(1, 1e4, 30)[:, None]
    >>> trace = Retention(
    ...     time=t, conductance=1e-5 * t**-0.05, names=("cell",), read_voltage=None, file="a.csv",
    ...     format="table", sha256="0" * 64,
    ... )
    >>> round(fit_retention([trace], name="drifting").physics.drift.nu.offset, 6)
    0.05
    """
    if not traces:
        raise DeviceError("a retention fit needs at least one trace; received none.")
    if law not in (None, "power", "walk"):
        raise DeviceError(f'law is "power" or "walk"; received {law!r}.')
    data = collect(traces)
    t0 = float(np.exp(np.median(data.start)))
    lines = Lines.fit(data, t0)
    top = g_max or float(max(lines.g0.max(), max(g.max() for g in data.conductance)))
    n = len(data.names)
    weights = resamples(n, n_bootstrap, seed)
    levels = _by_level(lines, top)
    power = _power(lines, top, np.ones(n), levels)
    chosen = law or _choose(lines, power)
    if law == "power" and power["nu_mean"] < 0:
        raise DeviceError(
            f"the conductances rise (mean exponent {power['nu_mean']:.3g}), and the power law only falls. "
            'Take law="walk".'
        )
    walk = _Walk(data)
    values: dict[str, float | None] = {**power, **walk.values(np.ones(n))}
    draws: list[dict[str, float | None]] = [
        {**_power(lines, top, w, levels), **walk.values(w)} for w in weights
    ]
    noise = _noise(data)
    limits = _limits(values, draws, n)
    noise_limits = _noise_limits(data, n_bootstrap, seed)
    last = np.array([np.log(g[-1] / g[0]) for g in data.conductance])
    sigma = float(last.std(ddof=1)) if n > 1 else float(abs(last[0]))
    sigma_draws = [float(np.sqrt(w @ (last - w @ last / n) ** 2 / max(n - 1, 1))) for w in weights]
    around = positive_interval(sigma, sigma_draws, n)
    figures = as_figures(
        {
            "drift_law": chosen,
            "drift_t0": t0,
            "drift_power_residual": lines.power_residual,
            "drift_log_residual": lines.log_residual,
            "drift_scale": walk.scale,
            "drift_traces": n,
            **{f"drift_{k}": v for k, v in values.items()},
            **noise,
        },
        {**{f"drift_{k}": v for k, v in limits.items()}, **noise_limits},
    )
    volts = {item.read_voltage for item in traces}
    low = float(min(lines.g0.min(), min(g.min() for g in data.conductance)))
    where = f"fitted from {traces[0].file if len(traces) == 1 else f'{len(traces)} files'}"
    bottom = low if low < top / LEVEL_RANGE else 0.0
    return DeviceModel(
        name=name,
        description=f"retention {where}",
        sigma=Estimate(
            value=sigma,
            low=None if around is None else around[0],
            high=None if around is None else around[1],
        ),
        g_min=bottom,
        g_max=top,
        figures=figures,
        sources=tuple(Source(file=item.file, sha256=item.sha256) for item in traces),
        physics=Physics(
            g_min=bottom,
            g_max=top,
            write=WriteNoise(source="not measured by retention"),
            read=_read_noise(noise, where),
            drift=_drift(chosen, values, walk.scale, t0, where),
            read_voltage=volts.pop() if len(volts) == 1 else None,
            source={
                "": where,
                "g_min": where if bottom else "assumed: the traces hold one level only",
            },
        ),
    )


def _by_level(lines: Lines, g_max: float) -> bool:
    """Whether the exponent depends on the level: a line in ln(G / g_max) with a slope beyond 5 % chance."""
    from scipy.stats import t

    x = _level(lines, g_max)
    n = len(x)
    if n < LEVEL_TRACES or np.exp(np.ptp(x)) < LEVEL_RANGE:
        return False
    _, slope, error = line_fit(x, lines.nu)
    return bool(abs(slope) > float(t.ppf(0.975, n - 2)) * error)


def _level(lines: Lines, g_max: float) -> Array:
    return np.asarray(np.log(np.minimum(lines.g0 / g_max, 1.0)), dtype=np.float64)


def _power(lines: Lines, g_max: float, weight: Array, levels: bool) -> dict[str, float]:
    """Return mean and spread of the exponents, and their dependence on the level, under weights."""
    n = float(weight.sum())
    mean = float(weight @ lines.nu) / n
    x = _level(lines, g_max)
    slope, offset = 0.0, mean
    if levels:
        middle = float(weight @ x) / n
        square = float(weight @ (x - middle) ** 2)
        if square > 0:
            slope = float(weight @ ((x - middle) * lines.nu)) / square
            offset = mean - slope * middle
    left = lines.nu - offset - slope * x
    known = np.isfinite(lines.nu_error)
    own = (weight * known) @ np.nan_to_num(lines.nu_error) ** 2 / max(float(weight @ known), 1.0)
    degrees = max(n - (2 if levels else 1), 1.0)
    variance = float(weight @ left**2) / degrees - float(own)
    return {
        "nu_mean": mean,
        "nu_slope": slope,
        "nu_offset": offset,
        "nu_std": float(np.sqrt(max(variance, 0.0))) if n > 1 else 0.0,
    }


def _choose(lines: Lines, power: dict[str, float]) -> Law:
    falls = power["nu_mean"] > 0 and power["nu_mean"] >= power["nu_std"]
    return "power" if falls and lines.power_residual <= 1.02 * lines.log_residual else "walk"


class _Walk:
    """Shift and broadening of all traces against L = ln(t / t0), relative or absolute.

    A trace's change is counted from the mean about its first reading, at a small L1: its expectation is
    shift (L - L1), its standard deviation rate (L^power - L1^power).
    """

    def __init__(self, data: Traces) -> None:
        first = np.array([g[0] for g in data.conductance])
        self.scale: Literal["relative", "absolute"] = _steadier(data, first)
        bins = sorted({int(b) for found in data.bins for b in found})
        index = {b: k for k, b in enumerate(bins)}
        shape = (len(first), len(bins))
        self.change, self.log, self.read = (np.full(shape, np.nan) for _ in range(3))
        self.first = np.array([x[0] for x in data.log_time]) - data.start
        for k, found in enumerate(data.bins):
            at = [index[int(b)] for b in found[1:]]
            unit = first[k] if self.scale == "relative" else 1.0
            self.change[k, at] = (data.conductance[k][1:] - first[k]) / unit
            self.log[k, at] = data.log_time[k][1:] - data.start[k]
            own = data.noise[k]
            white = 0.0 if own is None else (own.white * own.conductance / unit) ** 2
            self.read[k, at] = white * (1 / data.readings[k][1:] + 1 / data.readings[k][0])

    def values(self, weight: Array) -> dict[str, float | None]:
        """Return shift, rate and power of the broadening under weights of the traces."""
        known = np.isfinite(self.change)
        change, log, read = (np.where(known, v, 0.0) for v in (self.change, self.log, self.read))
        w = weight[:, None] * known
        since = np.where(known, log - self.first[:, None], 0.0)
        shift = float((w * since * change).sum() / (w * since**2).sum())
        left = (change - shift * since) ** 2 - read
        n = w.sum(axis=0)
        enough = n >= 2
        if len(weight) < 2 or not enough.any():
            return {"shift": shift, "rate": 0.0, "power": None}
        each = np.maximum((w * left).sum(axis=0)[enough] / n[enough], 0.0)
        at = (w * log).sum(axis=0)[enough] / n[enough]
        start = (w * self.first[:, None]).sum(axis=0)[enough] / n[enough]
        n = n[enough]
        power = None
        if len(weight) >= LEVEL_TRACES and (each > 0).sum() >= 4:
            kept = each > 0
            power = _power_of(at[kept], start[kept], each[kept], n[kept])
        reach = _reach(at, start, power or 0.5)
        # Each step of the grid has the same relative precision: it counts by its number of traces.
        rate = float(np.sqrt((n * each / reach**2).sum() / n.sum()))
        return {"shift": shift, "rate": rate, "power": power}


def _reach(at: Array, start: Array, power: Array | float) -> Array:
    return np.asarray(at**power - start**power, dtype=np.float64)


def _power_of(at: Array, start: Array, variance: Array, n: Array) -> float:
    """Return the power with which the standard deviation grows: the one that leaves ln(rate) steadiest."""
    powers = np.linspace(0.1, 2.0, 191)
    rate = 0.5 * np.log(variance) - np.log(_reach(at, start, powers[:, None]))
    mean = rate @ n / n.sum()
    return float(powers[np.argmin((rate - mean[:, None]) ** 2 @ n)])


def _steadier(data: Traces, first: Array) -> Literal["relative", "absolute"]:
    """Return which of the two makes the last change of all levels more alike (Gaussian likelihood)."""
    last = np.array([g[-1] for g in data.conductance]) - first
    relative = last / first
    if len(first) < LEVEL_TRACES or not relative.std() > 0:
        return "relative"
    by_share = -len(first) * np.log(relative.std()) - np.log(first).sum()
    return "relative" if by_share >= -len(first) * np.log(last.std()) else "absolute"


def _limits(
    values: dict[str, float | None], draws: Sequence[dict[str, float | None]], n: int
) -> dict[str, Interval | None]:
    out: dict[str, Interval | None] = {}
    for key, value in values.items():
        replicates = [d[key] for d in draws]
        kept = [r for r in replicates if r is not None]
        of = positive_interval if key in ("nu_std", "rate", "power") else interval
        out[key] = None if value is None else of(value, kept, n)
    return out


def _noise(data: Traces) -> dict[str, float | int | str | None]:
    """Return the noise of all traces together, relative to the conductance where several levels say so."""
    known = [n for n in data.noise if n is not None]
    if not known:
        return {"read_noise_relative": None, "read_noise_absolute": None, "read_traces": 0}
    relative, absolute = _white([n.white for n in known], [n.conductance for n in known])
    q = float(np.sqrt(np.mean([n.flicker**2 for n in known])))
    telegraph = [n.telegraph for n in known if n.telegraph is not None]
    return {
        "read_noise_relative": relative,
        "read_noise_absolute": absolute,
        "read_flicker": q,
        "read_interval": float(np.median([n.interval for n in known])),
        "read_traces": len(known),
        "telegraph_traces": len(telegraph),
        "telegraph_amplitude": _median([t.amplitude for t in telegraph]),
        "telegraph_high_seconds": _median([t.high for t in telegraph]),
        "telegraph_low_seconds": _median([t.low for t in telegraph]),
    }


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _white(white: Sequence[float], conductance: Sequence[float]) -> tuple[float, float]:
    """Split white noise into a share of the conductance and a constant: variance = a^2 + (b G)^2."""
    from scipy.optimize import nnls

    share, g = np.array(white), np.array(conductance)
    if len(g) < 3 or g.max() < LEVEL_RANGE * g.min() or not (share > 0).all():
        return float(np.sqrt(np.mean(share**2))), 0.0
    # Weighted by 1 / variance, so that each trace counts by its relative error.
    variance = (share * g) ** 2
    scale = float(g.max())
    columns = np.stack([(g / scale) ** 2, np.ones(len(g))], axis=1) * scale**2
    found, _ = nnls(columns / variance[:, None], np.ones(len(g)))
    return float(np.sqrt(found[0])), float(np.sqrt(found[1])) * scale


def _noise_limits(data: Traces, n_bootstrap: int, seed: int) -> dict[str, Interval | None]:
    known = [n for n in data.noise if n is not None]
    out: dict[str, Interval | None] = {
        "read_noise_relative": None,
        "read_noise_absolute": None,
        "read_flicker": None,
    }
    white, g = np.array([n.white for n in known]), np.array([n.conductance for n in known])
    q2 = np.array([n.flicker**2 for n in known])
    draws = resamples(len(known), n_bootstrap, seed)
    if len(draws) == 0:
        return out
    pairs = []
    for w in draws:
        rows = np.repeat(np.arange(len(known)), w)
        pairs.append(_white(white[rows].tolist(), g[rows].tolist()))
    relative, absolute = _white(white.tolist(), g.tolist())
    out["read_noise_relative"] = positive_interval(relative, [p[0] for p in pairs], len(known))
    out["read_noise_absolute"] = positive_interval(absolute, [p[1] for p in pairs], len(known))
    out["read_flicker"] = positive_interval(
        float(np.sqrt(q2.mean())), np.sqrt(draws @ q2 / len(known)), len(known)
    )
    return out


def _read_noise(noise: dict[str, float | int | str | None], where: str) -> ReadNoise:
    relative, absolute = noise["read_noise_relative"], noise["read_noise_absolute"]
    if relative is None or absolute is None:
        return ReadNoise(source="not measured: the traces are too short, or read too unevenly")
    q, interval_ = float(noise["read_flicker"] or 0.0), float(noise["read_interval"] or 0.0)
    flicker = None
    if q > 0 and q**2 > _FLICKER_SHARE * float(relative) ** 2:
        flicker = Flicker(coefficient=q, t_read=interval_, source=where)
    return ReadNoise(
        relative=float(relative), absolute=float(absolute), flicker=flicker, source=where
    )


def _drift(
    law: Law,
    values: dict[str, float | None],
    scale: Literal["relative", "absolute"],
    t0: float,
    where: str,
) -> PowerDrift | WalkDrift:
    v = {key: 0.0 if value is None else value for key, value in values.items()}
    if law == "power":
        floor = None if v["nu_slope"] == 0 else 0.0
        return PowerDrift(
            t0=t0,
            nu=LogLaw(slope=v["nu_slope"], offset=v["nu_offset"], low=floor, source=where),
            spread=LogLaw(offset=v["nu_std"], source=where),
            source=where,
        )
    return WalkDrift(
        t0=t0,
        scale=scale,
        shift=v["shift"],
        rate=v["rate"],
        power=v["power"] or 0.5,
        source=where,
    )
