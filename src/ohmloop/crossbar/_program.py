"""A matrix is programmed into arrays: what many virtual chips hold for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ohmloop.crossbar._approximate import approximate_transfer
from ohmloop.crossbar._array import Array, Programming
from ohmloop.crossbar._faults import Masks, draw_faults, repaired
from ohmloop.crossbar._hardware import Hardware
from ohmloop.crossbar._mapping import Planes, Tile, encode, swing, tiles_of
from ohmloop.crossbar._mvm import Network, Plane, Programmed
from ohmloop.crossbar._network import STEEP
from ohmloop.crossbar._streams import Streams
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires
from ohmloop.device import Physics
from ohmloop.errors import ConversionError


class _Cells(NamedTuple):
    """Both cells of every pair, or cells and references; and what writing them took."""

    plus: Tensor  # N x S x out x in
    minus: Tensor  # N x S x out x in, or N x 1 x T x in
    pulses: Tensor | None = None  # N
    energy: Tensor | None = None  # N
    unconverged: Tensor | None = None  # N


def program_matrix(
    weight: Tensor, hardware: Hardware, streams: Streams, *, keep_conductance: bool = False
) -> Programmed:
    """Program ``weight`` into the arrays of ``N`` virtual chips, one for each stream.

    Mapping, levels, faults and their repair, write noise or write-verify, drift until
    ``hardware.seconds`` and the wires (where cells are ohmic) end up in the chips' effective weights.
    Differentiable in ``weight``; rounding is straight-through.

    Args:
        weight: ``out x in``, finite.
        hardware: With an array.
        streams: Where each chip's randomness comes from.
        keep_conductance: Keep the cells' conductances, for pictures and for measurements of them.

    Raises:
        ConversionError: If the hardware has no array, the weight is empty, not finite or no matrix, or the
            options exclude each other.

    >>> hardware = Hardware(device="pcm-joshi2020", array=Array(rows=128, columns=128))
    >>> weight = torch.eye(3)
    >>> chips = program_matrix(weight, hardware, Streams([torch.Generator().manual_seed(1)]))
    >>> chips.weight.shape
    torch.Size([1, 3, 3])
    """
    array = _checked(weight, hardware)
    physics = hardware.device.cell()
    _check_network(array, physics)
    wide = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    planes = encode(wide, physics, array)
    masks = draw_faults(planes, physics, array, streams, wide.dtype)
    targets = (planes.plus, planes.minus)
    if masks is not None and array.remap:
        targets = repaired(*targets, masks, physics)
    cells = _written(targets, masks, physics, array, streams)
    cells = _aged(cells, masks, hardware.seconds, physics, streams)
    return _answering(wide, planes, cells, masks, hardware, physics, array, keep_conductance)


def _checked(weight: Tensor, hardware: Hardware) -> Array:
    if hardware.array is None:
        raise ConversionError(
            "this hardware has no array, only the law on weights. Give one: "
            f'Hardware(device="{hardware.device.name}", array=Array(rows=256, columns=256)).'
        )
    if weight.ndim != 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise ConversionError(
            "an array holds a matrix `out x in` of real numbers with at least one entry; received "
            f"{weight.dtype} of shape {tuple(weight.shape)}."
        )
    if not bool(torch.isfinite(weight.detach()).all()):
        bad = torch.nonzero(~torch.isfinite(weight.detach()))[0].tolist()
        raise ConversionError(
            f"the weight of output {bad[0]}, input {bad[1]} is {float(weight[bad[0], bad[1]])}; "
            "no cell can hold that. Repair the model first."
        )
    return hardware.array


def _check_network(array: Array, physics: Physics) -> None:
    if not array.is_linear(physics):
        if physics.read_voltage is None:
            raise ConversionError(
                "cells that are not ohmic (v0 is given) answer to volts: give the device's physics a "
                'read_voltage, or use encoding="pulse-width".'
            )
        assert physics.v0 is not None
        if physics.read_voltage / physics.v0 > STEEP:
            raise ConversionError(
                f"read_voltage / v0 = {physics.read_voltage / physics.v0:.3g}: beyond {STEEP:g} sinh leaves "
                "the range of numbers. Give the device's physics a lower read_voltage or a larger v0."
            )
    wired = array.wires is not None and not array.wires.ideal
    if wired and not array.is_linear(physics) and array.wire_solution == "fast":
        raise ConversionError(
            'wire_solution="fast" is a linear map of ohmic cells; these are not (v0 is given). Use "exact".'
        )
    if wired and physics.v0 is not None and array.encoding == "pulse-width":
        raise ConversionError(
            "pulse-width inputs on wires with cells that are not ohmic switch rows on and off during a read; "
            'that network is not solved here. Use encoding="amplitude", or a device with v0=None.'
        )


def _written(
    targets: tuple[Tensor, Tensor],
    masks: Masks | None,
    physics: Physics,
    array: Array,
    streams: Streams,
) -> _Cells:
    """Write both cells of every pair; the gradient to the targets passes through (or straight through)."""
    results = []
    for k, target in enumerate(targets):
        n = len(streams)
        wanted = target if target.ndim == 4 else target.unsqueeze(0).expand(n, *target.shape)
        mask = None if masks is None else masks[k]
        varied = physics.variation.window > 0 or physics.variation.steps > 0
        # N x 2 x ...: what stays with each cell, in its window and in its steps.
        cell = streams.normal((2, *wanted.shape[1:]), dtype=wanted.dtype) if varied else None
        results.append(_write_one(wanted, mask, cell, physics, array.programming, streams))
    plus, minus = results
    if plus.pulses is None or minus.pulses is None:
        return _Cells(plus.conductance, minus.conductance)
    return _Cells(
        plus.conductance,
        minus.conductance,
        pulses=plus.pulses.flatten(1).sum(1) + minus.pulses.flatten(1).sum(1),
        energy=_energy(plus, minus),
        unconverged=plus.failed.flatten(1).sum(1) + minus.failed.flatten(1).sum(1),
    )


class _Held(NamedTuple):
    conductance: Tensor
    pulses: Tensor | None
    failed: Tensor
    energy: Tensor | None = None


def _energy(plus: _Held, minus: _Held) -> Tensor | None:
    """Return the joules that writing took each chip, ``N``; None where no source gives a pulse's energy."""
    if plus.energy is None or minus.energy is None:
        return None
    total = plus.energy.flatten(1).sum(1) + minus.energy.flatten(1).sum(1)
    return None if bool(total.isnan().any()) else total


def _write_one(
    wanted: Tensor,
    mask: Tensor | None,
    cell: Tensor | None,
    physics: Physics,
    programming: Programming,
    streams: Streams,
) -> _Held:
    shape, dtype = wanted.shape[1:], wanted.dtype
    if programming.method == "write-verify":
        result = physics.write_verify(
            wanted.detach(),
            _fresh(streams, shape, dtype),
            tolerance=programming.tolerance,
            max_pulses=programming.max_pulses,
            mask=mask,
            cell=None if cell is None else cell.transpose(0, 1),
        )
        held = _passing(result.conductance, wanted, mask, physics)
        return _Held(held, result.pulses, ~result.converged, result.energy)
    own = None if cell is None else cell[:, 0]
    if programming.method == "cycle-verify":
        return _cycled(wanted, mask, own, physics, programming, _fresh(streams, shape, dtype))
    ideal = programming.method == "ideal"
    normal = torch.zeros_like(wanted) if ideal else streams.normal(shape, dtype=dtype)
    # Rounding to levels is part of the target; an ideal programmer makes no other error.
    held = physics.program(wanted, normal, mask, cell=None if ideal else own)
    return _Held(held, None, torch.zeros_like(wanted, dtype=torch.bool))


def _cycled(
    wanted: Tensor,
    mask: Tensor | None,
    own: Tensor | None,
    physics: Physics,
    programming: Programming,
    fresh: Callable[[], Tensor],
) -> _Held:
    """Erase and write, a pulse each, until a reading is within tolerance or the budget is spent."""
    limit = programming.tolerance * physics.window
    aim = physics.quantised(wanted.detach())
    held = physics.program(aim, fresh(), mask, cell=own)
    cycles = torch.ones_like(wanted, dtype=torch.int64)
    done = torch.zeros_like(wanted, dtype=torch.bool)
    for cycle in range(programming.max_pulses):
        reading = held
        if not physics.read.is_zero:
            reading = held + physics.verify_std(held) * fresh()
        done |= (reading - aim).abs() <= limit  # what was accepted is left alone
        if cycle == programming.max_pulses - 1 or bool(done.all()):
            break
        held = torch.where(done, held, physics.program(aim, fresh(), mask, cell=own))
        cycles += ~done
    return _Held(_passing(held, wanted, mask, physics), 2 * cycles, ~done)


def _passing(held: Tensor, wanted: Tensor, mask: Tensor | None, physics: Physics) -> Tensor:
    """Return ``held`` with the gradient of ``wanted``, straight through; stuck cells pass none."""
    return physics.stuck(held + (wanted - wanted.detach()), mask)


def _fresh(streams: Streams, shape: torch.Size, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a source of normals for a loop of unknown length that leaves the streams in step.

    The loop ends when the last chip is done, so the chips' own streams may not go along with it: each
    chip gets one for writing, seeded by one number of its own.
    """
    own = streams.spawn()
    return lambda: own.normal(shape, dtype=dtype)


def _aged(
    cells: _Cells, masks: Masks | None, seconds: float, physics: Physics, streams: Streams
) -> _Cells:
    if physics.drift is None:
        return cells
    # Drawn at any age, so that the same streams give the same chip at every time.
    plus, minus = (
        physics.drifted(
            held,
            seconds,
            streams.normal(held.shape[1:], dtype=held.dtype),
            None if masks is None else masks[k],
        )
        for k, held in enumerate((cells.plus, cells.minus))
    )
    return cells._replace(plus=plus, minus=minus)


def _answering(
    weight: Tensor,
    planes: Planes,
    cells: _Cells,
    masks: Masks | None,
    hardware: Hardware,
    physics: Physics,
    array: Array,
    keep: bool,
) -> Programmed:
    n_out, n_in = weight.shape
    seen_plus, seen_minus = cells.plus, cells.minus
    networks: tuple[Network, ...] = ()
    wires = array.wires
    if wires is not None and not wires.ideal:
        if array.is_linear(physics):
            seen_plus, seen_minus = _through_wires(cells, wires, array, n_out, n_in)
        else:
            networks = tuple(
                Network(tile, _layout(cells, tile, array)) for tile in tiles_of(array, n_out, n_in)
            )
    weights = planes.decode(seen_plus, seen_minus, array.outputs)  # N x S x out x in
    if array.mapping == "sliced":
        # Rounded integers have no slope: the gradient of the whole goes through the first slice.
        weights = torch.cat([weights[:, :1] + (weight - weight.detach()), weights[:, 1:]], 1)
    full = planes.weight_per_siemens * swing(physics, array)
    variance, shared = _read_variance(
        planes, cells, (seen_plus, seen_minus), hardware, physics, array
    )
    stuck_cells = None
    if masks is not None:
        stuck_cells = (masks.plus != 0).flatten(1).sum(1) + (masks.minus != 0).flatten(1).sum(1)
    return Programmed(
        planes=tuple(
            Plane(
                weights[:, s].to(weight.dtype),
                full[s],
                None if variance is None else variance[:, s],
                shared if s == 0 else None,
            )
            for s in range(weights.shape[1])
        ),
        array=array,
        physics=physics,
        row_conductance=(cells.plus.detach().sum((1, 2)) + cells.minus.detach().sum((1, 2))),
        networks=networks,
        conductance=(cells.plus.detach(), cells.minus.detach()) if keep else None,
        target=(planes.plus.detach()[None], planes.minus.detach()[None]) if keep else None,
        pulses=cells.pulses,
        energy=cells.energy,
        unconverged=cells.unconverged,
        stuck=stuck_cells,
    )


def _layout(cells: _Cells, tile: Tile, array: Array) -> Tensor:
    """Return one tile as it stands: ``N x R x C``; each output's cells side by side, a reference last."""
    plus = cells.plus[:, :, tile.outputs, tile.inputs]  # N x S x O x R
    if array.mapping == "offset":
        block = tile.outputs.start // array.outputs
        reference = cells.minus[:, 0, block : block + 1, tile.inputs]
        return torch.cat([plus[:, 0], reference], 1).transpose(1, 2)
    minus = cells.minus[:, :, tile.outputs, tile.inputs]
    stacked = torch.stack([plus, minus], 2)  # N x S x 2 x O x R
    return stacked.permute(0, 4, 3, 1, 2).flatten(2)


def _through_wires(
    cells: _Cells, wires: Wires, array: Array, n_out: int, n_in: int
) -> tuple[Tensor, Tensor]:
    """Return the conductances that the ends of the wires see: the linear map of each tile."""
    linear_map = transfer_matrix if array.wire_solution == "exact" else approximate_transfer
    plus, minus = torch.empty_like(cells.plus), torch.empty_like(cells.minus)
    n, slices = cells.plus.shape[:2]
    for tile in tiles_of(array, n_out, n_in):
        seen = linear_map(_layout(cells, tile, array), wires).to(plus.dtype)  # N x C x R
        if array.mapping == "offset":
            block = tile.outputs.start // array.outputs
            plus[:, 0, tile.outputs, tile.inputs] = seen[:, :-1]
            minus[:, 0, block, tile.inputs] = seen[:, -1]
            continue
        pairs = seen.reshape(n, -1, slices, 2, seen.shape[-1]).permute(3, 0, 2, 1, 4)
        plus[:, :, tile.outputs, tile.inputs] = pairs[0]
        minus[:, :, tile.outputs, tile.inputs] = pairs[1]
    return plus, minus


def _read_variance(
    planes: Planes,
    cells: _Cells,
    seen: tuple[Tensor, Tensor],
    hardware: Hardware,
    physics: Physics,
    array: Array,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the variance of one read in weights squared, and that of references in full scales squared.

    Behind wires a cell's noise current is taken to be divided as its mean current is: by (conductance seen /
    conductance), 1 at most. That is exact to first order in the wires' share of the resistance.
    """
    if physics.read.is_zero:
        return None, None
    deviations = []
    for held, apparent in zip((cells.plus.detach(), cells.minus.detach()), seen, strict=True):
        deviation = physics.read_std(held, seconds=hardware.seconds)
        if array.wires is not None:
            # A cell near 0 S also passes its neighbours' current, which is no noise of its own: hence the 1.
            ratio = torch.where(held > 0, apparent.detach() / held, torch.ones_like(held))
            deviation = deviation * ratio.clamp(0, 1)
        deviations.append(deviation)
    # In weights before squares: siemens squared would leave the range of float32.
    factor = planes.weight_per_siemens
    own = (deviations[0] * factor).square()
    if array.mapping != "offset":
        return own.add_((deviations[1] * factor).square()), None
    return own, (deviations[1][:, 0] / swing(physics, array)).square()
