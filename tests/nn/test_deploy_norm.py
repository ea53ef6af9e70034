"""The calibration "norm": what stands behind layer norms is the nominal network's, on any device."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import Deployment, Where, analogize, draw_fleet, evaluate_measure
from ohmloop.nn._attention import calling_parts
from ohmloop.nn._batched import FleetRunner
from ohmloop.nn._deploy import moments
from ohmloop.tasks._images._vit import VisionTransformer

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
LAW = Hardware(device="lognormal:0.4")
GAINS = (1.3, 0.7, 1.0)


class Twice(nn.Module):
    """Calls one norm twice in a pass, with other statistics each time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).tanh()
        return self.head(self.norm(self.second(x) + x))


class ChannelsFirst(nn.LayerNorm):
    """Layer norm over the channels of ``B x C x H x W``, as ConvNeXt has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attends(nn.Module):
    """Gives what the output projection of its attention gives."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = x.unsqueeze(1)
        return self.attention(words, words, words, need_weights=False)[0].squeeze(1)


def encoder(*, norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        6, 2, 12, dropout=0.0, batch_first=True, norm_first=norm_first
    )
    return nn.Sequential(nn.Unflatten(1, (1, 6)), layer, nn.Flatten(), nn.Linear(6, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(
        nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 12), nn.LayerNorm(12)
    ),
    "rms": lambda: nn.Sequential(nn.Linear(6, 16), nn.RMSNorm(16), nn.Tanh(), nn.Linear(16, 3)),
    "groups": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 6, 3),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 3),
    ),
    "pictures": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 8, 1),
        ChannelsFirst(8),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    ),
    "twice": Twice,
    "vit": lambda: VisionTransformer((1, 8, 8), 5),
}


def built(make: Callable[[], nn.Module], where: Where = None) -> nn.Module:
    """Return a network in eval mode whose norms have gains and offsets as if they had been trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make().eval()
        for module in model.modules():
            if isinstance(module, NORMS):
                module.weight.data.uniform_(0.5, 2)
                if getattr(module, "bias", None) is not None:
                    module.bias.data.normal_()  # type: ignore[union-attr,operator]
    return analogize(model, LAW, where=where)


def inputs(name: str, n: int = 64, seed: int = 0) -> torch.Tensor:
    shape = (1, 8, 8) if name == "vit" else (6,)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def behind_norms(model: nn.Module, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and variance by channel of each norm's outputs, in the order of their calls."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(module: nn.Module, given: object, out: torch.Tensor) -> None:
        axis = 1 if isinstance(module, nn.GroupNorm | ChannelsFirst) else -1
        mean, variance = moments(out.unsqueeze(0), axis)
        seen.append((mean.flatten(), variance.flatten()))

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, NORMS)]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def on_devices(model: nn.Module, x: torch.Tensor, deployment: Deployment) -> list[list[tuple]]:
    """Return `behind_norms` of the nominal network, then of four devices that were shown ``x``."""
    seen: list[list[tuple]] = []

    def watch(m: nn.Module) -> float:
        seen.append(behind_norms(m, x))
        return 0.0

    evaluate_measure(
        model, watch, [LAW], name="none", n_devices=4, deployment=deployment, unlabelled=x
    )
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_behind_each_norm_a_device_has_the_nominal_mean_and_deviation(name: str) -> None:
    model, x = built(NETWORKS[name]), inputs(name)
    nominal, *devices = on_devices(model, x, Deployment(calibration="norm", samples=len(x)))
    alone = on_devices(model, x, Deployment())[1:]
    assert len(devices) == 4
    for device, uncorrected in zip(devices, alone, strict=True):
        assert len(device) == len(nominal) >= 1
        for (mean, variance), (wanted_mean, wanted), before in zip(
            device, nominal, uncorrected, strict=True
        ):
            scale = float(wanted.max()) ** 0.5
            assert torch.allclose(mean, wanted_mean, atol=1e-4 * scale)
            assert torch.allclose(variance, wanted, rtol=1e-3, atol=1e-6 * scale**2)
            # Without the correction both are far off.
            assert float((before[0] - wanted_mean).abs().max()) > 0.02 * scale
            assert float((before[1] / wanted - 1).abs().max()) > 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_many_devices_behind_norms_equal_one_at_a_time(name: str) -> None:
    model, x = built(NETWORKS[name]), inputs(name)
    names = frozenset(draw_fleet(model, [0], 0))
    stacked, deployment = draw_fleet(model, range(3), seed=7), Deployment(calibration="norm")
    new = inputs(name, 9, 2)
    with torch.no_grad():
        together = FleetRunner(model, names, deployment)
        found = together(stacked, new, together.calibrate(stacked, x))
        for k in range(3):
            own = {key: w[k : k + 1] for key, w in stacked.items()}
            alone = FleetRunner(model, names, deployment)
            one = alone(own, new, alone.calibrate(own, x))
            assert torch.allclose(one[0], found[k], atol=1e-4)


def scaled(model: nn.Module, deployment: str) -> torch.Tensor:
    """Return the outputs ``N x B x ...`` of devices that hold each analog scalar times one of `GAINS`."""
    names = draw_fleet(model, [0], 0)
    stacked = {
        key: torch.stack([gain * model.get_parameter(key).detach() for gain in GAINS])
        for key in names
    }
    with torch.no_grad():
        run = FleetRunner(model, frozenset(names), Deployment.parse(deployment))
        return run(stacked, inputs("mlp", 20, 1), run.calibrate(stacked, inputs("mlp")))


@pytest.mark.parametrize("deployment", ["none", "norm"])
def test_a_gain_before_a_norm_is_divided_out_by_it_and_the_correction_leaves_it(
    deployment: str,
) -> None:
    """LayerNorm of g x is that of x, but for its epsilon: 1e-5 of variances that are about a third."""
    model = built(NETWORKS["mlp"])
    nominal = model(inputs("mlp", 20, 1)).detach()
    found = scaled(model, deployment)
    assert float((found - nominal).abs().max()) < 1e-3 * float(nominal.abs().max())


def test_a_gain_behind_the_last_norm_is_left() -> None:
    """The head's products are not behind a norm: they stay the gain times the nominal ones."""
    model = built(lambda: nn.Sequential(*NETWORKS["mlp"](), nn.Linear(12, 3)))
    x = inputs("mlp", 20, 1)
    nominal = model(x).detach()
    gains = torch.tensor(GAINS).reshape(-1, 1, 1)
    room = 1e-3 * float(nominal.abs().max())
    assert torch.allclose(scaled(model, "norm"), gains * nominal, atol=room)
    # "channel" corrects analog layers themselves.
    assert torch.allclose(scaled(model, "channel"), nominal.expand(3, -1, -1), atol=5 * room)


@pytest.mark.parametrize("name", ["mlp", "rms"])
def test_a_gain_of_the_norms_own_weights_is_taken_back(name: str) -> None:
    """Where all parameters drift, a norm's gains and offsets scale its outputs; the correction undoes it."""

    def make() -> nn.Module:
        if name == "mlp":
            return NETWORKS["mlp"]()
        return nn.Sequential(nn.Linear(6, 16), nn.RMSNorm(16), nn.Tanh(), nn.LayerNorm(16))

    model = built(make, where="all")
    nominal = model(inputs("mlp", 20, 1)).detach()
    room = 2e-3 * float(nominal.abs().max())
    gains = torch.tensor(GAINS).reshape(-1, 1, 1)
    if name == "mlp":
        # Behind the first norm a gain passes through GELU, so that only its sign is plain to see.
        assert float((scaled(model, "none") - gains * nominal).abs().max()) > room
    assert torch.allclose(scaled(model, "norm"), nominal.expand(3, -1, -1), atol=room)


def test_any_drift_of_the_norms_own_weights_is_taken_back_on_any_input() -> None:
    """Each channel of an affine map has a gain and an offset, as the correction has."""
    model = built(NETWORKS["mlp"], where=nn.LayerNorm)
    names = frozenset(draw_fleet(model, [0], 0))
    assert names == {"1.weight", "1.bias", "4.weight", "4.bias"}
    stacked, new = draw_fleet(model, range(3), seed=4), inputs("mlp", 20, 1)
    with torch.no_grad():
        nominal = model(new)
        run = FleetRunner(model, names, Deployment(calibration="norm"))
        found = run(stacked, new, run.calibrate(stacked, inputs("mlp")))
        alone = FleetRunner(model, names)(stacked, new)
    scale = float(nominal.abs().max())
    assert float((alone - nominal).abs().max()) > 0.1 * scale
    assert float((found - nominal).abs().max()) < 1e-4 * scale


@pytest.mark.parametrize("calibration", ["norm", "channel"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_a_layer_with_a_fused_kernel_is_corrected_too(norm_first: bool, calibration: str) -> None:
    model, x = built(lambda: encoder(norm_first=norm_first)), inputs("mlp")
    names = frozenset(draw_fleet(model, [0], 0))
    stacked = draw_fleet(model, range(2), seed=1)
    run = FleetRunner(model, names, Deployment.parse(calibration))
    with torch.no_grad():
        fused = run(stacked, x, run.calibrate(stacked, x))
    # With gradients the layer calls its parts.
    plain = FleetRunner(model, names, Deployment.parse(calibration))
    found = plain(stacked, x, plain.calibrate(stacked, x)).detach()
    assert torch.allclose(fused, found, atol=1e-4)


def test_the_output_projection_of_an_attention_is_corrected_too() -> None:
    model, x = built(Attends), inputs("mlp")
    names = frozenset(draw_fleet(model, [0], 0))
    assert names == {"attention.out_proj.weight", "attention.out_proj.bias"}
    stacked = draw_fleet(model, range(2), seed=1)
    with torch.no_grad():
        run = FleetRunner(model, names, Deployment(calibration="channel"))
        mean, variance = moments(run(stacked, x, run.calibrate(stacked, x)), -1)
        wanted_mean, wanted = moments(model(x).unsqueeze(0), -1)
    assert torch.allclose(mean, wanted_mean.expand_as(mean), atol=1e-4)
    assert torch.allclose(variance, wanted.expand_as(variance), rtol=1e-3)


def test_a_network_without_norms_is_refused() -> None:
    model = analogize(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), LAW)
    with pytest.raises(ConversionError, match=r"LayerNorm, GroupNorm or RMSNorm.* has none"):
        scaled(model, "norm")


def test_adapters_behind_the_output_projection_of_an_attention_are_used() -> None:
    """With enough rank and steps they bring a device nearer to the nominal network than it was."""
    model, x = built(Attends), inputs("mlp")
    stacked = draw_fleet(model, [0], seed=1)
    names = frozenset(stacked)
    adapters = Deployment.parse("none:adapter_rank=4,adapter_steps=60")
    run = FleetRunner(model, names, adapters)
    with torch.no_grad():
        nominal, alone = model(x), FleetRunner(model, names)(stacked, x)
        found = run(stacked, x, run.calibrate(stacked, x))
    assert float((found - nominal).square().mean()) < 0.5 * float((alone - nominal).square().mean())


def test_the_librarys_own_attention_is_itself_again_afterwards() -> None:
    model, x = built(Attends), inputs("mlp").unsqueeze(1)
    attention = model.attention
    assert isinstance(attention, nn.MultiheadAttention)
    mask = torch.zeros(1, 1, dtype=torch.bool)
    with torch.no_grad():
        for given in ({}, {"attn_mask": mask}, {"need_weights": False}):
            out, weights = attention(x, x, x, **given)
            with calling_parts(model, ["attention.out_proj"]):
                assert "forward" in attention.__dict__
                same, others = attention(x, x, x, **given)
            assert torch.allclose(out, same, atol=1e-6)
            assert (weights is None and others is None) or torch.allclose(weights, others)
    assert "forward" not in attention.__dict__
    assert torch.backends.mha.get_fastpath_enabled()
