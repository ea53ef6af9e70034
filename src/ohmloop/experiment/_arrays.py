"""The hardware experiment: train for a device, write, verify, read through converters, count the energy.

The paper behind the project (arXiv 2412.02779) ran a network on a 10 x 10 crossbar of its best nanowires; which
task is not known. The smallest setting here is a published task of that size: 3 x 3 letters and one layer, on a
12 x 12 array in Prezioso et al., Nature 521, 61 (2015). Everything here is simulated from the measured device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ohmloop.crossbar import (
    Cost,
    Costs,
    Hardware,
    Programmed,
    Streams,
    count_layer,
    digital_baseline,
    measure_layer,
    program_matrix,
)
from ohmloop.device import DeviceModel, load_device
from ohmloop.errors import ConversionError
from ohmloop.experiment._kept import Scores, kept_scores, question_of
from ohmloop.experiment._setting import ArraySetting
from ohmloop.experiment._study import ArrayRow, ArrayStudy, Matrix
from ohmloop.nn import (
    Deployment,
    analog_parameters,
    analogize,
    calibrate_converters,
    device_seed,
    digitize,
    evaluate_fleets,
    evaluating,
)
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Split, Task, task
from ohmloop.train import environment, fit, unlabelled_inputs

_EXAMPLES = 256
"""Test inputs that energy is measured on, at most."""
_CHIPS = 10
"""Chips that energy and write cycles are averaged over."""
_PUBLISHED = 100
"""Development sets up to this size are scored as well: those of the array experiments in print."""
_SEED = 7
"""Of the virtual arrays; the first of them is the one shown."""


def run_arrays(
    setting: ArraySetting,
    *,
    folder: Path | None = None,
    data: Path | None = None,
    costs: Costs | None = None,
    progress: Progress = silent,
) -> ArrayStudy:
    """Train, program and read; see `ArraySetting`.

    Args:
        setting: What is done.
        folder: Where trained networks (``folder/train/METHOD-SEED``) and the scores of finished chips
            (``folder/scores``) are kept; an interrupted run goes on there. None keeps nothing.
        data: Folder of the data set, where no package brings it.
        costs: Constants of energy, latency and area; the defaults if None.
        progress: Told as networks are trained and chips are read.

    Raises:
        ConversionError: If the network has analog layers that are not fully connected.
        TaskError: If the data are missing.

    >>> setting = ArraySetting(methods=("erm",), n_arrays=2, seeds=(0,), epochs=2)
    >>> study = run_arrays(setting)
    >>> study.rows[0].scores.shape, study.matrices[0].held.shape
    ((1, 2), (2, 3, 10))
    """
    device = _with_pulses(load_device(setting.device), setting.pulse_width)
    g_max = device.cell().g_max
    writings = setting.writings(device.cell().pulses is not None)
    found = task(setting.network[0], data)
    _check_linear(analogize(found.model(setting.network[1]), Hardware(device=device)))
    results: dict[tuple[str, str, str], list[Scores]] = {}
    first: _Trained | None = None
    for method in setting.methods:
        for seed in setting.seeds:
            trained = _train(
                setting, found, Hardware(device=device), method, seed, folder, progress
            )
            if seed == setting.seeds[0]:
                first = trained
            for writing, programming in writings.items():
                hardware = Hardware(device=device, array=setting.array(programming, g_max))
                for deployment in (Deployment(), trained.readout):
                    key = (method, writing, deployment.calibration)
                    question = question_of(
                        setting, trained.model, hardware, deployment, (seed, _SEED)
                    )
                    scores = kept_scores(
                        folder,
                        question,
                        partial(_on_chips, trained, hardware, deployment, setting, progress),
                    )
                    results.setdefault(key, []).append(scores)
    assert first is not None
    verified = Hardware(device=device, array=setting.array(writings["written and verified"], g_max))
    matrices, cost, digital = _first_chip(first, verified, costs or Costs())
    return ArrayStudy(
        setting=setting,
        rows=tuple(_row(*key, parts) for key, parts in results.items()),
        matrices=matrices,
        cost=cost,
        digital=digital,
        n_classes=found.n_classes,
        n_test=len(first.test.x),
        wire_solution=setting.solution(g_max),
        provenance=_provenance(setting, found, device),
    )


def _with_pulses(device: DeviceModel, width: float) -> DeviceModel:
    """Return the device with a programming voltage and width to count energy by, where it states none."""
    physics = device.cell()
    voltage = device.recipe.get("sweep_max_v")
    known = physics.pulse_energy is not None or physics.pulse_width is not None
    if known or not isinstance(voltage, int | float):
        return device
    added = {"set_voltage": float(voltage), "reset_voltage": -float(voltage), "pulse_width": width}
    return device.model_copy(update={"physics": physics.model_copy(update=added)})


class _Trained(NamedTuple):
    model: nn.Module  # digital
    test: Split
    development: Split | None
    inputs: Tensor

    @property
    def readout(self) -> Deployment:
        return Deployment(calibration="readout", samples=min(64, len(self.inputs)))


def _train(
    setting: ArraySetting,
    found: Task,
    law: Hardware,
    method: str,
    seed: int,
    folder: Path | None,
    progress: Progress,
) -> _Trained:
    train, validation = found.development(seed, setting.limit)
    inputs = unlabelled_inputs(train, seed)
    run = fit(
        found,
        method,
        model=setting.network[1],
        hardware=law,
        deployment=Deployment(calibration="readout", samples=min(64, len(inputs))),
        epochs=setting.epochs,
        seed=seed,
        limit=setting.limit,
        run_dir=None if folder is None else folder / "train" / f"{_word(method)}-{seed}",
        progress=progress,
    )
    development = None
    if setting.limit is None and len(train.x) + len(validation.x) <= _PUBLISHED:
        both = zip(train, validation, strict=True)
        development = Split(*(torch.cat(parts) for parts in both))
    return _Trained(digitize(run.model), found.test(seed, setting.limit), development, inputs)


def _check_linear(model: nn.Module) -> None:
    held = {name.rpartition(".")[0] for name in analog_parameters(model)}
    for name, module in model.named_modules():
        if name in held and not isinstance(module, nn.Linear):
            raise ConversionError(
                f'layer "{name}" is a {type(module).__name__}; this experiment shows arrays of fully connected '
                'layers. Choose such a network (model="mlp"), or put any model on arrays with '
                "ohmloop.nn.analogize(model, Hardware(device=..., array=Array(...)))."
            )


def _on_chips(
    trained: _Trained,
    hardware: Hardware,
    deployment: Deployment,
    setting: ArraySetting,
    progress: Progress,
) -> Scores:
    model = analogize(trained.model, hardware)
    try:
        calibrate_converters(model, trained.inputs)
        parts = (
            [trained.test] if trained.development is None else [trained.test, trained.development]
        )
        # The same seed twice: the same chips see the test data and the development data.
        results = [
            evaluate_fleets(
                model,
                part,
                [hardware],
                n_devices=setting.n_arrays,
                seed=_SEED,
                deployment=deployment,
                unlabelled=trained.inputs,
                progress=progress,
            )[0]
            for part in parts
        ]
    finally:
        digitize(model)
    return Scores(
        results[0].digital, results[0].scores, results[1].scores if len(results) > 1 else None
    )


def _row(method: str, writing: str, deployment: str, parts: Sequence[Scores]) -> ArrayRow:
    known = [p.development for p in parts if p.development is not None]
    return ArrayRow(
        method=method,
        writing=writing,
        deployment=deployment,
        digital=np.array([p.digital for p in parts]),
        scores=np.stack([p.test for p in parts]),
        development=np.stack(known) if known else None,
    )


def _first_chip(
    trained: _Trained, hardware: Hardware, costs: Costs
) -> tuple[tuple[Matrix, ...], Cost, Cost]:
    """Program each layer, keep the first chip's cells, and count what the run costs on a few chips."""
    array = hardware.array
    assert array is not None
    examples = trained.test.x[:_EXAMPLES]
    matrices, analog, digital = [], [], []
    streams = Streams([torch.Generator().manual_seed(device_seed(_SEED, k)) for k in range(_CHIPS)])
    for name, layer, x in _linear_inputs(trained.model, examples):
        weight = layer.weight.detach()
        has_bias = layer.bias is not None
        if array.analog_bias and has_bias:
            weight = torch.cat([weight, layer.bias.detach()[:, None]], 1)
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        # As `program` does: each layer's numbers are seeded by the next number of the chip's own.
        chips = program_matrix(weight, hardware, streams.spawn(), keep_conductance=True)
        matrices.append(_matrix(name, chips))
        use = measure_layer(
            name,
            chips,
            x,
            inferences=len(examples),
            bias=has_bias and not array.analog_bias,
            costs=costs,
        )
        analog.append(count_layer(use, hardware, costs))
        digital.append(digital_baseline(use, costs))
    return tuple(matrices), sum(analog[1:], analog[0]), sum(digital[1:], digital[0])


def _linear_inputs(model: nn.Module, examples: Tensor) -> list[tuple[str, nn.Linear, Tensor]]:
    """Return every fully connected layer and what it receives, ``P x in``."""
    seen: list[tuple[str, nn.Linear, Tensor]] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):

            def note(
                layer: nn.Module, given: tuple[Tensor, ...], output: Tensor, name: str = name
            ) -> None:
                assert isinstance(layer, nn.Linear)
                seen.append((name, layer, given[0].detach().reshape(-1, given[0].shape[-1])))

            handles.append(module.register_forward_hook(note))
    try:
        with evaluating(model), torch.no_grad():
            model(examples)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _matrix(name: str, chips: Programmed) -> Matrix:
    assert chips.target is not None
    assert chips.conductance is not None
    assert chips.pulses is not None
    assert chips.unconverged is not None
    cells = chips.conductance[0].numel() + chips.conductance[1].numel()
    return Matrix(
        name=name,
        target=np.stack([t[0, 0].double().numpy() for t in chips.target]),
        held=np.stack([g[0, 0].double().numpy() for g in chips.conductance]),
        pulses=float(chips.pulses.sum()) / cells,
        unconverged=float(chips.unconverged.sum()) / cells,
    )


def _provenance(
    setting: ArraySetting, found: Task, device: DeviceModel
) -> tuple[tuple[str, str], ...]:
    rows = [
        ("task", f"{found.name}: {found.entry.description}. {found.entry.citation}"),
        ("device", f"{device.name}: {device.description}"),
        ("measured in", device.citation or "unpublished"),
        *((f"source {source.file}", f"sha256 {source.sha256}") for source in device.sources),
        ("seeds", f"training {', '.join(map(str, setting.seeds))}; arrays {_SEED}"),
        *environment().items(),
    ]
    return tuple(rows)


def _word(method: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in method)
