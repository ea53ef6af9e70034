"""A stochastic device model: the published law with its uncertainty and its sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ohmloop.device._noise import WriteNoise
from ohmloop.device._physics import Physics
from ohmloop.errors import DeviceError

# The scale cancels wherever wires and converters are ideal; g_min = 0 makes a pair of cells follow the
# published law on weights exactly: the cell of the other sign holds nothing that noise could multiply.
_ASSUMED_WINDOW = (0.0, 100e-6)  # S


class Estimate(BaseModel):
    """A value with a 95 % interval; ``low`` and ``high`` are None where none can be given."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float | None = None
    high: float | None = None


class Source(BaseModel):
    """One measurement file behind a model: base name and sha256 of its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class DeviceModel(BaseModel):
    """The published device law, fitted from sweeps: noise, level table, range and origin.

    Attributes:
        schema_version: Version of this layout; 1.
        name: Name a user types ("nanowire-07", "lognormal:0.4").
        description: One line for a person; says "simulated" where it is not measured.
        sigma: Standard deviation of the log-conductance around the mean ramp, dimensionless.
        rho: The level table (values in [0, 1], indexed linearly by |theta| / max|theta|), or None
            where the device's monotone window is long enough that rho = 1 everywhere.
        g_min: Smallest conductance of the mean ramp in siemens, None if not measured.
        g_max: Largest conductance of the mean ramp in siemens, None if not measured.
        figures: Figures of merit of the source (keys of `FiguresOfMerit.to_dict`).
        recipe: Fabrication conditions, column name -> value in the unit that the name gives.
        sources: The measurement files, empty for a synthetic law.
        published: Figures that somebody else published for this very device ("sigma",
            "monotonicity", "usability", "lenet_mnist_accuracy"); never used by a computation.
        citation: Where the measurements were published; empty for one's own.
        physics: The physical law of one cell, where it is known beyond the figures above; `cell` gives
            one in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    name: str
    description: str = ""
    sigma: Estimate
    rho: tuple[float, ...] | None = None
    g_min: float | None = None
    g_max: float | None = None
    figures: dict[str, float | int | bool | str | list[float] | None] = Field(default_factory=dict)
    recipe: dict[str, float | int | str | None] = Field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    published: dict[str, float] = Field(default_factory=dict)
    citation: str = ""
    physics: Physics | None = None

    @model_validator(mode="after")
    def _check(self) -> DeviceModel:
        if not 0 <= self.sigma.value < 20:
            raise DeviceError(
                f'device "{self.name}": sigma is the standard deviation of a log-conductance and '
                f"lies in [0, 20); received {self.sigma.value:g}."
            )
        if self.rho is not None and not (
            len(self.rho) >= 2 and all(0 <= level <= 1 for level in self.rho)
        ):
            raise DeviceError(
                f'device "{self.name}": rho needs at least two levels in [0, 1]; '
                f"received {self.rho!r}."
            )
        return self

    def cell(self) -> Physics:
        """Return the physical law of one cell: ``physics``, or what the published law implies.

        Without ``physics``: the window of the measured mean ramp, continuous levels, log-normal write noise of
        the law's sigma; no read noise, drift or faults, because a sweep says nothing about them. For
        "lognormal:SIGMA", which is no real device, a window of 0 to 100 uS is assumed.

        Raises:
            DeviceError: If the device has no window.

        >>> from ohmloop.device import load_device
        >>> load_device("nanowire-30").cell().write.kind
        'lognormal'
        """
        if self.physics is not None:
            return self.physics
        sigma = (
            "standard deviation of ln G of the measured sweeps (arXiv 2412.02779, published recipe)"
        )
        if self.name.startswith("lognormal:") and self.g_max is None:
            low, high = _ASSUMED_WINDOW
            window = (
                "assumed: no device is meant; with g_min = 0 a pair of cells gives exactly the law"
            )
            sigma = "as the name says"
        elif self.g_min is None or self.g_max is None or not 0 <= self.g_min < self.g_max:
            raise DeviceError(
                f'device "{self.name}" has no conductance window (g_min = {self.g_min}, g_max = {self.g_max}), '
                "and an array needs one. Give g_min < g_max in siemens, or `physics`, in its file; "
                "`ohmloop device fit` writes both from sweeps."
            )
        else:
            low, high = self.g_min, self.g_max
            window = "smallest and largest conductance of the measured mean ramp"
        return Physics(
            g_min=low,
            g_max=high,
            write=WriteNoise(kind="lognormal", sigma=self.sigma.value, source=sigma),
            source=window,
        )
