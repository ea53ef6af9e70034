"""What temperature does to a cell, as far as a source says."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from ohmloop.device._part import Kelvin, Part
from ohmloop.errors import DeviceError
from ohmloop.units import Unit

ELECTRON_VOLT_PER_KELVIN = 8.617333262e-5  # k / e in eV / K, CODATA 2018
ROOM = 300.0  # K; the temperature meant where a source names none


class Thermal(Part):
    """What temperature does, as far as a source says.

    Attributes:
        reference: Temperature of the other constants, in kelvin.
        low: Lowest temperature that the source covers.
        high: Highest.
        activation: Energy in electronvolts of the process behind drift (Arrhenius): time at T counts
            exp(activation / k (1 / reference - 1 / T)) times. None: not known.
        coefficient: Relative change of a conductance for each kelvin. None: not known.

    >>> round(Thermal(low=300, high=400, activation=1.0).acceleration(350.0))
    251
    """

    reference: Kelvin = ROOM
    low: Kelvin
    high: Kelvin
    activation: Annotated[float, Unit("eV"), Field(ge=0)] | None = None
    coefficient: Annotated[float, Unit("1/K")] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Thermal:
        if not self.low <= self.reference <= self.high:
            raise DeviceError(
                f"the range of temperatures, {self.low:g} to {self.high:g} K, must hold the reference, "
                f"{self.reference:g} K."
            )
        if self.coefficient is not None:
            for end in (self.low, self.high):
                if 1 + self.coefficient * (end - self.reference) <= 0:
                    raise DeviceError(
                        f"coefficient = {self.coefficient:g} per kelvin makes conductances negative "
                        f"at {end:g} K."
                    )
        return self

    def acceleration(self, temperature: float) -> float:
        """Return by what factor time runs faster for drift at ``temperature`` (kelvin).

        Raises:
            DeviceError: If the source does not cover it.
        """
        self._check(temperature, "activation")
        assert self.activation is not None
        inverse = 1 / self.reference - 1 / temperature
        return math.exp(self.activation / ELECTRON_VOLT_PER_KELVIN * inverse)

    def factor(self, temperature: float) -> float:
        """Return what a conductance is multiplied by at ``temperature`` (kelvin).

        Raises:
            DeviceError: If the source does not cover it.
        """
        self._check(temperature, "coefficient")
        assert self.coefficient is not None
        return 1 + self.coefficient * (temperature - self.reference)

    def _check(self, temperature: float, needed: str) -> None:
        if getattr(self, needed) is None:
            raise DeviceError(
                f"this device's source gives no temperature dependence of that kind (temperature.{needed}). "
                "Leave the temperature out, or give the constant with its source."
            )
        if not self.low <= temperature <= self.high:
            raise DeviceError(
                f"the source covers {self.low:g} to {self.high:g} K; received {temperature:g} K."
            )
