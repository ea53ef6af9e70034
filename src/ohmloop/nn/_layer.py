"""Analog layers: the same modules, with a product that chips may compute.

`analogize` swaps a layer's class for one that inherits from it: names, parameters, the state dict, isinstance,
copies and pickles stay as they are. Without a chip (`program`) the layer computes as its digital class does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.crossbar import Hardware, Streams
from ohmloop.errors import ConversionError
from ohmloop.nn._held import Held, Matrix, Ranges, hold

STATE = "_ohmloop_layer"


class Form(Protocol):
    """How a type of layer computes with analog products.

    Attributes:
        reason: Why it is analog, and what of it stays digital.
    """

    reason: str

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return what the layer multiplies with."""

    def forward(self, module: nn.Module, state: LayerState, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer gives on its chips."""


class Chip:
    """What all layers of a model share while it is one chip, or N chips at once.

    Attributes:
        streams: Of the noise that is fresh at each read.
        batch: Inputs of one pass where N > 1 chips share it: a batch of that many rows is the same for every
            chip, one of N times as many holds the chips one after the other.
    """

    def __init__(self, streams: Streams, batch: int | None = None) -> None:
        self.streams = streams
        self.batch = batch
        self._moved: dict[torch.device, Streams] = {}

    @property
    def n(self) -> int:
        """How many chips."""
        return len(self.streams)

    def streams_on(self, place: torch.device) -> Streams:
        """Return the streams where they are wanted; a model that was moved goes on with streams of its own."""
        if self.streams.generators[0].device == place:
            return self.streams
        if place not in self._moved:
            self._moved[place] = Streams(
                [
                    torch.Generator(device=place).manual_seed(
                        int(torch.randint(2**62, (1,), generator=g, device=g.device))
                    )
                    for g in self.streams.generators
                ]
            )
        return self._moved[place]


Version = tuple[int | None, str]


@dataclass(frozen=True)
class Plan:
    """How a layer's matrices get onto the chip; kept so that it can be done again, at another time.

    Attributes:
        hardware: What was asked for.
        seeds: For each matrix, for each array that holds it, one seed a chip.
        gain: Digital gain that is known beforehand.
        drift_gain: Whether each matrix gets a digital gain against drift.
        versions: What identifies the contents of the parameters, as they were programmed: their count of
            changes, and their type and place. The count is None on the way into a copy.
    """

    hardware: Hardware
    seeds: dict[str, tuple[tuple[int, ...], ...]]
    gain: float
    drift_gain: bool
    versions: dict[str, Version]


@dataclass(eq=False)
class LayerState:
    """What one analog layer knows.

    Attributes:
        name: In its model.
        hardware: With an array.
        form: How it computes.
        is_analog: False for a layer that only hands on to an analog one inside it.
        ranges: Of its converters, by matrix, where they were calibrated.
        chip: None while it computes nominally.
        plan: How its matrices were programmed.
        held: Its matrices as programmed; empty where they are programmed afresh at each pass.
        observe: Told the inputs of each product, while somebody listens.
    """

    name: str
    hardware: Hardware
    form: Form
    is_analog: bool = True
    ranges: dict[str, Ranges] = field(default_factory=dict)
    chip: Chip | None = None
    plan: Plan | None = None
    held: dict[str, Held] = field(default_factory=dict)
    observe: Callable[[str, int, Tensor], None] | None = None
    _fresh: dict[str, Held] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fresh": None, "observe": None}

    @property
    def is_active(self) -> bool:
        """Whether the layer's own class is not asked."""
        return self.chip is not None or self.observe is not None

    def erase(self) -> None:
        """Forget the chip."""
        self.chip, self.plan, self.held, self._fresh = None, None, {}, None

    def of_a_pass(self) -> LayerState:
        """Return the state that one pass through the layer sees: programmed once for it."""
        return self if self.plan is None or self.held else replace(self, _fresh={})

    def get(self, module: nn.Module, key: str) -> Held | None:
        """Return a matrix on the chip; None where the layer computes it nominally."""
        if self.chip is None or not self.is_analog:
            return None
        if key in self.held:
            return self.held[key]
        fresh: dict[str, Held] = {} if self._fresh is None else self._fresh
        if key not in fresh:
            matrix = next(m for m in self.form.matrices(module) if m.key == key)
            fresh[key] = self.programmed(module, matrix)
        return fresh[key]

    def programmed(self, module: nn.Module, matrix: Matrix) -> Held:
        """Program one matrix as the plan says."""
        plan = self.plan
        assert plan is not None
        place = cast(Tensor, getattr(module, matrix.parameter)).device
        return hold(
            matrix,
            module,
            plan.hardware,
            [
                Streams([torch.Generator(device=place).manual_seed(seed) for seed in seeds])
                for seeds in plan.seeds[matrix.key]
            ],
            ranges=self.ranges_for(plan.hardware, matrix.key),
            gain=plan.gain,
            drift_gain=plan.drift_gain,
        )

    def versions(self, module: nn.Module, hardware: Hardware) -> dict[str, Version]:
        """Return what identifies the contents of everything that this hardware's arrays hold."""
        array = hardware.array
        assert array is not None
        found: dict[str, Tensor] = {}
        for matrix in self.form.matrices(module):
            found[matrix.parameter] = cast(Tensor, getattr(module, matrix.parameter))
            bias = matrix.bias(module) if array.analog_bias else None
            if bias is not None:
                found[f"{matrix.key}, bias"] = bias  # a view counts its base's changes
        # What a weight is made from: parametrizations, and the hooks of old that keep weight_g, weight_orig.
        made = tuple(f"{matrix.parameter}_" for matrix in self.form.matrices(module))
        for name, p in module.named_parameters():
            if name.startswith(("parametrizations.", *made)):
                found[name] = p
        # Inference tensors do not count their changes; they cannot be trained either.
        return {
            name: (-1 if p.is_inference() else p._version, f"{p.dtype} on {p.device.type}")
            for name, p in found.items()
        }

    def ranges_for(self, hardware: Hardware, key: str) -> Ranges | None:
        """Return the calibrated ranges, if they were found for arrays that add up the same sums."""
        asked, own = hardware.array, self.hardware.array
        assert asked is not None
        assert own is not None
        same = ("mapping", "rows", "columns", "weight_bits", "slice_bits", "scale", "analog_bias")
        if any(getattr(asked, name) != getattr(own, name) for name in same):
            return None
        each = [a.adc.per_column if a.adc is not None else None for a in (asked, own)]
        found = self.ranges.get(key)
        if found is not None and each[0] != each[1]:
            return found._replace(adc=(None,) * len(found.adc))
        return found

    def product(
        self,
        module: nn.Module,
        key: str,
        x: Tensor,
        *,
        weight: Callable[[], Tensor],
        bias: Tensor | None = None,
        group: int = 0,
        axis: int = 0,
    ) -> Tensor:
        """Return ``... x out`` of ``... x in``: the product with a matrix, plus bias.

        Args:
            module: The layer.
            key: Of the matrix.
            x: Inputs.
            weight: Gives the nominal ``out x in``.
            bias: ``out``.
            group: Of the matrix.
            axis: Where the batch runs in ``x``, for many chips at once.
        """
        if self.observe is not None:
            self.observe(key, group, x)
        held = self.get(module, key)
        if held is None:
            return F.linear(x, weight(), bias)
        assert self.chip is not None
        if held.place != x.device:
            held = held.map(lambda t: t.to(x.device))
        if held.bias_row:
            bias = None
        if held.is_frozen and held.n == 1 and not held.bias_row:
            assert held.plain is not None
            return F.linear(x, held.plain[group][0], bias)
        with _own_precision(x, held) as x:
            out = self._read(held, x, group, axis)
        if bias is not None:
            out = out + bias if torch.is_grad_enabled() else out.add_(bias)
        return _as_autocast(out)

    def _read(self, held: Held, x: Tensor, group: int, axis: int) -> Tensor:
        chip = self.chip
        assert chip is not None
        streams = chip.streams_on(x.device) if held.is_noisy else None
        # One chip draws its noise in the order in which it would among many.
        lead = x.movedim(axis, 0) if axis else x
        if held.n == 1:
            rows = held.read(lead.reshape(-1, x.shape[-1]), group, streams)
            alone = rows.reshape(*lead.shape[:-1], rows.shape[-1])
            return alone.movedim(0, axis) if axis else alone
        parts = split(lead, held.n, chip.batch)  # (N) x B x ... x in
        rows = held.read(
            parts.flatten(1, -2) if len(parts) > 1 else parts[0].flatten(0, -2), group, streams
        )
        out = rows.reshape(held.n, *parts.shape[1:-1], rows.shape[-1]).flatten(0, 1)
        return out.movedim(0, axis)


def split(x: Tensor, n: int, batch: int | None) -> Tensor:
    """Return ``N x B x ...`` of a batch of N chips one after the other, ``1 x B x ...`` of a shared one."""
    if n == 1 or len(x) == batch:
        return x.unsqueeze(0)
    return x.reshape(n, len(x) // n, *x.shape[1:])


@contextmanager
def _own_precision(x: Tensor, held: Held) -> Iterator[Tensor]:
    """While active, autocast leaves noise and converters alone."""
    kind = x.device.type
    if held.is_frozen or not torch.is_autocast_enabled(kind):
        yield x
        return
    with torch.autocast(kind, enabled=False):
        yield x.float() if x.dtype.itemsize < 4 else x


def _as_autocast(x: Tensor) -> Tensor:
    """Return what autocast would have made of a product."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _named(error: Exception, name: str, kind: type[nn.Module]) -> ConversionError:
    """Return the error of one layer's pass, with its name."""
    label = f"{name or 'the model'} ({kind.__name__})"
    text = str(error)
    is_named = bool(name) and text.startswith((f"{name}:", f"{name}.", f"{name} ("))
    return ConversionError(text if is_named else f"{label}: {text}")


class AnalogLayer(nn.Module):
    """A layer whose class was swapped; its digital class follows in the order of inheritance."""

    _digital: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute on the chip, or as the digital class does where there is none."""
        state = state_of(self)
        if not state.is_active:
            return super().forward(*args, **kwargs)
        try:
            return state.form.forward(self, state.of_a_pass(), *args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ConversionError) as error:
            raise _named(error, state.name, self._digital) from error

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnalogLayer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        state = state_of(self)
        state.held = {key: held.map(fn) for key, held in state.held.items()}
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        contents = self.__getstate__()  # type: ignore[no-untyped-call]  # of RNNBase
        state = state_of(self)
        plan = state.plan
        if plan is not None:
            # A copy's parameters count their changes from the start.
            is_same = plan.versions == state.versions(self, plan.hardware)
            versions: dict[str, Version] = {
                name: (None, place) for name, (_, place) in plan.versions.items() if is_same
            }
            contents = {**contents, STATE: replace(state, plan=replace(plan, versions=versions))}
        return _empty, (self._digital,), contents

    def __setstate__(self, contents: dict[str, Any]) -> None:
        super().__setstate__(contents)  # type: ignore[no-untyped-call]  # torch has no types here
        state = state_of(self)
        plan = state.plan
        if plan is not None:
            now = state.versions(self, plan.hardware)
            versions = {
                name: (now[name][0] if count is None else count, place)
                for name, (count, place) in plan.versions.items()
            }
            state.plan = replace(plan, versions=versions)


def state_of(module: nn.Module) -> LayerState:
    """Return what an analog layer knows."""
    return cast(LayerState, module.__dict__[STATE])


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def analog_class(digital: type[nn.Module]) -> type[nn.Module]:
    """Return the analog class of a digital one; always the same."""
    if digital not in _CLASSES:
        _CLASSES[digital] = _made(digital)
    return _CLASSES[digital]


def _made(digital: type[nn.Module]) -> type[nn.Module]:
    name = f"Analog{digital.__name__}"
    return type(name, (AnalogLayer, digital), {"_digital": digital, "__module__": __name__})


def _empty(digital: type[nn.Module]) -> nn.Module:
    """Return a module without contents, for copies and pickles to fill."""
    cls = analog_class(digital)
    return cls.__new__(cls)


def swap(module: nn.Module, state: LayerState) -> None:
    """Make a layer analog."""
    module.__class__ = analog_class(type(module))  # which Python may refuse
    module.__dict__[STATE] = state


def swap_back(module: nn.Module) -> None:
    """Make an analog layer digital again."""
    del module.__dict__[STATE]
    module.__class__ = cast(AnalogLayer, module)._digital


def analog_layers_of(model: nn.Module) -> dict[str, AnalogLayer]:
    """Return the layers of a model whose class was swapped, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, AnalogLayer)}


def is_chip(model: nn.Module) -> bool:
    """Whether ``model`` computes on arrays that were programmed."""
    return any(state_of(layer).chip is not None for layer in analog_layers_of(model).values())


@contextmanager
def observed(
    layers: Mapping[str, AnalogLayer], note: Callable[[str, str, int, Tensor], None]
) -> Iterator[None]:
    """While active, the layers compute nominally and tell the inputs of each product.

    Args:
        layers: By name.
        note: Given the layer's name, the key of the matrix, its group and the inputs ``... x in``; for
            convolutions the layer's inputs ``B x C x ...`` as they come.
    """
    kept = []
    try:
        for name, layer in layers.items():
            state = state_of(layer)
            kept.append((state, state.chip))
            state.chip = None
            state.observe = functools.partial(note, name)
        yield
    finally:
        for state, chip in kept:
            state.chip, state.observe = chip, None
