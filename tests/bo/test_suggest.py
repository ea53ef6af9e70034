"""Bayesian optimisation on problems whose answers are known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ohmloop.bo import (
    Belief,
    Categorical,
    Expression,
    Objective,
    Observation,
    Ordinal,
    Problem,
    Real,
    Settings,
    Space,
    best_recipe,
    pareto,
    predict,
    rank_correlation,
    suggest,
    worth,
)
from ohmloop.errors import SearchError

# Branin (Dixon & Szego 1978): minimum 0.397887 at three points.
BRANIN = Problem(
    space=Space((Real(name="a", low=-5, high=10), Real(name="b", low=0, high=15))),
    objectives=(Objective(name="y", maximise=False),),
    settings=Settings(n_initial=5),
)
LINE = Space((Real(name="x", low=0, high=1),))


def branin(point: dict) -> float:
    a, b = point["a"], point["b"]
    return (
        (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
        + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a)
        + 10
    )


def search(n: int, seed: int) -> list[Observation]:
    seen: list[Observation] = []
    for _ in range(n):
        point = suggest(BRANIN, seen, seed=seed)[0].point
        seen.append(Observation(point=point, values={"y": (branin(point),)}))
    return seen


def measured(f: Callable[[float], float], xs: np.ndarray, **more: object) -> list[Observation]:
    return [Observation(point={"x": float(x)}, values={"y": (float(f(x)),)}, **more) for x in xs]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(SearchError, match=r"cannot compute on 'cuda' here.*Use cpu"):
        suggest(BRANIN, [], compute="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_objectives", [1, 2])
def test_a_gpu_chooses_as_a_cpu_does(n_objectives: int) -> None:
    names = ["y", "z"][:n_objectives]
    problem = Problem(
        space=LINE, objectives=tuple(Objective(name=n) for n in names), stages=("works",)
    )
    seen = [
        Observation(
            point={"x": x},
            values={n: (np.sin(3 * x + k),) for k, n in enumerate(names)},
            stages={"works": (1, 0)},
        )
        for x in np.linspace(0.05, 0.7, 9).tolist()
    ]
    seen.append(Observation(point={"x": 0.98}, stages={"works": (0, 1)}))
    choices = [{"x": x} for x in (0.1, 0.3, 0.8, 0.95)]
    found = [suggest(problem, seen, candidates=choices, compute=c)[0] for c in ("cpu", "cuda")]
    assert found[0].point == found[1].point


@pytest.mark.slow
@pytest.mark.long
def test_branin_is_solved_and_random_is_beaten() -> None:
    found = [min(o.values["y"][0] for o in search(25, seed)) for seed in range(3)]
    rng = np.random.default_rng(0)
    random = [
        min(branin({"a": a, "b": b}) for a, b in rng.uniform((-5, 0), (10, 15), (25, 2)))
        for _ in range(3)
    ]
    assert max(found) < 0.397887 + 0.3
    assert np.mean(found) < np.mean(random)


def test_search_is_deterministic_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    a, b = search(7, 1), search(7, 1)
    assert [o.point for o in a] == [o.point for o in b]
    assert torch.equal(before, torch.get_rng_state())


def test_batches_stay_in_the_space_and_apart_from_what_waits() -> None:
    pending = [{"a": 0.0, "b": 5.0}]
    more = suggest(BRANIN, search(6, 0), 3, pending=pending)
    points = [np.array([s.point["a"], s.point["b"]]) for s in more] + [np.array([0.0, 5.0])]
    for k, p in enumerate(points):
        assert -5 <= p[0] <= 10
        assert 0 <= p[1] <= 15
        assert all(np.abs(p - other).max() > 1e-3 for other in points[:k])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_or_equal_outcomes_do_not_stop_the_search(n: int) -> None:
    seen = measured(lambda x: 1.0, np.linspace(0, 1, n))
    assert len(suggest(Problem(space=LINE, objectives=(Objective(name="y"),)), seen, 2)) == 2


@pytest.mark.slow
@pytest.mark.long
def test_learned_failures_are_avoided() -> None:
    space = Space((Real(name="x", low=0, high=1), Real(name="z", low=0, high=1)))
    problem = Problem(space=space, objectives=(Objective(name="y"),), stages=("works",))

    def run(point: dict) -> Observation:
        works = point["x"] < 0.6  # the objective pulls to where devices fail
        return Observation(
            point=point,
            values={"y": (point["x"] + 0.1 * point["z"],)} if works else {},
            stages={"works": (int(works), int(not works))},
        )

    def failures(settings: Settings) -> float:
        setting = Problem(
            space=space, objectives=problem.objectives, stages=problem.stages, settings=settings
        )
        seen: list[Observation] = []
        for _ in range(24):
            seen.append(run(suggest(setting, seen, seed=3)[0].point))
        if settings.feasibility:
            assert max(o.values["y"][0] for o in seen if o.values) > 0.6
        return float(np.mean([not o.is_usable for o in seen]))

    blind = failures(Settings(feasibility=False))
    learned = failures(Settings())
    careful = failures(Settings(failure_budget=0.25, n_total=24))
    assert learned < blind
    assert careful <= 0.35 < blind


def test_reasons_name_the_stage_that_fails() -> None:
    rng = np.random.default_rng(0)
    problem = Problem(space=LINE, objectives=(Objective(name="y"),), stages=("early", "late"))
    seen = []
    for x in rng.random(40):
        stages = {"early": (1, 0), "late": (int(x < 0.5), int(x >= 0.5))}
        seen.append(
            Observation(point={"x": x}, values={"y": (x,)} if x < 0.5 else {}, stages=stages)
        )
    good, bad = predict(problem, seen, {"x": 0.2}), predict(problem, seen, {"x": 0.9})
    assert good.usable > 0.7 > 0.3 > bad.usable
    assert bad.likeliest_failure == "late"
    assert bad.stages["early"] > 0.9
    assert bad.nearest is not None
    assert good.importance == {"x": 1.0}
    assert set(bad.differences) == {"x"}


def test_rejected_recipe_is_not_proposed_again() -> None:
    seen = measured(lambda x: -((x - 0.7) ** 2), np.linspace(0, 1, 6))
    problem = Problem(space=LINE, objectives=(Objective(name="y"),))
    first = suggest(problem, seen)[0].point
    again = suggest(problem, seen, rejected=[first])[0].point
    assert abs(first["x"] - again["x"]) > 0.02


def test_finite_space_ends_with_a_clear_error() -> None:
    space = Space((Ordinal(name="x", levels=(1, 2, 3)),))
    problem = Problem(space=space, objectives=(Objective(name="y"),))
    seen: list[Observation] = []
    for _ in range(3):
        point = suggest(problem, seen)[0].point
        seen.append(Observation(point=point, values={"y": (float(point["x"]),)}))
    assert {o.point["x"] for o in seen} == {1.0, 2.0, 3.0}
    with pytest.raises(SearchError, match="every recipe of the space"):
        suggest(problem, seen)


def test_pool_is_respected() -> None:
    pool = [{"x": x} for x in (0.1, 0.4, 0.75, 0.9)]
    seen = measured(lambda x: -((x - 0.7) ** 2), np.array([0.0, 0.3, 0.5, 1.0]))
    chosen = suggest(
        Problem(space=LINE, objectives=(Objective(name="y"),)), seen, 2, candidates=pool
    )
    assert all(s.point in pool for s in chosen)
    assert chosen[0].point == {"x": 0.75}


def test_constraints_hold_exactly() -> None:
    space = Space(
        (Real(name="a", low=0, high=1), Real(name="b", low=0, high=1)),
        constraints=(Expression("a ** 2 + b ** 2 <= 0.25"), Expression("a >= 0.1")),
    )
    problem = Problem(space=space, objectives=(Objective(name="y"),))
    rng = np.random.default_rng(1)
    seen = [
        Observation(point=p, values={"y": (p["a"] + p["b"],)})
        for p in space.to_points(space.sample(8, rng))
    ]
    for s in suggest(problem, seen, 4):
        assert space.problems(s.point) == []


def test_cheap_recipes_win_between_equals() -> None:
    space = Space((Real(name="x", low=0, high=1), Categorical(name="k", options=("dear", "cheap"))))
    rng = np.random.default_rng(2)
    seen = [
        Observation(point=p, values={"y": (np.sin(6 * p["x"]),)})
        for p in space.to_points(space.sample(10, rng))
    ]
    problem = Problem(
        space=space,
        objectives=(Objective(name="y"),),
        cost=Expression("100 if k == 'dear' else 1"),
    )
    assert [s.point["k"] for s in suggest(problem, seen, 3)] == ["cheap"] * 3


@pytest.mark.slow
def test_belief_leads_at_first_and_fades() -> None:
    objective = (Objective(name="y"),)
    wrong = Problem(space=LINE, objectives=objective, beliefs={"x": Belief(0.1, 0.05)})
    first = [s.point["x"] for s in suggest(wrong, [], 4)]
    assert np.median(np.abs(np.array(first) - 0.1)) < 0.2
    seen: list[Observation] = []
    for _ in range(25):
        x = suggest(wrong, seen)[0].point["x"]
        seen.append(Observation(point={"x": x}, values={"y": (-((x - 0.8) ** 2),)}))
    assert min(abs(o.point["x"] - 0.8) for o in seen) < 0.05


def test_tolerance_prefers_the_broad_optimum() -> None:
    def f(x: float) -> float:
        return np.exp(-(((x - 0.2) / 0.05) ** 2)) * 1.3 + np.exp(-(((x - 0.7) / 0.25) ** 2))

    seen = measured(f, np.linspace(0, 1, 28))
    exact = Problem(space=LINE, objectives=(Objective(name="y", scale="linear"),))
    robust = Problem(
        space=Space((Real(name="x", low=0, high=1, tolerance=0.1),)), objectives=exact.objectives
    )
    assert abs(suggest(exact, seen)[0].point["x"] - 0.2) < 0.05
    assert abs(suggest(robust, seen)[0].point["x"] - 0.7) < 0.15


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_two_objectives_find_the_front(tolerance: float) -> None:
    space = Space(
        (Real(name="x", low=0, high=1, tolerance=tolerance), Real(name="z", low=0, high=1))
    )
    problem = Problem(
        space=space, objectives=(Objective(name="f"), Objective(name="g", maximise=False))
    )

    def run(p: dict) -> Observation:  # front: z = 0, any x
        return Observation(point=p, values={"f": (p["x"] - p["z"],), "g": (p["x"] ** 2 + p["z"],)})

    seen = [run(p) for p in space.to_points(space.sample(6, np.random.default_rng(0)))]
    for _ in range(4):
        seen += [run(s.point) for s in suggest(problem, seen, 2)]
    front = pareto(problem, seen)
    assert len(front) >= 3
    assert np.mean([seen[k].point["z"] for k in front]) < 0.25


@pytest.mark.slow
def test_four_objectives_and_log_scale_run() -> None:
    space = Space((Real(name="x", low=0, high=1), Real(name="z", low=0, high=1)))
    names = ("a", "b", "c", "d")
    problem = Problem(space=space, objectives=tuple(Objective(name=n, scale="log") for n in names))
    seen = [
        Observation(point=p, values={n: (1.0 + k * p["x"] + p["z"],) for k, n in enumerate(names)})
        for p in space.to_points(space.sample(8, np.random.default_rng(0)))
    ]
    assert len(suggest(problem, seen, 2)) == 2
    bad = [*seen, Observation(point={"x": 0.5, "z": 0.5}, values={n: (-1.0,) for n in names})]
    with pytest.raises(SearchError, match='scale "log"'):
        suggest(problem, bad)


@pytest.mark.slow
def test_earlier_campaign_helps_when_it_agrees_and_does_no_harm_when_it_misleads() -> None:
    def f(x: float) -> float:
        return -((x - 0.63) ** 2)

    xs = np.linspace(0, 1, 12)
    problem = Problem(space=LINE, objectives=(Objective(name="y"),), settings=Settings(n_initial=3))
    helpful = measured(lambda x: 5 + 3 * f(x), xs, source="last year")
    misleading = measured(lambda x: -f(x), xs, source="last year")

    def run(earlier: list[Observation], n: int) -> float:
        seen: list[Observation] = []
        for _ in range(n):
            x = suggest(problem, [*seen, *earlier], seed=1)[0].point["x"]
            seen.append(Observation(point={"x": x}, values={"y": (f(x),)}))
        return min(abs(o.point["x"] - 0.63) for o in seen)

    assert run(helpful, 3) < 0.1  # before a campaign of its own would have left its design
    assert run(misleading, 12) < 0.05


def test_descriptors_carry_what_is_known_to_a_material_never_tried() -> None:
    table = {f"m{k}": (float(k), float(k % 3)) for k in range(8)}
    seen = [
        Observation(point={"m": f"m{k}"}, values={"y": (float(k),) * 2}) for k in (0, 1, 2, 3, 5, 6)
    ]

    def expected(descriptors: bool) -> tuple[float, float]:
        space = Space((Categorical(name="m", options=tuple(table), descriptors=table),))
        problem = Problem(
            space=space,
            objectives=(Objective(name="y", scale="linear"),),
            settings=Settings(descriptors=descriptors),
        )
        return tuple(predict(problem, seen, {"m": m}).predictions["y"].median for m in ("m7", "m4"))

    high, middle = expected(True)
    assert high > middle + 0.5
    same_high, same_middle = expected(False)
    assert same_high == pytest.approx(same_middle, abs=1e-6)


def test_worth_falls_as_the_search_converges() -> None:
    problem = Problem(space=LINE, objectives=(Objective(name="y", scale="linear"),))

    def f(x: float) -> float:
        return np.sin(5 * x)

    gains = []
    for n in (4, 25):
        seen = measured(f, np.linspace(0.02, 0.98, n))
        entry = worth(problem, seen, suggest(problem, seen, 2))[0]
        assert entry.low <= entry.gain <= max(entry.high, entry.gain)
        assert 0 <= entry.chance <= 1
        gains.append(entry.gain)
    assert gains[1] < gains[0]
    assert gains[1] < 0.02


def test_best_recipe_is_not_the_luckiest_measurement() -> None:
    rng = np.random.default_rng(4)
    xs = np.repeat(np.linspace(0, 1, 9), 3)
    seen = measured(lambda x: -4 * (x - 0.5) ** 2 + 0.2 * rng.normal(), xs)
    seen.append(
        Observation(point={"x": 0.83}, values={"y": (0.6,)})
    )  # truly -0.44: one lucky device
    problem = Problem(space=LINE, objectives=(Objective(name="y"),))
    index = best_recipe(problem, seen)
    assert index is not None
    assert abs(seen[index].point["x"] - 0.5) < 0.2
    assert rank_correlation(problem, seen, "y") > 0.6


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: suggest(BRANIN, [], 0), "q must be at least 1"),
        (lambda: suggest(BRANIN, [Observation(point={"a": 1.0})]), 'no value for "b"'),
        (lambda: suggest(BRANIN, [Observation(point={"a": 1.0, "c": 2.0})]), '"c" is no variable'),
        (lambda: Observation(point={}, values={"y": (float("nan"),)}), "finite"),
        (lambda: Observation(point={}, stages={"s": (0, 0)}), "counts"),
        (lambda: Problem(space=LINE), "needs an objective"),
        (lambda: Settings(failure_budget=0.1), "n_total"),
        (
            lambda: Problem(space=LINE, stages=("s",), settings=Settings(cover=("x",))),
            "not categorical",
        ),
        (lambda: Problem(space=LINE, stages=("s",), cost=Expression("x > 1")), "condition"),
        (lambda: best_recipe(Problem(space=LINE, stages=("s",)), []), "exactly one objective"),
        (
            lambda: suggest(
                Problem(space=Space((Real(name="h", low=0, high=1, context=True),)), stages=("s",)),
                [],
            ),
            "context variable",
        ),
    ],
)
def test_wrong_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(SearchError, match=text):
        call()
