"""Programming in odd circumstances: tied and parametrised weights, copies, moves, other hardware."""

import copy
import pickle
import warnings

import pytest
import torch
from tests.nn.forms import FROZEN, NOISY, PLAIN, noisy_device
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ohmloop.crossbar import ADC, DAC, Array, Hardware, Wires
from ohmloop.device import DeviceModel
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    age,
    analog_parameters,
    analogize,
    calibrate_converters,
    digitize,
    erase,
    fleet_forward,
    program,
    summary,
)
from ohmloop.nn._layer import state_of


def pair(**options: bool) -> tuple[nn.Sequential, torch.Tensor]:
    """Return two layers that share a weight, and inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6, **options), nn.Linear(6, 6, **options))
        model[1].weight = model[0].weight
        return model, torch.randn(9, 6)


@pytest.mark.parametrize("differentiable", [False, True])
def test_tied_weights_keep_their_own_bias_rows(differentiable: bool) -> None:
    model, x = pair()
    wanted = model(x)
    hardware = Hardware(device="lognormal:0", array=Array(analog_bias=True))
    program(analogize(model, hardware), 0, differentiable=differentiable)
    assert torch.allclose(model(x), wanted, atol=1e-5)
    model[1].bias = model[0].bias
    program(model, 0)
    assert torch.equal(model[0](x), model[1](x))


def test_tied_weights_keep_their_own_ranges() -> None:
    model, x = pair(bias=False)
    array = Array(dac=DAC(range="calibrated"), adc=ADC())
    analogize(model, Hardware(device="lognormal:0", array=array))
    calibrate_converters(model, x)
    program(model, 0)
    wanted = model(x)
    calibrate_converters(model, x)  # of the chip that there is
    assert torch.equal(model(x), wanted)
    program(model, 0, differentiable=True)
    assert torch.equal(model(x), wanted)


def test_parametrised_weights_are_no_tied_ones() -> None:
    model = nn.Sequential(*[weight_norm(nn.Linear(6, 6)) for _ in range(8)])
    x = torch.randn(3, 6)
    wanted = model(x)
    program(analogize(model, PLAIN), 0)
    assert torch.allclose(model(x), wanted, atol=1e-5)
    program(model, 0, differentiable=True)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_copy_of_a_chip_ages_and_changes_are_still_seen() -> None:
    layer = nn.Linear(6, 6)
    with torch.no_grad():
        layer.weight.mul_(2)
    program(analogize(layer, NOISY), 0)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        age(twin, 10)
        with torch.no_grad():
            twin.weight.mul_(2)
        with pytest.raises(ConversionError, match="have changed"):
            age(twin, 10)
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(ConversionError, match="have changed"):
        age(copy.deepcopy(layer), 10)


def test_ageing_follows_what_the_arrays_hold() -> None:
    moved = program(analogize(nn.Linear(6, 6), FROZEN), 0).double()
    with pytest.raises(ConversionError, match="changed or moved"):
        age(moved, 10)  # the random numbers of another type are others: another chip
    hardware = Hardware(device="lognormal:0.1", array=Array(analog_bias=True))
    for layer, follows in (
        (analogize(nn.Linear(6, 6), FROZEN), True),
        (analogize(nn.Linear(6, 6), hardware), False),
    ):
        program(layer, 0)
        with torch.no_grad():
            layer.bias.add_(1)
        if follows:  # a digital bias is not on the array
            age(layer, 10)
            continue
        with pytest.raises(ConversionError, match="changed or moved"):
            age(layer, 10)
    normed = program(analogize(weight_norm(nn.Linear(6, 6)), FROZEN), 0)
    age(normed, 10)
    with torch.no_grad():
        normed.parametrizations.weight.original0.mul_(2)
    with pytest.raises(ConversionError, match="changed or moved"):
        age(normed, 10)


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_a_chip_keeps_its_numbers_in_a_narrow_model(
    given: torch.dtype, narrow: torch.dtype
) -> None:
    device = noisy_device(0.1, 0.0)
    bent = DeviceModel.model_validate(
        {**dict(device), "physics": {**dict(device.physics), "v0": 0.2, "read_voltage": 0.2}}
    )
    wires = Array(rows=8, columns=16, wires=Wires(row=1.0, column=1.0))
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0), dtype=given)
    x = x.to(narrow).to(given)
    for hardware in (
        Hardware(device=device, array=Array(rows=8, columns=16, dac=DAC(bits=12))),
        Hardware(device=bent, array=wires),
    ):
        layer = program(analogize(nn.Linear(12, 5, bias=False).to(given), hardware), 0)
        wanted = layer(x)
        got = layer.to(narrow)(x.to(narrow))
        assert got.dtype is narrow
        assert torch.allclose(got.to(given), wanted, rtol=1e-2, atol=1e-3)
        wide = layer.to(torch.float32)(x.float())  # not a digit was lost on the way
        assert torch.allclose(wide, wanted.float(), rtol=1e-5, atol=1e-6)


def test_ranges_do_not_reach_a_chip_whose_arrays_add_other_sums() -> None:
    layer, x = nn.Linear(12, 12), torch.randn(5, 12)
    arrays = [Array(rows=rows, adc=ADC()) for rows in (8, 4)]
    own, other = (Hardware(device="lognormal:0", array=array) for array in arrays)
    program(analogize(layer, own), 0, hardware=other)
    wanted = layer(x)
    calibrate_converters(layer, x)
    assert torch.equal(layer(x), wanted)


def test_ranges_of_merged_groups_fit_groups_that_are_solved_apart() -> None:
    device = noisy_device(0.01, 0.0)
    bent = DeviceModel.model_validate(
        {**dict(device), "physics": {**dict(device.physics), "v0": 0.5, "read_voltage": 0.2}}
    )
    conv, x = nn.Conv1d(4, 4, 3, groups=2), torch.randn(5, 4, 9)
    wanted = conv(x).detach()
    for per_column in (False, True):
        adc = ADC(bits=10, per_column=per_column, quantile=1.0)
        array = Array(rows=8, dac=DAC(bits=10, range=4.0), adc=adc)
        analogize(conv, Hardware(device=device, array=array))
        calibrate_converters(conv, x)
        wired = array.model_copy(update={"wires": Wires(row=0.01, column=0.01)})
        program(conv, 0, hardware=Hardware(device=bent, array=wired))
        with torch.no_grad():
            assert float((conv(x) - wanted).abs().max()) < 0.1 * float(wanted.abs().max())
        digitize(conv)


def test_nothing_is_half_calibrated() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), torch.randn(9, 6)
    array = Array(dac=DAC(range="calibrated"))
    analogize(model, Hardware(device="lognormal:0", array=array))
    calibrate_converters(model, x)
    program(model, 0)
    wanted = model[0](x)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(ConversionError, match=r"1\.weight cannot be programmed"):
        calibrate_converters(model, 0.1 * x)
    assert torch.equal(model[0](x), wanted)


def test_tied_layers_still_share_their_arrays_after_ageing() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    age(program(analogize(model, PLAIN), 3), 100.0)
    first, second = (state_of(model[k]).held["weight"].copies[0][0] for k in (0, 2))
    assert first.planes[0].weight.data_ptr() == second.planes[0].weight.data_ptr()


def test_ageing_sees_what_a_hook_makes_the_weight_from() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates the hook; models have it
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4)))
    age(program(analogize(model, PLAIN), 3), 10.0)
    with torch.no_grad():
        model[0].weight_g.mul_(2)
    with pytest.raises(ConversionError, match="weights have changed"):
        age(model, 20.0)


def test_what_makes_an_analog_weight_is_listed_as_analog() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 2), nn.LayerNorm(2)
    )
    rows = {row.name: row for row in summary(analogize(model, PLAIN), simulate=False)}
    made = rows["0.parametrizations.weight"]
    assert made.analog
    assert "before it is programmed" in made.reason
    assert [row.analog for row in rows.values()] == [True, True, True, False]


def test_a_part_made_digital_leaves_the_record_of_the_whole() -> None:
    model = analogize(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), PLAIN)
    digitize(model[0])
    assert set(analog_parameters(model)) == {"1.weight"}
    assert [row.analog for row in summary(model, simulate=False)] == [False, True]
    digitize(model[1])
    with pytest.raises(ConversionError, match="the model is digital"):
        analog_parameters(model)
    assert set(analog_parameters(analogize(model, PLAIN))) == {"0.weight", "1.weight"}


def test_stacked_weights_are_not_given_to_a_programmed_chip() -> None:
    model = program(analogize(nn.Sequential(nn.Linear(4, 2)), PLAIN), 1)
    stacked = {"0.weight": torch.zeros(3, 2, 4)}
    with pytest.raises(ConversionError, match=r"programmed chip.*erase"):
        fleet_forward(model, stacked, torch.ones(1, 4))
    out = fleet_forward(erase(model), stacked, torch.ones(1, 4))
    torch.testing.assert_close(out, model[0].bias.detach().expand(3, 1, 2))
