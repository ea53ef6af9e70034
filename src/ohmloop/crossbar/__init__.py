"""Weights on arrays: mapping, programming, wires, converters, and what a product costs."""

from ohmloop.crossbar._approximate import approximate_transfer
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
from ohmloop.crossbar._sneak import Access, Scheme, access
from ohmloop.crossbar._streams import Streams
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires

__all__ = [  # noqa: RUF022  # plain order, as everywhere
    "ADC",
    "Access",
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
    "Scheme",
    "Solution",
    "Streams",
    "Wires",
    "access",
    "approximate_transfer",
    "count_arrays",
    "count_layer",
    "digital_baseline",
    "measure_layer",
    "program_matrix",
    "solve",
    "transfer_matrix",
]
