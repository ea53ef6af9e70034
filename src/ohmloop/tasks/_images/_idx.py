"""IDX files, the format of MNIST and Fashion-MNIST (Y. LeCun, "The MNIST database", file formats)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError

_UINT8 = 0x08
_MAX_BYTES = 2 * 2**30


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Raises:
        TaskError: If the file is missing, damaged, or of another type.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                data = file.read(_MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8 or not 1 <= data[3] <= 4:
        raise TaskError(f"{path} is no IDX file of unsigned bytes. Get the data set again.")
    n_dims = data[3]
    shape = (
        tuple(int(n) for n in np.frombuffer(data, ">u4", n_dims, 4))
        if len(data) >= 4 + 4 * n_dims
        else ()
    )
    size = 1
    for n in shape:
        size *= n
    if not shape or len(data) != 4 + 4 * n_dims + size:
        raise TaskError(
            f"{path} should hold {shape} bytes after its header, and holds "
            f"{len(data) - 4 - 4 * n_dims}. It is truncated or damaged; get the data set again."
        )
    return np.frombuffer(data, np.uint8, size, 4 + 4 * n_dims).reshape(shape)
