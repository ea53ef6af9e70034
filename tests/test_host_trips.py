"""No hot path waits for a GPU more often as batches, devices, steps or iterations become more.

Without a GPU, on tensors that take its way through the code (`tests.pretend_gpu`); with one, results count too.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ohmloop.certify import Law, certify
from ohmloop.certify._law import Sampler
from ohmloop.crossbar import Hardware, Streams, Wires, solve
from ohmloop.nn import (
    analog_parameters,
    analogize,
    evaluate_fleet,
    predict,
    predict_fleet,
)
from ohmloop.nn._batched import room
from ohmloop.nn._draw import budget_of
from ohmloop.nn._rows import Rows, grouped
from ohmloop.train._noise import Converters, Noise, _either, clip_weights, draw_weights
from tests.pretend_gpu import GPU, Trips, pretend_gpu

LAW = Hardware.model_validate({"device": "lognormal:0.3"})
ONE_OHM = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)
CHECKED = 1  # whether a batched pass is right, once a model
SCORED = 1  # of the nominal weights, and of each chunk of devices


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    return analogize(model.eval(), LAW)


def data(n: int) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 8, 8), torch.zeros(n, dtype=torch.long)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the pretended counts are zeros
@pytest.mark.parametrize(("n_devices", "batch_size"), [(6, 40), (6, 2), (60, 8)])
def test_a_fleet_reads_once_a_chunk_and_uploads_its_data_once(
    monkeypatch: pytest.MonkeyPatch, n_devices: int, batch_size: int
) -> None:
    model = network()
    with pretend_gpu(monkeypatch) as trips:
        evaluate_fleet(model.to(GPU), data(40), n_devices=n_devices, batch_size=batch_size)
    assert trips.count["read"] == SCORED + CHECKED + SCORED
    parameters = len(list(model.parameters())) + len(list(model.buffers()))
    assert trips.count["upload"] == parameters + 2


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_data_beyond_the_budget_go_up_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    with pretend_gpu(monkeypatch) as trips:
        model.to(GPU)
        before = trips.count["upload"]
        x, _ = data(40)
        # Inputs alone would fit, inputs and labels do not.
        evaluate_fleet(model, data(40), n_devices=1, memory_budget=4 * x.nbytes, batch_size=10)
    assert trips.count["upload"] - before > 2 * 4


@pytest.mark.parametrize(("n_devices", "batch_size"), [(5, 40), (5, 2), (50, 8)])
def test_certificates_are_sampled_with_one_reading_a_chunk(
    monkeypatch: pytest.MonkeyPatch, n_devices: int, batch_size: int
) -> None:
    model, (x, _) = network(), data(40)
    law = Law(sigma=0.3, levels=(0.9, 1.0, 1.1))
    with pretend_gpu(monkeypatch) as trips:
        parameters = {n: p.detach() for n, p in analog_parameters(model.to(GPU)).items()}
        draw = Sampler(law, parameters, 0)
        trips.count.clear()
        predict_fleet(model, x, draw, n_devices=n_devices, batch_size=batch_size)
        assert (trips.count["read"], trips.count["upload"]) == (CHECKED + SCORED, 1)
        trips.count.clear()
        predict(model, x)
        assert trips.count["read"] == 1


NOISES = [
    Noise(level=0.3, spread=0.5),
    Noise(level=0.3, distribution="mixture"),
    Noise(level=0.3, distribution="lognormal-mean-1", slope=1.0),
    Noise(level=0.3, tile_drop=0.2, clip=2.0),
    Noise(level=0.3, bits=4),
]


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_a_training_step_under_noise_reads_nothing(
    monkeypatch: pytest.MonkeyPatch, noise: Noise
) -> None:
    model = network().train()
    with pretend_gpu(monkeypatch) as trips:
        model.to(GPU)
        x, y = (part.to(GPU) for part in data(10))
        converters = Converters(noise.bits)
        generator = torch.Generator(GPU)
        trips.count.clear()
        with converters.active(model):
            for _ in range(5):
                weights = draw_weights(model, noise, generator)
                torch.autograd.backward(F.cross_entropy(functional_call(model, weights, (x,)), y))
                clip_weights(model, noise.clip or 3.0)
            assert trips.count["read"] == 0
            converters.learning = False
            model(x)
            model(x)
        # What the first epoch learned is read together.
        assert trips.count["read"] == (1 if noise.bits else 0)
    assert len(converters.ranges) == (6 if noise.bits else 0)


def test_the_wire_solver_looks_at_every_fourth_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    before, converged = (
        [False, True],
        2,
    )  # no bad conductance, finite voltages; Kirchhoff's law after
    found = []
    for looks in (3, 13):
        with pretend_gpu(monkeypatch, [*before, *[False] * looks]) as trips:
            g = torch.empty(12, 12, dtype=torch.float64, device=GPU)
            v = torch.empty(32, 12, dtype=torch.float64, device=GPU)
            solve(g, v, ONE_OHM)
        assert trips.count["read"] == len(before) + looks + converged
        found.append(trips.count["operation"])
    in_an_iteration = 20  # at least: two solutions along lines, three products
    assert found[1] - found[0] > 10 * 4 * in_an_iteration


def test_seeds_of_many_chips_are_read_together() -> None:
    streams = Streams([torch.Generator().manual_seed(k) for k in range(9)])
    expected = [
        int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(k)))
        for k in range(9)
    ]
    assert [g.initial_seed() for g in streams.spawn().generators] == expected


def test_the_counter_counts_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(trips: Trips, act: object) -> dict[str, int]:
        trips.count.clear()
        act()  # type: ignore[operator]  # a function
        return {k: n for k, n in trips.count.items() if n and k != "operation"}

    with pretend_gpu(monkeypatch) as trips:
        there, here = torch.ones(3, device=GPU), torch.ones(3)
        assert counted(trips, lambda: bool((there > 0).all())) == {"read": 1}
        assert counted(trips, lambda: there.sum().item()) == {"read": 1}
        assert counted(trips, lambda: there.cpu().numpy()) == {"read": 1}
        assert counted(trips, lambda: here.to(GPU)) == {"upload": 1}
        assert counted(trips, lambda: here.sum().item()) == {}
        assert counted(trips, lambda: there + 1) == {}


@pytest.mark.parametrize("device_major", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.Conv2d(4, 8, (3, 2), stride=2, dilation=(1, 2), padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv1d(4, 6, 3, padding=2, stride=2),
    ],
    ids=str,
)
def test_one_grouped_convolution_is_each_device_by_itself(
    module: nn.Conv2d, shared: bool, device_major: bool
) -> None:
    rows = Rows(3, 5, device_major)
    generator = torch.Generator().manual_seed(0)
    shape = (4, 7) if isinstance(module, nn.Conv1d) else (4, 7, 8)
    weight = torch.randn(3, *module.weight.shape, generator=generator)
    bias = None if module.bias is None else torch.randn(3, len(module.bias), generator=generator)
    each = torch.randn(1 if shared else 3, 5, *shape, generator=generator).expand(3, -1, *shape)
    expected = torch.stack(
        [
            module._conv_forward(each[k], weight[k], None if bias is None else bias[k])
            for k in range(3)
        ]
    )
    given = each[0] if shared else rows.merge(each)
    found = rows.split(grouped(module, weight, bias, given, rows))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_log", [True, False])
def test_a_mixture_that_only_the_device_knows_is_the_one_that_was_drawn(is_log: bool) -> None:
    z = torch.randn(50, generator=torch.Generator().manual_seed(0))
    expected = _either(z.clone(), 0.3, is_log)
    level = torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(_either(z.clone(), level, torch.tensor(is_log)), expected)


def test_a_budget_that_is_asked_for_is_kept_and_a_cpu_has_its_own() -> None:
    cpu = torch.device("cpu")
    assert budget_of(cpu) == 512 * 2**20
    assert budget_of(cpu, 1000) == 1000


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_room_for_rounding_follows_the_precision_in_force() -> None:
    out, before = torch.zeros(1), torch.get_float32_matmul_precision()
    eps = torch.finfo(torch.float32).eps
    try:
        assert room(out) == 100 * eps
        assert room(out.half()) == 100 * torch.finfo(torch.float16).eps
        assert room(torch.zeros(1, device=GPU)) == 1000 * eps
        torch.set_float32_matmul_precision("high")
        assert room(out) == 16 * 2**-10
        assert room(out.double()) == 100 * torch.finfo(torch.float64).eps
        torch.set_float32_matmul_precision("medium")
        assert room(out) == 16 * 2**-7
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_is_budgeted_by_what_is_free() -> None:
    free = torch.cuda.mem_get_info()[0]
    assert 0.2 * free < budget_of(torch.device("cuda")) <= free


@pytest.mark.gpu
@needs_gpu
def test_converters_and_clipping_on_a_gpu_are_those_of_a_cpu() -> None:
    out = []
    for place in ("cpu", "cuda"):
        model, (x, _) = network().to(place), data(9)
        converters = Converters(6)
        with converters.active(model), torch.no_grad():
            model(x.to(place))
            converters.learning = False
            model(x.to(place))
        clip_weights(model, 1.0)
        out.append((converters.ranges, [p.detach().cpu() for p in model.parameters()]))
    assert out[0][0] == pytest.approx(out[1][0], rel=1e-2)
    for here, there in zip(out[0][1], out[1][1], strict=True):
        assert torch.allclose(here, there, rtol=1e-5)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_runs_all_devices_in_one_batch_in_tf32_too() -> None:
    from ohmloop.nn._batched import FleetRunner

    model, (x, _) = network().cuda(), data(9)
    stacked = {n: torch.stack([p, 1.1 * p]) for n, p in analog_parameters(model).items()}
    run = FleetRunner(model, frozenset(stacked))
    with torch.no_grad():
        out = run(stacked, x.cuda())
        one = functional_call(model, {n: w[1] for n, w in stacked.items()}, (x.cuda(),))
    assert run._batched is True
    assert torch.allclose(out[1], one, rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
@needs_gpu
def test_chunks_of_a_gpu_change_no_score_and_no_class() -> None:
    model, split = network().cuda(), data(50)
    whole = evaluate_fleet(model, split, n_devices=9)
    small = evaluate_fleet(model, split, n_devices=9, memory_budget=200_000)
    assert np.abs(whole.scores - small.scores).max() <= 1 / 50
    # Classes near a border may fall to the other side, rarely.
    assert certify(model, split, n_devices=100)[0].law is not None
