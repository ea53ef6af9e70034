"""Deployments: what they promise in closed form, on one device and on many at once."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    Deployment,
    analogize,
    check_deployment,
    digitize,
    draw_fleet,
    evaluate_fleet,
    evaluate_fleets,
    evaluate_measure,
    mark_noisy_statistics,
    matching,
    nominal_batch_norm,
    score,
    takes_batch_statistics,
)
from ohmloop.nn._batched import FleetRunner
from ohmloop.nn._deploy import MAX_READOUT, RIDGE, moments, readout, sites
from ohmloop.nn._draw import bytes_per_device
from ohmloop.tasks import Accuracy, RSquared

SIGMA = 0.5
CALIBRATIONS = ("channel", "layer", "norm", "readout", "batch-norm")


def network(kind: str = "mlp") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers: dict[str, list[nn.Module]] = {
            "mlp": [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)],
            "bn": [nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)],
            "conv": [
                nn.Unflatten(1, (1, 6)),
                nn.Conv1d(1, 5, 3),
                nn.BatchNorm1d(5),
                nn.Tanh(),
                nn.Flatten(),
                nn.Linear(20, 4),
            ],
            "ln": [nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 4)],
        }
        model = nn.Sequential(*layers[kind])
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return analogize(model.eval(), Hardware(device=f"lognormal:{SIGMA}"))


def inputs(n: int = 80, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def labelled(model: nn.Module, n: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    x = inputs(n, 1)
    return x, model(x).argmax(-1)


LACKING = {"batch-norm": ("mlp", "ln"), "norm": ("mlp", "bn", "conv")}
"""Networks that have nothing for a calibration to correct."""


@pytest.mark.parametrize("kind", ["mlp", "conv", "ln"])
@pytest.mark.parametrize("calibration", ["channel", "layer", "norm", "readout"])
def test_a_perfect_device_is_left_as_it_is(kind: str, calibration: str) -> None:
    if kind in LACKING.get(calibration, ()):
        pytest.skip("the network has nothing to correct")
    model = network(kind)
    x, y = inputs(40, 5), model(inputs(40, 5)).detach()
    # Batch norm takes the nominal weights' statistics on the unlabelled inputs: the reference is that network.
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d):
            m.reset_running_stats()
            m.momentum = None
            m.train()
            model(inputs(64))
            m.eval()
            y = model(x).detach()
    result = evaluate_fleet(
        model,
        (x, y),
        n_devices=2,
        hardware=Hardware(device="lognormal:0"),
        metric=RSquared(),
        deployment=Deployment(calibration=calibration),
        unlabelled=inputs(64),
    )
    assert result.scores == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("kind", ["mlp", "bn", "conv", "ln"])
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_many_devices_at_once_equal_one_at_a_time(kind: str, calibration: str) -> None:
    if kind in LACKING.get(calibration, ()):
        pytest.skip("the network has nothing to correct")
    model = network(kind)
    names = frozenset(draw_fleet(model, [0], 0))
    stacked = draw_fleet(model, range(3), seed=7)
    deployment = Deployment(calibration=calibration)
    with torch.no_grad():
        together = FleetRunner(model, names, deployment)
        found = together(stacked, inputs(9, 2), together.calibrate(stacked, inputs()))
        assert together._batched
        for k in range(3):
            own = {name: w[k : k + 1] for name, w in stacked.items()}
            alone = FleetRunner(model, names, deployment)
            one = alone(own, inputs(9, 2), alone.calibrate(own, inputs()))
            assert torch.allclose(one[0], found[k], atol=1e-4)


def test_channel_gives_the_nominal_mean_and_deviation_on_the_samples() -> None:
    model = network()
    names = frozenset(draw_fleet(model, [0], 0))
    stacked = draw_fleet(model, range(4), seed=1)
    with torch.no_grad():
        run = FleetRunner(model, names, Deployment(calibration="channel"))
        out = run(stacked, inputs(64), run.calibrate(stacked, inputs(64)))
        mean, variance = moments(out, -1)
        wanted_mean, wanted = moments(model(inputs(64)).unsqueeze(0), -1)
    assert torch.allclose(mean, wanted_mean.expand_as(mean), atol=1e-4)
    assert torch.allclose(variance, wanted.expand_as(variance), rtol=1e-3)


@pytest.mark.parametrize(("samples", "outputs"), [(50, 3), (12, 12), (12, 30)])
def test_readout_is_the_ridge_solution(samples: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    out = torch.randn(2, samples, outputs, generator=generator, dtype=torch.float64)
    target = torch.randn(samples, outputs, generator=generator, dtype=torch.float64)
    matrix, centre, mean = readout(out, target)
    for k in range(2):
        y = (out[k] - centre[k]).numpy()
        t = (target - mean).numpy()
        weight = RIDGE * np.trace(y.T @ y) / outputs
        # Ridge regression as least squares over rows added for the penalty: an independent solution.
        a = np.vstack([y, np.sqrt(weight) * np.eye(outputs)])
        b = np.vstack([t, np.sqrt(weight) * np.eye(outputs)])
        assert matrix[k].numpy() == pytest.approx(np.linalg.lstsq(a, b, rcond=None)[0], abs=1e-9)


def test_averaging_arrays_divides_the_variance() -> None:
    model = nn.Linear(400, 300, bias=False)
    nn.init.ones_(model.weight)
    analogize(model, Hardware(device="lognormal:0.3"))
    variance = np.exp(0.09) * (np.exp(0.09) - 1)
    x = torch.eye(400)[:50]
    for arrays in (1, 4):
        seen: list[float] = []

        def spread(m: nn.Module, seen: list[float] = seen) -> float:
            seen.append(float(m(x).var()))
            return 0.0

        evaluate_measure(
            model,
            spread,
            [Hardware(device="lognormal:0.3")],
            name="spread",
            n_devices=3,
            deployment=Deployment(arrays=arrays),
        )
        assert np.mean(seen[1:]) == pytest.approx(variance / arrays, rel=0.05)
    assert float(model.weight.detach().min()) == 1  # The nominal weights are back.


def test_mean_gain_is_the_mean_one_convention() -> None:
    model = network()
    split = labelled(model)
    by_gain = evaluate_fleet(model, split, n_devices=5, deployment=Deployment(mean_gain=True))
    by_law = evaluate_fleet(
        model,
        split,
        n_devices=5,
        hardware=Hardware(device=f"lognormal:{SIGMA}", convention="mean-1"),
    )
    assert np.array_equal(by_gain.scores, by_law.scores)


@pytest.mark.parametrize("text", ["none", "channel", "readout:samples=20", "none:arrays=2"])
def test_scoring_by_doing_agrees_with_scoring_outputs(text: str) -> None:
    model = network("bn")
    split = labelled(model)
    deployment = Deployment.parse(text)
    hardwares = [Hardware(device="lognormal:0.3"), Hardware(device="nanowire-30")]
    common = {"n_devices": 4, "seed": 3, "deployment": deployment, "unlabelled": inputs()}
    by_outputs = evaluate_fleets(model, split, hardwares, **common)
    by_doing = evaluate_measure(
        model,
        lambda m: float((m(split[0]).argmax(-1) == split[1]).float().mean()),
        hardwares,
        name="share",
        **common,
    )
    for a, b in zip(by_outputs, by_doing, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=0.026)  # Ties may fall otherwise: 2 of 80.
        assert a.deployment == b.deployment == str(deployment)


@pytest.mark.slow
def test_calibration_and_adapters_bring_devices_nearer_to_the_network() -> None:
    model = network()
    x = inputs(200, 9)
    target = (x, model(x).detach())
    scores = {
        text: evaluate_fleet(
            model,
            target,
            n_devices=8,
            metric=RSquared(),
            deployment=Deployment.parse(text),
            unlabelled=inputs(64),
        ).mean
        for text in ("none", "layer", "channel", "readout", "none:adapter_rank=2,adapter_steps=100")
    }
    assert scores["none"] < scores["layer"] < scores["readout"]
    assert scores["none"] < scores["channel"] < scores["readout"]
    assert scores["none"] < scores["none:adapter_rank=2,adapter_steps=100"]


@pytest.mark.parametrize("calibration", ["channel", "readout", "batch-norm"])
def test_result_does_not_depend_on_the_chunks_and_leaves_the_model(calibration: str) -> None:
    model = network("bn")
    split = labelled(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    args = {"n_devices": 7, "deployment": Deployment(calibration=calibration)}
    whole = evaluate_fleet(model, split, unlabelled=inputs(), **args)
    small = evaluate_fleet(
        model, split, unlabelled=inputs(), memory_budget=20_000, batch_size=11, **args
    )
    assert whole.scores == pytest.approx(small.scores, abs=0.013)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all("forward" not in m.__dict__ for m in model.modules())
    assert score(model, split, Accuracy()) == whole.digital


class Reader(nn.Module):
    """Takes numbers of lines and reads them out, as no vectorised pass can."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = inputs(20, 4)
        self.head = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.head(self.lines[int(k)]) for k in x.tolist()])


def test_networks_that_look_at_values_run_one_device_at_a_time() -> None:
    model = analogize(Reader().eval(), Hardware(device="lognormal:0.5"))
    x = torch.arange(20)
    y = model(x).argmax(-1)
    found = evaluate_fleet(model, (x, y), n_devices=4, batch_size=7)
    direct = evaluate_fleet(model.head, (model.lines, y), n_devices=4)
    assert np.array_equal(found.scores, direct.scores)


def test_what_cannot_be_done_is_said() -> None:
    model = network()
    split = labelled(model)
    with pytest.raises(ConversionError, match="has none"):
        evaluate_fleet(
            model, split, deployment=Deployment(calibration="batch-norm"), unlabelled=inputs()
        )
    with pytest.raises(ConversionError, match="64 unlabelled inputs; received 10"):
        evaluate_fleet(
            model, split, deployment=Deployment(calibration="channel"), unlabelled=inputs(10)
        )
    with pytest.raises(ConversionError, match="calibration"):
        Deployment.parse("chanel")
    with pytest.raises(ConversionError, match="key=value"):
        Deployment.parse("channel:32")


@pytest.mark.parametrize(
    "text",
    ["none", "channel", "readout:samples=32", "none:mean_gain=true,arrays=3", "norm:samples=8"],
)
def test_text_of_a_deployment_reads_back(text: str) -> None:
    assert str(Deployment.parse(text)) == text
    assert Deployment.parse(str(Deployment.parse(text))) == Deployment.parse(text)


class Words(nn.Module):
    """Logits at every position of a text, as language models give them."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.table = nn.Embedding(7, 6)
            self.middle = nn.Linear(6, 6)
            self.norm = nn.LayerNorm(6)
            self.head = nn.Linear(6, 7, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.middle(self.table(x)).tanh()))


def texts(n: int = 40) -> torch.Tensor:
    return torch.randint(0, 7, (n, 5), generator=torch.Generator().manual_seed(2))


def test_readout_takes_positions_of_texts_as_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    out = torch.randn(2, 9, 4, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(9, 4, 3, generator=generator, dtype=torch.float64)
    by_text = readout(out, target)
    by_position = readout(out.reshape(2, 36, 3), target.reshape(36, 3))
    assert all(torch.equal(a, b) for a, b in zip(by_text, by_position, strict=True))

    model = analogize(Words().eval(), Hardware(device="lognormal:0.4"))
    x = texts()
    common = {
        "n_devices": 3,
        "deployment": Deployment.parse("readout:samples=40"),
        "unlabelled": x,
    }
    target = model(x).detach()

    def error(m: nn.Module) -> float:
        return float((m(x) - target).square().mean())

    alone = evaluate_measure(
        model, error, [Hardware(device="lognormal:0.4")], name="error", n_devices=3
    )[0]
    helped = evaluate_measure(
        model, error, [Hardware(device="lognormal:0.4")], name="error", **common
    )[0]
    assert helped.mean < alone.mean
    spread = float((target - target.mean(0)).square().mean())
    together = evaluate_fleet(model, (x, target), metric=RSquared(), **common)
    assert 1 - helped.scores / spread == pytest.approx(together.scores, abs=1e-4)


def test_readout_of_too_many_outputs_is_refused() -> None:
    model = analogize(nn.Linear(2, MAX_READOUT + 1).eval(), Hardware(device="lognormal:0.4"))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    deployment = Deployment.parse("readout:samples=4")
    with pytest.raises(ConversionError, match=r"readout.*Use the deployment .channel."):
        check_deployment(model, deployment, frozenset({"weight", "bias"}), x)
    with pytest.raises(ConversionError, match="Use the deployment"):
        evaluate_fleet(model, (x, x[:, 0].long()), n_devices=2, deployment=deployment, unlabelled=x)


def test_a_head_tied_to_an_embedding_is_corrected() -> None:
    model = analogize(Words(tied=True).eval(), Hardware(device="lognormal:0.4"))
    names = frozenset(draw_fleet(model, [0], 0))
    assert "head.weight" not in names
    assert list(sites(model, "channel", names)) == ["middle", "head"]
    stacked = draw_fleet(model, range(2), seed=1)
    x = texts(64)
    with torch.no_grad():
        run = FleetRunner(model, names, Deployment(calibration="channel"))
        mean, _ = moments(run(stacked, x, run.calibrate(stacked, x)), -1)
        wanted, _ = moments(model(x).unsqueeze(0), -1)
    assert torch.allclose(mean, wanted.expand_as(mean), atol=1e-4)


def test_adapters_leave_no_gradients_in_the_model() -> None:
    model = network("bn")
    evaluate_fleet(
        model,
        labelled(model),
        n_devices=2,
        deployment=Deployment.parse("none:adapter_rank=1,adapter_steps=2"),
        unlabelled=inputs(),
    )
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("text", ["none", "channel"])
def test_forward_of_an_instance_is_respected_and_kept(text: str) -> None:
    model, plain = network(), network()
    inner = model[0].forward

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return 2 * inner(x)

    model[0].forward = doubled
    plain.insert(1, Double())
    split = labelled(plain)
    args = {"n_devices": 3, "deployment": Deployment.parse(text), "unlabelled": inputs()}
    found = evaluate_fleet(model, split, **args)
    assert model[0].__dict__["forward"] is doubled
    assert found.digital == 1
    if text == "none":
        analogize(digitize(plain), Hardware(device=f"lognormal:{SIGMA}"))
        assert np.array_equal(found.scores, evaluate_fleet(plain, split, **args).scores)


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_memory_of_several_arrays_is_counted() -> None:
    model = network()
    one, many = bytes_per_device(model), bytes_per_device(model, Deployment(arrays=8))
    scalars = sum(p.numel() for p in model.parameters())
    # Noise and factors in single precision for each array, the weights once.
    assert one == scalars * (2 * 4 + 4)
    assert many == scalars * (8 * 2 * 4 + 4)


def test_statistics_of_a_network_as_it_comes_are_its_own() -> None:
    """A few inputs cannot stand for what batch norm learned; at no noise a correction must change nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model.train()
    for _ in range(200):
        model(3 * torch.randn(64, 5) + 1)  # pretraining, on other data than is shown here
    model = analogize(model.eval(), Hardware(device="lognormal:0.000001"))
    x = torch.randn(64, 5)
    y = model(x).argmax(1)
    shown = Deployment(calibration="channel")
    with nominal_batch_norm(model, x, 64):
        assert torch.equal(model(x).argmax(1), y)
    own = evaluate_fleet(model, (x, y), n_devices=3, deployment=shown, unlabelled=x)
    assert own.scores.tolist() == [1.0, 1.0, 1.0]
    mark_noisy_statistics(model)
    anew = evaluate_fleet(model, (x, y), n_devices=3, deployment=shown, unlabelled=x)
    with nominal_batch_norm(model, x, 64):
        expected = float((model(x).argmax(1) == y).double().mean())
    assert anew.scores.tolist() == pytest.approx([expected] * 3)
    assert expected < 1.0


class Frozen(nn.Sequential):
    """Keeps its second module, a batch norm, in eval mode."""

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self[1].eval()
        return self


@pytest.mark.parametrize("kind", ["mlp", "frozen", "constant"])
def test_a_step_under_matching_is_a_device_corrected_by_channel(kind: str) -> None:
    """Training sees what the calibration leaves of a device, with gradients, also where a channel is constant
    (its root has no derivative) and where batch norm is frozen."""
    model = network("bn" if kind == "frozen" else "mlp")
    if kind == "frozen":
        model = analogize(Frozen(*digitize(model)), Hardware(device=f"lognormal:{SIGMA}"))
    if kind == "constant":
        with torch.no_grad():
            model[0].weight[3] = 0.0  # type: ignore[index,union-attr]
            model[0].bias[3] = 2.0  # type: ignore[index,union-attr]
    names = frozenset(draw_fleet(model, [0], 0))
    stacked = draw_fleet(model, [0], seed=2)
    x = inputs(40)
    with torch.no_grad():
        run = FleetRunner(model.eval(), names, Deployment(calibration="channel"))
        expected = run(stacked, x, run.calibrate(stacked, x))[0]
    model.train()
    assert not takes_batch_statistics(model)
    weights = {n: w[0].requires_grad_() for n, w in stacked.items()}
    with matching(model, names, x):
        out = functional_call(model, weights, (x,))
    assert torch.allclose(out, expected, atol=1e-4)
    out.square().sum().backward()
    for p in (*weights.values(), *(model.get_parameter(n) for n in names)):
        assert p.grad is not None
        assert p.grad.isfinite().all()


def test_batch_norm_that_takes_statistics_of_the_batch_matches_by_itself() -> None:
    model = network("bn")
    assert takes_batch_statistics(model)
    assert not model.training
    assert not takes_batch_statistics(network("ln"))
    model.train()
    weights = {n: w[0] for n, w in draw_fleet(model, [0], seed=2).items()}
    with matching(model, frozenset(weights), inputs()):
        matched = functional_call(model, weights, (inputs(),))
    assert torch.equal(matched, functional_call(model, weights, (inputs(),)))


def test_frozen_batch_norm_gathers_nothing_and_is_left_alone() -> None:
    """Layers that ``train()`` leaves in eval mode were not trained with other statistics than their own."""
    model = Frozen(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3), nn.BatchNorm1d(3)
    ).eval()
    mark_noisy_statistics(model)
    assert not model.training
    with nominal_batch_norm(model, 3 * torch.randn(64, 5) + 1, 64):
        assert model[1].running_mean.abs().max() == 0 < model[4].running_mean.abs().max()  # type: ignore[union-attr]
    assert model[4].running_mean.abs().max() == 0  # type: ignore[union-attr]
