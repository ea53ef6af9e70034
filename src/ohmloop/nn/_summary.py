"""What is analog, what is digital and why; and what the analog layers take: tiles, error, energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.crossbar import (
    DAC,
    Cost,
    Hardware,
    LayerUse,
    Programmed,
    Streams,
    count_arrays,
    count_layer,
    measure_layer,
)
from ohmloop.errors import ConversionError
from ohmloop.nn._allocate import check_divided
from ohmloop.nn._conv import ConvForm, conv_rows, largest
from ohmloop.nn._convert import ANALOG_TYPES, record_of
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._forms import digital_reason, form_of, is_attention
from ohmloop.nn._held import Held
from ohmloop.nn._layer import AnalogLayer, Chip, Plan, state_of
from ohmloop.nn._program import observe_inputs
from ohmloop.units import format as with_unit

CHIPS = 4
ROWS = 64
IMAGES = 4
GROUPS = 8
"""Chips, input vectors, images and groups that a layer's expected error and energy are taken over."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer that holds parameters, or that multiplies activations.

    Attributes:
        name: As in ``model.named_modules()``; "" is the model itself.
        type: Class name of the digital layer.
        analog: Whether its own parameters are on devices.
        reason: Why it is analog or digital.
        parameters: How many scalars it holds itself.
        tiles: Physical arrays that it takes; None without an array.
        utilisation: Share of the cells of these tiles that hold weights or their references.
        error: Root mean square error of its products relative to their root mean square, simulated on a few
            chips; None without an array.
        energy: Joules of one input of the model, programming left out; None without an example.
        arrays: Averaged arrays that hold the same weights; tiles and energy are those of all of them.
        calls: How many of the layer's products (matrices and their groups; a convolution's first few) the
            example asked for, however often; 0 is a layer that other code goes around, or that this input does
            not need. None without an example.
    """

    name: str
    type: str
    analog: bool
    reason: str
    parameters: int
    tiles: int | None = None
    utilisation: float | None = None
    error: float | None = None
    energy: float | None = None
    calls: int | None = None
    arrays: int = 1


class Summary(tuple[LayerSummary, ...]):
    """The rows of a model, in its own order; ``str`` gives a table."""

    __slots__ = ()

    @property
    def energy(self) -> float | None:
        """Joules of one input, all analog layers together; None without an example."""
        known = [row.energy for row in self if row.energy is not None]
        return math.fsum(known) if known else None

    @property
    def tiles(self) -> int:
        """Physical arrays of all layers."""
        return sum(row.tiles or 0 for row in self)

    def __str__(self) -> str:
        head = tuple("layer,type,,parameters,arrays,tiles,used,error,energy,why".split(","))
        rows = [head, *(_cells(row) for row in self)]
        if all(row.arrays == 1 for row in self):
            rows = [(*row[:4], *row[5:]) for row in rows]
        analog = sum(row.parameters for row in self if row.analog)
        total = sum(row.parameters for row in self)
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        right = range(3, len(widths) - 1)
        lines = [
            "  ".join(
                cell.rjust(widths[k]) if k in right else cell.ljust(widths[k])
                for k, cell in enumerate(row)
            ).rstrip()
            for row in rows
        ]
        share = f" ({analog / total:.1%})" if total else ""
        end = f"{analog:,} of {total:,} parameters in analog layers{share}, {self.tiles:,} tiles"
        end += "" if self.energy is None else f", {with_unit(self.energy, 'J')} an input"
        return "\n".join([*lines, end])


def _cells(row: LayerSummary) -> tuple[str, ...]:
    reason = row.reason
    if row.calls == 0:
        reason += "; NOT USED in the example"
    return (
        row.name or "(model)",
        row.type,
        "analog" if row.analog else "digital",
        f"{row.parameters:,}",
        "" if row.tiles is None else f"{row.arrays}",
        "" if row.tiles is None else f"{row.tiles:,}",
        "" if row.utilisation is None else f"{row.utilisation:.0%}",
        "" if row.error is None else f"{row.error:.2%}",
        "" if row.energy is None else with_unit(row.energy, "J"),
        reason,
    )


def summary(
    model: nn.Module,
    example: Tensor | Sequence[Tensor] | Mapping[str, Tensor] | None = None,
    *,
    simulate: bool = True,
    deployment: Deployment | None = None,
) -> Summary:
    """List every layer that holds parameters: analog or digital, and why; and what analog ones take.

    Args:
        model: Digital or analog.
        example: Inputs of the model, for hardware with an array: one tensor ``B x ...``, a tuple of its
            arguments or a mapping of keyword arguments. The expected error is then that on the layer's own
            inputs, and energy is counted for each of the B inputs.
        simulate: Whether the expected error is found, by programming each matrix into `CHIPS` chips from a
            fixed seed and reading `ROWS` inputs (standard normal ones without an example). False for
            models that are too large for that.
        deployment: Of it, the averaged arrays that hold each layer (``arrays``, ``layer_arrays``).

    Raises:
        ConversionError: If an example is given to a model without arrays, or the deployment's ``cells`` are not
            divided yet, or one of its patterns matches no analog layer.

    >>> from ohmloop.crossbar import Array
    >>> from ohmloop.nn import analogize
    >>> model = nn.Sequential(nn.Linear(300, 10), nn.LayerNorm(10))
    >>> rows = summary(analogize(model, Hardware(device="lognormal:0.1", array=Array())))
    >>> rows[0].tiles, round(rows[0].utilisation, 3), rows[1].reason
    (2, 0.046, 'normalisation stays digital')
    """
    deployment = deployment or Deployment()
    check_divided(model, deployment)
    seen = None
    if example is not None:
        if not any(isinstance(m, AnalogLayer) for m in model.modules()):
            raise ConversionError(
                "an example says something about layers on arrays; this model has none."
            )
        seen = observe_inputs(model, example)
    inputs = _batch_of(example)
    rows = []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own and not is_attention(module):
            continue
        row = LayerSummary(
            name,
            _type_of(module),
            *_status(model, name, module),
            sum(p.numel() for p in own.values()),
        )
        if isinstance(module, AnalogLayer) and state_of(module).is_analog:
            row = _measured(
                replace(row, arrays=deployment.arrays_of(name)),
                module,
                seen,
                inputs,
                simulate=simulate,
            )
        rows.append(row)
    return Summary(rows)


def _type_of(module: nn.Module) -> str:
    return (module._digital if isinstance(module, AnalogLayer) else type(module)).__name__


def _batch_of(example: object) -> int:
    if isinstance(example, Mapping):
        example = next(iter(example.values()))
    elif not isinstance(example, Tensor) and isinstance(example, Sequence):
        example = example[0]
    return len(example) if isinstance(example, Tensor) and example.ndim else 1


def _status(model: nn.Module, name: str, module: nn.Module) -> tuple[bool, str]:
    """Return whether a layer is analog, and why."""
    if isinstance(module, AnalogLayer):
        state = state_of(module)
        if state.is_analog:
            return True, state.form.reason
        return False, "left out by where; its out_proj is analog"
    own = dict(module.named_parameters(recurse=False))
    if not own:
        return False, "products of activations (scores, weighted sum) stay digital"
    if _makes_a_matrix(model, name):
        return True, "the matrix above is made from these before it is programmed"
    record = record_of(model)
    if record is None:
        return False, "the model is digital"
    if name in record.hardware:
        return True, "one matrix product" if isinstance(module, ANALOG_TYPES) else "asked for"
    if name in record.left:
        return False, record.left[name]
    if isinstance(module, ANALOG_TYPES):
        return False, "left out by where"
    why = digital_reason(module)
    if why is None:
        why = "no analog form for this type"
        if not isinstance(form_of(module, asked=False), str):
            why = "left out: the law on weights covers Linear, Conv1d and Conv2d unless where asks for it"
    return False, why


def _makes_a_matrix(model: nn.Module, name: str) -> bool:
    """Whether a module parametrises a weight that an analog layer holds (weight norm, say)."""
    owner, _, parameter = name.rpartition(".parametrizations.")
    if not parameter and name.startswith("parametrizations."):
        owner, parameter = "", name.removeprefix("parametrizations.")
    layer = model.get_submodule(owner) if parameter else None
    return isinstance(layer, AnalogLayer) and any(
        matrix.parameter == parameter for matrix in state_of(layer).form.matrices(layer)
    )


def _measured(
    row: LayerSummary,
    layer: AnalogLayer,
    seen: Mapping[tuple[str, str, int], Tensor] | None,
    inputs: int,
    *,
    simulate: bool,
) -> LayerSummary:
    state = state_of(layer)
    array = state.hardware.array
    assert array is not None
    tiles = cells = placed = 0
    errors: list[Tensor] = []
    energy, calls = 0.0, 0
    for matrix in state.form.matrices(layer):
        stack = matrix.stack(layer)
        n_groups, n_out, n_in = stack.shape
        n_in += int(array.analog_bias and matrix.bias(layer) is not None)
        counts = count_arrays(
            LayerUse(name=row.name, n_out=n_out, n_in=n_in, groups=n_groups), array
        )
        tiles, cells = tiles + counts.tiles, cells + counts.cells
        placed += counts.placed_cells
        given = _inputs_of(layer, matrix.key, n_groups, row.name, seen)
        calls += len(given)
        if simulate or (given and seen is not None):
            held = _simulated(layer, matrix.key, row.arrays)
            if simulate and isinstance(state.form, ConvForm) and given and seen is not None:
                errors.append(_conv_error(layer, seen[row.name, matrix.key, 0], row.arrays))
            elif simulate:
                errors += _errors(held, stack, given, matrix.bias(layer))
            images = None
            if isinstance(state.form, ConvForm) and seen is not None:
                images = seen.get((row.name, matrix.key, 0))
            each = _costs(row.name, held, given, inputs, state.hardware, images)
            # Groups of a convolution that were not looked at cost as those that were.
            share = n_groups / len(given) if isinstance(state.form, ConvForm) and given else 1.0
            energy += share * sum(c.energy for c in each)
    scale = torch.stack(errors).sum(0) if errors else None
    error = None
    if scale is not None and float(scale[1]) > 0:
        error = math.sqrt(float(scale[0]) / float(scale[1]))
    return replace(
        row,
        tiles=tiles * row.arrays,
        utilisation=cells / placed,
        error=error,
        energy=energy * row.arrays if seen is not None else None,
        calls=calls if seen is not None else None,
    )


def _inputs_of(
    layer: AnalogLayer,
    key: str,
    n_groups: int,
    name: str,
    seen: Mapping[tuple[str, str, int], Tensor] | None,
) -> dict[int, Tensor]:
    """Return the inputs ``P x in`` of some groups of a matrix, as the example drives them."""
    if seen is None:
        return {}
    form = state_of(layer).form
    chosen = range(0, n_groups, -(-n_groups // GROUPS))
    if isinstance(form, ConvForm):
        images = seen.get((name, key, 0))
        if images is None:
            return {}
        return {g: conv_rows(layer, images, g, bias_row=False) for g in chosen}
    return {g: x for (n, k, g), x in seen.items() if (n, k) == (name, key)}


def _simulated(layer: AnalogLayer, key: str, arrays: int, *, merged: bool = False) -> Held:
    """Program one matrix into a few chips from fixed seeds, each group by itself unless merged."""
    state = state_of(layer)
    seeds = tuple(tuple(range(k * CHIPS, (k + 1) * CHIPS)) for k in range(arrays))
    plan = Plan(state.hardware, {key: seeds}, 1.0, False, {})
    matrix = next(m for m in state.form.matrices(layer) if m.key == key)
    alone = matrix._replace(merged=merged)
    with torch.no_grad():
        return replace(state, plan=plan).programmed(layer, alone)


def _conv_error(layer: AnalogLayer, images: Tensor, arrays: int) -> Tensor:
    """Return the squared error and the squared size of a convolution's products on a few images."""
    state, conv = state_of(layer), cast(Any, layer)
    images = images[:IMAGES]
    with torch.no_grad():
        held = _simulated(layer, "weight", arrays, merged=True)
        seeds = [torch.Generator(device=images.device).manual_seed(1000 + k) for k in range(CHIPS)]
        chip = Chip(Streams(seeds), len(images))
        alone = replace(state, chip=chip, held={"weight": held}, observe=None)
        got = state.form.forward(layer, alone, images).unflatten(0, (CHIPS, -1))
        wanted = conv._conv_forward(images, conv.weight, conv.bias)
        if conv.bias is not None:
            shift = conv.bias.reshape(-1, *[1] * (wanted.ndim - 2))
            got, wanted = got - shift, wanted - shift
    size = wanted.float().square().mean()
    return torch.stack([(got - wanted).float().square().mean(), size])


def _errors(
    held: Held, stack: Tensor, given: Mapping[int, Tensor], bias: Tensor | None
) -> list[Tensor]:
    """Return for each group the squared error and the squared size of its products."""
    out = []
    place = stack.device
    for g in range(0, len(stack), -(-len(stack) // GROUPS)) if not given else given:
        seeds = [torch.Generator(device=place).manual_seed(1000 + k) for k in range(CHIPS)]
        if given:
            x = given[g][:: max(1, len(given[g]) // ROWS)][:ROWS]
        else:
            x = torch.randn(ROWS, stack.shape[2], generator=seeds[0], device=place)
        x = x.to(stack.dtype)
        with torch.no_grad():
            got = held.read(x, g, Streams(seeds))
            wanted = F.linear(x, stack[g], bias[g] if held.bias_row and bias is not None else None)
            error = (got - wanted).float().square().mean()
            out.append(torch.stack([error, wanted.float().square().mean()]))
    return out


def _as_images(
    part: Programmed, rows: Tensor, images: Tensor, *, bias_row: bool
) -> tuple[Programmed, Tensor]:
    """Return rows ``P x in`` as shares of their image's full scale, and an array that takes them so.

    Where the range is dynamic, convolutions are driven on one scale for all positions of an image.
    """
    dac = part.array.dac
    if dac is not None and dac.range is not None:
        return part, rows
    full = largest(images.to(rows.dtype), bias_row=bias_row).flatten()
    shares = rows / full.repeat_interleave(len(rows) // len(images)).unsqueeze(1)
    stated = DAC(range=1.0) if dac is None else dac.model_copy(update={"range": 1.0})
    array = part.array.model_copy(update={"dac": stated})
    return replace(part, array=array), shares


def _costs(
    name: str,
    held: Held,
    given: Mapping[int, Tensor],
    inputs: int,
    hardware: Hardware,
    images: Tensor | None,
) -> list[Cost]:
    """Return what the groups cost an input; ``images`` are those of a convolution, which set full scales."""
    if not given:
        return []
    costs = []
    for g, x in given.items():
        wide = x if x.dtype.itemsize >= 4 else x.float()
        if held.bias_row:
            wide = torch.cat([wide, wide.new_ones(len(wide), 1)], 1)
        part = held.copies[0][g]
        if images is not None and not part.networks:
            part, wide = _as_images(part, wide, images, bias_row=held.bias_row)
        use = measure_layer(name, part, wide, inferences=max(1, inputs), bias=not held.bias_row)
        costs.append(count_layer(use, hardware))
    return costs
