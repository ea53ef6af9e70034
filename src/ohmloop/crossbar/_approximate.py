"""A cheap stand-in for the exact network: the linear map of wired arrays, to be used in every training step."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmloop.crossbar._network import checked
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError


def approximate_transfer(conductance: Tensor, wires: Wires, *, iterations: int = 2) -> Tensor:
    """Return nearly T with I = T V: each cell counts with the share of the voltage that reaches it.

    Cell (i, j) is seen as G_ij v_ij, with v the share of a unit voltage that is left for the cell when all
    rows are driven alike. v solves v = 1 - Z_r i - Z_c i with i = G v, found by the fixed point
    v <- 1 / (1 + (Z_r i + Z_c i) / v) from v = 1, positive at every step; Z_r and Z_c are the resistances of
    the wires (sums along them). To first order in the drops, G (1 - G Z_r - Z_c G), this is exact for any
    input, since a cell's own current raises the drops of its row for all its columns alike.

    Measured by bench/wires.py on random arrays (64 to 256 lines, 10 and 100 microsiemens at most, 1 ohm
    everywhere; r.m.s. error of the currents over their r.m.s., two iterations): the error grows with what the
    wires take. Where ideal wires would be 6 % off: below 0.01 % for inputs of one sign, 0.1 % for both signs;
    50 % off: 0.3 % and 4 %; where most of the current is lost (190 % off): 2 % and 15 %. There, and for
    shorted cells or inputs that drive few rows only, use `transfer_matrix`. All figures stand in
    bench/results/wires.md.

    Args:
        conductance: ``* x R x C`` siemens.
        wires: Wire resistances and geometry.
        iterations: Of the fixed point, each O(R C); 1 gives G / (1 + G Z_r + Z_c G).

    Returns:
        ``* x C x R`` siemens in the dtype of ``conductance``, differentiable by autograd to any order.

    Raises:
        ConversionError: As `solve` does, or for fewer than one iteration.

    >>> import torch
    >>> t = approximate_transfer(torch.tensor([[1e-3]]), Wires(source=600.0, sense=400.0))
    >>> round(t.item(), 9)
    0.0005
    """
    checked(conductance)
    if iterations < 1:
        raise ConversionError(f"iterations must be 1 or more; received {iterations}.")
    share = torch.ones_like(conductance)
    for _ in range(iterations):
        drop = _drop(conductance * share, wires)
        share = share / (share + drop)
    return (conductance * share).transpose(-1, -2)


def _drop(current: Tensor, wires: Wires) -> Tensor:
    """Return the voltage that cell currents ``* x R x C`` lose in both wires of each cell."""
    along = current.flip(-1).cumsum(-1).flip(-1)  # in the row wire, left of each node
    down = current.cumsum(-2)  # in the column wire, below each node
    drop = wires.row * (along.cumsum(-1) - along[..., :1])
    drop = drop + wires.column * (down.flip(-2).cumsum(-2).flip(-2) - down[..., -1:, :])
    return drop + wires.source * along[..., :1] + wires.sense * down[..., -1:, :]
