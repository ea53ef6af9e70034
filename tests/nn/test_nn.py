"""Conversion and fleets: nothing renamed, nothing silent, the same numbers whatever the chunks."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    analog_parameters,
    analogize,
    device_seed,
    digitize,
    draw,
    draw_fleet,
    evaluate_fleet,
    evaluate_fleets,
    fleet_forward,
    hardware_of,
    summary,
)
from ohmloop.nn._batched import FleetRunner, alike, by_vmap, takes_channels_last

HARD = Hardware(device="lognormal:0.4")


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Residual(nn.Module):
    """Skip connection, batch norm, dilation, groups, reflect padding, a functional flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.edge = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False)
        self.pool = nn.MaxPool2d(3)
        self.head = nn.Linear(8 * 9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.edge(self.deep(x))
        return self.head(self.pool(x).flatten(1))


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding="same")
        self.mix = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.mix(self.conv(x).transpose(1, 2)))
        return self.out(h.mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6, bias=False)
        self.b = nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


class BatchAware(nn.Module):
    """Looks across the batch, so that devices must not share one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return self.b(h - h.mean())


def case(name: str) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
            "mlp": (nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4)), (11, 9)),
            "lenet": (
                nn.Sequential(
                    nn.Conv2d(1, 3, 5, stride=2, padding=2),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                    nn.Conv2d(3, 4, 3),
                    nn.ReLU(),
                    nn.Flatten(),
                    nn.Linear(100, 5),
                ),
                (6, 1, 28, 28),
            ),
            "residual": (Residual(), (5, 2, 10, 10)),
            "sequence": (Sequence(), (5, 3, 8)),
            "tied": (Tied(), (5, 6)),
            "batch-aware": (BatchAware(), (5, 4)),
        }
        model, shape = made[name]
        return model.eval(), torch.randn(*shape)


NAMES = ("mlp", "lenet", "residual", "sequence", "tied", "batch-aware")


@pytest.mark.parametrize("name", NAMES)
def test_fleet_gives_what_each_device_gives_alone(name: str) -> None:
    model, x = case(name)
    analogize(model, HARD)
    stacked = draw_fleet(model, range(4), seed=3)
    alone = torch.stack(
        [functional_call(model, {k: w[d] for k, w in stacked.items()}, (x,)) for d in range(4)]
    )
    for got in (fleet_forward(model, stacked, x), by_vmap(model, stacked, x)):
        torch.testing.assert_close(got, alone, rtol=1e-4, atol=1e-5)


def test_fast_path_is_taken_where_it_is_right_and_only_there() -> None:
    for name, expected in (
        ("mlp", True),
        ("lenet", True),
        ("sequence", True),
        ("batch-aware", False),
    ):
        model, x = case(name)
        analogize(model, HARD)
        runner = FleetRunner(model, frozenset(analog_parameters(model)))
        runner(draw_fleet(model, range(3), seed=0), x)
        assert runner._batched is expected, name


@pytest.mark.parametrize("name", NAMES)
def test_zero_noise_equals_the_digital_model(name: str) -> None:
    model, x = case(name)
    expected = model(x)
    analogize(model, Hardware(device="lognormal:0"))
    out = fleet_forward(model, draw_fleet(model, range(3), seed=0), x)
    torch.testing.assert_close(out, expected.expand_as(out), rtol=1e-4, atol=1e-5)
    assert torch.equal(model(x), expected)


def test_result_does_not_depend_on_chunks() -> None:
    model, _ = case("mlp")
    analogize(model, HARD)
    x, y = torch.randn(40, 9, generator=gen()), torch.randint(0, 4, (40,), generator=gen())
    whole = evaluate_fleet(model, (x, y), n_devices=13, seed=5)
    small = evaluate_fleet(model, (x, y), n_devices=13, seed=5, memory_budget=6000, batch_size=7)
    assert np.array_equal(whole.scores, small.scores)
    assert len(set(whole.scores.tolist())) > 1
    more = evaluate_fleet(model, (x, y), n_devices=20, seed=5)
    assert np.array_equal(more.scores[:13], whole.scores)
    other = evaluate_fleet(model, (x, y), n_devices=13, seed=6)
    assert not np.array_equal(other.scores, whole.scores)


def test_fleets_of_several_hardwares_are_the_single_ones() -> None:
    model, _ = case("mlp")
    analogize(model, HARD)
    x, y = torch.randn(40, 9, generator=gen()), torch.randint(0, 4, (40,), generator=gen())
    hard = [Hardware(device=f"lognormal:{s}") for s in (0.1, 0.9)]
    both = evaluate_fleets(model, (x, y), hard, n_devices=9, seed=1)
    for h, got in zip(hard, both, strict=True):
        alone = evaluate_fleet(model, (x, y), n_devices=9, seed=1, hardware=h)
        assert np.array_equal(alone.scores, got.scores)


def test_worst_tenth_mean_and_spread() -> None:
    model, _ = case("mlp")
    analogize(model, Hardware(device="lognormal:1.5"))
    x, y = torch.randn(60, 9, generator=gen()), torch.randint(0, 4, (60,), generator=gen())
    r = evaluate_fleet(model, (x, y), n_devices=25)
    assert r.worst == pytest.approx(np.sort(r.scores)[:2].mean())
    assert r.mean == pytest.approx(r.scores.mean())
    assert r.std == pytest.approx(r.scores.std(ddof=1))
    assert r.to_dict()["convention"] == "median-1"


def test_fleet_noise_has_the_law_and_devices_are_independent() -> None:
    model = nn.Linear(100, 50, bias=False)
    nn.init.ones_(model.weight)
    analogize(model, HARD)
    log = draw_fleet(model, range(40), seed=0)["weight"].log().reshape(40, -1).double()
    n = log.numel()
    assert log.mean() == pytest.approx(0, abs=5 * 0.4 / n**0.5)
    assert log.std() == pytest.approx(0.4, rel=5 / (2 * n) ** 0.5)
    correlation = np.corrcoef(log.numpy())
    off = correlation[~np.eye(40, dtype=bool)]
    assert np.abs(off).max() < 5 / 5000**0.5


def test_no_two_devices_of_a_fleet_share_a_seed() -> None:
    # The low 32 bits decide on a CPU.
    seeds = {device_seed(7, device) % 2**32 for device in range(200_000)}
    assert len(seeds) == 200_000


def test_state_dict_and_modes_are_untouched() -> None:
    model, x = case("residual")
    model.train()
    before = copy.deepcopy(model.state_dict())
    analogize(model, HARD)
    evaluate_fleet(model, (x, torch.zeros(5, dtype=torch.long)), n_devices=3)
    assert model.training
    assert model.norm.training
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert digitize(model) is model
    with pytest.raises(ConversionError, match="is digital"):
        hardware_of(model)


def test_summary_says_why_each_layer_is_digital() -> None:
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "lstm": nn.LSTM(4, 4),
            "norm": nn.BatchNorm1d(8),
            "fc": nn.Linear(8, 8),
        }
    )
    analogize(model, HARD)
    rows = {row.name: row for row in summary(model)}
    assert rows["fc"].analog
    for name, word in (
        ("attention", "unless where asks"),
        ("lstm", "unless where asks"),
        ("norm", "normalisation"),
    ):
        assert not rows[name].analog
        assert word in rows[name].reason
    assert sum(row.parameters for row in rows.values()) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (
            None,
            {
                "stem.weight",
                "stem.bias",
                "deep.weight",
                "deep.bias",
                "edge.weight",
                "head.weight",
                "head.bias",
            },
        ),
        (nn.Linear, {"head.weight", "head.bias"}),
        ((nn.Linear, nn.BatchNorm2d), {"head.weight", "head.bias", "norm.weight", "norm.bias"}),
        (["e*"], {"edge.weight"}),
        (lambda name, module: name == "deep", {"deep.weight", "deep.bias"}),
    ],
)
def test_where_chooses(where: object, expected: set[str]) -> None:
    model, _ = case("residual")
    assert set(analog_parameters(analogize(model, HARD, where=where))) == expected


def test_all_means_every_parameter() -> None:
    model, x = case("residual")
    analogize(model, HARD, where="all")
    assert set(analog_parameters(model)) == {name for name, _ in model.named_parameters()}
    stacked = draw_fleet(model, range(2), seed=0)
    alone = functional_call(model, {k: w[1] for k, w in stacked.items()}, (x,))
    torch.testing.assert_close(fleet_forward(model, stacked, x)[1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "where", "match"),
    [
        (nn.Sequential(nn.ReLU()), None, "no layer with parameters"),
        (nn.Sequential(nn.Linear(2, 2)), ["nothing*"], "no layer with parameters"),
        (nn.Sequential(nn.Linear(2, 2)), "0", "write name patterns as a list"),
        (nn.Sequential(nn.LazyLinear(2)), None, "lazy"),
        (nn.Sequential(nn.Linear(2, 2)), 7, "expected None"),
    ],
)
def test_what_cannot_be_converted_is_said(model: nn.Module, where: object, match: str) -> None:
    with pytest.raises(ConversionError, match=match):
        analogize(model, HARD, where=where)


def test_nan_weights_and_double_conversion_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match=r"0\.weight holds NaN"):
        analogize(model, HARD)
    nn.init.ones_(model[0].weight)
    analogize(model, HARD)
    with pytest.raises(ConversionError, match="analog already"):
        analogize(model, HARD)


def test_batch_norm_in_training_mode_is_refused() -> None:
    model, x = case("residual")
    analogize(model, HARD)
    stacked = draw_fleet(model, range(2), seed=0)
    with pytest.raises(ConversionError, match="norm normalises by batch"):
        fleet_forward(model.train(), stacked, x)


def test_draws_are_differentiable_and_repeatable() -> None:
    model, x = case("mlp")
    analogize(model, HARD)
    functional_call(model, draw(model, gen(1)), (x,)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    a, b = draw(model, gen(1)), draw(model, gen(1))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fleet_runs_on_cuda() -> None:
    model, x = case("residual")
    analogize(model.cuda(), HARD)
    y = torch.zeros(5, dtype=torch.long)
    whole = evaluate_fleet(model, (x, y), n_devices=9)
    small = evaluate_fleet(model, (x, y), n_devices=9, memory_budget=200_000)
    assert np.array_equal(whole.scores, small.scores)


class Flat(nn.Module):
    """A small depthwise network that keeps how its pictures lay in memory."""

    def __init__(self, views: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8 * 6 * 6, 4)
        self.views = views
        self.last: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth(self.conv(x).relu())
        self.last.append(not x.is_contiguous())
        return self.head(x.view(len(x), -1) if self.views else x.flatten(1))


@pytest.mark.parametrize("views", [False, True])
def test_devices_alone_see_channels_last_where_the_network_takes_them_so(views: bool) -> None:
    torch.manual_seed(0)
    model = analogize(Flat(views), HARD).eval()
    x = torch.randn(20, 3, 6, 6)
    stacked = draw_fleet(model, range(2), 4)
    runner = FleetRunner(model, frozenset(stacked))
    for device in range(2):
        weights = {name: w[device : device + 1] for name, w in stacked.items()}
        found = runner(weights, x)[0]
        assert model.last[-1] is not views
        assert alike(found, functional_call(model, {n: w[0] for n, w in weights.items()}, (x,)))
    assert takes_channels_last(model, x[:2]) is not views
    assert not takes_channels_last(nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), x[:2])
    assert not takes_channels_last(model, x[0])
