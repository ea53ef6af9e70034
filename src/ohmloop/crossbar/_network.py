"""The electrical network of an array with wires: node voltages and column currents, exact and differentiable.

Geometry in `Wires`, equations in `_kirchhoff`. Everything is computed in float64; results come back in the
caller's dtype.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ohmloop.crossbar._kirchhoff import Net, newton, unbalance
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError

STEEP = 40.0
"""Largest V / v0: sinh(40) is 1e17, where a neighbour's current is below rounding."""


class Solution(NamedTuple):
    """How an array answers.

    Attributes:
        current: ``* x B x C`` amperes into the columns' virtual grounds.
        rows: ``* x B x R x C`` volts of the row-wire nodes; None unless asked for.
        columns: ``* x B x R x C`` volts of the column-wire nodes; None unless asked for.
        residual: ``* x B``: what Kirchhoff's current law misses at the worst node, as a fraction of the largest
            current in the array; measured, float64.
    """

    current: Tensor
    rows: Tensor | None
    columns: Tensor | None
    residual: Tensor


def solve(
    conductance: Tensor,
    voltage: Tensor,
    wires: Wires,
    *,
    v0: float | None = None,
    nodes: bool = False,
) -> Solution:
    """Return the column currents of arrays with wire resistance, solved on the whole nodal network.

    Differentiable in ``conductance`` and ``voltage`` by one adjoint solve. Open cells (0 S) and shorts are
    conductances like others. Memory grows as R C, time a little faster; bench/results/wires.md has figures. For
    many inputs on ohmic cells, `transfer_matrix` once and products after it are cheaper.

    How exact: Kirchhoff's law holds to about 1e-13 of the largest current. The floor is the rounding of a node
    voltage (1e-16 of it) times the largest conductance at the node: it rises where a cell conducts 10,000
    times better than the wires that feed it, or a segment than the driver before it. ``residual`` tells.

    Args:
        conductance: ``* x R x C`` siemens.
        voltage: ``* x B x R`` volts; leading dimensions broadcast against those of ``conductance``.
        wires: Wire resistances and geometry.
        v0: Volts, for cells I = G v0 sinh(V / v0); None for ohmic cells.
        nodes: Whether node voltages are returned too.

    Returns:
        A `Solution`, on the device and in the common dtype of the tensors.

    Raises:
        ConversionError: For shapes that do not fit, conductances that are negative or not finite (the message
            names the cell), voltages that are not finite, or a network beyond float64.

    >>> import torch
    >>> g = torch.tensor([[1e-3]])
    >>> round(solve(g, torch.tensor([[0.5]]), Wires(source=600.0, sense=400.0)).current.item(), 9)
    0.00025
    """
    dtype = checked(conductance, voltage)
    if v0 is not None:
        check_v0(v0, voltage)
    g = conductance.to(torch.float64).contiguous()  # lines are solved in place, through flat views
    volts = voltage.to(torch.float64)
    batch = _common(g, volts)
    r, c = g.shape[-2:]
    n = volts.shape[-2]
    if wires.ideal or 0 in (*batch, n):
        return _ideal(g, volts, batch, v0, nodes, dtype)
    one = g.shape[:-2].numel() == 1
    if v0 is not None:  # each vector has its own Jacobian: an array with one vector each
        g = g[..., None, :, :].expand(*batch, n, r, c).reshape(-1, r, c)
        volts = volts.expand(*batch, n, r).reshape(-1, r, 1)
    elif one:  # all vectors are right-hand sides of one array
        g = g.reshape(1, r, c)
        volts = volts.expand(*batch, n, r).reshape(1, -1, r).mT
    else:
        g = g.expand(*batch, r, c).reshape(-1, r, c)
        volts = volts.expand(*batch, n, r).reshape(-1, n, r).mT
    keep = nodes or (torch.is_grad_enabled() and (g.requires_grad or volts.requires_grad))
    parts = [
        _Network.apply(g[part], volts[part], wires, v0, keep)  # type: ignore[no-untyped-call]  # torch has no types here
        for part in _parts(g.shape[0], volts.shape[-1] * r * c, g.device)
    ]
    current, rows, columns, residual = (
        (torch.cat(values) if len(values) > 1 else values[0]).movedim(-1, 1)
        for values in zip(*parts, strict=True)
    )
    return Solution(
        current.reshape(*batch, n, c).to(dtype),
        rows.reshape(*batch, n, r, c).to(dtype) if nodes else None,
        columns.reshape(*batch, n, r, c).to(dtype) if nodes else None,
        residual.reshape(*batch, n),
    )


def _common(conductance: Tensor, voltage: Tensor) -> torch.Size:
    shape = np.broadcast_shapes(conductance.shape[:-2], voltage.shape[:-2])
    return torch.Size(shape)


def _ideal(
    g: Tensor,
    volts: Tensor,
    batch: torch.Size,
    v0: float | None,
    nodes: bool,
    dtype: torch.dtype,
) -> Solution:
    bent = volts if v0 is None else v0 * torch.sinh(volts / v0)
    current = (bent @ g).to(dtype)
    residual = volts.new_zeros(*batch, volts.shape[-2])
    if not nodes:
        return Solution(current, None, None, residual)
    rows = volts[..., None].expand(*batch, *volts.shape[-2:], g.shape[-1]).to(dtype)
    return Solution(current, rows, torch.zeros_like(rows), residual)


def _parts(n: int, each: int, device: torch.device) -> list[slice]:
    """Cut ``n`` arrays of ``each`` numbers into work that stays near a CPU's cores, or keeps a GPU busy."""
    step = max(1, (2**19 if device.type == "cpu" else 2**25) // max(each, 1))
    return [slice(k, k + step) for k in range(0, n, step)]


FEW = 4
"""Up to here right-hand sides are quicker one by one through LAPACK than by a loop along the lines."""


def _bundles(n: int, each: int, device: torch.device) -> list[slice]:
    """Cut ``n`` right-hand sides of ``each`` numbers likewise."""
    if device.type == "cpu" and n < FEW:
        return [slice(k, k + 1) for k in range(n)]
    step = max(2 * FEW, (2**20 if device.type == "cpu" else 2**25) // max(each, 1))
    return [slice(k, k + step) for k in range(0, n, step)]


class _Network(torch.autograd.Function):
    """Conductances ``M x R x C`` and voltages ``M x R x K`` to what `solve` returns, K last."""

    @staticmethod
    def forward(
        ctx: Any,
        conductance: Tensor,
        voltage: Tensor,
        wires: Wires,
        v0: float | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = conductance.flip(-1)
        net = Net.of(g, wires)
        out = []
        for part in _bundles(voltage.shape[-1], g.numel(), g.device):
            drive = voltage[:, :, None, part]
            if v0 is None:
                source = net.cells * drive
                d, w, residual = net.solve(source, source)
                i = torch.addcmul(source, net.cells, d + w, value=-1)
            else:
                d, w = newton(g, drive, lambda slope: Net.of(slope, wires), v0)
                i = net.cells * v0 * torch.sinh((drive - d - w) / v0)
                residual = unbalance(net, d, w, i)
            # Through the sense resistance where there is one: no digits are lost at shorts.
            current = w[:, -1] / wires.sense if wires.sense > 0 else i.sum(1)
            rows, columns = ((drive - d).flip(2), w.flip(2)) if keep else (d[:, :0], w[:, :0])
            out.append((current.flip(1), rows, columns, residual[:, 0, 0]))
        current, rows, columns, residual = (
            torch.cat(values, -1) for values in zip(*out, strict=True)
        )
        ctx.wires, ctx.v0 = wires, v0
        if keep:
            ctx.save_for_backward(conductance, rows - columns)
        ctx.mark_non_differentiable(residual)
        return current, rows, columns, residual

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, to_current: Tensor, to_rows: Tensor, to_columns: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        # With L's slopes gi in a cell's current and gd, gw in the drops, the adjoint (a, b) has the matrix of
        # the forward solve and the right-hand side (gd, gw) - g' gi; what a cell injects counts gi + a + b.
        conductance, across = ctx.saved_tensors
        v0 = ctx.v0
        g, v = conductance.flip(-1)[..., None], across.flip(2)
        unit = v if v0 is None else v0 * torch.sinh(v / v0)
        slope = g if v0 is None else g * torch.cosh(v / v0)
        net = Net.of(slope[..., 0], ctx.wires)
        to_g, to_v = torch.zeros_like(g), []
        for part in _bundles(v.shape[-1], g.numel(), g.device):
            i = to_current[..., part].flip(1)[:, None]
            by_rows, by_columns = to_rows[..., part].flip(2), to_columns[..., part].flip(2)
            a, b, _ = net.solve(
                (-by_rows - slope * i).contiguous(), (by_columns - slope * i).contiguous()
            )
            psi = i + a + b
            to_g += (psi * unit[..., part]).sum(-1, keepdim=True)
            to_v.append((psi * slope).sum(2) + by_rows.sum(2))
        return to_g[..., 0].flip(-1), torch.cat(to_v, -1), None, None, None


def checked(conductance: Tensor, voltage: Tensor | None = None) -> torch.dtype:
    """Return the dtype of results; refuse what is not a conductance or does not fit."""
    tensors = [conductance] if voltage is None else [conductance, voltage]
    for name, value in zip(("conductance", "voltage"), tensors, strict=False):
        if value.dtype not in (torch.float32, torch.float64):
            raise ConversionError(
                f"{name} is {value.dtype}; siemens and amperes need float32 or float64: "
                f"{name}.to(torch.float32)."
            )
    if conductance.ndim < 2 or 0 in conductance.shape[-2:]:
        raise ConversionError(
            f"conductance must be `* x R x C` with at least one row and one column; "
            f"received {tuple(conductance.shape)}."
        )
    bad = ~(conductance.detach() >= 0) | ~conductance.detach().isfinite()
    if bool(bad.any()):
        where = tuple(bad.nonzero()[0].tolist())
        raise ConversionError(
            f"conductance[{', '.join(map(str, where))}] = {float(conductance.detach()[where]):g} S: a cell "
            "conducts zero or more, and finitely. Write an open cell as 0 and a short as a large number."
        )
    if voltage is None:
        return conductance.dtype
    rows = conductance.shape[-2]
    if voltage.ndim < 2 or voltage.shape[-1] != rows:
        raise ConversionError(
            f"voltage must be `* x B x R` with R = {rows} for conductances "
            f"{tuple(conductance.shape)}; received {tuple(voltage.shape)}."
            + (" Write one vector as voltage[None]." if voltage.ndim == 1 else "")
        )
    try:
        _common(conductance, voltage)
    except ValueError:
        raise ConversionError(
            f"leading dimensions do not broadcast: conductance {tuple(conductance.shape)}, voltage "
            f"{tuple(voltage.shape)}."
        ) from None
    if not bool(voltage.detach().isfinite().all()):
        where = tuple((~voltage.detach().isfinite()).nonzero()[0].tolist())
        raise ConversionError(f"voltage[{', '.join(map(str, where))}] is not finite.")
    if conductance.device != voltage.device:
        raise ConversionError(
            f"conductance is on {conductance.device} and voltage on {voltage.device}; put both on one device."
        )
    return torch.promote_types(conductance.dtype, voltage.dtype)


def check_v0(v0: float, voltage: Tensor) -> None:
    if not (math.isfinite(v0) and v0 > 0):
        raise ConversionError(f"v0 must be a positive number of volts, or None; received {v0}.")
    top = float(voltage.detach().abs().max()) if voltage.numel() else 0.0
    if top > STEEP * v0:
        raise ConversionError(
            f"voltages up to {top:g} V are more than {STEEP:g} times v0 = {v0:g} V: exp(V / v0) is no cell "
            "that anyone measured. Is v0 in volts?"
        )
