"""Small networks that chips are tried on, with inputs, and whether chips may share a batch."""

from collections.abc import Callable

import torch
from tests.nn.forms import TinyExperts
from torch import nn


class Residual(nn.Module):
    """Skip connection, batch norm, groups, reflect padding, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.edge = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.edge(self.deep(x))
        return self.head(x.mean((2, 3)))


class Text(nn.Module):
    """An encoder layer, a recurrent layer and a head tied to the embedding."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0)
        self.rnn = nn.LSTM(8, 8, batch_first=batch_first)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.table.weight
        self.batch_first = batch_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.block(self.table(x))
        h = self.rnn(h if self.batch_first else h.transpose(0, 1))[0]
        return self.head(h if self.batch_first else h.transpose(0, 1))


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.experts = TinyExperts()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.experts(self.first(x))


class BatchAware(nn.Module):
    """Looks across the batch, so that chips must not share one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return self.b(h - h.mean())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], bool]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4)),
        lambda: torch.randn(21, 9),
        True,
    ),
    "residual": (Residual, lambda: torch.randn(7, 2, 6, 6), True),
    "text": (Text, lambda: torch.randint(0, 9, (7, 5)), True),
    "text-seq-first": (lambda: Text(batch_first=False), lambda: torch.randint(0, 9, (7, 5)), True),
    "up": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.ConvTranspose1d(4, 2, 3, groups=2)),
        lambda: torch.randn(7, 2, 8),
        True,
    ),
    "mixture": (Mixture, lambda: torch.randn(9, 6), False),
    "batch-aware": (BatchAware, lambda: torch.randn(9, 4), False),
}


def network(name: str) -> tuple[nn.Module, torch.Tensor, bool]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        make, inputs, together = NETWORKS[name]
        return make().eval(), inputs(), together
