"""Batch norm's running statistics: whose they are, and when they are taken anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NOISY = "_ohmloop_noisy_statistics"


def mark_noisy_statistics(model: nn.Module, frozen: Sequence[nn.Module] = ()) -> None:
    """Note that batch norm's running statistics were gathered in a training, where weights were noisy.

    Deployments that bring devices to the nominal network take its statistics anew then. Those of a network as
    it comes are part of what it learned, from data that a few inputs here cannot stand for, and stay. The note
    is copied with the model, and is no part of its state dict. Frozen layers, which ``model.train()`` leaves in
    eval mode, gather nothing and are not marked.

    Args:
        model: The network.
        frozen: Layers that were frozen by the training.
    """
    left = {id(module) for module in frozen}
    with in_mode(model, training=True):
        for module in model.modules():
            gathers = isinstance(module, BATCH_NORMS) and module.training
            if gathers and module.track_running_stats and id(module) not in left:
                module.__dict__[_NOISY] = True


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """While active, every module is in the mode that ``model.train(training)`` puts it into."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def nominal_batch_norm(model: nn.Module, inputs: Tensor, batch: int) -> Iterator[None]:
    """While active, running statistics that noisy weights left are those of the weights as they stand.

    Of the batch norms that `mark_noisy_statistics` marked; others stay as they are. The plain average over
    batches is taken.

    Args:
        model: In eval mode.
        inputs: Unlabelled inputs ``k x ...``.
        batch: Inputs at once.
    """
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and _NOISY in m.__dict__]
    kept = [(m, m.momentum, {k: b.clone() for k, b in m.named_buffers()}) for m in norms]
    place = next(model.parameters()).device
    try:
        for m in norms:
            m.reset_running_stats()
            m.momentum = None
            m.train()
        if norms:
            with torch.no_grad():
                for part in torch.split(inputs, batch):
                    if len(part) > 1:
                        model(part.to(place))
        for m in norms:
            m.eval()
        yield
    finally:
        for m, momentum, buffers in kept:
            m.eval()
            m.momentum = momentum
            for name, value in buffers.items():
                m.get_buffer(name).copy_(value)


def takes_batch_statistics(model: nn.Module) -> bool:
    """Return whether training takes batch norm's statistics from each batch, in all of a network's batch norms.

    False without batch norm, and where ``model.train()`` leaves one in eval mode (frozen).
    """
    with in_mode(model, training=True):
        return normalises_batches(model)


def normalises_batches(model: nn.Module) -> bool:
    """Return whether there are batch norms, and all take statistics of batches in the modes they are in."""
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS)]
    return bool(norms) and all(m.training or not m.track_running_stats for m in norms)


def pretrained_norms(model: nn.Module) -> list[nn.Module]:
    """Return the batch norms that have running statistics other than a fresh layer's."""
    out: list[nn.Module] = []
    for m in model.modules():
        if isinstance(m, BATCH_NORMS) and m.running_mean is not None and m.running_var is not None:
            if bool(m.running_mean.any()) or bool((m.running_var != 1).any()):
                out.append(m)
    return out
