"""A stochastic device model: the published law with its uncertainty and its sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ohmloop.errors import DeviceError


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
