"""Every form of analog layer with an input: what the contract tests run over."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.device import DeviceModel, Estimate, Physics, ReadNoise, WriteNoise

PLAIN = Hardware(device="lognormal:0", array=Array(rows=8, columns=16))
EXACT = Hardware(
    device="lognormal:0",
    array=Array(rows=8, columns=16, dac=DAC(bits=24, range="calibrated"), adc=ADC(bits=24)),
)


def noisy_device(write: float = 0.1, read: float = 0.02) -> DeviceModel:
    return DeviceModel(
        name="noisy",
        sigma=Estimate(value=write),
        physics=Physics(
            g_min=1e-6,
            g_max=1e-4,
            write=WriteNoise(sigma=write),
            read=ReadNoise(relative=read),
        ),
    )


NOISY = Hardware(device=noisy_device(), array=Array(rows=8, columns=16, dac=DAC(), adc=ADC()))
READ = Hardware(device=noisy_device(), array=Array(rows=8, columns=16))
FROZEN = Hardware(device="lognormal:0.2", array=Array(rows=8, columns=16))


class Case(NamedTuple):
    """A layer, its inputs, and what of its answer counts."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    keywords: Mapping[str, Any] = MappingProxyType({})


class Packed(nn.Module):
    """Sequences of several lengths through a recurrent layer."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor([3, 5, 1, 4])
        out, last = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        last = torch.cat(last, -1) if isinstance(last, tuple) else last
        return torch.cat([pad_packed_sequence(out)[0].flatten(), last.flatten()])


class TinyExperts(nn.Module):
    """Experts with fused three-dimensional parameters, as Hugging Face keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 8, 6))
        self.down_proj = nn.Parameter(torch.randn(3, 6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for expert in range(3):
            own = torch.arange(len(x)) % 3 == expert
            gate, up = nn.functional.linear(x[own], self.gate_up_proj[expert]).chunk(2, -1)
            hidden = nn.functional.silu(gate) * up
            part = nn.functional.linear(hidden, self.down_proj[expert])
            out = out.index_add(0, torch.nonzero(own)[:, 0], part.to(out.dtype))
        return out


def _r(*shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(*shape),)


def _attention(self_attention: bool = True, **options: Any) -> Callable[[], tuple[Any, ...]]:
    def make() -> tuple[Any, ...]:
        x = torch.randn(3, 5, 8)
        if self_attention:
            return x, x, x
        return (
            x,
            torch.randn(3, 7, options.get("kdim", 8)),
            torch.randn(3, 7, options.get("vdim", 8)),
        )

    return make


_PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
_CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)

CASES: dict[str, Case] = {
    "linear": Case(lambda: nn.Linear(19, 7), _r(5, 19)),
    "linear-deep": Case(lambda: nn.Linear(5, 7, bias=False), _r(2, 3, 4, 5)),
    "linear-vector": Case(lambda: nn.Linear(9, 3), _r(9)),
    "conv1d": Case(lambda: nn.Conv1d(3, 5, 3, stride=2, padding=1), _r(2, 3, 11)),
    "conv1d-circular": Case(
        lambda: nn.Conv1d(3, 5, 3, padding=1, padding_mode="circular"), _r(2, 3, 9)
    ),
    "conv2d": Case(lambda: nn.Conv2d(3, 5, 3, padding=1), _r(2, 3, 6, 7)),
    "conv2d-bare": Case(lambda: nn.Conv2d(3, 5, (1, 3)), _r(3, 6, 7)),
    "conv2d-dilated": Case(lambda: nn.Conv2d(2, 4, 3, dilation=2, padding="same"), _r(2, 2, 7, 7)),
    "conv2d-grouped": Case(lambda: nn.Conv2d(8, 4, 3, groups=2), _r(2, 8, 6, 6)),
    "conv2d-depthwise": Case(
        lambda: nn.Conv2d(6, 12, 3, groups=6, padding=1, padding_mode="reflect"), _r(2, 6, 5, 5)
    ),
    "conv3d": Case(lambda: nn.Conv3d(2, 3, 2), _r(2, 2, 4, 4, 4)),
    "transposed1d": Case(lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), _r(2, 4, 5)),
    "transposed2d": Case(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        _r(2, 4, 5, 4),
    ),
    "transposed3d": Case(lambda: nn.ConvTranspose3d(3, 2, 2, dilation=2), _r(2, 3, 3, 3, 3)),
    "attention": Case(lambda: nn.MultiheadAttention(8, 2, batch_first=True), _attention()),
    "attention-seq-first": Case(
        lambda: nn.MultiheadAttention(8, 2, bias=False),
        _attention(),
        {"need_weights": False},
    ),
    "attention-masked": Case(
        lambda: nn.MultiheadAttention(8, 4, batch_first=True),
        _attention(),
        {"key_padding_mask": _PADDING, "attn_mask": _CAUSAL, "average_attn_weights": False},
    ),
    "attention-cross": Case(
        lambda: nn.MultiheadAttention(
            8, 2, kdim=4, vdim=6, batch_first=True, add_bias_kv=True, add_zero_attn=True
        ),
        _attention(False, kdim=4, vdim=6),
    ),
    "lstm": Case(lambda: nn.LSTM(5, 6, num_layers=2), _r(4, 3, 5)),
    "lstm-projected": Case(
        lambda: nn.LSTM(5, 6, proj_size=3, bidirectional=True, batch_first=True), _r(3, 4, 5)
    ),
    "lstm-packed": Case(lambda: Packed(nn.LSTM(5, 6, 2, bidirectional=True)), _r(5, 4, 5)),
    "gru": Case(lambda: nn.GRU(5, 6, bidirectional=True), _r(4, 3, 5)),
    "gru-packed": Case(lambda: Packed(nn.GRU(5, 6)), _r(5, 4, 5)),
    "gru-bare": Case(lambda: nn.GRU(5, 6, bias=False), _r(4, 5)),
    "rnn": Case(lambda: nn.RNN(5, 6, nonlinearity="relu"), _r(4, 3, 5)),
    "lstm-cell": Case(lambda: nn.LSTMCell(5, 6), _r(3, 5)),
    "gru-cell": Case(lambda: nn.GRUCell(5, 6), _r(3, 5)),
    "rnn-cell": Case(lambda: nn.RNNCell(5, 6, bias=False), _r(5)),
    "experts": Case(TinyExperts, _r(7, 6)),
}


def build(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return the layer of a case and its inputs, from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        module = CASES[name].make().to(dtype).eval()
        given = CASES[name].inputs()
    shared: dict[int, torch.Tensor] = {}
    return module, tuple(shared.setdefault(id(x), x.to(dtype)) for x in given)


def run(name: str, module: nn.Module, given: tuple[Any, ...]) -> torch.Tensor:
    """Return everything that the layer of a case gives, as one vector."""
    out = module(*given, **CASES[name].keywords)
    parts: list[torch.Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            parts.append(value.flatten())
        elif isinstance(value, tuple):
            for item in value:
                collect(item)

    collect(out)
    return torch.cat(parts)
