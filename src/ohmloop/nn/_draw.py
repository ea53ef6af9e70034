"""Devices drawn for the analog parameters: one for a training step, or a whole fleet at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._convert import analog_parameters, law_parameters, need
from ohmloop.nn._deployment import Deployment


def draw(
    model: nn.Module, generator: torch.Generator, hardware: Hardware | None = None
) -> dict[str, Tensor]:
    """Draw one device: what it holds for every analog parameter, differentiable in the weights.

    Use it with ``torch.func.functional_call(model, draw(model, generator), (x,))``.

    Args:
        model: An analog model.
        generator: Source of the randomness, on the model's device.
        hardware: Instead of the model's own.

    Returns:
        Parameter name -> perturbed weights, in the parameter's own shape.
    """
    of = own_hardware(model) if hardware is None else hardware
    return {
        name: _law(of, name).perturb(p, generator) for name, p in analog_parameters(model).items()
    }


def own_hardware(model: nn.Module) -> Hardware | dict[str, Hardware]:
    """Return the hardware of ``model``: one, or that of each analog parameter where layers differ."""
    record = need(model)
    kinds = list(record.hardware.values())
    return kinds[0] if all(h == kinds[0] for h in kinds) else record.parameters


def _law(hardware: Hardware | Mapping[str, Hardware], name: str) -> Hardware:
    """Return the law on one parameter's weights."""
    found = hardware if isinstance(hardware, Hardware) else hardware[name]
    if found.array is not None:
        raise ConversionError(
            f"{name} is on an array, which holds conductances; devices are drawn for the law on weights "
            "only. Program a chip: program(model, seed)."
        )
    return found


def programmed(
    parameters: Mapping[str, Tensor], hardware: Hardware | Mapping[str, Hardware]
) -> dict[str, Tensor]:
    """Return what devices are programmed to, before noise."""
    return {name: _law(hardware, name).deterministic(p) for name, p in parameters.items()}


def device_seed(seed: int, device: int) -> int:
    """Return the generator seed of one device of a fleet, 63 bits from (seed, device).

    The fleet's seed is hashed (NumPy's `SeedSequence`); the device walks through the low 32 bits by an
    odd step, because torch's CPU generator looks at those only: no two of the 2^32 devices of a fleet
    share a seed, which independent hashes could not promise.
    """
    high, low = _hashed(seed)
    return (high >> 1 << 32) | ((low + _STEP * device) % 2**32)


@lru_cache(maxsize=64)
def _hashed(seed: int) -> tuple[int, int]:
    """Return two 32-bit numbers from a seed; kept, because a fleet asks once for each device."""
    high, low = np.random.SeedSequence(seed).generate_state(2)
    return int(high), int(low)


_STEP = 0x9E3779B1  # odd, 2^32 divided by the golden ratio (Knuth, TAOCP 3, section 6.4)


def draw_fleet(
    model: nn.Module, devices: Sequence[int], seed: int, hardware: Hardware | None = None
) -> dict[str, Tensor]:
    """Draw many devices at once. Device i depends on (seed, i) only, not on its neighbours.

    Args:
        model: An analog model.
        devices: The numbers of the ``N`` devices.
        seed: Of the fleet, >= 0.
        hardware: Instead of the model's own.

    Returns:
        Parameter name -> ``N x *shape``, without gradient.
    """
    of = own_hardware(model) if hardware is None else hardware
    with torch.no_grad():
        own = {name: p.detach() for name, p in analog_parameters(model).items()}
        parameters = programmed(own, of)
        noise = fleet_noise(parameters, devices, seed)
        return apply_noise(parameters, noise, of)


Noise = Tensor | dict[str, Tensor]
"""Standard normal numbers, ``N x arrays x D`` with D all scalars of the parameters; or by parameter, where
layers have their own numbers of arrays."""


def fleet_noise(
    parameters: dict[str, Tensor],
    devices: Sequence[int],
    seed: int,
    deployment: Deployment | None = None,
) -> Noise:
    """Return the random numbers of devices, on each of the arrays that a deployment averages."""
    deployment = deployment or Deployment()
    first = next(iter(parameters.values()))
    dtypes = {p.dtype for p in parameters.values()}
    places = {p.device for p in parameters.values()}
    if len(places) > 1:
        raise ConversionError(
            f"analog parameters lie on several devices ({places}); move the model."
        )
    # Half-precision weights get single-precision noise, rounded once at the end.
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    generator = torch.Generator(device=first.device)
    if deployment.layer_arrays:
        counts = {n: deployment.arrays_of(n.rpartition(".")[0]) for n in parameters}
        by_name = {
            n: torch.empty(len(devices), counts[n], p.numel(), dtype=dtype, device=first.device)
            for n, p in parameters.items()
        }
        for row, device in enumerate(devices):
            generator.manual_seed(device_seed(seed, device))
            for block in by_name.values():
                torch.randn(block[row].shape, generator=generator, out=block[row])
        return by_name
    arrays = deployment.arrays
    total = sum(p.numel() for p in parameters.values())
    out = torch.empty(len(devices), arrays, total, dtype=dtype, device=first.device)
    for row, device in enumerate(devices):
        generator.manual_seed(device_seed(seed, device))
        for array in range(arrays):
            torch.randn(total, generator=generator, out=out[row, array])
    return out


def apply_noise(
    parameters: dict[str, Tensor],
    noise: Noise,
    hardware: Hardware | Mapping[str, Hardware],
    deployment: Deployment | None = None,
) -> dict[str, Tensor]:
    """Return ``parameters * exp(sigma * noise)``, split by name; ``noise`` is left unchanged.

    Several arrays are averaged: they hold the same weights and their outputs add up.
    """
    if not isinstance(hardware, Hardware) or not isinstance(noise, Tensor):
        return _apply_each(parameters, noise, hardware, deployment)
    sigma = hardware.device.sigma.value
    centred = hardware.convention == "mean-1" or (deployment is not None and deployment.mean_gain)
    shift = -0.5 * sigma * sigma if centred else 0.0
    factors = noise.mul(sigma).add_(shift).exp_() if shift else noise.mul(sigma).exp_()
    factors = factors.mean(1) if factors.shape[1] > 1 else factors[:, 0]
    out, start = {}, 0
    for name, p in parameters.items():
        stop = start + p.numel()
        block = factors[:, start:stop].reshape(-1, *p.shape)
        out[name] = (block * p).to(p.dtype)
        start = stop
    return out


def _apply_each(
    parameters: dict[str, Tensor],
    noise: Noise,
    hardware: Hardware | Mapping[str, Hardware],
    deployment: Deployment | None,
) -> dict[str, Tensor]:
    """Do as `apply_noise` where layers differ: parameter by parameter."""
    out: dict[str, Tensor] = {}
    start = 0
    for name, p in parameters.items():
        stop = start + p.numel()
        own = noise[..., start:stop] if isinstance(noise, Tensor) else noise[name]
        law = hardware if isinstance(hardware, Hardware) else hardware[name]
        out |= apply_noise({name: p}, own, law, deployment)
        start = stop
    return out


def bytes_per_device(model: nn.Module, deployment: Deployment | None = None) -> int:
    """Return the memory that one drawn device takes: noise, factors and weights of the law."""
    deployment, parameters = deployment or Deployment(), law_parameters(model)
    wide = 8 if any(p.dtype == torch.float64 for p in parameters.values()) else 4
    return sum(
        p.numel() * (2 * wide * deployment.arrays_of(name.rpartition(".")[0]) + p.element_size())
        for name, p in parameters.items()
    )


BUDGET = 512 * 2**20
"""Bytes that drawn weights, and activations, may take together on a CPU."""

FREE_SHARE = 0.5
"""Share of a GPU's free memory that they may take there: the rest is for cuDNN's work space and fragments."""


def budget_of(place: torch.device, asked: int | None = None) -> int:
    """Return the bytes that a fleet may take on a device: those asked for, else by what is free there.

    Free is what the driver has left and what PyTorch keeps of it without use.
    """
    if asked is not None:
        return asked
    if place.type != "cuda":
        return BUDGET
    idle = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return int(FREE_SHARE * (torch.cuda.mem_get_info(place)[0] + idle))


def chunk_of(total: int, per_item: int, budget: int) -> int:
    """Return how many of ``total`` items fit in ``budget`` bytes, at least one."""
    return max(1, min(total, math.floor(budget / max(1, per_item))))
