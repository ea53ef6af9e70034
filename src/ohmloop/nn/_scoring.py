"""What evaluations share: eval mode, scores of the nominal weights, sizes of chunks, results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._batch_norm import in_mode, nominal_batch_norm
from ohmloop.nn._convert import need
from ohmloop.nn._deploy import too_few_inputs
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._draw import budget_of, bytes_per_device, chunk_of
from ohmloop.nn._result import FleetResult
from ohmloop.progress import Progress, ProgressEvent
from ohmloop.tasks import Accuracy, Metric

Assigned = Hardware | Mapping[str, Hardware]
"""One hardware for all layers, or one for each by name."""


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Put ``model`` into eval mode, and every module back into its own mode afterwards."""
    return in_mode(model, training=False)


def accuracy(model: nn.Module, split: tuple[Tensor, Tensor], batch_size: int = 1024) -> float:
    """Return the accuracy of ``model`` as it stands (nominal weights, or the chip that it is), in eval mode."""
    return score(model, split, Accuracy(), batch_size)


def score(
    model: nn.Module,
    split: tuple[Tensor, Tensor],
    metric: Metric,
    batch_size: int | None = None,
) -> float:
    """Return the score of ``model`` as it stands (nominal weights, or the chip that it is), in eval mode."""
    with evaluating(model), torch.inference_mode():
        place = next(model.parameters()).device
        x, y = placed(split, place)
        return _digital(model, x, y, place, batch_size or nominal_batch(x), metric)


def _digital(
    model: nn.Module, x: Tensor, y: Tensor, place: torch.device, batch: int, metric: Metric
) -> float:
    total = sum(
        metric.totals(model(x[k : k + batch].to(place)).unsqueeze(0), y[k : k + batch].to(place))
        for k in range(0, len(x), batch)
    )
    assert isinstance(total, Tensor)
    return float(metric.value(total.cpu().numpy())[0])


def nominal_batch(x: Tensor) -> int:
    """Return a batch of inputs whose activations stay small: about 1,024 images of 32 x 32."""
    return max(1, min(1024, 2**22 // max(1, x[0].numel())))


KEPT_SHARE = 4
"""Test data move to a GPU as a whole where they fit the budget this many times, else batch by batch."""


def placed(
    data: Sequence[Tensor], place: torch.device, memory_budget: int | None = None
) -> list[Tensor]:
    """Return test data on the device where they fit there, as they are otherwise."""
    if KEPT_SHARE * sum(part.nbytes for part in data) > budget_of(place, memory_budget):
        return list(data)
    return [part.to(place) for part in data]


CACHE = 12 * 2**20
"""Bytes of activations that a CPU keeps near its cores; larger chunks only add memory traffic."""

COUNTED = 8 * 2**30
"""Bytes that chunks are planned for on a GPU at most: kernels count the numbers of a tensor in 32 bits, and a
GPU is busy long before."""


def _chunks(
    model: nn.Module,
    x: Tensor,
    place: torch.device,
    n_devices: int,
    memory_budget: int,
    batch_size: int | None,
    n_samples: int,
    deployment: Deployment,
) -> tuple[int, int]:
    """Return how many devices, and how many inputs, go through the model at once."""
    per_input = _bytes_per_input(model, x[:1].to(place))
    weights = bytes_per_device(model, deployment)
    near = CACHE if place.type == "cpu" else COUNTED
    # A third of the room for weights; the rest for activations, with no sliver of a batch.
    chunk = chunk_of(n_devices, weights, min(near, memory_budget) // 3)
    batch = batch_size or max(
        chunk_of(len(x), chunk * per_input, min(near, memory_budget) // 2), min(len(x), 32)
    )
    most = max(batch, n_samples)  # calibration passes hold all their samples at once
    return min(chunk, chunk_of(n_devices, weights + most * per_input, memory_budget)), batch


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


def _samples(
    deployment: Deployment, unlabelled: Tensor | None, place: torch.device
) -> Tensor | None:
    if not deployment.sees_inputs:
        return None
    found = 0 if unlabelled is None else len(unlabelled)
    if unlabelled is None or found < deployment.samples:
        raise too_few_inputs(deployment, found)
    return unlabelled[: deployment.samples].to(place)


def deployed_statistics(
    model: nn.Module, deployment: Deployment, unlabelled: Tensor | None, batch: int
) -> AbstractContextManager[None]:
    """Give batch norm the nominal weights' statistics where devices are brought to the nominal network."""
    if deployment.calibration in ("channel", "layer", "readout") and unlabelled is not None:
        return nominal_batch_norm(model, unlabelled, batch)
    return nullcontext()


def _checked(
    model: nn.Module, split: tuple[Tensor, Tensor], n_devices: int
) -> tuple[Tensor, Tensor]:
    need(model)
    x, y = split
    if len(x) == 0 or len(x) != len(y) or n_devices < 1:
        raise ConversionError(
            f"a fleet needs at least one device and one input, and as many labels as inputs; "
            f"received {n_devices} devices, {len(x)} inputs, {len(y)} labels."
        )
    return x, y


Forward = Callable[[Tensor], Tensor]
"""From inputs ``B x ...`` to the outputs of N devices, ``N x B x ...``."""


def scored_fleets(
    split: tuple[Tensor, Tensor],
    hardwares: Sequence[Assigned],
    forwards: Callable[[range], Iterable[Forward]],
    *,
    n_devices: int,
    chunk: int,
    batch: int,
    place: torch.device,
    metric: Metric,
    digital: float,
    deployment: Deployment,
    layer_arrays: tuple[tuple[str, int], ...],
    seed: int,
    progress: Progress,
) -> list[FleetResult]:
    """Score devices by their outputs, chunk by chunk.

    Args:
        split: Inputs ``n x ...`` and targets ``n x ...``.
        hardwares: What the results are called after.
        forwards: From the numbers of a chunk's devices to one forward for each hardware, made one by one: each
            is done with before the next is asked for.
        n_devices: Of each fleet.
        chunk: Devices at once.
        batch: Inputs at once.
        place: Where torch computes.
        metric: How outputs are scored.
        digital: Score of the nominal weights.
        deployment: What each device gets, for the record.
        layer_arrays: Layers and their arrays, for the record.
        seed: Of the fleet, for the record.
        progress: Told after each chunk.
    """
    x, y = split
    totals: list[NDArray[np.float64]] = []
    done, total = 0, len(hardwares) * n_devices
    for start in range(0, n_devices, chunk):
        devices = range(start, min(start + chunk, n_devices))
        for k, forward in enumerate(forwards(devices)):
            sums = sum(
                metric.totals(
                    forward(x[first : first + batch].to(place)),
                    y[first : first + batch].to(place),
                )
                for first in range(0, len(x), batch)
            )
            assert isinstance(sums, Tensor)
            if len(totals) == k:
                totals.append(np.zeros((n_devices, sums.shape[1])))
            totals[k][start : start + len(devices)] = sums.cpu().numpy()
            done += len(devices)
            progress(ProgressEvent("fleet", done, total))
    return [
        _result(
            metric.value(sums),
            digital,
            hardware,
            deployment,
            layer_arrays,
            seed,
            metric.name,
            metric.is_higher_better,
            len(x),
        )
        for sums, hardware in zip(totals, hardwares, strict=True)
    ]


def measured_fleets(
    measure: Callable[[], float | Mapping[str, float]],
    hardwares: Sequence[Assigned],
    devices: Callable[[int], Iterable[AbstractContextManager[object]]],
    *,
    n_devices: int,
    name: str,
    is_higher_better: bool,
    digital: float | Mapping[str, float],
    deployment: Deployment,
    layer_arrays: tuple[tuple[str, int], ...],
    seed: int,
    progress: Progress,
) -> list[FleetResult]:
    """Score devices by what they do, one at a time.

    Args:
        measure: Scores the model as it stands; of several figures by name, the first is the score.
        hardwares: What the results are called after.
        devices: From a device's number to one context for each hardware, in which the model is that device;
            made one by one.
        n_devices: Of each fleet.
        name: Of the score.
        is_higher_better: False for an error.
        digital: What it says of the nominal weights.
        deployment: What each device gets, for the record.
        layer_arrays: Layers and their arrays, for the record.
        seed: Of the fleet, for the record.
        progress: Told after each device.
    """
    nominal = _by_name(digital, name)
    score, *further = nominal
    values = np.zeros((len(hardwares), len(nominal), n_devices))
    for device in range(n_devices):
        for k, installed in enumerate(devices(device)):
            with installed:
                found = _by_name(measure(), name)
            values[k, :, device] = [found[figure] for figure in nominal]
            done = device * len(hardwares) + k + 1
            progress(ProgressEvent("devices", done, len(hardwares) * n_devices, name))
    return [
        replace(
            _result(
                scores,
                nominal[score],
                hardware,
                deployment,
                layer_arrays,
                seed,
                name,
                is_higher_better,
                1,
            ),
            figures=dict(zip(further, others, strict=True)),
            digital_figures={figure: nominal[figure] for figure in further},
        )
        for (scores, *others), hardware in zip(values, hardwares, strict=True)
    ]


def _by_name(measured: float | Mapping[str, float], name: str) -> dict[str, float]:
    """Return what was measured by name, the score first."""
    if isinstance(measured, Mapping):
        return {figure: float(value) for figure, value in measured.items()}
    return {name: float(measured)}


def _result(
    scores: NDArray[np.float64],
    digital: float,
    hardware: Assigned,
    deployment: Deployment,
    layer_arrays: tuple[tuple[str, int], ...],
    seed: int,
    metric: str,
    is_higher_better: bool,
    n_samples: int,
) -> FleetResult:
    every = [hardware] if isinstance(hardware, Hardware) else list(hardware.values())
    return FleetResult(
        scores=scores,
        digital=digital,
        metric=metric,
        is_higher_better=is_higher_better,
        device=" + ".join(dict.fromkeys(h.device.name for h in every)),
        sigma=max(h.device.sigma.value for h in every),
        convention=" + ".join(dict.fromkeys(h.convention for h in every)),
        deployment=str(deployment),
        seed=seed,
        n_samples=n_samples,
        layer_arrays=layer_arrays,
    )
