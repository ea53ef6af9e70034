"""One crossbar in closed form: what a linear layer's class survives, exactly.

One layer, one input x, outputs y_j = w_j . x + b_j, class c = argmax. With the terms t_i of the lead y_c -
y_j (all w_ci x_i, b_c, -w_ji x_i, -b_j, each on cells of its own), P the sum of the positive and N of the
magnitudes of the negative ones:

* relative box: the smallest lead is P (1 - r) - N (1 + r), zero at r = (P - N) / (P + N), which is margin /
  (|w_c| . |x| + |w_j| . |x|). For r > 1 signs change and the line goes on.
* log box: P exp(-s) - N exp(s), zero at s = ln(P / N) / 2.
* relative Gaussian noise: y_j ~ N(mu_j, sigma^2 sum (w_j x)^2), independent over j. Of a pair the yield is
  Phi(margin / (sigma sqrt(sum (w_c^2 + w_j^2) x^2))); of all classes one integral over y_c.
* log-normal noise: a sum of signed log-normals has no closed form. Bounded from below by the better of
  Cantelli's inequality (one-sided Chebyshev: P(D <= 0) <= v / (v + m^2)) and the probability that every cell
  stays in the log box, and by the union over j.

The nominal arithmetic is float64; these are formulas for real numbers, without the rounding of the box's
bounds.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohmloop.errors import CertifyError

Array = NDArray[np.float64]
Convention = Literal["median-1", "mean-1"]
_PANEL = 0.5
"""Widest panel of the integral, in deviations of the class's own output."""
_ORDER = 16
"""Nodes of a panel: the rule is exact for polynomials of degree 31."""


def crossbar_tolerance(
    weight: ArrayLike,
    inputs: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    kind: Literal["relative", "log"] = "relative",
) -> Array:
    """Return the exact largest box in which one crossbar keeps the class of each input.

    Inside it every device predicts the class; a little outside some device does not.

    Args:
        weight: ``C x I``.
        inputs: ``N x I``.
        bias: ``C``, on cells too; None for none.
        kind: "relative" (|w' - w| <= r |w|) or "log" (w exp(a), |a| <= r).

    Returns:
        ``N`` radii; infinite where nothing can change the class ("log": no term speaks against it).

    >>> crossbar_tolerance([[1.0, 0.0], [0.0, 1.0]], [[3.0, 1.0]]).tolist()
    [0.5]
    """
    terms, leads = _leads(weight, inputs, bias)
    positive, negative = np.maximum(terms, 0).sum(-1), np.maximum(-terms, 0).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "relative":
            radii = leads / (positive + negative)
        elif kind == "log":
            radii = np.log(positive / negative) / 2
        else:
            raise CertifyError(f'kind is "relative" or "log"; received {kind!r}.')
    radii = np.where(np.isnan(radii), 0.0, radii)
    smallest: Array = _over_rivals(radii, _classes(weight, inputs, bias), np.inf).min(1)
    return smallest


def pair_yield(
    weight: ArrayLike,
    inputs: ArrayLike,
    sigma: float,
    *,
    bias: ArrayLike | None = None,
) -> Array:
    """Return the probability that each class loses to the nominal one, under relative Gaussian noise; exact.

    Args:
        weight: ``C x I``; each weight is multiplied by 1 + sigma N(0, 1).
        inputs: ``N x I``.
        sigma: Relative standard deviation, > 0.
        bias: ``C``, on cells too.

    Returns:
        ``N x C``, 1 at the nominal class itself.

    >>> float(pair_yield([[1.0, 0.0], [0.0, 1.0]], [[3.0, 1.0]], 0.5)[0, 1].round(4))
    0.897
    """
    from scipy.stats import norm

    _check_sigma(sigma)
    terms, leads = _leads(weight, inputs, bias)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = leads / (sigma * np.sqrt((terms**2).sum(-1)))
    found: Array = norm.cdf(np.where(np.isnan(z), 0.0, z))
    return _over_rivals(found, _classes(weight, inputs, bias), 1.0)


def crossbar_yield(
    weight: ArrayLike,
    inputs: ArrayLike,
    sigma: float,
    *,
    bias: ArrayLike | None = None,
) -> Array:
    """Return the share of devices that predict the nominal class, under relative Gaussian noise.

    Rows of a crossbar are independent, so it is one integral over the class's own output, by Gauss's rule
    on panels that are no wider than what varies in them (error below 1e-9, tested against adaptive quadrature).

    Args:
        weight: ``C x I``; each weight is multiplied by 1 + sigma N(0, 1).
        inputs: ``N x I``.
        sigma: Relative standard deviation, > 0.
        bias: ``C``, on cells too.

    Returns:
        ``N`` probabilities.
    """
    from scipy.stats import norm

    _check_sigma(sigma)
    w, x, b = _arrays(weight, inputs, bias)
    mean = x @ w.T + b
    spread = sigma * np.sqrt(x**2 @ (w**2).T + b**2)
    out = np.empty(len(x))
    for k, c in enumerate(mean.argmax(1)):
        mu, s = np.delete(mean[k], c), np.delete(spread[k], c)
        own = float(spread[k, c])
        if own == 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                z = (mean[k, c] - mu) / s
            out[k] = norm.cdf(np.where(np.isnan(z), 0.0, z)).prod()
            continue
        z, share = _panels((mu - mean[k, c]) / own, s / own)
        with np.errstate(divide="ignore", invalid="ignore"):
            lead = (mean[k, c] + own * z[:, None] - mu) / s
        out[k] = share @ (norm.pdf(z) * norm.cdf(np.where(np.isnan(lead), 0.0, lead)).prod(1))
    return np.clip(out, 0.0, 1.0)


def _panels(edges: Array, widths: Array) -> tuple[Array, Array]:
    """Return nodes and weights that integrate a product of normal distribution functions over [-9, 9].

    Args:
        edges: Where each of them crosses one half.
        widths: Their standard deviations; 0 for a step.
    """
    steep = widths < _PANEL
    steps = np.arange(-9.0, 10.0, 2.0)  # 9 deviations away it is 0 or 1 to 1e-18
    cuts = edges[steep, None] + widths[steep, None] * steps
    ends = np.unique(np.clip(np.concatenate([np.arange(-9.0, 9.1, _PANEL), cuts.ravel()]), -9, 9))
    node, weight = np.polynomial.legendre.leggauss(_ORDER)
    half = np.diff(ends)[:, None] / 2
    return (ends[:-1, None] + half + half * node).ravel(), (half * weight).ravel()


def crossbar_yield_bound(
    weight: ArrayLike,
    inputs: ArrayLike,
    sigma: float,
    *,
    bias: ArrayLike | None = None,
    convention: Convention = "median-1",
) -> Array:
    """Return a lower bound of the share of devices that predict the nominal class, log-normal noise.

    Args:
        weight: ``C x I``; each weight is multiplied by exp(sigma N(0, 1)), divided by its mean under "mean-1".
        inputs: ``N x I``.
        sigma: Deviation of the logarithm, > 0.
        bias: ``C``, on cells too.
        convention: Which log-normal law.

    Returns:
        ``N`` bounds, 0 where nothing can be said. They may be far below the truth.
    """
    from scipy.stats import norm

    _check_sigma(sigma)
    if convention not in ("median-1", "mean-1"):
        raise CertifyError(f'the convention is "median-1" or "mean-1"; received {convention!r}.')
    terms, leads = _leads(weight, inputs, bias)
    # A common factor of all cells changes no class: the mean-1 law is the median-1 law divided by its mean.
    variance = math.expm1(sigma**2) * (terms**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cantelli = np.where(leads > 0, variance / (variance + leads**2), 1.0)
    failing = _over_rivals(cantelli, _classes(weight, inputs, bias), 0.0).sum(1)
    radius = crossbar_tolerance(weight, inputs, bias=bias, kind="log")
    w, x, b = _arrays(weight, inputs, bias)
    n_cells = len(w) * (x != 0).sum(1) + (b != 0).sum()
    # ln P(all |eps| <= s / sigma) = n ln(1 - 2 Phi(-s / sigma))
    inside = np.exp(n_cells * np.log1p(-2 * norm.cdf(-np.maximum(radius, 0) / sigma) * (1 - 1e-16)))
    bound: Array = np.maximum(np.clip(1 - failing, 0, 1), np.where(radius > 0, inside, 0.0))
    return bound


def _arrays(
    weight: ArrayLike, inputs: ArrayLike, bias: ArrayLike | None
) -> tuple[Array, Array, Array]:
    w, x = np.asarray(weight, float), np.asarray(inputs, float)
    b = np.zeros(len(w)) if bias is None else np.asarray(bias, float)
    if w.ndim != 2 or x.ndim != 2 or w.shape[1] != x.shape[1] or b.shape != (len(w),) or len(w) < 2:
        raise CertifyError(
            "one crossbar is weights C x I (C >= 2), inputs N x I and a bias C; received "
            f"{w.shape}, {x.shape} and {b.shape}."
        )
    return w, x, b


def _classes(weight: ArrayLike, inputs: ArrayLike, bias: ArrayLike | None) -> NDArray[np.int64]:
    w, x, b = _arrays(weight, inputs, bias)
    classes: NDArray[np.int64] = (x @ w.T + b).argmax(1)
    return classes


def _leads(weight: ArrayLike, inputs: ArrayLike, bias: ArrayLike | None) -> tuple[Array, Array]:
    """Return the terms ``N x C x (2 I + 2)`` of the lead over each class, and the leads ``N x C``."""
    w, x, b = _arrays(weight, inputs, bias)
    c = (x @ w.T + b).argmax(1)
    products = x[:, None] * w
    own = np.concatenate([products[np.arange(len(x)), c], b[c, None]], 1)
    theirs = np.concatenate([products, np.broadcast_to(b[:, None], (len(x), len(w), 1))], 2)
    terms = np.concatenate([np.broadcast_to(own[:, None], theirs.shape), -theirs], 2)
    return terms, terms.sum(-1)


def _over_rivals(values: Array, classes: NDArray[np.int64], own: float) -> Array:
    """Return ``N x C`` values with ``own`` at the class itself."""
    out = values.copy()
    out[np.arange(len(out)), classes] = own
    return out


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < math.inf:
        raise CertifyError(f"sigma is a number > 0; received {sigma!r}.")
