"""PointPillars: points to pillars to a picture from above, then convolutions and anchors.

Lang, Vora, Caesar, Zhou, Yang, Beijbom, CVPR 2019 (arXiv 1812.05784). All weights are in Linear and Conv2d,
so all are analog; batch norm is digital. What differs from the paper, and why:

* All points count, not at most 100 of at most 12,000 pillars (dynamic voxelisation, Zhou et al., CoRL 2019):
  nothing is dropped at random.
* A transposed convolution whose kernel is its stride is a 1 x 1 convolution to stride^2 as many channels,
  rearranged. It is written like that, because a crossbar computes it like that.
* Classes, box and direction come from one 1 x 1 convolution; as columns of a matrix they are the same three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._kitti._anchors import (
    LAYOUTS,
    N_CLASSES,
    OUTPUTS,
    PER_CELL,
    Layout,
)

FEATURES = 9
"""Of a point: place, reflectance, offset from the mean of its pillar's points, from the pillar's middle."""
RARE = 0.01
"""Probability of an object that each anchor starts with (Lin et al., ICCV 2017, section 4.1)."""
EPS = 1e-3


class Size(NamedTuple):
    """Of a network.

    Attributes:
        pillar: Channels of a pillar.
        blocks: (convolutions after the first, channels) of each block; each begins with stride 2.
        up: Channels that each block adds to what the anchors see.
        momentum: Of batch norm; 0.01 as published needs thousands of steps.
    """

    pillar: int
    blocks: tuple[tuple[int, int], ...]
    up: int
    momentum: float


SIZES = {
    "pillars": Size(64, ((3, 64), (5, 128), (5, 256)), 128, 0.01),
    "pillars-small": Size(16, ((2, 24), (3, 48)), 32, 0.1),
}


class Pillars(nn.Module):
    """From points ``B x P x 4`` to ``B x A x 12``.

    A point is x, y, z, reflectance; all zeros (where the scanner itself is) means that there is none. Points
    outside the layout do not count.
    """

    def __init__(self, layout: Layout, size: Size) -> None:
        super().__init__()
        self.layout = layout
        self.point = nn.Linear(FEATURES, size.pillar, bias=False)
        self.point_norm = nn.BatchNorm1d(size.pillar, eps=EPS, momentum=size.momentum)
        self.blocks, self.ups = nn.ModuleList(), nn.ModuleList()
        before = size.pillar
        for k, (more, width) in enumerate(size.blocks):
            self.blocks.append(_block(before, width, more, size.momentum))
            self.ups.append(_up(width, size.up, 2**k, size.momentum))
            before = width
        self.head = nn.Conv2d(size.up * len(size.blocks), PER_CELL * OUTPUTS, 1)
        with torch.no_grad():
            bias = self.head.bias
            assert bias is not None
            bias.zero_()
            bias.view(PER_CELL, OUTPUTS)[:, :N_CLASSES] = -math.log((1 - RARE) / RARE)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of classes, offsets of boxes and logits of directions at all anchors."""
        features, cell = pillar_features(x, self.layout)
        seen = self.point(features)
        seen = torch.relu(self.point_norm(seen.transpose(1, 2)).transpose(1, 2))
        canvas = self._spread(seen, cell)
        levels = []
        for block, up in zip(self.blocks, self.ups, strict=True):
            canvas = block(canvas)
            levels.append(up(canvas))
        out: Tensor = self.head(torch.cat(levels, 1))
        return out.permute(0, 2, 3, 1).reshape(len(out), -1, OUTPUTS)

    def _spread(self, seen: Tensor, cell: Tensor) -> Tensor:
        """Return ``B x C x rows x columns``: in each pillar the largest of its points' features."""
        rows, columns = self.layout.canvas
        # Several devices may lie one after another in the batch; they share the points.
        cell = cell.repeat(len(seen) // len(cell), 1).unsqueeze(-1).expand_as(seen)
        # Features are not negative, so zeros stand for empty pillars; the last cell is for what is outside.
        flat = seen.new_zeros(len(seen), rows * columns + 1, seen.shape[-1])
        flat = flat.scatter_reduce(1, cell, seen, "amax")
        return flat[:, :-1].transpose(1, 2).reshape(len(seen), -1, rows, columns)


def pillar_features(x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return features ``B x P x 9`` of points ``B x P x 4`` and the numbers ``B x P`` of their pillars.

    Pillars are counted along x, then y. Points outside have the number after the last, and zeros.
    """
    rows, columns = layout.canvas
    low, high = x.new_tensor(layout.low), x.new_tensor(layout.high)
    place = x[..., :3]
    valid = ((place >= low) & (place < high)).all(-1) & (place != 0).any(-1)
    column = ((place[..., 0] - low[0]) / layout.pillar).floor()
    row = ((place[..., 1] - low[1]) / layout.pillar).floor()
    column, row = column.clamp(0, columns - 1), row.clamp(0, rows - 1)
    cell = torch.where(valid, row * columns + column, x.new_full((), rows * columns)).long()
    index = cell.unsqueeze(-1).expand_as(place)
    total = x.new_zeros(len(x), rows * columns + 1, 3).scatter_add(1, index, place)
    count = x.new_zeros(len(x), rows * columns + 1).scatter_add(1, cell, torch.ones_like(column))
    mean = total.gather(1, index) / count.gather(1, cell).clamp_min(1).unsqueeze(-1)
    middle = torch.stack([column + 0.5, row + 0.5], -1) * layout.pillar + low[:2]
    features = torch.cat([x, place - mean, place[..., :2] - middle], -1)
    return torch.where(valid.unsqueeze(-1), features, torch.zeros_like(features)), cell


def _normed(conv: nn.Module, width: int, momentum: float) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(width, eps=EPS, momentum=momentum), nn.ReLU()]


def _block(before: int, width: int, more: int, momentum: float) -> nn.Sequential:
    layers = _normed(nn.Conv2d(before, width, 3, 2, 1, bias=False), width, momentum)
    for _ in range(more):
        layers += _normed(nn.Conv2d(width, width, 3, 1, 1, bias=False), width, momentum)
    return nn.Sequential(*layers)


def _up(before: int, width: int, factor: int, momentum: float) -> nn.Sequential:
    spread = nn.Sequential(
        nn.Conv2d(before, width * factor**2, 1, bias=False), nn.PixelShuffle(factor)
    )
    return nn.Sequential(*_normed(spread, width, momentum))


def build_pillars(name: str, seed: int) -> nn.Module:
    """Return a network by name, initialised from a seed.

    Raises:
        TaskError: If there is no such network.
    """
    if name not in SIZES:
        raise TaskError(f"no detector {name!r}; one of {', '.join(SIZES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Pillars(LAYOUTS[name], SIZES[name])


def pillars_names() -> Sequence[str]:
    """Return the names of the networks."""
    return tuple(SIZES)
