"""Fleets of chips with arrays, scored: by outputs, or by what they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

import torch
from torch import Tensor, nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._allocate import allocate_arrays, layer_counts
from ohmloop.nn._chips import READ_BATCH, ChipRunner, Law, bytes_per_chip, kept_chip
from ohmloop.nn._convert import law_parameters, need
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._draw import chunk_of
from ohmloop.nn._program import erase
from ohmloop.nn._result import FleetResult
from ohmloop.nn._scoring import (
    Assigned,
    Forward,
    _bytes_per_input,
    _digital,
    _samples,
    deployed_statistics,
    evaluating,
    measured_fleets,
    nominal_batch,
    scored_fleets,
)
from ohmloop.progress import Progress
from ohmloop.tasks import Measure, Metric


def _same(model: nn.Module, hardware: Assigned) -> Hardware | None:
    """Return the hardware to program instead of each layer's own; None for these."""
    if isinstance(hardware, Hardware):
        return hardware
    own = need(model).parameters  # which `own_hardware` gives
    arrays = {n: h for n, h in own.items() if h.array is not None}
    if hardware.keys() != own.keys() or any(hardware[n] != h for n, h in arrays.items()):
        raise ConversionError(
            "layers on arrays take one Hardware for all layers, or those that they were converted for. Convert "
            "the model anew for others: analogize(digitize(model), {name pattern: Hardware, ...})."
        )
    return None


def _law(model: nn.Module, hardware: Assigned) -> Law:
    """Return what the parameters on the law on weights are drawn from."""
    if isinstance(hardware, Hardware):  # all layers are on arrays
        return {}
    return {n: hardware[n] for n in law_parameters(model)}


def score_chips(
    model: nn.Module,
    split: tuple[Tensor, Tensor],
    hardwares: Sequence[Assigned],
    *,
    n_devices: int,
    seed: int,
    metric: Metric,
    deployment: Deployment,
    unlabelled: Tensor | None,
    memory_budget: int,
    batch_size: int | None,
    progress: Progress,
) -> list[FleetResult]:
    """Do what `evaluate_fleets` promises, for chips with arrays."""
    x, y = split
    place = next(model.parameters()).device
    samples = _samples(deployment, unlabelled, place)
    once = nominal_batch(x)
    batch = min(len(x), batch_size or READ_BATCH)
    with evaluating(model), torch.no_grad(), kept_chip(model), ExitStack() as stack:
        erase(model)
        digital = _digital(model, x, y, place, batch_size or once, metric)
        stack.enter_context(deployed_statistics(model, deployment, unlabelled, once))
        asked, deployment = deployment, allocate_arrays(model, deployment, unlabelled, hardwares)
        run = ChipRunner(model, deployment, samples)
        chunk = _chunk(model, run, hardwares[0], x, n_devices, memory_budget, batch)

        def forwards(devices: range) -> Iterator[Forward]:
            for hardware in hardwares:
                run.program(_same(model, hardware), devices, seed, _law(model, hardware))
                yield run

        return scored_fleets(
            split,
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


def _chunk(
    model: nn.Module,
    run: ChipRunner,
    hardware: Assigned,
    x: Tensor,
    n_devices: int,
    memory_budget: int,
    batch: int,
) -> int:
    """Return how many chips go through the model at once."""
    place = next(model.parameters()).device
    asked, law = _same(model, hardware), _law(model, hardware)
    if n_devices == 1 or not run.fits_together(asked, x[:8].to(place), law):
        return 1
    most = max(batch, 0 if run.samples is None else len(run.samples))
    # Noise and converters keep about four arrays of a layer's size beside its output.
    activations = 4 * most * _bytes_per_input(model, x[:1].to(place))
    return chunk_of(n_devices, bytes_per_chip(model, run.deployment) + activations, memory_budget)


def measure_chips(
    model: nn.Module,
    measure: Measure,
    hardwares: Sequence[Assigned],
    *,
    name: str,
    is_higher_better: bool,
    n_devices: int,
    seed: int,
    deployment: Deployment,
    unlabelled: Tensor | None,
    progress: Progress,
) -> list[FleetResult]:
    """Do what `evaluate_measure` promises, for chips with arrays."""
    place = next(model.parameters()).device
    samples = _samples(deployment, unlabelled, place)
    with evaluating(model), torch.no_grad(), kept_chip(model), ExitStack() as stack:
        erase(model)
        digital = measure(model)
        if unlabelled is not None:
            stack.enter_context(
                deployed_statistics(model, deployment, unlabelled, nominal_batch(unlabelled))
            )
        asked, deployment = deployment, allocate_arrays(model, deployment, unlabelled, hardwares)
        run = ChipRunner(model, deployment, samples)

        def devices(number: int) -> Iterator[AbstractContextManager[object]]:
            for hardware in hardwares:
                run.program(_same(model, hardware), [number], seed, _law(model, hardware))
                yield run.installed()

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
