"""Reference networks by name, initialised from a seed without touching the global random state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.tasks._images import _convnets
from ohmloop.tasks._images._vit import VisionTransformer, patch_side


def _mlp(shape: Sequence[int], n_classes: int, *, norm: bool) -> nn.Module:
    """Return two hidden layers of 100 with ReLU, for inputs of any shape."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(shape)
    for _ in range(2):
        layers += [nn.Linear(width, 100), *([nn.BatchNorm1d(100)] if norm else []), nn.ReLU()]
        width = 100
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


def _linear(shape: Sequence[int], n_classes: int) -> nn.Module:
    """Return a single layer, the perceptron that one small array holds."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), n_classes))


def _is_image(shape: Sequence[int], least: int) -> bool:
    return len(shape) == 3 and min(shape[1:]) >= least


def _fits_lenet(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and tuple(shape[1:]) in ((28, 28), (32, 32))


def _fits_vit(shape: Sequence[int]) -> bool:
    return _is_image(shape, 28) and all(side % patch_side(shape) == 0 for side in shape[1:])


class _Network(NamedTuple):
    """A network, which inputs it takes, and how to say so."""

    build: Callable[[Sequence[int], int], nn.Module]
    fits: Callable[[Sequence[int]], bool]
    takes: str


_ANY = "inputs of any shape"
_FROM_28 = "images C x H x W of at least 28 x 28"
_FROM_32 = "images C x H x W of at least 32 x 32"
_LENET = "images C x 28 x 28 or C x 32 x 32"
_at_least_28 = partial(_is_image, least=28)
_at_least_32 = partial(_is_image, least=32)

_NETWORKS = {
    "linear": _Network(_linear, bool, _ANY),
    "mlp": _Network(partial(_mlp, norm=False), bool, _ANY),
    "mlp-bn": _Network(partial(_mlp, norm=True), bool, _ANY),
    "lenet": _Network(partial(_convnets.lenet, norm=False), _fits_lenet, _LENET),
    "lenet-bn": _Network(partial(_convnets.lenet, norm=True), _fits_lenet, _LENET),
    "cnn": _Network(partial(_convnets.cnn, norm=False), _at_least_28, _FROM_28),
    "cnn-bn": _Network(partial(_convnets.cnn, norm=True), _at_least_28, _FROM_28),
    "alexnet": _Network(partial(_convnets.alexnet, norm=False), _at_least_28, _FROM_28),
    "alexnet-bn": _Network(partial(_convnets.alexnet, norm=True), _at_least_28, _FROM_28),
    "vgg11": _Network(partial(_convnets.vgg11, norm=False), _at_least_32, _FROM_32),
    "vgg11-bn": _Network(partial(_convnets.vgg11, norm=True), _at_least_32, _FROM_32),
    "resnet8": _Network(_convnets.resnet8, _at_least_28, _FROM_28),
    "resnet18": _Network(_convnets.resnet18, _at_least_28, _FROM_28),
    "vit": _Network(
        VisionTransformer, _fits_vit, f"{_FROM_28} that patches of 4 x 4 (or an eighth) divide"
    ),
}


def model_names(input_shape: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the reference networks that take inputs of this shape, without the batch axis."""
    return tuple(name for name, network in _NETWORKS.items() if network.fits(input_shape))


def build_model(name: str, input_shape: Sequence[int], n_classes: int, seed: int) -> nn.Module:
    """Return a reference network: it maps ``B x input_shape`` to logits ``B x n_classes``.

    Args:
        name: "linear" (one layer), "mlp" (two hidden layers of 100), "lenet" (LeNet-5), "cnn" (three
            convolutions), "alexnet" (small), "vgg11", each but the first also with batch norm as "...-bn";
            "resnet8", "resnet18", "vit".
        input_shape: Shape of one input.
        n_classes: Outputs.
        seed: Of the initial weights.

    Raises:
        TaskError: If there is no such network, or it does not take such inputs.
    """
    network = _NETWORKS.get(name)
    if network is None or not network.fits(input_shape):
        shape = " x ".join(str(n) for n in input_shape)
        why = f"no model {name!r}" if network is None else f"{name} takes {network.takes}"
        raise TaskError(
            f"{why}; for inputs of shape {shape} choose one of {', '.join(model_names(input_shape))}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network.build(input_shape, n_classes)
