"""Many virtual devices evaluated as one batched computation in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._batched import FleetRunner
from ohmloop.nn._convert import analog_parameters, hardware_of
from ohmloop.nn._deploy import Deployment, nominal_batch_norm, too_few_inputs
from ohmloop.nn._draw import apply_noise, bytes_per_device, chunk_of, fleet_noise
from ohmloop.nn._result import FleetResult
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.tasks import Accuracy, Metric


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
    metric: Metric | None = None,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    memory_budget: int = 512 * 2**20,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> FleetResult:
    """Score ``model`` on each of ``n_devices`` independent virtual devices.

    The result depends on the seed only, not on memory budget or batch size (up to the rounding of
    sums of another order). The model is evaluated in eval mode and left as it was.

    Args:
        model: An analog model that maps ``B x ...`` to outputs ``B x ...`` that the metric takes.
        split: Inputs ``n x ...`` and targets ``n x ...``.
        n_devices: Size of the fleet.
        seed: Of the fleet, >= 0.
        hardware: Instead of the model's own.
        metric: How outputs are scored; accuracy by default.
        deployment: What each device gets beside its weights; nothing by default.
        unlabelled: Inputs ``k x ...`` of the training data, for deployments that show devices some; the
            first ``deployment.samples`` are used.
        memory_budget: Bytes that drawn weights, and activations, may take together.
        batch_size: Inputs at once; by default all that fit.
        progress: Told after each chunk of devices.

    Raises:
        ConversionError: If the model is digital, the split is empty or of unequal lengths, or the
            deployment lacks its unlabelled inputs.
    """
    hardware = hardware or hardware_of(model)
    return evaluate_fleets(
        model,
        split,
        [hardware],
        n_devices=n_devices,
        seed=seed,
        metric=metric,
        deployment=deployment,
        unlabelled=unlabelled,
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
    metric: Metric | None = None,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    memory_budget: int = 512 * 2**20,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> list[FleetResult]:
    """Do as `evaluate_fleet` for several hardwares, with the same underlying random numbers.

    Device i of each fleet has the same standard normal numbers, so that differences between
    hardwares are not blurred by different draws.
    """
    x, y = _checked(model, split, n_devices)
    metric, deployment = metric or Accuracy(), deployment or Deployment()
    place = next(model.parameters()).device
    samples = _samples(deployment, unlabelled, place)
    totals: list[NDArray[np.float64]] = []
    once = _nominal_batch(x)
    # Adapters are trained on the drawn weights, which inference tensors do not allow.
    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        digital = _digital(model, x, y, place, batch_size or once, metric)
        parameters = {n: p.detach() for n, p in analog_parameters(model).items()}
        stack.enter_context(_statistics(model, deployment, unlabelled, once))
        run = FleetRunner(model, frozenset(parameters), deployment)
        bases = [{n: h.deterministic(p) for n, p in parameters.items()} for h in hardwares]
        chunk, batch = _chunks(
            model,
            x,
            place,
            n_devices,
            memory_budget,
            batch_size,
            0 if samples is None else len(samples),
            deployment.arrays,
        )
        done, total = 0, len(hardwares) * n_devices
        for start in range(0, n_devices, chunk):
            devices = range(start, min(start + chunk, n_devices))
            noise = fleet_noise(parameters, devices, seed, deployment.arrays)
            for k, (hardware, base) in enumerate(zip(hardwares, bases, strict=True)):
                stacked = apply_noise(base, noise, hardware, deployment)
                calibrated = None if samples is None else run.calibrate(stacked, samples)
                sums = sum(
                    metric.totals(
                        run(stacked, x[first : first + batch].to(place), calibrated),
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
            seed,
            metric.name,
            metric.is_higher_better,
            len(x),
        )
        for sums, hardware in zip(totals, hardwares, strict=True)
    ]


def evaluate_measure(
    model: nn.Module,
    measure: Callable[[nn.Module], float],
    hardwares: Sequence[Hardware],
    *,
    name: str,
    is_higher_better: bool = True,
    n_devices: int = 10,
    seed: int = 0,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    progress: Progress = silent,
) -> list[FleetResult]:
    """Score devices by what they do: drive, decode, detect. One device at a time.

    Args:
        model: An analog model; during each measurement it holds one device's weights.
        measure: Called with the model in eval mode, without gradients.
        hardwares: What devices are drawn from; device i has the same random numbers for each.
        name: Of the score.
        is_higher_better: False for an error.
        n_devices: Size of each fleet.
        seed: Of the fleet, >= 0; device i is the one that `evaluate_fleet` gives this seed.
        deployment: What each device gets beside its weights.
        unlabelled: Inputs ``k x ...`` for deployments that show devices some.
        progress: Told after each device.
    """
    hardware_of(model)
    if n_devices < 1:
        raise ConversionError(f"a fleet needs at least one device; received {n_devices}.")
    deployment = deployment or Deployment()
    samples = _samples(deployment, unlabelled, next(model.parameters()).device)
    scores = np.zeros((len(hardwares), n_devices))
    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        digital = float(measure(model))
        if unlabelled is not None:
            once = _nominal_batch(unlabelled)
            stack.enter_context(_statistics(model, deployment, unlabelled, once))
        parameters = {n: p.detach().clone() for n, p in analog_parameters(model).items()}
        bases = [{n: h.deterministic(p) for n, p in parameters.items()} for h in hardwares]
        run = FleetRunner(model, frozenset(parameters), deployment)
        for device in range(n_devices):
            noise = fleet_noise(parameters, [device], seed, deployment.arrays)
            for k, (hardware, base) in enumerate(zip(hardwares, bases, strict=True)):
                stacked = apply_noise(base, noise, hardware, deployment)
                calibrated = None if samples is None else run.calibrate(stacked, samples)
                with run.installed({n: w[0] for n, w in stacked.items()}, calibrated):
                    scores[k, device] = measure(model)
                progress(
                    ProgressEvent("devices", device * len(hardwares) + k + 1, scores.size, name)
                )
    return [
        _result(scores[k], digital, hardware, deployment, seed, name, is_higher_better, 1)
        for k, hardware in enumerate(hardwares)
    ]


def _result(
    scores: NDArray[np.float64],
    digital: float,
    hardware: Hardware,
    deployment: Deployment,
    seed: int,
    metric: str,
    is_higher_better: bool,
    n_samples: int,
) -> FleetResult:
    return FleetResult(
        scores=scores,
        digital=digital,
        metric=metric,
        is_higher_better=is_higher_better,
        device=hardware.device.name,
        sigma=hardware.device.sigma.value,
        convention=hardware.convention,
        deployment=str(deployment),
        seed=seed,
        n_samples=n_samples,
    )


def _samples(
    deployment: Deployment, unlabelled: Tensor | None, place: torch.device
) -> Tensor | None:
    if not deployment.sees_inputs:
        return None
    found = 0 if unlabelled is None else len(unlabelled)
    if unlabelled is None or found < deployment.samples:
        raise too_few_inputs(deployment, found)
    return unlabelled[: deployment.samples].to(place)


def _statistics(
    model: nn.Module, deployment: Deployment, unlabelled: Tensor | None, batch: int
) -> AbstractContextManager[None]:
    """Give batch norm the nominal weights' statistics where devices are brought to the nominal network."""
    if deployment.calibration in ("channel", "layer", "readout") and unlabelled is not None:
        return nominal_batch_norm(model, unlabelled, batch)
    return nullcontext()


def _nominal_batch(x: Tensor) -> int:
    """Return a batch of inputs whose activations stay small: about 1,024 images of 32 x 32."""
    return max(1, min(1024, 2**22 // max(1, x[0].numel())))


CACHE = 12 * 2**20
"""Bytes of activations that a CPU keeps near its cores; larger chunks only add memory traffic."""


def _chunks(
    model: nn.Module,
    x: Tensor,
    place: torch.device,
    n_devices: int,
    memory_budget: int,
    batch_size: int | None,
    n_samples: int,
    arrays: int,
) -> tuple[int, int]:
    """Return how many devices, and how many inputs, go through the model at once."""
    per_input = _bytes_per_input(model, x[:1].to(place))
    weights = bytes_per_device(model, arrays)
    near = CACHE if place.type == "cpu" else memory_budget
    # A third of the room for weights; the rest for activations, with no sliver of a batch.
    chunk = chunk_of(n_devices, weights, min(near, memory_budget) // 3)
    batch = batch_size or max(
        chunk_of(len(x), chunk * per_input, min(near, memory_budget) // 2), min(len(x), 32)
    )
    most = max(batch, n_samples)  # calibration passes hold all their samples at once
    return min(chunk, chunk_of(n_devices, weights + most * per_input, memory_budget)), batch


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
    return score(model, split, Accuracy(), batch_size)


def score(
    model: nn.Module,
    split: tuple[Tensor, Tensor],
    metric: Metric,
    batch_size: int | None = None,
) -> float:
    """Return the score of the nominal weights on ``split``, in eval mode."""
    x, y = split
    with evaluating(model), torch.inference_mode():
        place = next(model.parameters()).device
        return _digital(model, x, y, place, batch_size or _nominal_batch(x), metric)


def _digital(
    model: nn.Module, x: Tensor, y: Tensor, place: torch.device, batch: int, metric: Metric
) -> float:
    total = sum(
        metric.totals(model(x[k : k + batch].to(place)).unsqueeze(0), y[k : k + batch].to(place))
        for k in range(0, len(x), batch)
    )
    assert isinstance(total, Tensor)
    return float(metric.value(total.cpu().numpy())[0])


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
