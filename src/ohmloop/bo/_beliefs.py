"""The state of knowledge: surrogates fitted to all observations, and the value of a candidate.

Sources: Ament et al., NeurIPS 2023 (log noisy expected improvement and its hypervolume form); Gardner et al.,
ICML 2014 (expected improvement weighted by feasibility); Hvarfner et al., ICLR 2022 (a person's prior that
fades as 10/n); Snoek et al., NIPS 2012 (improvement per cost); Daulton et al., ICML 2022, for averaging
over fabrication tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective import logei as hypervolume
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.models.model import Model, ModelList
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.posteriors import GPyTorchPosterior
from botorch.sampling.list_sampler import ListSampler
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from gpytorch.distributions import MultivariateNormal
from numpy.typing import NDArray
from torch import Tensor

from ohmloop.bo._problem import Observation, Problem
from ohmloop.bo._space import Table
from ohmloop.bo._surrogate import StageModel, fit_outcome, in_parts, moments
from ohmloop.bo._variables import Categorical, Real
from ohmloop.bo._warp import Warp, pooled_spread
from ohmloop.errors import SearchError

Array = NDArray[np.float64]

# At its first use BoTorch would compile C++ for this very processor: half a minute, a compiler that labs do
# not have, and a lock in the home folder that a killed process leaves behind. Say that it was tried.
hypervolume._load_attempted = True

N_SAMPLES = 64  # quasi-random draws of the surrogate behind one expected improvement
N_SHIFTS = 8  # draws of fabrication error behind one robust mean
BELIEF_STRENGTH = 10.0  # Hvarfner et al. 2022: the prior counts as 10/n of the acquisition
RISK_SHARE = 3.0  # of the even share of what is left of a failure budget, for one trial
MOST_OBJECTIVES = 3  # beyond it the hypervolume costs more than it tells: random weights instead


@dataclass(frozen=True)
class Errors:
    """What fabrication makes of a recipe: the same draws of its error at every recipe.

    Attributes:
        draws: ``s x f`` errors; of columns in `logs` in standard deviations, else in coordinates.
        logs: Column -> (lower bound, upper bound, standard deviation) of a variable on a log scale: its
            error is of the same size everywhere, so in coordinates it is not.
    """

    draws: Tensor
    logs: Mapping[int, tuple[float, float, float]]

    def __call__(self, X: Tensor) -> Tensor:
        """Return ``... x q x s x f`` coordinates for ``... x q x f``."""
        out = X.unsqueeze(-2) + self.draws
        for k, (low, high, spread) in self.logs.items():
            span = math.log(high / low)
            made = low * torch.exp(X[..., k].unsqueeze(-1) * span) + spread * self.draws[:, k]
            out[..., k] = torch.log(made.clamp_min(low * low / high) / low) / span
        return out


class Robust(Model):  # type: ignore[misc]  # BoTorch is untyped here
    """A surrogate averaged over fabrication error: the mean of one Gaussian process over missed recipes.

    Args:
        model: One-outcome surrogate.
        errors: Draws of the error.
    """

    def __init__(self, model: Model, errors: Errors) -> None:
        super().__init__()
        self.model, self.errors = model, errors

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """No batch."""
        return torch.Size([])

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        """Return the joint posterior of the averaged function at ``... x q x f``."""
        q, s = X.shape[-2], len(self.errors.draws)
        spread = self.errors(X).flatten(-3, -2)
        inner = self.model.posterior(spread).distribution
        mean = inner.mean.unflatten(-1, (q, s)).mean(-1)
        cov = inner.covariance_matrix.unflatten(-1, (q, s)).unflatten(-3, (q, s)).mean((-1, -3))
        cov = cov + 1e-9 * torch.eye(q, dtype=cov.dtype)
        return GPyTorchPosterior(MultivariateNormal(mean, cov))


class Knowledge:
    """Surrogates fitted to observations; call `score` for the value of candidates.

    Args:
        problem: The search.
        observations: All trials with a result, of this campaign and of earlier ones.
        seed: Of quasi-random draws.
    """

    def __init__(self, problem: Problem, observations: Sequence[Observation], seed: int) -> None:
        self.problem, self.seed = problem, seed
        self.observations = list(observations)
        self.table = problem.space.to_table([o.point for o in observations])
        self.own = np.array([o.source == "" for o in observations], dtype=bool)
        self.sources = ["", *sorted({o.source for o in observations} - {""})]
        self.X, self.groups = self._with_source(
            self.table, [self.sources.index(o.source) for o in observations]
        )
        self.usable = np.array([o.is_usable for o in observations], dtype=bool)
        self.warps: dict[str, Warp] = {}
        self.models: dict[str, Any] = {}
        self.measured: dict[str, NDArray[np.int64]] = {}
        for objective in problem.objectives:
            self._fit_objective(objective.name, objective.maximise, objective.scale)
        self.stages: dict[str, StageModel] = {}
        self.importance: dict[str, float] | None = None  # computed when first asked for
        if problem.settings.feasibility:
            for stage in problem.stages:
                self._fit_stage(stage)

    # -- fitting ----------------------------------------------------------------------------

    def _with_source(self, table: Table, codes: Sequence[int]) -> tuple[Array, NDArray[np.int64]]:
        """Coordinates of rows, plus those of the campaign they come from (a variable like any other).

        Its learned lengthscale says how alike two campaigns are, so that an earlier one that misleads
        is told apart after a few trials.
        """
        X, groups = self.problem.space.features(
            table, use_descriptors=self.problem.settings.descriptors
        )
        if len(self.sources) > 1:
            identity = np.eye(len(self.sources))[list(codes)] / math.sqrt(2)
            X = np.hstack([X, identity])
            groups = np.append(groups, np.full(len(self.sources), groups.max() + 1))
        return X, groups

    def coordinates(self, table: Table) -> Array:
        """Return ``n x f`` coordinates of rows, as recipes of this campaign."""
        return self._with_source(table, [0] * len(table))[0]

    def _fit_objective(self, name: str, maximise: bool, scale: Any) -> None:
        rows = np.array([k for k, o in enumerate(self.observations) if name in o.values], dtype=int)
        own = [k for k in rows if self.own[k]]
        self.measured[name] = np.array(own, dtype=int)
        if len(rows) < 2:
            return
        replicates: dict[int, Array] = {}
        errors: dict[int, float] = {}
        for source in self.sources:
            # Each campaign has its own scale: another instrument may read twice the current.
            part = [k for k in rows if self.observations[k].source == source]
            if not part:
                continue
            raw = [np.asarray(self.observations[k].values[name], dtype=np.float64) for k in part]
            if scale == "log" and min(r.min() for r in raw) <= 0:
                raise SearchError(
                    f'objective "{name}" has scale "log" but a value of {min(r.min() for r in raw):g}; '
                    'values must be positive, or use scale = "auto".'
                )
            middle = np.array(
                [np.exp(np.log(r).mean()) if scale == "log" else r.mean() for r in raw]
            )
            within = pooled_spread([np.log(r) if scale == "log" else r for r in raw])
            warp = Warp.fit(middle, maximise=maximise, scale=scale, within=within)
            if source == "" or name not in self.warps:
                self.warps[name] = warp
            replicates |= {k: warp(r) for k, r in zip(part, raw, strict=True)}
            stated = [self.observations[k].errors.get(name, 0.0) for k in part]
            errors |= dict(zip(part, warp.errors(middle, np.array(stated)), strict=True))
        model = fit_outcome(
            self.X[rows],
            self.groups,
            [replicates[k] for k in rows],
            errors=np.array([errors[k] for k in rows]),
            replicate_noise=self.problem.settings.replicate_noise,
        )
        self.models[name] = model

    def _fit_stage(self, stage: str) -> None:
        rows = [k for k, o in enumerate(self.observations) if stage in o.stages]
        if not rows:
            return
        counts = np.array([self.observations[k].stages[stage] for k in rows], dtype=np.float64)
        self.stages[stage] = StageModel(self.X[rows], self.groups, counts[:, 0], counts[:, 1])

    # -- reading ----------------------------------------------------------------------------

    def errors(self) -> Errors | None:
        """Return draws of fabrication error, None where no tolerance is stated."""
        spread = np.zeros(self.X.shape[1])
        logs: dict[int, tuple[float, float, float]] = {}
        for k, variable in enumerate(self.problem.space.variables):
            if isinstance(variable, Real) and variable.tolerance > 0:
                column = int(np.flatnonzero(self.groups == k)[0])
                if variable.log:
                    spread[column] = 1.0
                    logs[column] = (variable.low, variable.high, variable.tolerance)
                else:
                    spread[column] = variable.tolerance / (variable.high - variable.low)
        if not spread.any():
            return None
        from scipy.stats import norm, qmc

        draws = norm.ppf(
            qmc.Sobol(len(spread), rng=np.random.default_rng(self.seed)).random(N_SHIFTS // 2)
        )
        draws = np.concatenate([draws, -draws])  # antithetic: the mean shift is exactly zero
        return Errors(torch.as_tensor(draws * spread), logs)

    def stage_probabilities(self, table: Table) -> dict[str, Array]:
        """Return stage -> ``n`` probabilities of passing it once reached."""
        X = self.coordinates(table)
        return {stage: model.probability(X) for stage, model in self.stages.items()}

    def usable_probability(self, table: Table) -> Array:
        """Return ``n`` probabilities of passing every stage."""
        out = np.ones(len(table))
        for p in self.stage_probabilities(table).values():
            out = out * p
        return out

    def predict(self, name: str, table: Table) -> tuple[Array, Array]:
        """Return mean and standard deviation on the fitted scale, ``n`` each."""
        mean, variance = moments(self.models[name], self.coordinates(table))
        return mean[:, 0], np.sqrt(np.maximum(variance[:, 0], 1e-12))

    def novelty(self, table: Table, waiting: Table) -> Array:
        """Return ``n`` values in [0, 1]: how unlike everything tried or waiting a row is."""
        seen = np.vstack([self.table, waiting])
        if not len(seen):
            return np.ones(len(table))
        space = self.problem.space
        d = self.problem.settings.descriptors
        a, _ = space.features(table, use_descriptors=d)
        b, _ = space.features(seen, use_descriptors=d)
        nearest = [
            ((part[:, None, :] - b[None, :, :]) ** 2).sum(-1).min(1)
            for part in in_parts(a, 2 * b.size)
        ]
        # Lengthscale: a quarter of the diagonal of the space.
        out: Array = 1.0 - np.exp(-np.concatenate(nearest) / (2 * len(space.variables) * 0.25**2))
        return out

    # -- the value of a candidate -----------------------------------------------------------

    @property
    def has_goal(self) -> bool:
        """Whether every objective has enough outcomes for a surrogate."""
        return bool(self.problem.objectives) and all(
            o.name in self.models for o in self.problem.objectives
        )

    def acquisition(self, waiting: Table, turn: int) -> Any | None:
        """Return log expected improvement given what is waiting, or None before outcomes exist."""
        if not self.has_goal:
            return None
        names = [o.name for o in self.problem.objectives]
        rows = np.arange(len(self.observations))[self.own]
        rows = np.array(
            [k for k in rows if all(n in self.observations[k].values for n in names)], int
        )
        good = rows[self.usable[rows]] if self.problem.settings.feasibility else rows
        rows = good if len(good) else rows
        base = np.vstack([self.table[rows], waiting])
        if not len(base):
            base = self.table
        baseline = torch.as_tensor(self.coordinates(base))
        errors = self.errors()
        models = [
            self.models[n] if errors is None else Robust(self.models[n], errors) for n in names
        ]
        sampler: Any = SobolQMCNormalSampler(torch.Size([N_SAMPLES]), seed=self.seed)
        if len(names) == 1:
            model: Any = models[0]
        elif errors is None:
            model = ModelListGP(*models)
        else:
            model = ModelList(*models)
            sampler = ListSampler(
                *[
                    SobolQMCNormalSampler(torch.Size([N_SAMPLES]), seed=self.seed + k)
                    for k in range(len(names))
                ]
            )
        if len(names) == 1 or len(names) > MOST_OBJECTIVES:
            return qLogNoisyExpectedImprovement(
                model=model,
                X_baseline=baseline,
                sampler=sampler,
                objective=None if len(names) == 1 else self._weights(len(names), turn),
                prune_baseline=len(base) > 8,
                cache_root=errors is None and len(names) == 1,
            )
        return qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=self._reference(rows),
            X_baseline=baseline,
            sampler=sampler,
            prune_baseline=True,
            cache_root=errors is None,
        )

    def _weights(self, m: int, turn: int) -> Any:
        """A random augmented Chebyshev scalarisation; Knowles, IEEE Trans. Evol. Comput. 10, 50 (2006)."""
        from botorch.acquisition.objective import GenericMCObjective

        draw = np.random.default_rng([self.seed, turn, m]).dirichlet(np.ones(m))
        weights = torch.as_tensor(draw)

        def scalar(samples: Tensor, X: Tensor | None = None) -> Tensor:
            scaled = samples * weights
            return scaled.amin(-1) + 0.05 * scaled.sum(-1)

        return GenericMCObjective(scalar)

    def _reference(self, rows: NDArray[np.int64]) -> Tensor:
        outcomes = []
        for objective in self.problem.objectives:
            warp = self.warps[objective.name]
            outcomes.append(
                [float(warp(self.observations[k].values[objective.name]).mean()) for k in rows]
                if len(rows)
                else [0.0]
            )
        Y = torch.tensor(outcomes, dtype=torch.float64).T
        front = Y[_is_front(Y)]
        point = infer_reference_point(front) if len(front) > 1 else Y.amin(0) - 0.1
        point = torch.minimum(point, front.amin(0) - 0.1)
        for k, objective in enumerate(self.problem.objectives):
            if objective.reference is not None:
                point[k] = float(self.warps[objective.name]([objective.reference])[0])
        return point

    def score(
        self, table: Table, acquisition: Any | None, waiting: Table, n_waiting_risk: float = 0.0
    ) -> Array:
        """Return ``n`` log values of candidates; larger is better, -inf where out of the question.

        Args:
            table: ``n`` candidates.
            acquisition: From `acquisition`; None looks for usable recipes alone.
            waiting: Rows that are chosen or under way.
            n_waiting_risk: Expected number of failures among them.
        """
        usable = self.usable_probability(table)
        out = np.log(np.maximum(usable, 1e-12))
        if acquisition is not None:
            X = torch.as_tensor(self.coordinates(table))
            with torch.no_grad():
                values = [acquisition(part[:, None, :]) for part in torch.split(X, 512)]
            out = out + torch.cat(values).cpu().numpy()
        else:
            weight = 1.0 if self.problem.objectives or not self.problem.settings.cover else 0.0
            out = out + weight * np.log(np.maximum(self.novelty(table, waiting), 1e-9))
        out = out - self._cover_discount(table, waiting) - self._log_cost(table)
        out = out + self._belief(table)
        return self._within_budget(table, out, usable, waiting, n_waiting_risk)

    def _cover_discount(self, table: Table, waiting: Table) -> Array:
        out = np.zeros(len(table))
        space = self.problem.space
        for name in self.problem.settings.cover:
            k = space.names.index(name)
            hits = self.table[self.usable & self.own, k]
            hits = np.concatenate([hits, waiting[:, k]])
            counts = (table[:, [k]] == hits[None, :]).sum(1) if len(hits) else np.zeros(len(table))
            out += 0.5 * np.log1p(counts)
        return out

    def _log_cost(self, table: Table) -> Array:
        if self.problem.cost is None:
            return np.zeros(len(table))
        columns = self.problem.space.columns(table)
        for name, column in columns.items():  # a variable that does not exist there counts as 0
            columns[name] = np.nan_to_num(column, nan=0.0) if column.dtype.kind == "f" else column
        cost = self.problem.cost.evaluate(columns)
        if not (cost > 0).all():
            raise SearchError(
                f'the cost "{self.problem.cost.text}" is {cost.min():g} for some recipe; it must be above 0. '
                "(A variable that does not exist in a recipe counts as 0.)"
            )
        return np.asarray(np.log(cost))

    def _belief(self, table: Table) -> Array:
        if not self.problem.beliefs:
            return np.zeros(len(table))
        n = int(self.own.sum())
        return BELIEF_STRENGTH / max(n, 1) * log_belief(self.problem, table)

    def _within_budget(
        self, table: Table, score: Array, usable: Array, waiting: Table, waiting_risk: float
    ) -> Array:
        """Prefer candidates whose risk fits what is left of the failure budget.

        One trial may risk three times the even share: its risk is a bound, most choices stay below it.
        (The factor was chosen on replays of vapdiff_crystal with seeds that no published figure uses.)
        """
        settings = self.problem.settings
        if settings.failure_budget is None or settings.n_total is None or not self.stages:
            return score
        failed = waiting_risk + sum(o.has_failed and o.source == "" for o in self.observations)
        done = int(self.own.sum()) + len(waiting)
        left = settings.failure_budget * settings.n_total - failed
        allowed = RISK_SHARE * max(left, 0.0) / max(settings.n_total - done, 1)
        risk = 1.0 - usable
        # Where nothing fits, (nearly) the least risky is the best that can be done.
        bound = max(allowed, float(risk.min(initial=1.0)) + 0.02)
        return np.where(risk <= bound, score, score - 1e3 * (risk - bound) - 1e2)


def log_belief(problem: Problem, table: Table) -> Array:
    """Return ``n`` log densities (up to a constant) of a person's prior at rows of a table."""
    out = np.zeros(len(table))
    for name, belief in problem.beliefs.items():
        k = problem.space.names.index(name)
        variable, column = problem.space.variables[k], table[:, k]
        there = ~np.isnan(column)
        if isinstance(variable, Categorical):
            assert isinstance(belief.likely, Mapping)
            total = sum(belief.likely.values()) or 1.0
            weight = np.array(
                [max(belief.likely.get(x, 0.0) / total, 0.01) for x in variable.known]
            )
            out[there] += np.log(weight[column[there].astype(int)] / weight.max())
        else:
            likely = float(belief.likely)  # type: ignore[arg-type]  # checked by Problem
            ends = np.array([likely, likely + (belief.spread or 0.0)])
            unit = variable.to_unit(ends)
            width = abs(unit[1] - unit[0]) if belief.spread else 0.2
            out[there] -= (
                0.5 * ((variable.to_unit(column[there]) - unit[0]) / max(width, 0.01)) ** 2
            )
    return np.maximum(out, -20.0)


def _is_front(Y: Tensor) -> Tensor:
    better = (Y[None] >= Y[:, None]).all(-1) & (Y[None] > Y[:, None]).any(-1)
    return ~better.any(1)
