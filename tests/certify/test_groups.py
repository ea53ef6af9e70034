"""Groups of cells and what a shift costs, against dense matrices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ohmloop.certify import Ablation, Cells, Gain, Law, Sampler, poll
from ohmloop.certify._drift import after_deployment
from ohmloop.certify._groups import coordinate_groups
from ohmloop.crossbar import Array, Hardware
from ohmloop.errors import CertifyError, ConversionError
from ohmloop.nn import (
    Deployment,
    analog_parameters,
    analogize,
    device_seed,
    evaluate_fleet,
    mark_noisy_statistics,
    program,
)
from tests.certify.small import filled

NET = {"0.weight": torch.ones(6, 10), "0.bias": torch.ones(6), "2.weight": torch.ones(4, 6)}


def test_layers_columns_and_tiles_are_what_an_array_holds() -> None:
    layer = coordinate_groups(NET, "layer")
    assert (np.bincount(layer) == [66, 24]).all()
    assert (np.bincount(coordinate_groups(NET, "column")) == [11] * 6 + [6] * 4).all()
    assert set(coordinate_groups(NET, "chip")) == {0}
    tile = coordinate_groups(NET, "tile", rows=8, columns=4)
    # 0: inputs 0-7, 8-9 and the bias row, each by outputs 0-3 and 4-5. 2: outputs 0-3.
    assert sorted(np.bincount(tile)) == sorted([32, 16, 12, 6, 24])
    first = tile[:60].reshape(6, 10)
    assert len(np.unique(first[:4, :8])) == 1
    assert first[0, 7] != first[0, 8]
    assert first[3, 0] != first[4, 0]


def cells(
    group: np.ndarray | None,
    sigma: np.ndarray,
    tau: float,
    levels: tuple[float, ...],
    copies: np.ndarray | None = None,
) -> Cells:
    n = len(sigma)
    index = np.arange(n) % 3
    return Cells(
        layers=("a", "b", "c"),
        layer=index,
        tile=np.arange(n) // 2,
        column=np.arange(n) // 3,
        group=group,
        sigma=sigma,
        tau=tau,
        levels=levels,
        copies=np.ones(n, dtype=np.int64) if copies is None else copies,
        tile_size=(64, 64),
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), tau=st.floats(0.01, 3), grouped=st.booleans())
def test_costs_are_those_of_the_dense_covariance(seed: int, tau: float, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    n, levels = 12, (0.5, 1.0, 1.7)
    sigma = rng.uniform(0.05, 0.8, n)
    group = rng.integers(0, 4, n) if grouped else None
    found = cells(group, sigma, tau if grouped else 0.0, levels)
    delta = rng.standard_normal(n)
    chosen = rng.random(n) < 0.5
    chosen[0] = True
    for k, f in enumerate(levels):
        covariance = np.diag((sigma * f) ** 2)
        if group is not None:
            covariance += tau**2 * (group[:, None] == group[None])
        inverse = np.linalg.inv(covariance)
        assert found.cost(delta)[k] == pytest.approx(math.sqrt(delta @ inverse @ delta), rel=1e-8)
        some = chosen.astype(float)
        assert found.common(chosen, "").costs[k] == pytest.approx(
            math.sqrt(some @ inverse @ some), rel=1e-8
        )
        for size in (1, 3):
            picked = rng.permutation(n) < size
            signs = np.where(picked, rng.choice([-1.0, 1.0], n) * rng.uniform(0, 1, n), 0)
            assert found.some(size).costs[k] >= math.sqrt(signs @ inverse @ signs) * (1 - 1e-9)
    for shift, index in ((found.shifts()[-3], found.tile), (found.shifts()[-2], found.column)):
        for number in np.unique(index):
            one = found.common(index == number, "")
            assert all(a >= b * (1 - 1e-9) for a, b in zip(shift.costs, one.costs, strict=True))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), tau=st.floats(0.01, 3), grouped=st.booleans())
def test_costs_of_divided_cells_are_those_of_all_arrays_one_by_one(
    seed: int, tau: float, grouped: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = 9
    sigma = rng.uniform(0.05, 0.8, n)
    group = np.unique(rng.integers(0, 4, n), return_inverse=True)[1] if grouped else None
    copies = rng.integers(1, 5, n) if group is None else rng.integers(1, 5, 4)[group]
    found = cells(group, sigma, tau if grouped else 0.0, (0.5, 1.7), copies)
    # Every array of every cell is a coordinate of its own; arrays share no gain.
    cell = np.repeat(np.arange(n), copies)
    array = np.concatenate([np.arange(c) for c in copies])
    delta = rng.standard_normal(n)
    chosen = (rng.random(n) < 0.5).astype(float)
    chosen[0] = 1
    for k, f in enumerate((0.5, 1.7)):
        covariance = np.diag((sigma[cell] * f) ** 2)
        if group is not None:
            alike = (group[cell][:, None] == group[cell]) & (array[:, None] == array)
            covariance += tau**2 * alike
        inverse = np.linalg.inv(covariance)
        for shift, cost in (
            (delta, found.cost(delta)),
            (chosen, found.common(chosen > 0, "").costs),
        ):
            whole = shift[cell]
            assert cost[k] == pytest.approx(math.sqrt(whole @ inverse @ whole), rel=1e-8)


def test_a_tile_drifts_by_about_tau_whatever_its_size() -> None:
    for n in (10, 1000, 100_000):
        one = cells(np.zeros(n, dtype=np.int64), np.full(n, 0.3), 0.1, (1.0,))
        (cost,) = one.common(np.ones(n, dtype=bool), "").costs
        assert 1 / cost == pytest.approx(math.sqrt(0.1**2 + 0.3**2 / n))
    alone = cells(None, np.full(100_000, 0.3), 0.0, (1.0,))
    assert 1 / alone.common(np.ones(100_000, dtype=bool), "").costs[0] < 0.001


def net() -> nn.Module:
    model = filled(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double())
    return analogize(model, Hardware(device="lognormal:0.3"))


def draws(law: Law, n: int = 6000, deployment: Deployment | None = None) -> np.ndarray:
    parameters = {k: p.detach() for k, p in analog_parameters(net()).items()}
    sampler = Sampler(law, parameters, 7, deployment)
    drawn = sampler(range(n))
    return torch.cat([(drawn[k] / sampler.base[k]).flatten(1) for k in parameters], 1).numpy()


def test_drawn_devices_have_the_covariance_that_shifts_are_costed_by() -> None:
    law = Law(sigma=0.3, per_layer=(("2.*", 0.6),), gain=Gain(group="layer", tau=0.2))
    z = np.log(draws(law))
    sigma = np.concatenate([np.full(24, 0.3), np.full(15, 0.6)])
    layer = np.repeat([0, 1], [24, 15])
    expected = np.diag(sigma**2) + 0.2**2 * (layer[:, None] == layer[None])
    # 39 x 39 entries: 5 standard errors of a sample covariance.
    scale = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / len(z))
    assert (np.abs(np.cov(z.T) - expected) < 5 * scale).all()
    assert (np.abs(z.mean(0)) < 5 * np.sqrt(np.diag(expected) / len(z))).all()


def test_mean_1_has_mean_1_and_median_1_has_not() -> None:
    gain = Gain(group="column", tau=0.3)
    centred = draws(Law(sigma=0.5, convention="mean-1", gain=gain))
    median = draws(Law(sigma=0.5, gain=gain))
    variance = 0.5**2 + 0.3**2
    error = math.sqrt(math.exp(variance) - 1) / math.sqrt(len(centred))
    assert np.abs(centred.mean(0) - 1).max() < 5 * error
    assert median.mean() == pytest.approx(math.exp(variance / 2), rel=0.01)


def test_levels_are_drawn_once_a_device_and_equally_often() -> None:
    z = np.log(draws(Law(sigma=0.4, levels=(0.1, 1.0, 10.0))))
    spread = z.std(1) / 0.4
    which = np.digitize(spread, [0.3, 3.0])
    counts = np.bincount(which, minlength=3)
    assert (np.abs(counts - len(z) / 3) < 5 * math.sqrt(len(z) * 2 / 9)).all()


def test_arrays_average_their_noise_and_a_shift_of_all_costs_more() -> None:
    law = Law(noise="gaussian", sigma=0.4)
    both = draws(law, deployment=Deployment(arrays=4))
    assert both.std() == pytest.approx(0.2, rel=0.02)
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = poll(net(), (x, None), law, n_devices=3).cells
    four = poll(net(), (x, None), law, n_devices=3, deployment=Deployment(arrays=4)).cells
    assert one is not None
    assert four is not None
    assert four.shifts()[-1].costs[0] == pytest.approx(2 * one.shifts()[-1].costs[0])
    assert four.some(3) == one.some(3)


def test_layers_on_several_arrays_have_the_covariance_of_their_averages() -> None:
    law = Law(
        noise="gaussian", sigma=0.3, per_layer=(("2.*", 0.6),), gain=Gain(group="layer", tau=0.2)
    )
    theta = draws(law, deployment=Deployment(layer_arrays=(("2", 4), ("0", 2)))) - 1
    sigma = np.repeat([0.3, 0.6], [24, 15])
    layer, copies = np.repeat([0, 1], [24, 15]), np.repeat([2, 4], [24, 15])
    expected = (np.diag(sigma**2) + 0.2**2 * (layer[:, None] == layer)) / copies
    scale = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / len(theta))
    assert (np.abs(np.cov(theta.T) - expected) < 5 * scale).all()
    assert (np.abs(theta.mean(0)) < 5 * np.sqrt(np.diag(expected) / len(theta))).all()


def test_layers_on_several_arrays_lose_groups_array_by_array() -> None:
    law = Law(sigma=1e-9, ablation=Ablation(group="layer", probability=0.4))
    held = draws(law, deployment=Deployment(layer_arrays=(("0", 3),))).round(6)
    assert (held[:, :24] == held[:, :1]).all()
    assert set(np.unique(held[:, 0]).round(3)) == {0, 0.333, 0.667, 1}
    assert set(np.unique(held[:, 30])) == {0, 1}
    error = 5 * math.sqrt(0.6 * 0.4 / len(held))
    assert abs(held[:, 30].mean() - 0.6) < error
    assert abs(held[:, 0].mean() - 0.6) < error / math.sqrt(3)


@pytest.mark.parametrize("arrays", [1, 3])
def test_devices_on_equally_many_arrays_are_drawn_from_one_row_of_numbers(arrays: int) -> None:
    """The order of a device's numbers is kept, so that certificates of before are found again."""
    gain, ablation = Gain(group="layer", tau=0.2), Ablation(group="column", probability=0.3)
    law = Law(sigma=0.3, levels=(0.5, 1.0, 2.0), gain=gain, ablation=ablation)
    got = draws(law, n=4, deployment=Deployment(arrays=arrays))
    layer = torch.tensor([0] * 24 + [1] * 15)
    first, second = torch.arange(4), 4 + torch.arange(3)  # outputs: weights, then biases
    parts = (first.repeat_interleave(5), first, second.repeat_interleave(4), second)
    column = torch.cat(parts)
    for device in range(4):
        generator = torch.Generator().manual_seed(device_seed(7, device))
        normals = torch.randn(arrays, 39 + 2, generator=generator, dtype=torch.float64)
        level = (0.5, 1.0, 2.0)[int(3 * torch.rand(1, generator=generator, dtype=torch.float64))]
        kept = torch.rand(arrays, 7, generator=generator, dtype=torch.float64) >= 0.3
        noise = 0.3 * level * normals[:, :39] + 0.2 * normals[:, 39:][:, layer]
        wanted = (noise.exp() * kept[:, column]).mean(0)
        assert got[device] == pytest.approx(wanted.numpy(), rel=1e-12)


def test_a_law_that_ties_layers_together_takes_no_division() -> None:
    divided = Deployment(layer_arrays=(("0", 3),))
    with pytest.raises(CertifyError, match='Give group="layer"'):
        draws(Law(sigma=0.3, gain=Gain(group="chip", tau=0.1)), n=2, deployment=divided)
    draws(Law(sigma=0.3, gain=Gain(group="chip", tau=0.1)), n=2, deployment=Deployment(arrays=3))
    with pytest.raises(ConversionError, match="'stem' matches no analog layer; there are 0, 2"):
        draws(Law(sigma=0.3), n=2, deployment=Deployment(layer_arrays=(("stem", 3),)))
    with pytest.raises(CertifyError, match="Divide them first"):
        draws(Law(sigma=0.3), n=2, deployment=Deployment(cells=2))


def test_a_layer_that_there_is_not_and_missing_inputs_are_said() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for text, match in (
        ("layer_arrays=stem=3", "'stem' matches no analog layer"),
        ("cells=2", "at least 2"),
    ):
        with pytest.raises(ConversionError, match=match):
            poll(net(), (x, None), Law(sigma=0.3), n_devices=2, deployment=Deployment.parse(text))


def test_cells_are_divided_once_and_the_votes_say_how() -> None:
    x = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    law = Law(sigma=0.5, per_layer=(("2.*", 0.1),))
    asked = Deployment.parse("none:cells=3")
    model = net()
    votes = poll(model, (x, None), law, n_devices=400, deployment=asked, unlabelled=x)
    counts = dict(votes.layer_arrays)
    assert votes.deployment == "none:cells=3"
    assert counts["0"] > counts["2"]  # the law's spread counts, not that of the model's hardware
    assert votes.cells is not None
    assert 2.5 * votes.cells.n < votes.cells.copies.sum() <= 3 * votes.cells.n
    *_, whole = votes.cells.shifts()
    assert whole.cells == votes.cells.copies.sum() == 24 * counts["0"] + 15 * counts["2"]
    assert whole.what.startswith(f"all {whole.cells:,} cells")
    (said,) = after_deployment(votes)
    assert "fixed before any device was drawn" in said
    by_hand = poll(
        model, (x, None), law, n_devices=400, deployment=Deployment(layer_arrays=votes.layer_arrays)
    )
    assert (by_hand.classes == votes.classes).all()
    one = poll(model, (x, None), law, n_devices=400)
    assert votes.scores().mean() > one.scores().mean() + 5 * votes.scores().std() / 20
    # As other fleets see it: a network on hardware of one sigma.
    plain = poll(model, (x, None), Law(sigma=0.3), n_devices=400, deployment=asked, unlabelled=x)
    fleet = evaluate_fleet(
        model, (x, model(x).argmax(-1)), n_devices=400, deployment=asked, unlabelled=x
    )
    assert fleet.layer_arrays == plain.layer_arrays
    both = math.sqrt(plain.scores().var() + fleet.std**2) / 20
    assert abs(plain.scores().mean() - fleet.mean) < 5 * both


class Regular(nn.Module):
    """Batch norm that was trained under noise, and dropout: a division depends on the state of both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.drop(self.norm(self.a(x)).relu()))


@pytest.mark.parametrize(
    "text", ["none:cells=3", "channel:cells=3,samples=16", "readout:cells=2,samples=16"]
)
@pytest.mark.parametrize("place", ["weights", "arrays", "chip"])
def test_cells_are_divided_as_an_evaluation_divides_them(text: str, place: str) -> None:
    array = None if place == "weights" else Array(rows=16, columns=16)
    hardware = Hardware(device="lognormal:0.4", array=array)
    model = analogize(filled(Regular().double()), hardware)
    x = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.norm.running_mean += 0.3
        model.norm.running_var *= torch.linspace(0.2, 8, 8, dtype=torch.float64)
    mark_noisy_statistics(model)
    model.norm.eval()  # dropout stays in training mode
    if place == "chip":
        program(model, 5)
    asked, y = Deployment.parse(text), torch.zeros(40, dtype=torch.long)
    law = hardware if array else Law.of(hardware)
    votes = poll(model, (x, y), law, n_devices=3, deployment=asked, unlabelled=x)
    fleet = evaluate_fleet(model, (x, y), n_devices=3, deployment=asked, unlabelled=x)
    assert votes.layer_arrays == fleet.layer_arrays != ()


def test_zero_weights_hold_no_cell() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = 0
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = poll(model, (x, None), Law(sigma=0.3), n_devices=3).cells
    assert found is not None
    assert found.n == 39 - 5
