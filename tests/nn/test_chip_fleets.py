"""Fleets of chips: the same numbers whatever is computed beside them."""

import numpy as np
import pytest
import torch
from tests.nn.forms import FROZEN, NOISY
from tests.nn.networks import NETWORKS, network
from torch import nn

from ohmloop.crossbar import Hardware, Streams
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    Deployment,
    analogize,
    evaluate_fleet,
    evaluate_fleets,
    evaluate_measure,
    program,
)
from ohmloop.nn._chips import ChipRunner
from ohmloop.nn._layer import state_of
from ohmloop.tasks import RSquared


@pytest.mark.parametrize("hardware", [FROZEN, NOISY], ids=["frozen", "noisy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_many_chips_at_once_are_the_chips_one_by_one(name: str, hardware: Hardware) -> None:
    model, x, together = network(name)
    analogize(model, hardware)
    with torch.no_grad():
        runner = ChipRunner(model, Deployment(), None)
        assert runner.fits_together(None, x) is together
        alone = []
        for k in range(3):
            runner.program(None, [k], seed=5)
            alone.append(torch.cat([runner(part)[0] for part in x.split(4)]))
        if together:
            runner.program(None, range(3), seed=5)
            got = torch.cat([runner(part) for part in x.split(4)], 1)
            difference = (got - torch.stack(alone)).abs()
            # A sum of another order may fall to the other side of a converter's step, rarely.
            assert float((difference > 1e-5).double().mean()) < 0.02
        runner.program(None, [1], seed=5)
        again = torch.cat([runner(part)[0] for part in x.split(4)])
    assert torch.equal(again, alone[1])
    assert not torch.allclose(alone[0], alone[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_do_not_depend_on_chunks(name: str) -> None:
    model, x, _ = network(name)
    y = model(x).detach()
    analogize(model, NOISY)
    common = {"n_devices": 7, "seed": 3, "metric": RSquared(), "batch_size": 4}
    whole = evaluate_fleet(model, (x, y), **common)
    small = evaluate_fleet(model, (x, y), memory_budget=1, **common)
    middle = evaluate_fleet(model, (x, y), memory_budget=60_000, **common)
    if name in ("mlp", "residual", "text"):  # the others look at their batch
        assert whole.digital == pytest.approx(1)
    assert whole.scores == pytest.approx(small.scores, abs=2e-3)
    assert middle.scores == pytest.approx(small.scores, abs=2e-3)
    assert len(set(whole.scores.tolist())) == 7
    more = evaluate_fleet(model, (x, y), **{**common, "n_devices": 9})
    assert more.scores[:7] == pytest.approx(whole.scores, abs=2e-3)
    other = evaluate_fleet(model, (x, y), **{**common, "seed": 4})
    assert not np.allclose(other.scores, whole.scores)


def test_frozen_chips_give_the_same_scores_to_the_bit_whatever_the_chunk() -> None:
    model, x, _ = network("mlp")
    y = model(x).argmax(-1)
    analogize(model, FROZEN)
    whole = evaluate_fleet(model, (x, y), n_devices=11, metric=None)
    small = evaluate_fleet(model, (x, y), n_devices=11, memory_budget=1)
    assert np.array_equal(whole.scores, small.scores)


def test_fleets_share_random_numbers_between_hardwares() -> None:
    model, x, _ = network("mlp")
    y = model(x).argmax(-1)
    analogize(model, FROZEN)
    hard = [Hardware(device=f"lognormal:{s}", array=FROZEN.array) for s in (0.1, 0.8)]
    both = evaluate_fleets(model, (x, y), hard, n_devices=6, seed=1)
    for h, got in zip(hard, both, strict=True):
        alone = evaluate_fleet(model, (x, y), n_devices=6, seed=1, hardware=h)
        assert np.array_equal(alone.scores, got.scores)


def test_a_measure_sees_the_chips_that_a_fleet_scores() -> None:
    model, x, _ = network("residual")
    y = model(x).argmax(-1)
    analogize(model, FROZEN)
    fleet = evaluate_fleet(model, (x, y), n_devices=4, seed=2)

    def measure(one: nn.Module) -> float:
        return float((one(x).argmax(-1) == y).float().mean())

    done = evaluate_measure(model, measure, [FROZEN], name="accuracy", n_devices=4, seed=2)[0]
    assert done.scores == pytest.approx(fleet.scores)
    assert done.digital == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "channel:samples=6",
        "layer:samples=6",
        "readout:samples=6",
        "batch-norm:samples=6",
        "none:arrays=4",
        "none:mean_gain=true",
        "channel:samples=6,adapter_rank=1,adapter_steps=3",
    ],
)
def test_deployments_work_on_arrays_in_chunks_or_not(text: str) -> None:
    model, x, _ = network("residual")
    y = model(x).detach()
    analogize(model, FROZEN)
    common = {
        "n_devices": 4,
        "metric": RSquared(),
        "deployment": Deployment.parse(text),
        "unlabelled": x,
    }
    whole = evaluate_fleet(model, (x, y), **common)
    small = evaluate_fleet(model, (x, y), memory_budget=1, **common)
    assert whole.scores == pytest.approx(small.scores, rel=1e-3, abs=1e-3)

    def measure(one: nn.Module) -> float:
        residual = (one(x) - y).square().sum(0)
        return float(1 - residual.sum() / (y - y.mean(0)).square().sum())

    done = evaluate_measure(
        model,
        measure,
        [FROZEN],
        name="R2",
        n_devices=4,
        deployment=Deployment.parse(text),
        unlabelled=x,
    )[0]
    assert done.scores.shape == (4,)
    assert all(state_of(m).chip is None for m in (model.stem, model.head))


def test_streams_of_a_fleet_are_those_of_single_chips() -> None:
    generators = [torch.Generator().manual_seed(k) for k in (3, 4)]
    both = Streams(generators).normal((5,))
    one = Streams([torch.Generator().manual_seed(4)]).normal((5,))
    assert torch.equal(both[1:], one)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NETWORKS)
def test_chips_run_on_cuda(name: str) -> None:
    model, x, _ = network(name)
    y = model(x).detach()
    analogize(model.cuda(), NOISY)
    common = {"n_devices": 5, "metric": RSquared(), "batch_size": 4}
    whole = evaluate_fleet(model, (x, y), **common)
    small = evaluate_fleet(model, (x, y), memory_budget=1, **common)
    assert whole.scores == pytest.approx(small.scores, abs=1e-2)
    program(model, 0)
    assert model(x.cuda()).is_cuda
    moved = model.cpu()
    assert bool(torch.isfinite(moved(x)).all())


class Attentive(nn.Module):
    """Attention between linear layers: the library computes its out_proj without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.attention(x, x, x)[0])


@pytest.mark.parametrize("text", ["channel:samples=16", "layer:samples=16", "readout:samples=16"])
def test_corrections_reach_the_output_projection_of_attention(text: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model, x = Attentive(), torch.randn(32, 5, 8)
    y = model(x).detach()
    analogize(model, FROZEN)
    common = {"n_devices": 4, "metric": RSquared(), "unlabelled": x}
    plain = evaluate_fleet(model, (x, y), **common)
    common["deployment"] = Deployment.parse(text)
    whole = evaluate_fleet(model, (x, y), **common)
    small = evaluate_fleet(model, (x, y), memory_budget=1, **common)
    assert whole.scores == pytest.approx(small.scores, abs=1e-4)
    assert whole.mean > plain.mean


def test_a_mapping_of_hardware_is_refused_in_words_where_layers_are_on_arrays() -> None:
    model, x, _ = network("mlp")
    analogize(model, FROZEN)
    with pytest.raises(ConversionError, match="one Hardware for all layers"):
        evaluate_fleets(model, (x, model(x).argmax(-1)), [{"0.weight": NOISY}], n_devices=1)
