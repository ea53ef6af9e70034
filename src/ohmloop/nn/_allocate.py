"""How many arrays each layer should be averaged over, so that a given number of cells changes outputs least.

Layers differ a thousandfold in what an error of their weights does to the outputs, and as much in how many
weights they have. With c_l the mean squared change of the outputs that layer l causes on one array, n_l its
weights and m_l its arrays, the change is the sum of c_l / m_l (independent small errors add up in square and
fall as 1/m), and the cells are the sum of n_l m_l. For given cells the change is least with m_l in proportion
to sqrt(c_l / n_l): Neyman's allocation of a sample among strata (J. R. Stat. Soc. 97, 558 (1934)), with costs.

c_l is the relative variance of the device's factor times the sum over the layer's weights of (w dy/dw)^2, y the
outputs behind the deployment's corrections. These count: what a layer's errors have in common over the samples,
a correction by channel takes away. Squared derivatives of all outputs come from random signs: the gradient of
sum(u y) with independent u = +-1 has the sum of squared derivatives as its expected square (Hutchinson, Commun.
Stat. Simul. Comput. 19, 433 (1990)).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._convert import analog_parameters, need
from ohmloop.nn._deploy import Corrector, Recorder, corrected, sites
from ohmloop.nn._deployment import MOST, Calibration, Deployment, fits

SAMPLES = 16
"""Inputs that sensitivities are taken on: a backward pass holds all their activations."""
PROBES = 8, 32
"""Draws of random signs, at least and at most."""
PRECISION = 0.2
"""Standard error of a layer's sensitivity, over itself, at which no more signs are drawn: large layers are
there at once. Arrays go with its square root."""
_SEED = 11
_TINY = 1e-9


def allocate_arrays(
    model: nn.Module,
    deployment: Deployment,
    inputs: Tensor | None,
    hardwares: Sequence[Hardware | Mapping[str, Hardware]] | None = None,
) -> Deployment:
    """Return ``deployment`` with its ``cells`` divided among the layers, as ``layer_arrays``.

    It is a matter of design: found once, from the nominal weights, the same for all devices. A deployment
    without ``cells`` comes back as it is.

    Args:
        model: An analog model in eval mode, without a programmed chip.
        deployment: Its calibration counts: what a correction takes away needs no arrays.
        inputs: Unlabelled inputs ``k x ...`` of the training data; the first 16 are used.
        hardwares: What devices are drawn from, as for `evaluate_fleets`; the model's own by default. Only how
            layers differ in sigma counts.

    Raises:
        ConversionError: If the model is digital, a pattern of ``layer_arrays`` matches no analog layer, there
            are too few inputs, or derivatives are not finite.
    """
    check_layers(model, deployment)
    if deployment.cells == 1:
        return deployment
    if inputs is None or len(inputs) < 2:
        raise ConversionError(
            f'deployment "{deployment}" divides cells by what layers do to the outputs of unlabelled inputs, '
            f"at least 2; received {0 if inputs is None else len(inputs)}. Give some of the training data "
            "(unlabelled=...), or the numbers by hand: layer_arrays."
        )
    parameters = analog_parameters(model)
    spread = _variances(model, hardwares)
    sizes: dict[str, int] = {}
    change: dict[str, float] = {}
    sharp = sensitivities(model, inputs[:SAMPLES], deployment.calibration)
    for name, p in parameters.items():
        layer = name.rpartition(".")[0]
        sizes[layer] = sizes.get(layer, 0) + p.numel()
        change[layer] = change.get(layer, 0.0) + spread[name] * sharp[name]
    if not all(map(math.isfinite, change.values())):
        raise ConversionError(
            "the outputs' derivatives are not finite on these inputs, so cells cannot be divided by them; "
            "look for infinite weights or inputs, or give layer_arrays by hand."
        )
    counts = divided(change, sizes, deployment.cells)
    update: dict[str, object] = {"cells": 1.0}
    if len(set(counts.values())) == 1:
        update["arrays"] = next(iter(counts.values()))
    else:
        update["layer_arrays"] = tuple(counts.items())
    return deployment.model_copy(update=update)


def check_divided(model: nn.Module, deployment: Deployment) -> None:
    """Raise ConversionError unless it is known how many arrays each layer has, of layers that there are."""
    if deployment.cells > 1:
        raise ConversionError(
            f'deployment "{deployment}" leaves open how its cells are divided. Divide them first, from '
            "unlabelled inputs: deployment = allocate_arrays(model, deployment, inputs)."
        )
    check_layers(model, deployment)


def check_layers(model: nn.Module, deployment: Deployment) -> None:
    """Raise ConversionError if a pattern of ``layer_arrays`` matches no analog layer."""
    if deployment.layer_arrays:
        check_patterns(_layers(model), deployment)


def check_patterns(layers: Sequence[str], deployment: Deployment) -> None:
    """Raise ConversionError if a pattern of ``layer_arrays`` matches none of the layers."""
    for pattern, _ in deployment.layer_arrays:
        if not any(fits(pattern, layer) for layer in layers):
            raise ConversionError(
                f"layer_arrays: {pattern!r} matches no analog layer; there are {', '.join(layers)}."
            )


def layer_counts(model: nn.Module, deployment: Deployment) -> tuple[tuple[str, int], ...]:
    """Return the analog layers and how many averaged arrays hold each; nothing where one holds each."""
    found = tuple((layer, deployment.arrays_of(layer)) for layer in _layers(model))
    return found if any(m > 1 for _, m in found) else ()


def _layers(model: nn.Module) -> list[str]:
    """Return the names of the analog layers."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in analog_parameters(model)))


def _variances(
    model: nn.Module, hardwares: Sequence[Hardware | Mapping[str, Hardware]] | None
) -> dict[str, float]:
    """Return the relative variance of each analog parameter's factor, the mean over hardwares."""
    own = need(model).parameters
    out = dict.fromkeys(own, 0.0)
    for hardware in hardwares or (own,):
        for name in own:
            of = hardware if isinstance(hardware, Hardware) else hardware.get(name, own[name])
            # exp(s z) over its mean factor has the variance exp(s^2) - 1.
            out[name] += math.expm1(of.device.sigma.value**2)
    return out


def sensitivities(model: nn.Module, inputs: Tensor, calibration: Calibration) -> dict[str, float]:
    """Return the sum over each analog parameter's weights of (w dy/dw)^2, for the mean input.

    Args:
        model: In eval mode, with its nominal weights.
        inputs: Unlabelled inputs ``k x ...``.
        calibration: What corrects the outputs y; "readout" counts as "channel".
    """
    kind: Calibration = "channel" if calibration == "readout" else calibration
    names = frozenset(need(model).names)
    places = {} if kind == "none" else sites(model, kind, names)
    place = next(model.parameters()).device
    x = inputs.to(place)
    recorder = Recorder()
    if kind not in ("none", "batch-norm"):
        with torch.no_grad(), corrected(model, places, recorder):
            model(x)
    weights = {n: p.detach().clone().requires_grad_() for n, p in analog_parameters(model).items()}
    found: list[list[float]] = []
    generator = torch.Generator().manual_seed(_SEED)
    while len(found) < PROBES[0] or (len(found) < PROBES[1] and not _is_precise(found)):
        with torch.enable_grad():
            if places:
                with corrected(model, places, Corrector(kind, recorder.statistics)):
                    y = functional_call(model, weights, (x,))
            else:
                y = functional_call(model, weights, (x,))
            signs = torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1
            slopes = torch.autograd.grad(
                (signs * y).sum(), list(weights.values()), allow_unused=True
            )
        squares = [
            torch.zeros((), dtype=torch.float64, device=place)
            if slope is None
            else (w.detach() * slope).square().sum().double()
            for w, slope in zip(weights.values(), slopes, strict=True)
        ]
        # Read together: each waits for a GPU.
        found.append((torch.stack(squares) / len(x)).tolist())
    return dict(zip(weights, np.mean(found, axis=0).tolist(), strict=True))


def _is_precise(found: list[list[float]]) -> bool:
    values = np.array(found)
    errors = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return bool(np.all(errors <= PRECISION * values.mean(axis=0)))


def divided(change: Mapping[str, float], sizes: Mapping[str, int], cells: float) -> dict[str, int]:
    """Return arrays by layer whose cells are at most ``cells`` times the layers' sizes.

    Array by array goes to the layer whose change it lowers most for its cells, c / (m (m + 1)) / n, while they
    fit; then an array is given to a layer from those of another as long as that lowers the change.

    Args:
        change: Mean squared change of the outputs by layer, on one array.
        sizes: Weights by layer.
        cells: At least 1.
    """
    counts = dict.fromkeys(sizes, 1)
    left = round((cells - 1) * sum(sizes.values()))
    queue = [
        (-change[layer] / 2 / size, layer) for layer, size in sizes.items() if change[layer] > 0
    ]
    heapq.heapify(queue)
    while queue:
        _, layer = heapq.heappop(queue)
        size, m = sizes[layer], counts[layer] + 1
        if size > left or m > MOST:
            continue
        counts[layer], left = m, left - size
        heapq.heappush(queue, (-change[layer] / (m * (m + 1)) / size, layer))
    while (better := _exchanged(change, sizes, counts, left)) is not None:
        counts, left = better
    return counts


def _exchanged(
    change: Mapping[str, float], sizes: Mapping[str, int], counts: dict[str, int], left: int
) -> tuple[dict[str, int], int] | None:
    """Return a better division where one layer gives arrays and another takes one, and the cells then left."""
    for taker, m in counts.items():
        gain = change[taker] / (m * (m + 1))
        if m == MOST:
            continue
        for giver, many in counts.items():
            taken = max(0, math.ceil((sizes[taker] - left) / sizes[giver]))
            if giver == taker or taken >= many:
                continue
            loss = change[giver] / (many - taken) - change[giver] / many
            if loss < gain * (1 - _TINY):
                moved = counts | {taker: m + 1, giver: many - taken}
                return moved, left - sizes[taker] + taken * sizes[giver]
    return None
