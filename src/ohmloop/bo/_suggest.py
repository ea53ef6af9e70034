"""What to try next: the candidates of highest value, each with the reasons for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ohmloop._compute import check_compute
from ohmloop.bo._problem import Observation, Problem
from ohmloop.bo._reasons import Suggestion, explain
from ohmloop.bo._space import Space, Table
from ohmloop.bo._variables import Categorical, Ordinal, Point, Value, Variable
from ohmloop.errors import SearchError

if TYPE_CHECKING:
    from ohmloop.bo._beliefs import Knowledge

Array = NDArray[np.float64]

N_FIRST = 1024  # random candidates of a search, before it is refined around the best
N_ROUNDS = 7
N_ELITE = 16
N_AROUND = 16  # neighbours tried of each of the elite, a round
N_DESIGN = 64  # best-candidate sampling: spread out, without crowding the corners
REJECTED_RADIUS = 0.02  # share of a range within which a rejected recipe counts as the same


def suggest(
    problem: Problem,
    observations: Sequence[Observation],
    q: int = 1,
    *,
    pending: Sequence[Point] = (),
    rejected: Sequence[Point] = (),
    fixed: Mapping[str, Value] | None = None,
    candidates: Sequence[Point] | None = None,
    seed: int = 0,
    compute: str = "cpu",
) -> list[Suggestion]:
    """Suggest ``q`` recipes to try next.

    The first trials spread over the space. Later ones maximise the expected improvement (of the
    hypervolume, for two or three objectives) over the best usable recipe, times the probability of
    passing every stage, under Gaussian processes; see `Problem` for cost, beliefs, tolerance and
    coverage. Everything is deterministic for a seed.

    >>> from ohmloop.bo import Objective, Problem, Real, Space
    >>> problem = Problem(space=Space((Real(name="x", low=0, high=1),)), objectives=(Objective(name="y"),))
    >>> 0 <= suggest(problem, [])[0].point["x"] <= 1
    True

    Args:
        problem: The search.
        observations: All that was tried, failures included, with earlier campaigns marked by `source`.
        q: How many recipes; fewer come back where fewer are left.
        pending: Recipes under way; what they may bring is accounted for.
        rejected: Recipes not to propose again, nor ones within 2 % of their ranges.
        fixed: Variable -> value that every suggestion has: pinned ones, and all context variables.
        candidates: The only recipes to choose from; by default the whole space.
        seed: Of everything random.
        compute: Where models are fitted and candidates scored: "cpu", "cuda". A GPU pays for many trials or
            very long lists of candidates; the suggestions may differ from those of a CPU by rounding.

    Raises:
        SearchError: If a point does not fit the space, no recipe is left, a context variable has no value, or
            torch cannot compute there.
    """
    if q < 1:
        raise SearchError(f"q must be at least 1; received {q}.")
    if seed < 0:
        raise SearchError(f"a seed is 0 or more; received {seed}.")
    space = problem.space
    held = dict(fixed or {})
    for variable in space.variables:
        if variable.context and variable.name not in held and candidates is None:
            raise SearchError(
                f'"{variable.name}" is a context variable: state its present value '
                f'(fixed={{"{variable.name}": ...}}).'
            )
    if compute != "cpu":
        check_compute(compute, SearchError)
    knowledge = _knowledge(problem, observations, seed, compute)
    waiting = space.to_table(list(pending))
    refused = space.to_table(list(rejected))
    pool = None if candidates is None else _pool(space, candidates, held)
    rng = np.random.default_rng([seed, len(observations), len(waiting)])
    chosen: list[Suggestion] = []
    from ohmloop.bo._surrogate import quiet

    with quiet(seed + len(observations), compute):
        for turn in range(q):
            design = len(observations) + len(waiting) < problem.n_initial
            acquisition = None if design else knowledge.acquisition(waiting, turn)
            risk = (
                float((1.0 - knowledge.usable_probability(waiting)).sum()) if len(waiting) else 0.0
            )

            def value(
                table: Table, a: object = acquisition, w: Table = waiting, r: float = risk
            ) -> Array:
                return knowledge.score(table, a, w, r)

            taken = np.vstack([knowledge.table[knowledge.own], waiting])
            try:
                row = _search(space, value, pool, taken, refused, held, rng, design)
            except SearchError:
                if not chosen:
                    raise
                break  # fewer are left than were asked for
            chosen.append(explain(knowledge, row, has_gain=acquisition is not None))
            waiting = np.vstack([waiting, row])
    return chosen


# Suggestions, their worth and the best recipe ask for the same fit in turn.
_last: list[tuple[Knowledge, str]] = []


def _knowledge(
    problem: Problem, observations: Sequence[Observation], seed: int, compute: str = "cpu"
) -> Knowledge:
    from ohmloop.bo._surrogate import quiet

    asked = (problem, list(observations), seed, compute)
    for known, place in _last:
        if (known.problem, known.observations, known.seed, place) == asked:
            return known
    with quiet(seed, compute):
        from ohmloop.bo._beliefs import Knowledge

        fitted = Knowledge(problem, observations, seed)
    _last[:] = [(fitted, compute)]
    return fitted


def _pool(space: Space, candidates: Sequence[Point], held: Mapping[str, Value]) -> Table:
    table = space.to_table(candidates)
    for name, value in held.items():
        k = space.names.index(name)
        wanted = space.repair(table[:1], {name: value})[0, k] if len(table) else math.nan
        table = table[table[:, k] == wanted]
    return table


def _search(
    space: Space,
    value: Callable[[Table], Array],
    pool: Table | None,
    taken: Table,
    refused: Table,
    held: Mapping[str, Value],
    rng: np.random.Generator,
    design: bool,
) -> Array:
    """Return the best row that is new and not refused."""

    def fresh(table: Table) -> Table:
        new = ~_same(space, table, taken, 1e-6)
        new &= ~_same(space, table, refused, REJECTED_RADIUS, any_context=True)
        return table[new]

    if pool is not None:
        left = fresh(pool)
        if not len(left):
            raise SearchError("every candidate has been tried, is under way or was rejected.")
        if design and len(left) > N_DESIGN:
            left = left[rng.choice(len(left), N_DESIGN, replace=False)]
        return np.asarray(left[np.argmax(value(left))])
    first = fresh(space.sample(N_DESIGN if design else N_FIRST, rng, held))
    if not len(first):
        first = fresh(_enumerate(space, held))
    if not len(first):
        raise SearchError(
            "every recipe of the space has been tried, is under way or was rejected. "
            "Widen a range, add an option, or undo a rejection."
        )
    if design:
        return np.asarray(first[np.argmax(value(first))])
    start = np.vstack([first, *_around(space, taken, held, rng, fresh)])
    scores = value(start)
    order = np.argsort(-scores)[:N_ELITE]
    elite, best = start[order], scores[order]
    for turn in range(N_ROUNDS):
        scale = 0.25 * 0.5**turn
        near = space.perturb(np.repeat(elite, N_AROUND, 0), scale, rng, held)
        near = fresh(near[space.violation(near) == 0])
        if not len(near):
            continue
        both, scores = np.vstack([elite, near]), np.concatenate([best, value(near)])
        both, index = np.unique(both, axis=0, return_index=True)
        scores = scores[index]
        order = np.argsort(-scores, kind="stable")[:N_ELITE]
        elite, best = both[order], scores[order]
    return np.asarray(elite[0])


def _around(
    space: Space,
    taken: Table,
    held: Mapping[str, Value],
    rng: np.random.Generator,
    fresh: Callable[[Table], Table],
) -> list[Table]:
    """Neighbours of recipes that were tried: improvement is often close to what worked."""
    if not len(taken):
        return []
    some = _inside(space, taken[rng.integers(len(taken), size=256)])
    near = space.perturb(some, 0.1, rng, held)
    return [fresh(near[space.violation(near) == 0])]


def _inside(space: Space, table: Table) -> Table:
    """Bring rows to today's bounds and steps, and leave out those that hold a retired option."""
    out = table.copy()
    keep = np.ones(len(table), dtype=bool)
    for k, variable in enumerate(space.variables):
        there = ~np.isnan(table[:, k])
        if isinstance(variable, Categorical):
            keep &= ~there | (table[:, k] < len(variable.options))
        else:
            out[there, k] = variable.snap(table[there, k])
    return out[keep]


def _enumerate(space: Space, held: Mapping[str, Value]) -> Table:
    """Return all recipes of a small finite space, else none."""
    sizes = [1 if v.name in held else v.n_values for v in space.variables]
    if any(size is None for size in sizes) or math.prod(s or 1 for s in sizes) > 50_000:
        return np.empty((0, len(sizes)))
    axes = []
    for variable in space.variables:
        if variable.name in held:
            axes.append(np.zeros(1))  # repair() sets its value
        elif isinstance(variable, Categorical):
            axes.append(np.arange(len(variable.options), dtype=np.float64))
        elif isinstance(variable, Ordinal):
            axes.append(np.asarray(variable.levels, dtype=np.float64))
        else:
            steps = np.arange(variable.n_values or 1, dtype=np.float64)
            axes.append(variable.snap(variable.low + steps * (variable.step or 0.0)))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    table: Table = np.unique(space.repair(grid, held), axis=0)
    return np.asarray(table[space.violation(table) == 0])


def _same(
    space: Space, table: Table, others: Table, radius: float, *, any_context: bool = False
) -> NDArray[np.bool_]:
    """Whether each row equals one of the others, numbers within a share of their ranges.

    With ``any_context`` a recipe is the same on a day of another humidity.
    """
    radii = [min(radius, 0.49 * _least_gap(v)) for v in space.variables]
    out = np.zeros(len(table), dtype=bool)
    for other in others:
        near = np.ones(len(table), dtype=bool)
        for k, variable in enumerate(space.variables):
            here, there = table[:, k], other[k]
            if any_context and variable.context:
                continue
            if np.isnan(there):
                near &= np.isnan(here)
            elif isinstance(variable, Categorical):
                near &= here == there
            else:
                unit = variable.to_unit(np.append(np.nan_to_num(here, nan=1e9), there))
                near &= np.abs(unit[:-1] - unit[-1]) <= radii[k]
        out |= near
    return out


def _least_gap(variable: Variable) -> float:
    """Return the distance of the nearest two values, as a share of the range: a step on is another recipe."""
    if isinstance(variable, Categorical):
        return math.inf
    if isinstance(variable, Ordinal):
        return float(np.diff(variable.to_unit(np.array(variable.levels))).min())
    if variable.step is None:
        return math.inf
    ends = np.array(
        [variable.high - variable.step, variable.high]
    )  # the closest on a log scale too
    return float(np.ptp(variable.to_unit(ends)))
