"""The hardware experiment: train for a device, write, verify, read through converters, count the energy.

The paper behind the project (arXiv 2412.02779) ran a network on a 10 x 10 crossbar of its best nanowires; which
task is not known. The smallest setting here is a published task of that size: 3 x 3 letters and one layer, on a
12 x 12 array in Prezioso et al., Nature 521, 61 (2015). Everything here is simulated from the measured device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ohmloop.crossbar import (
    ADC,
    DAC,
    Array,
    Cost,
    Costs,
    Hardware,
    Programmed,
    Programming,
    Streams,
    Wires,
    count_layer,
    digital_baseline,
    measure_layer,
    program_matrix,
)
from ohmloop.device import DeviceModel, load_device
from ohmloop.errors import ConversionError
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

Size = Literal[10, 64, 256]
_NETWORKS: dict[int, tuple[str, str]] = {
    10: ("letters", "linear"),
    64: ("digits", "mlp"),
    256: ("fashion-mnist", "mlp"),
}
_EXAMPLES = 256
"""Test inputs that energy is measured on, at most."""
FAINT = 0.05
"""Where wires take no more, the fast solution errs by less than .01 % (bench/results/wires.md)."""
_CHIPS = 10
"""Chips that energy and write cycles are averaged over."""
_PUBLISHED = 100
"""Development sets up to this size are scored as well: those of the array experiments in print."""
_SEED = 7
"""Of the virtual arrays; the first of them is the one shown."""


class ArraySetting(BaseModel):
    """What is trained, and what it is put on.

    Attributes:
        size: Rows and columns of each array: 10, 64 or 256.
        task: Name of the task; None for the size's own (letters; digits; fashion-mnist).
        model: Name of a network of fully connected layers; None for the size's own.
        device: A device as `load_device` takes it; "nanowire-30" has the highest published usability.
        methods: How networks are trained for the device.
        n_arrays: Virtual chips for each trained network.
        seeds: Of training; each gives a network.
        epochs: Of one training; None for the task's own.
        limit: Use only that many development samples; None for all.
        dac_bits: Resolution of the row drivers.
        adc_bits: Resolution of the column converters, calibrated on unlabelled training inputs.
        wire: Ohms of each segment of wire; assumed, as no source states it for these arrays.
        lead: Ohms of each driver and each sense amplifier with their leads; assumed.
        wire_solution: "exact", "fast" (`Array.wire_solution`), or "auto": fast on arrays of more than 10 rows
            whose wires can take `FAINT` of a read voltage at most, with all cells at g_max.
        tolerance: Of write-verify, as a share of the conductance window.
        cycles: Erase-and-write cycles (pulses, for a device with a pulse response) that each cell may take.
        pulse_width: Of a programming pulse in seconds, for a device that states none; assumed. Its voltage
            is then the largest of the measured sweep.

    >>> ArraySetting(size=64).network
    ('digits', 'mlp')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    size: Size = 10
    task: str | None = None
    model: str | None = None
    device: str = "nanowire-30"
    methods: tuple[str, ...] = ("erm", "steady")
    n_arrays: Annotated[int, Field(ge=1)] = 1000
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    epochs: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=10)] | None = None
    dac_bits: Annotated[int, Field(ge=1, le=16)] = 8
    adc_bits: Annotated[int, Field(ge=2, le=16)] = 8
    wire: Annotated[float, Field(ge=0)] = 1.0
    lead: Annotated[float, Field(ge=0)] = 100.0
    wire_solution: Literal["auto", "exact", "fast"] = "auto"
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02
    cycles: Annotated[int, Field(ge=1)] = 50
    pulse_width: Annotated[float, Field(gt=0)] = 1e-6

    @property
    def network(self) -> tuple[str, str]:
        """Names of the task and the network."""
        own_task, own_model = _NETWORKS[self.size]
        if self.task is None:
            return own_task, self.model or own_model
        return self.task, self.model or "mlp"

    def solution(self, g_max: float) -> Literal["exact", "fast"]:
        """Return how wires of cells of up to ``g_max`` siemens are solved."""
        if self.wire_solution != "auto":
            return self.wire_solution
        share = g_max * self.size * (self.lead + 0.5 * self.size * self.wire)
        return "fast" if self.size > 10 and share <= FAINT else "exact"

    def array(self, programming: Programming, g_max: float) -> Array:
        """Return the arrays, written in the given way.

        The smallest array holds the bias in its tenth row; larger ones add it digitally, because 64 or 256
        inputs fill their rows.
        """
        return Array(
            rows=self.size,
            columns=self.size,
            dac=DAC(bits=self.dac_bits),
            adc=ADC(bits=self.adc_bits),
            wire_solution=self.solution(g_max),
            wires=Wires(row=self.wire, column=self.wire, source=self.lead, sense=self.lead),
            programming=programming,
            analog_bias=self.size == 10,
        )

    def writings(self, has_pulses: bool) -> dict[str, Programming]:
        """Return the ways of writing that are compared, by what a table calls them."""
        verify: Literal["write-verify", "cycle-verify"] = (
            "write-verify" if has_pulses else "cycle-verify"
        )
        return {
            "exact cells": Programming(method="ideal"),
            "written once": Programming(method="statistical"),
            "written and verified": Programming(
                method=verify, tolerance=self.tolerance, max_pulses=self.cycles
            ),
        }


@dataclass(frozen=True, eq=False)
class ArrayRow:
    """One way of training and writing.

    Attributes:
        method: Name of the training method.
        writing: How cells were written.
        deployment: What each chip gets beside its weights.
        digital: Test accuracy of each seed's nominal network, ``S``.
        scores: Test accuracies, ``S x N``.
        development: Accuracies on the development data, ``S x N``, where they are few enough to be a
            published set of their own; else None.
    """

    method: str
    writing: str
    deployment: str
    digital: NDArray[np.float64]
    scores: NDArray[np.float64]
    development: NDArray[np.float64] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of a table; spreads are over all chips of all seeds."""
        flat = self.scores.reshape(-1)
        usable = (self.scores >= 0.9 * self.digital[:, None]).mean()
        return {
            "method": self.method,
            "writing": self.writing,
            "deployment": self.deployment,
            "digital": self.digital.tolist(),
            "mean": float(flat.mean()),
            "std": float(flat.std(ddof=1)) if len(flat) > 1 else 0.0,
            "seed_means": self.scores.mean(1).tolist(),
            "worst_tenth": float(np.sort(flat)[: max(1, len(flat) // 10)].mean()),
            "usable": float(usable),
            "development_mean": None
            if self.development is None
            else float(self.development.mean()),
        }


@dataclass(frozen=True, eq=False)
class Matrix:
    """One layer's matrix on the first chip.

    Attributes:
        name: Of the layer.
        target: ``2 x out x in`` siemens: what the cells of each pair should hold.
        held: ``2 x out x in`` siemens: what they hold.
        pulses: Programming pulses of a cell, mean over a few chips.
        unconverged: Share of their cells outside tolerance.
    """

    name: str
    target: NDArray[np.float64]
    held: NDArray[np.float64]
    pulses: float
    unconverged: float


@dataclass(frozen=True, eq=False)
class ArrayStudy:
    """The experiment as it came out.

    Attributes:
        setting: What was asked.
        rows: Accuracies, the first method first.
        matrices: Each layer on the first chip, written and verified, of the last method's first network:
            one of the chips that are scored.
        cost: Of one inference on these arrays, mean over a few chips.
        digital: The same products on a digital chip, int8.
        n_classes: Of the task; 1 / n_classes is chance.
        n_test: Test inputs.
        wire_solution: "exact" or "fast": how wires were solved.
        provenance: What the figures depend on, as rows of (what, value).
    """

    setting: ArraySetting
    rows: tuple[ArrayRow, ...]
    matrices: tuple[Matrix, ...]
    cost: Cost
    digital: Cost
    n_classes: int
    n_test: int
    wire_solution: Literal["exact", "fast"]
    provenance: tuple[tuple[str, str], ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, ready for JSON."""
        return {
            "setting": self.setting.model_dump(mode="json"),
            "rows": [row.to_dict() for row in self.rows],
            "scores": [row.scores.tolist() for row in self.rows],
            "matrices": [
                {
                    "name": m.name,
                    "shape": list(m.held.shape[1:]),
                    "pulses_per_cell": m.pulses,
                    "unconverged": m.unconverged,
                    "relative_error_of_window": float(
                        np.sqrt(np.mean((m.held - m.target) ** 2))
                        / (m.target.max() - m.target.min())
                    ),
                }
                for m in self.matrices
            ],
            "cost": self.cost.to_dict(),
            "digital": self.digital.to_dict(),
            "n_classes": self.n_classes,
            "n_test": self.n_test,
            "wire_solution": self.wire_solution,
            "provenance": [list(row) for row in self.provenance],
        }


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
        folder: Where trained networks are kept (``folder/train/METHOD-SEED``); an interrupted run goes on
            there. None keeps nothing.
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
    results: dict[tuple[str, str, str], list[_Scores]] = {}
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
                    scores = _on_chips(trained, hardware, deployment, setting, progress)
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


class _Scores(NamedTuple):
    digital: float
    test: NDArray[np.float64]
    development: NDArray[np.float64] | None


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
) -> _Scores:
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
    return _Scores(
        results[0].digital, results[0].scores, results[1].scores if len(results) > 1 else None
    )


def _row(method: str, writing: str, deployment: str, parts: Sequence[_Scores]) -> ArrayRow:
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
