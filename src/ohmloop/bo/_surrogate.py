"""What is believed between the trials: Gaussian processes for outcomes and for passing a stage.

Sources: Hvarfner, Hellsten, Nardi, ICML 2024, for the lengthscale prior that grows with dimension; Milios et
al., NeurIPS 2018, for classification by regression on Dirichlet-transformed labels (here with counts, so
that replicates of a recipe weigh what they should). BoTorch and GPyTorch do the algebra.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    # linear_operator 0.6 still decorates with torch.jit.script, which torch 2.13 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch
    from botorch.exceptions.warnings import BotorchWarning
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import Kernel, ScaleKernel
    from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.priors import LogNormalPrior
    from linear_operator.utils.warnings import NumericalWarning

from torch import Tensor

Array = NDArray[np.float64]
Groups = NDArray[np.int64]

# Share of the spread of outcomes that is noise: a lab's replicates differ by some ten per cent of the
# variance, within a factor of five either way. BoTorch's default (exp(-4)) is meant for simulations.
NOISE_PRIOR = (math.log(0.1), 1.5)
# Pseudo-count of the class that was not seen (Milios et al. call it alpha_epsilon, and take 0.01). Of 0.01,
# 0.1, 0.3 and 1 this one forecast six logistic functions best; a Laplace posterior on top was no better.
PSEUDO_COUNT = 0.1
# Two opposite labels differ by about twice this after the transform; it makes the process's scale 1.
LABEL_SCALE = 2.0
# A replicate's variance counts like this many draws from the pooled variance (shrinkage).
PRIOR_DRAWS = 4.0
LEAST_VARIANCE = 1e-6  # that GPyTorch adds to a kernel matrix in double precision


# Location and spread of ln(lengthscale) - ln(d) / 2 in a unit box. Outcomes: Hvarfner et al. 2024, section 4.
# The border between recipes that work and that fail is sharper than an outcome is steep: on 24 logistic
# functions of five variables this shorter prior forecasts slightly better (Kullback-Leibler divergence .114
# against .120 from 80 labels), and so it does on random subsets of 32 crystallisations of vapdiff_crystal
# (log loss .58 against .61).
OUTCOME_LENGTH = (math.sqrt(2), math.sqrt(3))
STAGE_LENGTH = (0.0, 1.0)


class GroupKernel(Kernel):  # type: ignore[misc]  # GPyTorch is untyped
    """Matern 5/2 over coordinates that share one lengthscale per variable.

    Args:
        groups: For each of ``f`` coordinates, the index of its lengthscale.
        batch_shape: Of independent copies.
        length: Location and spread of the prior of ln(lengthscale) - ln(d) / 2.
    """

    has_lengthscale = True

    def __init__(
        self,
        groups: Groups,
        batch_shape: torch.Size = torch.Size([]),  # noqa: B008
        length: tuple[float, float] = OUTCOME_LENGTH,
    ) -> None:
        v = int(groups.max()) + 1
        prior = LogNormalPrior(length[0] + math.log(v) / 2, length[1])
        super().__init__(
            ard_num_dims=v,
            batch_shape=batch_shape,
            lengthscale_prior=prior,
            lengthscale_constraint=GreaterThan(2.5e-2, initial_value=prior.mode),
        )
        self.ard_num_dims = None  # GPyTorch would insist on one lengthscale a coordinate
        self.register_buffer("groups", torch.as_tensor(groups, dtype=torch.long))

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """Return the covariance, ``... x n1 x n2`` (or its diagonal)."""
        scale = self.lengthscale[..., self.groups]
        centre = x1.mean(dim=-2, keepdim=True)
        distance = self.covar_dist(
            (x1 - centre) / scale, (x2 - centre) / scale, diag=diag, **params
        )
        r = math.sqrt(5.0) * distance
        out: Tensor = (1.0 + r + r * r / 3.0) * torch.exp(-r)
        return out


@contextmanager
def quiet(seed: int, compute: str = "cpu") -> Iterator[None]:
    """Seed torch inside, put its state back after, and keep BoTorch's notes on retries to itself.

    What is made inside, from numbers or arrays, is made on the device ``compute``.
    """
    place = torch.device(compute)
    shared = [place.index or 0] if place.type == "cuda" else []
    made_there = nullcontext() if place.type == "cpu" else place
    with torch.random.fork_rng(devices=shared), made_there, warnings.catch_warnings():
        for kind in (BotorchWarning, NumericalWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        # A fit that stops at its step limit is still a fit; scipy says so with these.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("ignore", message="The input matches the stored training data")
        torch.manual_seed(seed)
        yield


def noise_of_means(replicates: Sequence[Array]) -> Array | None:
    """Return the variance of each recipe's mean, or None where no recipe was repeated.

    The within-recipe variance of recipe i with k_i replicates is shrunk to the pooled one,
    s_i^2 = (a s^2 + SS_i) / (a + k_i - 1), a = 4 draws, and divided by k_i: a single replicate
    gets the pooled variance, never zero. The pooled variance itself counts the prior as 4 draws, so that
    one repeated recipe does not decide over the noise of all.
    """
    squares = np.array([((r - r.mean()) ** 2).sum() for r in replicates])
    freedom = np.array([len(r) - 1 for r in replicates])
    if freedom.sum() < 1:
        return None
    prior = PRIOR_DRAWS * math.exp(NOISE_PRIOR[0])
    pooled = (prior + squares.sum()) / (PRIOR_DRAWS + freedom.sum())
    out: Array = (PRIOR_DRAWS * pooled + squares) / (PRIOR_DRAWS + freedom) / (freedom + 1.0)
    return out


def fit_outcome(
    X: Array,
    groups: Groups,
    replicates: Sequence[Array],
    *,
    errors: Array | None = None,
    replicate_noise: bool = True,
) -> SingleTaskGP:
    """Fit a Gaussian process to the means of replicates.

    Args:
        X: ``n x f`` coordinates.
        groups: ``f`` indices of lengthscales.
        replicates: ``n`` arrays of values on a scale of mean about 0 and spread about 1.
        errors: ``n`` standard errors of the means that are known beside the replicates, 0 where none is.
        replicate_noise: Whether to use the variance among replicates; otherwise one level of noise is
            learned from the means alone.
    """
    y = np.array([r.mean() for r in replicates])
    known = noise_of_means(replicates) if replicate_noise else None
    if errors is not None and errors.any():
        # The scatter among replicates holds their errors already; the larger of the two counts.
        known = np.maximum(errors**2, LEAST_VARIANCE if known is None else known)
    prior = LogNormalPrior(*NOISE_PRIOR)
    constraint = GreaterThan(1e-4, initial_value=0.1)
    if known is None:
        likelihood = GaussianLikelihood(noise_prior=prior, noise_constraint=constraint)
    else:
        # What replicates on one day cannot show (another substrate, another week) is learned on top.
        likelihood = FixedNoiseGaussianLikelihood(
            noise=torch.as_tensor(known), learn_additional_noise=True
        )
        likelihood.second_noise_covar.register_prior(
            "noise_prior", LogNormalPrior(-4.0, 1.0), lambda m: m.noise, lambda m, v: None
        )
    model = SingleTaskGP(
        torch.as_tensor(X),
        torch.as_tensor(y)[:, None],
        likelihood=likelihood,
        covar_module=GroupKernel(groups),
        outcome_transform=None,
    )
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model),
        optimizer_kwargs={"options": {"maxiter": 200}},
    )
    return model


class StageModel:
    """The probability of passing a stage, given that it was reached.

    Args:
        X: ``n x f`` coordinates.
        groups: ``f`` indices of lengthscales.
        passed: ``n`` counts.
        failed: ``n`` counts; ``passed + failed`` is at least 1.
    """

    def __init__(self, X: Array, groups: Groups, passed: Array, failed: Array) -> None:
        self._constant: float | None = None
        if not passed.any() or not failed.any():
            # One kind of label only: nothing to map. Jeffreys' prior gives the rate.
            total = passed.sum() + failed.sum()
            self._constant = float((passed.sum() + 0.5) / (total + 1.0))
            return
        counts = np.stack([failed, passed], axis=1) + PSEUDO_COUNT
        variance = np.log1p(1.0 / counts)
        target = np.log(counts) - variance / 2
        shift = float(target.mean())
        self.model = SingleTaskGP(
            torch.as_tensor(X),
            torch.as_tensor((target - shift) / LABEL_SCALE),
            train_Yvar=torch.as_tensor(variance / LABEL_SCALE**2),
            covar_module=ScaleKernel(
                GroupKernel(groups, torch.Size([2]), STAGE_LENGTH),
                batch_shape=torch.Size([2]),
                outputscale_prior=LogNormalPrior(0.0, 1.0),
                # Labels that a recipe does not explain drive it to 0, where the prior has no density.
                outputscale_constraint=GreaterThan(1e-6),
            ),
            outcome_transform=None,
        )
        fit_gpytorch_mll(
            ExactMarginalLogLikelihood(self.model.likelihood, self.model),
            optimizer_kwargs={"options": {"maxiter": 200}},
        )

    def probability(self, X: Array) -> Array:
        """Return ``n`` probabilities of passing at ``n x f`` coordinates."""
        if self._constant is not None:
            return np.full(len(X), self._constant)
        mean, variance = moments(self.model, X)
        gap = LABEL_SCALE * (mean[:, 1] - mean[:, 0])
        spread = LABEL_SCALE**2 * variance.sum(1)
        # E[sigmoid(N(m, v))] = sigmoid(m / sqrt(1 + pi v / 8)); MacKay, Neural Comput. 4, 720 (1992).
        out: Array = 1.0 / (1.0 + np.exp(-gap / np.sqrt(1.0 + math.pi * spread / 8.0)))
        return out


CANDIDATES_BUDGET = 64 * 2**20
"""Bytes of work memory beside the candidates themselves: what a list of recipes of any length is scored in."""


def in_parts(table: Array, numbers: int) -> Iterator[Array]:
    """Cut the rows of a table into parts that fit the budget; each row needs so many float64 ``numbers``.

    One part at least, also of no rows.
    """
    rows = max(1, CANDIDATES_BUDGET // (8 * max(1, numbers)))
    for first in range(0, max(1, len(table)), rows):
        yield table[first : first + rows]


def moments(model: SingleTaskGP, X: Array) -> tuple[Array, Array]:
    """Return mean and variance of the latent function, each ``n x m``, at ``n x f`` coordinates.

    Rasmussen, Williams (2006), algorithm 2.1, with the factor kept on the model: single points are all that is
    asked here, and a joint posterior of thousands of them would cost their square.
    """
    with torch.no_grad():
        kept = getattr(model, "_ohmloop_factor", None)
        if kept is None:
            model.eval()
            x, y = model.train_inputs[0], model.train_targets
            prior = model.likelihood(model.forward(x), [x])
            factor = torch.linalg.cholesky(prior.covariance_matrix)
            weights = torch.cholesky_solve((y - prior.mean).unsqueeze(-1), factor)
            kept = model._ohmloop_factor = (x, factor, weights)
        # Of a kernel's matrix between candidates and trials about six copies are alive at once.
        parts = [_moments(model, kept, X) for X in in_parts(X, 6 * kept[2].numel())]
        mean, variance = (np.concatenate(values) for values in zip(*parts, strict=True))
        return mean, variance


def _moments(
    model: SingleTaskGP, kept: tuple[Tensor, Tensor, Tensor], X: Array
) -> tuple[Array, Array]:
    train, factor, weights = kept
    new = torch.as_tensor(X)
    if train.dim() == 3:  # independent outcomes share their points
        new = new.expand(train.shape[0], -1, -1)
    cross = model.covar_module(new, train).to_dense()
    mean = model.mean_module(new) + (cross @ weights).squeeze(-1)
    half = torch.linalg.solve_triangular(factor, cross.mT, upper=False)
    variance = model.covar_module(new, diag=True) - half.square().sum(-2)
    n = len(X)
    lifted = variance.clamp_min(1e-12)
    return mean.reshape(-1, n).T.cpu().numpy(), lifted.reshape(-1, n).T.cpu().numpy()


def leave_one_out(model: SingleTaskGP) -> Array:
    """Return the ``n`` predictions of each training outcome from all others, hyperparameters kept.

    Source: Rasmussen, Williams, Gaussian Processes for Machine Learning (2006), equation 5.12.
    """
    with torch.no_grad():
        x, y = model.train_inputs[0], model.train_targets
        prior = model.likelihood(model.forward(x), [x])
        inverse = torch.linalg.inv(prior.covariance_matrix)
        rest = inverse @ (y - prior.mean)
        out: Array = (y - rest / inverse.diagonal()).cpu().numpy()
    return out
