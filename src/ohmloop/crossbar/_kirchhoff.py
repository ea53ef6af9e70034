"""The nodal equations of a wired array, solved line by line.

Unknowns are drops: d of a row-wire node below its driver's voltage, w of a column-wire node above 0 V. Both
are small where wires are good, so that rounding follows the currents, not the voltages. With the lines'
matrices A_r, A_c and cell currents i = G (V - d - w), Kirchhoff's current law is

    (A_r + G) d + G w = p,    G d + (A_c + G) w = q,    p = q = G V,

symmetric and positive definite. The rows are eliminated exactly, T_r = A_r + G being tridiagonal, and the
rest, S w = q - G T_r^-1 p with S = T_c - G T_r^-1 G, is solved by conjugate gradients with T_c = A_c + G as
preconditioner. T_c^-1 S has its spectrum in (0, 1], close to 1 where a line's resistance is small against
its cells'; few smooth modes are not, and conjugate gradients remove those one by one.

Tensors are ``M x R x C x K``: M arrays with K right-hand sides each, rows from the top and columns from the
right, so that each line begins at its far end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmloop.crossbar._lines import Lines
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError

CLOSE = 1e-14
"""Relative error, in the preconditioner's norm, at which conjugate gradients stop."""

ENOUGH = 1e-13
"""Kirchhoff residual, relative to the largest current, above which a solution is refined."""

LOOKS = {"cpu": 1}
"""Iterations from one look at convergence to the next, by type of device; `SELDOM` elsewhere."""

SELDOM = 4
"""To look, the host waits for a GPU, which is then idle until the next kernels arrive. One more iteration costs
less than that for small arrays, and for large ones 1.5 on average of the 20 to 40 that they take."""


@dataclass(frozen=True, eq=False)
class Net:
    """``M`` arrays of ohmic cells, factorised.

    Attributes:
        cells: Conductances, ``M x R x C x 1`` siemens.
        rows: The row wires.
        columns: The column wires.
    """

    cells: Tensor
    rows: Lines
    columns: Lines

    @classmethod
    def of(
        cls,
        conductance: Tensor,
        wires: Wires,
        source: Tensor | None = None,
        sense: Tensor | None = None,
    ) -> Net:
        """Factorise conductances ``M x R x C``, float64, columns from the right.

        ``source`` (``1 x R x 1``) and ``sense`` (``1 x 1 x C``) stand in for those of ``wires`` where lines
        differ; infinite where a line floats.
        """
        return cls(
            conductance.contiguous()[..., None],
            Lines.of(conductance, 2, wires.row, wires.source if source is None else source),
            Lines.of(conductance, 1, wires.column, wires.sense if sense is None else sense),
        )

    def solve(
        self, p: Tensor, q: Tensor, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return d, w and their residual, refined until Kirchhoff's law holds as well as float64 can.

        Args:
            p: ``M x R x C x K`` amperes into the row-wire nodes.
            q: Likewise into the column-wire nodes.
            start: A first guess of w.
        """
        d, w = self.iterate(p, q, start)
        worst = self.residual(d, w, p)
        for _ in range(3):
            if bool((worst <= ENOUGH).all()):
                break
            better = self.iterate(p, q, w)
            residual = self.residual(*better, p)
            if not bool((residual < 0.5 * worst).any()):
                break
            (d, w), worst = better, residual
        return d, w, worst

    def residual(self, d: Tensor, w: Tensor, source: Tensor) -> Tensor:
        """Return what Kirchhoff's law misses at the worst node, ``M x 1 x 1 x K``; see `unbalance`."""
        return unbalance(self, d, w, torch.addcmul(source, self.cells, d + w, value=-1))

    def iterate(
        self,
        p: Tensor,
        q: Tensor,
        start: Tensor | None = None,
        *,
        close: float = CLOSE,
        limit: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return d and w by conjugate gradients from ``start``; ``limit`` iterations, or as needed."""
        # Work is done in place: fresh memory of this size costs more than the arithmetic in it.
        a, z = torch.empty_like(p), torch.empty_like(p)
        if start is None:
            right = torch.addcmul(q, self.cells, self.rows.solve(p, a), value=-1)
            self.columns.solve(self.columns.gathered_(right), z)
            scale = product = _dot(z, right, a)
            x, residual = torch.empty_like(p).zero_(), right
        else:
            torch.addcmul(p, self.cells, start, value=-1, out=z)
            right = torch.addcmul(q, self.cells, self.rows.solve(z, a), value=-1)
            self.columns.solve(right, z)
            scale = _dot(z, right, a)
            x = start.clone()
            z -= x
            residual = self.columns.times(z)
            product = _dot(z, residual, a)
        step, image, b = z.clone(), residual.clone(), torch.empty_like(p)  # image = T_c step
        every = LOOKS.get(p.device.type, SELDOM)
        for k in range(self._budget() if limit is None else limit):
            if k % every == 0 and bool((product <= close**2 * scale).all()):
                break
            self.rows.solve(torch.mul(self.cells, step, out=b), a)
            mapped = torch.sub(image, self.columns.gathered_(a.mul_(self.cells)), out=a)
            length = _dot(step, mapped, b)
            # A right-hand side that is done has no direction left to go.
            alpha = torch.where(length > 0, product / length, 0.0)
            x.addcmul_(alpha, step)
            residual.addcmul_(alpha, mapped, value=-1)
            following = _dot(self.columns.solve(residual, z), residual, b)
            beta = torch.where(product > 0, following / product, 0.0)
            torch.addcmul(z, beta, step, out=step)
            torch.addcmul(residual, beta, image, out=image)
            product = following
        else:
            if limit is None:
                raise ConversionError(_stuck(self.cells))
        return self.rows.solve(torch.addcmul(p, self.cells, x, value=-1, out=b), a), x

    def _budget(self) -> int:
        return 500 + 20 * sum(self.cells.shape[1:3])


def unbalance(net: Net, d: Tensor, w: Tensor, current: Tensor) -> Tensor:
    """Return what Kirchhoff's current law misses at the worst node, relative to the largest current.

    Args:
        net: For its wires.
        d: ``M x R x C x K`` volts.
        w: Likewise.
        current: Of the cells, ``M x R x C x K`` amperes.

    Returns:
        ``M x 1 x 1 x K``; 0 where there is no current.
    """
    missing = torch.maximum(net.rows.missing(d, current), net.columns.missing(w, current))
    lowest = current.amin(1, keepdim=True).amin(2, keepdim=True)
    largest = torch.maximum(_top(current), -lowest)
    largest = torch.maximum(largest, _top(current.sum(1, keepdim=True).abs_()))
    largest = torch.maximum(largest, _top(current.sum(2, keepdim=True).abs_()))
    return torch.where(largest > 0, missing / largest, missing)


def _dot(a: Tensor, b: Tensor, work: Tensor | None = None) -> Tensor:
    """Return ``M x 1 x 1 x K``; overwrites ``work``."""
    return torch.mul(a, b, out=work).sum(1, keepdim=True).sum(2, keepdim=True)


def _top(x: Tensor) -> Tensor:
    """Return the largest element, ``M x 1 x 1 x K``."""
    # One axis at a time: torch reduces two at once ten times slower for some sizes.
    return x.amax(1, keepdim=True).amax(2, keepdim=True)


def _stuck(cells: Tensor) -> str:
    low = cells[cells > 0].min() if bool((cells > 0).any()) else 0.0
    return (
        f"the network of {tuple(cells.shape[1:3])} cells did not converge: conductances of {float(low):g} to "
        f"{float(cells.max()):g} S with these wires leave no digits in float64. Give a short circuit a "
        "conductance of at most 1000 times a wire segment's, or set it to an open cell."
    )


def newton(
    conductance: Tensor,
    drive: Tensor,
    net_of: Callable[[Tensor], Net],
    v0: float,
    *,
    steps: int = 200,
) -> tuple[Tensor, Tensor]:
    """Return d and w of arrays of cells I = G v0 sinh(V / v0), ``M x R x C x 1``.

    Newton's method on the network's co-content, a convex function whose gradient is Kirchhoff's law (Millar
    1951), so damping along a line is enough for convergence from anywhere; it starts at the linear
    solution. Cell currents c with A_r d = A_c w = c are carried along, so that the slope of the co-content
    is sum (i(v) - c) dv: local, and free of divisions by wire resistances.

    Args:
        conductance: ``M x R x C`` siemens, columns from the right.
        drive: ``M x R x C x 1`` volts across each cell without drops, or broadcastable.
        net_of: Makes the linear network of given conductances.
        v0: Volts.
        steps: At most.
    """
    g = conductance[..., None]
    linear = g * drive
    d, w = net_of(conductance).iterate(linear, linear, close=1e-6)
    v = drive - d - w
    c = g * v
    for _ in range(steps):
        i, slope = g * v0 * torch.sinh(v / v0), g * torch.cosh(v / v0)
        source = torch.addcmul(i, slope, drive - v)
        to_d, to_w, _ = net_of(slope[..., 0]).solve(source, source, w)
        dv = drive - to_d - to_w - v
        # Quadratic convergence: a full step this small leaves an error below rounding.
        small = _top(dv.abs()) <= 1e-7 * v0
        if bool(small.all()):
            return to_d, to_w
        dc = i + slope * dv - c
        t = torch.where(small, 1.0, _damping(g, v, c, dv, dc, v0))
        d, w = d + t * (to_d - d), w + t * (to_w - w)
        v, c = v + t * dv, c + t * dc
    raise ConversionError(
        f"the network of cells I = G v0 sinh(V / v0) with v0 = {v0:g} V did not converge in {steps} Newton "
        f"steps at voltages up to {float(drive.abs().max()):g} V. Use a larger v0 or smaller voltages."
    )


def _damping(g: Tensor, v: Tensor, c: Tensor, dv: Tensor, dc: Tensor, v0: float) -> Tensor:
    """Return the step ``M x 1 x 1 x 1`` in (0, 1] at which the slope has fallen to half or below."""

    def slope(t: Tensor) -> Tensor:
        return _dot(g * v0 * torch.sinh((v + t * dv) / v0) - c - t * dc, dv)

    t = v.new_ones(v.shape[0], 1, 1, 1)
    downhill = -slope(torch.zeros_like(t))
    for _ in range(60):
        now = slope(t)
        far = (now > 0.5 * downhill) & (downhill > 0)
        if not bool(far.any()):
            break
        share = (downhill / (downhill + now)).clamp(0.1, 0.9)
        t = torch.where(far, t * share, t)
    return t
