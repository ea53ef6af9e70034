"""A small vision transformer (Dosovitskiy et al. 2021) whose projections are plain linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, HIDDEN = 128, 4, 4, 256


class Attention(nn.Module):
    """Self-attention over tokens (Vaswani et al. 2017, section 3.2); four linear layers hold its weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``B x T x width`` to the same shape."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for layer in (self.q, self.k, self.v)
        )
        # Written out: the fused function of torch has no rule for many weights at once (`torch.func.vmap`).
        share = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        out: Tensor = self.out((share @ v).transpose(-3, -2).flatten(-2))
        return out


class Block(nn.Module):
    """Attention, then two linear layers with GELU; layer norm comes first (pre-norm), each is added."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``B x T x width`` to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class VisionTransformer(nn.Module):
    """Patches, blocks, the mean over patches, one linear layer.

    The mean stands in place of a class token (Beyer et al. 2022, section 3). Positions are learned and stay
    digital, like the norms.
    """

    def __init__(self, shape: Sequence[int], n_classes: int) -> None:
        super().__init__()
        patch = patch_side(shape)
        self.patches = nn.Conv2d(shape[0], WIDTH, patch, stride=patch)
        n = (shape[1] // patch) * (shape[2] // patch)
        self.position = nn.Parameter(0.02 * torch.randn(n, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, HIDDEN) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``B x C x H x W`` to logits ``B x classes``."""
        tokens = self.patches(x).flatten(-2).transpose(-2, -1) + self.position
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(-2))
        return out


def patch_side(shape: Sequence[int]) -> int:
    """Return the side of a patch: 4 pixels up to 32 x 32, an eighth of the image beyond."""
    return max(4, max(shape[1:]) // 8)
