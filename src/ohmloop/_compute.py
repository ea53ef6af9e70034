"""Whether torch can compute where it is asked to."""

from __future__ import annotations

from ohmloop.errors import OhmloopError


def check_compute(device: str, error: type[OhmloopError]) -> None:
    """Raise ``error`` unless torch can make a tensor on ``device``, "cpu" or "cuda:1" for example."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as reason:
        first = str(reason).partition("\n")[0]
        raise error(f"torch cannot compute on {device!r} here: {first}. Use cpu.") from reason
