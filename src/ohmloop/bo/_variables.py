"""The variables of a search space: what may be set, within which limits, in which steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import SearchError

Value: TypeAlias = float | str
Point: TypeAlias = Mapping[str, Value | None]


@dataclass(frozen=True)
class When:
    """A variable exists only where its parent takes one of these values.

    Attributes:
        parent: Name of the variable that decides.
        values: The parent's options or numbers for which the variable is active.
    """

    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Real:
    """A real number between bounds.

    Attributes:
        name: Its name.
        low: Lower bound.
        high: Upper bound, above ``low``.
        log: Whether ratios count, not differences; needs ``low > 0``.
        step: The equipment's step, counted from ``low``; None for continuous.
        tolerance: Standard deviation with which fabrication hits a set value, in the variable's unit.
        context: True for a quantity that is measured, not chosen (humidity of the day).
        when: Condition under which the variable exists.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    tolerance: float = 0.0
    context: bool = False
    when: When | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SearchError(
                f'variable "{self.name}": low must lie below high; received {self.low!r} and {self.high!r}.'
            )
        if self.log and self.low <= 0:
            raise SearchError(
                f'variable "{self.name}": a logarithmic scale needs low > 0; received {self.low!r}.'
            )
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise SearchError(
                f'variable "{self.name}": step must lie in (0, {self.high - self.low:g}]; '
                f"received {self.step!r}."
            )
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise SearchError(
                f'variable "{self.name}": tolerance must be 0 or more; received {self.tolerance!r}.'
            )

    def to_unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values to [0, 1] (outside for values outside the bounds; on a log scale those below 0 to -1)."""
        if self.log:
            safe = np.maximum(values, self.low * (self.low / self.high))
            return np.log(safe / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)

    def from_unit(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map [0, 1] to values that the equipment can be set to."""
        u = np.clip(u, 0.0, 1.0)
        if self.log:
            values = self.low * np.exp(u * math.log(self.high / self.low))
        else:
            values = self.low + u * (self.high - self.low)
        return self.snap(values)

    def snap(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Round to the step (without one: to about 1e-4 of the range) and the bounds."""
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-9)
            k = np.clip(np.round((values - self.low) / self.step), 0, count)
            values = np.round(self.low + k * self.step, self._digits)
        elif self.log:  # nobody sets a compliance of 0.004827519 A
            digits = 3 - np.floor(np.log10(np.maximum(values, 1e-300)))
            values = np.round(values * 10.0**digits) / 10.0**digits
        else:
            grain = 10.0 ** (math.floor(math.log10(self.high - self.low)) - 4)
            values = np.round(np.round(values / grain) * grain, self._digits)
        return np.clip(values, self.low, self.high)

    @property
    def _digits(self) -> int:
        """Decimals that matter: twelve digits of the largest value, whatever its unit."""
        return 12 - math.floor(math.log10(max(abs(self.low), abs(self.high))))

    @property
    def n_values(self) -> int | None:
        """How many values there are; None for a continuum."""
        if self.step is None:
            return None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1


@dataclass(frozen=True, kw_only=True)
class Integer(Real):
    """A whole number between bounds; fields as in `Real`."""

    step: float | None = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise SearchError(
                f'variable "{self.name}": an integer has whole bounds; received {self.low!r}, {self.high!r}.'
            )


@dataclass(frozen=True, kw_only=True)
class Ordinal:
    """One of several numbers with an order (temperatures of a hot plate with four marks).

    Attributes:
        name: Its name.
        levels: At least two different numbers.
        context: As in `Real`.
        when: As in `Real`.
    """

    name: str
    levels: tuple[float, ...]
    context: bool = False
    when: When | None = None
    tolerance: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if len(set(self.levels)) < 2 or len(set(self.levels)) != len(self.levels):
            raise SearchError(
                f'variable "{self.name}": needs at least two different levels; received {self.levels!r}.'
            )
        if not all(math.isfinite(level) for level in self.levels):
            raise SearchError(f'variable "{self.name}": levels must be finite numbers.')
        object.__setattr__(self, "levels", tuple(sorted(float(level) for level in self.levels)))

    def to_unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values to [0, 1] by size."""
        low, high = self.levels[0], self.levels[-1]
        return (values - low) / (high - low)

    def from_unit(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map [0, 1] to the levels, each an equal share."""
        k = np.minimum((np.clip(u, 0, 1) * len(self.levels)).astype(int), len(self.levels) - 1)
        out: NDArray[np.float64] = np.asarray(self.levels, dtype=np.float64)[k]
        return out

    def snap(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the nearest level of each value."""
        levels = np.asarray(self.levels, dtype=np.float64)
        out: NDArray[np.float64] = levels[np.abs(values[:, None] - levels[None, :]).argmin(1)]
        return out

    @property
    def n_values(self) -> int:
        """How many values there are."""
        return len(self.levels)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One of several options without an order.

    Attributes:
        name: Its name.
        options: At least one name; these are proposed.
        descriptors: Option -> numbers that say which options are alike (properties of a material), the
            same number of them for each; options that are near each other share what is learned.
        retired: Options that occur in old trials and are no longer proposed.
        context: As in `Real`.
        when: As in `Real`.
    """

    name: str
    options: tuple[str, ...]
    descriptors: Mapping[str, tuple[float, ...]] | None = None
    retired: tuple[str, ...] = ()
    context: bool = False
    when: When | None = None
    tolerance: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not self.options or len(set(self.known)) != len(self.known):
            raise SearchError(
                f'variable "{self.name}": needs one or more different options; received {self.options!r}.'
            )
        if self.descriptors is not None:
            missing = [option for option in self.options if option not in self.descriptors]
            lengths = {len(numbers) for numbers in self.descriptors.values()}
            if missing or len(lengths) != 1 or 0 in lengths:
                raise SearchError(
                    f'variable "{self.name}": every option needs the same descriptors; '
                    f"missing for {missing}, lengths {sorted(lengths)}."
                )
            if not all(math.isfinite(x) for numbers in self.descriptors.values() for x in numbers):
                raise SearchError(f'variable "{self.name}": descriptors must be finite numbers.')

    @property
    def known(self) -> tuple[str, ...]:
        """Options and retired options."""
        return self.options + self.retired

    @property
    def n_values(self) -> int:
        """How many values may be proposed."""
        return len(self.options)

    def embedding(self, *, use_descriptors: bool = True) -> NDArray[np.float64]:
        """Return one row of coordinates for each known option: one column an option, then descriptors.

        Squared distances between rows are 1 for two options without descriptors. With descriptors
        one half is identity and the other the distance of the standardised descriptors, scaled so
        that its mean over pairs of options is 1 too. A retired option without descriptors stands at their mean.
        """
        n = len(self.known)
        identity = np.eye(n) / math.sqrt(2)
        if self.descriptors is None or not use_descriptors or n < 2:
            return identity
        length = len(next(iter(self.descriptors.values())))
        table = np.array(
            [self.descriptors.get(option, (math.nan,) * length) for option in self.known]
        )
        mean, spread = np.nanmean(table, 0), np.nanstd(table, 0)
        keep = spread > 1e-12
        table = np.nan_to_num((table[:, keep] - mean[keep]) / spread[keep])
        pairs = ((table[:, None] - table[None]) ** 2).sum(-1)
        typical = pairs[np.triu_indices(n, 1)].mean() if keep.any() else 0.0
        if typical <= 0:
            return identity
        return np.hstack([identity, table / math.sqrt(typical)]) / math.sqrt(2)


Variable: TypeAlias = Real | Integer | Ordinal | Categorical


def nearest_text(wrong: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for a likely misspelling, else nothing."""
    import difflib

    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""
