"""Many virtual devices evaluated as one batched computation in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._allocate import allocate_arrays, layer_counts
from ohmloop.nn._batched import Calibrated, FleetRunner
from ohmloop.nn._chip_fleet import measure_chips, score_chips
from ohmloop.nn._convert import analog_parameters, has_arrays, need
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._draw import apply_noise, budget_of, fleet_noise, own_hardware, programmed
from ohmloop.nn._layer import is_chip
from ohmloop.nn._result import FleetResult
from ohmloop.nn._scoring import (
    Forward,
    _checked,
    _chunks,
    _digital,
    _samples,
    deployed_statistics,
    evaluating,
    measured_fleets,
    nominal_batch,
    placed,
    scored_fleets,
)
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Accuracy, Measure, Metric


def fleet_forward(model: nn.Module, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run one batch through many devices at once.

    Args:
        model: Any model without layers that keep statistics in training mode.
        stacked: Parameter name -> ``N x *shape``; parameters not named are shared.
        x: ``B x ...``, the same inputs for every device.

    Returns:
        ``N x B x ...``.

    Raises:
        ConversionError: If a batch norm is in training mode, or the model is a programmed chip.
    """
    _refuse_batch_statistics(model)
    if is_chip(model):
        raise ConversionError(
            "the model is a programmed chip, whose arrays would be read instead of the stacked weights. "
            "First: erase(model)."
        )
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
    memory_budget: int | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> FleetResult:
    """Score ``model`` on each of ``n_devices`` independent virtual devices.

    The result depends on the seed only, not on the memory budget (up to the rounding of sums of another
    order). For the law on weights it does not depend on the batch size either; with an array, noise that
    is fresh at each read follows the order of inputs, so that another batch size is another set of
    reads. The model is evaluated in eval mode and left as it was.

    Args:
        model: An analog model that maps ``B x ...`` to outputs ``B x ...`` that the metric takes.
        split: Inputs ``n x ...`` and targets ``n x ...``.
        n_devices: Size of the fleet.
        seed: Of the fleet, >= 0.
        hardware: Instead of the model's own; with an array if and only if that has one.
        metric: How outputs are scored; accuracy by default.
        deployment: What each device gets beside its weights; nothing by default.
        unlabelled: Inputs ``k x ...`` of the training data, for deployments that show devices some; the
            first ``deployment.samples`` are used.
        memory_budget: Bytes that drawn weights, and activations, may take together; by default 512 MiB, on
            a GPU half of what is free there. Test data that fit a quarter of it stay on the GPU beside them.
        batch_size: Inputs at once; by default all that fit, or 128 with an array.
        progress: Told after each chunk of devices.

    Raises:
        ConversionError: If the model is digital, the hardware is not of its kind, the split is empty or of
            unequal lengths, or the deployment lacks its unlabelled inputs.
    """
    return evaluate_fleets(
        model,
        split,
        [own_hardware(model) if hardware is None else hardware],
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
    hardwares: Sequence[Hardware | Mapping[str, Hardware]],
    *,
    n_devices: int = 100,
    seed: int = 0,
    metric: Metric | None = None,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    memory_budget: int | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> list[FleetResult]:
    """Do as `evaluate_fleet` for several hardwares, with the same underlying random numbers.

    Device i of each fleet has the same standard normal numbers, so that differences between
    hardwares are not blurred by different draws. For the law on weights, a mapping gives each analog parameter
    its own hardware, by the parameter's name. Where some layers are on arrays and others on the law, a mapping
    names all of them; the hardware of those on arrays is the one that they were converted for.
    """
    x, y = _checked(model, split, n_devices)
    metric, deployment = metric or Accuracy(), deployment or Deployment()
    _check_kind(model, hardwares, deployment)
    place = next(model.parameters()).device
    memory_budget = budget_of(place, memory_budget)
    x, y = placed((x, y), place, memory_budget)
    if has_arrays(model):
        return score_chips(
            model,
            (x, y),
            hardwares,
            n_devices=n_devices,
            seed=seed,
            metric=metric,
            deployment=deployment,
            unlabelled=unlabelled,
            memory_budget=memory_budget,
            batch_size=batch_size,
            progress=progress,
        )
    samples = _samples(deployment, unlabelled, place)
    once = nominal_batch(x)
    # Adapters are trained on the drawn weights, which inference tensors do not allow.
    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        digital = _digital(model, x, y, place, batch_size or once, metric)
        parameters = {n: p.detach() for n, p in analog_parameters(model).items()}
        stack.enter_context(deployed_statistics(model, deployment, unlabelled, once))
        asked, deployment = deployment, allocate_arrays(model, deployment, unlabelled, hardwares)
        run = FleetRunner(model, frozenset(parameters), deployment)
        bases = [programmed(parameters, h) for h in hardwares]
        chunk, batch = _chunks(
            model,
            x,
            place,
            n_devices,
            memory_budget,
            batch_size,
            0 if samples is None else len(samples),
            deployment,
        )

        def forwards(devices: range) -> Iterator[Forward]:
            noise = fleet_noise(parameters, devices, seed, deployment)
            for hardware, base in zip(hardwares, bases, strict=True):
                stacked = apply_noise(base, noise, hardware, deployment)
                calibrated = None if samples is None else run.calibrate(stacked, samples)
                yield partial(_answer, run, stacked, calibrated)

        return scored_fleets(
            (x, y),
            hardwares,
            forwards,
            n_devices=n_devices,
            chunk=chunk,
            batch=batch,
            place=place,
            metric=metric,
            digital=digital,
            deployment=asked,
            layer_arrays=layer_counts(model, deployment),
            seed=seed,
            progress=progress,
        )


def _answer(
    run: FleetRunner, stacked: dict[str, Tensor], calibrated: Calibrated | None, x: Tensor
) -> Tensor:
    return run(stacked, x, calibrated)


def evaluate_measure(
    model: nn.Module,
    measure: Measure,
    hardwares: Sequence[Hardware | Mapping[str, Hardware]],
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
        measure: Called with the model in eval mode, without gradients; returns the score, or several figures
            by name, always the same ones, the score first. The others become `FleetResult.figures`.
        hardwares: What devices are drawn from; device i has the same random numbers for each.
        name: Of the score.
        is_higher_better: False for an error.
        n_devices: Size of each fleet.
        seed: Of the fleet, >= 0; device i is the one that `evaluate_fleet` gives this seed.
        deployment: What each device gets beside its weights.
        unlabelled: Inputs ``k x ...`` for deployments that show devices some.
        progress: Told after each device.
    """
    need(model)
    if n_devices < 1:
        raise ConversionError(f"a fleet needs at least one device; received {n_devices}.")
    deployment = deployment or Deployment()
    _check_kind(model, hardwares, deployment)
    if has_arrays(model):
        return measure_chips(
            model,
            measure,
            hardwares,
            name=name,
            is_higher_better=is_higher_better,
            n_devices=n_devices,
            seed=seed,
            deployment=deployment,
            unlabelled=unlabelled,
            progress=progress,
        )
    samples = _samples(deployment, unlabelled, next(model.parameters()).device)
    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        digital = measure(model)
        if unlabelled is not None:
            once = nominal_batch(unlabelled)
            stack.enter_context(deployed_statistics(model, deployment, unlabelled, once))
        asked, deployment = deployment, allocate_arrays(model, deployment, unlabelled, hardwares)
        parameters = {n: p.detach().clone() for n, p in analog_parameters(model).items()}
        bases = [programmed(parameters, h) for h in hardwares]
        run = FleetRunner(model, frozenset(parameters), deployment)

        def devices(number: int) -> Iterator[AbstractContextManager[object]]:
            noise = fleet_noise(parameters, [number], seed, deployment)
            for hardware, base in zip(hardwares, bases, strict=True):
                stacked = apply_noise(base, noise, hardware, deployment)
                calibrated = None if samples is None else run.calibrate(stacked, samples)
                yield run.installed({n: w[0] for n, w in stacked.items()}, calibrated)

        return measured_fleets(
            lambda: measure(model),
            hardwares,
            devices,
            n_devices=n_devices,
            name=name,
            is_higher_better=is_higher_better,
            digital=digital,
            deployment=asked,
            layer_arrays=layer_counts(model, deployment),
            seed=seed,
            progress=progress,
        )


def _check_kind(
    model: nn.Module,
    hardwares: Sequence[Hardware | Mapping[str, Hardware]],
    deployment: Deployment,
) -> None:
    """Raise ConversionError unless hardware and deployment are of the kind that the model was converted for."""
    arrays = has_arrays(model)
    own = need(model).parameters
    for hardware in hardwares:
        of = hardware if not isinstance(hardware, Hardware) else dict.fromkeys(own, hardware)
        wrong = [
            n for n, h in own.items() if n in of and (of[n].array is None) != (h.array is None)
        ]
        if wrong and len({h.array is None for h in own.values()}) > 1:
            raise ConversionError(
                "some layers were converted for an array and others for the law on weights, and "
                f"{wrong[0]} gets the other kind here. Leave the hardware out, or name each analog parameter's "
                "in its own kind."
            )
        if wrong:
            has, lacks = ("an array", "none") if not arrays else ("no array", "one")
            raise ConversionError(
                f"this hardware has {has}, and the model was converted for hardware with {lacks}. "
                "Convert it for this one: analogize(digitize(model), hardware)."
            )
    if deployment.drift_gain and not arrays:
        raise ConversionError(
            "drift_gain reads the summed conductance of arrays; the law on weights has none, and knows no time."
        )
