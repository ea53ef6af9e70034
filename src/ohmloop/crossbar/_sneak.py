"""One selected cell of a passive array: what flows through it, what flows around it, what the others feel.

The lines that are not selected float, are grounded, or are held at fractions of the selected voltage (the
V/2 and V/3 schemes).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ohmloop.crossbar._kirchhoff import Net, newton, unbalance
from ohmloop.crossbar._network import check_v0, checked
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError

Scheme = Literal["floating", "grounded", "half", "third"]

SHARES: dict[str, tuple[float, float]] = {
    "grounded": (0.0, 0.0),
    "half": (1 / 2, 1 / 2),
    "third": (1 / 3, 2 / 3),
}
"""Voltages of the rows and of the columns that are not selected, in parts of the selected row's."""


class Access(NamedTuple):
    """What one access to a cell does; `*` are the leading dimensions of the conductances.

    Attributes:
        cell: `*` amperes through the selected cell.
        sensed: `*` amperes out of the selected column.
        sneak: `*` amperes, sensed less cell: what reaches the sense amplifier around the cell.
        driver: `*` amperes from the selected row's driver.
        power: `*` watts delivered by all drivers together, wires included.
        voltage: `* x R x C` volts across each cell, from row to column.
        row_disturb: `*` volts, the largest magnitude across the other cells of the selected row.
        column_disturb: `*` volts, likewise in the selected column.
        rest_disturb: `*` volts, likewise in no selected line.
        residual: `*`, as of `Solution`.
    """

    cell: Tensor
    sensed: Tensor
    sneak: Tensor
    driver: Tensor
    power: Tensor
    voltage: Tensor
    row_disturb: Tensor
    column_disturb: Tensor
    rest_disturb: Tensor
    residual: Tensor


def access(
    conductance: Tensor,
    wires: Wires,
    *,
    row: int,
    column: int,
    voltage: float,
    scheme: Scheme = "half",
    v0: float | None = None,
) -> Access:
    """Return what flows when one cell of a passive array is read or written; exact, wires included.

    The selected row is driven with ``voltage``, the selected column is at 0 V. The others: "floating",
    connected to nothing; "grounded", all at 0 V; "half", all at V/2; "third", rows at V/3 and columns at
    2V/3. Drivers of rows have the resistance ``wires.source``, those of columns ``wires.sense``. Not
    differentiable.

    Args:
        conductance: ``* x R x C`` siemens.
        wires: Wire resistances and geometry.
        row: Of the selected cell, from 0 at the top.
        column: Of the selected cell, from 0 at the left.
        voltage: Volts.
        scheme: What the lines that are not selected are connected to.
        v0: Volts, for cells I = G v0 sinh(V / v0); None for ohmic cells.

    Raises:
        ConversionError: As `solve` does, for a cell outside the array, or an unknown scheme.

    Two by two, ideal wires: the way around leads through three cells of 1 mS in series.

    >>> import torch
    >>> found = access(torch.full((2, 2), 1e-3), Wires(), row=0, column=0, voltage=0.3, scheme="floating")
    >>> round(found.cell.item(), 7), round(found.sneak.item(), 7)
    (0.0003, 0.0001)
    """
    dtype = checked(conductance)
    r, c = conductance.shape[-2:]
    if not (0 <= row < r and 0 <= column < c):
        raise ConversionError(
            f"cell ({row}, {column}) is outside of an array of {r} rows and {c} columns."
        )
    if scheme != "floating" and scheme not in SHARES:
        raise ConversionError(
            f'scheme "{scheme}" is unknown; take one of "floating", {", ".join(map(repr, SHARES))}.'
        )
    g = conductance.detach().to(torch.float64).reshape(-1, r, c)
    if v0 is not None:
        check_v0(v0, g.new_tensor(voltage))
    rows, columns = SHARES.get(scheme, (0.0, 0.0))
    at_rows = g.new_full((1, r, 1, 1), rows * voltage)
    at_rows[:, row] = voltage
    at_columns = g.new_full((1, 1, c, 1), columns * voltage)
    at_columns[:, :, column] = 0.0
    source, sense = g.new_full((1, r, 1), wires.source), g.new_full((1, 1, c), wires.sense)
    if scheme == "floating":
        source[:, torch.arange(r) != row] = torch.inf
        sense[:, :, torch.arange(c) != column] = torch.inf
    across, current, residual = _biased(g, wires, at_rows - at_columns, source, sense, v0)
    batch = conductance.shape[:-2]
    found = _record(across, current, row, column, (at_rows, at_columns), scheme)
    return Access(
        *(value.reshape((*batch, *value.shape[1:])).to(dtype) for value in (*found, residual))
    )


def _biased(
    g: Tensor, wires: Wires, drive: Tensor, source: Tensor, sense: Tensor, v0: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return voltages and currents of the cells, ``M x R x C x 1``, and the residual ``M``."""
    g, drive, sense = g.flip(2), drive.flip(2), sense.flip(2)

    def net_of(cells: Tensor) -> Net:
        return Net.of(cells, wires, source, sense)

    net = net_of(g)
    if v0 is None:
        current = net.cells * drive
        d, w, residual = net.solve(current, current)
        across = drive - d - w
        current = net.cells * across
    else:
        d, w = newton(g, drive, net_of, v0)
        across = drive - d - w
        current = net.cells * v0 * torch.sinh(across / v0)
        residual = unbalance(net, d, w, current)
    return across.flip(2), current.flip(2), residual[:, 0, 0, 0]


def _record(
    across: Tensor,
    current: Tensor,
    row: int,
    column: int,
    biases: tuple[Tensor, Tensor],
    scheme: str,
) -> tuple[Tensor, ...]:
    across, current = across[..., 0], current[..., 0]
    at_rows, at_columns = (bias[..., 0].expand_as(across) for bias in biases)
    out_of_rows, into_columns = current.sum(2), current.sum(1)
    power = (at_rows[:, :, 0] * out_of_rows).sum(1) - (at_columns[:, 0] * into_columns).sum(1)
    if scheme == "floating":  # only the selected row has a driver
        power = at_rows[:, row, 0] * out_of_rows[:, row]
    felt = across.abs()
    in_row = torch.zeros_like(felt, dtype=torch.bool)
    in_row[:, row] = True
    in_column = torch.zeros_like(in_row)
    in_column[:, :, column] = True

    def worst(where: Tensor) -> Tensor:
        return torch.where(where, felt, 0.0).amax((1, 2))

    return (
        current[:, row, column],
        into_columns[:, column],
        into_columns[:, column] - current[:, row, column],
        out_of_rows[:, row],
        power,
        across,
        worst(in_row & ~in_column),
        worst(in_column & ~in_row),
        worst(~in_row & ~in_column),
    )
