"""What a lab does to an optimiser over months: narrowed ranges, small units, odd steps, bent scales."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ohmloop.bo import (
    Categorical,
    Expression,
    Integer,
    Objective,
    Observation,
    Ordinal,
    Problem,
    Real,
    Settings,
    Simplex,
    Space,
    When,
    predict,
    suggest,
    worth,
)
from ohmloop.bo._warp import Warp
from ohmloop.errors import SearchError


def of(space: Space, **more: object) -> Problem:
    return Problem(space=space, objectives=(Objective(name="y"),), **more)


def seen(points: Sequence[dict], values: Sequence[float], **more: object) -> list[Observation]:
    return [
        Observation(point=p, values={"y": (float(v),)}, **more)
        for p, v in zip(points, values, strict=True)
    ]


def known_of(problem: Problem) -> Any:
    from ohmloop.bo._suggest import _knowledge

    return _knowledge(problem, [], 0)


@pytest.mark.slow
def test_after_a_range_was_narrowed_nothing_outside_it_is_suggested() -> None:
    space = Space((Real(name="t", low=0, high=100), Real(name="x", low=0, high=1, step=0.25)))
    old = [{"t": 150 if i >= 4 else 10 * i, "x": 0.1 * i} for i in range(8)]
    for s in suggest(of(space), seen(old, [100 + i if i >= 4 else i for i in range(8)]), 3):
        assert space.problems(s.point) == []


@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e12])
def test_the_unit_of_an_outcome_does_not_matter(unit: float) -> None:
    space = Space((Real(name="x", low=0, high=1),))
    points = [{"x": x} for x in (0.0, 0.2, 0.45, 0.7, 0.9, 1.0)]
    found = suggest(
        of(space), seen(points, [-unit * (1 + 10 * (p["x"] - 0.3) ** 2) for p in points])
    )
    best = found[0].predictions["y"]
    assert abs(found[0].point["x"] - 0.3) < 0.15
    assert best.low / unit > -6
    assert best.high / unit < 4


def test_equal_outcomes_of_a_small_unit_have_a_small_interval() -> None:
    space = Space((Real(name="x", low=0, high=1),))
    same = seen([{"x": x} for x in (0.1, 0.3, 0.5, 0.7)], [1e-6] * 4)
    found = predict(of(space), same, {"x": 0.4}).predictions["y"]
    assert found.high - found.low < 1e-5


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_a_bent_scale_does_not_run_away(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.random((8 + seed, 2))
    values = 10 ** (1 + 4 * X[:, 0] ** 3 + 0.3 * rng.normal(size=len(X)))
    space = Space((Real(name="a", low=0, high=1), Real(name="b", low=0, high=1)))
    known = seen([{"a": a, "b": b} for a, b in X], values)
    entry = worth(of(space), known, suggest(of(space), known, 2))[0]
    assert entry.gain <= 3 * np.ptp(values)
    warp = Warp.fit(values, maximise=True, scale="auto")
    assert warp.inverse(warp(values)) == pytest.approx(values, rel=1e-6)


def test_shares_stay_on_their_steps_and_below_their_bounds() -> None:
    a = Real(name="a", low=0, high=0.55, step=0.1)
    b, c = (Real(name=n, low=0, high=1, step=0.1) for n in "bc")
    space = Space((a, b, c), simplexes=(Simplex(("a", "b", "c")),))
    table = space.sample(200, np.random.default_rng(0))
    assert table[:, 0].max() <= 0.5 + 1e-9
    assert np.abs(table / 0.1 - np.round(table / 0.1)).max() < 1e-6
    with pytest.raises(SearchError, match="the same step, or none"):
        Space((a, Real(name="d", low=0, high=1)), simplexes=(Simplex(("a", "d")),))


def test_a_rejected_recipe_stays_rejected_on_a_more_humid_day() -> None:
    space = Space(
        (Ordinal(name="n", levels=(1, 2, 3)), Real(name="h", low=0, high=80, context=True))
    )
    for seed in range(4):
        found = suggest(of(space), [], 2, rejected=[{"n": 1, "h": 30}], fixed={"h": 40}, seed=seed)
        assert {s.point["n"] for s in found} == {2, 3}


def test_rejecting_one_level_leaves_its_neighbours() -> None:
    space = Space((Ordinal(name="n", levels=(1, 10, 100, 1000)),))
    tried = seen([{"n": 100}, {"n": 1000}], [1.0, 2.0])
    assert suggest(of(space), tried, rejected=[{"n": 1}])[0].point == {"n": 10}


@pytest.mark.slow
def test_a_batch_is_as_large_as_what_is_left() -> None:
    space = Space((Ordinal(name="n", levels=(1, 2, 3)),))
    assert len(suggest(of(space), [], 5)) == 3
    held = Space((Integer(name="n", low=0, high=600), Real(name="h", low=0, high=80, context=True)))
    tried = seen([{"n": n, "h": 20.0} for n in range(1, 600)], np.zeros(599))
    problem = of(held, settings=Settings(n_initial=10_000))
    found = suggest(problem, tried, 4, fixed={"h": 20})
    assert {s.point["n"] for s in found} == {0, 600}


def test_cost_of_what_does_not_exist_is_nothing() -> None:
    space = Space(
        (
            Categorical(name="anneal", options=("no", "yes")),
            Real(name="t", low=100, high=400, when=When("anneal", ("yes",))),
        )
    )
    problem = of(space, cost=Expression("0.1 + t / 1000"))
    knowledge = known_of(problem)
    table = space.to_table([{"anneal": "no"}, {"anneal": "yes", "t": 400.0}])
    assert np.exp(knowledge._log_cost(table)) == pytest.approx([0.1, 0.5])


def test_tolerance_of_a_log_variable_is_the_same_size_everywhere() -> None:
    space = Space((Real(name="x", low=1e-6, high=1e-2, log=True, tolerance=5e-5),))
    errors = known_of(of(space)).errors()
    assert errors is not None
    for x in (1e-3, 5e-3):
        made = errors(torch.as_tensor(space.features(space.to_table([{"x": x}]))[0]))
        values = 1e-6 * 1e4 ** made.flatten().numpy()
        assert values.mean() == pytest.approx(x, rel=1e-6)
        assert values.std() == pytest.approx(5e-5, rel=0.4)  # eight draws


def test_an_undefined_alternative_is_no_obstacle() -> None:
    rule = Expression("y == 0 or x / y <= 2")
    columns = {"x": np.array([0.0, 1.0, 9.0]), "y": np.array([0.0, 1.0, 1.0])}
    assert (rule.violation(columns) == 0).tolist() == [True, True, False]


def test_small_ranges_keep_their_steps() -> None:
    variable = Real(name="x", low=0, high=1e-15)
    assert len(np.unique(variable.from_unit(np.linspace(0, 1, 50)))) == 50
    steps = Real(name="x", low=0, high=5e-12, step=5e-13)
    assert np.diff(steps.from_unit(np.linspace(0, 1, 11))) == pytest.approx(5e-13)


def test_a_recipe_of_which_nothing_is_known_is_not_usable() -> None:
    assert not Observation(point={"x": 1.0}).is_usable
    assert not Observation(point={"x": 1.0}).has_failed


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SearchError, match="0 or more"):
        suggest(of(Space((Real(name="x", low=0, high=1),))), [], seed=-1)
