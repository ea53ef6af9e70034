"""Networks so small that the truth about them is a formula."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from ohmloop.certify import Law, Votes
from ohmloop.crossbar import Hardware
from ohmloop.nn import analogize

HARD = Hardware(device="lognormal:0.4")


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model weights of its own seed, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            scale = 1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.1
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    return model.eval()


class Pair(nn.Module):
    """Two classes from two analog layers that see the same input: y = (A + B) x + bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2, dtype=torch.float64)
        self.b = nn.Linear(3, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[0.7, -0.4, 0.9], [0.2, 0.5, -0.3]]))
            self.a.bias.copy_(torch.tensor([0.3, -0.2]))
            self.b.weight.copy_(torch.tensor([[0.5, 0.1, -0.2], [-0.3, 0.4, 0.6]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


X = torch.tensor([[1.0, -0.5, 0.8]], dtype=torch.float64)


def pair() -> nn.Module:
    return analogize(Pair().eval(), HARD)


def leverages(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Change of the margin y_0 - y_1 for a relative change of each weight: the exact geometry."""
    sign = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    a, b = model.a, model.b
    return {
        "a.weight": sign * a.weight.detach() * x,
        "a.bias": sign[:, 0] * a.bias.detach(),
        "b.weight": sign * b.weight.detach() * x,
    }


def margin(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        out = model(x)
    return float(out[0, 0] - out[0, 1])


def truth(model: nn.Module, x: Tensor, law: Law) -> float:
    """P(class 0) under gaussian noise that is relative to the nominal weights."""
    square = sum(
        float((law.sigma_of(name) * lever).square().sum())
        for name, lever in leverages(model, x).items()
    )
    return float(ndtr(margin(model, x) / math.sqrt(square)))


class Ratio(nn.Module):
    """Two weights, no bias: class 0 exactly where w_0 > w_1. Log-normal noise has a closed form."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[first], [second]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


ONE = torch.ones(1, 1, dtype=torch.float64)


def ratio(first: float = 1.3, second: float = 1.0) -> nn.Module:
    return analogize(Ratio(first, second).eval(), HARD)


class Ladder(nn.Module):
    """One weight, n thresholds: the share of inputs that it passes grows with the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        nn.init.ones_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(torch.ones_like(x)), x], 1)


def ladder() -> nn.Module:
    return analogize(Ladder().eval(), HARD)


def parts(votes: Votes, n: int) -> list[Votes]:
    """Cut a fleet into independent fleets of n devices: repetitions of one experiment."""
    return [
        dataclasses.replace(votes, classes=votes.classes[k : k + n])
        for k in range(0, votes.n_devices - n + 1, n)
    ]


def votes_of(right: np.ndarray) -> Votes:
    """Votes of measured chips that are right or wrong as given, ``N x n``."""
    n = right.shape[1]
    zero = np.zeros(n, dtype=np.int32)
    return Votes(
        classes=np.where(right, 0, 1).astype(np.int32),
        digital=zero,
        labels=zero.astype(np.int64),
        law=None,
        law_words="chips",
        cells=None,
        weights="",
        data="",
        seed=None,
        deployment="as measured",
        is_measured=True,
    )
