"""How detectors are trained and scored, and what they found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohmloop.tasks._driving._kitti._anchors import (
    N_CLASSES,
    anchors,
    assign,
    decode,
    direction_of,
    encode,
    layout_of,
)
from ohmloop.tasks._driving._kitti._boxes import suppress, wrap
from ohmloop.tasks._driving._kitti._precision import OVERLAP, Detections
from ohmloop.tasks._driving._kitti._reader import CLASSES, IMAGE_SIZE, Calibration
from ohmloop.tasks._metric import Metric

FOCUS, BALANCE = 2.0, 0.25
"""gamma and alpha of the focal loss (Lin et al., ICCV 2017)."""
BEND = 1 / 9
"""Where the smooth L1 loss turns from square to straight, as in SECOND."""
BOX, DIRECTION = 2.0, 0.2
"""Weights of these losses beside that of the classes (Lang et al. 2019, equation 1)."""
FOUND = 0.3
"""Score from which an anchor counts as a find."""
MIN_SCORE = 0.1
CANDIDATES = 256
KEPT = 100
MAX_SHARED = 0.01
"""Boxes that share more of their ground are one object: two cars do not stand in one place."""


@dataclass(frozen=True)
class AnchorF1(Metric):
    """F1 of the anchors: a score that adds up over scenes; average precision does not, see ``measure``.

    Outputs are ``... x A x 12`` (classes, box, direction), targets objects ``B x G x 8`` (box and class, -1
    where there is none). A find is an anchor whose best class has a score of `FOUND`; it is right if the anchor
    stands for an object, has its class, and its box overlaps the object's by what average precision asks for
    (.7 car, .5 others), turned like it. F1 = 2 right / (finds + anchors that stand for objects).
    It counts neighbouring anchors of one object one by one, and no doubles are removed.
    """

    name: str = "anchor F1"
    is_higher_better: bool = True

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return focal loss of classes + 2 x smooth L1 of boxes + .2 x cross-entropy of directions.

        Each is summed over anchors and divided by the number that stand for objects.
        """
        layout = layout_of(out)
        y = y.to(out.dtype)
        with torch.no_grad():
            states, objects = assign(layout, y)
            scene, place = (states == 1).nonzero(as_tuple=True)
            target = y[scene, objects[scene, place]]
            base = anchors(layout, out.device)[place].to(out.dtype)
            wanted = encode(target[:, :7], base)
            truth = torch.zeros_like(out[..., :N_CLASSES])
            truth[scene, place, target[:, 7].long()] = 1
        n = max(len(scene), 1)
        focal = _focal(out[..., :N_CLASSES], truth) * (states >= 0).unsqueeze(-1)
        own = out[scene, place]
        box = _box_loss(own[:, N_CLASSES : N_CLASSES + 7], wanted)
        turn = F.cross_entropy(own[:, N_CLASSES + 7 :], direction_of(target[:, 6]), reduction="sum")
        return (focal.sum() + BOX * box + DIRECTION * turn) / n

    def distance(self, out: Tensor, teacher: Tensor) -> Tensor:
        """Return divergences of classes, and differences of box and direction where the teacher sees objects.

        Sums over anchors, boxes weighted by the teacher's score, divided by the sum of these scores.
        """
        score = torch.sigmoid(teacher[..., :N_CLASSES])
        same = F.binary_cross_entropy_with_logits(teacher[..., :N_CLASSES], score, reduction="sum")
        other = F.binary_cross_entropy_with_logits(out[..., :N_CLASSES], score, reduction="sum")
        weight = score.amax(-1)
        box = F.smooth_l1_loss(
            out[..., N_CLASSES : N_CLASSES + 7],
            teacher[..., N_CLASSES : N_CLASSES + 7],
            beta=BEND,
            reduction="none",
        ).sum(-1)
        turn = F.kl_div(
            F.log_softmax(out[..., N_CLASSES + 7 :], -1),
            F.log_softmax(teacher[..., N_CLASSES + 7 :], -1),
            log_target=True,
            reduction="none",
        ).sum(-1)
        boxes = (weight * (BOX * box + DIRECTION * turn)).sum()
        return (other - same + boxes) / weight.sum().clamp_min(1)

    def totals(self, out: Tensor, y: Tensor) -> Tensor:
        """Return right finds, finds, and anchors that stand for objects."""
        layout = layout_of(out)
        states, objects = assign(layout, y.to(out.dtype))
        scene, place = (states == 1).nonzero(as_tuple=True)
        target = y[scene, objects[scene, place]].to(out.dtype)
        seen = out[..., :N_CLASSES] > math.log(FOUND / (1 - FOUND))
        finds = (seen.any(-1) & (states >= 0)).flatten(1).sum(1)
        boxes = decode(out[:, scene, place], anchors(layout, out.device)[place].to(out.dtype))
        enough = torch.tensor([OVERLAP[name] for name in CLASSES], device=out.device)
        kinds = target[:, 7].long()
        has_class = seen[:, scene, place].gather(-1, kinds.expand(len(out), -1).unsqueeze(-1))
        right = has_class.squeeze(-1) & (_aligned_overlap(boxes, target[:, :7]) > enough[kinds])
        counts = torch.stack([right.sum(1), finds, torch.full_like(finds, len(scene))], -1)
        return counts.double()

    def value(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 2 right / (finds + anchors of objects); 0 if there is neither."""
        return 2 * totals[:, 0] / np.maximum(totals[:, 1] + totals[:, 2], 1)


def _focal(logits: Tensor, truth: Tensor) -> Tensor:
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # exp(-cross) is the probability given to what is true.
    weight = BALANCE * truth + (1 - BALANCE) * (1 - truth)
    return weight * (1 - torch.exp(-cross)) ** FOCUS * cross


def _box_loss(got: Tensor, wanted: Tensor) -> Tensor:
    """Return the summed smooth L1 of offsets ``n x 7``, yaw by the sine of its error.

    sin(a - b) = sin a cos b - cos a sin b, so that half turns cost nothing.
    """
    a, b = got[:, 6:], wanted[:, 6:]
    got = torch.cat([got[:, :6], torch.sin(a) * torch.cos(b)], 1)
    wanted = torch.cat([wanted[:, :6], torch.cos(a) * torch.sin(b)], 1)
    return F.smooth_l1_loss(got, wanted, beta=BEND, reduction="sum")


def _aligned_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union in space of boxes ``... x 7``, as if turned like the second."""
    apart = a[..., :3] - b[..., :3]
    c, s = torch.cos(b[..., 6]), torch.sin(b[..., 6])
    along = torch.stack(
        [
            c * apart[..., 0] + s * apart[..., 1],
            c * apart[..., 1] - s * apart[..., 0],
            apart[..., 2],
        ],
        -1,
    )
    reach = (a[..., 3:6] + b[..., 3:6]) / 2 - along.abs()
    least = torch.minimum(a[..., 3:6], b[..., 3:6])
    shared = torch.minimum(reach, least).clamp_min(0).prod(-1)
    return shared / (a[..., 3:6].prod(-1) + b[..., 3:6].prod(-1) - shared)


def detections(
    out: Tensor, calibration: Calibration, size: tuple[int, int] = IMAGE_SIZE
) -> Detections:
    """Return what outputs ``A x 12`` of one scene say is there, best first, doubles removed.

    Args:
        out: Of one scene.
        calibration: Of the scene, for the heights of image boxes.
        size: Of the scene's image.
    """
    layout = layout_of(out)
    scores, kinds = torch.sigmoid(out[:, :N_CLASSES]).max(-1)
    scores = torch.where(scores > MIN_SCORE, scores, torch.zeros_like(scores))
    best, index = scores.topk(min(CANDIDATES, len(scores)))
    boxes = decode(out[index], anchors(layout, out.device)[index].to(out.dtype))
    usable = (best > 0) & boxes.isfinite().all(-1)
    index, boxes, best = index[usable], boxes[usable], best[usable]
    found = boxes.double().cpu().numpy()
    found[:, 6] = wrap(found[:, 6])
    score = best.double().cpu().numpy()
    kept = suppress(found, score, MAX_SHARED, KEPT)
    image = calibration.image_boxes(found[kept], size)
    return Detections(
        found[kept], score[kept], kinds[index].cpu().numpy()[kept], image[:, 3] - image[:, 1]
    )
