"""Reads tensors in the safetensors format: a length, a JSON header, then the bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ohmloop.errors import TaskError

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; half precision becomes float32.

    Raises:
        TaskError: If the file is missing, damaged, or holds a type that weights do not have.
    """
    try:
        data = bytearray(path.read_bytes())
        n = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + n])
        header.pop("__metadata__", None)
        body = memoryview(data)[8 + n :]
        return {name: _tensor(body, fields) for name, fields in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaskError(
            f"{path} is no readable safetensors file ({error}). Delete it and get it again."
        ) from error


def _tensor(body: memoryview, fields: dict[str, Any]) -> Tensor:
    dtype, shape = _TYPES[fields["dtype"]], fields["shape"]
    start, end = fields["data_offsets"]
    size = math.prod(shape) * dtype.itemsize
    if end - start != size or not 0 <= start <= end <= len(body):
        raise ValueError(f"bytes {start} to {end} of {len(body)} where {size} are due")
    if size == 0:
        return torch.zeros(shape, dtype=dtype)
    flat = torch.frombuffer(body[start:end], dtype=dtype)
    return (flat.float() if dtype.itemsize == 2 else flat.clone()).reshape(shape)
