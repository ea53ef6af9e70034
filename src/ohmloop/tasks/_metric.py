"""How a network is trained and scored on a task: a loss, and sums over inputs that give the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class Metric(ABC):
    """A loss and a score. Scores add up over batches, for one device or many at once.

    Attributes:
        name: As tables head it.
        is_higher_better: False for an error or a perplexity.
    """

    name: str
    is_higher_better: bool = True

    @abstractmethod
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the mean training loss of outputs ``B x ...`` for targets ``B x ...``: a scalar."""

    @abstractmethod
    def distance(self, out: Tensor, teacher: Tensor) -> Tensor:
        """Return how far outputs are from a teacher's, both ``B x ...``: a scalar, 0 if equal."""

    @abstractmethod
    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return float64 sums over a batch: ``N x k`` of outputs ``N x B x ...``, targets ``B x ...``."""

    @abstractmethod
    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores ``N`` of the summed totals ``N x k``."""


def _divergence(out: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean KL(teacher || out) over all but the last axis, nats, of logits ``... x classes``."""
    terms = F.kl_div(
        F.log_softmax(out, -1), F.log_softmax(teacher, -1), log_target=True, reduction="none"
    )
    return terms.sum(-1).mean()


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of right classes; cross-entropy trains, Kullback-Leibler divergence compares.

    Outputs are logits ``... x classes``, targets class numbers.
    """

    name: str = "accuracy"
    is_higher_better: bool = True

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(out, y)

    def distance(self, out: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean divergence KL(teacher || out) of the two softmax distributions, nats."""
        return _divergence(out, teacher)

    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return hits and inputs."""
        hits = (out.argmax(-1) == y).sum(-1).double()
        return torch.stack([hits, torch.full_like(hits, y.numel())], -1)

    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return hits / inputs."""
        return totals[:, 0] / totals[:, 1]


@dataclass(frozen=True)
class RSquared(Metric):
    """Coefficient of determination, 1 - sum of squares of errors / sum of squares about the mean.

    Outputs ``... x d``, targets ``B x d``; over d > 1 the sums run over all coordinates.
    """

    name: str = "R2"
    is_higher_better: bool = True

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(out, y)

    def distance(self, out: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared difference."""
        return F.mse_loss(out, teacher)

    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the squares of errors, then count, sum and squares of the targets by coordinate."""
        n = len(out)
        error = (out.double() - y.double()).square().reshape(n, -1).sum(1, keepdim=True)
        flat = y.double().reshape(len(y), -1)
        about = torch.cat(
            [
                torch.full((1,), len(y), dtype=torch.float64, device=y.device),
                flat.sum(0),
                flat.square().sum(0),
            ]
        )
        return torch.cat([error, about.expand(n, -1)], 1)

    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return R2; targets that are all the same give NaN."""
        d = (totals.shape[1] - 2) // 2
        count, total, squares = totals[:, 1:2], totals[:, 2 : 2 + d], totals[:, 2 + d :]
        about = (squares - total**2 / count).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(about > 0, 1 - totals[:, 0] / about, np.nan)


IGNORED = -100
"""Target of a position that does not count, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True)
class Perplexity(Metric):
    """exp(mean negative log-likelihood of the next token). Lower is better.

    Outputs are logits ``... x T x vocabulary``, targets token numbers ``B x T``; `IGNORED` ones do not count.
    """

    name: str = "perplexity"
    is_higher_better: bool = False

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy over tokens that count, nats."""
        return F.cross_entropy(out.flatten(0, -2), y.flatten(), ignore_index=IGNORED)

    def distance(self, out: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean divergence KL(teacher || out) over positions, nats."""
        return _divergence(out, teacher)

    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the summed negative log-likelihood and the number of tokens that count."""
        sums = [
            F.cross_entropy(
                one.flatten(0, -2).float(), y.flatten(), ignore_index=IGNORED, reduction="sum"
            ).double()
            for one in out
        ]
        count = (y != IGNORED).sum().double()
        return torch.stack([torch.stack(sums), count.expand(len(sums))], -1)

    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return exp(sum / tokens); beyond float64 it is infinite."""
        with np.errstate(over="ignore"):
            return np.exp(totals[:, 0] / totals[:, 1])


@dataclass(frozen=True)
class TokenAccuracy(Perplexity):
    """Share of right next tokens, each after the true ones before it (teacher forcing)."""

    name: str = "token accuracy"
    is_higher_better: bool = True

    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return hits and the number of tokens that count."""
        counts = y != IGNORED
        hits = ((out.argmax(-1) == y) & counts).flatten(1).sum(1).double()
        return torch.stack([hits, counts.sum().double().expand(len(hits))], -1)

    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return hits / tokens."""
        return totals[:, 0] / totals[:, 1]
