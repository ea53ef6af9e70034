"""What tests of language tasks share."""

from typing import Any

import pytest
import torch
from torch import nn

from ohmloop.tasks._fetch import cache_folder


def need(*names: str) -> None:
    for name in names:
        if not cache_folder(name).is_dir():
            pytest.skip(f"{name} is not here: ohmloop fetch {name}")


def tiny_language(spread: float = 0.02) -> Any:
    transformers = pytest.importorskip(
        "transformers", reason='needs pip install "ohmloop[language]"'
    )
    config = transformers.LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=spread,
        attn_implementation="eager",
    )
    return transformers.LlamaForCausalLM(config).eval()


class Eye(nn.Module):
    """Sees the mean of each colour; its classifier has 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 4)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) / 255


def pictures(n: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=g)
