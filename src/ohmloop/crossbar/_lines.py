"""Many wires at once: a line with a leak at each node, driven from one end, solved in O(n).

A line has nodes 0 (far, open end) to n - 1 (near end); segment k of resistance r_k leads from node k
towards the near end, the last one to 0 V. Node k leaks through the conductance G_k to 0 V and takes the
current b_k. With T = A + diag(G), A the line's nodal matrix, the voltages are x = T^-1 b. From the far end
inwards the part up to node k is a Norton equivalent of conductance Y_k and current J_k:

    f_k = 1 / (1 + r_k Y_k),  Y_{k+1} = G_{k+1} + f_k Y_k,  J_{k+1} = b_{k+1} + f_k J_k,

and back outwards x_k = f_k (r_k J_k + x_{k+1}), x_n = 0. Sums and products of positive numbers only: no
cancellation, and nothing is divided by a resistance, so zero resistances are exact. In LAPACK's terms this
is the factorisation L D L^T with e = -f and D = 1 / (f r), infinite at a zero resistance, which its
solver takes (IEEE x / inf = 0).

Three ways to run the recurrences, equal but for rounding: LAPACK for one right-hand side on the CPU, a loop
along the line over all lines and right-hand sides at once for several, and recursive doubling on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.linalg import lapack
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lines:
    """Factorised lines along one axis of arrays ``M x R x C``, far end first.

    Attributes:
        axis: 1 for lines down the R axis, 2 for lines along the C axis.
        leak: ``M x R x C x 1`` siemens, G.
        ratio: ``M x R x C x 1``, f; 0 at the last node, which separates the lines.
        segment: Ohms between neighbours.
        end: Ohms between each line's last node and 0 V, ``M x R x C x 1`` or broadcastable, of size 1 along
            the line; infinite where it is not connected.
        weight: ``M x R x C x 1`` ohms, f r = 1 / (1 / r + Y).
    """

    axis: int
    leak: Tensor
    ratio: Tensor
    segment: float
    end: Tensor
    weight: Tensor

    @classmethod
    def of(cls, leak: Tensor, axis: int, segment: float, end: float | Tensor) -> Lines:
        """Factorise lines with leaks ``M x R x C``, float64, far end first on ``axis``.

        ``end`` may have one element for each line, ``M x R x 1`` or ``M x 1 x C`` or broadcastable.
        """
        nodes = leak.movedim(axis, 0).contiguous().unbind(0)
        inward, ratios = nodes[0], []
        for node in nodes[1:]:
            ratios.append(torch.add(1.0, inward, alpha=segment).reciprocal_())
            inward = torch.addcmul(node, ratios[-1], inward)
        ends = torch.as_tensor(end, dtype=leak.dtype, device=leak.device)
        ends = ends if ends.ndim == 3 else ends.reshape(1, 1, 1)
        last = (1 / ends.squeeze(axis) + inward).reciprocal_()
        # A line of open cells that is connected to nothing stays at 0 V.
        last = torch.where(last.isinf(), 0.0, last)
        ratio = torch.stack([*ratios, torch.zeros_like(last)], axis)
        weight = ratio * segment
        weight.select(axis, -1).copy_(last)
        return cls(
            axis,
            leak.contiguous()[..., None],
            ratio[..., None],
            segment,
            ends[..., None],
            weight[..., None],
        )

    def solve(self, b: Tensor, out: Tensor | None = None) -> Tensor:
        """Return x = T^-1 b for ``M x R x C x K``, contiguous; in ``out`` where given, which is not ``b``."""
        x = torch.empty_like(b) if out is None else out
        if b.device.type != "cpu":
            return self._doubling(b, x)
        return self._lapack(b, x) if b.shape[-1] == 1 else self._loop(b, x)

    @cached_property
    def _pivots(self) -> tuple[Tensor, Tensor]:
        """D and e of all lines joined to one."""
        e = -self.ratio
        pivots = self.weight.reciprocal()
        if self.axis == 1:
            e, pivots = turned(e), turned(pivots)
        return pivots.view(-1), e.view(-1)

    def _lapack(self, b: Tensor, x: Tensor) -> Tensor:
        d, e = self._pivots
        if d.numel() == 1:  # LAPACK's wrapper takes no empty e
            return torch.div(b, d, out=x)
        joined = turned(b) if self.axis == 1 else x.copy_(b)
        # In place: one contiguous column of doubles needs no copy.
        lapack.dpttrs(d.numpy(), e.numpy()[:-1], joined.numpy().reshape(-1, 1), overwrite_b=1)
        return x.copy_(turned(joined)) if self.axis == 1 else x

    def _loop(self, b: Tensor, x: Tensor) -> Tensor:
        nodes, f, out = b.unbind(self.axis), self.ratio.unbind(self.axis), x.unbind(self.axis)
        out[0].copy_(nodes[0])
        for k in range(1, len(out)):
            torch.addcmul(nodes[k], f[k - 1], out[k - 1], out=out[k])
        x *= self.weight
        for k in range(len(out) - 2, -1, -1):
            out[k].addcmul_(f[k], out[k + 1])
        return x

    @cached_property
    def _windows(self) -> tuple[Tensor, ...]:
        """For m = 1, 2, 4, ... < n the products of m neighbouring f, beginning at each node."""
        n, m, out = self.ratio.shape[self.axis], 1, []
        window = self.ratio.narrow(self.axis, 0, n - 1)
        while m < n:
            out.append(window)
            left = n - 2 * m
            if left > 0:
                window = window.narrow(self.axis, 0, left) * window.narrow(self.axis, m, left)
            m *= 2
        return tuple(out)

    def _doubling(self, b: Tensor, x: Tensor) -> Tensor:
        """Solve in log2(n) passes over whole tensors instead of n short steps."""
        x.copy_(b)
        n = b.shape[self.axis]
        for k, window in enumerate(self._windows):
            step = window * x.narrow(self.axis, 0, n - 2**k)
            x.narrow(self.axis, 2**k, n - 2**k).add_(step)
        x *= self.weight
        for k, window in enumerate(self._windows):
            step = window * x.narrow(self.axis, 2**k, n - 2**k)
            x.narrow(self.axis, 0, n - 2**k).add_(step)
        return x

    def times(self, x: Tensor) -> Tensor:
        """Return the `gathered` b with T^-1 b = x, for ``M x R x C x K``."""
        return self.gathered_(self._add_balance_(self.leak * x, x))

    def gathered_(self, b: Tensor) -> Tensor:
        """Return currents with the same T^-1 b and nothing that it does not see; overwrites ``b``.

        Nodes joined by segments without resistance are one node: the last one gets it all. A node at 0 V
        without resistance swallows what it gets.
        """
        if self.segment == 0 and b.shape[self.axis] > 1:
            total = b.sum(self.axis, keepdim=True)
            b.zero_().narrow(self.axis, -1, 1).copy_(total)
        b.narrow(self.axis, -1, 1).mul_(self.end > 0)
        return b

    def _add_balance_(self, net: Tensor, x: Tensor) -> Tensor:
        """Add A x, the net current that the wires carry off each node; none where no resistance tells."""
        between = x.shape[self.axis] - 1
        if self.segment > 0:
            flow = x.diff(dim=self.axis).div_(self.segment)
            net.narrow(self.axis, 0, between).sub_(flow)
            net.narrow(self.axis, 1, between).add_(flow)
        ends = x.narrow(self.axis, -1, 1) / self.end
        net.narrow(self.axis, -1, 1).add_(torch.where(self.end > 0, ends, 0.0))
        return net

    def missing(self, x: Tensor, inflow: Tensor) -> Tensor:
        """Return the largest current that Kirchhoff's law misses at a node, ``M x 1 x 1 x K`` amperes.

        Args:
            x: ``M x R x C x K`` volts.
            inflow: ``M x R x C x K`` amperes that reach the nodes from elsewhere.
        """
        error = self.gathered_(self._add_balance_(inflow.neg(), x))
        return error.abs_().amax(1, keepdim=True).amax(2, keepdim=True)


def turned(x: Tensor) -> Tensor:
    """Return ``M x C x R x 1`` of ``M x R x C x 1``, contiguous, on the CPU."""
    # numpy's transposing copy takes half the time of torch's.
    return torch.from_numpy(x.numpy().swapaxes(1, 2).copy())
