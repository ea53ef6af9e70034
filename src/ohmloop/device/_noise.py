"""The random errors of one cell: writing, reading, differences between cells, faults.

Sources:
    Joshi et al., "Accurate deep neural network inference using computational phase-change memory", Nature
    Communications 11, 2473 (2020), and Nandakumar et al., ICECS 2019: the forms of the write noise
    (polynomial in the conductance) and of the 1/f noise of phase-change memory.
    Ye, Sun, Wang et al., arXiv 2412.02779 (2024): log-normal write noise.
    Johnson, Phys. Rev. 32, 97 (1928) and Nyquist, Phys. Rev. 32, 110 (1928): thermal noise 4 k T G B.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ohmloop.device._part import Part, Seconds, Share, Siemens, polynomial
from ohmloop.errors import DeviceError
from ohmloop.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

BOLTZMANN = 1.380649e-23  # J / K, exact: SI brochure, 9th edition (2019), table 1


class WriteNoise(Part):
    """What programming adds to a target, fresh at each programming (cycle to cycle).

    Attributes:
        kind: "lognormal": G = target * exp(sigma n), median 1 (arXiv 2412.02779). "relative":
            G = target * (1 + sigma n). "polynomial": G = target + max(c0 + c1 g + c2 g^2 + ..., 0) n with
            g = target / g_max (Joshi et al. 2020). n is standard normal. No conductance falls below 0.
        sigma: Of the first two kinds.
        coefficients: c0, c1, ... of the third, in siemens.

    >>> WriteNoise(kind="lognormal", sigma=0.4).sigma
    0.4
    """

    kind: Literal["lognormal", "relative", "polynomial"] = "lognormal"
    sigma: Annotated[float, Unit(""), Field(ge=0, lt=20)] = 0.0
    coefficients: Annotated[tuple[float, ...], Unit("S")] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> WriteNoise:
        if (self.kind == "polynomial") != bool(self.coefficients) or (
            self.kind == "polynomial" and self.sigma
        ):
            raise DeviceError(
                'kind "polynomial" takes coefficients in siemens and no sigma; "lognormal" and "relative" '
                "take sigma and no coefficients."
            )
        return self

    @property
    def is_zero(self) -> bool:
        """Whether targets are met exactly."""
        return self.sigma == 0 and not any(self.coefficients)

    def std(self, target: Tensor, g_max: float) -> Tensor:
        """Return the standard deviation in siemens around each target (before the cut at 0), same shape.

        For "lognormal" that is target * sqrt(exp(sigma^2) (exp(sigma^2) - 1)).
        """
        if self.kind == "lognormal":
            s2 = self.sigma**2
            return target * math.sqrt(math.exp(s2) * math.expm1(s2))
        if self.kind == "relative":
            return target * self.sigma
        return polynomial(self.coefficients, target / g_max).clamp_min(0.0)

    def apply(self, target: Tensor, normal: Tensor, g_max: float) -> Tensor:
        """Return what cells hold after programming to ``target``, in siemens; differentiable in it."""
        if self.is_zero:
            return target + normal * 0.0
        if self.kind == "lognormal":
            return target * (self.sigma * normal).exp()
        return (target + self.std(target, g_max) * normal).clamp_min(0.0)


class Flicker(Part):
    """1/f noise: std = G Q sqrt(ln((t + t_read) / (2 t_read))).

    Q = min(coefficient / (G / g_max)^exponent, maximum); Nandakumar et al. 2019, Joshi et al. 2020. t is the
    time since programming: the noise of all frequencies from 1 / t up to the reading's has moved the cell
    by then. Readings are drawn independently, as in those sources; the slow part of a real cell's noise
    persists from one reading to the next.

    Attributes:
        coefficient: Q at g_max.
        exponent: How fast Q falls with the relative conductance.
        maximum: Largest Q.
        t_read: Duration of a reading.
    """

    coefficient: Share
    exponent: Share = 0.0
    maximum: Share = 1.0
    t_read: Seconds

    def std(self, conductance: Tensor, seconds: float, g_max: float) -> Tensor:
        """Return the standard deviation in siemens, same shape as ``conductance``."""
        log = math.log((seconds + self.t_read) / (2 * self.t_read))
        share = (conductance / g_max).clamp_min(1e-6)
        q = (self.coefficient * share**-self.exponent).clamp_max(self.maximum)
        return conductance * q * math.sqrt(max(0.0, log))


class ReadNoise(Part):
    """What a reading adds to the conductance, fresh at each reading; the parts are independent.

    Attributes:
        relative: Standard deviation as a share of the conductance.
        absolute: Standard deviation in siemens, whatever the conductance.
        bandwidth: Of the thermal noise current, variance 4 k T G * bandwidth, in hertz; None for no
            thermal noise. A reading that integrates for t seconds has 1 / (2 t).
        flicker: 1/f noise that grows with the time since programming.

    >>> ReadNoise(relative=0.01).is_zero
    False
    """

    relative: Share = 0.0
    absolute: Siemens = 0.0
    bandwidth: Annotated[float, Unit("Hz"), Field(gt=0)] | None = None
    flicker: Flicker | None = None

    @property
    def is_zero(self) -> bool:
        """Whether readings are exact."""
        return not (self.relative or self.absolute or self.bandwidth or self.flicker)

    def conductance_std(self, conductance: Tensor, seconds: float, g_max: float) -> Tensor:
        """Return the noise of the conductance itself (all but the thermal part), in siemens.

        Args:
            conductance: In siemens, any shape.
            seconds: Time since programming.
            g_max: Largest conductance of the window, in siemens.
        """
        variance = (self.relative * conductance / g_max) ** 2 + (self.absolute / g_max) ** 2
        if self.flicker is not None:
            variance = variance + (self.flicker.std(conductance, seconds, g_max) / g_max) ** 2
        return g_max * safe_sqrt(variance)

    def current_std(self, conductance: Tensor, temperature: float) -> Tensor:
        """Return the thermal noise of the current in amperes, whatever the voltage; same shape."""
        if self.bandwidth is None:
            return conductance * 0.0
        return safe_sqrt(4 * BOLTZMANN * temperature * self.bandwidth * 1e24 * conductance) * 1e-12


class Variation(Part):
    """Differences between cells, fixed for the life of a cell (device to device).

    Attributes:
        window: Standard deviation of the logarithm of a factor on all conductances of a cell (median 1).
        steps: Standard deviation of the logarithm of a factor on a cell's pulse steps (median 1).
    """

    window: Share = 0.0
    steps: Share = 0.0


class Faults(Part):
    """Cells that no pulse moves.

    Attributes:
        p_low: Probability that a cell is stuck at g_min.
        p_high: Probability that it is stuck at g_max.

    >>> Faults(p_low=0.01, p_high=0.002).p_low
    0.01
    """

    p_low: Annotated[float, Unit(""), Field(ge=0, le=1)] = 0.0
    p_high: Annotated[float, Unit(""), Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _a_share(self) -> Faults:
        if self.p_low + self.p_high > 1:
            raise DeviceError(
                f"p_low + p_high = {self.p_low + self.p_high:g}: a cell is stuck at one end at most, "
                "so their sum lies in [0, 1]."
            )
        return self

    def draw(self, uniform: Tensor) -> Tensor:
        """Return int8 of the same shape: 0 a working cell, 1 stuck at g_min, 2 stuck at g_max.

        Args:
            uniform: Independent numbers, uniform in [0, 1), one a cell.
        """
        import torch

        low, high = uniform < self.p_low, uniform >= 1.0 - self.p_high
        return low.to(torch.int8) + 2 * (high & ~low).to(torch.int8)


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, with gradient 0 instead of infinity where ``x`` is 0."""
    import torch

    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), x * 0.0)
