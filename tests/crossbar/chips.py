"""Devices and streams that the tests of arrays share."""

import torch

from ohmloop.crossbar import Array, Hardware, Streams
from ohmloop.device import DeviceModel, Estimate, Physics


def device(**physics: object) -> DeviceModel:
    """A cell with a window of 1 to 101 uS and whatever a test gives it."""
    window = {"g_min": 1e-6, "g_max": 101e-6, "read_voltage": 0.2}
    return DeviceModel(
        name="test",
        sigma=Estimate(value=0.0),
        physics=Physics.model_validate({**window, **physics}),
    )


def hardware(array: dict[str, object] | None = None, **physics: object) -> Hardware:
    return Hardware(device=device(**physics), array=Array.model_validate(array or {}))


def streams(*seeds: int) -> Streams:
    return Streams([torch.Generator().manual_seed(seed) for seed in seeds])


def matrix(
    n_out: int, n_in: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    return torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(seed), dtype=dtype)
