"""The exponential curve of identical pulses: its fit to a mean curve, its nonlinearity, its noise.

Sources:
    Chen, Peng, Yu, IEDM 2017, and IEEE TCAD 37, 3067 (2018) (NeuroSim): the curve
    G(p) = B (1 - exp(-p / A)) + G_min, and the table of its nonlinearity labels ("Nonlinearity-NormA").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LABEL = 10.1
"""NeuroSim's nonlinearity label over the largest vertical distance of the normalised curve from the straight
line: fitted to the table "Nonlinearity-NormA" of MLP NeuroSim 3.0, which it meets to 0.2 %."""
_MOST_POINTS = 600  # of a curve that the whitened fit uses: its cost grows with the cube
# Curvatures tried before refinement; 0 is the straight line. Beyond +-40 one pulse does it all.
_CURVATURES = np.concatenate([-np.geomspace(20, 0.05, 60), [0.0], np.geomspace(0.05, 40, 90)])


def nonlinearity(curvature: float) -> float:
    """Return NeuroSim's nonlinearity label of a curve, with the sign of its curvature.

    Args:
        curvature: a = P / A of x(p) = (1 - exp(-a p / P)) / (1 - exp(-a)).

    >>> round(nonlinearity(1 / 0.3853), 2)  # NeuroSim's table: label 3.01 has A / P = 0.3853
    3.01
    """
    a = abs(curvature)
    if a < 1e-6:
        return LABEL * curvature / 8
    end = -np.expm1(-a)
    # The distance is largest where the slope a exp(-a p) / end equals 1.
    p = np.log(a / end) / a
    return float(np.sign(curvature) * LABEL * (-np.expm1(-a * p) / end - p))


def asymmetry(up: float, down: float) -> float:
    """Return how far potentiation and depression lie apart halfway, as a share of the window.

    x_up(P / 2) - x_down(P / 2) of the noise-free curves: 0 where both are straight, up to 1.

    Args:
        up: Curvature of potentiation.
        down: Curvature of depression.
    """
    return float(1 / (1 + np.exp(-up / 2)) + 1 / (1 + np.exp(-down / 2)) - 1)


class Curve:
    """Generalised least squares of one polarity's mean curve, for many means on the same pulses."""

    def __init__(self, total: Array, keep: NDArray[np.bool_], noise: Array | None) -> None:
        step = max(1, len(total) // _MOST_POINTS)
        self.at = np.flatnonzero(keep)[::step]
        self.share = total / total[-1]
        white = np.eye(len(self.at))
        if noise is not None:
            chosen = noise[np.ix_(self.at, self.at)]
            white = np.linalg.inv(np.linalg.cholesky(chosen))
        self.white = white
        bases = []
        for a in _CURVATURES:
            q, _ = np.linalg.qr(white @ self._columns(a))
            bases.append(q.T)
        self.bases = np.stack(bases)

    def _columns(self, a: float) -> Array:
        return np.stack([np.ones(len(self.at)), shape(a, self.share[self.at])], axis=1)

    def fit(self, mean: Array) -> tuple[float, float, float]:
        """Return start, change over all pulses, and curvature of the mean curve (siemens)."""
        z = self.white @ mean[self.at]
        explained = ((self.bases @ z) ** 2).sum(axis=1)
        k = int(np.argmax(explained))
        a = float(_CURVATURES[k])
        if 0 < k < len(_CURVATURES) - 1:
            a = self._refined(z, _CURVATURES[k - 1], _CURVATURES[k + 1])
        coefficients, *_ = np.linalg.lstsq(self.white @ self._columns(a), z, rcond=None)
        return float(coefficients[0]), float(coefficients[1]), a

    def _refined(self, z: Array, low: float, high: float) -> float:
        from scipy.optimize import minimize_scalar

        def unexplained(a: float) -> float:
            q, _ = np.linalg.qr(self.white @ self._columns(a))
            return float(z @ z - ((q.T @ z) ** 2).sum())

        found = minimize_scalar(
            unexplained, bounds=(low, high), method="bounded", options={"xatol": 1e-5}
        )
        return float(found.x)


def shape(a: float, share: Array) -> Array:
    """Return (1 - exp(-a u)) / (1 - exp(-a)) at the shares u of all pulses; u itself for a = 0."""
    if abs(a) < 1e-8:
        return share
    return np.asarray(np.expm1(-a * share) / np.expm1(-a), dtype=np.float64)


def accumulated(rate: float, pulses: Array) -> Array:
    """Return the variance after some pulses: each adds 1, while what came before fades by exp(-rate)."""
    if abs(rate) < 1e-8:
        return pulses
    return np.asarray(np.expm1(-2 * rate * pulses) / np.expm1(-2 * rate), dtype=np.float64)


def covariance(total: Array, a: float, q: float, r: float) -> Array:
    """Return the covariance of one branch's readings about the curve, up to a factor."""
    rate = a / total[-1]
    elapsed = np.minimum(total[:, None], total[None, :])
    apart = np.abs(total[:, None] - total[None, :])
    # Variance that pulses have added by the earlier reading, fading at the curve's rate until the later.
    added = accumulated(rate, elapsed)
    out = q * added * np.exp(-rate * apart)
    floor = r + 1e-6 * (q * total[-1] + r) + np.finfo(float).tiny
    scale = out.diagonal().mean() + floor
    return np.asarray((out + floor * np.eye(len(total))) / scale)
