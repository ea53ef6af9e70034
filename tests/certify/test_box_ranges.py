"""Bounds are attained: what a function makes of a box is compared with a dense grid over the box."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.certify import certify_box, crossbar_tolerance, largest_radius
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.nn import analogize

LAW = Hardware(device=DeviceModel(name="x", sigma=Estimate(value=0.3)))
BOXES = {
    "both signs": ((1.0, -0.9), (0.5, 0.45)),
    "positive": ((0.6, 0.4), (0.5, 0.4)),
    "negative": ((-0.6, -0.5), (1.0, -1.8)),
    "a valley": ((-2.0, 1.0), (2.0, -3.0)),
    "overlap": ((1.0, 0.0), (3.0, -2.1)),
}
"""Pairs (p, q) of weights of z_0 and z_1: z = p + q, at most r (|p| + |q|) away."""
R = 0.2


class Net(nn.Module):
    """Two values z on analog weights, a function, and a lead of 100 plus or minus its first entry."""

    def __init__(self, pairs: tuple[tuple[float, float], ...], function, sign: float) -> None:
        super().__init__()
        self.first = nn.Linear(4, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.first.weight.zero_()
            for i, pair in enumerate(pairs):
                self.first.weight[i, 2 * i : 2 * i + 2] = torch.tensor(pair, dtype=torch.float64)
        self.function, self.sign = function, sign

    def forward(self, x: Tensor) -> Tensor:
        out = self.function(self.first(x))[:, :1] * self.sign
        return torch.cat([out + 100, out * 0], 1)


FUNCTIONS = {
    "relu": torch.relu,
    "leaky": lambda z: F.leaky_relu(z, 0.3),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu by tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "elu": F.elu,
    "hardtanh": F.hardtanh,
    "softplus": F.softplus,
    "softmax": lambda z: z.softmax(-1),
    "max pool": lambda z: F.max_pool1d(z.unsqueeze(1), 2).squeeze(1),
    "average pool": lambda z: F.avg_pool1d(z.unsqueeze(1), 2).squeeze(1),
    "product": lambda z: z[:, :1] * z[:, 1:],
    "difference": lambda z: z[:, :1] - z[:, 1:],
    "sum": lambda z: z.sum(1, keepdim=True),
}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ranges_are_those_of_a_grid(name: str, box: str, sign: float) -> None:
    pairs = BOXES[box]
    net = analogize(Net(pairs, FUNCTIONS[name], sign).eval().double(), LAW)
    ends = [(p + q, R * (abs(p) + abs(q))) for p, q in pairs]
    grids = [torch.linspace(m - s, m + s, 301, dtype=torch.float64) for m, s in ends]
    z = torch.cartesian_prod(*grids)
    true = 100 + float((sign * FUNCTIONS[name](z)[:, 0]).min())
    x = torch.ones(1, 4).double()
    for method in ("interval", "linear"):
        found = certify_box(net, x, R, method=method).margins[0]
        assert true - 2e-3 <= found <= true + 1e-9, method


@pytest.mark.parametrize("box", BOXES)
def test_a_second_analog_layer_is_exact_on_a_box(box: str) -> None:
    """Weight and input both move: the corners of the product, for either sign of the input."""
    pairs = BOXES[box]
    second = nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        second.weight.copy_(torch.tensor([[1.5, -0.7], [0.0, 0.0]], dtype=torch.float64))
        second.bias.copy_(torch.tensor([100.0, 0.0], dtype=torch.float64))
    net = nn.Sequential(Net(pairs, lambda z: z, 1.0).first, second).eval().double()
    analogize(net, LAW, where=["0", "1"])
    ends = [(p + q, R * (abs(p) + abs(q))) for p, q in pairs]
    true = 100 * (1 - R)
    for (m, s), w in zip(ends, (1.5, -0.7), strict=True):
        true += min(w * f * z for f, z in itertools.product((1 - R, 1 + R), (m - s, m + s)))
    for method in ("interval", "linear"):
        found = certify_box(net, torch.ones(1, 4).double(), R, method=method).margins[0]
        assert true - 1e-9 <= found <= true


@pytest.mark.parametrize(
    ("side", "options"),
    [
        (3, {"kernel_size": 3}),
        (3, {"kernel_size": 5, "padding": 1}),
        (3, {"kernel_size": 4, "padding": 1, "stride": 3}),
        (5, {"kernel_size": 3, "dilation": 2}),
        (2, {"kernel_size": 3, "padding": (1, 1), "stride": 2, "dilation": 1}),
    ],
)
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_a_convolution_to_one_pixel_is_a_crossbar(
    side: int, options: dict[str, object], method: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, **options), nn.Flatten()).eval().double()
        x = torch.randn(30, 2, side, side).double()
    analogize(net, LAW)
    columns = F.unfold(x, **options).squeeze(-1)
    exact = crossbar_tolerance(
        net[0].weight.detach().flatten(1), columns, bias=net[0].bias.detach()
    )
    found = largest_radius(net, x, method=method, tolerance=1e-6).radii
    np.testing.assert_allclose(found, np.minimum(exact, 1), rtol=3e-6)
