"""What is searched, and what has been seen: checked once, at construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohmloop.errors import SearchError


@dataclass(frozen=True)
class Parameter:
    """One continuous dimension of a search, ``low <= value <= high``.

    >>> Parameter("rate", 0.0, 0.8)
    Parameter(name='rate', low=0.0, high=0.8)
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SearchError(
                f'parameter "{self.name}": expected finite bounds with low < high; '
                f"received low={self.low!r}, high={self.high!r}."
            )


@dataclass(frozen=True)
class Space:
    """A box of ``d`` continuous parameters.

    >>> Space((Parameter("a", 0, 1), Parameter("b", -1, 1))).d
    2
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = [p.name for p in self.parameters]
        if not names:
            raise SearchError("a search space needs at least one Parameter; received none.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SearchError(f"every parameter needs its own name; {twice} occur more than once.")

    @property
    def d(self) -> int:
        """Number of dimensions."""
        return len(self.parameters)

    @property
    def bounds(self) -> NDArray[np.float64]:
        """``2 x d``: lower bounds, then upper bounds."""
        return np.array([[p.low for p in self.parameters], [p.high for p in self.parameters]])

    def scale(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points of the unit cube (``n x d``) into the box, never past its bounds."""
        low, high = self.bounds
        return np.asarray(np.clip(low + unit * (high - low), low, high), dtype=np.float64)

    def points(self, values: ArrayLike, *, what: str) -> NDArray[np.float64]:
        """Return ``values`` as ``n x d`` points of this space.

        Args:
            values: ``n x d``; an empty sequence gives ``0 x d``.
            what: How an error calls them ("pending").

        Raises:
            SearchError: If the shape is wrong, or a value is not finite or outside its bounds.
        """
        try:
            x = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise SearchError(f"{what}: expected numbers, n x {self.d}; {error}.") from error
        if x.size == 0:
            return np.empty((0, self.d))
        if x.ndim != 2 or x.shape[1] != self.d:
            raise SearchError(
                f"{what}: expected shape n x {self.d} (one row a point), received {x.shape}."
            )
        low, high = self.bounds
        slack = 1e-9 * (high - low)
        wrong = ~(np.isfinite(x) & (x >= low - slack) & (x <= high + slack))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            p = self.parameters[column]
            raise SearchError(
                f'{what}, row {row}: "{p.name}" lies in [{p.low:g}, {p.high:g}]; '
                f"received {x[row, column]:g}."
            )
        return np.asarray(np.clip(x, low, high))


@dataclass(frozen=True, eq=False)
class Observations:
    """What has been measured so far.

    Attributes:
        X: ``n`` points, each a sequence of ``d`` numbers.
        Y: ``n`` outcomes, larger is better; NaN where the trial failed.
    """

    X: Sequence[Sequence[float]] | NDArray[np.float64] = ()
    Y: Sequence[float] | NDArray[np.float64] = ()

    def __post_init__(self) -> None:
        if len(self.X) != len(self.Y):
            raise SearchError(
                f"every point needs one outcome (NaN if it failed); received {len(self.X)} points "
                f"and {len(self.Y)} outcomes."
            )
        y = np.asarray(self.Y, dtype=np.float64)
        if y.ndim != 1 or np.isinf(y).any():
            raise SearchError(
                "outcomes must be one finite number a point, NaN for a failed trial; "
                f"received shape {y.shape}{' with infinite values' if np.isinf(y).any() else ''}."
            )
