"""Convolutional reference networks for small images ``C x H x W``.

Sources: LeCun et al. 1998 (LeNet-5); Krizhevsky et al. 2012 (AlexNet), reduced as arXiv 2412.02779
does for CIFAR-10; Simonyan and Zisserman 2015 (VGG); He et al. 2016 (ResNet).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ohmloop.tasks._images._blocks import (
    Mean,
    Residual,
    after_pools,
    conv,
    initialise,
    linear,
)

Shape = Sequence[int]


def lenet(shape: Shape, n_classes: int, *, norm: bool) -> nn.Module:
    """Return LeNet-5 with ReLU and max pooling, for sides of 28 (padded by 2, as in 1998) or 32 pixels."""
    padding = (32 - shape[1]) // 2
    # Layers stand one after the other, not in blocks: the names of saved weights depend on it.
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=padding),
        *([nn.BatchNorm2d(6)] if norm else []),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        *([nn.BatchNorm2d(16)] if norm else []),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        *([nn.BatchNorm1d(120)] if norm else []),
        nn.ReLU(),
        nn.Linear(120, 84),
        *([nn.BatchNorm1d(84)] if norm else []),
        nn.ReLU(),
        nn.Linear(84, n_classes),
    )


def cnn(shape: Shape, n_classes: int, *, norm: bool) -> nn.Module:
    """Return three convolutions of 32, 64 and 128 channels, each with a pooling, and one linear layer.

    114 thousand weights for ten classes at 32 x 32. Larger images are averaged to the last map that 32 x 32
    would leave, 4 x 4, so that the linear layer does not grow with them.
    """
    is_large = min(shape[1:]) > 32
    left = 16 if is_large else after_pools(shape[1:], 3)
    return initialise(
        nn.Sequential(
            conv(shape[0], 32, norm=norm),
            nn.MaxPool2d(2),
            conv(32, 64, norm=norm),
            nn.MaxPool2d(2),
            conv(64, 128, norm=norm),
            nn.MaxPool2d(2),
            *([nn.AdaptiveAvgPool2d(4)] if is_large else []),
            nn.Flatten(),
            nn.Linear(128 * left, n_classes),
        )
    )


def alexnet(shape: Shape, n_classes: int, *, norm: bool) -> nn.Module:
    """Return the small AlexNet: five convolutions and three linear layers, 2.9 million weights.

    Kept of Krizhevsky et al. 2012: five convolutions, pooling after the first, second and fifth, two wide
    linear layers before the last. Reduced, for 32 x 32 in place of 227 x 227: kernels of 3 x 3 and stride 1
    (11 x 11 stride 4 and 5 x 5 there); 32, 64, 192, 192, 128 channels (96, 256, 384, 384, 256), linear layers
    of 1,024 (4,096). Sizes as in arXiv 2412.02779. Without local response normalisation and dropout.
    """
    # The last pooling is 3 x 3 with stride 2 as in 2012: 8 x 8 becomes 3 x 3, 7 x 7 likewise.
    height, width = (((side >> 2) - 3) // 2 + 1 for side in shape[1:])
    return initialise(
        nn.Sequential(
            conv(shape[0], 32, norm=norm),
            nn.MaxPool2d(2),
            conv(32, 64, norm=norm),
            nn.MaxPool2d(2),
            conv(64, 192, norm=norm),
            conv(192, 192, norm=norm),
            conv(192, 128, norm=norm),
            nn.MaxPool2d(3, stride=2),
            nn.Flatten(),
            linear(128 * height * width, 1024, norm=norm),
            linear(1024, 1024, norm=norm),
            nn.Linear(1024, n_classes),
        )
    )


def vgg11(shape: Shape, n_classes: int, *, norm: bool) -> nn.Module:
    """Return the convolutions of VGG configuration A and one linear layer, 9.2 million weights.

    The three linear layers of 2015, made for 224 x 224, shrink to the last one, as is usual for 32 x 32.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for out in stage:
            layers.append(conv(channels, out, norm=norm))
            channels = out
        layers.append(nn.MaxPool2d(2))
    return initialise(nn.Sequential(*layers, Mean(), nn.Linear(channels, n_classes)))


def resnet8(shape: Shape, n_classes: int) -> nn.Module:
    """Return the smallest ResNet for CIFAR-10 (He et al. 2016, section 4.2, n = 1), 78 thousand weights.

    Its shortcuts are convolutions of 1 x 1 where the shape changes (their option B; there option A).
    """
    return _resnet(shape[0], n_classes, (16, 32, 64), 1)


def resnet18(shape: Shape, n_classes: int) -> nn.Module:
    """Return ResNet-18 with a stem of 3 x 3, stride 1, no pooling, for small images: 11.2 million weights."""
    return _resnet(shape[0], n_classes, (64, 128, 256, 512), 2)


def _resnet(channels: int, n_classes: int, widths: Sequence[int], n_blocks: int) -> nn.Module:
    layers: list[nn.Module] = [conv(channels, widths[0], norm=True)]
    channels = widths[0]
    for stage, out in enumerate(widths):
        for block in range(n_blocks):
            stride = 2 if stage and not block else 1
            layers.append(Residual(channels, out, stride))
            channels = out
    return initialise(nn.Sequential(*layers, Mean(), nn.Linear(channels, n_classes)))
