"""Anchor boxes on a grid seen from above: which objects they stand for, and boxes as offsets from them.

After Lang et al., "PointPillars", CVPR 2019 (arXiv 1812.05784), section 3, and the conventions that it takes
from SECOND (Yan, Mao, Li, Sensors 18, 3337 (2018)). Constants are the published ones for KITTI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._kitti._reader import CLASSES

N_CLASSES = len(CLASSES)
OUTPUTS = N_CLASSES + 7 + 2
"""Of one anchor: logits of the classes, offsets of the box, logits of the two directions."""
YAWS = (0.0, math.pi / 2)
PER_CELL = N_CLASSES * len(YAWS)
SIZES = ((3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73))
HEIGHTS = (-1.0, -0.6, -0.6)
"""Of the anchors' centres; the scanner of KITTI stands 1.73 m above the road."""
POSITIVE, NEGATIVE = (0.6, 0.5, 0.5), (0.45, 0.35, 0.35)
"""Overlaps seen from above from which an anchor stands for an object, and below which it is background."""
TURN = math.pi / 4
"""Yaw where the two directions change; no car drives along it as often as along 0 or pi / 2."""
MAX_LOG_SIZE = 4.0
"""Sizes are cut at e^4 of the anchor's: noisy weights may ask for any."""


@dataclass(frozen=True)
class Layout:
    """The ground that a network looks at, metres in the scanner's frame.

    Attributes:
        low: Nearest corner x, y, z.
        high: Farthest corner.
        pillar: Side of a pillar.
        stride: Pillars on a side of a cell of anchors.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    pillar: float
    stride: int

    @property
    def canvas(self) -> tuple[int, int]:
        """Pillars along y and x."""
        return (
            round((self.high[1] - self.low[1]) / self.pillar),
            round((self.high[0] - self.low[0]) / self.pillar),
        )

    @property
    def n_anchors(self) -> int:
        """Anchors of a scene."""
        rows, columns = self.canvas
        return rows // self.stride * (columns // self.stride) * PER_CELL


LAYOUTS = {
    "pillars": Layout((0.0, -39.68, -3.0), (69.12, 39.68, 1.0), 0.16, 2),
    "pillars-small": Layout((0.0, -11.52, -3.0), (23.04, 11.52, 1.0), 0.24, 2),
}
"""Of the networks; the first is the published one."""


def layout_of(out: Tensor) -> Layout:
    """Return the layout that outputs ``... x A x 12`` belong to, by their number of anchors."""
    for layout in LAYOUTS.values():
        if tuple(out.shape[-2:]) == (layout.n_anchors, OUTPUTS):
            return layout
    known = ", ".join(f"{layout.n_anchors} x {OUTPUTS}" for layout in LAYOUTS.values())
    raise TaskError(
        f"a detector's outputs for one scene are one of {known}; got {tuple(out.shape[-2:])}."
    )


@lru_cache(maxsize=8)
def anchors(layout: Layout, device: torch.device) -> Tensor:
    """Return the anchors ``A x 7`` of a layout; cell by cell along y, then x, then class, then yaw."""
    rows, columns = (n // layout.stride for n in layout.canvas)
    cell = layout.pillar * layout.stride
    y = layout.low[1] + cell * (torch.arange(rows) + 0.5)
    x = layout.low[0] + cell * (torch.arange(columns) + 0.5)
    out = torch.zeros(rows, columns, N_CLASSES, len(YAWS), 7)
    out[..., 0] = x.view(1, -1, 1, 1)
    out[..., 1] = y.view(-1, 1, 1, 1)
    out[..., 2] = torch.tensor(HEIGHTS).view(-1, 1)
    out[..., 3:6] = torch.tensor(SIZES).view(N_CLASSES, 1, 3)
    out[..., 6] = torch.tensor(YAWS)
    return out.reshape(-1, 7).to(device)


def anchor_classes(layout: Layout, device: torch.device) -> Tensor:
    """Return the classes ``A`` that anchors are made for."""
    return torch.arange(layout.n_anchors, device=device) // len(YAWS) % N_CLASSES


def encode(boxes: Tensor, base: Tensor) -> Tensor:
    """Return boxes ``... x 7`` as offsets from anchors ``... x 7`` (Lang et al. 2019, section 3.2)."""
    diagonal = torch.hypot(base[..., 3], base[..., 4]).unsqueeze(-1)
    return torch.cat(
        [
            (boxes[..., :2] - base[..., :2]) / diagonal,
            (boxes[..., 2:3] - base[..., 2:3]) / base[..., 5:6],
            torch.log(boxes[..., 3:6] / base[..., 3:6]),
            boxes[..., 6:] - base[..., 6:],
        ],
        -1,
    )


def decode(out: Tensor, base: Tensor) -> Tensor:
    """Return the boxes ``... x 7`` of outputs ``... x 12`` at anchors ``... x 7``.

    The offset of yaw says it up to half turns, the direction says which half.
    """
    offset, direction = out[..., N_CLASSES : N_CLASSES + 7], out[..., N_CLASSES + 7 :]
    diagonal = torch.hypot(base[..., 3], base[..., 4]).unsqueeze(-1)
    yaw = torch.remainder(offset[..., 6:] + base[..., 6:] - TURN, math.pi) + TURN
    return torch.cat(
        [
            offset[..., :2] * diagonal + base[..., :2],
            offset[..., 2:3] * base[..., 5:6] + base[..., 2:3],
            torch.exp(offset[..., 3:6].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE)) * base[..., 3:6],
            yaw + math.pi * direction.argmax(-1, keepdim=True),
        ],
        -1,
    )


def direction_of(yaw: Tensor) -> Tensor:
    """Return 0 or 1: which half turn from `TURN` on a yaw lies in."""
    return (torch.remainder(yaw - TURN, 2 * math.pi) >= math.pi).long()


def assign(layout: Layout, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what anchors stand for: ``B x A`` states and ``B x A`` numbers of objects.

    A state is 1 (an object), 0 (background) or -1 (neither; not trained on). An anchor stands for the object of
    its class that it overlaps by `POSITIVE`, and each object has at least the anchors that overlap it best.

    Args:
        layout: Of the anchors.
        y: Objects ``B x G x 8``: box and class, class -1 where there is none.
    """
    base, kinds = anchors(layout, y.device), anchor_classes(layout, y.device)
    states = torch.zeros(len(y), len(base), dtype=torch.int64, device=y.device)
    objects = torch.zeros_like(states)
    for c in range(N_CLASSES):
        mine = (kinds == c).nonzero().squeeze(1)
        is_class = y[..., 7] == c
        # Only as many columns as any scene has objects of the class.
        most_objects = int(is_class.sum(1).max())
        if most_objects == 0:
            continue
        own = is_class.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[
            :, :most_objects
        ]
        boxes = y[..., :7].gather(1, own.unsqueeze(-1).expand(-1, -1, 7))
        overlap = _flat_overlap(base[mine], boxes) * is_class.gather(1, own).unsqueeze(1)
        most, which = overlap.max(-1)
        state = (most >= POSITIVE[c]).long() - ((most >= NEGATIVE[c]) & (most < POSITIVE[c])).long()
        best = overlap.amax(1, keepdim=True)
        forced = (overlap == best) & (best > 0)
        is_forced = forced.any(-1)
        which = torch.where(is_forced, forced.to(torch.uint8).argmax(-1), which)
        states[:, mine] = state.masked_fill(is_forced, 1)
        objects[:, mine] = own.gather(1, which)
    return states, objects


def _flat_overlap(base: Tensor, boxes: Tensor) -> Tensor:
    """Return intersection over union ``B x A x G`` of boxes turned to the nearest axis, from above."""
    a, b = _upright(base).unsqueeze(1), _upright(boxes).unsqueeze(1)
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    area_a, area_b = ((c[..., 2:] - c[..., :2]).prod(-1) for c in (a, b))
    return shared / (area_a + area_b - shared).clamp_min(1e-6)


def _upright(boxes: Tensor) -> Tensor:
    """Return low and high corners ``... x 4`` of boxes turned to the nearest axis."""
    across = (torch.remainder(boxes[..., 6:] + math.pi / 4, math.pi) >= math.pi / 2).to(boxes.dtype)
    sides = boxes[..., 3:5] * (1 - across) + boxes[..., 3:5].flip(-1) * across
    return torch.cat([boxes[..., :2] - sides / 2, boxes[..., :2] + sides / 2], -1)
