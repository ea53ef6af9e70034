"""A model as one chip: one seed, one chip; it ages, learns, moves and is never gone around."""

import copy

import numpy as np
import pytest
import torch
from tests.nn.forms import FROZEN, NOISY, PLAIN, noisy_device
from tests.nn.networks import network
from torch import nn

from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.device import DeviceModel, Estimate, LogLaw, Physics, PowerDrift, WriteNoise
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    Deployment,
    age,
    analogize,
    calibrate_converters,
    digitize,
    draw,
    erase,
    evaluate_fleet,
    program,
)
from ohmloop.nn._layer import state_of


def test_averaged_arrays_halve_the_error_of_four() -> None:
    layer = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0))
    analogize(layer, Hardware(device=noisy_device(0.1, 0.0), array=Array()))
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    wanted = layer(x).detach()

    def error(arrays: int) -> float:
        program(layer, 3, deployment=Deployment(arrays=arrays, mean_gain=True))
        return float((layer(x) - wanted).square().mean().sqrt())

    # 4,096 weights: the ratio of two estimates of a deviation is within 5 % (4 standard errors).
    assert error(1) / error(4) == pytest.approx(2, rel=0.05)


def drifting(nu: float = 0.05, spread: float = 0.01) -> DeviceModel:
    return DeviceModel(
        name="drifting",
        sigma=Estimate(value=0.0),
        physics=Physics(
            g_min=0.0,
            g_max=25e-6,
            write=WriteNoise(sigma=0.05),
            drift=PowerDrift(t0=20.0, nu=LogLaw.constant(nu), spread=LogLaw.constant(spread)),
        ),
    )


def test_a_chip_ages_and_is_still_the_same_chip() -> None:
    layer = nn.Linear(30, 20, bias=False)
    analogize(layer, Hardware(device=drifting(), array=Array()))
    x = torch.eye(30)
    young = program(layer, 3)(x).detach()
    old = age(layer, 2e5)(x).detach()
    # (t / t0)^-nu with nu = 0.05 +- 0.01 over four decades.
    ratio = (old / young)[young.abs() > 1e-4]
    assert float(ratio.mean()) == pytest.approx(1e4**-0.05, rel=0.02)
    assert torch.equal(age(layer, 0)(x), young)
    older = Hardware(device=drifting(), array=Array(), seconds=2e5)
    assert torch.equal(program(layer, 3, hardware=older)(x), old)


def test_drift_gain_gives_the_mean_back() -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Conv1d(1, 6, 3), nn.Flatten())
    model = nn.Sequential(
        nn.Linear(40, 40), nn.ReLU(), nn.Unflatten(1, (1, 40)), nn.Conv1d(1, 6, 3)
    )
    x = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    analogize(model, Hardware(device=drifting(), array=Array(), seconds=2e5))
    with torch.no_grad():
        wanted = model(x)

        def error(deployment: Deployment) -> float:
            program(model, 1, deployment=deployment)
            return float((model(x) - wanted).square().mean().sqrt())

        assert error(Deployment(drift_gain=True)) < 0.35 * error(Deployment())
    assert "summed conductance" in Deployment(drift_gain=True).needs


def test_ageing_needs_a_chip_and_its_weights() -> None:
    layer = analogize(nn.Linear(3, 2), Hardware(device=drifting(), array=Array()))
    with pytest.raises(ConversionError, match="no chip yet"):
        age(layer, 10)
    program(layer, 0)
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(ConversionError, match="have changed"):
        age(layer, 10)


def test_tied_weights_share_their_array() -> None:
    model, x, _ = network("text")
    program(analogize(model, FROZEN), 0)
    assert model.head.weight is model.table.weight
    assert torch.equal(model.table(x), nn.functional.embedding(x, model.table.weight))
    pair = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False))
    pair[2].weight = pair[0].weight
    program(analogize(pair, FROZEN), 0)
    x = torch.randn(3, 6)
    assert torch.equal(pair[0](x), pair[2](x))
    assert not torch.equal(pair[0](x), nn.functional.linear(x, pair[0].weight))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
def test_a_transformer_encoder_does_not_go_around_its_analog_layers() -> None:
    for norm_first in (False, True):
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first).eval()
        x = torch.randn(3, 5, 8)
        mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
        with torch.no_grad():
            plain, padded = model(x), model(x, src_key_padding_mask=mask)
            program(analogize(model, PLAIN), 0)
            assert torch.allclose(model(x), plain, atol=1e-5)
            got = model(x, src_key_padding_mask=mask)
            # The library's fused kernel writes zeros where inputs are padding.
            assert torch.allclose(got[~mask], padded[~mask], atol=1e-5)
            digitize(model)
            program(analogize(model, FROZEN, where=["layers.0.linear1"]), 0)
            assert not torch.allclose(model(x), plain, atol=1e-3)
            digitize(model)
            assert torch.equal(model(x), plain)
            assert torch.equal(model(x, src_key_padding_mask=mask), padded)


def test_an_output_projection_alone_is_not_gone_around() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    plain = attention(x, x, x)[0]
    analogize(attention, FROZEN, where=["out_proj"])
    assert torch.equal(attention(x, x, x)[0], plain)
    program(attention, 0)
    assert not torch.allclose(attention(x, x, x)[0], plain, atol=1e-3)
    digitize(attention)
    assert type(attention) is nn.MultiheadAttention


@pytest.mark.slow
def test_training_on_the_hardware_lowers_the_loss() -> None:
    model, x, _ = network("residual")
    model.train()
    y = torch.arange(7) % 5
    analogize(model, NOISY)
    calibrate_converters(model, x)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(40):
        program(model, generator, differentiable=True)
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_gradients_may_be_accumulated_over_batches() -> None:
    model, x, _ = network("mlp")
    program(analogize(model, FROZEN), 1, differentiable=True)
    model(x).sum().backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for part in x.split(5):
        model(part).sum().backward()
    for p, wanted in zip(model.parameters(), whole, strict=True):
        assert torch.allclose(p.grad, wanted, rtol=1e-4, atol=1e-5)


def test_replicas_share_the_chip() -> None:
    model, x, _ = network("residual")
    program(analogize(model, FROZEN), 1)
    wanted = model(x)
    replica = model.stem._replicate_for_data_parallel()
    replica._parameters = dict(model.stem._parameters)
    assert torch.equal(replica(x), model.stem(x))
    moved = copy.deepcopy(model).to(torch.float64)
    assert torch.allclose(moved(x.double()).float(), wanted, atol=1e-5)
    assert moved.stem.weight.dtype is torch.float64
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    assert narrow(x.bfloat16()).dtype is torch.bfloat16


def test_vmap_over_inputs_and_over_parameters() -> None:
    model, x, _ = network("mlp")
    analogize(model, FROZEN)
    many = {k: torch.stack([p.detach(), 2 * p.detach()]) for k, p in model.named_parameters()}
    nominal = torch.vmap(lambda p: torch.func.functional_call(model, p, (x,)))(many)
    assert torch.allclose(nominal[0], model(x), atol=1e-6)
    program(model, 0)
    assert torch.allclose(torch.vmap(model)(x), model(x), atol=1e-6)


def test_converters_work_under_torch_func() -> None:
    model, x, _ = network("mlp")
    array = Array(rows=8, columns=16, dac=DAC(range=3.0), adc=ADC())
    program(analogize(model, Hardware(device="lognormal:0.1", array=array)), 0, differentiable=True)
    own = {k: p.detach() for k, p in model.named_parameters()}
    slopes = torch.func.grad(lambda p: torch.func.functional_call(model, p, (x,)).square().sum())(
        own
    )
    model(x).square().sum().backward()
    assert all(torch.allclose(slopes[k], p.grad) for k, p in model.named_parameters())
    program(model, 0)
    each = torch.vmap(torch.func.grad(lambda v: model(v).sum()))(x)
    whole = x.clone().requires_grad_(True)
    model(whole).sum().backward()
    assert torch.allclose(each, whole.grad, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("hardware", [FROZEN, NOISY], ids=["frozen", "noisy"])
def test_compile_works(hardware: Hardware) -> None:
    model, x, _ = network("mlp")
    analogize(model, hardware)
    fast = torch.compile(model, backend="aot_eager")
    assert torch.allclose(fast(x), model(x), atol=1e-6)
    program(model, 2)
    with torch.no_grad():
        got = fast(x)
        program(model, 2)
        assert torch.allclose(got, model(x), atol=1e-5)


def test_the_law_and_arrays_are_not_confused() -> None:
    model, x, _ = network("mlp")
    y = model(x).argmax(-1)
    analogize(model, FROZEN)
    with pytest.raises(ConversionError, match="converted for hardware with one"):
        evaluate_fleet(model, (x, y), hardware=Hardware(device="lognormal:0.1"))
    with pytest.raises(ConversionError, match=r"0\.weight is on an array"):
        draw(model, torch.Generator())
    law = analogize(network("mlp")[0], Hardware(device="lognormal:0.1"))
    with pytest.raises(ConversionError, match="no array to program"):
        program(law, 0)
    with pytest.raises(ConversionError, match="converted for hardware with none"):
        evaluate_fleet(law, (x, y), hardware=FROZEN)
    with pytest.raises(ConversionError, match="drift_gain reads"):
        evaluate_fleet(law, (x, y), deployment=Deployment(drift_gain=True))
    with pytest.raises(ConversionError, match="digital"):
        program(nn.Linear(2, 2), 0)
    with pytest.raises(ConversionError, match="no array to program"):
        program(model, 0, hardware=Hardware(device="lognormal:0.1"))


def test_nothing_is_half_programmed() -> None:
    model, x, _ = network("mlp")
    program(analogize(model, FROZEN), 0)
    before = model(x)
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    with pytest.raises(ConversionError, match=r"2\.weight cannot be programmed"):
        program(model, 1)
    assert torch.equal(model(x), before)
    erase(model)
    with pytest.raises(ConversionError, match=r"2\.weight cannot be programmed"):
        program(model, 1)
    assert state_of(model[0]).chip is None


def test_uncalibrated_ranges_are_said_and_wrong_shapes_too() -> None:
    hardware = Hardware(device="lognormal:0", array=Array(dac=DAC(range="calibrated"), adc=ADC()))
    for layer, x in (
        (nn.Linear(4, 2), torch.ones(3, 4)),
        (nn.Conv1d(2, 3, 2), torch.ones(1, 2, 5)),
    ):
        program(analogize(layer, hardware), 0)
        with pytest.raises(ConversionError, match="nobody calibrated"):
            layer(x)
        calibrate_converters(layer, x)
        layer(x)
    model = nn.Sequential(nn.Linear(4, 2), nn.Conv1d(2, 3, 2), nn.LSTM(3, 4))
    shapes = {"0": (3, 5), "1": (1, 5, 4), "2": (4, 2, 7)}
    for hardware in (NOISY, FROZEN):
        program(analogize(model, hardware), 0)
        for name, shape in shapes.items():
            with pytest.raises(ConversionError, match=rf"^{name}( \(|:)"):
                model[int(name)](torch.ones(shape))
        digitize(model)


def test_generators_on_the_wrong_device_are_refused() -> None:
    layer = analogize(nn.Linear(4, 2), NOISY)
    with pytest.raises(ConversionError, match="the model is on cpu"):
        program(layer, _Elsewhere())  # type: ignore[arg-type]  # stands in for another device's


class _Elsewhere:
    device = torch.device("cuda")


def test_read_noise_has_the_variance_of_the_cells() -> None:
    conv = nn.Conv2d(2, 3, 3, bias=False)
    with torch.no_grad():
        conv.weight.normal_(generator=torch.Generator().manual_seed(0))
    hardware = Hardware(device=noisy_device(0.0, 0.05), array=Array(rows=7, columns=16))
    program(analogize(conv, hardware), 0)
    x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reads = torch.cat([conv(x) for _ in range(2000)]).double()
        # Each cell errs by 5 % of its conductance; both cells of a pair, g_min included.
        scale = conv.weight.abs().max() / (1e-4 - 1e-6)
        low = 1e-6 * scale
        variance = 0.05**2 * ((conv.weight.abs() + low).square() + low**2)
        wanted = nn.functional.conv2d(x.square(), variance).sqrt()[0].double()
    # 2,000 reads: a deviation is known to 1.6 %; 27 of them within 4.5 standard errors.
    assert torch.allclose(reads.std(0), wanted, rtol=4.5 / (2 * 2000) ** 0.5)
    spread = (reads - reads.mean(0)).flatten(1)
    correlation = np.corrcoef(spread.numpy().T)
    off = correlation[~np.eye(len(correlation), dtype=bool)]
    assert np.abs(off).max() < 5 / 2000**0.5


@pytest.mark.parametrize("mapping", ["pair", "offset", "sliced"])
def test_a_convolution_reads_as_its_matrix_does(mapping: str) -> None:
    """The library's convolutions, block by block, against `Programmed.matmul` at each position."""
    from ohmloop.nn._conv import conv_rows

    conv = nn.Conv2d(4, 6, 3, groups=2, padding=1)
    array = Array(
        rows=5,
        columns=12,
        mapping=mapping,  # type: ignore[arg-type]  # one of the three
        weight_bits=5,
        dac=DAC(bits=5, range=2.0),
        adc=ADC(bits=6),
        analog_bias=True,
    )
    analogize(conv, Hardware(device="lognormal:0.1", array=array))
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    program(conv, 5)
    with torch.no_grad():
        got = conv(x)
        state = state_of(conv)
        matrix = state.form.matrices(conv)[0]
        apart = state.programmed(conv, matrix._replace(merged=False))
        if mapping == "offset":  # programmed group by group in any case
            outs = [apart.read(conv_rows(conv, x, g, bias_row=False), g, None)[0] for g in range(2)]
            wanted = torch.cat(outs, 1).reshape(2, 5, 5, 6).permute(0, 3, 1, 2)
            assert float(((got - wanted).abs() > 1e-5).double().mean()) < 0.01
        else:
            merged = state.held["weight"].copies[0][0]
            rows = torch.stack([conv_rows(conv, x, g, bias_row=True) for g in range(2)])
            outs = [merged.matmul(rows[g])[0, :, 3 * g : 3 * g + 3] for g in range(2)]
            wanted = torch.cat(outs, 1).reshape(2, 5, 5, 6).permute(0, 3, 1, 2)
            assert float(((got - wanted).abs() > 1e-5).double().mean()) < 0.01
