"""What is converted, by which hardware, what is left and why; and hostile use."""

from typing import Any

import pytest
import torch
from tests.nn.forms import FROZEN, NOISY, PLAIN, TinyExperts
from torch import nn

from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    analog_parameters,
    analogize,
    calibrate_converters,
    digitize,
    draw_fleet,
    evaluate_fleet,
    hardware_of,
    has_arrays,
    program,
    summary,
)
from ohmloop.nn._layer import AnalogLayer, state_of
from ohmloop.tasks import build_model

NOISY_ARRAY = Array(rows=128, columns=128, dac=DAC(range="calibrated"), adc=ADC())
LAW = Hardware(device="lognormal:0.3")


def mixed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.ModuleDict(
            {
                "table": nn.Embedding(9, 8),
                "attention": nn.MultiheadAttention(8, 2),
                "lstm": nn.LSTM(8, 8),
                "conv": nn.Conv1d(8, 8, 3, groups=8),
                "norm": nn.LayerNorm(8),
                "experts": TinyExperts(),
                "head": nn.Linear(8, 9),
            }
        )


class Router(nn.Module):
    """Multiplies with its own parameter in code of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight).softmax(-1)


class Squared(nn.Linear):
    """A linear layer with another idea of what a weight is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.square(), self.bias)


def kinds(model: nn.Module) -> dict[str, type]:
    return {name: type(m) for name, m in model.named_modules()}


def test_with_an_array_every_layer_that_has_an_analog_form_is_analog() -> None:
    model = analogize(mixed(), PLAIN)
    rows = {row.name: row for row in summary(model)}
    analog = {name for name, row in rows.items() if row.analog}
    assert analog == {"attention", "attention.out_proj", "lstm", "conv", "experts", "head"}
    assert "look-up" in rows["table"].reason
    assert "normalisation" in rows["norm"].reason
    assert "stay digital" in rows["attention"].reason
    assert sum(r.parameters for r in rows.values()) == sum(p.numel() for p in model.parameters())
    # Biases are added digitally, and are on no device.
    assert "head.bias" not in analog_parameters(model)
    assert has_arrays(model)
    assert not has_arrays(digitize(model))


def test_hardware_by_pattern_first_match_counts() -> None:
    small = Hardware(device="lognormal:0.1", array=Array(rows=4, columns=8))
    model = analogize(
        mixed(), {"attention*": small, "head": FROZEN, "lstm": FROZEN, "*conv": PLAIN}
    )
    assert state_of(model["attention"]).hardware == small
    assert state_of(model["attention"].out_proj).hardware == small
    assert state_of(model["head"]).hardware == FROZEN
    rows = {row.name: row for row in summary(model)}
    assert rows["experts"].reason == "no hardware is given for it"
    with pytest.raises(ConversionError, match="3 kinds"):
        hardware_of(model)
    with pytest.raises(ConversionError, match=r"'decoder.\*' matches no layer"):
        analogize(mixed(), {"decoder.*": PLAIN})
    with pytest.raises(ConversionError, match=r"norm \(LayerNorm\) has no analog form"):
        analogize(mixed(), {"norm": PLAIN})
    with pytest.raises(ConversionError, match="empty mapping"):
        analogize(mixed(), {})


def test_laws_by_pattern_are_drawn_layer_by_layer() -> None:
    model = nn.Sequential(nn.Linear(60, 50), nn.Tanh(), nn.Linear(50, 40)).eval()
    laws = {"0": Hardware(device="lognormal:0.1"), "2": Hardware(device="lognormal:0.7")}
    analogize(model, laws)
    drawn = draw_fleet(model, range(3), seed=0)
    for name, sigma in (("0.weight", 0.1), ("2.weight", 0.7)):
        log = (drawn[name] / model.get_parameter(name).detach()).log()
        assert float(log.std()) == pytest.approx(sigma, rel=5 / (2 * log.numel()) ** 0.5)
    x = torch.randn(20, 60, generator=torch.Generator().manual_seed(1))
    result = evaluate_fleet(model, (x, model(x).argmax(-1)), n_devices=3)
    assert result.device == "lognormal:0.1 + lognormal:0.7"
    assert result.sigma == 0.7


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (nn.Linear, {"attention.out_proj", "head"}),
        ((nn.LSTM, nn.Conv1d), {"lstm", "conv"}),
        (["*"], {"attention", "attention.out_proj", "lstm", "conv", "experts", "head"}),
        (["head", "a*"], {"head", "attention", "attention.out_proj"}),
        (lambda name, module: name == "lstm", {"lstm"}),
    ],
)
def test_where_chooses(where: object, expected: set[str]) -> None:
    model = analogize(mixed(), PLAIN, where=where)  # type: ignore[arg-type]  # all are allowed
    assert {row.name for row in summary(model) if row.analog} == expected


@pytest.mark.parametrize(
    ("make", "where", "match"),
    [
        (mixed, nn.LayerNorm, "norm .LayerNorm. has no analog form: normalisation"),
        (mixed, ["table"], "table .Embedding. has no analog form: a look-up"),
        (mixed, "all", "only the law on weights can"),
        (mixed, ["nothing*"], "no layer with parameters matches"),
        (lambda: nn.Sequential(nn.ReLU()), None, "no layer with parameters"),
        (lambda: nn.Sequential(nn.LazyLinear(2)), None, "0.weight has no shape yet"),
        (lambda: nn.Linear(3, 2, device="meta"), None, "weight is on the meta device"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1).int()), None, "real numbers"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_changes(
    make: object, where: object, match: str
) -> None:
    if "int" in match or "real" in match:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int32), requires_grad=False)
    else:
        model = make()  # type: ignore[operator]  # a function
    before = kinds(model)
    with pytest.raises(ConversionError, match=match):
        analogize(model, PLAIN, where=where)  # type: ignore[arg-type]  # hostile
    assert kinds(model) == before
    assert not has_arrays(model)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_empty_layers_and_layers_larger_than_memory_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 0))
    with pytest.raises(ConversionError, match=r"1\.weight is empty, of shape \(0, 4\)"):
        analogize(model, PLAIN)
    huge = nn.Sequential(nn.Linear(4, 4), nn.Linear(1, 1, bias=False))
    # One number, seen 10^12 times: nothing of that size is ever allocated.
    huge[1].weight = nn.Parameter(torch.ones(1, 1).expand(10**6, 10**6))
    with pytest.raises(ConversionError, match=r"1\.weight has 1,000,000,000,000 weights.*GiB"):
        analogize(huge, PLAIN)
    assert kinds(huge)["0"] is nn.Linear
    wide = analogize(
        nn.Linear(6, 5), Hardware(device="lognormal:0", array=Array(rows=65536, columns=65536))
    )
    assert summary(wide)[0].tiles == 1


def test_layers_that_compute_otherwise_are_left_and_said() -> None:
    model = nn.ModuleDict({"plain": nn.Linear(6, 3), "odd": Squared(6, 3), "router": Router()})
    patched = nn.Linear(6, 3)
    patched.forward = lambda x: x[..., :3]  # type: ignore[method-assign]  # what accelerate's hooks do
    model["patched"] = patched
    rows = {row.name: row for row in summary(analogize(model, PLAIN))}
    assert not any(rows[name].analog for name in ("odd", "router", "patched"))
    assert "changes what Linear computes" in rows["odd"].reason
    assert "replaced on the instance" in rows["patched"].reason
    assert "name it in where" in rows["router"].reason
    with pytest.raises(ConversionError, match=r"patched \(Linear\) has no analog form"):
        analogize(digitize(model), PLAIN, where=["patched"])


def test_a_module_that_is_named_multiplies_on_the_array_in_its_own_code() -> None:
    model, x = nn.ModuleDict({"router": Router(), "odd": Squared(6, 3)}), torch.randn(4, 6)
    wanted = model["router"](x)
    analogize(model, FROZEN, where=["router", "odd"])
    assert torch.equal(model["router"](x), wanted)
    program(model, 0, differentiable=True)
    got = model["router"](x)
    assert not torch.allclose(got, wanted)
    got.square().sum().backward()
    assert bool(model["router"].weight.grad.abs().sum() > 0)
    with pytest.raises(ConversionError, match=r"odd\.weight is on an array.*Squared.*square"):
        model["odd"](x)
    assert isinstance(model["router"].weight, nn.Parameter)


def test_double_conversion_is_refused_from_inside_and_outside() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    analogize(model[0], PLAIN)
    with pytest.raises(ConversionError, match="analog already"):
        analogize(model, PLAIN)
    digitize(model)
    analogize(model, PLAIN)
    with pytest.raises(ConversionError, match="analog already"):
        analogize(model, PLAIN)


def test_shared_modules_are_converted_once() -> None:
    layer = nn.Linear(4, 4)
    model = analogize(nn.Sequential(layer, nn.ReLU(), layer), FROZEN)
    assert [row.name for row in summary(model)] == ["0"]
    program(model, 0)
    x = torch.randn(2, 4)
    assert torch.equal(model(x), model[2](torch.relu(model[0](x))))


def test_subclasses_keep_their_type_and_repr_says_analog() -> None:
    class Named(nn.Linear):
        """Adds nothing to what a linear layer computes."""

    layer = analogize(Named(3, 2), PLAIN)
    assert isinstance(layer, Named)
    assert isinstance(layer, AnalogLayer)
    assert "AnalogNamed" in repr(layer)
    assert type(digitize(layer)) is Named


def test_summary_counts_tiles_and_error_by_hand() -> None:
    array = Array(rows=10, columns=12)  # a pair mapping: 6 outputs a tile
    layer = analogize(nn.Linear(25, 13, bias=False), Hardware(device="lognormal:0.2", array=array))
    row = summary(layer)[0]
    assert row.tiles == 3 * 3
    assert row.utilisation == pytest.approx(25 * 13 * 2 / (9 * 120))
    # Independent log-normal errors: relative error sqrt(E (f - 1)^2) of median-1 factors.
    s2 = 0.2**2
    wanted = (2.718281828 ** (2 * s2) - 2 * 2.718281828 ** (s2 / 2) + 1) ** 0.5
    # Four chips of 325 weights: the estimate has a spread of about 5 %.
    assert row.error == pytest.approx(wanted, rel=0.2)
    assert row.energy is None
    assert summary(layer, simulate=False)[0].error is None
    grouped = analogize(
        nn.Conv2d(8, 16, 3, groups=4), Hardware(device="lognormal:0.2", array=array)
    )
    # Each group: 18 rows in 2 blocks, 4 outputs in one.
    assert summary(grouped)[0].tiles == 4 * 2


def test_summary_with_an_example_finds_what_is_gone_around_and_energy() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.around = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.used(self.used(x)), self.around.weight)

    model = analogize(Around(), NOISY)
    x = torch.randn(5, 6)
    rows = {row.name: row for row in summary(model, x)}
    assert rows["around"].calls == 0
    assert rows["used"].calls == 1
    assert "NOT USED" in str(summary(model, x))
    assert rows["used"].energy > 0
    one = {row.name: row for row in summary(model, x[:1])}
    assert one["used"].energy == pytest.approx(rows["used"].energy, rel=0.5)
    text = str(summary(model, (x,)))
    assert "tiles" in text
    assert text.count("\n") == 3
    assert summary(model, {"x": x}).energy == pytest.approx(summary(model, x).energy)
    with pytest.raises(ConversionError, match="this model has none"):
        summary(digitize(model), x)


@torch.no_grad()
def test_calibration_is_shared_by_all_chips_and_needs_inputs() -> None:
    array = Array(rows=8, columns=16, dac=DAC(range="calibrated"), adc=ADC(per_column=True))
    model = nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(24, 3))
    analogize(model, Hardware(device="lognormal:0.05", array=array))
    x = torch.randn(16, 2, 8, generator=torch.Generator().manual_seed(0))
    wanted = model(x)
    calibrate_converters(model, x)
    for seed in range(2):
        program(model, seed)
        assert float((model(x) - wanted).abs().max()) < 0.15 * float(wanted.abs().max())
    before = model(x)
    calibrate_converters(model, 0.01 * x)  # the chip is there already: it clips from now on
    assert float((model(x) - before).abs().max()) > 0.1 * float(wanted.abs().max())
    with pytest.raises(ConversionError, match="digital"):
        calibrate_converters(nn.Linear(2, 2), x)


@pytest.mark.parametrize(
    "name", ["resnet8", "vit", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_networks_of_the_tasks_go_there_and_back(name: str) -> None:
    model = build_model(name, (3, 32, 32), 10, 0).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    array = Array(rows=128, columns=128)
    with torch.no_grad():
        wanted = model(x)
        program(analogize(model, Hardware(device="lognormal:0", array=array)), 0)
        assert torch.allclose(model(x), wanted, atol=1e-4 * float(wanted.abs().max()))
    rows = summary(model, simulate=False)
    assert all(row.analog for row in rows if row.type in ("Linear", "Conv2d", "MultiheadAttention"))
    before = kinds(digitize(model))
    analogize(model, Hardware(device=NOISY.device, array=NOISY_ARRAY))
    calibrate_converters(model, x)
    program(model, 1, differentiable=True)
    model(x).square().sum().backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in grads)
    assert kinds(digitize(model)) == before
    with torch.no_grad():
        assert torch.equal(model(x), wanted)


def test_calibrated_ranges_serve_other_converters_of_the_same_tiles_only() -> None:
    def hardware(rows: int, bits: int) -> Hardware:
        array = Array(rows=rows, columns=16, dac=DAC(range="calibrated"), adc=ADC(bits=bits))
        return Hardware(device="lognormal:0", array=array)

    layer = analogize(nn.Linear(30, 5), hardware(10, 8))
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    calibrate_converters(layer, x)
    with torch.no_grad():
        wanted = layer(x)
        coarse = (program(layer, 0, hardware=hardware(10, 4))(x) - wanted).square().mean()
        fine = (program(layer, 0, hardware=hardware(10, 12))(x) - wanted).square().mean()
    assert float(fine) < 0.05 * float(coarse)
    program(layer, 0, hardware=hardware(15, 8))
    with pytest.raises(ConversionError, match="nobody calibrated"):
        layer(x)


def test_parametrised_weights_are_programmed_as_they_are_used() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.Linear(4, 2))
    x = torch.randn(3, 5)
    wanted = model(x)
    program(analogize(model, PLAIN), 0, differentiable=True)
    assert torch.allclose(model(x), wanted, atol=1e-6)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(digitize(model)(x), wanted)


def test_energy_of_a_convolution_follows_the_range_of_each_image() -> None:
    x = torch.rand(1, 2, 8, generator=torch.Generator().manual_seed(0))
    x[..., 4:] *= 0.01  # positions that are small beside others of their image

    def energy(**options: Any) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv1d(2, 4, 3))
        array = Array(rows=8, columns=16, analog_bias=True, **options)
        found = summary(analogize(model, Hardware(device="lognormal:0", array=array)), x).energy
        assert found is not None
        return found

    dynamic = energy(dac=DAC(bits=8), adc=ADC())
    assert dynamic == pytest.approx(energy(dac=DAC(bits=8, range=1.0), adc=ADC()), rel=1e-6)
    assert dynamic > energy(dac=DAC(bits=8, range=100.0), adc=ADC())


def test_parts_that_were_converted_by_themselves_are_taken_back_with_the_whole() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 3))
    analogize(model[0], PLAIN)
    digitize(model)
    assert has_arrays(analogize(model[0], PLAIN))


def test_nothing_is_half_converted_where_a_class_cannot_be_swapped() -> None:
    class Fixed(nn.Linear):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "__class__":
                raise TypeError("this class stays")
            super().__setattr__(name, value)

    model = nn.Sequential(nn.Linear(3, 3), Fixed(3, 3))
    with pytest.raises(TypeError, match="this class stays"):
        analogize(model, PLAIN)
    assert [type(m) for m in model] == [nn.Linear, Fixed]
    assert not has_arrays(model)
