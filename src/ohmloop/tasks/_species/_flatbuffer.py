"""FlatBuffers, read with every offset checked (format: Google, "FlatBuffer internals")."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SCALARS = {"b": 1, "B": 1, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8}


class DamagedBuffer(ValueError):
    """An offset or a length points out of the buffer."""


class Table(NamedTuple):
    """A table of a buffer: optional fields found by their number in the schema.

    Attributes:
        buffer: The whole file.
        at: Where the table begins.
    """

    buffer: bytes
    at: int

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return an integer field; ``kind`` is its letter of `struct`."""
        where = self._field(field)
        return default if where is None else int(_number(self.buffer, where, kind))

    def table(self, field: int) -> Table | None:
        """Return the table that a field points to, None if it is not set."""
        where = self._field(field)
        return None if where is None else Table(self.buffer, _follow(self.buffer, where))

    def tables(self, field: int) -> tuple[Table, ...]:
        """Return the tables of a vector field, none if it is not set."""
        start, n = self._vector(field, 4)
        places = range(start, start + 4 * n, 4)
        return tuple(Table(self.buffer, _follow(self.buffer, at)) for at in places)

    def array(self, field: int, dtype: str) -> NDArray[np.generic]:
        """Return a vector field of numbers, read-only; empty if it is not set."""
        start, n = self._vector(field, np.dtype(dtype).itemsize)
        return np.frombuffer(self.buffer, np.dtype(dtype).newbyteorder("<"), n, start)

    def text(self, field: int) -> str:
        """Return a text field, "" if it is not set."""
        return self.array(field, "u1").tobytes().decode("utf-8", "replace")

    def _field(self, field: int) -> int | None:
        vtable = self.at - _number(self.buffer, self.at, "i")
        size = _number(self.buffer, vtable, "H")
        slot = 4 + 2 * field
        if slot + 2 > size:
            return None
        offset = _number(self.buffer, vtable + slot, "H")
        return None if offset == 0 else self.at + offset

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        where = self._field(field)
        if where is None:
            return 0, 0
        start = _follow(self.buffer, where)
        n = _number(self.buffer, start, "I")
        if start + 4 + n * width > len(self.buffer):
            raise DamagedBuffer(f"a vector of {n} at byte {start} runs out of the file")
        return start + 4, n


def read_root(buffer: bytes, identifier: bytes) -> Table:
    """Return the root table.

    Raises:
        DamagedBuffer: If the buffer does not carry the four letters of the identifier.
    """
    if buffer[4:8] != identifier:
        raise DamagedBuffer(f"its bytes 4 to 8 are {buffer[4:8]!r}, not {identifier!r}")
    return Table(buffer, _follow(buffer, 0))


def _number(buffer: bytes, at: int, kind: str) -> int:
    if not 0 <= at <= len(buffer) - _SCALARS[kind]:
        raise DamagedBuffer(f"byte {at} is out of the file")
    (value,) = struct.unpack_from(f"<{kind}", buffer, at)
    return int(value)


def _follow(buffer: bytes, at: int) -> int:
    return at + _number(buffer, at, "I")
