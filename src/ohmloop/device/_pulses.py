"""How one pulse moves a cell: potentiation and depression, nonlinear, asymmetric, stochastic.

Sources:
    Chen, Peng, Yu, "NeuroSim+", IEDM 2017, and "NeuroSim: A circuit-level macro model", IEEE TCAD 37, 3067
    (2018): the exponential curve G(p) = B (1 - exp(-p / A)) + g_min and its mirror for depression.
    Agarwal et al., IJCNN 2016 (CrossSim): measured tables of the change of conductance against conductance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from ohmloop.device._part import Part, Share
from ohmloop.errors import DeviceError
from ohmloop.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

# Beyond 100 the first pulse already reaches the end of the window to double precision.
Curvature = Annotated[float, Unit(""), Field(ge=-100, le=100)]
Pulses = Annotated[float, Unit(""), Field(ge=1)]


class Step(NamedTuple):
    """Mean and standard deviation of what one pulse does to each cell, in siemens."""

    mean: Tensor
    std: Tensor


class PulseResponse(Part):
    """What every kind of pulse response has.

    Attributes:
        kind: Which law.
    """

    kind: str

    def step(self, conductance: Tensor, up: Tensor, g_min: float, g_max: float) -> Step:
        """Return the change that one pulse makes.

        Args:
            conductance: Before the pulse, in siemens, any shape.
            up: Booleans of that shape: True where the pulse potentiates, False where it depresses.
            g_min: Lower end of the window, in siemens.
            g_max: Upper end.

        Returns:
            Mean and standard deviation of the change in siemens, same shape. The mean may lead out of
            the window: whoever applies it keeps the cell inside.
        """
        raise NotImplementedError  # each kind below has its own


class SoftPulses(PulseResponse):
    """The exponential curve of NeuroSim, in the share x = (G - g_min) / (g_max - g_min) of the window.

    Potentiation from g_min with p of P identical pulses gives x(p) = (1 - exp(-a p / P)) / (1 - exp(-a)), so
    one pulse moves x by (1 / (1 - exp(-a)) - x) (1 - exp(-a / P)); depression is the same law for 1 - x.
    a = P / A in NeuroSim's letters; a = 0 is linear; a < 0 starts slow and ends fast.

    Attributes:
        kind: "soft".
        pulses_up: Potentiation pulses P from g_min to g_max.
        pulses_down: Depression pulses from g_max to g_min.
        curvature_up: a of potentiation.
        curvature_down: a of depression.
        noise: Standard deviation of each step as a share of the window.
        step_noise: Further standard deviation of each step, as a share of the step.

    >>> SoftPulses(pulses_up=64, pulses_down=64, curvature_up=2.0, curvature_down=3.0).kind
    'soft'
    """

    kind: Literal["soft"] = "soft"
    pulses_up: Pulses
    pulses_down: Pulses
    curvature_up: Curvature = 0.0
    curvature_down: Curvature = 0.0
    noise: Share = 0.0
    step_noise: Share = 0.0

    def step(self, conductance: Tensor, up: Tensor, g_min: float, g_max: float) -> Step:
        """Return mean and standard deviation of the change; see `PulseResponse.step`."""
        import torch

        window = g_max - g_min
        x = (conductance - g_min) / window
        rise = _advance(x, self.curvature_up, self.pulses_up)
        fall = -_advance(1.0 - x, self.curvature_down, self.pulses_down)
        mean = torch.where(up, rise, fall)
        std = (self.noise**2 + (self.step_noise * mean) ** 2).sqrt()
        return Step(window * mean, window * std)

    def curve(self, pulses: Tensor, *, up: bool) -> Tensor:
        """Return the noise-free share of the window after ``pulses`` pulses from the far end, same shape.

        Args:
            pulses: Numbers of pulses, any shape.
            up: Whether potentiation from g_min is meant, or depression from g_max.
        """
        a, total = (
            (self.curvature_up, self.pulses_up) if up else (self.curvature_down, self.pulses_down)
        )
        p = pulses / total
        x = p if a == 0 else (-a * p).expm1() / math.expm1(-a)
        return x if up else 1.0 - x


class TablePulses(PulseResponse):
    """Measured changes against the conductance before the pulse; linear in between, constant outside.

    Attributes:
        kind: "table".
        conductance: Where the changes were measured, rising, in siemens.
        up_mean: Mean change by a potentiation pulse at each of them, in siemens.
        up_std: Standard deviation of that change, in siemens.
        down_mean: Mean change by a depression pulse (negative where it lowers), in siemens.
        down_std: Standard deviation of that change, in siemens.

    >>> table = TablePulses(
    ...     conductance=(1e-6, 9e-6), up_mean=(1e-7, 0.0), up_std=(0.0, 0.0),
    ...     down_mean=(0.0, -1e-7), down_std=(0.0, 0.0),
    ... )
    >>> table.kind
    'table'
    """

    kind: Literal["table"] = "table"
    conductance: Annotated[tuple[float, ...], Unit("S")]
    up_mean: Annotated[tuple[float, ...], Unit("S")]
    up_std: Annotated[tuple[Share, ...], Unit("S")]
    down_mean: Annotated[tuple[float, ...], Unit("S")]
    down_std: Annotated[tuple[Share, ...], Unit("S")]

    @model_validator(mode="after")
    def _one_shape(self) -> TablePulses:
        n = len(self.conductance)
        rising = all(a < b for a, b in zip(self.conductance, self.conductance[1:], strict=False))
        if n < 2 or not rising or self.conductance[0] < 0:
            raise DeviceError("conductance needs at least two values in siemens, >= 0 and rising.")
        for name in ("up_mean", "up_std", "down_mean", "down_std"):
            if len(getattr(self, name)) != n:
                raise DeviceError(
                    f"{name} has {len(getattr(self, name))} values for {n} conductances; give one for each."
                )
        return self

    def step(self, conductance: Tensor, up: Tensor, g_min: float, g_max: float) -> Step:
        """Return mean and standard deviation of the change; see `PulseResponse.step`."""
        import torch

        def column(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=conductance.dtype, device=conductance.device)

        grid = column(self.conductance)
        right = torch.searchsorted(grid, conductance.contiguous()).clamp(1, len(grid) - 1)
        left = right - 1
        weight = ((conductance - grid[left]) / (grid[right] - grid[left])).clamp(0.0, 1.0)

        def at(rise: tuple[float, ...], fall: tuple[float, ...]) -> Tensor:
            high, low = column(rise), column(fall)
            return torch.where(
                up,
                torch.lerp(high[left], high[right], weight),
                torch.lerp(low[left], low[right], weight),
            )

        return Step(at(self.up_mean, self.down_mean), at(self.up_std, self.down_std))


def _advance(x: Tensor, a: float, pulses: float) -> Tensor:
    """Return how far one pulse of the exponential curve moves the share ``x``."""
    import torch

    if a == 0:
        return torch.full_like(x, 1.0 / pulses)
    decay = -math.expm1(-a / pulses)
    return (-1.0 / math.expm1(-a) - x) * decay
