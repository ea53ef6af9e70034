"""What devices said: virtual ones drawn from a law, or real chips from a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.certify._groups import Cells, coordinate_groups, layer_of
from ohmloop.certify._law import Law, Sampler, calibration_hash
from ohmloop.certify._record import data_hash, weights_hash
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import CertifyError
from ohmloop.nn import (
    Deployment,
    allocate_arrays,
    analog_parameters,
    device_seed,
    evaluate_fleets,
    has_arrays,
    predict,
    predict_fleet,
)
from ohmloop.nn._allocate import layer_counts
from ohmloop.nn._predict import NOT_FINITE
from ohmloop.nn._scoring import deployed_statistics, evaluating, nominal_batch
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Metric

ClassRule = Literal["digital", "label"]
STREAM = 0x6F686D << 64
"""Certificates draw their devices from seeds of their own: this plus the user's, beyond any other fleet's."""
CLASS_RULES: dict[ClassRule, str] = {
    "digital": "the class of the digital network, fixed before any device was drawn",
    "label": "the label of the data, fixed before any device was drawn",
}


class Draws(NamedTuple):
    """A fleet that was looked at before: its seed, and how many devices of it.

    Attributes:
        seed: As `evaluate_fleet` took it.
        n_devices: How many, from device 0.
    """

    seed: int
    n_devices: int


@dataclass(frozen=True, eq=False)
class Votes:
    """The class that each device gives to each input, and what it should be.

    Attributes:
        classes: ``N x n``, one row a device.
        digital: ``n`` classes of the digital network; None for measured chips without.
        labels: ``n`` true classes; None if not known.
        law: Of virtual devices under the law on weights; None for arrays and measured chips.
        law_words: The devices in one line.
        cells: What shifts need to know of the analog cells; None without a law.
        weights: sha256 of the network's state dict, "" for measured chips.
        data: sha256 of inputs and labels.
        seed: The user's seed; None for measured chips.
        deployment: What each device got beside its weights.
        layer_arrays: How many averaged arrays hold each analog layer, as divided; empty where one holds each.
        is_measured: Whether they are real chips.
    """

    classes: NDArray[np.int32]
    digital: NDArray[np.int32] | None
    labels: NDArray[np.int64] | None
    law: Law | None
    law_words: str
    cells: Cells | None
    weights: str
    data: str
    seed: int | None
    deployment: str
    layer_arrays: tuple[tuple[str, int], ...] = ()
    is_measured: bool = False

    @property
    def n_devices(self) -> int:
        """How many devices were drawn or measured."""
        return len(self.classes)

    @property
    def n_inputs(self) -> int:
        """How many inputs each was shown."""
        return int(self.classes.shape[1])

    def right(self, rule: ClassRule = "digital") -> NDArray[np.bool_]:
        """Return whether each device gives each input the class of the rule, ``N x n``."""
        return np.asarray(self.classes == self.target(rule)[None])

    def target(self, rule: ClassRule) -> NDArray[Any]:
        """Return the class ``n`` that counts as right; CertifyError if the rule has none here."""
        found = self.digital if rule == "digital" else self.labels
        if found is None:
            way = "labels of the data" if rule == "label" else "classes of the digital network"
            raise CertifyError(f'the class rule "{rule}" needs the {way}, which were not given.')
        return found

    def scores(self, rule: ClassRule = "digital") -> NDArray[np.float64]:
        """Return the share of inputs that each device gets right, ``N``."""
        return np.asarray(self.right(rule).mean(1), dtype=np.float64)


def poll(
    model: nn.Module,
    data: tuple[Tensor, Tensor | None],
    law: Law | Hardware,
    *,
    n_devices: int = 1000,
    seed: int = 0,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    used: Sequence[Draws] = (),
    memory_budget: int | None = None,
    progress: Progress = silent,
) -> Votes:
    """Draw independent virtual devices and note the class that each gives to each input.

    Args:
        model: An analog model, with batch norm in eval mode; outputs ``B x classes``.
        data: Inputs ``n x ...`` and labels ``n``, or None for the labels.
        law: What devices are drawn from. A `Hardware` without an array stands for `Law.of` it.
        n_devices: How many.
        seed: Of the devices, >= 0; certificates have a stream of their own.
        deployment: What each device gets beside its weights. What it sets on a device is a fixed function of
            the device's weights and of the unlabelled inputs, so every statement covers it. Its ``cells`` are
            divided first, by the nominal network and the unlabelled inputs (`allocate_arrays`).
        unlabelled: Inputs ``k x ...`` for deployments that show devices some.
        used: Fleets that tuning, or a choice of any kind, has looked at.
        memory_budget: Bytes that drawn weights, and activations, may take together; by default as for
            `evaluate_fleet`.
        progress: Told as devices are done.

    Raises:
        CertifyError: If batch norm is in training mode, noise is missing on a mapped tensor, draws have been
            used, outputs are not finite, or there is no data.
        ConversionError: If the deployment needs unlabelled inputs that were not given, or names a layer that
            there is not.
    """
    x, labels = data
    _check_model(model)
    _check_data(x, labels, n_devices, seed)
    fleet = STREAM + seed
    _check_fresh(fleet, n_devices, used)
    asked = deployment or Deployment()
    digital = predict(model, x)
    _check_finite(digital[None], "the digital network")
    parameters = {n: p.detach() for n, p in analog_parameters(model).items()}
    if isinstance(law, Hardware) and law.array is None:
        law = Law.of(law)
    cells: Cells | None = None
    if isinstance(law, Law) and has_arrays(model):
        raise CertifyError(
            "this model's layers stand in arrays, and a Law is a law on weights. Give the hardware instead "
            "(yields hold for it), or put the model on hardware without an array."
        )
    if isinstance(law, Hardware):
        model_hash = calibration_hash(law.device)[:12]
        words = f"device {law.device.name} (sha256 {model_hash}...) in arrays of {law.array!r}"
        classes, divided = _poll_arrays(
            model,
            x,
            law,
            n_devices=n_devices,
            seed=fleet,
            deployment=asked,
            unlabelled=unlabelled,
            memory_budget=memory_budget,
            progress=progress,
        )
    else:
        words = law.words
        spread = [_like(law, parameters)] if asked.cells > 1 else None
        with evaluating(model), deployed_statistics(model, asked, unlabelled, nominal_batch(x)):
            deployed = allocate_arrays(model, asked, unlabelled, spread)
        divided = layer_counts(model, deployed)
        sampler = Sampler(law, parameters, fleet, deployed)
        _check_noise(law, parameters, fleet)
        cells = _cells(law, sampler.base, deployed)
        classes = predict_fleet(
            model,
            x,
            sampler,
            n_devices=n_devices,
            deployment=deployed,
            unlabelled=unlabelled,
            memory_budget=memory_budget,
            progress=progress,
        )
    _check_finite(classes, "a drawn device")
    return Votes(
        classes=classes,
        digital=digital,
        labels=None if labels is None else labels.cpu().numpy(),
        law=law if isinstance(law, Law) else None,
        law_words=words,
        cells=cells,
        weights=weights_hash(model),
        data=data_hash(x, labels),
        seed=seed,
        deployment=str(asked),
        layer_arrays=divided,
    )


def _like(law: Law, parameters: dict[str, Tensor]) -> dict[str, Hardware]:
    """Return hardware whose layers differ in spread as a law's do, which is all that a division looks at."""
    out = {}
    for name in parameters:
        sigma = law.sigma_of(name)
        if (
            law.noise == "gaussian"
        ):  # hardware is log-normal: exp(s z) over its mean has variance exp(s^2) - 1
            sigma = math.sqrt(math.log1p(sigma**2))
        out[name] = Hardware(device=DeviceModel(name=name, sigma=Estimate(value=sigma)))
    return out


def _check_model(model: nn.Module) -> None:
    analog_parameters(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and (
            module.training or not module.track_running_stats
        ):
            raise CertifyError(
                f"{name or 'the model'} normalises by the statistics of its batch: what a device says about an "
                "input would depend on the inputs beside it, and no statement about one input holds. Call "
                "model.eval() first (and keep track_running_stats=True)."
            )


def _check_data(x: Tensor, labels: Tensor | None, n_devices: int, seed: int) -> None:
    if len(x) == 0:
        raise CertifyError("the data set is empty; a statement needs at least one input.")
    if labels is not None and (labels.ndim != 1 or len(labels) != len(x)):
        raise CertifyError(
            f"expected one class for each of the {len(x)} inputs; received labels of shape "
            f"{tuple(labels.shape)}. Statements about classes are for classification; for other scores use "
            "score_certificate."
        )
    if n_devices < 2 or seed < 0:
        raise CertifyError(
            f"at least two devices and a seed >= 0 are needed; received {n_devices} and {seed}."
        )


def _check_fresh(fleet: int, n_devices: int, used: Sequence[Draws]) -> None:
    """Refuse devices that share a generator's seed with one that was looked at before."""
    if not used:
        return
    # torch's CPU generator looks at the low 32 bits of a seed only.
    mine = {device_seed(fleet, k) & 0xFFFFFFFF for k in range(n_devices)}
    for draws in used:
        theirs = {device_seed(draws.seed, k) & 0xFFFFFFFF for k in range(draws.n_devices)}
        if mine & theirs:
            raise CertifyError(
                f"{len(mine & theirs)} of the devices were drawn before (fleet seed {draws.seed}, "
                f"{draws.n_devices} devices) and have been used to tune or choose the network. A bound needs "
                "devices that nothing was chosen by: give another seed."
            )


def _check_noise(law: Law, parameters: dict[str, Tensor], fleet: int) -> None:
    # Without ablation: a group that two devices leave out looks alike on both.
    sampler = Sampler(law.model_copy(update={"ablation": None}), parameters, fleet)
    drawn = sampler(range(2))
    for name in parameters:
        nominal = sampler.base[name]
        if not bool((nominal != 0).any()):
            continue
        weights = drawn.get(name)
        if weights is None or _same(weights[0], weights[1]) or _same(weights[0], nominal):
            raise CertifyError(
                f"{name} is on analog hardware, but the law puts no noise on it ({law.words}). A "
                "certificate under such a law would say nothing about real devices: give it a sigma above 0, "
                "or leave the layer digital (analogize(model, hardware, where=...))."
            )


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a == b).all())


def _check_finite(classes: NDArray[np.int32], who: str) -> None:
    bad = int((classes == NOT_FINITE).any(0).sum())
    if bad:
        raise CertifyError(
            f"{who} gives outputs that are not finite, for {bad} of {classes.shape[1]} inputs: its class means "
            "nothing. Use float64 or a smaller sigma, or repair the network."
        )


def _cells(law: Law, base: dict[str, Tensor], deployment: Deployment) -> Cells:
    size = (64, 64) if law.gain is None else (law.gain.rows, law.gain.columns)
    held = torch.cat([(p != 0).flatten().cpu() for p in base.values()]).numpy()
    sigma = np.concatenate([np.full(p.numel(), law.sigma_of(n)) for n, p in base.items()])
    copies = [
        np.full(p.numel(), deployment.arrays_of(n.rpartition(".")[0])) for n, p in base.items()
    ]
    group = None
    if law.gain is not None:
        group = coordinate_groups(base, law.gain.group, *size)[held]
    names = list(dict.fromkeys(layer_of(name) for name in base))
    return Cells(
        layers=tuple(names),
        layer=coordinate_groups(base, "layer")[held],
        tile=coordinate_groups(base, "tile", *size)[held],
        column=coordinate_groups(base, "column")[held],
        group=group,
        sigma=sigma[held],
        tau=0.0 if law.gain is None else law.gain.tau,
        levels=law.levels,
        copies=np.concatenate(copies)[held],
        tile_size=size,
    )


def _poll_arrays(
    model: nn.Module,
    x: Tensor,
    hardware: Hardware,
    *,
    n_devices: int,
    seed: int,
    deployment: Deployment,
    unlabelled: Tensor | None,
    memory_budget: int | None,
    progress: Progress,
) -> tuple[NDArray[np.int32], tuple[tuple[str, int], ...]]:
    """Return the classes ``N x n``, and how arrays were divided among layers."""
    ballots = _Ballots(len(x))
    (fleet,) = evaluate_fleets(
        model,
        (x, torch.arange(len(x))),
        [hardware],
        n_devices=n_devices,
        seed=seed,
        metric=ballots,
        deployment=deployment,
        unlabelled=unlabelled,
        memory_budget=memory_budget,
        progress=progress,
    )
    return ballots.classes, fleet.layer_arrays


class _Ballots(Metric):
    """Notes classes instead of scoring them; targets are the numbers of inputs."""

    name = "classes"

    def __init__(self, n_inputs: int) -> None:
        self.classes = np.empty((0, n_inputs), dtype=np.int32)
        self._n_inputs = n_inputs

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return nothing: nobody trains on numbers of inputs."""
        raise NotImplementedError

    def distance(self, out: Tensor, teacher: Tensor) -> Tensor:
        """Return nothing: nobody distils numbers of inputs."""
        raise NotImplementedError

    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the classes of a batch at their places of ``N x n``, zero elsewhere."""
        best = torch.where(torch.isfinite(out).all(-1), out.argmax(-1), NOT_FINITE)
        sums = torch.zeros(len(out), self._n_inputs, dtype=torch.float64, device=out.device)
        return sums.index_copy_(1, y, best.double())

    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Keep the classes of all devices; the score itself is not used."""
        self.classes = totals.astype(np.int32)
        return np.zeros(len(totals))
