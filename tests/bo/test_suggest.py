"""Bayesian optimisation on problems whose optimum is known."""

import numpy as np
import pytest
import torch

from ohmloop.bo import Box, best, suggest
from ohmloop.errors import SearchError

# Branin (Dixon & Szegö 1978): minimum 0.397887 at three points.
BRANIN = Box((-5.0, 0.0), (10.0, 15.0))


def branin(x: np.ndarray) -> float:
    a, b = x
    return -(
        (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
        + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a)
        + 10
    )


def search(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    X, Y = np.empty((0, 2)), np.empty(0)
    for _ in range(n):
        x = suggest(BRANIN, X, Y, n_initial=5, seed=seed)
        X, Y = np.vstack([X, x]), np.append(Y, branin(x[0]))
    return X, Y


@pytest.mark.slow
def test_branin_is_solved_and_random_is_beaten() -> None:
    found = [search(22, seed)[1].max() for seed in range(3)]
    random = [
        max(branin(x) for x in np.random.default_rng(s).uniform(BRANIN.low, BRANIN.high, (22, 2)))
        for s in range(3)
    ]
    assert min(found) > -1.0  # optimum -0.3979; the range of the function is 0 to -308
    assert np.mean(found) > np.mean(random)


def test_search_is_deterministic_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    a, b = search(7, 1), search(7, 1)
    assert np.array_equal(a[0], b[0])
    assert torch.equal(before, torch.get_rng_state())


def test_batches_stay_in_the_box_and_apart() -> None:
    X, Y = search(6, 0)
    more = suggest(BRANIN, X, Y, q=3, seed=0, pending=[[0.0, 5.0]])
    assert more.shape == (3, 2)
    assert (more >= BRANIN.low).all()
    assert (more <= BRANIN.high).all()
    gaps = [np.abs(more[i] - more[j]).max() for i in range(3) for j in range(i)]
    assert min(gaps) > 1e-3


def test_failures_and_equal_outcomes_do_not_stop_the_search() -> None:
    X = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 3.0]])
    for Y in ([np.nan] * 4, [1.0] * 4, [1.0, np.nan, 2.0, 0.5]):
        assert suggest(BRANIN, X, Y).shape == (1, 2)
    assert best(X, [np.nan, 2.0, 1.0, 2.0]) == 1
    with pytest.raises(SearchError, match="every evaluation failed"):
        best(X, [np.nan] * 4)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Box((0.0,), (0.0,)), "below its upper"),
        (lambda: Box((), ()), "as many"),
        (lambda: suggest(BRANIN, [[0.0, 1.0]], []), "1 points but 0"),
        (lambda: suggest(BRANIN, [[99.0, 1.0]], [1.0]), "outside the box"),
        (lambda: suggest(BRANIN, [[1.0, 1.0, 1.0]], [1.0]), "points of 2 numbers"),
        (lambda: suggest(BRANIN, [], [], q=0), "at least 1"),
    ],
)
def test_bad_input_is_said(call, match: str) -> None:
    with pytest.raises(SearchError, match=match):
        call()
