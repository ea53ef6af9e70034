"""What trainings add: every noise by its closed form, every gradient by an independent one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware
from ohmloop.nn import analogize
from ohmloop.tasks import RSquared, Split
from ohmloop.train import Lesson, Noise, Recipe, train_once
from ohmloop.train._loop import Training
from ohmloop.train._noise import (
    Converters,
    clip_weights,
    draw_weights,
    levels_by_layer,
    masked,
    noisy_layers,
    tile_mask,
    uphill,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(rows: int = 500, columns: int = 400) -> nn.Module:
    model = nn.Linear(columns, rows, bias=False)
    nn.init.ones_(model.weight)
    return analogize(model, Hardware(device="lognormal:0.1"))


def stack() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)
        )
    return analogize(model, Hardware(device="lognormal:0.1"))


def _censored(share: float) -> tuple[float, float]:
    """Mean and variance of min(Z, c), Z standard normal, P(Z > c) = share (Tobin 1958)."""
    c = norm.isf(share)
    mean = c * share - norm.pdf(c)
    second = norm.cdf(c) - c * norm.pdf(c) + c**2 * share
    return mean, second - mean**2


CENSORED = _censored(0.3)
LOGNORMAL = np.exp(0.16) * (np.exp(0.16) - 1)


@pytest.mark.parametrize(
    ("noise", "mean", "variance"),
    [
        (Noise(level=0.4), 1.0, 0.16),
        (Noise(level=0.4, distribution="lognormal"), np.exp(0.08), LOGNORMAL),
        (Noise(level=0.4, distribution="lognormal-mean-1"), 1.0, np.exp(0.16) - 1),
        (
            Noise(level=0.4, distribution="right-censored", censored=0.3),
            1 + 0.4 * CENSORED[0],
            0.16 * CENSORED[1],
        ),
    ],
)
def test_weight_noise_has_its_mean_and_variance(noise: Noise, mean: float, variance: float) -> None:
    w = draw_weights(ones(), noise, gen())["weight"].detach()
    n = w.numel()
    assert float(w.mean()) == pytest.approx(mean, abs=5 * (variance / n) ** 0.5)
    assert float(w.var()) == pytest.approx(variance, rel=0.03)


def test_mixture_takes_each_family_with_its_probability() -> None:
    model, generator = ones(60, 50), gen()
    noise = Noise(level=0.4, distribution="mixture", mixture=0.3)
    # A log-normal factor is never negative; with 3,000 gaussian ones of deviation .4 some always are.
    draws = [
        float(draw_weights(model, noise, generator)["weight"].detach().min()) for _ in range(400)
    ]
    share = np.mean([smallest > 0 for smallest in draws])
    assert share == pytest.approx(0.3, abs=5 * (0.21 / 400) ** 0.5)


def test_variance_aware_level_has_its_second_moment() -> None:
    model, generator = ones(40, 50), gen()
    noise = Noise(level=0.2, spread=0.5)
    variances = [
        float(draw_weights(model, noise, generator)["weight"].detach().var()) for _ in range(600)
    ]
    # E[level^2] = .04 (1 + .5^2); the variance of (1 + .5 z)^2 is 4 (.25) + 2 (.0625).
    deviation = 0.04 * (4 * 0.25 + 2 * 0.0625) ** 0.5 / 600**0.5
    assert np.mean(variances) == pytest.approx(0.04 * 1.25, abs=5 * deviation)


def test_levels_follow_slope_first_and_last() -> None:
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    levels = levels_by_layer(names, Noise(level=0.5, slope=0.8, first=0.5, last=2.0))
    assert levels["0.weight"] == levels["0.bias"] == pytest.approx(0.5 * np.exp(-0.4) * 0.5)
    assert levels["2.weight"] == pytest.approx(0.5)
    assert levels["4.bias"] == pytest.approx(0.5 * np.exp(0.4) * 2)


@pytest.mark.parametrize("family", ["gaussian", "lognormal", "lognormal-mean-1", "right-censored"])
def test_gradients_through_noise_are_those_of_differences(family: str) -> None:
    model = stack().double()
    noise = Noise(level=0.3, distribution=family, tile_drop=0.2, tile=2)
    x = torch.randn(7, 5, generator=gen(1), dtype=torch.float64)

    def loss() -> torch.Tensor:
        return functional_call(model, draw_weights(model, noise, gen(2)), (x,)).square().sum()

    torch.autograd.backward(loss())
    weight = model[2].weight
    found, step = weight.grad[1, 3].item(), 1e-6
    with torch.no_grad():
        weight[1, 3] += step
        above = float(loss())
        weight[1, 3] -= 2 * step
        below = float(loss())
    assert found == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


def along_conv() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
        )
    return analogize(model, Hardware(device="lognormal:0.1"))


def normed() -> nn.Module:
    """A batch norm that came with statistics and keeps them, as `match` has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
        model[1].running_mean.normal_()  # type: ignore[union-attr,operator]
    return analogize(model.eval(), Hardware(device="lognormal:0.1"))


MIXED = {"level": 0.3, "distribution": "mixture"}
MASKS = ((0.4, 0.0), (0.2, 0.0))
LAWS = {
    "gaussian of a mixture": Noise(mixture=0.0, **MIXED),
    "log-normal of a mixture": Noise(mixture=1.0, **MIXED),
    "mixture": Noise(mixture=0.5, **MIXED),
    "dropout": Noise(masks=MASKS),
    "multinomial": Noise(masks=((0.3, 0.35), (0.2, 0.5))),
    "masks on noise": Noise(masks=MASKS, **MIXED),
    "tiles": Noise(tile_drop=0.3, tile=2),
    "tiles under masks": Noise(tile_drop=0.3, tile=2, masks=MASKS),
    "match": Noise(level=0.3, match=True),
    "match of a mixture": Noise(match=True, **MIXED),
    "match of tiles": Noise(tile_drop=0.2, tile=2, match=True),
    "feedback that varies": Noise(level=0.3, feedback=2, spread=0.5, slope=0.4),
}


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("network", [stack, along_conv, normed])
def test_gradients_of_a_step_are_those_of_differences(
    network: Callable[[], nn.Module], name: str, seed: int
) -> None:
    """Along a random direction of each parameter, with the same draws on both sides."""
    model, noise = network().double(), LAWS[name]
    if noise.masks:
        noise = noise.model_copy(update={"masks": noise.masks[: len(noisy_layers(model))]})
    x = torch.randn(9, 5, generator=gen(1), dtype=torch.float64)
    y = torch.arange(9) % 3
    training = Training(model, Lesson(Split(x, y), Split(x, y)), noise, Recipe(1, 9, 1e-3, 0))

    def loss() -> torch.Tensor:
        training.random.manual_seed(seed)
        with masked(model, noise, training.random):
            return training._loss(x, y, None, 1.0)

    torch.autograd.backward(loss())
    step = 1e-7  # Small, or a ReLU's kink lies within it.
    for p in model.parameters():
        assert p.grad is not None
        way = torch.randn(p.shape, generator=gen(4), dtype=p.dtype)
        with torch.no_grad():
            p.add_(way, alpha=step)
            above = float(loss())
            p.sub_(way, alpha=2 * step)
            below = float(loss())
            p.add_(way, alpha=step)
        found = float((p.grad * way).sum())
        assert found == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_a_step_of_a_mixture_is_of_one_family_for_all_weights() -> None:
    """With the families' own numbers, the draw of a seed is that of one of them, and both occur."""
    model, noise, seen = stack(), Noise(mixture=0.5, **MIXED), set()
    for seed in range(20):
        drawn = draw_weights(model, noise, gen(seed))
        for family in ("gaussian", "lognormal"):
            generator = gen(seed)
            torch.rand((), generator=generator)  # what chose the family
            own = draw_weights(model, Noise(level=0.3, distribution=family), generator)
            if all(torch.equal(drawn[k], own[k]) for k in own):
                seen.add((seed, family))
    assert len(seen) == 20
    assert {family for _, family in seen} == {"gaussian", "lognormal"}


@pytest.mark.parametrize("setting", [(0.5, 0.0), (0.3, 0.35), (0.2, 0.8)])
def test_masks_have_the_expected_gradient_of_their_penalty(setting: tuple[float, float]) -> None:
    """A squared loss behind a mask is, in the mean, itself and a penalty by the mask's variance:
    |A h - y|^2 + var sum_j h_j^2 |A_j|^2, h = B x (Srivastava et al. 2014, section 9.1).
    """
    p0, half = setting
    mean = 1 - p0 - half / 2
    variance = (1 - p0 - half + half / 4) / mean**2 - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double()
    analogize(model, Hardware(device="lognormal:0.1"))
    rows, repeats = 2_000, 20
    x = torch.randn(1, 4, generator=gen(1), dtype=torch.float64)
    y = torch.randn(1, 3, generator=gen(2), dtype=torch.float64)
    parameters = list(model.parameters())
    hidden = model[0](x)
    matrix = model[1].weight
    out = (model[1](hidden) - y).square().sum()
    penalty = variance * (hidden.square() @ matrix.square().sum(0)).sum()
    expected = torch.autograd.grad((out + penalty) / 3, parameters)
    split = Split(x.expand(rows, -1), y.expand(rows, -1))
    noise = Noise(masks=(setting,))
    found: list[list[torch.Tensor]] = []
    for seed in range(repeats):
        train_once(model, Lesson(split, split, RSquared()), noise, Recipe(1, rows, 0.0, seed))
        found.append([p.grad.clone() for p in parameters])
    for k, wanted in enumerate(expected):
        values = torch.stack([gradients[k] for gradients in found])
        error = values.std(0) / repeats**0.5
        assert ((values.mean(0) - wanted).abs() <= 5 * error + 1e-12).all()
        assert float((error / wanted.abs().max()).max()) < 0.05  # so that this says something


def test_tiles_are_whole_and_keep_the_mean() -> None:
    mask = tile_mask(torch.empty(64, 96), 0.25, 16, gen())
    tiles = mask.reshape(4, 16, 6, 16).transpose(1, 2)
    assert all(len(tile.unique()) == 1 for row in tiles for tile in row)
    many = torch.stack([tile_mask(torch.empty(48, 48), 0.25, 16, gen(k)) for k in range(500)])
    assert many.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    # 500 x 9 independent tiles, each of variance .25 / .75.
    assert float(many.mean()) == pytest.approx(1, abs=5 * (1 / 3 / 4500) ** 0.5)
    assert tile_mask(torch.empty(5, 3, 3, 3), 0.5, 4, gen()).shape == (5, 3, 3, 3)


def test_moves_uphill_have_the_length_of_their_rule() -> None:
    model = stack()
    torch.autograd.backward(model(torch.randn(9, 5, generator=gen())).square().sum())
    parameters = list(model.parameters())
    kept = [p.detach().clone() for p in parameters]
    gradients = [p.grad.clone() for p in parameters]

    def move(kind: str) -> list[torch.Tensor]:
        with uphill(model, Noise(sharpness=kind, radius=0.1)):
            moved = [p.detach() - k for p, k in zip(parameters, kept, strict=True)]
        assert all(torch.equal(p, k) for p, k in zip(parameters, kept, strict=True))
        return moved

    def length(parts: list[torch.Tensor]) -> float:
        return float(torch.cat([p.flatten() for p in parts]).norm())

    sam = move("sam")
    assert length(sam) == pytest.approx(0.1, rel=1e-4)
    assert all(
        torch.nn.functional.cosine_similarity(m.flatten(), g.flatten(), 0) > 0.999
        for m, g in zip(sam, gradients, strict=True)
    )
    asam = [m / k.abs() for m, k in zip(move("asam"), kept, strict=True)]
    assert length(asam) == pytest.approx(0.1, rel=1e-3)
    for m, k in zip(move("awp"), kept, strict=True):
        assert float(m.norm() / k.norm()) == pytest.approx(0.1, rel=1e-4)


def test_converters_round_to_their_steps_and_pass_gradients_straight() -> None:
    converters = Converters(bits=4)
    x = torch.linspace(-3, 3, 61).requires_grad_(True)
    converters._convert("in", torch.tensor([-2.0, 1.0]))
    converters.learning = False
    out = converters._convert("in", x)
    levels = out.detach() / (2.0 / 7)
    assert torch.allclose(levels, levels.round(), atol=1e-5)
    inside = x.detach().abs() <= 2
    assert float((out.detach() - x.detach().clamp(-2, 2)).abs().max()) <= 1 / 7 + 1e-6
    torch.autograd.backward(out.sum())
    assert torch.equal(x.grad, inside.float())


def test_clipping_cuts_at_deviations() -> None:
    model = stack()
    with torch.no_grad():
        model[0].weight[0, 0] = 50.0
    bound = 2.0 * float(model[0].weight.detach().std())
    clip_weights(model, 2.0)
    assert float(model[0].weight.detach().abs().max()) == pytest.approx(bound)


def test_converters_leave_numbers_of_tokens() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    analogize(model, Hardware(device="lognormal:0.1"), where="all")
    with Converters(bits=8).active(model):
        assert model(torch.tensor([[1, 2, 4]])).shape == (1, 3, 3)
