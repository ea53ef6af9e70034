"""Spaces: what is sampled can be made, and points survive the way to numbers and back."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmloop.bo import (
    Categorical,
    Expression,
    Integer,
    Ordinal,
    Point,
    Real,
    Simplex,
    Space,
    When,
)
from ohmloop.errors import SearchError

MIXED = Space(
    variables=(
        Real(name="a", low=-1, high=2),
        Real(name="b", low=1e-5, high=10, log=True),
        Real(name="step", low=0.5, high=3, step=0.1),
        Integer(name="n", low=1, high=9),
        Ordinal(name="o", levels=(5, 50, 200)),
        Categorical(
            name="m", options=("x", "y", "z"), descriptors={"x": (1, 0), "y": (1.1, 0), "z": (9, 1)}
        ),
        Real(name="child", low=10, high=20, when=When("m", ("y", "z"))),
        Ordinal(name="grandchild", levels=(1, 2), when=When("child", (10.0, 20.0))),
        Real(name="s1", low=0, high=1, step=0.05),
        Real(name="s2", low=0, high=0.6, step=0.05),
        Real(name="s3", low=0.1, high=1, step=0.05),
    ),
    constraints=(Expression("a + n <= 8"), Expression("m != 'z' or b < 1")),
    simplexes=(Simplex(("s1", "s2", "s3")),),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_everything_sampled_or_perturbed_can_be_made(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = MIXED.sample(40, rng)
    near = MIXED.perturb(table, 0.1, rng)
    for point in MIXED.to_points(np.vstack([table, near[MIXED.violation(near) == 0]])):
        assert MIXED.problems(point) == []
        assert ("child" in point) == (point["m"] != "x")
        assert point["s1"] + point["s2"] + point["s3"] == pytest.approx(1, abs=1e-9)
        steps = (point["step"] - 0.5) / 0.1
        assert steps == pytest.approx(round(steps), abs=1e-6)


def test_points_round_trip() -> None:
    table = MIXED.sample(50, np.random.default_rng(0))
    again = MIXED.to_table(MIXED.to_points(table))
    assert np.array_equal(table, again, equal_nan=True)


BAD = st.sampled_from(["", None, "many", "nan", float("inf"), "w"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.data())
def test_long_lists_are_read_as_row_by_row_errors_included(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    points = MIXED.to_points(MIXED.sample(12, rng))
    for point in points:  # numbers as text, too
        point["a"] = str(point["a"])
    assert MIXED._by_columns(points) is not None
    for k in data.draw(st.lists(st.integers(0, 11), max_size=2)):
        name = data.draw(st.sampled_from([*MIXED.names, "stranger"]))
        points[k] = {**points[k], name: data.draw(BAD)}
    assert outcome(MIXED.to_table, points) == outcome(MIXED._by_rows, points)


def outcome(read: Callable[[Sequence[Point]], np.ndarray], points: Sequence[Point]) -> str:
    """Return the numbers, or the error's words."""
    try:
        return str(read(points).tolist())
    except SearchError as error:
        return str(error)


def test_fixed_values_hold_and_leave_the_rest_feasible() -> None:
    fixed = {"m": "z", "s1": 0.3, "n": 7}
    for point in MIXED.to_points(MIXED.sample(30, np.random.default_rng(1), fixed)):
        assert (point["m"], point["s1"], point["n"]) == ("z", 0.3, 7)
        assert MIXED.problems(point) == []


def test_a_thin_feasible_part_is_found() -> None:
    space = Space(
        tuple(Real(name=n, low=0, high=1) for n in "abcd"),
        constraints=(Expression("abs(a - b) <= 0.005"), Expression("abs(c * d - 0.3) <= 0.005")),
    )
    table = space.sample(20, np.random.default_rng(0))
    assert len(table) == 20
    assert (space.violation(table) == 0).all()


def test_contradictory_constraints_are_named() -> None:
    space = Space(
        (Real(name="a", low=0, high=1),), constraints=(Expression("a > 0.6"), Expression("a < 0.4"))
    )
    with pytest.raises(SearchError, match="no recipe satisfies"):
        space.sample(5, np.random.default_rng(0))


def test_distance_of_options_follows_descriptors() -> None:
    X, groups = MIXED.features(
        MIXED.to_table(
            [
                {
                    **MIXED.to_points(MIXED.sample(1, np.random.default_rng(0), {"m": "x"}))[0],
                    "m": m,
                    "child": 12,
                }
                for m in ("x", "y", "z")
            ]
        )
    )
    block = X[:, (groups == 5) | (groups == groups.max())]  # the option, and its descriptors
    d = ((block[:, None] - block[None]) ** 2).sum(-1)
    assert d[0, 1] < d[0, 2]
    assert d[np.triu_indices(3, 1)].mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Real(name="a", low=1, high=1), "low must lie below high"),
        (lambda: Real(name="a", low=0, high=1, log=True), "low > 0"),
        (lambda: Real(name="a", low=0, high=1, step=2), "step"),
        (lambda: Integer(name="a", low=0.5, high=2), "whole bounds"),
        (lambda: Ordinal(name="a", levels=(1,)), "at least two"),
        (lambda: Categorical(name="a", options=("x", "x")), "different options"),
        (
            lambda: Categorical(name="a", options=("x", "y"), descriptors={"x": (1,)}),
            "same descriptors",
        ),
        (
            lambda: Space((Real(name="a", low=0, high=1),), (Expression("aa < 1"),)),
            'Did you mean "a"',
        ),
        (
            lambda: Space((Real(name="a", low=0, high=1),), (Expression("a + 1"),)),
            "compares nothing",
        ),
        (
            lambda: Space(
                (Real(name="a", low=0, high=1), Real(name="b", low=0, high=1)),
                simplexes=(Simplex(("a", "b"), 3),),
            ),
            "cannot add up",
        ),
        (
            lambda: Space(
                (
                    Real(name="a", low=0, high=1, when=When("b", (1,))),
                    Real(name="b", low=0, high=1, when=When("a", (1,))),
                )
            ),
            "circle",
        ),
        (lambda: MIXED.to_table([{"m": "w"}]), "no value|no option"),
    ],
)
def test_wrong_spaces_are_refused(make: object, text: str) -> None:
    with pytest.raises(SearchError, match=text):
        make()


def test_problems_are_said_in_words() -> None:
    point = MIXED.to_points(MIXED.sample(1, np.random.default_rng(0), {"m": "x"}))[0]
    said = MIXED.problems({**point, "a": 5.0, "n": 2.5, "s1": 0.9})
    assert any("outside" in line for line in said)
    assert any("steps" in line for line in said)
    assert any("not 1" in line for line in said)
