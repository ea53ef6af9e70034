"""Many virtual devices evaluated as one batched computation in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._batched import FleetRunner
from ohmloop.nn._convert import analog_parameters, hardware_of
from ohmloop.nn._draw import apply_noise, bytes_per_device, chunk_of, fleet_noise
from ohmloop.progress import Progress, ProgressEvent, silent


@dataclass(frozen=True, eq=False)
class FleetResult:
    """Accuracy of one network on a fleet of virtual devices.

    Attributes:
        accuracy: ``N`` accuracies in [0, 1], one a device, in the order of their numbers.
        digital: Accuracy of the nominal weights.
        device: Name of the device model.
        sigma: Its sigma.
        convention: "median-1" or "mean-1".
        seed: Of the fleet.
        n_samples: Inputs that each accuracy is taken over.
    """

    accuracy: NDArray[np.float64]
    digital: float
    device: str
    sigma: float
    convention: str
    seed: int
    n_samples: int

    @property
    def mean(self) -> float:
        """Mean accuracy over devices."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation over devices (sample; 0 for a single device)."""
        return float(self.accuracy.std(ddof=1)) if len(self.accuracy) > 1 else 0.0

    @property
    def worst(self) -> float:
        """Mean accuracy of the worst tenth of the devices, at least one."""
        k = max(1, len(self.accuracy) // 10)
        return float(np.sort(self.accuracy)[:k].mean())

    def to_dict(self) -> dict[str, Any]:
        """Return everything under stable names, ready for JSON."""
        return {
            "device": self.device,
            "sigma": self.sigma,
            "convention": self.convention,
            "seed": self.seed,
            "n_devices": len(self.accuracy),
            "n_samples": self.n_samples,
            "digital": self.digital,
            "mean": self.mean,
            "std": self.std,
            "worst_tenth": self.worst,
            "accuracy": self.accuracy.tolist(),
        }


def fleet_forward(model: nn.Module, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run one batch through many devices at once.

    Args:
        model: Any model without layers that keep statistics in training mode.
        stacked: Parameter name -> ``N x *shape``; parameters not named are shared.
        x: ``B x ...``, the same inputs for every device.

    Returns:
        ``N x B x ...``.

    Raises:
        ConversionError: If a batch norm is in training mode.
    """
    _refuse_batch_statistics(model)
    return FleetRunner(model, frozenset(stacked))(stacked, x)


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or not module.track_running_stats
        ):
            raise ConversionError(
                f"{name} normalises by batch statistics, which many devices at once would share. "
                "Call model.eval() first (and keep track_running_stats=True)."
            )


def evaluate_fleet(
    model: nn.Module,
    split: tuple[Tensor, Tensor],
    *,
    n_devices: int = 100,
    seed: int = 0,
    hardware: Hardware | None = None,
    memory_budget: int = 512 * 2**20,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> FleetResult:
    """Measure the accuracy of ``model`` on each of ``n_devices`` independent virtual devices.

    The result depends on the seed only, not on memory budget or batch size (up to the rounding of
    sums of another order). The model is evaluated in eval mode and left as it was.

    Args:
        model: An analog model that maps ``B x ...`` to ``B x classes``.
        split: Inputs ``n x ...`` and labels ``n``.
        n_devices: Size of the fleet.
        seed: Of the fleet, >= 0.
        hardware: Instead of the model's own.
        memory_budget: Bytes that drawn weights, and activations, may take together.
        batch_size: Inputs at once; by default all that fit.
        progress: Told after each chunk of devices.

    Raises:
        ConversionError: If the model is digital, or the split is empty or of unequal lengths.
    """
    hardware = hardware or hardware_of(model)
    return evaluate_fleets(
        model,
        split,
        [hardware],
        n_devices=n_devices,
        seed=seed,
        memory_budget=memory_budget,
        batch_size=batch_size,
        progress=progress,
    )[0]


def evaluate_fleets(
    model: nn.Module,
    split: tuple[Tensor, Tensor],
    hardwares: Sequence[Hardware],
    *,
    n_devices: int = 100,
    seed: int = 0,
    memory_budget: int = 512 * 2**20,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> list[FleetResult]:
    """Do as `evaluate_fleet` for several hardwares, with the same underlying random numbers.

    Device i of each fleet has the same standard normal numbers, so that differences between
    hardwares are not blurred by different draws.
    """
    x, y = _checked(model, split, n_devices)
    place = next(model.parameters()).device
    correct = np.zeros((len(hardwares), n_devices))
    with evaluating(model), torch.inference_mode():
        digital = _digital(model, x, y, place, batch_size or 1024)
        parameters = {n: p.detach() for n, p in analog_parameters(model).items()}
        run = FleetRunner(model, frozenset(parameters))
        bases = [{n: h.deterministic(p) for n, p in parameters.items()} for h in hardwares]
        chunk, batch = _chunks(model, x, place, n_devices, memory_budget, batch_size)
        done, total = 0, len(hardwares) * n_devices
        for start in range(0, n_devices, chunk):
            devices = range(start, min(start + chunk, n_devices))
            noise = fleet_noise(parameters, devices, seed)
            for k, (hardware, base) in enumerate(zip(hardwares, bases, strict=True)):
                stacked = apply_noise(base, noise, hardware)
                for first in range(0, len(x), batch):
                    logits = run(stacked, x[first : first + batch].to(place))
                    hits = logits.argmax(-1) == y[first : first + batch].to(place)
                    correct[k, start : start + len(devices)] += hits.sum(1).cpu().numpy()
                done += len(devices)
                progress(ProgressEvent("fleet", done, total))
    return [
        FleetResult(
            accuracy=correct[k] / len(x),
            digital=digital,
            device=hardware.device.name,
            sigma=hardware.device.sigma.value,
            convention=hardware.convention,
            seed=seed,
            n_samples=len(x),
        )
        for k, hardware in enumerate(hardwares)
    ]


CACHE = 12 * 2**20
"""Bytes of activations that a CPU keeps near its cores; larger chunks only add memory traffic."""


def _chunks(
    model: nn.Module,
    x: Tensor,
    place: torch.device,
    n_devices: int,
    memory_budget: int,
    batch_size: int | None,
) -> tuple[int, int]:
    """Return how many devices, and how many inputs, go through the model at once."""
    per_input = _bytes_per_input(model, x[:1].to(place))
    weights = bytes_per_device(model)
    near = CACHE if place.type == "cpu" else memory_budget
    # A third of the room for weights; the rest for activations, with no sliver of a batch.
    chunk = chunk_of(n_devices, weights, min(near, memory_budget) // 3)
    batch = batch_size or max(
        chunk_of(len(x), chunk * per_input, min(near, memory_budget) // 2), min(len(x), 32)
    )
    return min(chunk, chunk_of(n_devices, weights + batch * per_input, memory_budget)), batch


def _checked(
    model: nn.Module, split: tuple[Tensor, Tensor], n_devices: int
) -> tuple[Tensor, Tensor]:
    hardware_of(model)
    x, y = split
    if len(x) == 0 or len(x) != len(y) or n_devices < 1:
        raise ConversionError(
            f"a fleet needs at least one device and one input, and as many labels as inputs; "
            f"received {n_devices} devices, {len(x)} inputs, {len(y)} labels."
        )
    return x, y


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def accuracy(model: nn.Module, split: tuple[Tensor, Tensor], batch_size: int = 1024) -> float:
    """Return the accuracy of the nominal weights on ``split``, in eval mode."""
    with evaluating(model), torch.inference_mode():
        return _digital(model, split[0], split[1], next(model.parameters()).device, batch_size)


def _digital(model: nn.Module, x: Tensor, y: Tensor, place: torch.device, batch: int) -> float:
    hits = sum(
        int((model(x[k : k + batch].to(place)).argmax(-1) == y[k : k + batch].to(place)).sum())
        for k in range(0, len(x), batch)
    )
    return hits / len(x)


def _bytes_per_input(model: nn.Module, x: Tensor) -> int:
    """Return the activation memory of one input on one device: the two largest neighbours' sum.

    Inputs of a layer live while its output is made, hence the factor of two on the largest.
    """
    largest = x.numel() * x.element_size()
    handles = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size())

    for module in model.modules():
        handles.append(module.register_forward_hook(note))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return 2 * largest
