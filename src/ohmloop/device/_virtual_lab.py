"""A virtual lab: recipe in, SIMULATED sweeps out, with devices that fail.

What is fitted: noise (sigma), monotonicity, largest conductance and conductance range as functions of the
recipe, by kernel regression on the 43 measured halide-perovskite nanowire devices; the scatter around it is
their leave-one-out error. What is assumed: where devices fail. All 43 published devices worked, so failures
follow rules of thumb stated in `RULES`, not measurements; every published recipe works more often than not. A
curve's shape between its fitted figures is assumed too. Nothing made here is a measurement, and every file
says so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohmloop.device._library import list_devices
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]
Setting = float | str

NOTICE = "SIMULATED by the ohmloop virtual lab; this is no measurement"
RULES = (
    "fabricated: conversion needs the material's temperature (MAPbI3, FAPbI3 180, MAPbBr3 210, CsPbI3 370 "
    "degC, as published) within some 40 degC; pores longer than about 400 diameters do not fill",
    "conducts: electrodeposition above about 45 min per um overfills and shorts, below about 4 leaves a gap",
    "switches: sweeps below about 1 V seldom switch; a compliance above about 0.2 A burns the filament",
)
TEMPERATURE = {"MAPbI3": 180.0, "FAPbI3": 180.0, "MAPbBr3": 210.0, "CsPbI3": 370.0}
SHORT_OHM = 20.0  # assumed: leads and contacts
LEAKAGE = 1e-8  # siemens, assumed: a device that does not switch still conducts
_FIGURES = ("log_sigma", "monotonicity", "log_g_max", "log_range")


@dataclass(frozen=True)
class VirtualDevice:
    """One simulated device.

    Attributes:
        failed_at: "fabricated", "conducts", "switches", or None for a working device. A device that
            could not be fabricated has no sweep.
        sigma: Noise that it was drawn with, dimensionless.
        voltage: ``n`` volts of one sweep, 0 -> +V -> 0 -> -V -> 0; empty without a sweep.
        current: ``n x c`` amperes, magnitudes, one column a cycle, as the published workbooks hold them.
    """

    failed_at: str | None
    sigma: float
    voltage: Array
    current: Array


class VirtualLab:
    """Makes simulated nanowire devices; the same seed, recipe and number give the same device.

    >>> device = VirtualLab(seed=1).make({"material": "MAPbI3", "cvd_temperature_c": 180.0})
    >>> device.failed_at is None or device.failed_at in ("fabricated", "conducts", "switches")
    True

    Args:
        seed: Of the whole lab.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._law = _fitted_law()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that the lab knows: those of the published recipes."""
        return self._law.names

    def make(self, recipe: Mapping[str, Setting | None], number: int = 0) -> VirtualDevice:
        """Fabricate and measure one device.

        Args:
            recipe: Variable -> value, with names from `variables` (those of the campaign template
                "perovskite-nanowires"); what is missing takes the most frequent published value.
            number: Which device of this recipe.

        Raises:
            DeviceError: If the recipe names another variable or none, or a value is of the wrong kind.
        """
        full = self._law.complete(recipe)
        text = json.dumps([self.seed, sorted(full.items(), key=str), number], default=str)
        rng = np.random.default_rng(
            np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype=np.uint32)
        )
        failed_at = next(
            (stage for stage, p in stage_probabilities(full).items() if rng.random() > p), None
        )
        figures = self._law.draw(full, rng)
        sigma = float(np.exp(figures["log_sigma"]))
        if failed_at == "fabricated":
            return VirtualDevice(failed_at, sigma, np.empty(0), np.empty((0, 0)))
        v_max = float(np.clip(_number(full, "sweep_max_v"), 0.5, 20.0))
        limit = max(_number(full, "compliance_a"), 1e-9)
        # The published conductances were read below the compliance, and so are these.
        figures["log_g_max"] = min(figures["log_g_max"], math.log(limit / v_max))
        voltage, current = _sweep(figures, sigma, v_max, failed_at, rng)
        return VirtualDevice(failed_at, sigma, voltage, np.minimum(current, limit))

    def expected(self, recipe: Mapping[str, Setting | None]) -> dict[str, float]:
        """Return the noise-free figures of a recipe and its chance to work, for tests and plots."""
        full = self._law.complete(recipe)
        mean = self._law.mean(full)
        sigma, monotonicity = math.exp(mean["log_sigma"]), mean["monotonicity"]
        return {
            "sigma": sigma,
            "monotonicity": monotonicity,
            "usability": monotonicity * math.exp(-sigma),
            "works": math.prod(stage_probabilities(full).values()),
        }


def stage_probabilities(recipe: Mapping[str, Setting]) -> dict[str, float]:
    """Return the assumed chance of passing each stage, by the rules of thumb in `RULES`."""
    material = str(recipe["material"])
    length = max(_number(recipe, "aao_length_um"), 0.05)
    aspect = 1000 * length / max(_number(recipe, "aao_diameter_nm"), 1.0)
    off = abs(_number(recipe, "cvd_temperature_c") - TEMPERATURE.get(material, 180.0))
    deposition = _number(recipe, "pb_electrodeposition_min") / length
    return {
        "fabricated": 0.97
        * _falls(off, 45.0, 10.0)
        * _falls(math.log(aspect), math.log(400.0), 0.3),
        "conducts": 0.97
        * _falls(math.log(deposition), math.log(45.0), 0.15)
        * _falls(-math.log(deposition), -math.log(4.0), 0.15),
        "switches": 0.93
        * _falls(-_number(recipe, "sweep_max_v"), -0.9, 0.1)
        * _falls(math.log10(max(_number(recipe, "compliance_a"), 1e-12)), -0.7, 0.2),
    }


def write_workbook(device: VirtualDevice, path: Path, *, about: str = "") -> Path:
    """Write a simulated device's sweeps as a workbook of the published layout, marked as simulated.

    Raises:
        DeviceError: If the device has no sweep or the file cannot be written.
    """
    from openpyxl import Workbook

    if not len(device.voltage):
        raise DeviceError("a device that was not fabricated has no sweep to write.")
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Sheet1"
    sheet.append(["voltage", *(f"current_cycle{k + 1}" for k in range(device.current.shape[1]))])
    for v, row in zip(device.voltage, device.current, strict=True):
        sheet.append([float(v), *(float(f"{i:.6g}") for i in row)])
    note = book.create_sheet("SIMULATED")
    note.append([NOTICE])
    note.append([about])
    try:
        book.save(path)
    except OSError as error:
        raise DeviceError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


# -- the fitted law -----------------------------------------------------------------------------


class _Law:
    """Kernel regression of figures on recipes; bandwidth by leave-one-out error."""

    def __init__(self) -> None:
        devices = list_devices()
        self.recipes = [dict(d.recipe) for d in devices]
        self.names = tuple(self.recipes[0])
        self.common = {
            name: max((r[name] for r in self.recipes), key=[r[name] for r in self.recipes].count)
            for name in self.names
        }
        self.scale = {}
        for name in self.names:
            cells = [r[name] for r in self.recipes]
            numbers = [float(x) for x in cells if x is not None and not isinstance(x, str)]
            if len(numbers) == sum(r[name] is not None for r in self.recipes) and numbers:
                self.scale[name] = (min(numbers), max(np.ptp(numbers), 1e-12))
        self.X = np.array([self._features(r) for r in self.recipes])
        self.Y = np.array(
            [
                [
                    math.log(d.sigma.value),
                    float(d.figures["monotonicity"]),  # type: ignore[arg-type]  # a number in every preset
                    math.log(d.g_max or 1e-6),
                    math.log((d.g_max or 1e-6) / max(d.g_min or 1e-9, 1e-12)),
                ]
                for d in devices
            ]
        )
        errors = {h: self._loo(h) for h in np.geomspace(0.1, 2.0, 12)}
        self.bandwidth = min(
            errors, key=lambda h: float((errors[h] / self.Y.std(0)).__pow__(2).mean())
        )
        self.scatter = errors[self.bandwidth].std(0)

    def _features(self, recipe: Mapping[str, object]) -> list[float]:
        out: list[float] = []
        for name in self.names:
            if name in self.scale:
                low, width = self.scale[name]
                value = recipe.get(name)
                number = low if value is None else float(value)  # type: ignore[arg-type]  # numeric column
                out.append(float(np.clip((number - low) / width, -1.0, 2.0)))
            else:
                options = sorted({str(r[name]) for r in self.recipes})
                out += [0.7 * float(str(recipe.get(name)) == option) for option in options]
        return out

    def _weights(self, x: Array, h: float) -> Array:
        squared = ((self.X - x) ** 2).sum(1)
        return np.asarray(np.exp(-(squared - squared.min()) / (2 * h * h)))

    def _loo(self, h: float) -> Array:
        out = np.empty_like(self.Y)
        for k in range(len(self.Y)):
            rest = np.delete(np.arange(len(self.Y)), k)
            squared = ((self.X[rest] - self.X[k]) ** 2).sum(1)
            w = np.exp(-(squared - squared.min()) / (2 * h * h))
            out[k] = self.Y[k] - w @ self.Y[rest] / w.sum()
        return out

    def complete(self, recipe: Mapping[str, Setting | None]) -> dict[str, Setting]:
        strange = [name for name in recipe if name not in self.names]
        if strange or not recipe:
            close = get_close_matches(strange[0], self.names, n=1) if strange else []
            told = f'"{strange[0]}" is none of its variables' if strange else "the recipe is empty"
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise DeviceError(
                f"virtual lab: {told}; it makes halide-perovskite nanowires from {', '.join(self.names)}.{hint}"
            )
        out: dict[str, Setting] = {}
        for name in self.names:
            value = recipe.get(name, self.common[name])
            value = self.common[name] if value is None else value
            if value is None:
                continue
            if name == "pmma":
                value = {"no": 0.0, "yes": 1.0}.get(str(value), value)
            if name in self.scale:
                try:
                    value = float(value)
                except ValueError as error:
                    raise DeviceError(
                        f'virtual lab: {name} needs a number; received "{value}".'
                    ) from error
            out[name] = value
        return out

    def mean(self, recipe: Mapping[str, Setting]) -> dict[str, float]:
        w = self._weights(np.array(self._features(recipe)), float(self.bandwidth))
        return dict(zip(_FIGURES, (w @ self.Y / w.sum()).tolist(), strict=True))

    def draw(self, recipe: Mapping[str, Setting], rng: np.random.Generator) -> dict[str, float]:
        mean = self.mean(recipe)
        noise = rng.normal(0.0, self.scatter)
        out = {name: mean[name] + float(e) for name, e in zip(_FIGURES, noise, strict=True)}
        out["log_sigma"] = float(np.clip(out["log_sigma"], math.log(0.05), math.log(2.5)))
        out["monotonicity"] = float(np.clip(out["monotonicity"], 0.03, 0.45))
        out["log_range"] = float(np.clip(out["log_range"], 1.5, 8.0))
        return out


@cache
def _fitted_law() -> _Law:
    return _Law()


def _number(recipe: Mapping[str, Setting], name: str) -> float:
    return float(recipe[name])


def _falls(x: float, half: float, width: float) -> float:
    """A logistic step from 1 down to 0 around ``half``."""
    return 1.0 / (1.0 + math.exp(min((x - half) / width, 500.0)))


def _sweep(
    figures: Mapping[str, float],
    sigma: float,
    v_max: float,
    failed_at: str | None,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Voltage and current of some cycles with the drawn figures."""
    n_up, n_cycles = 60, int(rng.integers(8, 16))
    up = np.linspace(0.0, v_max, n_up + 1)[1:]
    voltage = np.concatenate([[0.0], up, up[::-1][1:], [0.0], -up, -up[::-1][1:], [0.0]])
    g_max = math.exp(figures["log_g_max"])
    span = figures["log_range"]
    if (
        failed_at == "conducts"
    ):  # open: the noise floor of a source meter; shorted: the lead resistance
        if rng.random() < 0.5:
            return voltage, np.abs(rng.normal(0, 2e-12, (len(voltage), n_cycles)))
        line = np.abs(voltage)[:, None] / SHORT_OHM
        return voltage, line * (1 + rng.normal(0, 1e-3, (len(voltage), n_cycles)))
    rise = _rising(n_up, round(100 * figures["monotonicity"]), rng)
    low = np.exp(np.log(g_max) - span * (1.0 - rise))
    if failed_at == "switches":  # a resistor: back on the way it came
        branches = [np.full(n_up, max(low[0], LEAKAGE))] * 4
    else:
        reset = 1.0 / (1.0 + np.exp((np.arange(n_up) - rng.uniform(0.4, 0.7) * n_up) / 2.0))
        high = np.full(n_up, low[-1])
        down = low[0] * (low[-1] / low[0]) ** reset  # back to the high-resistance state
        branches = [low, high, down, np.full(n_up, down[-1])]
    g = np.concatenate(
        [
            [branches[0][0]],
            branches[0],
            branches[1][1:],
            [branches[1][-1]],
            branches[2],
            branches[3][1:],
            [branches[3][-1]],
        ]
    )
    # Cycles differ by a common factor and a slow drift along the sweep.
    factor = rng.normal(size=n_cycles)
    phase = rng.uniform(0, 2 * math.pi, n_cycles)
    drift = np.sin(np.linspace(0, math.pi, len(g))[:, None] + phase) * math.sqrt(2)
    deviation = math.sqrt(0.9) * factor + math.sqrt(0.1) * drift
    # Published sigma leaves out 5 % at either end: scale what it looks at, the rising ramp, to sigma.
    ramp = np.sort(deviation[1 : n_up + 1].ravel())
    deviation /= max(ramp[int(0.05 * len(ramp)) : int(0.95 * len(ramp)) + 1].std(), 1e-9)
    current = np.abs(voltage)[:, None] * g[:, None] * np.exp(sigma * deviation)
    current += np.abs(rng.normal(0, 1e-13, current.shape))
    return voltage, current


def _rising(n: int, length: int, rng: np.random.Generator) -> Array:
    """``n`` values from 0 to 1 whose longest rising stretch has about ``length`` steps.

    The rise begins above a fifth of the sweep, where states are read: below it the device is still off.
    """
    length = int(np.clip(length, 3, n - 15))
    start = int(rng.integers(n // 5, n - length - 2))
    out = np.empty(n)
    # Before and after the window the mean goes up and down, so that no longer stretch rises.
    out[: start + 1] = 0.12 + 0.06 * (np.arange(start + 1) % 2)
    out[start] = 0.1
    out[start : start + length + 1] = np.linspace(0.1, 0.9, length + 1)
    after = n - start - length - 1
    out[start + length + 1 :] = 0.86 + 0.06 * (np.arange(after) % 2)
    return out
