"""Groups of cells and what a shift costs, against dense matrices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ohmloop.certify import Cells, Gain, Law, Sampler, poll
from ohmloop.certify._groups import coordinate_groups
from ohmloop.crossbar import Hardware
from ohmloop.nn import Deployment, analog_parameters, analogize
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
    group: np.ndarray | None, sigma: np.ndarray, tau: float, levels: tuple[float, ...]
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
        copies=1,
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


def test_zero_weights_hold_no_cell() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = 0
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = poll(model, (x, None), Law(sigma=0.3), n_devices=3).cells
    assert found is not None
    assert found.n == 39 - 5
