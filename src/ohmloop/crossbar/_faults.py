"""Stuck cells: where they fall, and what spare columns and partners of a pair repair.

Masks hold 0 where a cell works, 1 where it is stuck at g_min, 2 where it is stuck at g_max.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ohmloop.crossbar._array import Array
from ohmloop.crossbar._mapping import Planes, Tile, tiles_of
from ohmloop.crossbar._streams import Streams
from ohmloop.device import Physics


class Masks(NamedTuple):
    """Faults of the cells behind one matrix.

    Attributes:
        plus: ``N x S x out x in`` int8.
        minus: ``N x S x out x in``, or of the references ``N x 1 x T x in``.
    """

    plus: Tensor
    minus: Tensor


def draw_faults(
    planes: Planes, physics: Physics, array: Array, streams: Streams, dtype: torch.dtype
) -> Masks | None:
    """Draw where cells are stuck, after spare columns took the place of the worst; None without faults.

    Spare columns have faults of their own. Each stands in where it lowers the squared error of weights most; a
    tile's reference column, which all its outputs share, comes first. Columns that stand in are treated as
    if they stood in the failed column's place on the wires.
    """
    faults = physics.faults
    if faults.p_low == 0 and faults.p_high == 0:
        return None
    masks = Masks(
        faults.draw(streams.uniform(planes.plus.shape, dtype=dtype)),
        faults.draw(streams.uniform(planes.minus.shape, dtype=dtype)),
    )
    n_spare = array.spare_columns // array.columns_per_output
    if n_spare == 0:
        return masks
    n_slices, n_out, n_in = planes.plus.shape
    n_blocks = -(-n_out // array.outputs)
    partners = 1 if array.mapping == "offset" else 2
    shape = (partners, n_slices, n_blocks, n_spare, n_in)
    spare = faults.draw(streams.uniform(shape, dtype=dtype))
    for tile in tiles_of(array, n_out, n_in):
        block = tile.outputs.start // array.outputs
        _Repair(masks, spare[:, :, :, block, :, tile.inputs], tile, planes, physics, array).run()
    return masks


class _Repair:
    """One tile whose spare columns (``N x partners x S x spare x in`` masks) are put to use."""

    def __init__(
        self,
        masks: Masks,
        spare: Tensor,
        tile: Tile,
        planes: Planes,
        physics: Physics,
        array: Array,
    ) -> None:
        self.spare, self.physics, self.array = spare, physics, array
        outputs, inputs = tile
        self.block = outputs.start // array.outputs
        self.shared = array.mapping == "offset"
        # Views: what is written to them is written to the masks.
        self.plus = masks.plus[:, :, outputs, inputs]
        blocks = slice(self.block, self.block + 1)
        self.minus = masks.minus[:, :, blocks if self.shared else outputs, inputs]
        self.wanted_plus = planes.plus[:, outputs, inputs]
        self.wanted_minus = planes.minus[:, blocks if self.shared else outputs, inputs]
        self.factor = planes.weight_per_siemens.expand(planes.plus.shape)[:, outputs, inputs]

    def errors(self, plus: Tensor, minus: Tensor) -> Tensor:
        """Return the squared error of the weights that faults give each output, ``N x out``."""
        masks = Masks(plus, minus)
        targets = (self.wanted_plus, self.wanted_minus)
        if self.array.remap:  # what partners will make good is no error
            targets = repaired(*targets, masks, self.physics)
        held = [self.physics.stuck(t, m) for t, m in zip(targets, masks, strict=True)]
        off = (held[0] - held[1]) - (self.wanted_plus - self.wanted_minus)
        return (off * self.factor).sum(1).square().sum(-1)

    def run(self) -> None:
        """Change the masks in place."""
        n, n_spare = len(self.spare), self.spare.shape[-2]
        rows = torch.arange(n, device=self.spare.device)
        free = torch.ones(n, n_spare, dtype=torch.bool, device=self.spare.device)
        if self.shared:
            self._reference(rows, free)
        taken = torch.zeros(self.plus.shape[0], self.plus.shape[2], dtype=torch.bool)
        taken = taken.to(self.spare.device)
        for k in range(n_spare):
            plus = self.spare[:, 0, :, k].unsqueeze(2).expand_as(self.plus)
            minus = self.minus
            if not self.shared:
                minus = self.spare[:, 1, :, k].unsqueeze(2).expand_as(self.minus)
            gain = self.errors(self.plus, self.minus) - self.errors(plus, minus)
            gain = gain.masked_fill(taken | ~free[:, k : k + 1], -torch.inf)
            best = gain.argmax(1)
            better = gain[rows, best] > 0
            chip, at = rows[better], best[better]
            self.plus[chip, :, at] = plus[chip, :, at]
            if not self.shared:
                self.minus[chip, :, at] = minus[chip, :, at]
            taken[chip, at] = True

    def _reference(self, rows: Tensor, free: Tensor) -> None:
        """Let the best spare column stand in for a faulty reference."""
        present = self._reference_error(self.minus[:, 0, 0])
        offers = torch.stack(
            [self._reference_error(self.spare[:, 0, 0, k]) for k in range(free.shape[1])], 1
        )
        best = offers.argmin(1)
        better = offers[rows, best] < present
        chip, at = rows[better], best[better]
        self.minus[chip, 0, 0] = self.spare[chip, 0, 0, at]
        free[chip, at] = False

    def _reference_error(self, mask: Tensor) -> Tensor:
        wanted = self.wanted_minus[0, 0].expand(mask.shape)
        return (self.physics.stuck(wanted, mask) - wanted).square().sum(-1)


def repaired(plus: Tensor, minus: Tensor, masks: Masks, physics: Physics) -> tuple[Tensor, Tensor]:
    """Return targets ``N x S x out x in`` that make the best of a pair with one stuck cell.

    The working partner of a stuck cell is set so that their difference comes as near to the wanted one as
    the window allows. Without noise, levels and variation, that is; these come on top.

    Args:
        plus: ``S x out x in`` siemens, wanted.
        minus: The partners, likewise.
        masks: Which cells are stuck.
        physics: Of the cells.
    """
    low, high = physics.g_min, physics.g_max
    wanted = plus - minus
    plus, minus = plus.expand(masks.plus.shape), minus.expand(masks.minus.shape)
    for_minus = (physics.stuck(plus, masks.plus) - wanted).clamp(low, high)
    for_plus = (physics.stuck(minus, masks.minus) + wanted).clamp(low, high)
    bad_plus, bad_minus = masks.plus != 0, masks.minus != 0
    return (
        torch.where(bad_minus & ~bad_plus, for_plus, plus),
        torch.where(bad_plus & ~bad_minus, for_minus, minus),
    )
