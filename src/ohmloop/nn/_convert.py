"""A PyTorch model becomes analog, in place: which parameters devices hold, and which stay digital."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError

Where = (
    None
    | str
    | type[nn.Module]
    | tuple[type[nn.Module], ...]
    | Sequence[str]
    | Callable[[str, nn.Module], bool]
)

ANALOG_TYPES = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""What is analog unless ``where`` says otherwise: layers that are one matrix product."""
_MARK = "_ohmloop_analog"


@dataclass(frozen=True)
class _Record:
    hardware: Hardware
    names: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class LayerSummary:
    """One layer that holds parameters.

    Attributes:
        name: As in ``model.named_modules()``; "" is the model itself.
        type: Class name.
        analog: Whether its own parameters are on devices.
        reason: Why it is analog or digital.
        parameters: How many scalars it holds itself.
    """

    name: str
    type: str
    analog: bool
    reason: str
    parameters: int


def analogize(model: nn.Module, hardware: Hardware, *, where: Where = None) -> nn.Module:
    """Put the parameters of ``model`` on analog hardware, in place, and return the model.

    Parameter names, the state dict and tied weights stay as they are. The model itself keeps
    computing with its nominal weights: noise enters where devices are drawn (`draw`, `draw_fleet`,
    `evaluate_fleet`, and training).

    Args:
        model: Any module.
        hardware: What its analog layers are made of.
        where: Which layers are analog. None: Linear, Conv1d and Conv2d, weights and biases. "all":
            every parameter, batch norm included (arXiv 2412.02779). A module type or a tuple of
            them; a list of name patterns ("features.*"); or a function of name and module.

    Raises:
        ConversionError: If nothing matches, the model is analog already, a parameter is not
            initialised or not finite. The model is then unchanged.

    >>> model = analogize(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), Hardware(device="lognormal:0.3"))
    >>> sorted(analog_parameters(model))
    ['0.bias', '0.weight']
    """
    if _record(model) is not None:
        raise ConversionError(
            "the model is analog already. Take it back first: model = digitize(model)."
        )
    chosen = _selector(where)
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if _own(module) and chosen(name, module)
    ]
    if not layers:
        held = sorted({type(m).__name__ for m in model.modules() if _own(m)})
        raise ConversionError(
            f"no layer with parameters matches where={where!r}. The model's layers with parameters "
            f"are {', '.join(held) or 'none'}; give for example "
            f'where="all" or where=["{_example(model)}"].'
        )
    for name, module in layers:
        _check(name, module)
    identities = {id(p) for _, module in layers for p in _own(module).values()}
    names = tuple(name for name, p in model.named_parameters() if id(p) in identities)
    object.__setattr__(model, _MARK, _Record(hardware, names, tuple(name for name, _ in layers)))
    return model


def digitize(model: nn.Module) -> nn.Module:
    """Make an analog model digital again, in place; its nominal weights are untouched."""
    if _record(model) is not None:
        object.__delattr__(model, _MARK)
    return model


def hardware_of(model: nn.Module) -> Hardware:
    """Return the hardware that ``model`` was put on; ConversionError if it is digital."""
    return _need(model).hardware


def analog_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that devices hold, by name; a tied one once, under its first name."""
    wanted = set(_need(model).names)
    return {name: p for name, p in model.named_parameters() if name in wanted}


def summary(model: nn.Module) -> tuple[LayerSummary, ...]:
    """List every layer that holds parameters: analog or digital, and why."""
    record = _record(model)
    analog = set(record.layers) if record is not None else set()
    rows = []
    for name, module in model.named_modules():
        own = _own(module)
        if not own:
            continue
        on = name in analog
        if on:
            reason = "one matrix product" if isinstance(module, ANALOG_TYPES) else "asked for"
        elif record is None:
            reason = "the model is digital"
        elif isinstance(module, ANALOG_TYPES):
            reason = "left out by where"
        else:
            reason = _REASONS.get(type(module).__name__, "no analog form for this type yet")
        rows.append(
            LayerSummary(
                name, type(module).__name__, on, reason, sum(p.numel() for p in own.values())
            )
        )
    return tuple(rows)


_REASONS = {
    "BatchNorm1d": "normalisation stays digital",
    "BatchNorm2d": "normalisation stays digital",
    "BatchNorm3d": "normalisation stays digital",
    "LayerNorm": "normalisation stays digital",
    "GroupNorm": "normalisation stays digital",
    "Embedding": "a look-up, no matrix product",
    "MultiheadAttention": "its fused input projection has no analog form yet; out_proj is listed apart",
    "LSTM": "recurrent layers have no analog form yet",
    "GRU": "recurrent layers have no analog form yet",
    "RNN": "recurrent layers have no analog form yet",
}


def _record(model: nn.Module) -> _Record | None:
    record = getattr(model, _MARK, None)
    return record if isinstance(record, _Record) else None


def _need(model: nn.Module) -> _Record:
    record = _record(model)
    if record is None:
        raise ConversionError(
            'the model is digital. First: analogize(model, Hardware(device="lognormal:0.4")).'
        )
    return record


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


def _example(model: nn.Module) -> str:
    return next((name for name, m in model.named_modules() if _own(m) and name), "layer.*")


def _check(name: str, module: nn.Module) -> None:
    for key, p in _own(module).items():
        label = f"{name}.{key}" if name else key
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ConversionError(
                f"{label} has no shape yet: run one batch through the lazy model, then convert."
            )
        if not p.is_floating_point():
            raise ConversionError(f"{label} is of type {p.dtype}; devices hold real numbers.")
        if not bool(torch.isfinite(p).all()):
            raise ConversionError(f"{label} holds NaN or infinite values; repair the model first.")


def _selector(where: Where) -> Callable[[str, nn.Module], bool]:
    if where is None:
        return lambda name, module: isinstance(module, ANALOG_TYPES)
    if isinstance(where, str):
        if where == "all":
            return lambda name, module: True
        raise ConversionError(
            f'where={where!r}: a text must be "all"; write name patterns as a list: [{where!r}].'
        )
    if isinstance(where, type) or (
        isinstance(where, tuple) and where and all(isinstance(t, type) for t in where)
    ):
        types = where
        return lambda name, module: isinstance(module, types)
    if callable(where):
        return where
    if isinstance(where, list | tuple) and where and all(isinstance(w, str) for w in where):
        patterns = [str(w) for w in where]
        return lambda name, module: any(fnmatch.fnmatchcase(name, p) for p in patterns)
    raise ConversionError(
        f'where={where!r}: expected None, "all", module types, a list of name patterns, or a function.'
    )
