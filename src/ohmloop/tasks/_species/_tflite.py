"""Graphs of TensorFlow Lite files, read without TensorFlow.

Schema: tensorflow/lite/schema/schema.fbs, version 3 (field numbers below are places in its tables).
Quantisation: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", equation 1: real = scale (q - zero point).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._species._flatbuffer import DamagedBuffer, Table, read_root

_DTYPES = {0: "f4", 1: "f2", 2: "i4", 3: "u1", 4: "i8", 7: "i2", 9: "i1"}
_OPERATORS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
    22: "RESHAPE",
    25: "SOFTMAX",
    40: "MEAN",
}
_OPTIONS = {  # operator -> option -> (field, kind, default)
    "ADD": {"activation": (0, "b", 0)},
    "AVERAGE_POOL_2D": {
        "padding": (0, "b", 0),
        "stride_w": (1, "i", 0),
        "stride_h": (2, "i", 0),
        "filter_w": (3, "i", 0),
        "filter_h": (4, "i", 0),
        "activation": (5, "b", 0),
    },
    "CONV_2D": {
        "padding": (0, "b", 0),
        "stride_w": (1, "i", 0),
        "stride_h": (2, "i", 0),
        "activation": (3, "b", 0),
        "dilation_w": (4, "i", 1),
        "dilation_h": (5, "i", 1),
    },
    "DEPTHWISE_CONV_2D": {
        "padding": (0, "b", 0),
        "stride_w": (1, "i", 0),
        "stride_h": (2, "i", 0),
        "multiplier": (3, "i", 0),
        "activation": (4, "b", 0),
        "dilation_w": (5, "i", 1),
        "dilation_h": (6, "i", 1),
    },
    "FULLY_CONNECTED": {"activation": (0, "b", 0)},
}
SAME, VALID = 0, 1
LINEAR, RELU6 = 0, 3
# Bounds on what a file may ask of us; the largest networks of the format stay far below.
_MAX_FILE = 2**30
_MAX_PARTS = 20_000
_MAX_DIMS = 8


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of a file.

    Attributes:
        shape: As stored: NHWC for images, OHWI for convolutions, 1HWC for depthwise ones.
        raw: Its numbers in that shape, read-only; None for what is computed.
        dtype: NumPy's name of the type.
        scale: One number, or one for each place along ``axis``; empty if not quantised.
        zero_point: As many as ``scale``.
        axis: Of per-channel scales.
    """

    shape: tuple[int, ...]
    raw: NDArray[np.generic] | None
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int

    def real(self) -> NDArray[np.float32]:
        """Return the numbers as real ones; TaskError if there are none or some are not finite."""
        if self.raw is None:
            raise TaskError("weights that the network needs are computed in the file, not stored.")
        if not len(self.scale):
            out = self.raw.astype(np.float32)
        else:
            along = [1] * len(self.shape)
            if len(self.scale) > 1:
                along[self.axis] = -1
            shift, scale = self.zero_point.reshape(along), self.scale.reshape(along)
            with np.errstate(over="ignore"):
                out = ((self.raw.astype(np.int64) - shift) * scale.astype(np.float64)).astype("f4")
        if not np.isfinite(out).all():
            raise TaskError("stored weights are not finite; the file is damaged.")
        return np.asarray(out, np.float32)


@dataclass(frozen=True)
class Operator:
    """One step of a graph.

    Attributes:
        name: Of the operator in the schema.
        inputs: Numbers of tensors; -1 for an optional one left out.
        outputs: Numbers of tensors.
        options: Those of `_OPTIONS`.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network of one file: tensors, and steps in the order of their execution."""

    tensors: tuple[Stored, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: Path) -> Graph:
    """Return the graph of a TensorFlow Lite file.

    Raises:
        TaskError: If the file is missing, damaged, or has operators or types this reader does not know.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise TaskError(
                f"{path} has more than {_MAX_FILE} bytes; this reader takes smaller networks."
            )
        buffer = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
    return parse_tflite(buffer, str(path))


def parse_tflite(buffer: bytes, where: str) -> Graph:
    """Return the graph of the bytes of a file; errors as `read_tflite`, naming ``where`` they came from."""
    try:
        return _graph(read_root(buffer, b"TFL3"))
    except DamagedBuffer as error:
        raise TaskError(
            f"{where} is no TensorFlow Lite file, or a damaged one: {error}. Get it again."
        ) from error
    except TaskError as error:
        raise TaskError(f"{where}: {error}") from error


def _graph(model: Table) -> Graph:
    if model.number(0, "I") != 3:
        raise DamagedBuffer(f"version {model.number(0, 'I')} of the schema, 3 expected")
    graphs = _few(model.tables(2), "graphs")
    if len(graphs) != 1:
        raise DamagedBuffer(f"{len(graphs)} graphs, one expected")
    (graph,) = graphs
    buffers = _few(model.tables(4), "buffers")
    tensors = tuple(_tensor(t, buffers) for t in _few(graph.tables(0), "tensors"))
    names = [_operator_name(code) for code in _few(model.tables(1), "operator codes")]
    operators = tuple(_operator(o, names, len(tensors)) for o in _few(graph.tables(3), "operators"))
    inputs, outputs = (_places(graph, field, len(tensors)) for field in (1, 2))
    return Graph(tensors, operators, inputs, outputs)


def _few(tables: tuple[Table, ...], what: str) -> tuple[Table, ...]:
    if len(tables) > _MAX_PARTS:
        raise DamagedBuffer(f"{len(tables)} {what}")
    return tables


def _operator_name(code: Table) -> str:
    # Codes above 127 do not fit the old one-byte field, which holds 127 then; the larger one counts.
    number = max(code.number(0, "b"), code.number(3, "i"))
    if number not in _OPERATORS:
        raise TaskError(
            f"has the operator {number} of the schema; this reader knows {', '.join(_OPERATORS.values())}."
        )
    return _OPERATORS[number]


def _places(table: Table, field: int, n_tensors: int) -> tuple[int, ...]:
    places = table.array(field, "i4")
    if len(places) > _MAX_DIMS or not all(-1 <= int(p) < n_tensors for p in places):
        raise DamagedBuffer("an operator names tensors that do not exist")
    return tuple(int(p) for p in places)


def _operator(table: Table, names: list[str], n_tensors: int) -> Operator:
    number = table.number(0, "I")
    if number >= len(names):
        raise DamagedBuffer(f"an operator has the code {number} of {len(names)}")
    name, options = names[number], table.table(4)
    known = _OPTIONS.get(name, {})
    values = {
        key: default if options is None else options.number(field, kind, default)
        for key, (field, kind, default) in known.items()
    }
    return Operator(name, _places(table, 1, n_tensors), _places(table, 2, n_tensors), values)


def _tensor(table: Table, buffers: tuple[Table, ...]) -> Stored:
    code, number = table.number(1, "b"), table.number(2, "I")
    if code not in _DTYPES:
        raise TaskError(
            f"has a tensor of type {code} of the schema, which this reader does not know."
        )
    if number >= len(buffers):
        raise DamagedBuffer(f"a tensor lies in buffer {number} of {len(buffers)}")
    dims = table.array(0, "i4")
    if len(dims) > _MAX_DIMS or not all(int(n) > 0 for n in dims):
        raise DamagedBuffer("a tensor has an impossible shape")
    shape = tuple(int(n) for n in dims)
    raw = _numbers(buffers[number], _DTYPES[code])
    scale, zero_point, axis = _quantisation(table.table(4), shape, _DTYPES[code])
    if len(raw) == 0:
        return Stored(shape, None, _DTYPES[code], scale, zero_point, axis)
    size = 1
    for n in shape:
        size *= n
    if len(raw) != size:
        raise DamagedBuffer(f"a tensor of {shape} has {len(raw)} numbers")
    return Stored(shape, raw.reshape(shape), _DTYPES[code], scale, zero_point, axis)


def _numbers(buffer: Table, dtype: str) -> NDArray[np.generic]:
    data = buffer.array(0, "u1")
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) % kind.itemsize:
        raise DamagedBuffer(f"{len(data)} bytes of numbers of {kind.itemsize}")
    return data.view(kind)


def _quantisation(
    table: Table | None, shape: tuple[int, ...], dtype: str
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    scale = np.empty(0, np.float32) if table is None else table.array(2, "f4").astype(np.float32)
    if table is None or not len(scale):
        return np.empty(0, np.float32), np.empty(0, np.int64), 0
    zero_point, axis = table.array(3, "i8").astype(np.int64), table.number(6, "i")
    if dtype.startswith("f"):
        raise DamagedBuffer("a floating tensor has a quantisation scale")
    if len(scale) > 1 and (not 0 <= axis < len(shape) or len(scale) != shape[axis]):
        raise DamagedBuffer(f"a tensor of {shape} has {len(scale)} quantisation scales")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise DamagedBuffer("a quantisation scale is not positive")
    bounds = np.iinfo(dtype)
    inside = ((zero_point >= bounds.min) & (zero_point <= bounds.max)).all()
    if len(zero_point) != len(scale) or not inside:
        raise DamagedBuffer("a quantisation zero point is out of its type")
    return scale, zero_point, axis
