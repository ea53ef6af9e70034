"""Which layers have an analog form, which have none, and why."""

from __future__ import annotations

from typing import cast

from torch import nn

from ohmloop.nn._attention import AttentionForm
from ohmloop.nn._conv import CONVS, ConvForm
from ohmloop.nn._layer import AnalogLayer, Form, state_of
from ohmloop.nn._products import (
    LinearForm,
    ProductsForm,
    TransposedLinearForm,
    has_products,
    is_experts,
)
from ohmloop.nn._recurrent import CELLS, RECURRENT, CellForm, RecurrentForm
from ohmloop.nn._transposed import TRANSPOSED, TransposedForm

_FORMS: tuple[tuple[tuple[type[nn.Module], ...], Form], ...] = (
    ((nn.Linear,), LinearForm()),
    (CONVS, ConvForm()),
    (TRANSPOSED, TransposedForm()),
    ((nn.MultiheadAttention,), AttentionForm()),
    (RECURRENT, RecurrentForm()),
    (CELLS, CellForm()),
)
_HF_LINEAR = TransposedLinearForm()
_PRODUCTS = ProductsForm()

LOOKUPS = (nn.Embedding, nn.EmbeddingBag)


def form_of(module: nn.Module, *, asked: bool) -> Form | str:
    """Return how a layer computes with analog products, or why it cannot.

    Args:
        module: With parameters of its own.
        asked: Whether the layer itself was named; then a module that multiplies with its parameters in code
            of its own is taken as well.
    """
    if isinstance(module, AnalogLayer):
        return state_of(module).form
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance, which an analog class would not see"
    for types, form in _FORMS:
        base = next((t for t in types if isinstance(module, t)), None)
        if base is None:
            continue
        if _keeps(module, base):
            return form
        return _PRODUCTS if asked and has_products(module) else _own_code(base)
    if _is_hf_linear(module):
        return _HF_LINEAR
    if is_experts(module):
        return _PRODUCTS
    why = digital_reason(module)
    if why is not None:
        return why
    if has_products(module):
        if asked:
            return _PRODUCTS
        return "multiplies in code of its own, if at all; name it in where to put its products on arrays"
    return "no matrix among its parameters"


def _keeps(module: nn.Module, base: type[nn.Module]) -> bool:
    """Whether a class computes as its base does."""
    ways = ("forward", "_conv_forward") if base in CONVS else ("forward",)
    return all(getattr(type(module), way) is getattr(base, way) for way in ways)


def _own_code(base: type[nn.Module]) -> str:
    return f"its class changes what {base.__name__} computes; name it in where to put its products on arrays"


def _is_hf_linear(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def digital_reason(module: nn.Module) -> str | None:
    """Return why layers of this type stay digital whatever the hardware; None where nothing is known."""
    if isinstance(module, LOOKUPS):
        return "a look-up, no matrix product"
    name = type(module).__name__
    if name.endswith("Norm") or ("Norm" in name and name[-2:] in ("1d", "2d", "3d")):
        return "normalisation stays digital"
    return None


def is_attention(module: nn.Module) -> bool:
    """Whether a module without parameters of its own multiplies activations with each other."""
    name = type(module).__name__
    return name.endswith(("Attention", "SelfAttention")) and any(True for _ in module.children())


def stops_fast_path(module: nn.Module) -> bool:
    """Whether a module may hand its layers' parameters to a fused kernel that no layer sees."""
    return isinstance(module, nn.TransformerEncoderLayer)


def out_projection(module: nn.Module) -> nn.Module | None:
    """Return the layer that `nn.MultiheadAttention` computes without calling it."""
    if isinstance(module, nn.MultiheadAttention):
        return cast(nn.Module, module.out_proj)
    return None


def has_channels(module: nn.Module) -> bool:
    """Whether a module is a layer on arrays that gives one product: channels that can be corrected."""
    if not isinstance(module, AnalogLayer) or not state_of(module).is_analog:
        return False
    forms = (LinearForm, TransposedLinearForm, ConvForm, TransposedForm)
    return isinstance(state_of(module).form, forms)
