"""Layer by layer: no device of the box leaves the bounds, and what has no bound is refused by name."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ohmloop.certify import certify_box, largest_radius
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import CertifyError
from ohmloop.nn import analog_parameters, analogize
from ohmloop.tasks import build_model

LAW = Hardware(device=DeviceModel(name="x", sigma=Estimate(value=0.3)))


def seeded(build: Callable[[], nn.Module], where: object = None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = copy.deepcopy(build())
        for m in model.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_()
                m.running_var.uniform_(0.3, 2)
            if isinstance(m, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
                m.weight.data.normal_()
                m.bias.data.normal_()
        return analogize(model.eval().double(), LAW, where=where)


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def image(*layers: nn.Module, channels: int = 4) -> nn.Module:
    """Images 2 x 7 x 6, a first analog layer, the layers under test, and a last analog layer."""
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(3)
    )


def vector(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.LazyLinear(3))


def signal(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3), *layers, nn.Flatten(), nn.LazyLinear(3))


def tokens(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Flatten(), nn.LazyLinear(3))


def residual(x: Tensor, layer: nn.Module, other: nn.Module) -> Tensor:
    return torch.relu(other(torch.relu(layer(x))) + x)


def attention(x: Tensor, q: nn.Module, k: nn.Module) -> Tensor:
    return (q(x) @ k(x).transpose(-2, -1) / math.sqrt(8)).softmax(-1) @ x


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{
        f"vector {type(m).__name__}{k}": (lambda m=m: vector(m), (6,))
        for k, m in enumerate(
            (
                nn.ReLU(),
                nn.ReLU(inplace=True),
                nn.LeakyReLU(0.2),
                nn.Tanh(),
                nn.Sigmoid(),
                nn.GELU(),
                nn.GELU(approximate="tanh"),
                nn.SiLU(),
                nn.Hardswish(),
                nn.Hardtanh(-0.3, 0.4),
                nn.ReLU6(),
                nn.ELU(0.7),
                nn.Softplus(beta=2),
                nn.Softsign(),
                nn.Hardsigmoid(),
                nn.LogSigmoid(),
                nn.Softmax(-1),
                nn.BatchNorm1d(8),
                nn.LayerNorm(8),
                nn.Dropout(0.5),
                nn.Identity(),
                nn.Linear(8, 8),
            )
        )
    },
    **{
        f"image {k}": (lambda layers=layers: image(*layers), (2, 7, 6))
        for k, layers in {
            "conv": (nn.Conv2d(4, 5, 3),),
            "stride": (nn.Conv2d(4, 5, 3, stride=2, padding=1),),
            "uneven stride": (nn.Conv2d(4, 5, (3, 2), stride=(1, 2), padding=(2, 0)),),
            "dilation": (nn.Conv2d(4, 5, 2, dilation=2, padding=1),),
            "groups": (nn.Conv2d(4, 6, 3, groups=2),),
            "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False),),
            "same": (nn.Conv2d(4, 5, 3, padding="same"),),
            "reflect": (nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"),),
            "circular": (nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"),),
            "batch norm": (nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)),
            "group norm": (nn.GroupNorm(2, 4),),
            "max pool": (nn.MaxPool2d(2), nn.Conv2d(4, 5, 2)),
            "max pool of relu": (nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)),
            "average pool": (nn.AvgPool2d(2, padding=1), nn.ReLU()),
            "average pool without edges": (nn.AvgPool2d(2, padding=1, count_include_pad=False),),
            "adaptive pool": (nn.AdaptiveAvgPool2d(2),),
            "mean": (Call(lambda x: x.mean((-2, -1))),),
            "mean over one axis": (Call(lambda x: x.mean(2, keepdim=True)),),
            "sum": (Call(lambda x: torch.sum(x, -1)),),
            "zero padding": (nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(4, 5, 3)),
            "residual": (
                Call(residual, nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)),
            ),
            "cat": (Call(lambda x, f: torch.cat([x, f(x)], 1), nn.Conv2d(4, 3, 3, padding=1)),),
            "product": (Call(lambda x, f: x * torch.sigmoid(f(x)), nn.Conv2d(4, 4, 1)),),
            "constants": (Call(lambda x: 2 - (x - 1) * torch.arange(6.0) / 3 + x),),
            "slices": (Call(lambda x: x[:, 1:3, ::2].permute(0, 2, 1, 3).reshape(len(x), -1)),),
        }.items()
    },
    "signal conv": (lambda: signal(nn.ReLU(), nn.Conv1d(4, 5, 3, stride=2)), (2, 9)),
    "signal norm": (lambda: signal(nn.BatchNorm1d(4)), (2, 9)),
    "signal pools": (lambda: signal(nn.MaxPool1d(2), nn.AvgPool1d(2)), (2, 9)),
    "tokens": (lambda: tokens(nn.ReLU(), nn.Linear(8, 5)), (4, 6)),
    "attention": (
        lambda: tokens(Call(attention, nn.Linear(8, 8), nn.Linear(8, 8))),
        (4, 6),
    ),
}


def built(name: str, where: object = None) -> tuple[nn.Module, Tensor]:
    build, shape = NETS[name]

    def ready() -> nn.Module:
        model = copy.deepcopy(build())
        model.eval()(torch.zeros(2, *shape))
        return model

    x = torch.randn(24, *shape, generator=torch.Generator().manual_seed(1)).double()
    return seeded(ready, where), x


def worst_of_corners(model: nn.Module, x: Tensor, radius: float, kind: str) -> np.ndarray:
    """Return the smallest lead of each input over corners: random ones, and by the gradient's sign."""
    weights = {n: p.detach() for n, p in analog_parameters(model).items()}
    classes = model(x).argmax(1)
    generator = torch.Generator().manual_seed(2)
    worst = torch.full((len(x),), math.inf).double()

    def leads(signs: dict[str, Tensor]) -> Tensor:
        moved = {
            n: w * (signs[n] * radius).exp() if kind == "log" else w * (1 + radius * signs[n])
            for n, w in weights.items()
        }
        out = functional_call(model, moved, (x,))
        own = out.gather(1, classes[:, None]).squeeze(1)
        return own - out.scatter(1, classes[:, None], -math.inf).amax(1)

    for k in range(len(x)):
        signs = {
            n: torch.randn(w.shape, generator=generator).sign().double().requires_grad_()
            for n, w in weights.items()
        }
        for _ in range(3):
            found = leads(signs)
            worst = torch.minimum(worst, found.detach())
            slopes = torch.autograd.grad(found[k], list(signs.values()), allow_unused=True)
            signs = {
                n: (s if g is None else -g.sign()).detach().requires_grad_()
                for (n, s), g in zip(signs.items(), slopes, strict=True)
            }
        worst = torch.minimum(worst, leads(signs).detach())
    return worst.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_no_corner_leaves_the_bounds(name: str) -> None:
    model, x = built(name)
    kind = "log" if len(name) % 2 else "relative"
    for radius in (0.01, 0.15):
        worst = worst_of_corners(model, x[:8], radius, kind)
        for method in ("interval", "linear"):
            margins = certify_box(model, x[:8], radius, kind=kind, method=method).margins
            assert np.all(margins <= worst + 1e-12), method
    nominal = certify_box(model, x, 0.0, method="linear").margins
    np.testing.assert_allclose(nominal, worst_of_corners(model, x, 0.0, kind), atol=1e-9)


@pytest.mark.parametrize("name", ["vector BatchNorm1d17", "vector LayerNorm18", "image group norm"])
def test_norms_may_be_analog_too(name: str) -> None:
    model, x = built(name, where="all")
    assert any("1." in n for n in analog_parameters(model))
    for radius in (0.01, 0.1):
        worst = worst_of_corners(model, x[:8], radius, "relative")
        for method in ("interval", "linear"):
            margins = certify_box(model, x[:8], radius, method=method).margins
            assert np.all(margins <= worst + 1e-12), method
    some = largest_radius(model, x, shares={"1.*": 0.0, "*": 1.0}).radii
    both = largest_radius(model, x).radii
    assert np.all(both <= some)
    assert np.mean(both) < 0.99 * np.mean(some)


def test_batch_norm_equals_the_layer_that_it_folds_into() -> None:
    """A digital batch norm behind an analog layer is the layer with rows scaled, its bias moved digitally."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, norm, last = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)
    norm.running_mean.copy_(torch.randn(8, generator=torch.Generator().manual_seed(3)))
    norm.running_var.copy_(torch.rand(8, generator=torch.Generator().manual_seed(4)) + 0.2)
    norm.eval()
    folded = nn.Linear(6, 8)
    with torch.no_grad():
        gain = (norm.running_var + norm.eps).rsqrt()
        folded.weight.copy_(first.weight * gain[:, None])
        folded.bias.copy_(-norm.running_mean * gain)
    plain = analogize(nn.Sequential(first, norm, nn.ReLU(), last).eval().double(), LAW)
    other = nn.Sequential(folded, nn.ReLU(), last).eval().double()
    analogize(other, LAW)
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(5)).double()
    for method in ("interval", "linear"):
        a = largest_radius(plain, x, method=method, tolerance=1e-4)
        b = largest_radius(other, x, method=method, tolerance=1e-4, shares={"0.bias": 0, "*": 1})
        np.testing.assert_allclose(a.radii, b.radii, rtol=3e-4)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp-bn", (1, 8, 8)),
        pytest.param("lenet", (1, 28, 28), marks=pytest.mark.slow),
        pytest.param("cnn-bn", (1, 28, 28), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_reference_networks_have_certified_radii(
    name: str, shape: tuple[int, ...], method: str
) -> None:
    model = analogize(build_model(name, shape, 10, 0).eval().double(), LAW)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    found = largest_radius(model, x, method=method, tolerance=0.3)
    assert np.all(found.certified)
    assert np.all(found.radii > 1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "resnet8",
        pytest.param("alexnet", marks=pytest.mark.slow),
        pytest.param("vit", marks=pytest.mark.slow),
        pytest.param("vgg11-bn", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.slow),
    ],
)
def test_deep_reference_networks_can_be_followed(name: str) -> None:
    """Boxes grow so fast in deep networks that they prove nothing; but they must not be wrong."""
    shape = (3, 32, 32)
    model = analogize(build_model(name, shape, 10, 0).eval().double(), LAW)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    top = model(x).topk(2).values.detach().numpy()
    found = certify_box(model, x, 0.0)
    assert np.all(found.margins <= top[:, 0] - top[:, 1])
    loose = certify_box(model, x, 0.05).margins
    assert np.all(loose < found.margins)
    assert np.all(np.isfinite(loose))


# What is refused


def test_norms_in_training_mode_are_refused() -> None:
    model, x = built("image batch norm")
    model[1].train()
    with pytest.raises(
        CertifyError, match=r"statistics of the batch .* in layer '1' \(BatchNorm2d\)"
    ):
        certify_box(model, x, 0.01)


def test_dropout_in_training_mode_is_refused() -> None:
    model, x = built("vector Dropout19")
    model[1].train()
    with pytest.raises(CertifyError, match=r"dropout in training mode .* in layer '1' \(Dropout\)"):
        certify_box(model, x, 0.01)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (torch.sin, r"sin\(\)"),
        (lambda x: x.cumsum(1), r"cumsum\(\)"),
        (lambda x: F.leaky_relu(x, -0.5), "leaky ReLU of slope -0.5"),
        (lambda x: F.tanh(x).clamp_(0, 1), r"clamp_\(\)"),
        (lambda x: 1 / x, "division by a value that depends on weights"),
        (lambda x: x - x.mean(0), "a sum over the inputs of a batch"),
        (lambda x: F.dropout(x, 0.1), "dropout in training mode"),
        (lambda x: torch.softmax(x, 0), "softmax without an axis"),
        (lambda x: F.pad(x[:, 1:], (1, 0), value=1.0), "padding with a value other than 0"),
    ],
)
def test_what_has_no_bound_is_refused_by_name(
    function: Callable[[Tensor], Tensor], match: str
) -> None:
    model, x = built("vector Identity20")
    model[1] = Call(function)
    with pytest.raises(CertifyError, match=match) as error:
        certify_box(model, x, 0.01)
    assert "layer '1' (Call)" in str(error.value)


def test_recurrent_layers_are_refused_by_name() -> None:
    model = analogize(
        nn.Sequential(nn.Linear(6, 4), Call(lambda x, f: f(x)[0][:, -1], nn.GRU(4, 3))).eval(), LAW
    )
    with pytest.raises(CertifyError, match=r"layer '1\.layers\.0' \(GRU\)"):
        certify_box(model, torch.zeros(2, 5, 6), 0.01)


def test_an_analog_parameter_is_never_taken_for_a_constant() -> None:
    class Reparametrised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.inner.weight * 2.0, self.inner.bias)

    model = analogize(Reparametrised(), LAW)
    with pytest.raises(CertifyError, match=r"of an analog parameter"):
        certify_box(model, torch.zeros(2, 6), 0.01)


def test_values_that_were_overwritten_are_refused() -> None:
    model, x = built("vector Identity20")
    model[1] = Call(lambda x: F.relu(x, inplace=True) + x)
    with pytest.raises(CertifyError, match="an in-place function has overwritten"):
        certify_box(model, x, 0.01)


def test_a_random_network_is_refused() -> None:
    model, x = built("vector Identity20")
    noise = torch.Generator().manual_seed(0)
    model[1] = Call(lambda x: x + torch.randn(8, generator=noise).double())
    with pytest.raises(CertifyError, match="the bounds miss the network's own outputs"):
        certify_box(model, x, 0.01)


def test_several_outputs_are_refused() -> None:
    model, x = built("vector Identity20")
    model.append(Call(lambda x: (x, x)))
    with pytest.raises(CertifyError, match="one tensor of class scores"):
        certify_box(model, x, 0.01)


def test_the_network_is_left_as_it_was() -> None:
    model, x = built("image batch norm")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    largest_radius(model, x[:2])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    assert not model.training
