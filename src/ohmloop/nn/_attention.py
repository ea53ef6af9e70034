"""nn.MultiheadAttention on chips: projections are analog, products of activations stay digital.

Scores q k^T and the weighted sum of values multiply two things that change with every input; cells would have
to be written for each. The module computes what the library's does, masks and all, with its own projections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import ConversionError
from ohmloop.nn._held import Matrix
from ohmloop.nn._layer import LayerState

_PARTS = ("q", "k", "v")


class Digital(NamedTuple):
    """Takes the place of a `LayerState` where projections are plain products."""

    name: str

    def product(
        self,
        module: nn.Module,
        key: str,
        x: Tensor,
        *,
        weight: Callable[[], Tensor],
        bias: Tensor | None = None,
        axis: int = 0,
    ) -> Tensor:
        """Return ``... x out`` of ``... x in``."""
        return F.linear(x, weight(), bias)


@contextmanager
def calling_parts(model: nn.Module, layers: Container[str]) -> Iterator[None]:
    """While active, the library's attention and encoder layers call their parts, so that hooks see them.

    Its kernels for inference take the weights of an encoder layer; its attention reads those of ``out_proj``.

    Args:
        model: The network.
        layers: Names of layers that are to be called.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    changed: list[nn.Module] = []
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for name, module in model.named_modules():
            # On a chip, or with a forward pass of somebody else's, it calls what it calls.
            own = type(module) is nn.MultiheadAttention and "forward" not in module.__dict__
            if own and f"{name}.out_proj".lstrip(".") in layers:
                changed.append(module)
                module.__dict__["forward"] = partial(AttentionForm().forward, module, Digital(name))
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module in changed:
            del module.__dict__["forward"]


class AttentionForm:
    """nn.MultiheadAttention; its ``out_proj`` is a layer of its own."""

    reason = (
        "input projections are products; those of activations (scores, weighted sum) stay digital"
    )

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the projections of queries, keys and values."""
        fused = cast(Any, module).in_proj_weight is not None
        return tuple(
            Matrix(
                part,
                "in_proj_weight" if fused else f"{part}_proj_weight",
                lambda m, k=k: _weight(m, k).unsqueeze(0),  # type: ignore[misc]  # k is bound
                lambda m, k=k: _unsqueezed(_bias(m, k)),  # type: ignore[misc]  # k is bound
            )
            for k, part in enumerate(_PARTS)
        )

    def forward(
        self,
        module: nn.Module,
        state: LayerState | Digital,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Do as `nn.MultiheadAttention.forward` does."""
        attention = cast(Any, module)
        if query.is_nested:
            raise ConversionError(
                f"{state.name}: analog attention takes plain tensors; received a nested one. "
                "Give padded inputs and key_padding_mask."
            )
        if is_causal and attn_mask is None:
            raise ConversionError(
                f"{state.name}: is_causal=True needs attn_mask, as in the library."
            )
        bare = query.ndim == 2
        axis = 0 if attention.batch_first else 1
        if bare:
            query, key, value = (t.unsqueeze(axis) for t in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        parts = [
            state.product(
                module,
                name,
                given,
                weight=lambda k=k: _weight(module, k),  # type: ignore[misc]  # k is bound
                bias=_bias(module, k),
                axis=axis,
            )
            for k, (name, given) in enumerate(zip(_PARTS, (query, key, value), strict=True))
        ]
        if not attention.batch_first:
            parts = [p.transpose(0, 1) for p in parts]
        out, weights = _attend(
            attention, parts, key_padding_mask, attn_mask, need_weights, average_attn_weights
        )
        if not attention.batch_first:
            out = out.transpose(0, 1)
        out = attention.out_proj(out)
        if bare:
            out = out.squeeze(axis)
            weights = None if weights is None else weights.squeeze(0)
        return out, weights


def _weight(module: nn.Module, k: int) -> Tensor:
    attention = cast(Any, module)
    if attention.in_proj_weight is None:
        return cast(Tensor, getattr(attention, f"{_PARTS[k]}_proj_weight"))
    return cast(Tensor, attention.in_proj_weight.chunk(3)[k])


def _bias(module: nn.Module, k: int) -> Tensor | None:
    bias = cast(Any, module).in_proj_bias
    return None if bias is None else bias.chunk(3)[k]


def _unsqueezed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.unsqueeze(0)


def _attend(
    attention: Any,
    parts: list[Tensor],
    padding: Tensor | None,
    mask: Tensor | None,
    need_weights: bool,
    average: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return ``B x L x E`` and the weights, from projections ``B x L x E``, ``B x S x E``, ``B x S x E``."""
    query, key, value = parts
    batch = len(query)
    added = 0
    if attention.bias_k is not None:
        key = torch.cat([key, attention.bias_k.expand(batch, 1, -1)], 1)
        value = torch.cat([value, attention.bias_v.expand(batch, 1, -1)], 1)
        added += 1
    if attention.add_zero_attn:
        key, value = (torch.cat([t, t.new_zeros(batch, 1, t.shape[-1])], 1) for t in (key, value))
        added += 1
    heads = [
        t.reshape(*t.shape[:2], attention.num_heads, -1).transpose(1, 2)
        for t in (query, key, value)
    ]
    bias = _masks(mask, padding, attention.num_heads, heads[0], added)
    dropout = attention.dropout if attention.training else 0.0
    if not need_weights:
        out = F.scaled_dot_product_attention(
            heads[0], heads[1], heads[2], attn_mask=bias, dropout_p=dropout
        )
        return out.transpose(1, 2).flatten(2), None
    scores = heads[0] / math.sqrt(heads[0].shape[-1]) @ heads[1].transpose(-1, -2)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    weights = F.dropout(weights, dropout) if dropout > 0 else weights
    out = (weights @ heads[2]).transpose(1, 2).flatten(2)
    return out, weights.mean(1) if average else weights


def _masks(
    mask: Tensor | None, padding: Tensor | None, n_heads: int, like: Tensor, added: int
) -> Tensor | None:
    """Return what is added to scores ``B x heads x L x S``: -inf where attention is not allowed."""

    def additive(given: Tensor) -> Tensor:
        if given.dtype == torch.bool:
            zeros = torch.zeros(given.shape, dtype=like.dtype, device=like.device)
            given = zeros.masked_fill(given, -torch.inf)
        return F.pad(given.to(like.dtype), (0, added))

    total = None
    if mask is not None:
        total = additive(mask)
        if mask.ndim == 3:
            total = total.reshape(-1, n_heads, *total.shape[1:])
    if padding is not None:
        padded = additive(padding)[:, None, None]
        # Several chips in one batch: each pads as the inputs that they share do.
        if len(padded) != len(like):
            padded = padded.repeat(len(like) // len(padded), 1, 1, 1)
        total = padded if total is None else total + padded
    if total is not None and total.ndim == 4 and len(total) not in (1, len(like)):
        total = total.repeat(len(like) // len(total), 1, 1, 1)
    return total
