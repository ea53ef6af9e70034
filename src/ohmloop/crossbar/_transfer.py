"""The linear map that a wired array of ohmic cells is, by block elimination.

Row after row, from the far end of the columns to the sense amplifiers, the part above is kept as a Norton
equivalent at the C column wires: an admittance Y (C x C) and a short-circuit current J (C x R) for each driver.
Row i adds what its cells and its wire are, seen from the columns, Y_i = (diag(1/G) + Z_r)^-1 with Z_r the
resistances of the row wire, and Y_i 1 for its driver; a segment of resistance r then turns (Y, J) into
(I + r Y)^-1 (Y, J). Only sums and solves with I + r Y, whose eigenvalues are 1 or more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ohmloop.crossbar._lines import Lines
from ohmloop.crossbar._network import checked
from ohmloop.crossbar._wires import Wires


def transfer_matrix(conductance: Tensor, wires: Wires) -> Tensor:
    """Return T with I = T V: the exact linear map of arrays with wires, ohmic cells.

    Differentiable in ``conductance``; the backward pass costs about three forward ones. Time grows as
    R C^3 for R >= C (as C R^3 else). Without gradients memory is a few C x C; with gradients about R C^2.

    Args:
        conductance: ``* x R x C`` siemens; see `solve`.
        wires: Wire resistances and geometry.

    Returns:
        ``* x C x R`` siemens, computed in float64, in the dtype of ``conductance``. With ideal wires the
        conductances, transposed.

    Raises:
        ConversionError: As `solve` does.

    >>> import torch
    >>> t = transfer_matrix(torch.tensor([[1e-3]]), Wires(source=600.0, sense=400.0))
    >>> round(t.item(), 9)
    0.0005
    """
    checked(conductance)
    if wires.ideal:
        return conductance.transpose(-1, -2).contiguous()
    g = conductance.to(torch.float64)
    batch, (r, c) = g.shape[:-2], g.shape[-2:]
    g = g.reshape(-1, r, c)
    if c > r:
        # Reciprocity: driven from the columns and read at the rows, the same network has the transpose.
        other = Wires(row=wires.column, column=wires.row, source=wires.sense, sense=wires.source)
        out = _eliminate(g.transpose(-1, -2).flip((-1, -2)), other)
        out = out.transpose(-1, -2).flip((-1, -2))
    else:
        out = _eliminate(g, wires)
    return out.reshape(*batch, c, r).to(conductance.dtype)


BLOCK = 16
"""Rows that are eliminated together: their admittances are made in one go, and made again going backward."""


def _eliminate(g: Tensor, wires: Wires) -> Tensor:
    """``M x R x C`` to ``M x C x R``."""
    m, r, c = g.shape
    g = g.flip(-1)  # far ends first
    norton = (g.new_zeros(m, c, c), g.new_zeros(m, c, 0))
    for first in range(0, r, BLOCK):
        rows = g[:, first : first + BLOCK]
        last = first + BLOCK >= r
        if torch.is_grad_enabled() and g.requires_grad:
            norton = checkpoint(_block, rows, *norton, wires, last, use_reentrant=False)
        else:
            norton = _block(rows, *norton, wires, last)
    return norton[1].flip(1)


def _block(
    rows: Tensor, admittance: Tensor, current: Tensor, wires: Wires, last: bool
) -> tuple[Tensor, Tensor]:
    """Add a few rows and the segments under them; the last segment is the sense resistance."""
    added: Tensor = _RowAdmittance.apply(rows, wires.row, wires.source)  # type: ignore[no-untyped-call]  # torch has no types here
    n = rows.shape[1]
    for k, each in enumerate(added.unbind(1)):
        admittance = admittance + each
        current = torch.cat([current, each.sum(-1, keepdim=True)], -1)
        ohms = wires.sense if last and k == n - 1 else wires.column
        if ohms > 0:
            admittance, current = _Series.apply(admittance, current, ohms)  # type: ignore[no-untyped-call]  # torch has no types here
    return admittance, current


class _Series(torch.autograd.Function):
    """A resistance in series with each of C ports: F Y, F J with F = (I + r Y)^-1.

    From dF = -r F dY F follow d(F Y) = F dY F and d(F J) = F dJ - r F dY F J.
    """

    @staticmethod
    def forward(
        ctx: Any, admittance: Tensor, current: Tensor, ohms: float
    ) -> tuple[Tensor, Tensor]:
        matrix = ohms * admittance
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        factor = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        after = factor @ current
        ctx.ohms = ohms
        ctx.save_for_backward(factor, after)
        return factor @ admittance, after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, to_admittance: Tensor, to_current: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        factor, after = ctx.saved_tensors
        before = factor @ to_current
        inner = to_admittance @ factor - ctx.ohms * (to_current @ after.mT)
        return factor @ inner, before, None


class _RowAdmittance(torch.autograd.Function):
    """``M x n x C`` to ``M x n x C x C``: Y = (diag(1/G) + Z)^-1 = G - G T^-1 G, zeros allowed.

    dY = B dG B^T with B = Y / G = 1 - G T^-1.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, segment: float, end: float) -> Tensor:
        m, n, c = g.shape
        unit = torch.eye(c, dtype=g.dtype, device=g.device).expand(m, n, c, c).contiguous()
        share = Lines.of(g, 2, segment, end).solve(unit)
        share *= -g[..., None]
        share.diagonal(dim1=-2, dim2=-1).add_(1.0)
        ctx.save_for_backward(share)
        return share * g[..., None, :]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_y: Tensor) -> tuple[Tensor, None, None]:
        (share,) = ctx.saved_tensors
        # sum_jl B_jk gY_jl B_lk for each cell k
        return (share * (to_y @ share)).sum(-2), None, None
