"""Where to evaluate next: a Gaussian process and expected improvement over a box.

Sources: Jones, Schonlau, Welch, J. Global Optim. 13, 455 (1998) for expected improvement; Ament et al.,
NeurIPS 2023, for its logarithm; BoTorch (Balandat et al., NeurIPS 2020) computes both.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohmloop.errors import SearchError


@dataclass(frozen=True)
class Box:
    """A search space of ``d`` real numbers between bounds.

    Attributes:
        low: ``d`` lower bounds.
        high: ``d`` upper bounds, each above its lower one.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise SearchError(
                f"a box needs as many lower as upper bounds; received {len(self.low)} and {len(self.high)}."
            )
        if not all(
            np.isfinite([a, b]).all() and a < b for a, b in zip(self.low, self.high, strict=True)
        ):
            raise SearchError(
                f"each lower bound must lie below its upper one: {self.low}, {self.high}."
            )

    @property
    def d(self) -> int:
        """Number of dimensions."""
        return len(self.low)


def suggest(
    space: Box,
    X: ArrayLike,
    Y: ArrayLike,
    *,
    q: int = 1,
    n_initial: int = 3,
    pending: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Suggest ``q`` points to evaluate next, to maximise the outcome.

    The first ``n_initial`` points of a search come from a scrambled Sobol sequence of the seed; later
    ones maximise (q-)log noisy expected improvement under a GP on all finite outcomes.
    Everything is deterministic for a seed.

    Args:
        space: The box.
        X: ``n x d`` points evaluated so far.
        Y: ``n`` outcomes, larger is better; NaN where an evaluation failed (the point is then
            avoided only by what its neighbours say).
        q: How many points.
        n_initial: Length of the initial design.
        pending: ``p x d`` points under evaluation, taken into account.
        seed: Of the initial design and the optimiser.

    Returns:
        ``q x d`` points in the box.

    Raises:
        SearchError: If shapes do not match or points lie outside the box.
    """
    points, outcomes = _checked(space, X, Y)
    waiting = np.empty((0, space.d)) if pending is None else _checked(space, pending, None)[0]
    if q < 1:
        raise SearchError(f"q must be at least 1; received {q}.")
    started = len(points) + len(waiting)
    low, high = np.array(space.low), np.array(space.high)
    finite = np.isfinite(outcomes)
    initial = max(0, min(q, n_initial - started))
    if initial < q and len(np.unique(outcomes[finite])) < 2:
        initial = q  # A GP needs two different outcomes; until then the design goes on.
    from scipy.stats import qmc

    parts = []
    if initial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Sobol balance needs powers of two
            design = qmc.Sobol(space.d, rng=np.random.default_rng(seed)).random(started + initial)
        parts.append(low + design[started:] * (high - low))
    if initial < q:
        more = np.concatenate([waiting, *parts])
        unit = (points[finite] - low) / (high - low)
        found = _maximise(unit, outcomes[finite], (more - low) / (high - low), q - initial, seed)
        parts.append(low + found * (high - low))
    out: NDArray[np.float64] = np.clip(np.concatenate(parts), low, high)
    return out


def _checked(
    space: Box, X: ArrayLike, Y: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if np.size(X) and np.shape(X)[-1] != space.d:
        raise SearchError(f"expected points of {space.d} numbers; received shape {np.shape(X)}.")
    points = np.asarray(X, dtype=np.float64).reshape(-1, space.d)
    outcomes = (
        np.full(len(points), np.nan) if Y is None else np.asarray(Y, dtype=np.float64).ravel()
    )
    if len(outcomes) != len(points):
        raise SearchError(f"{len(points)} points but {len(outcomes)} outcomes.")
    slack = 1e-9 * (np.array(space.high) - np.array(space.low))
    if ((points < np.array(space.low) - slack) | (points > np.array(space.high) + slack)).any():
        raise SearchError(f"points outside the box {space.low} .. {space.high}.")
    return points, outcomes


def _maximise(
    unit: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    pending: NDArray[np.float64],
    q: int,
    seed: int,
) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # linear_operator 0.6 still decorates with torch.jit.script, which torch 2.13 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.exceptions.warnings import BotorchWarning
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms.outcome import Standardize
        from botorch.optim import optimize_acqf
        from botorch.sampling.normal import SobolQMCNormalSampler
        from gpytorch.mlls import ExactMarginalLogLikelihood
        from linear_operator.utils.warnings import NumericalWarning

    x = torch.tensor(unit, dtype=torch.float64)
    y = torch.tensor(outcomes, dtype=torch.float64).unsqueeze(-1)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Retries of the fit and jitter on a matrix are BoTorch's own business.
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        torch.manual_seed(seed + len(outcomes))
        model = SingleTaskGP(x, y, outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedImprovement(
            model=model,
            X_baseline=x,
            sampler=SobolQMCNormalSampler(torch.Size([128]), seed=seed),
            X_pending=torch.tensor(pending, dtype=torch.float64) if len(pending) else None,
            prune_baseline=True,
        )
        d = unit.shape[1]
        candidates, _ = optimize_acqf(
            acquisition,
            bounds=torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.float64),
            q=q,
            num_restarts=5,
            raw_samples=128,
            sequential=True,
        )
    return np.asarray(candidates.detach().numpy(), dtype=np.float64)


def best(X: ArrayLike, Y: Sequence[float] | ArrayLike) -> int:
    """Return the index of the largest finite outcome, the first of equals.

    Raises:
        SearchError: If no outcome is finite.
    """
    outcomes = np.asarray(Y, dtype=np.float64)
    if not np.isfinite(outcomes).any():
        raise SearchError("every evaluation failed; widen the space or look at the errors.")
    return int(np.nanargmax(outcomes))
