"""Properties of a device that can be varied, and what hardware each point of a design stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.crossbar import ADC, Hardware
from ohmloop.device import Axis, DeviceModel, Estimate, Faults, WriteNoise, table_distortion
from ohmloop.device import Physics as Cell
from ohmloop.errors import TrainError

Array = NDArray[np.float64]
TABLE_POINTS = 35
"""Points of a level table (arXiv 2412.02779)."""
N_TABLES, N_SHAPES = 4000, 3

AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(name="sigma", low=0.02, high=2.5, log=True, neutral=0.02),
        Axis(name="distortion", low=0.0, high=0.95, neutral=0.0),
        Axis(name="levels", low=2, high=256, log=True, neutral=256),
        Axis(name="window", low=1.2, high=1000, log=True, neutral=1000),
        Axis(name="read_noise", low=0.0, high=0.3, neutral=0.0),
        Axis(name="faults", low=0.0, high=0.1, neutral=0.0),
        Axis(name="seconds", low=1.0, high=1e7, log=True, neutral=1.0, unit="s"),
        Axis(name="adc_bits", low=3, high=12, neutral=12),
    )
}
"""Every property that can be varied, with the range that is simulated unless told otherwise."""
OF_LAW = ("sigma", "distortion")
OF_ARRAYS = ("sigma", "levels", "window", "read_noise", "faults", "seconds", "adc_bits")


class Design(NamedTuple):
    """Simulated laws.

    Attributes:
        points: ``n x d`` coordinates in shares of the axes' ranges.
        hardwares: ``n`` lists: one hardware, or several of equal distortion by different level tables.
    """

    points: Array
    hardwares: list[list[Hardware]]


def axes_of(hardware: Hardware, names: Sequence[str] | None = None) -> tuple[Axis, ...]:
    """Return the axes to vary on a hardware: by default those of its kind that mean something there.

    Raises:
        TrainError: If a name is unknown, or the hardware has no such property.
    """
    kind = OF_LAW if hardware.array is None else OF_ARRAYS
    able = list(kind)
    if hardware.array is not None:
        if hardware.device.cell().drift is None:
            able.remove("seconds")
        if hardware.array.adc is None:
            able.remove("adc_bits")
    chosen = list(able if names is None else names)
    for name in chosen:
        if name not in able:
            raise TrainError(
                f'"{name}" cannot be varied on this hardware; properties: {", ".join(able)}. Levels, windows, '
                "read noise and faults need an array, seconds a device that drifts, adc_bits an ADC."
            )
    if not chosen:
        raise TrainError("name at least one property to vary.")
    return tuple(AXES[name] for name in chosen)


def hardware_at(
    base: Hardware, values: Mapping[str, float], table: Sequence[float] | None
) -> Hardware:
    """Return the hardware with some properties replaced.

    Args:
        base: All that is not named stays as here.
        values: Property -> value; "distortion" is brought by ``table``.
        table: A level table for the law on weights, or None for rho = 1; used if "distortion" is named.
    """
    device, array = base.device, base.array
    if array is None:
        changed: dict[str, Any] = {}
        if "sigma" in values:
            changed["sigma"] = Estimate(value=values["sigma"])
        if "distortion" in values:
            changed["rho"] = None if table is None else tuple(table)
        return base.model_copy(update={"device": device.model_copy(update=changed)})
    cell = _cell_at(device.cell(), values)
    update: dict[str, Any] = {"device": _with_cell(device, cell, values.get("sigma"))}
    if "seconds" in values:
        update["seconds"] = float(values["seconds"])
    if "adc_bits" in values:
        adc = array.adc or ADC()
        update["array"] = array.model_copy(
            update={"adc": adc.model_copy(update={"bits": round(values["adc_bits"])})}
        )
    return base.model_copy(update=update)


def _cell_at(cell: Cell, values: Mapping[str, float]) -> Cell:
    update: dict[str, Any] = {}
    if "sigma" in values:
        update["write"] = WriteNoise(kind="lognormal", sigma=values["sigma"])
    if "levels" in values:
        update |= {"levels": max(2, round(values["levels"])), "targets": ()}
    if "window" in values:
        update["g_min"] = cell.g_max / values["window"]
    if "read_noise" in values:
        update["read"] = cell.read.model_copy(update={"relative": values["read_noise"]})
    if "faults" in values:  # as many stuck low as high, unless the device says otherwise
        known = cell.faults.p_low + cell.faults.p_high
        low = cell.faults.p_low / known if known else 0.5
        update["faults"] = Faults(
            p_low=low * values["faults"], p_high=(1.0 - low) * values["faults"]
        )
    return cell.model_copy(update=update)


def _with_cell(device: DeviceModel, cell: Cell, sigma: float | None) -> DeviceModel:
    update: dict[str, Any] = {"physics": cell, "g_min": cell.g_min, "g_max": cell.g_max}
    if sigma is not None:
        update["sigma"] = Estimate(value=sigma)
    return device.model_copy(update=update)


def design(
    base: Hardware,
    axes: Sequence[Axis],
    usage: Array,
    *,
    n_points: int,
    seed: int,
) -> Design:
    """Return laws that fill the ranges, with their hardware.

    Three quarters are a scrambled Sobol sequence over all axes; a quarter walks along the first axis with all
    other properties neutral, where most devices are and where nothing else blurs its effect.

    Distortion is realised by three level tables of about that distortion, out of random ones as sweeps give
    them, so that what their shape does beside can be told apart.
    """
    from scipy.stats import qmc

    n_along = max(2, n_points // 4)
    n_filling = n_points - n_along
    # A power of two balances a Sobol sequence; what goes beyond is left out.
    power = max(1, int(np.ceil(np.log2(n_filling))))
    filling = qmc.Sobol(len(axes), rng=np.random.default_rng([seed, 1])).random_base2(power)
    along = np.tile([a.to_unit(a.neutral) for a in axes], (n_along, 1))
    along[:, 0] = np.linspace(0.0, 1.0, n_along)
    names = [axis.name for axis in axes]
    tables: list[tuple[float, ...] | None] = [None]
    bent = np.zeros(1)
    if "distortion" in names:
        tables += _tables(np.random.default_rng([seed, 2]))
        bent = np.array([table_distortion(table, usage) for table in tables])
    points, hardwares = [], []
    for row in np.vstack([along, filling[:n_filling]]):
        values = {a.name: a.from_unit(float(u)) for a, u in zip(axes, row, strict=True)}
        shapes: list[tuple[float, ...] | None] = [None]
        if values.get("distortion", 0.0) > 0.0:
            nearest = np.argsort(np.abs(bent - values["distortion"]), kind="stable")[:N_SHAPES]
            shapes, values["distortion"] = [tables[k] for k in nearest], float(bent[nearest].mean())
        for name in ("levels", "adc_bits"):
            if name in values:
                values[name] = float(round(values[name]))
        points.append([a.to_unit(values[a.name]) for a in axes])
        hardwares.append([hardware_at(base, values, table) for table in shapes])
    return Design(np.array(points), hardwares)


def _tables(rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Level tables as sweeps give them: off before the window of ones, near the top or falling after it."""
    out = []
    for _ in range(N_TABLES):
        steps = int(rng.integers(4, TABLE_POINTS))
        start = int(rng.integers(0, TABLE_POINTS + 1 - steps)) if rng.random() < 0.6 else 0
        after = TABLE_POINTS - start - steps
        off = rng.random() ** 2
        top, end = 0.2 + 0.8 * rng.random(2) ** 0.5
        before = off * np.linspace(rng.random(), 1.0, start)
        behind = top * np.linspace(1.0, end, after)
        out.append(tuple(np.concatenate([before, np.ones(steps), behind]).tolist()))
    return out
