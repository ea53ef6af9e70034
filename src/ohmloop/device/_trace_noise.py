"""Noise of fast readings: white, 1/f and telegraph noise told apart from drift, trace by trace.

Sources:
    von Neumann et al., Ann. Math. Statist. 12, 153 (1941): variance from successive differences, which slow
    changes do not reach.
    Kogan, "Electronic Noise and Fluctuations in Solids" (1996): 1/f noise and random telegraph noise. The
    structure function of a spectrum K / f up to f_max is K (ln(2 pi f_max lag) + Euler's constant) for long
    lags.
    Viterbi training of a hidden Markov model: Juang & Rabiner, IEEE Trans. ASSP 38, 1639 (1990).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST = 64
"""Readings below which a trace says too little about its noise."""
_EVEN = (
    3.0  # longest step over the usual one: what is read less evenly has no single time of reading
)
_EULER = 0.5772156649015329
_SEPARATION = (
    3.0  # of the two levels, in standard deviations about them; two Gaussians then show two peaks
)
_JUMPS = 4  # fewer may be drift that happened in steps
_OCCUPANCY = 0.02
_MOST = 100_000  # readings from the start that are searched for jumps: the search is a loop


class Telegraph(NamedTuple):
    """Two levels between which a trace jumps.

    Attributes:
        amplitude: Distance of the levels as a share of the mean conductance.
        high: Mean time in the upper level, in seconds.
        low: Mean time in the lower level, in seconds.
        jumps: How many were seen.
    """

    amplitude: float
    high: float
    low: float
    jumps: int


class TraceNoise(NamedTuple):
    """Noise of one trace, relative to its mean conductance.

    Attributes:
        conductance: Mean, in siemens.
        interval: Time between readings, in seconds.
        white: Standard deviation of one reading, independent from reading to reading.
        flicker: Q of 1/f noise: variance Q^2 for each factor e of frequency.
        telegraph: Two levels where they stand out of the rest, else None.
    """

    conductance: float
    interval: float
    white: float
    flicker: float
    telegraph: Telegraph | None


def trace_noise(time: Array, conductance: Array) -> TraceNoise | None:
    """Take the noise of one trace apart; None where it is too short, or read too unevenly.

    Half the mean square of G(t + lag) - G(t) is fitted, at lags from one reading to a quarter of the trace,
    by a sum with weights that are not negative: a constant (white noise), ln(pi lag / interval) + Euler's
    constant (1/f noise up to half the rate of reading), and lag^2 (drift).

    Args:
        time: ``n`` seconds, rising.
        conductance: ``n`` siemens.
    """
    steps = np.diff(time)
    if len(time) < FEWEST or not (steps > 0).all() or steps.max() > _EVEN * np.median(steps):
        return None
    from scipy.optimize import nnls

    mean = float(conductance.mean())
    g = conductance / mean
    n = len(g)
    lags = np.unique(np.geomspace(1, n // 4, 24).astype(int))
    half = np.array([0.5 * np.mean((g[k:] - g[:-k]) ** 2) for k in lags])
    if half[0] == 0.0:
        return TraceNoise(mean, float(np.median(steps)), 0.0, 0.0, None)
    columns = np.stack(
        [
            np.ones(len(lags)),
            np.log(np.pi * lags) + _EULER,
            0.5 * (lags / n) ** 2,
        ],
        axis=1,
    )
    # Weights: a structure function is known to a share that grows with the lag.
    weight = np.sqrt(n / lags) / half
    found, _ = nnls(columns * weight[:, None], half * weight)
    return TraceNoise(
        mean,
        float(np.median(steps)),
        float(np.sqrt(found[0])),
        float(np.sqrt(found[1])),
        _telegraph(g, float(np.median(steps))),
    )


def _telegraph(g: Array, interval: float) -> Telegraph | None:
    """Fit two levels that jump, on a line that drifts; None unless they stand apart."""
    g = g[:_MOST]
    n = len(g)
    t = np.linspace(-1, 1, n)
    flat = g - np.polynomial.Polynomial.fit(t, g, 1)(t)
    low, high = np.quantile(flat, [0.1, 0.9])
    state = flat > 0.5 * (low + high)
    for _ in range(15):
        if state.all() or not state.any():
            return None
        low, high = float(flat[~state].mean()), float(flat[state].mean())
        spread = float(np.sqrt(((flat - np.where(state, high, low)) ** 2).mean()))
        if spread == 0.0 or high - low < 0.5 * _SEPARATION * spread:
            return None
        jumps = int((state[1:] != state[:-1]).sum())
        new = _viterbi(flat, low, high, spread, (jumps + 1) / n)
        if (new == state).all():
            break
        state = new
    jumps = int((state[1:] != state[:-1]).sum())
    share = float(state.mean())
    if (
        high - low < _SEPARATION * spread
        or jumps < _JUMPS
        or not _OCCUPANCY < share < 1 - _OCCUPANCY
        or jumps > n / 4
    ):
        return None
    visits = max(1.0, (jumps + 1) / 2)
    seconds = n * interval
    return Telegraph(high - low, share * seconds / visits, (1 - share) * seconds / visits, jumps)


def _viterbi(x: Array, low: float, high: float, spread: float, jump: float) -> NDArray[np.bool_]:
    """Return the most likely states, True for the upper level; ``jump``: probability of leaving."""
    jump = min(max(jump, 1e-6), 0.5)
    stay, leave = math.log1p(-jump), math.log(jump)
    cost_low = (-0.5 * ((x - low) / spread) ** 2).tolist()
    cost_high = (-0.5 * ((x - high) / spread) ** 2).tolist()
    a, b = cost_low[0], cost_high[0]
    from_high, from_low = bytearray(len(x)), bytearray(len(x))
    for k in range(1, len(x)):
        into_low = b + leave > a + stay
        into_high = a + leave > b + stay
        from_high[k], from_low[k] = into_low, into_high
        a, b = (
            (b + leave if into_low else a + stay) + cost_low[k],
            (a + leave if into_high else b + stay) + cost_high[k],
        )
    states = np.zeros(len(x), dtype=bool)
    now = b > a
    for k in range(len(x) - 1, -1, -1):
        states[k] = now
        if k:
            now = not from_low[k] if now else bool(from_high[k])
    return states
