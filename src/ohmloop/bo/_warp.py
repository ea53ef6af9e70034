"""Outcomes on a scale where a Gaussian process fits them: signed, straightened, mean 0, spread 1.

Source: Yeo, Johnson, Biometrika 87, 954 (2000) for the power transform; its use before a Gaussian process
follows Snelson et al., NIPS 2003 (warped processes), and Cowen-Rivers et al., JAIR 74 (2022).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scale = Literal["auto", "linear", "log"]
LEAST_FOR_POWER = 6  # fewer outcomes say nothing about the shape of their distribution


@dataclass(frozen=True)
class Warp:
    """A monotone map of raw outcomes to numbers of mean 0 and spread 1, larger is better.

    Attributes:
        sign: 1 to maximise, -1 to minimise.
        log: Whether the logarithm of the raw value is taken first.
        centre: Subtracted after that, in its unit.
        width: Divided by.
        power: Exponent of the Yeo-Johnson transform; 1 is none.
        shift: Mean after the transform.
        spread: Standard deviation after the transform.
        ends: Lowest and highest value before the power transform that `inverse` returns.
    """

    sign: float
    log: bool
    centre: float
    width: float
    power: float
    shift: float
    spread: float
    ends: tuple[float, float]

    @classmethod
    def fit(
        cls, values: NDArray[np.float64], *, maximise: bool, scale: Scale, within: float = 0.0
    ) -> Warp:
        """Fit the map.

        Args:
            values: One a recipe, all finite, positive where ``scale`` is "log".
            maximise: Whether larger is better.
            scale: As in `ohmloop.bo.Objective`.
            within: Spread among the replicates of a recipe (of logarithms for "log"). Recipes whose means
                happen to agree within it are not blown up to a spread of 1.
        """
        sign = 1.0 if maximise else -1.0
        log = scale == "log"
        z = sign * (np.log(values) if log else values)
        centre, width = float(z.mean()), max(float(z.std()), within)
        if not width > 1e-12 * abs(
            centre
        ):  # one value, or several equal ones: any unit is possible
            width = 1.0 if log or centre == 0 else abs(centre)
        z = (z - centre) / width
        power = 1.0
        if scale == "auto" and len(np.unique(z)) >= LEAST_FOR_POWER:
            power = _power(z)
        w = _yeo_johnson(z, power)
        spread = max(float(w.std()), within / width)
        spread = spread if spread > 1e-9 else 1.0
        # A bent scale runs away beyond its data: trust it for two ranges more, no further.
        reach = 2.0 * max(float(np.ptp(z)), 1.0) if power != 1.0 else math.inf
        ends = (float(z.min()) - reach, float(z.max()) + reach)
        return cls(sign, log, centre, width, power, float(w.mean()), spread, ends)

    def __call__(self, values: NDArray[np.float64] | Sequence[float]) -> NDArray[np.float64]:
        """Map raw outcomes to the fitted scale."""
        raw = np.asarray(values, dtype=np.float64)
        z = (self.sign * (np.log(raw) if self.log else raw) - self.centre) / self.width
        return (_yeo_johnson(z, self.power) - self.shift) / self.spread

    def errors(
        self, values: NDArray[np.float64], errors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Map standard errors of raw outcomes: half the way from one error below to one above."""
        if self.log:
            step = errors / values
            low, high = values * np.exp(-step), values * np.exp(step)
        else:
            low, high = values - errors, values + errors
        out: NDArray[np.float64] = np.abs(self(high) - self(low)) / 2
        return out

    def inverse(self, fitted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map back to raw outcomes, at most two ranges beyond the data where the scale is bent."""
        z = _inverse_yeo_johnson(fitted * self.spread + self.shift, self.power)
        z = np.clip(z, *self.ends)
        raw = self.sign * (z * self.width + self.centre)
        return np.exp(raw) if self.log else raw


def pooled_spread(replicates: Sequence[NDArray[np.float64]]) -> float:
    """Return the standard deviation within recipes, pooled over them; 0 where none was repeated."""
    squares = sum(float(((r - r.mean()) ** 2).sum()) for r in replicates)
    freedom = sum(len(r) - 1 for r in replicates)
    return math.sqrt(squares / freedom) if freedom else 0.0


def _power(z: NDArray[np.float64]) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.stats import yeojohnson_llf

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        found = minimize_scalar(
            # A weak pull to 1, so that a handful of outcomes does not bend the scale.
            lambda p: -float(yeojohnson_llf(p, z)) + 0.5 * (p - 1.0) ** 2,
            bounds=(-1.0, 3.0),
            method="bounded",
        )
    return float(found.x)


def _yeo_johnson(z: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    up, down = np.maximum(z, 0.0), np.maximum(-z, 0.0)
    right = np.log1p(up) if abs(power) < 1e-9 else np.expm1(power * np.log1p(up)) / power
    other = 2.0 - power
    left = np.log1p(down) if abs(other) < 1e-9 else np.expm1(other * np.log1p(down)) / other
    return right - left


def _inverse_yeo_johnson(w: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    up, down = np.maximum(w, 0.0), np.maximum(-w, 0.0)
    return _inverse_half(up, power) - _inverse_half(down, 2.0 - power)


def _inverse_half(w: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    if abs(power) < 1e-9:
        return np.expm1(np.minimum(w, 50.0))
    base = np.maximum(1.0 + power * w, 1e-6)
    return np.expm1(np.minimum(np.log(base) / power, 50.0))
