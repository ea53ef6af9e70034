"""Weights on arrays: mapping, programming, wires, converters, and what a product costs."""

from ohmloop.crossbar._array import ADC, DAC, Array, Mapping, Programming
from ohmloop.crossbar._cost import Cost
from ohmloop.crossbar._costs import Costs
from ohmloop.crossbar._count import Counts, LayerUse, count_arrays, count_layer
from ohmloop.crossbar._digital import digital_baseline
from ohmloop.crossbar._hardware import Convention, Hardware
from ohmloop.crossbar._measure import measure_layer
from ohmloop.crossbar._mvm import Plane, Programmed
from ohmloop.crossbar._network import Solution, solve
from ohmloop.crossbar._program import program_matrix
from ohmloop.crossbar._streams import Streams
from ohmloop.crossbar._wires import Wires

__all__ = [  # noqa: RUF022  # plain order, as everywhere
    "ADC",
    "Array",
    "Convention",
    "Cost",
    "Costs",
    "Counts",
    "DAC",
    "Hardware",
    "LayerUse",
    "Mapping",
    "Plane",
    "Programmed",
    "Programming",
    "Solution",
    "Streams",
    "Wires",
    "count_arrays",
    "count_layer",
    "digital_baseline",
    "measure_layer",
    "program_matrix",
    "solve",
]
