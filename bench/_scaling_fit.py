"""Small models of costs: sums of terms of known order, fitted with non-negative coefficients."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Point = Mapping[str, float]


class Fit(NamedTuple):
    """A fitted model.

    Attributes:
        coefficients: Term -> coefficient of the fit to all repeats.
        spread: Term -> lowest and highest coefficient over this fit and those to one repeat each.
        worst: Largest relative error on the fitted points, of medians.
    """

    coefficients: dict[str, float]
    spread: dict[str, tuple[float, float]]
    worst: float


def size(term: str, point: Point) -> float:
    """Return the value of a term such as "D n P", "N^3" or "1" at a point.

    >>> size("D n^2", {"D": 3, "n": 2})
    12.0
    """
    out = 1.0
    for factor in term.split():
        if factor != "1":
            name, _, power = factor.partition("^")
            out *= float(point[name]) ** int(power or 1)
    return out


def fitted(terms: Sequence[str], points: Sequence[Point], values: Sequence[Sequence[float]]) -> Fit:
    """Return the model that fits best in relative error.

    Args:
        terms: As `size` takes them.
        points: Where it was measured.
        values: For each point its repeats, all as many, above 0.
    """
    repeats = np.asarray(values, dtype=np.float64)
    if repeats.ndim != 2 or len(repeats) != len(points) or not (repeats > 0).all():
        raise ValueError(
            f"expected {len(points)} rows of equally many positive repeats; received {repeats.shape}"
        )
    design = np.array([[size(term, point) for term in terms] for point in points])
    whole = _solved(design, repeats)
    each = np.array([whole, *(_solved(design, column[:, None]) for column in repeats.T)])
    worst = np.abs(design @ whole / np.median(repeats, axis=1) - 1).max()
    return Fit(
        dict(zip(terms, whole.tolist(), strict=True)),
        {t: (float(each[:, k].min()), float(each[:, k].max())) for k, t in enumerate(terms)},
        float(worst),
    )


def _solved(design: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Return the coefficients >= 0 with the least sum of squares of (model - value) / value."""
    from scipy.optimize import nnls

    scale = design.max(axis=0)  # terms differ by many powers of ten
    rows = [(design / scale) / column[:, None] for column in repeats.T]
    found, _ = nnls(np.vstack(rows), np.ones(repeats.size))
    return np.asarray(found / scale)


def predicted(coefficients: Mapping[str, float], point: Point) -> float:
    """Return what a model says at a point."""
    return sum(c * size(term, point) for term, c in coefficients.items() if c)


def checked(
    fit: Fit, points: Sequence[Point], values: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Return, for points that were not fitted, what was measured, predicted, and the relative error.

    The error is that of the median; its spread is over the repeats.
    """
    out = []
    for point, repeats in zip(points, values, strict=True):
        said = predicted(fit.coefficients, point)
        errors = sorted(said / value - 1 for value in repeats)
        out.append(
            {
                "point": dict(point),
                "measured": list(repeats),
                "predicted": said,
                "error": said / float(np.median(repeats)) - 1,
                "error_low": errors[0],
                "error_high": errors[-1],
            }
        )
    return out
