"""A model becomes one chip: its matrices are programmed into arrays, in place, and read at each pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ohmloop.crossbar import Hardware, Programming, Streams
from ohmloop.errors import ConversionError, OhmloopError
from ohmloop.nn._allocate import check_divided
from ohmloop.nn._conv import ConvForm, calibrated_conv, conv_rows
from ohmloop.nn._convert import law_parameters, need, record_of
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._held import Held, Ranges, ranged
from ohmloop.nn._layer import (
    AnalogLayer,
    Chip,
    LayerState,
    Plan,
    analog_layers_of,
    observed,
    state_of,
)


def program(
    model: nn.Module,
    generator: int | torch.Generator,
    *,
    hardware: Hardware | None = None,
    differentiable: bool = False,
    deployment: Deployment | None = None,
) -> nn.Module:
    """Make ``model`` one chip, in place, and return it: each analog layer gets arrays of its own.

    From then on ``model(x)`` computes on that chip; noise that is fresh at each read comes from ``generator``.
    Layers with the same weights (tied) share their arrays. The state dict does not change: what was programmed
    is no part of it, but moves with ``model.to`` and is copied with the model. Programming again makes
    another chip; `erase` gives the nominal network back.

    Args:
        model: On hardware with an array.
        generator: A seed, or a generator on the model's device: the same one gives the same chip.
        hardware: Instead of the model's own, for all layers; with an array.
        differentiable: For training on the hardware: weights are programmed anew, with the same random numbers,
            at each pass, from the parameters as they stand (those that `torch.func.functional_call` puts in
            place as well), and gradients flow back to them; rounding is straight-through. Program again at
            each step for fresh chips. False: the chip keeps what was programmed, whatever becomes of the
            parameters.
        deployment: What the chip gets beside its weights: of it, ``arrays``, ``layer_arrays``,
            ``mean_gain`` and ``drift_gain``.

    Raises:
        ConversionError: If the model has no layer on an array, or one cannot be programmed; its name is given
            and the model is left as it was; or if the deployment's ``cells`` are not divided yet.

    >>> from ohmloop.crossbar import Array, Hardware
    >>> from ohmloop.nn import analogize
    >>> model = analogize(nn.Linear(4, 2), Hardware(device="lognormal:0.1", array=Array()))
    >>> program(model, 7)(torch.ones(1, 4)).shape
    torch.Size([1, 2])
    """
    place = _place(model)
    _check_whole(model)
    if deployment is not None:
        check_divided(model, deployment)
    if isinstance(generator, int):
        generator = torch.Generator(device=place).manual_seed(generator)
    elif generator.device.type != place.type:
        raise ConversionError(
            f"the model is on {place} and the generator on {generator.device}; give one on {place}, or a seed."
        )
    install(
        model,
        Streams([generator]),
        hardware=hardware,
        deployment=deployment,
        differentiable=differentiable,
    )
    return model


def _place(model: nn.Module) -> torch.device:
    layers = analog_layers_of(model)
    if not layers:
        need(model)
        raise ConversionError(
            "the model is on the law on weights, which has no array to program. Give its Hardware an array, or "
            "draw a device: torch.func.functional_call(model, draw(model, generator), (x,))."
        )
    return next(p.device for layer in layers.values() for p in layer.parameters())


def _check_whole(model: nn.Module) -> None:
    """Raise ConversionError where layers on the law on weights stand beside the arrays."""
    law = law_parameters(model) if record_of(model) is not None else {}
    if law:
        raise ConversionError(
            f"{next(iter(law))} follows the law on weights, which no array holds: as one chip the model "
            "would keep it exact. Score devices of both kinds by evaluate_fleet(model, ...) or "
            "evaluate_measure(model, ...), or give every layer hardware with an array."
        )


def install(
    model: nn.Module,
    streams: Streams,
    *,
    hardware: Hardware | None = None,
    deployment: Deployment | None = None,
    differentiable: bool = False,
    batch: int | None = None,
) -> None:
    """Make ``model`` N chips at once, one for each stream; see `program`.

    Args:
        model: On hardware with an array.
        streams: Of the chips.
        hardware: Instead of the model's own.
        deployment: What the chips get beside their weights.
        differentiable: As in `program`.
        batch: Inputs of one pass that all chips share.
    """
    if hardware is not None and hardware.array is None:
        raise ConversionError("this hardware has no array to program; give it one: array=Array().")
    deployment = deployment or Deployment()
    layers = analog_layers_of(model)
    chip = Chip(streams, batch)
    seeds: dict[object, tuple[tuple[int, ...], ...]] = {}
    done: dict[object, Held] = {}
    kept: list[
        object
    ] = []  # parametrised weights are made anew when asked for; their ids must not be reused
    made: dict[str, tuple[Plan, dict[str, Held]]] = {}
    kinds: list[Hardware] = []
    for name, layer in layers.items():
        state = state_of(layer)
        own = hardware or state.hardware
        if own not in kinds:
            kinds.append(own)
        plan = Plan(
            own, {}, _mean_gain(own, deployment), deployment.drift_gain, state.versions(layer, own)
        )
        held: dict[str, Held] = {}
        for matrix in state.form.matrices(layer) if state.is_analog else ():
            weight = getattr(layer, matrix.parameter)
            row = matrix.bias(layer) if own.array is not None and own.array.analog_bias else None
            kept += [weight, row]
            # Tied weights stand on one array, if they are read the same way.
            key = (
                id(weight),
                None if row is None else row.data_ptr(),
                matrix.stack(layer).shape,
                type(state.form),
                matrix.key,
                kinds.index(own),
            )
            if key not in seeds:
                seeds[key] = _spawn(streams, deployment.arrays_of(name))
            plan.seeds[matrix.key] = seeds[key]
            if differentiable:
                continue
            if key not in done:
                bare = replace(state, plan=plan, chip=chip, ranges={})
                done[key] = _programmed(layer, bare, matrix.key)
            held[matrix.key] = _with_ranges(done[key], state.ranges_for(own, matrix.key))
        made[name] = plan, held
    for name, (plan, held) in made.items():
        state = state_of(layers[name])
        state.erase()
        state.chip, state.plan, state.held = chip, plan, held


def _programmed(layer: AnalogLayer, state: LayerState, key: str) -> Held:
    """Program one matrix for good; an error names the layer."""
    matrix = next(m for m in state.form.matrices(layer) if m.key == key)
    try:
        with torch.no_grad():
            return state.programmed(layer, matrix)
    except (OhmloopError, MemoryError, RuntimeError) as error:
        label = f"{state.name}.{matrix.parameter}" if state.name else matrix.parameter
        raise ConversionError(f"{label} cannot be programmed: {error}") from error


def _spawn(streams: Streams, arrays: int) -> tuple[tuple[int, ...], ...]:
    """Return one seed for each array and chip, the next numbers of the chips' own streams."""
    place = streams.generators[0].device
    drawn = [torch.randint(2**62, (arrays,), generator=g, device=place) for g in streams.generators]
    # Read together: each reading waits for a GPU.
    return tuple(tuple(column) for column in torch.stack(drawn, 1).tolist())


def _mean_gain(hardware: Hardware, deployment: Deployment) -> float:
    if not deployment.mean_gain:
        return 1.0
    cell = hardware.device.cell()
    if cell.write.kind != "lognormal":
        raise ConversionError(
            f'mean_gain divides by the mean factor of log-normal write noise; device "{hardware.device.name}" '
            'has Gaussian write noise, whose mean factor is 1. Leave it out, or use the deployment "channel".'
        )
    return math.exp(-0.5 * cell.write.sigma**2)


def erase(model: nn.Module) -> nn.Module:
    """Forget the chip: ``model`` computes with its nominal weights again. Its calibrated ranges stay."""
    for layer in analog_layers_of(model).values():
        state_of(layer).erase()
    return model


def age(model: nn.Module, seconds: float) -> nn.Module:
    """Bring a programmed ``model`` to another time after programming: the same chip, drifted; in place.

    Args:
        model: As `program` left it, or a copy; its analog parameters must not have changed since, nor their
            type or device.
        seconds: Since programming, >= 0; earlier than now is allowed.

    Raises:
        ConversionError: If the model is no chip, or its weights have changed.
    """
    layers = analog_layers_of(model)
    active = {name: layer for name, layer in layers.items() if state_of(layer).chip is not None}
    if not active:
        raise ConversionError("the model is no chip yet: program(model, seed) first.")
    made: dict[str, tuple[Plan, dict[str, Held]]] = {}
    done: dict[object, Held] = {}  # tied layers share their arrays, and so their seeds
    for name, layer in active.items():
        state = state_of(layer)
        plan = state.plan
        assert plan is not None
        if state.held and plan.versions != state.versions(layer, plan.hardware):
            raise ConversionError(
                f"{name or 'the model'}: its weights have changed or moved since they were programmed, so that "
                "the chip cannot be followed. Program it again."
            )
        hardware = Hardware.model_validate({**dict(plan.hardware), "seconds": seconds})
        older = replace(plan, hardware=hardware)
        moved = replace(state, plan=older, ranges={})
        held: dict[str, Held] = {}
        for key in state.held:
            if plan.seeds[key] not in done:
                done[plan.seeds[key]] = _programmed(layer, moved, key)
            held[key] = _with_ranges(done[plan.seeds[key]], state.ranges_for(hardware, key))
        made[name] = older, held
    for name, (plan, held) in made.items():
        state = state_of(active[name])
        state.plan, state.held = plan, held
    return model


def calibrate_converters(
    model: nn.Module, inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor]
) -> nn.Module:
    """Set converter ranges that the arrays leave open from inputs, in place, and return the model.

    The nominal network sees the inputs once. The full scale of a DAC whose range is "calibrated" becomes the
    largest input magnitude of its matrix; that of an ADC without a range, its ``quantile`` of the unconverted
    sums of an ideally programmed array. They are design constants: every chip that is programmed afterwards
    has them, and so has one that is programmed already.

    Args:
        model: On hardware with an array.
        inputs: What the model takes: one tensor, a tuple of its arguments, or a mapping of keyword arguments.

    Raises:
        ConversionError: If no layer is on an array, or none of them was used.
    """
    _place(model)
    layers = analog_layers_of(model)
    seen = observe_inputs(model, inputs)
    if not seen:
        raise ConversionError("none of the analog layers was used for these inputs.")
    made: dict[str, dict[str, Ranges]] = {name: {} for name in layers}
    for name, layer in layers.items():
        state = state_of(layer)
        for matrix in state.form.matrices(layer) if state.is_analog else ():
            groups = {g: x for (n, k, g), x in seen.items() if (n, k) == (name, matrix.key)}
            if groups:
                made[name][matrix.key] = _ranges(layer, state, matrix.key, groups)
    for name, ranges in made.items():
        state = state_of(layers[name])
        state.ranges |= ranges
        for key, held in state.held.items():
            assert state.plan is not None
            state.held[key] = _with_ranges(held, state.ranges_for(state.plan.hardware, key))
    return model


def observe_inputs(
    model: nn.Module, inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor]
) -> dict[tuple[str, str, int], Tensor]:
    """Return what each matrix was driven with in one pass of the nominal network, in eval mode.

    Returns:
        (layer, matrix, group) -> inputs ``P x in``; of convolutions ``B x in x ...``.
    """
    seen: dict[tuple[str, str, int], list[Tensor]] = {}
    layers = analog_layers_of(model)

    def note(name: str, key: str, group: int, x: Tensor) -> None:
        form = state_of(layers[name]).form
        rows = x if isinstance(form, ConvForm) else x.reshape(-1, x.shape[-1])
        seen.setdefault((name, key, group), []).append(rows.detach())

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), observed(layers, note):
            if isinstance(inputs, Mapping):
                model(**inputs)
            elif isinstance(inputs, Tensor):
                model(inputs)
            else:
                model(*inputs)
    finally:
        for module, mode in modes:
            module.training = mode
    # Convolutions may see images of several sizes; the first calls of equal size are kept.
    return {
        key: torch.cat([x for x in parts if x.shape[1:] == parts[0].shape[1:]])
        for key, parts in seen.items()
    }


def _ideal(layer: AnalogLayer, state: LayerState, key: str) -> Held:
    """Return one matrix as programmed without error."""
    array = state.hardware.array
    assert array is not None
    ideal = array.model_copy(update={"programming": Programming(method="ideal")})
    hardware = state.hardware.model_copy(update={"array": ideal, "seconds": 0.0})
    plan = Plan(hardware, {key: ((0,),)}, 1.0, False, {})
    return _programmed(layer, replace(state, plan=plan, ranges={}), key)


def _ranges(layer: AnalogLayer, state: LayerState, key: str, groups: dict[int, Tensor]) -> Ranges:
    held = _ideal(layer, state, key)
    parts = held.copies[0]
    place = next(iter(groups.values())).device
    streams = Streams([torch.Generator(device=place).manual_seed(0)])
    adc: list[tuple[Tensor, ...] | None] = []
    tops: list[Tensor] = []
    for k, part in enumerate(parts):
        if isinstance(state.form, ConvForm):
            images = _few(groups[0], _MOST_IMAGES)
            if len(parts) == 1 and not part.networks:
                found = calibrated_conv(layer, part, images, streams, bias_row=held.bias_row)
            else:
                rows = conv_rows(layer, images, k, bias_row=held.bias_row)
                found = part.calibrated(_few(rows, _MOST_ROWS), streams)
        elif k in groups:
            rows = _few(groups[k], _MOST_ROWS)
            if held.bias_row:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            found = part.calibrated(rows, streams)
        else:  # an expert that no input was sent to
            adc.append(None)
            continue
        # A column that no input moved needs a range all the same; this one loses nothing.
        ranges = found.adc_ranges
        adc.append(None if ranges is None else tuple(r.clamp_min(_LEAST_RANGE) for r in ranges))
        tops += [] if found.dac_range is None else [found.dac_range]
    return Ranges(torch.stack(tops).amax() if tops else None, tuple(adc))


_LEAST_RANGE = 1e-6
"""Of an ADC, in full-scale products."""
_MOST_ROWS = 8192
"""Input vectors that a calibration looks at for each matrix."""
_MOST_IMAGES = 64
"""Images that it looks at for each convolution, with all their positions."""


def _few(rows: Tensor, most: int) -> Tensor:
    """Return at most so many of the rows, evenly spread, in single precision at least."""
    wide = rows if rows.dtype.itemsize >= 4 else rows.float()
    if len(wide) <= most:
        return wide
    step = len(wide) / most
    return wide[(torch.arange(most, device=wide.device) * step).long()]


def _with_ranges(held: Held, ranges: Ranges | None) -> Held:
    if ranges is None:
        return held
    return replace(held, copies=tuple(ranged(copy, ranges) for copy in held.copies))
