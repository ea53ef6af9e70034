"""What the reference networks are made of. Only Linear and convolutions are analog; norms stay digital."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def initialise(model: nn.Module) -> nn.Module:
    """Draw the weights of all layers but the last by He et al. 2015, equation 10, and clear their biases.

    Deep chains of ReLU keep the size of their activations so; the last layer keeps the default of
    torch, which starts at small logits.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers[:-1]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def conv(
    channels: int, out: int, *, norm: bool, kernel: int = 3, padding: int = 1
) -> nn.Sequential:
    """Return convolution, batch norm if asked for, ReLU."""
    norms = [nn.BatchNorm2d(out)] if norm else []
    layer = nn.Conv2d(channels, out, kernel, padding=padding, bias=not norm)
    return nn.Sequential(layer, *norms, nn.ReLU())


def linear(width: int, out: int, *, norm: bool) -> nn.Sequential:
    """Return a linear layer, batch norm if asked for, ReLU."""
    norms = [nn.BatchNorm1d(out)] if norm else []
    return nn.Sequential(nn.Linear(width, out, bias=not norm), *norms, nn.ReLU())


class Mean(nn.Module):
    """Averages images ``B x C x H x W`` to ``B x C``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over height and width."""
        return x.mean((-2, -1))


class Residual(nn.Module):
    """Basic block: two convolutions and a shortcut (He et al. 2016, figure 5 left, shortcuts of option B).

    Args:
        channels: Of the input.
        out: Of the output.
        stride: Of the first convolution.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``B x C x H x W`` to ``B x out x H / stride x W / stride``."""
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def after_pools(sides: Sequence[int], n: int) -> int:
    """Return how many pixels are left of an image after ``n`` poolings of 2 x 2."""
    height, width = sides
    return (height >> n) * (width >> n)
