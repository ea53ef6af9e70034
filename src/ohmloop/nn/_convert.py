"""A PyTorch model becomes analog, in place: which layers devices hold, and which stay digital."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn._forms import form_of, out_projection, stops_fast_path
from ohmloop.nn._held import check_room
from ohmloop.nn._layer import (
    AnalogLayer,
    Form,
    LayerState,
    analog_layers_of,
    state_of,
    swap,
    swap_back,
)

Where = (
    None
    | str
    | type[nn.Module]
    | tuple[type[nn.Module], ...]
    | Sequence[str]
    | Callable[[str, nn.Module], bool]
)
Assigned = Hardware | Mapping[str, Hardware]
"""One hardware for all layers, or name patterns and theirs."""

ANALOG_TYPES = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""What the law on weights covers unless ``where`` says otherwise: the layers of the published results."""
_DIGITAL = "_ohmloop_digital"
_MARK = "_ohmloop_analog"


@dataclass(frozen=True)
class Record:
    """What `analogize` noted on a model.

    Attributes:
        hardware: Of each analog layer, by its name.
        names: The parameters that devices hold.
        parameters: The hardware of each of these.
        left: Why a layer that was looked at stayed digital, by its name.
    """

    hardware: dict[str, Hardware]
    names: tuple[str, ...]
    parameters: dict[str, Hardware]
    left: dict[str, str] = field(default_factory=dict)


def analogize(model: nn.Module, hardware: Assigned, *, where: Where = None) -> nn.Module:
    """Put layers of ``model`` on analog hardware, in place, and return the model.

    Parameter names, the state dict and tied weights stay as they are. The model itself keeps computing with its
    nominal weights: for the law on weights, noise enters where devices are drawn (`draw`, `draw_fleet`,
    `evaluate_fleet`, and training); with an array, chips are programmed (`program`, `evaluate_fleet`).

    Args:
        model: Any module.
        hardware: What its analog layers are made of; or name patterns and the hardware of the layers that
            they match ({"encoder.*": ..., "head": ...}), of which the first counts. Some may have an array and
            others be the law on weights: fleets (`evaluate_fleet`, `evaluate_measure`) then draw the ones and
            program the others; `program` alone cannot make such a model one chip.
        where: Which layers are analog. None: with an array, all that have an analog form (linear layers,
            convolutions, transposed ones, multi-head attention, recurrent layers, experts of mixtures);
            for the law on weights, Linear, Conv1d and Conv2d, weights and biases, as the published results
            have it. "all": every parameter, batch norm included (arXiv 2412.02779), law only. A module type
            or a tuple of them; a list of name patterns ("features.*"); or a function of name and module.
            Of what a pattern with a wildcard matches, layers without an analog form stay digital; a layer that
            is named exactly, or by its type or a function, must have one.

    Raises:
        ConversionError: If nothing matches, the model is analog already, a layer has no analog form, or a
            parameter is not initialised, not finite, empty or too large. The model is then unchanged.

    >>> model = analogize(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), Hardware(device="lognormal:0.3"))
    >>> sorted(analog_parameters(model))
    ['0.bias', '0.weight']
    """
    if _record(model) is not None or analog_layers_of(model):
        raise ConversionError(
            "the model is analog already. Take it back first: model = digitize(model)."
        )
    for module in model.modules():
        module.__dict__.pop(_DIGITAL, None)
    assigned = _Assignment(model, hardware)
    if assigned.has_array:
        return _to_arrays(model, assigned, where)
    chosen = _selector(where, has_array=False)
    layers = [
        (name, module, found)
        for name, module in model.named_modules()
        if _own(module) and chosen(name, module) and (found := assigned(name)) is not None
    ]
    if not layers:
        raise _nothing(model, where)
    for name, module, _ in layers:
        _check(name, module)
    of = {id(p): found for _, module, found in reversed(layers) for p in _own(module).values()}
    parameters = {name: of[id(p)] for name, p in model.named_parameters() if id(p) in of}
    record = Record({name: h for name, _, h in layers}, tuple(parameters), parameters)
    object.__setattr__(model, _MARK, record)
    return model


def _nothing(model: nn.Module, where: Where) -> ConversionError:
    held = sorted({type(m).__name__ for m in model.modules() if _own(m)})
    return ConversionError(
        f"no layer with parameters matches where={where!r}. The model's layers with parameters "
        f"are {', '.join(held) or 'none'}; give for example "
        f'where="all" or where=["{_example(model)}"].'
    )


class _Assignment:
    """Which hardware each layer gets."""

    def __init__(self, model: nn.Module, hardware: Assigned) -> None:
        self._all = hardware if isinstance(hardware, Hardware) else None
        self._patterns: dict[str, Hardware] = {} if self._all else dict(hardware)
        every = [self._all] if self._all is not None else list(self._patterns.values())
        if not every:
            raise ConversionError('hardware is an empty mapping; give {"*": Hardware(...)}.')
        self.has_array = any(h.array is not None for h in every)
        names = [name for name, module in model.named_modules() if _own(module)]
        for pattern in self._patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise ConversionError(
                    f"the pattern {pattern!r} matches no layer with parameters; there are {_some(names)}."
                )

    @property
    def is_one(self) -> bool:
        """Whether all layers get the same."""
        return self._all is not None

    def __call__(self, name: str) -> Hardware | None:
        if self._all is not None:
            return self._all
        return next((h for p, h in self._patterns.items() if fnmatch.fnmatchcase(name, p)), None)

    def names(self, name: str) -> bool:
        """Whether a pattern without a wildcard is this very name."""
        return name in self._patterns


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"


def _to_arrays(model: nn.Module, assigned: _Assignment, where: Where) -> nn.Module:
    """Swap classes where layers have an analog form; nothing is changed before all is checked.

    Layers whose hardware is the law on weights are noted beside them, and keep their class.
    """
    chosen, by_law = _selector(where, has_array=True), _selector(where, has_array=False)
    found: list[tuple[str, nn.Module, Hardware, Form]] = []
    law: list[tuple[str, nn.Module, Hardware]] = []
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        if not _own(module):
            continue
        hardware = assigned(name)
        if hardware is not None and hardware.array is None:
            if by_law(name, module):
                _check(name, module)
                law.append((name, module, hardware))
            elif where is not None:
                left[name] = "left out by where"
            continue
        wanted = chosen(name, module)
        if wanted is False or hardware is None:
            left[name] = (
                "left out by where" if hardware is not None else "no hardware is given for it"
            )
            continue
        asked = wanted is True or assigned.names(name)
        form = form_of(module, asked=asked)
        if isinstance(form, str):
            if asked:
                raise ConversionError(
                    f"{name or 'the model itself'} ({type(module).__name__}) has no analog form: {form}. "
                    "Leave it out of where."
                )
            left[name] = form
            continue
        _check_matrices(name, module, hardware)
        found.append((name, module, hardware, form))
    if not found:
        raise _nothing(model, where)
    return _swapped(model, found, law, left)


def _swapped(
    model: nn.Module,
    found: list[tuple[str, nn.Module, Hardware, Form]],
    law: list[tuple[str, nn.Module, Hardware]],
    left: dict[str, str],
) -> nn.Module:
    drawn = {id(p): h for _, module, h in reversed(law) for p in _own(module).values()}
    of = dict(drawn)
    for name, module, hardware, form in reversed(found):
        for matrix in form.matrices(module):
            key = id(getattr(module, matrix.parameter))
            if key in drawn:
                raise ConversionError(
                    f"{name}.{matrix.parameter} is on an array, and tied to a layer on the law on weights; one "
                    "weight is held in one way. Give both layers the same hardware."
                )
            of[key] = hardware
    parameters = {name: of[id(p)] for name, p in model.named_parameters() if id(p) in of}
    placed = {name: h for name, _, h, _ in found} | {name: h for name, _, h in law}
    hardwares = {name: placed[name] for name, _ in model.named_modules() if name in placed}
    record = Record(hardwares, tuple(parameters), parameters, left)
    try:
        _swap_all(model, found)
    except Exception:
        digitize(model)
        raise
    object.__setattr__(model, _MARK, record)
    return model


def _swap_all(model: nn.Module, found: list[tuple[str, nn.Module, Hardware, Form]]) -> None:
    for name, module, hardware, form in found:
        swap(module, LayerState(name, hardware, form))
    for name, module in list(model.named_modules()):
        inner = out_projection(module)
        if isinstance(inner, AnalogLayer) and not isinstance(module, AnalogLayer):
            # The library reads out_proj's weight without calling it; this class calls it.
            shell = form_of(module, asked=True)
            assert not isinstance(shell, str)
            swap(module, LayerState(name, state_of(inner).hardware, shell, is_analog=False))
    for module in model.modules():
        if stops_fast_path(module) and analog_layers_of(module):
            module.register_forward_pre_hook(_no_fast_path)
        if isinstance(module, nn.TransformerEncoder) and analog_layers_of(module):
            module.__dict__[_NESTED] = module.use_nested_tensor
            module.use_nested_tensor = False


_NESTED = "_ohmloop_nested"


def _no_fast_path(module: nn.Module, inputs: object) -> None:
    """Do nothing: a layer with a hook is not run by a fused kernel that bypasses its analog layers."""


def digitize(model: nn.Module) -> nn.Module:
    """Make an analog model digital again, in place; its nominal weights are untouched.

    Chips that it held are forgotten. A part of a model may be made digital by itself.
    """
    for layer in analog_layers_of(model).values():
        swap_back(layer)
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _no_fast_path:
                del module._forward_pre_hooks[key]
        if _NESTED in module.__dict__:
            module.use_nested_tensor = module.__dict__.pop(_NESTED)
        module.__dict__.pop(_MARK, None)  # parts may have been converted by themselves
        module.__dict__[_DIGITAL] = True  # for the record of a model that this is a part of
    return model


def hardware_of(model: nn.Module) -> Hardware:
    """Return the hardware that ``model`` was put on.

    Raises:
        ConversionError: If it is digital, or its layers are on hardware of several kinds.
    """
    found: list[Hardware] = []
    for hardware in need(model).hardware.values():
        if hardware not in found:
            found.append(hardware)
    if len(found) > 1:
        raise ConversionError(
            f"the model's layers are on {len(found)} kinds of hardware: see summary(model), or name one."
        )
    return found[0]


def has_arrays(model: nn.Module) -> bool:
    """Whether layers of ``model`` are on arrays; False for the law on weights and for a digital model."""
    return bool(analog_layers_of(model))


def law_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the analog parameters that follow the law on weights: all, none, or some where layers differ."""
    of = need(model).parameters
    return {n: p for n, p in analog_parameters(model).items() if of[n].array is None}


def analog_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that devices hold, by name; a tied one once, under its first name."""
    wanted = set(need(model).names)
    return {name: p for name, p in model.named_parameters() if name in wanted}


def _record(model: nn.Module) -> Record | None:
    record = getattr(model, _MARK, None)
    if not isinstance(record, Record):
        return None
    modules = dict(model.named_modules())
    gone = [n for n in record.hardware if _DIGITAL in getattr(modules.get(n), "__dict__", {})]
    if not gone:
        return record
    # Parts were made digital by themselves.
    hardware = {n: h for n, h in record.hardware.items() if n not in gone}
    kept = {id(p) for n in hardware for p in modules[n].parameters()}
    names = [n for n, p in model.named_parameters() if n in record.parameters and id(p) in kept]
    left = record.left | dict.fromkeys(gone, "made digital by itself")
    parameters = {n: record.parameters[n] for n in names}
    return Record(hardware, tuple(names), parameters, left) if hardware else None


def record_of(model: nn.Module) -> Record | None:
    """Return what `analogize` noted on a model, None for a digital one."""
    return _record(model)


def need(model: nn.Module) -> Record:
    """Return what `analogize` noted on a model; ConversionError if it is digital."""
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


def _check_matrices(name: str, module: nn.Module, hardware: Hardware) -> None:
    array = hardware.array
    assert array is not None
    for key, p in _own(module).items():
        label = f"{name}.{key}" if name else key
        if isinstance(p, nn.parameter.UninitializedParameter):
            continue
        if p.is_meta:
            raise ConversionError(
                f"{label} is on the meta device and holds no numbers; load its weights first."
            )
        if p.numel() == 0:
            raise ConversionError(
                f"{label} is empty, of shape {tuple(p.shape)}; an array holds at least one weight. "
                "Leave the layer out of where."
            )
        check_room(label, p.numel(), array, p.device)
    _check(name, module)


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


def _selector(where: Where, *, has_array: bool) -> Callable[[str, nn.Module], bool | None]:
    """Return whether a layer is wanted; None: if it has an analog form."""
    if where is None:
        if has_array:
            return lambda name, module: None
        return lambda name, module: isinstance(module, ANALOG_TYPES)
    if isinstance(where, str):
        if where == "all" and has_array:
            raise ConversionError(
                'where="all" puts every parameter on devices, which only the law on weights can; an array '
                "holds matrices. Leave out where for every layer that has an analog form."
            )
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
        function = where
        return lambda name, module: bool(function(name, module))
    if isinstance(where, list | tuple) and where and all(isinstance(w, str) for w in where):
        return _by_name([str(w) for w in where], has_array=has_array)
    raise ConversionError(
        f'where={where!r}: expected None, "all", module types, a list of name patterns, or a function.'
    )


def _by_name(patterns: list[str], *, has_array: bool) -> Callable[[str, nn.Module], bool | None]:
    def chosen(name: str, module: nn.Module) -> bool | None:
        if name in patterns:
            return True
        matches = any(fnmatch.fnmatchcase(name, p) for p in patterns)
        return None if matches and has_array else matches

    return chosen
