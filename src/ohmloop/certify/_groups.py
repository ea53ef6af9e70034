"""Groups of analog cells: layers, columns, tiles; and what a shift of some of them costs under a law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

GroupKind = Literal["layer", "column", "tile", "chip"]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


def layer_of(name: str) -> str:
    """Return the layer that a parameter belongs to: "features.3" of "features.3.weight"."""
    return name.rpartition(".")[0] or name


def coordinate_groups(
    parameters: Mapping[str, Tensor], kind: GroupKind, rows: int = 64, columns: int = 64
) -> Indices:
    """Return the group of each scalar of the analog parameters, numbered from 0, length D.

    The matrix of a weight is outputs x (all else), as an array holds it; a bias is one more input row.
    A column is one output; a tile is ``rows`` inputs by ``columns`` outputs.
    """
    widths = {layer_of(n): p[0].numel() for n, p in parameters.items() if p.ndim > 1}
    keys: list[Indices] = []
    layers: dict[str, int] = {}
    for name, p in parameters.items():
        layer = layer_of(name)
        number = 0 if kind == "chip" else layers.setdefault(layer, len(layers))
        outputs = p.shape[0] if p.ndim else 1
        inner = p.numel() // max(outputs, 1)
        out = np.repeat(np.arange(outputs, dtype=np.int64), inner)
        if p.ndim > 1:
            into = np.tile(np.arange(inner, dtype=np.int64), outputs)
        else:
            into = np.full(p.numel(), widths.get(layer, 0), dtype=np.int64)
        place = np.zeros_like(out)
        if kind == "column":
            place = out
        elif kind == "tile":
            place = (out // columns << 20) + into // rows
        keys.append((number << 44) + place)
    _, index = np.unique(np.concatenate(keys), return_inverse=True)
    return np.asarray(index.reshape(-1), dtype=np.int64)


@dataclass(frozen=True)
class Shift:
    """A systematic change of some cells, all by the same amount in the noise coordinate.

    Attributes:
        what: The cells, for a person: "one cell", "layer 0 (6,500 cells)".
        cells: How many, in all arrays.
        costs: Deviations of the law that a unit change takes, one for each level of the law.
    """

    what: str
    cells: int
    costs: tuple[float, ...]

    def amount(self, rho: float, unit: Floats) -> float:
        """Return the change that costs at most ``rho`` deviations at level 1, at every level of the law.

        Args:
            rho: Deviations at level 1.
            unit: What one such deviation costs at each level.
        """
        return float(rho * (unit / np.asarray(self.costs)).min())


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells that hold the weights of one network, as far as shifts need them. Zero weights hold none.

    Attributes:
        layers: Names of the layers.
        layer: ``D`` numbers of the layer of each cell.
        tile: ``D`` numbers of its tile.
        column: ``D`` numbers of its column.
        group: ``D`` numbers of the group whose gain it shares; None without such gains.
        sigma: ``D`` standard deviations at level 1.
        tau: Of the common gain, 0 without.
        levels: Equally likely factors on sigma.
        copies: ``D`` numbers of arrays that hold the same weight, each with its own noise; the same within a
            group.
        tile_size: Rows and columns of a tile.
    """

    layers: tuple[str, ...]
    layer: Indices
    tile: Indices
    column: Indices
    group: Indices | None
    sigma: Floats
    tau: float
    levels: tuple[float, ...]
    copies: Indices
    tile_size: tuple[int, int]

    @property
    def n(self) -> int:
        """How many cells there are in one array."""
        return len(self.sigma)

    def cost(self, delta: NDArray[np.float64]) -> tuple[float, ...]:
        """Return ``||Sigma^-1/2 delta||`` at each level of the law, for the same shift in all copies.

        Args:
            delta: ``D`` changes of the noise coordinates, in the order of the cells (`shift_between`).
        """
        group, copies = self._alike()
        out = []
        for f in self.levels:
            weight = 1 / (self.sigma * f) ** 2
            square = np.bincount(group, delta**2 * weight)
            if self.group is not None:
                pull = np.bincount(group, delta * weight)
                whole = np.bincount(group, weight)
                square -= self.tau**2 * pull**2 / (1 + self.tau**2 * whole)
            out.append(float(np.sqrt((copies * square.clip(0)).sum())))
        return tuple(out)

    def _alike(self) -> tuple[Indices, Indices]:
        """Return the group of each cell and the copies of each group.

        Where no gains are shared a group is what has equally many copies.
        """
        if self.group is None:
            copies, group = np.unique(self.copies, return_inverse=True)
            return np.asarray(group.reshape(-1), dtype=np.int64), copies
        copies = np.zeros(int(self.group.max()) + 1, dtype=np.int64)
        copies[self.group] = self.copies
        return self.group, copies

    def some(self, k: int) -> Shift:
        """Return the shift of any ``k`` cells, each up or down by at most the amount, whichever they are.

        ``k / sigma^2`` at the smallest sigma: a common gain in the law can only make it cheaper.
        """
        unit = np.sqrt(k) / self.sigma.min()
        what = "one cell" if k == 1 else f"any {k:,} cells"
        return Shift(what, k, tuple(float(unit / f) for f in self.levels))

    def common(self, chosen: NDArray[np.bool_], what: str) -> Shift:
        """Return the shift of the chosen cells by one and the same amount, in all copies."""
        costs = self._common(np.where(chosen, 0, 1).astype(np.int64))[:, 0]
        return Shift(what, int(self.copies[chosen].sum()), tuple(float(c) for c in costs))

    def _common(self, index: Indices) -> Floats:
        """Return what a shift of each part of the cells by one amount costs, ``levels x parts``.

        ``1^T Sigma^-1 1`` over the cells B of a part, by Sherman & Morrison (1950): over the groups,
        ``S_B - tau^2 S_B^2 / (1 + tau^2 S)`` with S the sum of 1 / sigma^2 over the whole group; a whole group
        of n cells gives ``1 / (tau^2 + sigma^2 / n)``.
        """
        inverse = 1 / self.sigma**2
        group, copies = self._alike()
        n_groups = len(copies)
        unique, pair = np.unique(index * n_groups + group, return_inverse=True)
        part = np.bincount(pair.reshape(-1), inverse)
        whole = np.bincount(group, inverse, n_groups)[unique % n_groups]
        squares = []
        for f in self.levels:
            own, all_ = part / f**2, whole / f**2
            # The same quotient without the difference of two large numbers; tau is 0 without groups.
            square = own * (1 + self.tau**2 * (all_ - own)) / (1 + self.tau**2 * all_)
            squares.append(np.bincount(unique // n_groups, copies[unique % n_groups] * square))
        return np.sqrt(np.stack(squares))

    def shifts(self) -> tuple[Shift, ...]:
        """Return the shifts that a lab thinks in: some cells, each layer, a tile, a column, the whole chip."""
        out = [self.some(k) for k in (1, 10, 100, 1000) if k <= self.n]
        costs, sizes = self._common(self.layer), self._counted(self.layer)
        for k in np.flatnonzero(sizes):
            what = f"layer {self.layers[k]} ({sizes[k]:,} cells), one factor"
            out.append(Shift(what, int(sizes[k]), tuple(float(c) for c in costs[:, k])))
        rows, columns = self.tile_size
        for index, what in (
            (self.tile, f"any one tile of {rows} x {columns}, one factor"),
            (self.column, "any one column, one factor"),
        ):
            # Each level's own dearest part: an upper bound for any one part at all levels.
            dearest = tuple(float(c) for c in self._common(index).max(1))
            out.append(Shift(what, int(self._counted(index).max()), dearest))
        every = np.ones(self.n, dtype=bool)
        return (*out, self.common(every, f"all {self.copies.sum():,} cells, one factor"))

    def _counted(self, index: Indices) -> Indices:
        """Return how many cells of all arrays each part has."""
        return np.bincount(index, self.copies).astype(np.int64)
