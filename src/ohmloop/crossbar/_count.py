"""Counting what a run used: tiles, conversions and additions of a layer, times the constants of `Costs`.

Counted for each product (one input vector times the layer's matrix), as `Array` lays the matrix out:

* An input is converted once for each tile that it drives: once for each block of outputs.
* An ADC converts differences: one conversion for each output, slice and block of rows. Both columns of a
  pair, or a column and the reference, meet before it, as `Programmed.matmul` computes it.
* Partial results are added digitally: slices with a shift, blocks of rows plainly.

Tiles of a layer work at once; products follow each other on the one copy of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ohmloop.crossbar._array import Array
from ohmloop.crossbar._cost import Cost
from ohmloop.crossbar._costs import Costs
from ohmloop.crossbar._hardware import Hardware
from ohmloop.device import Physics
from ohmloop.errors import ConversionError
from ohmloop.units import Unit


class LayerUse(BaseModel):
    """What one inference asks of one layer, and how strongly its cells are driven.

    Attributes:
        name: Of the layer.
        n_out: Outputs of its matrix.
        n_in: Rows of its matrix; the row of an analog bias counts.
        products: Input vectors of one inference: 1 for a linear layer, the positions of a convolution.
        groups: Matrices of this size on arrays of their own (groups of a convolution), working at once.
        bias: Whether a bias is added digitally.
        array_power: Mean power of all cells of the layer while they are read, in watts: the sum of V^2 G over
            cells, groups included. `measure_layer` takes it from the run.
        drive: Mean over rows and products of (row voltage / full scale)^2; 1 where it is not known, an upper
            bound. For pulse-width inputs, the mean share of the time that a row is on.
        mean_conductance: Of the cells in use, in siemens. Without ``array_power``, the power is
            cells x mean_conductance x drive x V^2.
        pulses: Programming pulses of the layer, all cells; None where nobody counted.
        programming_energy: Of these pulses, in joules; None: pulses times the device's energy of a pulse.

    >>> LayerUse(name="fc", n_out=10, n_in=10, mean_conductance=1e-5).macs
    100
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    n_out: Annotated[int, Field(ge=1)]
    n_in: Annotated[int, Field(ge=1)]
    products: Annotated[float, Field(ge=0)] = 1
    groups: Annotated[int, Field(ge=1)] = 1
    bias: bool = False
    array_power: Annotated[float, Unit("W"), Field(ge=0)] | None = None
    drive: Annotated[float, Unit(""), Field(ge=0)] = 1.0
    mean_conductance: Annotated[float, Unit("S"), Field(ge=0)] | None = None
    pulses: Annotated[float, Field(ge=0)] | None = None
    programming_energy: Annotated[float, Unit("J"), Field(ge=0)] | None = None

    @property
    def macs(self) -> int:
        """Multiplications with their additions in one inference."""
        return round(self.products * self.groups * self.n_out * self.n_in)


@dataclass(frozen=True)
class Counts:
    """How often each part of a layer's arrays works.

    Attributes:
        row_tiles: Blocks of rows that add up before conversion.
        column_tiles: Blocks of outputs.
        tiles: Physical arrays, groups included.
        cells: Cells in use, partners and references included.
        placed_cells: Cells of all tiles.
        read_columns: Physical columns read for one product.
        dac_conversions: Of one inference: each input once for every block of outputs.
        adc_conversions: Of one inference: outputs x slices x blocks of rows.
        shift_additions: Of one inference: slices put together.
        additions: Of one inference: blocks of rows put together, and the bias.
        rescalings: Of one inference: digital factors applied to outputs.
        adcs: Converters on all tiles.
        turns: Conversions that one ADC makes for one product, one after the other.
    """

    row_tiles: int
    column_tiles: int
    tiles: int
    cells: int
    placed_cells: int
    read_columns: int
    dac_conversions: float
    adc_conversions: float
    shift_additions: float
    additions: float
    rescalings: float
    adcs: int
    turns: int

    @property
    def utilisation(self) -> float:
        """Share of the placed cells that hold weights or their references."""
        return self.cells / self.placed_cells


def count_arrays(use: LayerUse, array: Array, costs: Costs | None = None) -> Counts:
    """Return how often each part of the arrays works for one inference.

    Args:
        use: The layer.
        array: How it is laid out.
        costs: For `Costs.outputs_per_adc`; the defaults if None.

    >>> counts = count_arrays(LayerUse(name="fc", n_out=64, n_in=64), Array(rows=32, columns=64))
    >>> counts.tiles, counts.adc_conversions, counts.dac_conversions, counts.additions
    (4, 128.0, 128.0, 64.0)
    """
    costs = costs or Costs()
    row_tiles = -(-use.n_in // array.rows)
    column_tiles = -(-use.n_out // array.outputs)
    tiles = row_tiles * column_tiles * use.groups
    columns = use.n_out * array.columns_per_output + column_tiles * array.reference_columns
    each = float(use.products * use.groups)  # products of one inference, all groups
    results = use.n_out * array.slices * row_tiles  # conversions of one product
    in_tile = array.outputs * array.slices
    turns = min(costs.outputs_per_adc, min(use.n_out, array.outputs) * array.slices)
    return Counts(
        row_tiles=row_tiles,
        column_tiles=column_tiles,
        tiles=tiles,
        cells=use.n_in * columns * use.groups,
        placed_cells=tiles * array.rows * array.columns,
        read_columns=row_tiles * columns * use.groups,
        dac_conversions=each * use.n_in * column_tiles,
        adc_conversions=each * results,
        shift_additions=each * use.n_out * row_tiles * (array.slices - 1),
        additions=each * use.n_out * (row_tiles - 1 + use.bias),
        rescalings=each * use.n_out * (row_tiles if array.scale == "tile" else 1),
        adcs=tiles * -(-in_tile // costs.outputs_per_adc),
        turns=turns,
    )


def count_layer(use: LayerUse, hardware: Hardware, costs: Costs | None = None) -> Cost:
    """Return what one inference of a layer costs on its arrays.

    Energy of the cells is Ohm's law on what was programmed and driven; the rest is `count_arrays` times the
    constants. Read voltage and time are the device's own where it states them.

    Args:
        use: The layer and its activity.
        hardware: With an array.
        costs: The constants; the defaults if None.

    Raises:
        ConversionError: If the hardware has no array, or nothing says how strongly cells are driven.

    >>> hardware = Hardware(device="lognormal:0.3", array=Array(rows=16, columns=32))
    >>> cost = count_layer(LayerUse(name="fc", n_out=10, n_in=10, array_power=0.0), hardware)
    >>> cost.energy_parts["array"], cost.operations
    (0.0, 200)
    """
    if hardware.array is None:
        raise ConversionError(
            f'layer "{use.name}" has no array to count: this hardware is the law on weights only. Give it one: '
            "Hardware(device=..., array=Array(rows=256, columns=256))."
        )
    costs, array, physics = costs or Costs(), hardware.array, hardware.device.cell()
    counts = count_arrays(use, array, costs)
    read = _Reading(array, physics, costs)
    programming, remark = _programming(use, physics, read)
    return Cost(
        name=use.name,
        energy_parts=_energy(use, counts, read),
        latency_parts=_latency(use, counts, read),
        area_parts=_area(use, counts, read),
        operations=2 * use.macs,
        programming=programming,
        notes=(*read.notes(), *remark),
    )


class _Reading:
    """The voltage, window and converters of a reading, with what had to be assumed."""

    def __init__(self, array: Array, physics: Physics, costs: Costs):
        self.array, self.physics, self.costs = array, physics, costs
        self.volts = read_voltage(physics, costs)
        self.seconds = physics.read_time or costs.read_time
        self.dac_bits = array.dac.bits if array.dac else costs.assumed_bits
        self.adc_bits = array.adc.bits if array.adc else costs.assumed_bits
        self.adc_noise = array.adc.noise if array.adc else 0.0

    @property
    def convert_energy(self) -> float:
        return self.costs.adc_energy(self.adc_bits, self.adc_noise) + self.costs.sample_hold

    @property
    def convert_time(self) -> float:
        return self.adc_bits * self.costs.adc_time_per_bit

    @property
    def drive_energy(self) -> float:
        if self.array.encoding == "pulse-width":
            return self.costs.timer_energy(self.dac_bits)
        return self.costs.dac_energy(self.dac_bits)

    def notes(self) -> list[str]:
        found = []
        for what, bits in (("DAC", self.array.dac), ("ADC", self.array.adc)):
            if bits is None:
                found.append(
                    f"the array has no {what}; counted as one of {self.costs.assumed_bits} bits "
                    "(Costs.assumed_bits)."
                )
        if self.physics.read_voltage is None:
            found.append(
                f"the device states no read voltage; counted with {self.volts:g} V (Costs.read_voltage)."
            )
        if self.physics.read_time is None:
            found.append(
                f"the device states no read time; counted with {self.seconds:g} s (Costs.read_time)."
            )
        return found


def read_voltage(physics: Physics, costs: Costs) -> float:
    """Return the full-scale row voltage: the device's own, or the assumed one."""
    return physics.read_voltage or costs.read_voltage


def _power(use: LayerUse, counts: Counts, volts: float) -> float:
    """Return the watts of all cells during a read."""
    if use.array_power is not None:
        return use.array_power
    if use.mean_conductance is None:
        raise ConversionError(
            f'layer "{use.name}": nothing says how strongly its cells are driven. Measure it in a run '
            "(measure_layer), or give array_power in watts, or mean_conductance in siemens and drive."
        )
    return counts.cells * use.mean_conductance * use.drive * volts**2


def _energy(use: LayerUse, counts: Counts, read: _Reading) -> dict[str, float]:
    costs, products = read.costs, float(use.products)
    array = _power(use, counts, read.volts) * read.seconds * products
    # A row's wire spans the tile; pulse-width inputs always swing to full scale.
    swing = 1.0 if read.array.encoding == "pulse-width" else use.drive
    wire = costs.cell_capacitance * read.array.columns * read.volts**2 * swing
    sums = counts.additions + counts.shift_additions
    return {
        "array": array,
        "drivers": array * (1 / costs.driver_efficiency - 1) + counts.dac_conversions * wire,
        "dac": counts.dac_conversions * read.drive_energy,
        "columns": counts.read_columns * products * costs.column_power * read.seconds,
        "adc": counts.adc_conversions * read.convert_energy,
        "digital": sums * costs.add_int32 + counts.rescalings * costs.mult_int32,
        "memory": activations(use, read.dac_bits, costs),
    }


def activations(use: LayerUse, bits: int, costs: Costs) -> float:
    """Return the joules of memory: each input fetched once for each product, each output stored once."""
    moved = use.products * use.groups * (use.n_in + use.n_out)
    return moved * bits * costs.memory_energy(stored_values(use) * bits)


def stored_values(use: LayerUse) -> float:
    """Return how many values the layer's memory holds: one input vector and the outputs of all products."""
    return use.groups * (use.n_in + use.n_out * max(1.0, use.products))


def _latency(use: LayerUse, counts: Counts, read: _Reading) -> dict[str, float]:
    """Within a product: settle, integrate, convert in turns, finish the sum; products follow each other."""
    depth = math.ceil(math.log2(counts.row_tiles * read.array.slices)) + 1 + use.bias
    products = float(use.products)
    return {
        "settle": products * read.costs.dac_settle,
        "read": products * read.seconds,
        "convert": products * counts.turns * read.convert_time,
        "digital": products * depth * read.costs.cycle,
    }


def _area(use: LayerUse, counts: Counts, read: _Reading) -> dict[str, float]:
    costs, array = read.costs, read.array
    drivers = 1 if array.encoding == "pulse-width" else read.dac_bits
    return {
        "cells": counts.placed_cells * costs.cell_area,
        "dac": counts.tiles * array.rows * costs.dac_area * 2.0 ** (drivers - 1),
        "columns": counts.tiles * array.columns * costs.column_area,
        "adc": counts.adcs * costs.adc_area_of(read.adc_bits),
        "digital": counts.adcs * costs.area_add_int32,
        "memory": stored_values(use) * read.dac_bits * costs.sram_area,
    }


def _programming(
    use: LayerUse, physics: Physics, read: _Reading
) -> tuple[float | None, tuple[str, ...]]:
    """Return the joules of pulses and of the conversion that verifies each, or None; and what to say of it."""
    energy = use.programming_energy
    notes: tuple[str, ...] = ()
    if use.pulses is None:
        if energy is not None:
            return energy, ()
        return None, (
            'programming is not counted: write with method="write-verify" to count pulses.',
        )
    if energy is None and physics.pulse_energy is not None:
        energy = use.pulses * physics.pulse_energy
    if energy is None:
        pulse = _ohmic_pulse(physics, use.mean_conductance)
        if pulse is None:
            return None, ("programming is not counted: the device states no energy of a pulse.",)
        energy = use.pulses * pulse
        notes = ("a pulse is counted as V^2 G width, with the mean conductance after programming.",)
    return energy + use.pulses * (read.convert_energy + read.drive_energy), notes


def _ohmic_pulse(physics: Physics, conductance: float | None) -> float | None:
    """Return the joules of a mean pulse, half of them up and half down, or None where a factor is not known."""
    up, down, width = physics.set_voltage, physics.reset_voltage, physics.pulse_width
    if up is None or down is None or width is None or conductance is None:
        return None
    return 0.5 * (up**2 + down**2) * conductance * width
