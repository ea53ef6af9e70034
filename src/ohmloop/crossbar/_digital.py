"""The digital chip beside an array: the same products with multipliers and memory."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from ohmloop.crossbar._cost import SHARED, Cost
from ohmloop.crossbar._costs import Costs
from ohmloop.crossbar._count import LayerUse, activations, stored_values
from ohmloop.errors import ConversionError

Precision = Literal["int8", "fp16", "fp32"]


def digital_baseline(
    use: LayerUse,
    costs: Costs | None = None,
    *,
    precision: Precision = "int8",
    weights: Literal["sram", "dram"] = "sram",
) -> Cost:
    """Return what the same layer costs on a digital chip.

    Multiplications with their additions (int8 adds in 32 bits), one fetch of each weight for every
    `Costs.digital_reuse` products, inputs fetched once for each product, outputs stored once, and for int8 one
    rescaling of each output. As on the analog side, control, interconnect, clock and leakage are left out.

    Args:
        use: The layer; its activity does not count.
        costs: The constants; the defaults if None.
        precision: Of weights, inputs and arithmetic.
        weights: Where weights are kept: "sram", an on-chip memory as large as the layer needs, or "dram".

    Raises:
        ConversionError: If the precision or the memory is unknown.

    >>> round(digital_baseline(LayerUse(name="fc", n_out=1, n_in=1)).energy_parts["arithmetic"] * 1e12, 2)
    0.3
    """
    costs = costs or Costs()
    units = _arithmetic(costs)
    if precision not in units or weights not in ("sram", "dram"):
        raise ConversionError(
            f'the baseline knows precision "int8", "fp16" or "fp32" and weights in "sram" or "dram"; '
            f"received {precision!r} and {weights!r}."
        )
    unit = units[precision]
    bits = unit.bits
    stored = use.groups * use.n_out * use.n_in * bits
    fetches = max(1, math.ceil(use.products / costs.digital_reuse)) if use.products else 0
    bit = costs.dram if weights == "dram" else costs.memory_energy(stored)
    outputs = use.products * use.groups * use.n_out
    finish = outputs * (
        unit.addition * use.bias + (costs.mult_int32 if precision == "int8" else 0.0)
    )
    return Cost(
        name=use.name,
        energy_parts={
            "arithmetic": use.macs * unit.mac,
            "weights": fetches * stored * bit,
            "digital": finish,
            "memory": activations(use, bits, costs),
        },
        latency_parts={"arithmetic": math.ceil(use.macs / costs.digital_units) * costs.cycle},
        area_parts={
            SHARED: costs.digital_units * unit.area,
            "weights": 0.0 if weights == "dram" else stored * costs.sram_area,
            "memory": stored_values(use) * bits * costs.sram_area,
        },
        operations=2 * use.macs,
        programming=0.0,
    )


class _Unit(NamedTuple):
    bits: int
    mac: float  # joules of a multiplication with its addition
    addition: float  # joules
    area: float  # of one multiplier with its adder, square metres


def _arithmetic(costs: Costs) -> dict[str, _Unit]:
    return {
        "int8": _Unit(8, costs.mult_int8 + costs.add_int32, costs.add_int32, costs.area_mac_int8),
        "fp16": _Unit(16, costs.mult_fp16 + costs.add_fp16, costs.add_fp16, costs.area_mac_fp16),
        "fp32": _Unit(32, costs.mult_fp32 + costs.add_fp32, costs.add_fp32, costs.area_mac_fp32),
    }
