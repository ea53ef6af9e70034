"""The deterministic box: exact where it can be, and never violated by attacks that look for a violation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ohmloop.certify import BoxResult, box_words, certify_box, crossbar_tolerance, largest_radius
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import CertifyError
from ohmloop.nn import analog_parameters, analogize

LAW = Hardware(device=DeviceModel(name="x", sigma=Estimate(value=0.3)))


def seeded(build, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return analogize(build().eval(), LAW)


def mlp(width: int = 12, hidden: int = 16, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def leads(out: Tensor, classes: Tensor) -> Tensor:
    own = out.gather(-1, classes[..., None]).squeeze(-1)
    rivals = out.scatter(-1, classes[..., None], -math.inf).amax(-1)
    return own - rivals


@pytest.mark.parametrize("method", ["interval", "linear"])
@pytest.mark.parametrize("kind", ["relative", "log"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_linear_layer_is_exact(method: str, kind: str, bias: bool) -> None:
    net = seeded(lambda: nn.Linear(20, 6, bias=bias).double())
    x = randn(50, 20).double()
    found = largest_radius(net, x, kind=kind, method=method, tolerance=1e-6)
    exact = crossbar_tolerance(
        net.weight.detach(), x, bias=net.bias.detach() if bias else None, kind=kind
    )
    assert np.all(found.radii <= exact)
    np.testing.assert_allclose(found.radii, np.minimum(exact, 1.0), rtol=2e-6)


def naive_box(net: nn.Sequential, x: np.ndarray, r: float) -> tuple[np.ndarray, np.ndarray]:
    """Textbook interval arithmetic of one input, product by product, by corners."""
    low = high = x
    for layer in net:
        if isinstance(layer, nn.ReLU):
            low, high = np.maximum(low, 0), np.maximum(high, 0)
            continue
        w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        w1, w2 = w - r * abs(w), w + r * abs(w)
        corners = np.stack([w1 * low, w1 * high, w2 * low, w2 * high])
        low = corners.min(0).sum(1) + b - r * abs(b)
        high = corners.max(0).sum(1) + b + r * abs(b)
    return low, high


@pytest.mark.slow
def test_intervals_are_those_of_textbook_arithmetic() -> None:
    net = seeded(lambda: mlp().double())
    for k, x in enumerate(randn(8, 12).double()):
        r = 0.005 * (k + 1)
        low, high = naive_box(net[:-1], x.numpy(), r)
        w, b = net[-1].weight.detach().numpy(), net[-1].bias.detach().numpy()
        c = int(net(x).argmax())
        lead = []
        for j in set(range(len(w))) - {c}:
            moves = r * (abs(w[c]) + abs(w[j]))
            d1, d2 = w[c] - w[j] - moves, w[c] - w[j] + moves
            corners = np.stack([d1 * low, d1 * high, d2 * low, d2 * high])
            lead.append(corners.min(0).sum() + b[c] - b[j] - r * (abs(b[c]) + abs(b[j])))
        got = certify_box(net, x[None], r).margins[0]
        assert got == pytest.approx(min(lead), rel=1e-9, abs=1e-9)
        assert got <= min(lead)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_no_deviation_gives_the_forward_pass(method: str, dtype: torch.dtype) -> None:
    net, x = seeded(lambda: mlp().to(dtype)), randn(30, 12).to(dtype)
    out = net(x)
    found = certify_box(net, x, 0.0, method=method)
    true = leads(out, out.argmax(1)).detach().numpy()
    assert np.array_equal(found.classes, out.argmax(1).numpy())
    assert np.all(found.margins <= true)
    np.testing.assert_allclose(
        found.margins, true, atol=1e-4 if dtype == torch.float32 else 1e-11, rtol=0
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), radii=st.lists(st.floats(0, 0.3), min_size=2, max_size=5))
def test_larger_boxes_never_have_larger_margins(seed: int, radii: list[float]) -> None:
    net, x = seeded(mlp, seed), randn(8, 12, seed=seed)
    margins = [certify_box(net, x, r).margins for r in sorted(radii)]
    for smaller, larger in itertools.pairwise(margins):
        assert np.all(larger <= smaller)


@pytest.mark.slow
def test_forms_are_never_looser_than_intervals() -> None:
    net, x = seeded(mlp), randn(40, 12)
    for r in (0.001, 0.01, 0.05):
        interval = certify_box(net, x, r).margins
        linear = certify_box(net, x, r, method="linear").margins
        assert np.all(linear >= interval)
    small = largest_radius(net, x).radii
    assert np.all(largest_radius(net, x, method="linear").radii >= small)
    assert np.median(largest_radius(net, x, method="linear").radii / small) > 1.3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_what_is_found_holds_and_a_little_more_does_not(method: str) -> None:
    net, x = seeded(mlp), randn(20, 12)
    found = largest_radius(net, x, method=method, tolerance=0.01)
    for k in range(len(x)):
        part = x[k : k + 1]
        assert certify_box(net, part, float(found.radii[k]), method=method).certified[0]
        assert not certify_box(net, part, 1.05 * float(found.radii[k]), method=method).certified[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_batches_change_nothing(method: str) -> None:
    net, x = seeded(mlp), randn(11, 12)
    whole = largest_radius(net, x, method=method)
    parts = largest_radius(net, x, method=method, batch_size=3)
    np.testing.assert_allclose(whole.radii, parts.radii, rtol=1e-9)


@pytest.mark.parametrize("method", ["interval", "linear"])
def test_permuting_neurons_changes_nothing(method: str) -> None:
    net, x = seeded(lambda: mlp().double()), randn(20, 12).double()
    before = largest_radius(net, x, method=method, tolerance=1e-4)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    after = largest_radius(net, x, method=method, tolerance=1e-4)
    np.testing.assert_allclose(before.radii, after.radii, rtol=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_scaling_a_pair_of_layers_changes_nothing(method: str) -> None:
    net, x = seeded(lambda: mlp().double()), randn(20, 12).double()
    before = largest_radius(net, x, method=method, tolerance=1e-4)
    gains = torch.rand(16, generator=torch.Generator().manual_seed(3)).double() * 3 + 0.1
    with torch.no_grad():
        net[0].weight.mul_(gains[:, None])
        net[0].bias.mul_(gains)
        net[2].weight.div_(gains)
    after = largest_radius(net, x, method=method, tolerance=1e-4)
    np.testing.assert_allclose(before.radii, after.radii, rtol=3e-4)


def test_a_share_of_zero_is_a_digital_layer() -> None:
    x = randn(20, 12)
    some = seeded(mlp)
    first = analogize(seeded_digital(), LAW, where=["0"])
    found = largest_radius(some, x, shares={"0.*": 1.0, "*": 0.0})
    np.testing.assert_allclose(found.radii, largest_radius(first, x).radii, rtol=0.02)
    halved = largest_radius(some, x, shares={"*": 0.5})
    np.testing.assert_allclose(halved.radii / 2, largest_radius(some, x).radii, rtol=0.02)


def seeded_digital() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mlp().eval()


def test_the_box_may_be_centred_at_the_level_table() -> None:
    table = Hardware(
        device=DeviceModel(name="x", sigma=Estimate(value=0.3), rho=(0.2, 0.5, 0.8, 1.0))
    )
    net, x = seeded(mlp), randn(20, 12)
    found = largest_radius(net, x, hardware=table)
    moved = seeded(mlp)
    with torch.no_grad():
        for p in moved.parameters():
            p.copy_(table.deterministic(p))
    np.testing.assert_allclose(found.radii, largest_radius(moved, x).radii, rtol=1e-9)
    assert not np.allclose(found.radii, largest_radius(net, x).radii, rtol=0.05)


def test_rounding_of_single_precision_is_inside_the_bounds() -> None:
    """Large terms cancel to small leads: any order of summation must stay above the bound."""
    g = torch.Generator().manual_seed(5)
    big = 10 * torch.randn(3, 200, generator=g)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Linear(400, 3)
    with torch.no_grad():
        net.weight.copy_(torch.cat([big, -big], 1) + 0.05 * torch.randn(3, 400, generator=g))
    analogize(net, LAW)
    x = torch.rand(40, 200, generator=g)
    x = torch.cat([x, x], 1)
    found = certify_box(net, x, 0.0)
    classes = torch.as_tensor(found.classes)
    for seed in range(20):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
        out = torch.zeros(40, 3)
        for i in order:
            out = out + net.weight[:, i].detach() * x[:, i : i + 1]
        assert np.all(found.margins <= leads(out + net.bias.detach(), classes).numpy())
    exact = x.double() @ net.weight.detach().double().T + net.bias.detach().double()
    assert np.all(found.margins <= leads(exact, classes).numpy())
    assert np.any(found.certified)  # The slack does not eat everything.


# Attacks


def trained(build, epochs: int) -> tuple[nn.Module, Tensor]:
    """A network that knows the digits, and 500 test images of the class that it gives them."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build()
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(epochs):
            for part in order[500:].split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[part]), y[part]).backward()
                optimiser.step()
    return analogize(net.eval(), LAW), x[order[:500]]


def digits_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), *mlp(64, 40, 10))


def digits_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 12, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def attacked(
    net: nn.Module, x: Tensor, radii: np.ndarray, kind: str, steps: int = 30
) -> np.ndarray:
    """Return the smallest lead that attacks find, an attack of its own for each input.

    Random corners, corners by the sign of the gradient (repeated), and small projected steps (PGD).
    """
    weights = {n: p.detach().double() for n, p in analog_parameters(net).items()}
    net = net.double()
    x, r = x.double(), torch.as_tensor(radii).double()
    classes = net(x).argmax(1)
    generator = torch.Generator().manual_seed(0)

    def moved(deltas: dict[str, Tensor]) -> dict[str, Tensor]:
        if kind == "log":
            return {n: w * deltas[n].exp() for n, w in weights.items()}
        return {n: w * (1 + deltas[n]) for n, w in weights.items()}

    def lead(deltas: dict[str, Tensor], one: Tensor, c: Tensor) -> Tensor:
        out = functional_call(net, moved(deltas), (one[None],))[0]
        own = torch.arange(len(out)) == c
        return torch.where(own, out, 0).sum() - torch.where(own, -math.inf, out).max()

    run = vmap(lead)
    slope = vmap(grad(lead))

    def start(corner: bool) -> dict[str, Tensor]:
        out = {}
        for n, w in weights.items():
            noise = torch.rand(len(x), *w.shape, generator=generator).double() * 2 - 1
            scale = r.reshape(-1, *[1] * w.ndim)
            out[n] = scale * (noise.sign() if corner else noise)
        return out

    worst = torch.full((len(x),), math.inf).double()
    for corner, size in ((True, 2.0), (False, 2.0), (False, 0.2)):
        deltas = start(corner)
        for _ in range(steps):
            worst = torch.minimum(worst, run(deltas, x, classes))
            slopes = slope(deltas, x, classes)
            for n in deltas:
                scale = r.reshape(-1, *[1] * weights[n].ndim)
                step = deltas[n] - size * scale * slopes[n].sign()
                deltas[n] = torch.maximum(torch.minimum(step, scale), -scale)
        worst = torch.minimum(worst, run(deltas, x, classes))
    net.float()
    return worst.detach().numpy()


@pytest.fixture(scope="module")
def digits_nets() -> dict[str, tuple[nn.Module, Tensor]]:
    return {"mlp": trained(digits_mlp, 6), "cnn": trained(digits_cnn, 4)}


@pytest.mark.slow
def test_attacks_on_an_mlp_find_nothing_inside_the_box(
    digits_nets: dict[str, tuple[nn.Module, Tensor]],
) -> None:
    check_attacks(*digits_nets["mlp"], "relative", "linear", 210)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["relative", "log"])
@pytest.mark.parametrize("method", ["interval", "linear"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_attacks_find_nothing_inside_the_box(
    digits_nets: dict[str, tuple[nn.Module, Tensor]], name: str, kind: str, method: str
) -> None:
    check_attacks(*digits_nets[name], kind, method, 210)


def check_attacks(net: nn.Module, x: Tensor, kind: str, method: str, n: int) -> None:
    x = x[: n + n // 10]
    found = largest_radius(net, x, kind=kind, method=method)
    keep = found.certified
    assert keep.sum() >= n
    inside = attacked(net, x[keep], found.radii[keep], kind, steps=15)
    assert np.all(inside > 0)
    # The same attack, let out of the box, does flip classes: it is worth something.
    outside = attacked(net, x[keep][:40], 20 * found.radii[keep][:40], kind, steps=15)
    assert np.mean(outside < 0) > 0.5


@pytest.mark.slow
def test_margins_bound_what_attacks_find(
    digits_nets: dict[str, tuple[nn.Module, Tensor]],
) -> None:
    """Not only the sign: the lead itself, also where nothing is certified."""
    net, x = digits_nets["cnn"]
    x = x[:30]
    for r in (0.002, 0.02, 0.2):
        worst = attacked(net, x, np.full(len(x), r), "relative", steps=6)
        for method in ("interval", "linear"):
            assert np.all(certify_box(net, x, r, method=method).margins <= worst + 1e-9)


# Results and refusals


def test_results_speak_in_words() -> None:
    found = BoxResult(
        classes=np.array([0, 1, 1, 0]),
        certified=np.array([True, True, True, False]),
        margins=np.array([1.0, 1.0, 1.0, -1.0]),
        radii=np.array([0.03, 0.02, 0.01, 0.0]),
        shares={"*": 1.0},
        kind="relative",
        method="interval",
        n_weights=1234,
    )
    assert found.fraction() == 0.75
    assert found.fraction(np.array([0, 1, 0, 0])) == 0.5
    assert found.radius_of(0.5) == 0.02
    assert found.radius_of(1.0) == 0.0
    assert found.words == (
        "every one of the 1,234 weights may be off by 2 % at once, in any direction"
    )
    assert "factor of up to 1.051" in box_words(0.05, kind="log")
    assert "in 0.*" in box_words(0.05, shares={"0.*": 1.0, "*": 2.0})
    assert box_words(0.0).startswith("no movement")


def test_bad_arguments_are_refused() -> None:
    net, x = seeded(mlp), randn(3, 12)
    with pytest.raises(
        CertifyError, match=r"no share is given for the analog parameter '2\.weight'"
    ):
        certify_box(net, x, 0.1, shares={"0.*": 1.0})
    with pytest.raises(CertifyError, match="a radius is a number >= 0"):
        certify_box(net, x, -0.1)
    with pytest.raises(CertifyError, match="a radius is a number >= 0"):
        certify_box(net, x, math.nan)
    with pytest.raises(CertifyError, match='"interval" or "linear"'):
        certify_box(net, x, 0.1, method="crown")  # type: ignore[arg-type]
    with pytest.raises(CertifyError, match="the first axis is empty"):
        certify_box(net, x[:0], 0.1)
    with pytest.raises(CertifyError, match="the share of '\\*' is a number >= 0"):
        certify_box(net, x, 0.1, shares={"*": -1.0})
    with pytest.raises(CertifyError, match="the tolerance is a share"):
        largest_radius(net, x, tolerance=0.0)
    with pytest.raises(CertifyError, match=r"Call model\.float"):
        certify_box(net.bfloat16(), x.bfloat16(), 0.1)
    with pytest.raises(CertifyError, match="outputs N x C with C >= 2"):
        certify_box(seeded(lambda: nn.Linear(12, 1)), x, 0.1)
