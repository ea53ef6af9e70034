"""LSTM, GRU, RNN and their cells on chips: both products are analog, gates stay digital.

The products with the inputs of all time steps come first, then the steps follow each other with the product of
the hidden state. Packed sequences run padded, with the state held where a sequence is over.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ohmloop.errors import ConversionError
from ohmloop.nn._held import Matrix
from ohmloop.nn._layer import LayerState

CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


def _matrix(suffix: str, kind: str) -> Matrix:
    weight, bias = f"weight_{kind}{suffix}", f"bias_{kind}{suffix}"
    return Matrix(
        weight,
        weight,
        lambda m: getattr(m, weight).unsqueeze(0),
        lambda m: None if getattr(m, bias, None) is None else getattr(m, bias).unsqueeze(0),
    )


class _Products:
    """The products of one layer and direction."""

    def __init__(self, module: nn.Module, state: LayerState, suffix: str) -> None:
        self.module, self.state, self.suffix = module, state, suffix

    def __call__(self, kind: str, x: Tensor, axis: int) -> Tensor:
        """Return the product with ``weight_kind`` plus its bias, for inputs with the batch at ``axis``."""
        name = f"weight_{kind}{self.suffix}"
        bias = getattr(self.module, f"bias_{kind}{self.suffix}", None) if kind != "hr" else None
        return self.state.product(
            self.module,
            name,
            x,
            weight=lambda: cast(Tensor, getattr(self.module, name)),
            bias=bias,
            axis=axis,
        )


def _step(
    mode: str, inputs: Tensor, hidden: Tensor, state: tuple[Tensor, ...], products: _Products
) -> tuple[Tensor, ...]:
    """Return the new state from the products ``B x gates`` with input and hidden state."""
    if mode == "LSTM":
        i, f, g, o = (inputs + hidden).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if getattr(products.module, "proj_size", 0):
            h = products("hr", h, 0)
        return h, c
    if mode == "GRU":
        ir, iz, inew = inputs.chunk(3, -1)
        hr, hz, hnew = hidden.chunk(3, -1)
        z = (iz + hz).sigmoid()
        new = (inew + (ir + hr).sigmoid() * hnew).tanh()
        return (new + z * (state[0] - new),)
    total = inputs + hidden
    return (total.relu() if mode == "RNN_RELU" else total.tanh(),)


class CellForm:
    """LSTMCell, GRUCell, RNNCell."""

    reason = "both products are analog; gates stay digital"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the products with the input and with the hidden state."""
        return _matrix("", "ih"), _matrix("", "hh")

    def forward(
        self,
        module: nn.Module,
        state: LayerState,
        x: Tensor,
        hx: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        """Do as the cell's own forward does."""
        is_lstm = isinstance(module, nn.LSTMCell)
        bare = x.ndim == 1
        inputs = x.unsqueeze(0) if bare else x
        if hx is None:
            zero = inputs.new_zeros(len(inputs), cast(Any, module).hidden_size)
            now: tuple[Tensor, ...] = (zero, zero) if is_lstm else (zero,)
        else:
            given = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
            now = tuple(h.unsqueeze(0) if bare else h for h in given)
            _check_cell(state, inputs, now, cast(Any, module).hidden_size, 2 if is_lstm else 1)
        products = _Products(module, state, "")
        mode = "LSTM" if is_lstm else "GRU"
        if isinstance(module, nn.RNNCell):
            mode = "RNN_RELU" if module.nonlinearity == "relu" else "RNN_TANH"
        first, second = products("ih", inputs, 0), products("hh", now[0], 0)
        # Where chips share the batch, one product may hold all chips' rows and the other not yet.
        now = tuple(_alike(t, first, second) for t in now)
        first, second = _alike(first, first, second), _alike(second, first, second)
        new = _step(mode, first, second, now, products)
        new = tuple(t.squeeze(0) for t in new) if bare else new
        return new if is_lstm else new[0]


def _check_cell(
    state: LayerState, x: Tensor, now: tuple[Tensor, ...], size: int, wanted: int
) -> None:
    """Raise ConversionError unless the state fits inputs ``B x in``; chips may share one and not the other."""
    n = 1 if state.chip is None else state.chip.n
    batches = {len(x), n * len(x), len(x) // n if len(x) % n == 0 else len(x)}
    fits = all(h.ndim == 2 and h.shape[1] == size and len(h) in batches for h in now)
    if len(now) != wanted or not fits:
        raise ConversionError(
            f"expected a state of {wanted} x {(len(x), size)}; received {[tuple(h.shape) for h in now]}."
        )


def _alike(x: Tensor, *others: Tensor) -> Tensor:
    """Return ``x`` with its batch repeated to the largest among ``others``."""
    most = max(len(o) for o in others)
    return x if len(x) == most else x.repeat(most // len(x), *[1] * (x.ndim - 1))


class _Padded(NamedTuple):
    """A batch of sequences ``L x B x in``, and which steps count, ``L x B x 1`` (None: all)."""

    x: Tensor
    valid: Tensor | None


class RecurrentForm:
    """LSTM, GRU and RNN, as the library defines them."""

    reason = "both products of each layer are analog; gates stay digital"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the products of every layer and direction."""
        kinds = ("ih", "hh", "hr") if cast(Any, module).proj_size else ("ih", "hh")
        return tuple(
            _matrix(suffix, kind)
            for suffix in _suffixes(cast(nn.RNNBase, module))
            for kind in kinds
        )

    def forward(
        self, module: nn.Module, state: LayerState, x: Any, hx: Any = None
    ) -> tuple[Any, Any]:
        """Do as the module's own forward does."""
        rnn = cast(nn.RNNBase, module)
        packed = x if isinstance(x, PackedSequence) else None
        bare = packed is None and x.ndim == 2
        if packed is None and x.ndim not in (2, 3):
            raise ConversionError(
                f"{state.name}: a sequence has 2 or 3 dimensions; received {tuple(x.shape)}."
            )
        padded = _padded(rnn, x, bare)
        if padded.x.shape[-1] != rnn.input_size:
            raise ConversionError(
                f"{state.name}: expected inputs of {rnn.input_size} features; received {padded.x.shape[-1]}."
            )
        start = _start(rnn, padded.x, hx, bare)
        out, last = _layers(rnn, state, padded, start)
        if bare:
            last = tuple(t.squeeze(1) for t in last)
        final = last if isinstance(module, nn.LSTM) else last[0]
        if packed is not None:
            return _packed(out, packed), final
        if bare:
            return out.squeeze(1), final
        return (out.transpose(0, 1) if rnn.batch_first else out), final


def _suffixes(rnn: nn.RNNBase) -> list[str]:
    directions = ("", "_reverse") if rnn.bidirectional else ("",)
    return [f"_l{layer}{d}" for layer in range(rnn.num_layers) for d in directions]


def _padded(rnn: nn.RNNBase, x: Any, bare: bool) -> _Padded:
    if isinstance(x, PackedSequence):
        dense, lengths = pad_packed_sequence(x)
        steps = torch.arange(len(dense), device=dense.device)[:, None]
        return _Padded(dense, (steps < lengths.to(dense.device)).unsqueeze(-1))
    if bare:
        return _Padded(x.unsqueeze(1), None)
    return _Padded(x.transpose(0, 1) if rnn.batch_first else x, None)


def _packed(out: Tensor, like: PackedSequence) -> PackedSequence:
    """Return ``L x B x out`` packed as the input was."""
    if like.sorted_indices is not None:
        out = out.index_select(1, like.sorted_indices)
    data = torch.cat([out[t, :n] for t, n in enumerate(like.batch_sizes.tolist())])
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def _start(rnn: nn.RNNBase, x: Tensor, hx: Any, bare: bool) -> tuple[Tensor, ...]:
    """Return the initial state, each ``layers x B x size``."""
    n, batch = rnn.num_layers * (2 if rnn.bidirectional else 1), x.shape[1]
    sizes = [rnn.proj_size or rnn.hidden_size]
    sizes += [rnn.hidden_size] if isinstance(rnn, nn.LSTM) else []
    if hx is None:
        return tuple(x.new_zeros(n, batch, size) for size in sizes)
    given = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    given = tuple(h.unsqueeze(1) for h in given) if bare else given
    wanted = [(n, batch, size) for size in sizes]
    if [tuple(h.shape) for h in given] != wanted:
        raise ConversionError(
            f"expected an initial state of {' and '.join(map(str, wanted))}; received "
            f"{' and '.join(str(tuple(h.shape)) for h in given)}."
        )
    return given


def _layers(
    rnn: nn.RNNBase, state: LayerState, padded: _Padded, start: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    x, valid = padded
    ends: list[tuple[Tensor, ...]] = []
    suffixes = _suffixes(rnn)
    each = 2 if rnn.bidirectional else 1
    for layer in range(rnn.num_layers):
        outs = []
        for direction in range(each):
            k = layer * each + direction
            products = _Products(rnn, state, suffixes[k])
            out, end = _run(
                rnn.mode, products, x, valid, tuple(s[k] for s in start), backward=direction == 1
            )
            outs.append(out)
            ends.append(end)
        x = torch.cat(outs, -1) if each == 2 else outs[0]
        if valid is not None and valid.shape[1] != x.shape[1]:
            valid = valid.repeat(1, x.shape[1] // valid.shape[1], 1)
        if rnn.dropout and rnn.training and layer < rnn.num_layers - 1:
            x = F.dropout(x, rnn.dropout)
    return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


def _run(
    mode: str,
    products: _Products,
    x: Tensor,
    valid: Tensor | None,
    now: tuple[Tensor, ...],
    *,
    backward: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the outputs ``L x B x out`` of one layer and direction, and its last state."""
    inputs = products("ih", x, 1)
    batch = inputs.shape[1]
    now = tuple(h if len(h) == batch else h.repeat(batch // len(h), 1) for h in now)
    if valid is not None and valid.shape[1] != batch:
        valid = valid.repeat(1, batch // valid.shape[1], 1)
    order = range(len(x) - 1, -1, -1) if backward else range(len(x))
    outs: dict[int, Tensor] = {}
    for t in order:
        new = _step(mode, inputs[t], products("hh", now[0], 0), now, products)
        if valid is None:
            now, outs[t] = new, new[0]
            continue
        now = tuple(torch.where(valid[t], a, b) for a, b in zip(new, now, strict=True))
        outs[t] = torch.where(valid[t], new[0], torch.zeros_like(new[0]))
    return torch.stack([outs[t] for t in range(len(x))]), now
