"""Figures of merit of one sweep: the published ones, and beside them what a lab expects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ohmloop.data._published import published_figures, published_ramp
from ohmloop.data._sweep import FloatArray, Sweep
from ohmloop.data._switching import SWITCH_RATIO, CycleStates, cycle_states, default_read_voltage
from ohmloop.errors import AnalysisError

Interval = tuple[float, float] | None
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEVEL = 0.95


@dataclass(frozen=True)
class FiguresOfMerit:
    """Figures of merit of one file; None where the sweep does not give one. SI units.

    Intervals are 95 % percentile bootstrap intervals over cycles (Efron, Ann. Statist. 7, 1, 1979);
    None with fewer than three cycles. The switching figures are defined in
    ``ohmloop.data._switching``; the published ones in arXiv 2412.02779.

    Attributes:
        file: Base name of the file.
        format: Which reader understood it.
        cycles: Cycles with at least one current.
        sigma: Published sigma: spread of ln(G / mean G) over cycles on the rising ramp.
        sigma_interval: Its interval.
        monotonicity: Published monotonicity: steps of the longest nearly monotone window / 100.
        monotonicity_interval: Its interval.
        usability: monotonicity * exp(-sigma).
        usability_interval: Its interval.
        window: First and last row of the monotone window on the rising ramp.
        ramp_rows: Rows of the rising ramp.
        clipped_points: Currents of the ramp at the compliance limit, left out.
        g_min: Smallest positive mean conductance of the monotone window, siemens.
        g_max: Largest one, siemens.
        switched: Whether at least half of the cycles switch (on/off ratio of 2 or more); None
            where no cycle has both branches at the read voltage.
        switched_cycles: How many do.
        direction: "counter-clockwise" (the positive half switches on) or "clockwise".
        read_voltage: Where the states are read, volts.
        on_off_ratio: Median over cycles of LRS over HRS conductance, at least 1.
        on_off_ratio_interval: Its interval.
        set_voltage: Median SET voltage of the switched cycles, volts.
        set_voltage_interval: Its interval.
        set_voltage_std: Its standard deviation over cycles, volts.
        reset_voltage: Median RESET voltage of the switched cycles, volts.
        reset_voltage_interval: Its interval.
        reset_voltage_std: Its standard deviation over cycles, volts.
        hrs_ohm: 5, 25, 50, 75, 95 % quantiles over cycles of the HRS resistance, ohm.
        lrs_ohm: The same for the LRS.
        hrs_variation: Cycle-to-cycle coefficient of variation of the HRS resistance.
        lrs_variation: The same for the LRS.
        v_max: Largest voltage, volts.
        v_min: Smallest voltage, volts.
        sha256: Hash of the file.
        notes: What was guessed, ignored, or could not be computed.
    """

    file: str
    format: str
    cycles: int
    sigma: float | None
    sigma_interval: Interval
    monotonicity: float | None
    monotonicity_interval: Interval
    usability: float | None
    usability_interval: Interval
    window: tuple[int, int] | None
    ramp_rows: int
    clipped_points: int
    g_min: float | None
    g_max: float | None
    switched: bool | None
    switched_cycles: int
    direction: str | None
    read_voltage: float
    on_off_ratio: float | None
    on_off_ratio_interval: Interval
    set_voltage: float | None
    set_voltage_interval: Interval
    set_voltage_std: float | None
    reset_voltage: float | None
    reset_voltage_interval: Interval
    reset_voltage_std: float | None
    hrs_ohm: tuple[float, ...] | None
    lrs_ohm: tuple[float, ...] | None
    hrs_variation: float | None
    lrs_variation: float | None
    v_max: float
    v_min: float
    sha256: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures under their stable names, ready for JSON: no NaN, no tuples."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the stable names, in order."""
        return tuple(field.name for field in fields(cls))


def figures_of_merit(
    sweep: Sweep, *, read_voltage: float | None = None, n_bootstrap: int = 200, seed: int = 0
) -> FiguresOfMerit:
    """Compute every figure of merit of a sweep.

    Args:
        sweep: What a reader gave.
        read_voltage: Where the states are read, volts, positive; by default a fifth of the
            largest voltage.
        n_bootstrap: Resamples of the cycles behind each interval; 0 for no intervals.
        seed: Of the resampling.

    Raises:
        AnalysisError: If the read voltage is not positive.
    """
    if read_voltage is not None and not read_voltage > 0:
        raise AnalysisError(f"the read voltage must be positive; received {read_voltage:g} V.")
    rng = np.random.default_rng(seed)
    with_data = np.flatnonzero(np.isfinite(sweep.current).any(axis=0))
    notes = [note.text for note in sweep.notes]
    read_at = default_read_voltage(sweep) if read_voltage is None else read_voltage
    states = cycle_states(sweep, read_at) if read_at > 0 else None
    return FiguresOfMerit(
        file=sweep.file,
        format=sweep.format,
        cycles=len(with_data),
        v_max=float(np.nanmax(sweep.voltage)),
        v_min=float(np.nanmin(sweep.voltage)),
        sha256=sweep.sha256,
        read_voltage=read_at,
        **_published(sweep, with_data, n_bootstrap, rng, notes),
        **_switching(states, n_bootstrap, rng, notes, read_at),
        notes=tuple(notes),
    )


def _published(
    sweep: Sweep,
    with_data: np.ndarray,
    n_bootstrap: int,
    rng: np.random.Generator,
    notes: list[str],
) -> dict[str, Any]:
    ramp = published_ramp(sweep)
    conductance = ramp.conductance[:, with_data]
    found = published_figures(conductance)
    out: dict[str, Any] = {
        "ramp_rows": len(conductance),
        "clipped_points": ramp.n_clipped,
        **dict.fromkeys(
            (
                *("sigma", "monotonicity", "usability", "window", "g_min", "g_max"),
                *("sigma_interval", "monotonicity_interval", "usability_interval"),
            )
        ),
    }
    if ramp.n_clipped:
        notes.append(f"{ramp.n_clipped} points of the ramp at the compliance limit left out.")
    if found is None:
        notes.append("sigma, monotonicity, usability: no rising ramp with positive conductance.")
        return out
    rows = conductance[found.window[0] : found.window[1] + 1]
    present = np.isfinite(rows)
    mean = np.where(present, rows, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    mean = mean[mean > 0]
    out.update(
        sigma=found.sigma,
        monotonicity=found.monotonicity,
        usability=found.usability,
        window=found.window,
        g_min=float(mean.min()) if len(mean) else None,
        g_max=float(mean.max()) if len(mean) else None,
    )
    n = conductance.shape[1]
    if n < 2:
        notes.append("one cycle only: sigma is 0 by its definition and says nothing of the spread.")
    if n < 3 or n_bootstrap == 0:
        return out
    resamples = [
        published_figures(conductance[:, rng.integers(0, n, n)]) for _ in range(n_bootstrap)
    ]
    kept = np.array([r[:3] for r in resamples if r is not None])
    for k, key in enumerate(("sigma", "monotonicity", "usability")):
        out[f"{key}_interval"] = _interval(kept[:, k]) if len(kept) else None
    return out


def _switching(
    states: CycleStates | None,
    n_bootstrap: int,
    rng: np.random.Generator,
    notes: list[str],
    read_at: float,
) -> dict[str, Any]:
    out: dict[str, Any] = dict.fromkeys(
        f"{key}{end}"
        for key in ("set_voltage", "reset_voltage", "on_off_ratio")
        for end in ("", "_interval", "_std")
        if (key, end) != ("on_off_ratio", "_std")
    )
    out |= dict.fromkeys(
        ("switched", "direction", "hrs_ohm", "lrs_ohm", "hrs_variation", "lrs_variation")
    )
    out["switched_cycles"] = 0
    if states is None or not np.isfinite(states.on_off).any():
        notes.append(
            f"switching: no cycle has an outgoing and a returning branch with positive current at "
            f"{read_at:.3g} V; try another --read-voltage."
        )
        return out
    valid = np.isfinite(states.on_off)
    ratio = 1 / states.on_off[valid] if states.clockwise else states.on_off[valid]
    n_switched = int(states.switched.sum())
    out.update(
        switched=bool(2 * n_switched >= valid.sum()),
        switched_cycles=n_switched,
        direction="clockwise" if states.clockwise else "counter-clockwise",
        on_off_ratio=float(np.median(ratio)),
        on_off_ratio_interval=_median_interval(ratio, n_bootstrap, rng),
        hrs_ohm=_quantiles(states.hrs),
        lrs_ohm=_quantiles(states.lrs),
        hrs_variation=_variation(states.hrs),
        lrs_variation=_variation(states.lrs),
    )
    if n_switched == 0:
        notes.append(f"no cycle reaches an on/off ratio of {SWITCH_RATIO:g}: no SET, no RESET.")
    for key, values in (
        ("set_voltage", states.set_voltage),
        ("reset_voltage", states.reset_voltage),
    ):
        values = values[np.isfinite(values)]
        if len(values) == 0:
            if n_switched:
                notes.append(f"{key}: not seen in any switched cycle (no such branch, or gradual).")
            continue
        out[key] = float(np.median(values))
        out[f"{key}_interval"] = _median_interval(values, n_bootstrap, rng)
        out[f"{key}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
    return out


def _interval(samples: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _median_interval(values: FloatArray, n_bootstrap: int, rng: np.random.Generator) -> Interval:
    if len(values) < 3 or n_bootstrap == 0:
        return None
    picks = rng.integers(0, len(values), (n_bootstrap, len(values)))
    return _interval(np.median(values[picks], axis=1))


def _quantiles(values: FloatArray) -> tuple[float, ...] | None:
    values = values[np.isfinite(values)]
    return tuple(float(q) for q in np.quantile(values, QUANTILES)) if len(values) else None


def _variation(values: FloatArray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1) / values.mean()) if len(values) > 1 else None
