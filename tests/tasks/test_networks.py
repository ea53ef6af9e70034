"""Reference networks: known sizes, weights in analog layers alone, many devices at once."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from ohmloop.errors import TaskError
from ohmloop.tasks._images._networks import build_model, model_names
from ohmloop.tasks._images._vit import Attention

GREY, COLOUR, LARGE = (1, 28, 28), (3, 32, 32), (3, 64, 64)
DEEP = {"vgg11", "vgg11-bn", "resnet18", "alexnet", "alexnet-bn"}


def cases(*shapes: tuple[int, ...]) -> list:
    return [
        pytest.param(name, shape, marks=[pytest.mark.slow] if name in DEEP else [])
        for shape in shapes
        for name in model_names(shape)
    ]


def n_weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "shape"), cases((13,), GREY, COLOUR, LARGE))
def test_network_maps_one_batch_to_logits_in_both_modes(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, shape, 7, 0)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        out = model.train(mode)(x)
        assert out.shape == (2, 7)
        assert out.isfinite().all()


@pytest.mark.parametrize(("name", "shape"), cases(GREY, COLOUR))
def test_many_devices_at_once_give_what_each_gives_alone(name: str, shape: tuple[int, ...]) -> None:
    models = [build_model(name, shape, 4, seed).eval() for seed in (0, 1)]
    parameters, buffers = stack_module_state(models)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
        for out, model in zip(together, models, strict=True):
            torch.testing.assert_close(out, model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", model_names(COLOUR))
def test_every_weight_matrix_belongs_to_an_analog_layer(name: str) -> None:
    model = build_model(name, COLOUR, 4, 0)
    analog = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for p in module.parameters()
    }
    digital = {key for key, p in model.named_parameters() if id(p) not in analog and p.dim() > 1}
    assert digital == ({"position"} if name == "vit" else set())


@pytest.mark.parametrize("name", [n for n in model_names(COLOUR) if n not in DEEP])
def test_weights_depend_on_the_seed_and_leave_the_global_state(name: str) -> None:
    before = torch.get_rng_state()
    a, b, c = (build_model(name, COLOUR, 4, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_sizes_are_those_of_the_papers() -> None:
    # LeNet-5 as it is counted everywhere; ResNet-18 and VGG-11 for CIFAR-10 with one linear layer.
    assert n_weights(build_model("lenet", GREY, 10, 0)) == 61_706
    assert n_weights(build_model("resnet18", COLOUR, 10, 0)) == 11_173_962
    convolutions = ((3, 64), (64, 128), (128, 256), (256, 256), (256, 512), *((512, 512),) * 3)
    vgg = sum(9 * a * b + b for a, b in convolutions) + 512 * 10 + 10
    assert n_weights(build_model("vgg11", COLOUR, 10, 0)) == vgg
    # He et al. 2016, section 4.2: 2 n + 1 convolutions for each of 3 widths, here n = 1.
    resnet8 = build_model("resnet8", COLOUR, 10, 0)
    kernels = [m for m in resnet8.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(kernels) + 1 == 8
    widths = (32, 64, 192, 192, 128)
    alexnet = sum(9 * a * b + b for a, b in zip((3, *widths[:-1]), widths, strict=True))
    alexnet += (128 * 9 + 1) * 1024 + 1025 * 1024 + 1025 * 10
    assert n_weights(build_model("alexnet", COLOUR, 10, 0)) == alexnet
    assert 100_000 < n_weights(build_model("cnn", COLOUR, 43, 0)) < 200_000


def test_deep_chains_keep_the_size_of_their_activations() -> None:
    x = torch.randn(8, *COLOUR, generator=torch.Generator().manual_seed(1))
    for name in ("vgg11", "alexnet", "cnn"):
        with torch.no_grad():
            spread = float(build_model(name, COLOUR, 10, 0).eval()(x).std())
        assert 0.05 < spread < 20


def test_batch_norm_networks_differ_by_their_norms_alone() -> None:
    for name in ("mlp", "lenet", "cnn", "alexnet"):
        plain, norm = (build_model(n, COLOUR, 4, 0) for n in (name, f"{name}-bn"))
        kinds = [type(m) for m in norm.modules() if "BatchNorm" not in type(m).__name__]
        assert kinds == [type(m) for m in plain.modules()]
        assert len(kinds) < len(list(norm.modules()))


def test_attention_agrees_with_the_fused_function_and_the_module_of_torch() -> None:
    torch.manual_seed(0)
    mine = Attention(8, 2)
    other = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([m.weight for m in (mine.q, mine.k, mine.v)]))
        other.in_proj_bias.copy_(torch.cat([m.bias for m in (mine.q, mine.k, mine.v)]))
        other.out_proj.load_state_dict(mine.out.state_dict())
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(mine(x), other(x, x, x, need_weights=False)[0])


def test_vit_knows_where_its_patches_are() -> None:
    model = build_model("vit", COLOUR, 4, 0).eval()
    x = torch.randn(1, *COLOUR, generator=torch.Generator().manual_seed(0))
    assert model.position.shape == (64, 128)
    with torch.no_grad():
        # Without positions, the mean over patches does not see their order; with them it does.
        moved = x.roll(4, dims=-1)
        assert not torch.allclose(model(x), model(moved), atol=1e-5)
        model.position.zero_()
        torch.testing.assert_close(model(x), model(moved), rtol=1e-4, atol=1e-5)


def test_residual_block_with_dead_convolutions_is_its_shortcut() -> None:
    model = build_model("resnet8", COLOUR, 4, 0).eval()
    block = model[1]
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        block.second.weight.zero_()
        torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("lenet", (1, 8, 8), r"28 x 28.*one of linear, mlp, mlp-bn"),
        ("vgg11", GREY, "at least 32 x 32"),
        ("vit", (3, 30, 30), "patches"),
        ("cnn", (64,), "C x H x W"),
        ("lennet", GREY, "no model 'lennet'"),
    ],
)
def test_wrong_choice_is_said_with_what_fits(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(TaskError, match=match):
        build_model(name, shape, 10, 0)


@pytest.mark.parametrize("name", ["mlp-bn", "cnn", "resnet8", "vit"])
def test_network_can_learn_a_few_images_by_heart(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = build_model(name, GREY, 4, 0)
    x = torch.randn(8, *GREY, generator=generator)
    y = torch.arange(8) % 4
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = math.inf
    for step in range(20):
        loss = nn.functional.cross_entropy(model(x), y)
        first = loss.item() if step == 0 else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < min(0.2, first / 4)
