"""Weights become conductances: differential pairs, an offset column, or bit slices; and back.

A weight of full scale (``scale``) uses the whole window g_max - g_min of a cell, or half of it on either side
of an offset column's reference. Whatever happens to the
cells afterwards, `Planes.decode` says what weight they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ohmloop.crossbar._array import Array
from ohmloop.device import Physics
from ohmloop.errors import ConversionError


class Tile(NamedTuple):
    """One physical array: which outputs and which inputs of the matrix it holds."""

    outputs: slice
    inputs: slice


def tiles_of(array: Array, n_out: int, n_in: int) -> list[Tile]:
    """Return the tiles of a matrix ``n_out x n_in``, inputs running fastest."""
    return [
        Tile(slice(o, min(o + array.outputs, n_out)), slice(i, min(i + array.rows, n_in)))
        for o in range(0, n_out, array.outputs)
        for i in range(0, n_in, array.rows)
    ]


def row_blocks(array: Array, n_in: int) -> Iterator[tuple[int, slice]]:
    """Yield the number and the inputs of each block of rows that adds up before conversion."""
    for block, start in enumerate(range(0, n_in, array.rows)):
        yield block, slice(start, min(start + array.rows, n_in))


def full_scale(weight: Tensor, array: Array) -> Tensor:
    """Return the weight that fills the window, positive, broadcastable to ``out x in``."""
    magnitude = weight.detach().abs()
    if array.scale == "layer":
        scale = magnitude.amax().reshape(1, 1)
    elif array.scale == "column":
        scale = magnitude.amax(1, keepdim=True)
    else:
        scale = torch.zeros_like(magnitude)
        for tile in tiles_of(array, *weight.shape):
            scale[tile.outputs, tile.inputs] = magnitude[tile.outputs, tile.inputs].amax()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class Planes(NamedTuple):
    """Target conductances of one matrix.

    Attributes:
        plus: ``S x out x in`` siemens; S slices, 1 unless sliced.
        minus: ``S x out x in`` siemens, the partners; for an offset column ``1 x T x in`` with one reference
            for each of the T blocks of outputs that share a tile.
        weight_per_siemens: ``S x ...``, broadcastable to ``S x out x in``; what one siemens of difference
            stands for.
    """

    plus: Tensor
    minus: Tensor
    weight_per_siemens: Tensor

    def decode(self, plus: Tensor, minus: Tensor, outputs: int) -> Tensor:
        """Return the weights that cells stand for.

        Args:
            plus: ``N x S x out x in`` siemens.
            minus: The partners, ``N x S x out x in``, or the references ``N x 1 x T x in``.
            outputs: Outputs of a tile, which share a reference.

        Returns:
            ``N x S x out x in``.
        """
        return (plus - spread(minus, plus.shape[2], outputs)) * self.weight_per_siemens


def spread(minus: Tensor, n_out: int, outputs: int) -> Tensor:
    """Return one partner for each output, ``N x S x out x in``, where references are shared by a tile."""
    if minus.shape[2] == n_out:
        return minus
    return minus[:, :, torch.arange(n_out, device=minus.device) // outputs]


def middle(physics: Physics) -> float:
    """Return what reference cells should hold, in siemens: the level nearest to mid-window."""
    centre = torch.tensor(0.5 * (physics.g_min + physics.g_max), dtype=torch.float64)
    return float(physics.quantised(centre))


def swing(physics: Physics, array: Array) -> float:
    """Return the difference of conductance that a full-scale weight makes, in siemens.

    Raises:
        ConversionError: If an offset column has no level between the ends of the window.
    """
    if array.mapping != "offset":
        return physics.g_max - physics.g_min
    centre = middle(physics)
    out = min(physics.g_max - centre, centre - physics.g_min)
    if out <= 0:
        raise ConversionError(
            'mapping "offset" needs a level between g_min and g_max for its reference column; this device '
            'has none. Use mapping "pair" or "sliced", or a device with three levels or more.'
        )
    return out


def encode(weight: Tensor, physics: Physics, array: Array) -> Planes:
    """Return the conductances that ideal cells hold for ``weight``, ``out x in``."""
    scale = full_scale(weight, array)
    low, span = physics.g_min, swing(physics, array)
    share = weight / scale  # of full scale, in [-1, 1]
    if array.mapping == "pair":
        plus, minus = share.clamp_min(0), (-share).clamp_min(0)
        return Planes((low + span * plus)[None], (low + span * minus)[None], (scale / span)[None])
    if array.mapping == "offset":
        n_blocks = -(-weight.shape[0] // array.outputs)
        centre = middle(physics)
        reference = share.new_full((1, n_blocks, weight.shape[1]), centre)
        return Planes((centre + span * share)[None], reference, (scale / span)[None])
    top = 2 ** (array.weight_bits - 1) - 1
    integer = (share.detach() * top).round()
    magnitude, sign = integer.abs().long(), integer.sign()
    plus_planes, minus_planes, factors = [], [], []
    base = 2**array.slice_bits
    for s in range(array.slices):
        digit = (magnitude // base**s % base).to(weight.dtype) / (base - 1)
        plus_planes.append(low + span * torch.where(sign > 0, digit, 0))
        minus_planes.append(low + span * torch.where(sign < 0, digit, 0))
        factors.append(scale * (base**s * (base - 1) / top / span))
    return Planes(torch.stack(plus_planes), torch.stack(minus_planes), torch.stack(factors))
