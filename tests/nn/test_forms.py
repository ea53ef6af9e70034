"""The contract that every form of analog layer passes."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.nn.forms import CASES, EXACT, FROZEN, NOISY, PLAIN, READ, build, run
from torch import nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import analogize, calibrate_converters, digitize, erase, program

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

NAMES = tuple(CASES)
KEYWORDS_ONLY = [n for n in NAMES if not CASES[n].keywords]


def gradients(name: str, module: nn.Module, given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    given = tuple(x.clone().requires_grad_(True) if k == 0 else x for k, x in enumerate(given))
    if len(given) == 3 and given[1] is given[2]:
        given = (given[0],) * 3
    out = run(name, module, given)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype)
    own = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad((out * weights).sum(), [given[0], *own], allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def close(got: torch.Tensor, wanted: torch.Tensor, eps: float) -> bool:
    got, wanted = got.detach(), wanted.detach()
    return bool((got - wanted).abs().max() <= eps * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_chip_equals_the_digital_layer(name: str, dtype: torch.dtype) -> None:
    module, given = build(name, dtype)
    wanted = run(name, module, given)
    program(analogize(module, PLAIN), 0)
    got = run(name, module, given)
    assert got.dtype == wanted.dtype
    eps = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 0.05}[dtype]
    assert close(got.double(), wanted.double(), eps)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_chip_has_the_digital_gradients(name: str) -> None:
    module, given = build(name, torch.float64)
    wanted = gradients(name, module, given)
    program(analogize(module, PLAIN), 0, differentiable=True)
    got = gradients(name, module, given)
    assert all(close(a, b, 1e-10) for a, b in zip(got, wanted, strict=True))
    # Parameters pass through devices: their gradients are there, none is cut off.
    assert sum(bool(g.abs().sum() > 0) for g in got) == sum(bool(g.abs().sum() > 0) for g in wanted)


@pytest.mark.parametrize("name", KEYWORDS_ONLY)
def test_fine_converters_change_little_and_pass_gradients(name: str) -> None:
    module, given = build(name)
    wanted, slopes = run(name, module, given), gradients(name, module, given)
    analogize(module, EXACT)
    # A little more than what comes: no value lies on the very edge of a range, where slopes end.
    calibrate_converters(module, tuple(1.05 * x for x in given))
    program(module, 0, differentiable=True)
    assert close(run(name, module, given), wanted, 2e-5)
    got = gradients(name, module, given)
    assert all(close(a, b, 1e-2) for a, b in zip(got, slopes, strict=True))


@pytest.mark.parametrize("hardware", [NOISY, READ], ids=["converters", "read-noise"])
@pytest.mark.parametrize("name", NAMES)
def test_reads_differ_and_seeds_repeat(name: str, hardware: Hardware) -> None:
    module, given = build(name)
    wanted = run(name, module, given)
    analogize(module, hardware)
    assert torch.equal(run(name, module, given), wanted)
    program(module, 3)
    first, second = run(name, module, given), run(name, module, given)
    assert not torch.equal(first, second)
    program(module, 3)
    assert torch.equal(run(name, module, given), first)
    program(module, 4)
    assert not torch.equal(run(name, module, given), first)
    assert torch.equal(run(name, erase(module), given), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_renamed_and_the_way_back_is_exact(name: str) -> None:
    module, given = build(name)
    kind = type(module)
    wanted, before = run(name, module, given), copy.deepcopy(module.state_dict())
    names = [n for n, _ in module.named_modules()]
    program(analogize(module, NOISY), 0)
    assert isinstance(module, kind)
    assert [n for n, _ in module.named_modules()] == names
    state = module.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[k], before[k]) for k in before)
    fresh, _ = build(name)
    with torch.no_grad():
        for p in fresh.parameters():
            p.zero_()
    analogize(fresh, PLAIN).load_state_dict(before)
    assert torch.equal(run(name, fresh, given), wanted)
    digitize(module)
    assert type(module) is kind
    assert torch.equal(run(name, module, given), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_are_the_same_chip(name: str) -> None:
    module, given = build(name)
    program(analogize(module, NOISY), 5)
    twin = copy.deepcopy(module)
    thawed = pickle.loads(pickle.dumps(module))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    wanted = run(name, module, given)
    for other in (twin, thawed, loaded):
        assert torch.equal(run(name, other, given), wanted)
        digitize(other)
    assert type(thawed) is type(build(name)[0])


# The library packs sequences by their memory, which a tensor under torch.func does not show.
@pytest.mark.parametrize("name", [n for n in NAMES if "packed" not in n])
def test_functional_call_and_grad_see_the_parameters_they_are_given(name: str) -> None:
    module, given = build(name)
    program(analogize(module, FROZEN), 2, differentiable=True)
    doubled = {k: 2 * p.detach() for k, p in module.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        out = functional_call(module, parameters, given, CASES[name].keywords)
        while isinstance(out, tuple):
            out = out[0]
        return out.square().sum()

    slopes = torch.func.grad(loss)(doubled)
    with torch.no_grad():
        for k, p in module.named_parameters():
            p.copy_(doubled[k])
    # The seeds stay: what functional_call computed is what these parameters give in place.
    out = module(*given, **CASES[name].keywords)
    while isinstance(out, tuple):
        out = out[0]
    assert out.square().sum().detach() == pytest.approx(float(loss(doubled)), rel=1e-5)
    assert any(bool(g.abs().sum() > 0) for g in slopes.values())


@pytest.mark.parametrize("name", NAMES)
def test_autocast_works(name: str) -> None:
    module, given = build(name)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            wanted = run(name, module, given)
    except RuntimeError as error:
        # Some processors have no bfloat16 kernel for the digital LSTM; the analog one computes all the same.
        if "primitive descriptor" not in str(error):
            raise
        wanted = run(name, module, given)
    for hardware in (PLAIN, NOISY):
        program(analogize(module, hardware), 0)
        with torch.autocast("cpu", torch.bfloat16):
            got = run(name, module, given)
        # The library's LSTM kernels have rules of their own for what autocast leaves in single precision.
        assert got.dtype == wanted.dtype or "lstm" in name
        assert close(got, wanted, 0.05 if hardware is PLAIN else 1.0)
        digitize(module)


@pytest.mark.parametrize("name", NAMES)
def test_nan_weights_are_named(name: str) -> None:
    module, _ = build(name)
    key, parameter = next((k, p) for k, p in module.named_parameters() if p.ndim > 1)
    with torch.no_grad():
        parameter.view(-1)[1] = torch.nan
    before = {n: type(m) for n, m in module.named_modules()}
    with pytest.raises(ConversionError, match=f"{key} holds NaN"):
        analogize(module, PLAIN)
    assert {n: type(m) for n, m in module.named_modules()} == before


def test_law_draws_work_on_every_form() -> None:
    """The law on weights takes any layer that where asks for."""
    from ohmloop.nn import draw

    for name in NAMES:
        module, given = build(name)
        wanted = run(name, module, given)
        analogize(module, Hardware(device="lognormal:0"), where="all")
        drawn = draw(module, torch.Generator().manual_seed(0))
        out = functional_call(module, drawn, given, CASES[name].keywords)
        while isinstance(out, tuple):
            out = out[0]
        assert torch.allclose(out.flatten().double(), wanted[: out.numel()].double(), atol=1e-5), (
            name
        )


class Own(nn.Module):
    """Multiplies in code of its own, with its arguments by name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input=x, weight=self.weight, bias=self.bias)


class Turned(Own):
    is_transposed = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(input=x, other=self.weight)


class Added(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(input=x, other=self.weight)


def test_modules_with_code_of_their_own_may_name_their_arguments() -> None:
    for module, x in ((Own(), torch.randn(3, 5)), (Turned(), torch.randn(3, 4))):
        wanted = module(x)
        program(analogize(module, PLAIN, where=[""]), 0)
        assert torch.allclose(module(x), wanted, atol=1e-5)
    added = program(analogize(Added(), PLAIN, where=[""]), 0)
    with pytest.raises(ConversionError, match=r"asks for add\(\)"):
        added(torch.zeros(4, 5))


@pytest.mark.slow
def test_threads_share_one_chip() -> None:
    for name in ("experts", "lstm", "attention", "conv2d-grouped"):
        for differentiable in (False, True):
            module, given = build(name)
            program(analogize(module, FROZEN), 0, differentiable=differentiable)
            with torch.no_grad():
                wanted = run(name, module, given)
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(run, name, module, given) for _ in range(40)]
            assert all(torch.equal(one.result().detach(), wanted) for one in asked)


def test_states_of_recurrent_layers_that_do_not_fit_are_said() -> None:
    h = torch.zeros(1, 3, 6)
    lstm, gru = (analogize(m, PLAIN) for m in (nn.LSTM(5, 6), nn.GRU(5, 6)))
    for layer, state in ((lstm, h), (lstm, (h,)), (gru, (h, h)), (lstm, (h, h[:, :2]))):
        program(layer, 0)
        with pytest.raises(ConversionError, match="initial state"):
            layer(torch.zeros(4, 3, 5), state)
    for cell, state in (
        (nn.LSTMCell(5, 6), h[0]),
        (nn.LSTMCell(5, 6), (h[0], h[0, :1])),
        (nn.GRUCell(5, 6), h[0, :1]),
        (nn.RNNCell(5, 6), h[0, :, :4]),
    ):
        program(analogize(cell, PLAIN), 0)
        with pytest.raises(ConversionError, match="state"):
            cell(torch.zeros(3, 5), state)
