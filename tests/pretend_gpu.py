"""A GPU that is not there: shapes and places are followed, no number is computed, the host's reads are counted.

PyTorch's meta tensors have a shape and a place that is not the CPU, so they take the way through the code that
a GPU takes. What they cannot know, numbers that the host asks for, is answered here: true, one, zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("meta")


class Trips(TorchDispatchMode):
    """Counts what makes the host wait for the device, and answers it.

    Attributes:
        count: "read": a number or a tensor that the host asked for; "upload": what it sent;
            "operation": anything else that was computed or copied.
        answers: What truth values are, one after the other; true when they are used up.
    """

    def __init__(self, answers: Sequence[bool] = ()) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.answers = list(answers)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.name()
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name == "aten::_local_scalar_dense":
            assert first is not None
            self.count["read"] += first.device.type == GPU.type
            if first.dtype == torch.bool:
                return self.answers.pop(0) if self.answers else True
            return 1 if not first.is_floating_point() else 1.0
        self.count["operation"] += 1
        # Under inference mode a copy to another place is not taken apart into `_to_copy`.
        if name.startswith(("aten::_to_copy", "aten::to.")) and first is not None:
            before, after = first.device.type, torch.device(kwargs.get("device") or first.device)
            if before == GPU.type and after.type == "cpu":
                self.count["read"] += 1
                return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
            self.count["upload"] += before == "cpu" and after.type == GPU.type
        return func(*args, **kwargs)


class OnCpu(torch.Generator):
    """A generator of the CPU, whatever place is asked for."""

    def __new__(cls, device: object = "cpu") -> OnCpu:
        return super().__new__(cls, "cpu")


@contextmanager
def pretend_gpu(monkeypatch: pytest.MonkeyPatch, answers: Sequence[bool] = ()) -> Iterator[Trips]:
    """While active, tensors on `GPU` can be made and used; generators for it are those of the CPU."""
    monkeypatch.setattr(torch, "Generator", OnCpu)
    with Trips(answers) as trips:
        yield trips
