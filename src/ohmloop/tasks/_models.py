"""Reference networks, initialised from a seed without touching the global random state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ohmloop.errors import TaskError


def build_model(name: str, input_shape: Sequence[int], n_classes: int, seed: int) -> nn.Module:
    """Return a reference network.

    Args:
        name: "mlp" (two hidden layers of 100, ReLU) or "lenet" (LeNet-5 of LeCun et al. 1998 with
            ReLU and max pooling; images of 28 x 28).
        input_shape: Shape of one input.
        n_classes: Outputs.
        seed: Of the initial weights.

    Raises:
        TaskError: If there is no such network for such inputs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mlp":
            width = int(torch.tensor(list(input_shape)).prod())
            return nn.Sequential(
                nn.Flatten(),
                nn.Linear(width, 100),
                nn.ReLU(),
                nn.Linear(100, 100),
                nn.ReLU(),
                nn.Linear(100, n_classes),
            )
        if name == "lenet" and tuple(input_shape) == (1, 28, 28):
            return nn.Sequential(
                nn.Conv2d(1, 6, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(6, 16, 5),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(400, 120),
                nn.ReLU(),
                nn.Linear(120, 84),
                nn.ReLU(),
                nn.Linear(84, n_classes),
            )
    raise TaskError(
        f"no model {name!r} for inputs of shape {tuple(input_shape)}; mlp fits any, lenet images of "
        "1 x 28 x 28."
    )
