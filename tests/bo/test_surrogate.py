"""The surrogates against what is known of them: calibration, noise, leave-one-out, moments."""

import numpy as np
import pytest
import torch

from ohmloop.bo import Categorical, Objective, Observation, Problem, Real, Space, predict
from ohmloop.bo._surrogate import (
    StageModel,
    fit_outcome,
    in_parts,
    leave_one_out,
    moments,
    noise_of_means,
    quiet,
)
from ohmloop.bo._warp import Warp
from ohmloop.errors import SearchError

SPACE = Space(
    (
        Real(name="a", low=0, high=1),
        Real(name="b", low=1, high=100, log=True),
        Categorical(name="c", options=("x", "y", "z")),
    )
)


def points(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return SPACE.features(SPACE.sample(n, np.random.default_rng(seed)))


def test_probability_of_passing_is_calibrated_on_known_functions() -> None:
    """Six logistic truths, 40 trials each: in every fifth of the range the mean forecast is right to 0.15."""
    forecasts, truths = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, groups = points(40, seed)

        def truth(Z: np.ndarray, steep: float = (6.0, 20.0)[seed % 2]) -> np.ndarray:
            return 1 / (1 + np.exp(-steep * (Z[:, 0] - 0.5) - 3 * (Z[:, 1] - 0.5)))

        y = (rng.random(40) < truth(X)).astype(float)
        new, _ = points(1500, seed + 100)
        with quiet(0):
            forecasts.append(StageModel(X, groups, y, 1 - y).probability(new))
        truths.append(truth(new))
    p, q = np.concatenate(forecasts), np.concatenate(truths)
    for low in np.arange(0, 1, 0.2):
        there = (p >= low) & (p < low + 0.2)
        if there.sum() > 50:
            assert abs(p[there].mean() - q[there].mean()) < 0.15
    loss = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
    assert loss < 0.5  # knowing only the base rate gives 0.69


def test_counts_weigh_like_repeated_labels() -> None:
    X, groups = points(20, 0)
    good = (X[:, 0] > 0.5).astype(float)
    with quiet(0):
        once = StageModel(X, groups, good, 1 - good).probability(X)
        often = StageModel(X, groups, 5 * good, 5 * (1 - good)).probability(X)
    assert (np.abs(often - 0.5) >= np.abs(once - 0.5) - 0.02).mean() > 0.9


@pytest.mark.parametrize(("passed", "failed", "rate"), [(9, 0, 9.5 / 10), (0, 4, 0.5 / 5)])
def test_one_kind_of_label_gives_the_rate(passed: int, failed: int, rate: float) -> None:
    X, groups = points(1, 0)
    model = StageModel(X, groups, np.array([passed]), np.array([failed]))
    assert model.probability(X) == pytest.approx([rate])


def test_noise_of_a_single_replicate_is_never_zero() -> None:
    variance = noise_of_means([np.array([1.0]), np.array([0.0, 0.0]), np.array([1.0, 3.0, 2.0])])
    assert variance is not None
    assert (variance > 0.01).all()
    assert variance[0] > variance[1]  # one device says less than two that agree
    assert noise_of_means([np.array([1.0]), np.array([2.0])]) is None


def test_noise_is_recovered() -> None:
    rng = np.random.default_rng(0)
    replicates = [rng.normal(0, 0.7, 8) for _ in range(400)]
    assert np.mean(noise_of_means(replicates)) * 8 == pytest.approx(0.49, rel=0.05)


def test_a_value_with_a_large_error_weighs_little() -> None:
    """Two recipes are alike but for one outlier: a stated error makes the model believe its neighbours."""
    X, groups = points(16, 3)
    X[:, 0] = np.linspace(0, 1, 16)
    X[:, 1:] = X[:1, 1:]
    y = np.sin(3 * X[:, 0])
    y[8] += 3.0
    errors = np.full(16, 0.05)
    with quiet(0):
        plain = fit_outcome(X, groups, [np.array([v]) for v in y], errors=errors)
        errors[8] = 3.0
        told = fit_outcome(X, groups, [np.array([v]) for v in y], errors=errors)
        off = [abs(float(moments(m, X)[0][8, 0]) - np.sin(3 * X[8, 0])) for m in (plain, told)]
    assert off[1] < 0.3 < off[0]


def test_errors_become_variances_and_the_scatter_of_replicates_still_counts() -> None:
    X, groups = points(8, 0)
    y = [np.array([0.1 * k, 0.1 * k + 0.2]) for k in range(8)]
    with quiet(0):
        scatter = fit_outcome(X, groups, y).likelihood.noise_covar.noise.numpy()
        both = fit_outcome(X, groups, y, errors=np.array([2.0] + [0.0] * 7))
    np.testing.assert_allclose(both.likelihood.noise_covar.noise.numpy()[1:], scatter[1:])
    assert float(both.likelihood.noise_covar.noise[0]) == pytest.approx(4.0)


def test_an_error_needs_a_value() -> None:
    with pytest.raises(SearchError, match="an error is a finite number >= 0 of an outcome"):
        Observation(point={"a": 0.1}, errors={"y": 0.1})


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_errors_of_a_straight_scale_are_divided_by_its_spread(scale: str) -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    warp = Warp.fit(values, maximise=False, scale=scale)  # type: ignore[arg-type]  # parametrised
    got = warp.errors(values, 0.01 * values)
    relative = 0.01 if scale == "log" else 0.01 * values
    np.testing.assert_allclose(got, relative / (warp.width * warp.spread))


def test_a_long_list_of_candidates_is_cut_and_scored_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    X = rng.random((12, 2))
    model = fit_outcome(X, np.arange(2), [np.array([v]) for v in np.sin(5 * X[:, 0])])
    new = rng.random((100, 2))
    whole = moments(model, new)
    monkeypatch.setattr("ohmloop.bo._surrogate.CANDIDATES_BUDGET", 7 * 8 * 6 * 12)
    assert [len(part) for part in in_parts(new, 6 * 12)] == [7] * 14 + [2]
    assert [len(part) for part in in_parts(new[:0], 6 * 12)] == [0]
    for one, other in zip(whole, moments(model, new), strict=True):
        assert np.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_moments_are_those_of_the_posterior() -> None:
    X, groups = points(30, 1)
    y = np.sin(4 * X[:, 0])
    with quiet(0):
        model = fit_outcome(X, groups, [np.array([v]) for v in y])
        new, _ = points(7, 2)
        mean, variance = moments(model, new)
        with torch.no_grad():
            exact = model.posterior(torch.as_tensor(new))
    assert mean[:, 0] == pytest.approx(exact.mean[:, 0].numpy(), abs=1e-6)
    assert variance[:, 0] == pytest.approx(exact.variance[:, 0].numpy(), abs=1e-6)


@pytest.mark.parametrize("replicated", [False, True])
def test_leave_one_out_is_what_refitting_without_the_point_gives(replicated: bool) -> None:
    X, groups = points(15, 3)
    rng = np.random.default_rng(0)
    values = [np.sin(4 * x[0]) + 0.1 * rng.normal(size=2 if replicated else 1) for x in X]
    with quiet(0):
        model = fit_outcome(X, groups, values)
        fast = leave_one_out(model)
        with torch.no_grad():
            x, y = model.train_inputs[0], model.train_targets
            prior = model.likelihood(model.forward(x), [x])
            for k in (0, 7, 14):
                rest = [i for i in range(15) if i != k]
                gain = torch.linalg.solve(
                    prior.covariance_matrix[rest][:, rest], prior.covariance_matrix[rest, k]
                )
                slow = prior.mean[k] + gain @ (y[rest] - prior.mean[rest])
                assert fast[k] == pytest.approx(float(slow), abs=1e-8)


@pytest.mark.parametrize("maximise", [True, False])
@pytest.mark.parametrize("scale", ["auto", "linear", "log"])
def test_warp_keeps_order_and_inverts(maximise: bool, scale: str) -> None:
    values = np.random.default_rng(0).lognormal(0, 1.5, 40)
    warp = Warp.fit(values, maximise=maximise, scale=scale)
    fitted = warp(values)
    assert fitted.mean() == pytest.approx(0, abs=1e-9)
    assert fitted.std() == pytest.approx(1)
    order = np.argsort(values if maximise else -values)
    assert (np.diff(fitted[order]) > 0).all()
    assert warp.inverse(fitted) == pytest.approx(values, rel=1e-6)
    assert np.isfinite(warp.inverse(np.array([-50.0, 50.0]))).all()


def test_recipes_that_agree_within_their_replicates_are_not_told_apart() -> None:
    space = Space((Real(name="x", low=0, high=1),))
    problem = Problem(space=space, objectives=(Objective(name="y"),))
    seen = [
        Observation(point={"x": 0.2}, values={"y": (0.18, 0.23)}),
        Observation(point={"x": 0.8}, values={"y": (0.19, 0.214)}),
    ]
    found = predict(problem, seen, {"x": 0.2}).predictions["y"]
    assert found.high - found.low > 0.03  # the spread of one recipe's mean is about 0.02
