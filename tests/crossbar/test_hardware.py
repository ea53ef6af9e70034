"""The published law on weights: closed forms, the level table by hand, gradients."""

import math

import pytest
import torch

from ohmloop.crossbar import ADC, DAC, Array, Hardware, Programming, Wires
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import ConversionError


def hardware(sigma: float = 0.5, rho: tuple[float, ...] | None = None, **kw: object) -> Hardware:
    return Hardware(device=DeviceModel(name="x", sigma=Estimate(value=sigma), rho=rho), **kw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("convention", ["median-1", "mean-1"])
def test_mean_and_variance_are_those_of_the_lognormal(convention: str, dtype: torch.dtype) -> None:
    sigma, n = 0.5, 400_000
    theta = torch.full((n,), -2.0, dtype=dtype)
    out = hardware(sigma, convention=convention).perturb(theta, torch.Generator().manual_seed(0))
    assert out.dtype == dtype
    factor = out.double() / -2
    mean = math.exp(sigma**2 / 2) if convention == "median-1" else 1.0
    variance = mean**2 * (math.exp(sigma**2) - 1)
    slack = 0.01 if dtype == torch.bfloat16 else 0.0
    # Five standard errors, and the rounding of half precision.
    assert float(factor.mean()) == pytest.approx(mean, abs=5 * (variance / n) ** 0.5 + slack)
    assert float(factor.var()) == pytest.approx(variance, rel=0.05 + slack)
    assert (factor > 0).all()


def test_zero_noise_is_the_identity() -> None:
    theta = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(hardware(0.0).perturb(theta, torch.Generator()), theta)


def test_level_table_scales_by_relative_magnitude() -> None:
    theta = torch.tensor([0.0, 0.5, -1.0, 2.0])
    out = hardware(0.0, rho=(0.0, 0.25, 0.5, 0.75, 1.0)).deterministic(theta)
    # |theta| / 2 = 0, .25, .5, 1 -> levels 0, 1, 2, 4.
    assert out.tolist() == [0.0, 0.125, -0.5, 2.0]
    ignoring = hardware(0.0, rho=(0.0, 0.0), use_rho=False)
    assert torch.equal(ignoring.deterministic(theta), theta)


def test_all_zero_and_empty_tensors_pass() -> None:
    law = hardware(0.3, rho=(0.1, 0.9))
    assert torch.equal(law.perturb(torch.zeros(3), torch.Generator()), torch.zeros(3))
    assert law.perturb(torch.zeros(0, 4), torch.Generator()).shape == (0, 4)


def test_gradient_is_the_factor() -> None:
    theta = torch.ones(10, requires_grad=True)
    out = hardware(0.4).perturb(theta, torch.Generator().manual_seed(3))
    out.sum().backward()
    assert torch.allclose(theta.grad, out.detach())


def test_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Hardware(device="lognormal:0.1", convension="mean-1")


def test_an_array_can_be_written_as_text() -> None:
    text = "rows=64, columns=32,dac=6,adc=7,wire=2,lead=50,programming=cycle-verify,tolerance=0.03,remap=true"
    array = Array.parse(text)
    assert (array.rows, array.columns, array.remap) == (64, 32, True)
    assert array.dac == DAC(bits=6)
    assert array.adc == ADC(bits=7)
    assert array.wires == Wires(row=2, column=2, source=50, sense=50)
    assert array.programming == Programming(method="cycle-verify", tolerance=0.03)
    assert Array.parse("") == Array()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rows", "write key=value"),
        ("row=64", 'no "row".*Did you mean "rows"'),
        ("adc=1", "adc.bits"),
        ("mapping=pears", "mapping"),
        ("wires=3", 'no "wires".*Did you mean "wire"'),
        ("columns=1", "no room"),
    ],
)
def test_text_that_names_no_array_is_refused(text: str, match: str) -> None:
    with pytest.raises(ConversionError, match=match):
        Array.parse(text)


def test_the_law_on_weights_is_refused_for_an_array() -> None:
    with pytest.raises(ConversionError, match="program_matrix"):
        Hardware(device="nanowire-30", array=Array()).perturb(torch.ones(2), torch.Generator())
