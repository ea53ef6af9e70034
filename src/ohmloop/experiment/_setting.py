"""What an array experiment is: size, task, device, converters, wires, ways of writing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ohmloop.crossbar import ADC, DAC, Array, Programming, Wires

Size = Literal[10, 64, 256]
_NETWORKS: dict[int, tuple[str, str]] = {
    10: ("letters", "linear"),
    64: ("digits", "mlp"),
    256: ("fashion-mnist", "mlp"),
}
FAINT = 0.05
"""Where wires take no more, the fast solution errs by less than .1 % (bench/results/wires.md)."""


class ArraySetting(BaseModel):
    """What is trained, and what it is put on.

    Attributes:
        size: Rows and columns of each array: 10, 64 or 256.
        task: Name of the task; None for the size's own (letters; digits; fashion-mnist).
        model: Name of a network of fully connected layers; None for the size's own.
        device: A device as `load_device` takes it; "nanowire-30" has the highest published usability.
        methods: How networks are trained for the device.
        n_arrays: Virtual chips for each trained network.
        seeds: Of training; each gives a network.
        epochs: Of one training; None for the task's own.
        limit: Use only that many development samples; None for all.
        dac_bits: Resolution of the row drivers.
        adc_bits: Resolution of the column converters, calibrated on unlabelled training inputs.
        wire: Ohms of each segment of wire; assumed, as no source states it for these arrays.
        lead: Ohms of each driver and each sense amplifier with their leads; assumed.
        wire_solution: "exact", "fast" (`Array.wire_solution`), or "auto": fast on arrays of more than 10 rows
            whose wires can take `FAINT` of a read voltage at most, with all cells at g_max.
        tolerance: Of write-verify, as a share of the conductance window.
        cycles: Erase-and-write cycles (pulses, for a device with a pulse response) that each cell may take.
        pulse_width: Of a programming pulse in seconds, for a device that states none; assumed. Its voltage
            is then the largest of the measured sweep.

    >>> ArraySetting(size=64).network
    ('digits', 'mlp')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    size: Size = 10
    task: str | None = None
    model: str | None = None
    device: str = "nanowire-30"
    methods: tuple[str, ...] = ("erm", "steady")
    n_arrays: Annotated[int, Field(ge=1)] = 1000
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    epochs: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=10)] | None = None
    dac_bits: Annotated[int, Field(ge=1, le=16)] = 8
    adc_bits: Annotated[int, Field(ge=2, le=16)] = 8
    wire: Annotated[float, Field(ge=0)] = 1.0
    lead: Annotated[float, Field(ge=0)] = 100.0
    wire_solution: Literal["auto", "exact", "fast"] = "auto"
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02
    cycles: Annotated[int, Field(ge=1)] = 50
    pulse_width: Annotated[float, Field(gt=0)] = 1e-6

    @property
    def network(self) -> tuple[str, str]:
        """Names of the task and the network."""
        own_task, own_model = _NETWORKS[self.size]
        if self.task is None:
            return own_task, self.model or own_model
        return self.task, self.model or "mlp"

    def solution(self, g_max: float) -> Literal["exact", "fast"]:
        """Return how wires of cells of up to ``g_max`` siemens are solved."""
        if self.wire_solution != "auto":
            return self.wire_solution
        share = g_max * self.size * (self.lead + 0.5 * self.size * self.wire)
        return "fast" if self.size > 10 and share <= FAINT else "exact"

    def array(self, programming: Programming, g_max: float) -> Array:
        """Return the arrays, written in the given way.

        The smallest array holds the bias in its tenth row; larger ones add it digitally, because 64 or 256
        inputs fill their rows.
        """
        return Array(
            rows=self.size,
            columns=self.size,
            dac=DAC(bits=self.dac_bits),
            adc=ADC(bits=self.adc_bits),
            wire_solution=self.solution(g_max),
            wires=Wires(row=self.wire, column=self.wire, source=self.lead, sense=self.lead),
            programming=programming,
            analog_bias=self.size == 10,
        )

    def writings(self, has_pulses: bool) -> dict[str, Programming]:
        """Return the ways of writing that are compared, by what a table calls them."""
        verify: Literal["write-verify", "cycle-verify"] = (
            "write-verify" if has_pulses else "cycle-verify"
        )
        return {
            "exact cells": Programming(method="ideal"),
            "written once": Programming(method="statistical"),
            "written and verified": Programming(
                method=verify, tolerance=self.tolerance, max_pulses=self.cycles
            ),
        }
