"""Random changes of training images, a whole batch at once, drawn from the given generator alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(x: Tensor, generator: torch.Generator, *, margin: int = 4) -> Tensor:
    """Pad images ``B x C x H x W`` by zeros, crop them at random, and mirror every second one.

    The usual augmentation of CIFAR-10 (He et al. 2016, section 4.2). Zero is the mean pixel of scaled
    inputs, black of unscaled ones.
    """
    mirrored = torch.rand(len(x), generator=generator, device=generator.device) < 0.5
    return _crop(x, _offsets(len(x), margin, generator), margin, "constant", mirrored)


def shift_and_relight(
    x: Tensor, generator: torch.Generator, *, margin: int = 2, strength: float = 0.3
) -> Tensor:
    """Shift images ``B x C x H x W`` and change their contrast and brightness.

    Nothing is mirrored: a sign or a road that bends left is another one than its mirror image.

    Args:
        x: Images; edges are repeated where a shift uncovers them.
        generator: Of everything random.
        margin: Largest shift, pixels.
        strength: Contrast is changed by a factor in 1 -+ strength, brightness by -+ strength standard
            deviations of the batch, so the scale of the pixels does not matter.
    """
    shifted = _crop(x, _offsets(len(x), margin, generator), margin, "replicate", None)
    u = torch.rand(2, len(x), 1, 1, 1, generator=generator, device=generator.device)
    contrast, brightness = (strength * (2 * u - 1)).to(x)
    mean = shifted.mean((1, 2, 3), keepdim=True)
    out: Tensor = mean + brightness * x.std() + (1 + contrast) * (shifted - mean)
    return out


def _offsets(n: int, margin: int, generator: torch.Generator) -> Tensor:
    """Draw ``2 x n`` whole numbers from 0 to twice the margin."""
    return torch.randint(2 * margin + 1, (2, n), generator=generator, device=generator.device)


def _crop(x: Tensor, offsets: Tensor, margin: int, padding: str, mirrored: Tensor | None) -> Tensor:
    height, width = x.shape[-2:]
    padded = F.pad(x, (margin,) * 4, mode=padding)
    top, left = offsets.to(x.device)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(len(x), width)
    if mirrored is not None:
        columns = torch.where(mirrored.to(x.device)[:, None], columns.flip(1), columns)
    columns = left[:, None] + columns
    image = torch.arange(len(x), device=x.device)
    channel = torch.arange(x.shape[1], device=x.device)
    return padded[
        image[:, None, None, None],
        channel[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
