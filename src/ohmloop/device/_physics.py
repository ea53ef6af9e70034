"""The physical law of one memristor cell: window, levels, programming, reading, drift, faults, temperature.

Everything works on tensors of any shape, float32 or float64, on the device that the tensors are on; randomness
comes in as standard normals or uniforms, or by an explicit generator. The modules beside this one name the
papers of their laws; each constant of a preset names its own source.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from ohmloop.device._drift import PowerDrift, WalkDrift
from ohmloop.device._noise import Faults, ReadNoise, Variation, WriteNoise, safe_sqrt
from ohmloop.device._part import Part, Seconds
from ohmloop.device._pulses import SoftPulses, TablePulses
from ohmloop.device._thermal import ROOM, Thermal
from ohmloop.errors import DeviceError
from ohmloop.units import Unit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ohmloop.device._write_verify import WriteResult


class Physics(Part):
    """One memristor cell.

    Attributes:
        g_min: Lower end of the conductance window, in siemens.
        g_max: Upper end.
        levels: How many equally spaced conductances programming aims at, both ends included; None for any.
        targets: The conductances that programming aims at where they are not equally spaced, rising, in
            siemens; empty for all others.
        write: Error of programming (statistical), after write-verify where the source used it.
        read: Error of each reading.
        drift: Change with time after programming; None where the source gives none.
        faults: Share of cells that no pulse moves.
        variation: Differences between cells that stay.
        v0: I = G v0 sinh(V / v0), in volts; None for an ohmic cell.
        pulses: What a programming pulse does; None where the source gives no curve (then no write-verify).
        temperature: What temperature does; None where the source gives nothing.
        read_voltage: Of a reading, in volts.
        read_time: Duration of a reading, in seconds.
        set_voltage: Of a potentiation pulse, in volts.
        reset_voltage: Of a depression pulse, in volts, negative for a bipolar device.
        pulse_width: Of a programming pulse, in seconds.
        pulse_energy: Of a programming pulse, in joules. Where it is not given, V^2 G width stands for it if
            voltages and width are known.

    >>> Physics(g_min=1e-6, g_max=25e-6, write=WriteNoise(sigma=0.1)).window
    2.4e-05
    """

    g_min: Annotated[float, Unit("S"), Field(ge=0)]
    g_max: Annotated[float, Unit("S"), Field(gt=0)]
    levels: Annotated[int, Unit(""), Field(ge=2)] | None = None
    targets: Annotated[tuple[float, ...], Unit("S")] = ()
    write: WriteNoise = WriteNoise()
    read: ReadNoise = ReadNoise()
    drift: Annotated[PowerDrift | WalkDrift, Field(discriminator="kind")] | None = None
    faults: Faults = Faults()
    variation: Variation = Variation()
    v0: Annotated[float, Unit("V"), Field(gt=0)] | None = None
    pulses: Annotated[SoftPulses | TablePulses, Field(discriminator="kind")] | None = None
    temperature: Thermal | None = None
    read_voltage: Annotated[float, Unit("V"), Field(gt=0)] | None = None
    read_time: Seconds | None = None
    set_voltage: Annotated[float, Unit("V")] | None = None
    reset_voltage: Annotated[float, Unit("V")] | None = None
    pulse_width: Seconds | None = None
    pulse_energy: Annotated[float, Unit("J"), Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Physics:
        if not self.g_min < self.g_max:
            raise DeviceError(
                f"the conductance window [{self.g_min:g}, {self.g_max:g}] S is empty: g_max must exceed g_min."
            )
        if self.targets:
            self._check_targets()
        if self.read.bandwidth is not None and self.read_voltage is None:
            raise DeviceError(
                "thermal noise is a current: to count as conductance it needs read_voltage, in volts."
            )
        if isinstance(self.pulses, TablePulses):
            first, last = self.pulses.conductance[0], self.pulses.conductance[-1]
            if first > self.g_max or last < self.g_min:
                raise DeviceError(
                    f"the pulse table covers {first:g} to {last:g} S, outside the window "
                    f"[{self.g_min:g}, {self.g_max:g}] S."
                )
        return self

    def _check_targets(self) -> None:
        rising = all(a < b for a, b in zip(self.targets, self.targets[1:], strict=False))
        inside = self.g_min <= self.targets[0] and self.targets[-1] <= self.g_max
        if self.levels is not None or len(self.targets) < 2 or not rising or not inside:
            raise DeviceError(
                "targets are at least two conductances, rising and inside the window "
                f"[{self.g_min:g}, {self.g_max:g}] S, and take the place of levels; received "
                f"{len(self.targets)} and levels = {self.levels}."
            )

    @property
    def window(self) -> float:
        """g_max - g_min, in siemens."""
        return self.g_max - self.g_min

    def quantised(self, target: Tensor) -> Tensor:
        """Return the nearest conductance that programming aims at, same shape.

        The gradient passes straight through rounding and clipping.

        Args:
            target: In siemens, any shape.
        """
        nearest = target.detach().clamp(self.g_min, self.g_max)
        if self.levels is not None:
            step = self.window / (self.levels - 1)
            nearest = self.g_min + step * ((nearest - self.g_min) / step).round()
            nearest = nearest.clamp_max(self.g_max)
        elif self.targets:
            nearest = self._nearest_target(nearest)
        # Exactly the nearest one, with the target's gradient: the other order would round.
        return nearest + (target - target.detach())

    def _nearest_target(self, conductance: Tensor) -> Tensor:
        import torch

        table = torch.tensor(self.targets, dtype=conductance.dtype, device=conductance.device)
        return table[torch.bucketize(conductance, 0.5 * (table[1:] + table[:-1]))]

    def program(
        self,
        target: Tensor,
        normal: Tensor,
        mask: Tensor | None = None,
        *,
        cell: Tensor | None = None,
    ) -> Tensor:
        """Return what cells hold after statistical programming; differentiable in ``target``.

        Levels and clipping (straight through), write noise, differences between cells, faults.

        Args:
            target: Wanted conductances in siemens, any shape.
            normal: Independent standard normals, fresh at each programming; ``target`` broadcasts to their
                shape, so one target may serve many devices.
            mask: Faults as `Faults.draw` gives them, or None for none; a stuck cell passes no gradient.
            cell: Standard normals that belong to the cells and stay (`Variation.window`); None leaves these
                differences out.

        Returns:
            Conductances in siemens, of the shape of ``normal``.

        Raises:
            DeviceError: If the shapes do not fit.

        >>> import torch
        >>> cell = Physics(g_min=0.0, g_max=1.0, levels=3)
        >>> cell.program(torch.tensor([0.2, 0.6, 3.0]), torch.zeros(3))
        tensor([0.0000, 0.5000, 1.0000])
        """
        _check_shape(target, normal)
        conductance = self.write.apply(self.quantised(target), normal, self.g_max)
        if cell is not None and self.variation.window:
            conductance = conductance * (self.variation.window * cell).exp()
        return self.stuck(conductance, mask)

    def stuck(self, conductance: Tensor, mask: Tensor | None) -> Tensor:
        """Return ``conductance`` with the faulty cells at their end of the window; mask as in `program`."""
        import torch

        if mask is None:
            return conductance
        low = torch.where(mask == 1, torch.full_like(conductance, self.g_min), conductance)
        return torch.where(mask == 2, torch.full_like(conductance, self.g_max), low)

    def read_std(
        self, conductance: Tensor, seconds: float = 0.0, *, temperature: float = ROOM
    ) -> Tensor:
        """Return the standard deviation of one reading, in siemens, same shape.

        All parts of `ReadNoise` in quadrature; the thermal current at ``read_voltage``.

        Args:
            conductance: In siemens, any shape.
            seconds: Time since programming; earlier than drift's t0 counts as t0, because the sources know
                nothing earlier.
            temperature: In kelvin, of the thermal noise.
        """
        return self.read_std_at(conductance, self._clock(seconds), temperature=temperature)

    def read_std_at(
        self, conductance: Tensor, seconds: float, *, temperature: float = ROOM
    ) -> Tensor:
        """Return what `read_std` does, but at exactly ``seconds`` after the last pulse, however early."""
        std = self.read.conductance_std(conductance, seconds, self.g_max)
        if self.read.bandwidth is None or self.read_voltage is None:
            return std
        thermal = self.read.current_std(conductance, temperature) / self.read_voltage
        return self.g_max * safe_sqrt((std / self.g_max) ** 2 + (thermal / self.g_max) ** 2)

    def verify_std(self, conductance: Tensor) -> Tensor:
        """Return the standard deviation in siemens of a reading right after a pulse, same shape.

        1/f noise has had one reading's time to build up, which by its law is none.
        """
        flicker = self.read.flicker
        return self.read_std_at(conductance, 0.0 if flicker is None else flicker.t_read)

    def drifted(
        self,
        conductance: Tensor,
        seconds: float,
        normal: Tensor,
        mask: Tensor | None = None,
        *,
        temperature: float | None = None,
    ) -> Tensor:
        """Return the conductances ``seconds`` after programming, in siemens.

        Args:
            conductance: As programmed, in siemens, any shape.
            seconds: Time after programming.
            normal: Independent standard normals, one a cell; the same numbers at two times are the same
                cells at two times.
            mask: Faults, as in `program`; stuck cells do not drift.
            temperature: Of storage, in kelvin; None for that of the source.

        Raises:
            DeviceError: If the shapes do not fit, ``seconds`` is negative, or no source covers the
                temperature.
        """
        _check_shape(conductance, normal)
        if temperature is not None:
            seconds = seconds * self._thermal().acceleration(temperature)
        if self.drift is None:
            _check_seconds(seconds)
            return conductance + normal * 0.0
        moved = self.drift.apply(conductance, seconds, normal, self.g_max)
        return moved if mask is None else self.stuck(moved, mask)

    def heated(self, conductance: Tensor, temperature: float) -> Tensor:
        """Return the conductances at ``temperature`` (kelvin), same shape.

        Raises:
            DeviceError: If no source covers the temperature.
        """
        return conductance * self._thermal().factor(temperature)

    def current(self, conductance: Tensor, voltage: Tensor) -> Tensor:
        """Return G v0 sinh(V / v0), or G V for an ohmic cell, in amperes; the shapes broadcast."""
        if self.v0 is None:
            return conductance * voltage
        return conductance * (self.v0 * (voltage / self.v0).sinh())

    def write_verify(
        self,
        target: Tensor,
        generator: torch.Generator | Callable[[], Tensor],
        *,
        tolerance: float,
        max_pulses: int,
        mask: Tensor | None = None,
        cell: Tensor | None = None,
        start: Tensor | None = None,
    ) -> WriteResult:
        """Program pulse by pulse, reading after each, all cells at once; see `WriteResult`.

        Args:
            target: Wanted conductances in siemens, any shape.
            generator: On the target's device; or a function that returns fresh standard normals of the
                target's shape, one call after the other.
            tolerance: Accepted error of a reading, as a share of the window.
            max_pulses: Budget of pulses for each cell.
            mask: Faults, as in `program`.
            cell: Standard normals that stay with the cells, of shape ``2 x *target.shape``: for
                `Variation.window` and `Variation.steps`. None leaves these differences out.
            start: Conductances before the first pulse; None for g_min.

        Raises:
            DeviceError: If the device has no pulse response, or an argument is out of range.
        """
        from ohmloop.device._write_verify import write_verify

        return write_verify(
            self,
            target,
            generator,
            tolerance=tolerance,
            max_pulses=max_pulses,
            mask=mask,
            cell=cell,
            start=start,
        )

    def log_std(self, target: float | None = None) -> float:
        """Return the standard deviation of ln G after programming to ``target`` (mid-window by default).

        What the published law calls sigma. Write noise and differences between cells in quadrature; for
        Gaussian write noise by its quantiles, without the tail that would be cut at 0.

        >>> Physics(g_min=0, g_max=1e-6, write=WriteNoise(sigma=0.3)).log_std()
        0.3
        """
        import torch

        middle = 0.5 * (self.g_min + self.g_max) if target is None else target
        if self.write.kind == "lognormal":
            sigma = self.write.sigma
        else:
            q = (torch.arange(20001, dtype=torch.float64) + 0.5) / 20001
            normal = math.sqrt(2) * torch.erfinv(2 * q - 1)
            wanted = torch.full_like(normal, middle)
            held = self.write.apply(wanted, normal, self.g_max)
            sigma = float(held[held > 0].log().std(correction=0))
        return math.hypot(sigma, self.variation.window)

    def _clock(self, seconds: float) -> float:
        _check_seconds(seconds)
        return seconds if self.drift is None else max(seconds, self.drift.t0)

    def _thermal(self) -> Thermal:
        if self.temperature is None:
            raise DeviceError(
                "this device's source gives no temperature dependence. Leave the temperature out, or give "
                "the device a `temperature` part with its source."
            )
        return self.temperature


def _check_seconds(seconds: float) -> None:
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise DeviceError(
            f"time after programming is a finite number of seconds >= 0; received {seconds!r}."
        )


def _check_shape(values: Tensor, normal: Tensor) -> None:
    # Values fit where their shape, counted from the last axis, is that of the normals or 1.
    own, given = values.shape[::-1], normal.shape[::-1]
    if len(own) > len(given) or any(a not in (1, b) for a, b in zip(own, given, strict=False)):
        raise DeviceError(
            f"conductances of shape {tuple(values.shape)} need normals of that shape, or of one that they "
            f"broadcast to; received {tuple(normal.shape)}."
        )
