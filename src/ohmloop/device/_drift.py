"""Retention: how a programmed conductance moves with time.

Sources:
    Nandakumar et al., ICECS 2019, "Phase-change memory models for deep learning training and inference",
    and Joshi et al., Nature Communications 11, 2473 (2020): power-law drift with a spread of exponents.
    Ielmini & Waser (eds.), "Resistive Switching" (Wiley 2016): resistance fluctuations that broaden with the
    logarithm of time; the constants of each preset name their own measurement.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ohmloop.device._part import Constant, Part, Seconds, Share, polynomial
from ohmloop.errors import DeviceError
from ohmloop.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

# Below this share of g_max, ln g says nothing about a cell: its conductance is leakage. Every law in use is
# clamped long before.
SMALLEST_SHARE = 1e-7


class LogLaw(Part):
    """A number that depends on the relative conductance: clamp(slope * ln(G / g_max) + offset, low, high).

    >>> LogLaw.constant(0.05).bounds
    (0.05, 0.05)
    """

    slope: float = 0.0
    offset: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LogLaw:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise DeviceError(f"low = {self.low:g} lies above high = {self.high:g}.")
        return self

    @classmethod
    def constant(cls, value: float) -> LogLaw:
        """Return the law that gives ``value`` everywhere."""
        return cls(offset=value)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value over conductances from `SMALLEST_SHARE` to 1."""
        ends = (self.offset, self.slope * math.log(SMALLEST_SHARE) + self.offset)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return (min(max(min(ends), low), high), min(max(max(ends), low), high))

    def __call__(self, share: Tensor) -> Tensor:
        """Return the value at each relative conductance ``share`` = G / g_max, any shape."""
        value = self.slope * share.clamp_min(SMALLEST_SHARE).log() + self.offset
        return value.clamp(self.low, self.high) if (self.low, self.high) != (None, None) else value


class Drift(Part):
    """What every kind of drift has.

    Attributes:
        kind: Which law.
        t0: When the programmed conductance was first read, in seconds after programming. Nothing is known
            of earlier times: until then a cell holds what was programmed.
    """

    kind: str
    t0: Seconds

    def log_time(self, seconds: float) -> float:
        """Return ln(seconds / t0), zero before t0.

        Raises:
            DeviceError: If ``seconds`` is negative or no number.
        """
        if not (seconds >= 0 and math.isfinite(seconds)):
            raise DeviceError(
                f"time after programming is a finite number of seconds >= 0; received {seconds!r}."
            )
        return max(0.0, math.log(max(seconds, self.t0) / self.t0))

    def apply(self, conductance: Tensor, seconds: float, normal: Tensor, g_max: float) -> Tensor:
        """Return the conductances ``seconds`` after programming.

        Args:
            conductance: Programmed conductances in siemens, any shape.
            seconds: Time after programming.
            normal: Independent standard normals, one a cell. The same numbers at two times are the same
                cells at two times.
            g_max: Largest conductance of the window, in siemens.
        """
        raise NotImplementedError  # each kind below has its own


class PowerDrift(Drift):
    """Structural relaxation: G(t) = G0 (t / t0)^-nu, nu ~ Normal(mean(g), std(g)) truncated at 0.

    Nandakumar et al. 2019 and Joshi et al. 2020 for phase-change memory, g = G0 / g_max.

    Attributes:
        kind: "power".
        nu: Mean exponent of drift as a function of the relative conductance.
        spread: Standard deviation of the exponent from cell to cell, likewise. What falls below 0 is 0.

    >>> PowerDrift(t0=20.0, nu=LogLaw.constant(0.05)).kind
    'power'
    """

    kind: Literal["power"] = "power"
    nu: LogLaw
    spread: LogLaw = LogLaw(offset=0.0)

    @model_validator(mode="after")
    def _positive(self) -> PowerDrift:
        for name, law in (("nu", self.nu), ("spread", self.spread)):
            if law.bounds[0] < 0:
                raise DeviceError(
                    f"{name} becomes {law.bounds[0]:g} within the window; it must stay at or above 0. "
                    "Give it a lower bound: low=0."
                )
        return self

    def apply(self, conductance: Tensor, seconds: float, normal: Tensor, g_max: float) -> Tensor:
        """Return ``conductance * (t / t0)^-nu``; see `Drift.apply`."""
        import torch

        log_time = self.log_time(seconds)
        if log_time == 0.0:
            return conductance + torch.zeros_like(normal)
        share = conductance / g_max
        nu = (self.nu(share) + self.spread(share) * normal).clamp_min(0.0)
        return conductance * torch.exp(-nu * log_time)


class WalkDrift(Drift):
    """A mean shift and a broadening in logarithmic time, as filamentary memories show it.

    With L = ln(t / t0) and scale 1 S ("absolute") or G0 ("relative"):
    G(t) = G0 + scale * (shift L + shape(g) (start + rate L^power) * normal), not below 0. ``power`` 0.5 is a
    random walk in logarithmic time.

    Attributes:
        kind: "walk".
        scale: "absolute": shift, start and rate are in siemens. "relative": they are shares of G0.
        shift: Change of the mean for each unit of L (for each factor e of time).
        start: Standard deviation at t0, from the fast relaxation right after programming. Before t0 a cell
            that was programmed (seconds > 0) has it already; at 0 seconds nothing has happened.
        rate: Standard deviation that grows with L.
        power: Exponent of that growth.
        shape: How the standard deviation depends on g = G0 / g_max: s0 + s1 g + s2 g^2 + ..., not below 0.

    >>> WalkDrift(t0=1.0, scale="relative", rate=0.01).power
    0.5
    """

    kind: Literal["walk"] = "walk"
    scale: Literal["absolute", "relative"]
    shift: float = 0.0
    start: Share = 0.0
    rate: Share = 0.0
    power: Annotated[float, Unit(""), Field(gt=0, le=2)] = 0.5
    shape: Annotated[tuple[float, ...], Unit(""), Field(min_length=1)] = (1.0,)

    def constants(self, prefix: str = "") -> list[Constant]:
        """Return the constants; shift, start and rate have a unit where the scale is absolute."""
        unit = "S" if self.scale == "absolute" else ""
        changes = tuple(
            f"{prefix}.{name}" if prefix else name for name in ("shift", "start", "rate")
        )
        return [
            c._replace(unit=unit) if c.name in changes else c for c in super().constants(prefix)
        ]

    def spread(self, seconds: float) -> float:
        """Return the standard deviation at ``seconds`` where the shape is 1, in siemens or as a share."""
        log_time = self.log_time(seconds)
        return 0.0 if seconds == 0 else self.start + self.rate * log_time**self.power

    def apply(self, conductance: Tensor, seconds: float, normal: Tensor, g_max: float) -> Tensor:
        """Return the shifted and broadened conductances; see `Drift.apply`."""
        import torch

        mean = self.shift * self.log_time(seconds)
        spread = self.spread(seconds)
        if mean == 0.0 and spread == 0.0:
            return conductance + torch.zeros_like(normal)
        change = mean + spread * polynomial(self.shape, conductance / g_max).clamp_min(0.0) * normal
        moved = conductance + (change if self.scale == "absolute" else conductance * change)
        return moved.clamp_min(0.0)
