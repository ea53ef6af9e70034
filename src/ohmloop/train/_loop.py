"""One training: steps, noise, checkpoints. Killed and started again, it ends at the same bits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ohmloop.errors import TrainError
from ohmloop.nn import accuracy, analog_parameters
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.tasks import Split
from ohmloop.train._methods import Noise

VALIDATION_SAMPLES = 1000
"""Validation inputs that the accuracy of each epoch is taken over; the search uses them all."""


Schedule = Literal["cosine", "constant"]


class Recipe(NamedTuple):
    """How every method trains: Adam, the same for all.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Inputs a step.
        lr: Largest learning rate.
        seed: Of batches and noise.
        schedule: "cosine": from ``lr`` to zero; "constant": ``lr`` throughout.
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int
    schedule: Schedule = "cosine"


def noisy_layers(model: nn.Module) -> Sequence[nn.Module]:
    """Return the layers that masks follow: Linear and convolutions, all but the last, in order."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [m for m in model.modules() if isinstance(m, kinds)][:-1]


def draw_mask(like: Tensor, p0: float, p_half: float, generator: torch.Generator) -> Tensor:
    """Draw a mask in {0, 1/2, 1} / mean with the given probabilities of 0 and 1/2.

    The mean is the expected one, p_half / 2 + p1, so that activations keep their expectation.
    """
    u = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    mean = 1 - p0 - p_half / 2
    mask = (u >= p0).to(like.dtype)
    if p_half:
        mask -= 0.5 * ((u >= p0) & (u < p0 + p_half)).to(like.dtype)
    return mask / mean


def draw_weights(model: nn.Module, noise: Noise, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the analog weights of one training step, differentiable in the nominal ones."""
    out = {}
    for name, p in analog_parameters(model).items():
        z = torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
        if noise.distribution == "gaussian":
            out[name] = p * z.mul_(noise.level).add_(1)
        else:
            shift = 0.5 * noise.level**2 if noise.distribution == "lognormal-mean-1" else 0.0
            out[name] = p * z.mul_(noise.level).sub_(shift).exp_()
    return out


@contextmanager
def masked(model: nn.Module, noise: Noise, generator: torch.Generator) -> Iterator[None]:
    """While active, multiply the outputs of the noisy layers by fresh masks."""
    handles = []
    if noise.masks:
        layers = noisy_layers(model)
        if len(noise.masks) != len(layers):
            raise TrainError(f"{len(noise.masks)} mask settings for {len(layers)} noisy layers.")
        for layer, (p0, p_half) in zip(layers, noise.masks, strict=True):

            def hook(
                module: nn.Module, inputs: Any, out: Tensor, p0: float = p0, p_half: float = p_half
            ) -> Tensor:
                return out * draw_mask(out, p0, p_half, generator)

            handles.append(layer.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def train_once(
    model: nn.Module,
    train: Split,
    validation: Split,
    noise: Noise,
    recipe: Recipe,
    *,
    folder: Path | None = None,
    label: str = "train",
    progress: Progress = silent,
) -> list[dict[str, float]]:
    """Train ``model`` in place and return its history, one entry an epoch.

    With a folder, a checkpoint is written after each epoch (as a whole or not at all), and a training
    that finds one goes on from it to the same weights as if it had never stopped.
    """
    place = next(model.parameters()).device
    x, y = train.x.to(place), train.y.to(place)
    watched = Split(validation.x[:VALIDATION_SAMPLES], validation.y[:VALIDATION_SAMPLES])
    shuffle = torch.Generator().manual_seed(recipe.seed)
    random = torch.Generator(device=place).manual_seed(recipe.seed + 1_000_003)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
    history: list[dict[str, float]] = []
    checkpoint = folder / "checkpoint.pt" if folder is not None else None
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=place)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        shuffle.set_state(state["shuffle"].cpu())
        random.set_state(state["random"].cpu())
        history = json.loads(state["history"])
    for epoch in range(len(history), recipe.epochs):
        model.train()
        rate = recipe.lr
        if recipe.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
        for group in optimiser.param_groups:
            group["lr"] = rate
        order = torch.randperm(len(x), generator=shuffle).to(place)
        total = torch.zeros((), device=place)
        with masked(model, noise, random):
            for part in torch.split(order, recipe.batch_size):
                inputs = x[part]
                if noise.level:
                    out = functional_call(model, draw_weights(model, noise, random), (inputs,))
                else:
                    out = model(inputs)
                loss = F.cross_entropy(out, y[part])
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimiser.step()
                total += loss.detach() * len(part)
        mean_loss = float(total) / len(x)
        if not math.isfinite(mean_loss):
            raise TrainError(
                f"{label}: the loss is {mean_loss} in epoch {epoch + 1}. Lower the learning rate "
                f"(now {recipe.lr:g}) or the noise ({noise})."
            )
        history.append(
            {
                "epoch": epoch + 1,
                "loss": mean_loss,
                "validation_accuracy": accuracy(model, watched),
                "lr": rate,
            }
        )
        if checkpoint is not None:
            _save(
                checkpoint,
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "shuffle": shuffle.get_state(),
                    "random": random.get_state(),
                    "history": json.dumps(history),
                },
            )
        progress(ProgressEvent(label, epoch + 1, recipe.epochs, f"loss {history[-1]['loss']:.3f}"))
    model.eval()
    return history


def _save(path: Path, state: object) -> None:
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)
