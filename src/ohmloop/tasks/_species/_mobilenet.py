"""MobileNetV2 out of a quantised TensorFlow Lite file, as plain floating modules.

Architecture: Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks", table 2,
width 1. Batch norm is folded into the convolutions of such files, and stays so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ohmloop.errors import TaskError
from ohmloop.tasks._efficientnet import InvertedResidual, PixelScale, SamePad
from ohmloop.tasks._species._tflite import (
    LINEAR,
    RELU6,
    SAME,
    VALID,
    Graph,
    Operator,
    Stored,
    read_tflite,
)

_STAGES = (  # expansion, channels, repeats, stride: table 2 of the paper
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
N_FEATURES = 1280


class ConvAct(nn.Module):
    """Convolution with bias and, unless linear, ReLU6."""

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
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, groups=groups)
        self.act = nn.Identity() if is_linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B x n_out x H' x W'``."""
        out: Tensor = self.act(self.conv(self.pad(x)))
        return out


class MobileNetV2(nn.Module):
    """MobileNetV2 without batch norm: pixels 0..255 (uint8 or float) ``B x 3 x H x W`` to logits.

    Args:
        n_classes: Outputs.
        shift: Pixel value that means 0 to the network.
        spread: Pixel steps from 0 to 1.
    """

    def __init__(self, n_classes: int, shift: float = 128.0, spread: float = 128.0) -> None:
        super().__init__()
        self.scale = PixelScale(shift, spread)
        self.stem = ConvAct(3, 32, 3, 2)
        blocks, n_in = [], 32
        for expansion, n_out, repeats, stride in _STAGES:
            for k in range(repeats):
                step = 1 if k else stride
                blocks.append(InvertedResidual(ConvAct, n_in, n_out, 3, step, expansion))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvAct(n_in, N_FEATURES)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(N_FEATURES, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features ``B x 1280``, which are not negative."""
        out: Tensor = self.pool(self.head(self.blocks(self.stem(self.scale(x)))))
        return out.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``B x n_classes``."""
        out: Tensor = self.classifier(self.features(x))
        return out


def load_mobilenet(path: Path) -> MobileNetV2:
    """Return the MobileNetV2 of a TensorFlow Lite file, dequantised, in eval mode.

    Raises:
        TaskError: If the file is damaged or holds another network.
    """
    graph = read_tflite(path)
    try:
        return _Walk(graph).build().eval()
    except TaskError as error:
        raise TaskError(f"{path} is no MobileNetV2 as expected: {error}") from error


class _Walk:
    """Follows a graph step by step beside a network, and copies the weights."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: Iterator[tuple[int, Operator]] = iter(enumerate(graph.operators))
        self.at = -1

    def build(self) -> MobileNetV2:
        graph = self.graph
        if len(graph.inputs) != 1 or len(graph.outputs) != 1 or min(graph.inputs) < 0:
            raise TaskError("one input and one output expected.")
        self.at = graph.inputs[0]
        pixels = graph.tensors[self.at]
        if pixels.dtype != "u1" or len(pixels.scale) != 1 or pixels.shape[-1:] != (3,):
            raise TaskError(
                f"input of uint8 N x H x W x 3 expected, not {pixels.shape} {pixels.dtype}."
            )
        n_classes = self._n_classes()
        # The first weights are overwritten below, so nothing here depends on a seed.
        with torch.random.fork_rng(devices=[]):
            model = MobileNetV2(n_classes, float(pixels.zero_point[0]), 1 / float(pixels.scale[0]))
        self._conv(model.stem)
        for block in model.blocks:
            assert isinstance(block, InvertedResidual)
            self._block(block)
        self._conv(model.head)
        self._pool()
        self._dense(model.classifier)
        rest = [operator.name for _, operator in self.steps]
        if rest not in ([], ["SOFTMAX"]):
            raise TaskError(f"{rest} after the classifier, at most SOFTMAX expected.")
        return model

    def _n_classes(self) -> int:
        dense = [o for o in self.graph.operators if o.name == "FULLY_CONNECTED"]
        if len(dense) != 1:
            raise TaskError(f"one FULLY_CONNECTED expected, {len(dense)} found.")
        shape = self._tensor(dense[0], 1).shape
        if len(shape) != 2 or shape[1] != N_FEATURES:
            raise TaskError(f"classifier of n x {N_FEATURES} expected, not {shape}.")
        return shape[0]

    def _tensor(self, operator: Operator, place: int) -> Stored:
        if place >= len(operator.inputs) or operator.inputs[place] < 0:
            raise TaskError(f"{operator.name} lacks its input {place}.")
        return self.graph.tensors[operator.inputs[place]]

    def _next(self, name: str, **options: int) -> Operator:
        number, operator = next(self.steps, (len(self.graph.operators), None))
        if operator is None or operator.name != name or len(operator.outputs) != 1:
            found = "nothing" if operator is None else operator.name
            raise TaskError(f"step {number} should be {name}, not {found}.")
        for key, value in options.items():
            if operator.options[key] != value:
                raise TaskError(
                    f"{name} of step {number}: {key} {value} expected, not {operator.options[key]}."
                )
        if self.at not in operator.inputs or operator.outputs[0] < 0:
            raise TaskError(f"{name} of step {number} does not go on from the step before.")
        return operator

    def _conv(self, layer: nn.Module) -> None:
        assert isinstance(layer, ConvAct)
        conv, is_depthwise = layer.conv, layer.conv.groups > 1
        more = {"multiplier": 1} if is_depthwise else {}
        operator = self._next(
            "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
            padding=SAME,
            stride_w=conv.stride[0],
            stride_h=conv.stride[0],
            dilation_w=1,
            dilation_h=1,
            activation=RELU6 if isinstance(layer.act, nn.ReLU6) else LINEAR,
            **more,
        )
        # OHWI, or 1HWC for depthwise, to PyTorch's OIHW.
        self._copy(operator, conv, (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2))

    def _block(self, block: InvertedResidual) -> None:
        start = self.at
        if isinstance(block.expand, ConvAct):
            self._conv(block.expand)
        self._conv(block.depth)
        self._conv(block.project)
        if block.is_residual:
            add = self._next("ADD", activation=LINEAR)
            if sorted(add.inputs) != sorted((start, self.at)):
                raise TaskError("an ADD takes other tensors than a block's output and its input.")
            self.at = add.outputs[0]

    def _pool(self) -> None:
        operator = self._next("AVERAGE_POOL_2D", padding=VALID, activation=LINEAR)
        shape = self._tensor(operator, 0).shape
        window = (operator.options["filter_h"], operator.options["filter_w"])
        if shape[1:3] != window:
            raise TaskError(f"average over all of {shape} expected, not over {window}.")
        self.at = operator.outputs[0]

    def _dense(self, layer: nn.Linear) -> None:
        self._copy(self._next("FULLY_CONNECTED", activation=LINEAR), layer, (0, 1))

    def _copy(
        self, operator: Operator, layer: nn.Conv2d | nn.Linear, order: tuple[int, ...]
    ) -> None:
        if operator.inputs[0] != self.at:
            raise TaskError(f"{operator.name} takes its input in another place than first.")
        stored, stored_bias = self._tensor(operator, 1).real(), self._tensor(operator, 2).real()
        shape, n_out = tuple(layer.weight.shape), len(layer.weight)
        if stored.ndim != len(order) or stored.transpose(order).shape != shape:
            raise TaskError(f"weights {shape} expected, not {stored.shape} of the file.")
        if stored_bias.shape != (n_out,):
            raise TaskError(f"{n_out} biases expected, not {stored_bias.shape}.")
        assert layer.bias is not None
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(stored.transpose(order).copy()))
            layer.bias.copy_(torch.from_numpy(stored_bias))
        self.at = operator.outputs[0]
