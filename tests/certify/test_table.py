"""What an unsound certificate would fail: each test knows the truth from a formula, not from our code."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr, ndtri
from torch import nn
from torch.func import functional_call

from ohmloop.certify import (
    Gain,
    Law,
    Sampler,
    Votes,
    clopper_pearson,
    drift_certificate,
    kept_at_divergence,
    kl_certificate,
    percentile_certificate,
    poll,
    quantile_certificate,
    reached_by,
    relative_ball,
    shift_between,
    yield_certificate,
)
from ohmloop.errors import CertifyError
from ohmloop.nn import analog_parameters, analogize
from tests.certify.small import (
    HARD,
    ONE,
    X,
    ladder,
    leverages,
    margin,
    pair,
    parts,
    ratio,
    truth,
    votes_of,
)


def gaussian(sigma: float, **more: object) -> Law:
    return Law(noise="gaussian", sigma=sigma, **more)  # type: ignore[arg-type]


def sigma_for(p: float) -> float:
    """The sigma at which class 0 of the pair has probability p."""
    model = pair()
    norm = math.sqrt(sum(float(v.square().sum()) for v in leverages(model, X).values()))
    return margin(model, X) / norm / float(ndtri(p))


# Row 1: binary linear model, relative gaussian noise.


def test_linear_radius_never_exceeds_the_exact_one_and_tends_to_it() -> None:
    model = pair()
    norm = math.sqrt(sum(float(v.square().sum()) for v in leverages(model, X).values()))
    exact = margin(model, X) / norm
    sigma = sigma_for(0.9)
    small, large = (
        drift_certificate(poll(model, (X, None), gaussian(sigma), n_devices=n), alpha=0.001)
        for n in (400, 40_000)
    )
    for certificate in (small, large):
        assert certificate.radii[0] is not None
        assert sigma * certificate.radii[0] <= exact
    assert small.radii[0] < large.radii[0]
    # alpha = .001: the bound lies up to 3.1 + 3.1 standard errors of .0015 low, and .009 in p is .053 in
    # the normal quantile of .9, 4 % of the radius.
    assert sigma * large.radii[0] >= 0.96 * exact


def test_certified_class_probability_after_the_worst_shift_is_below_the_true_one() -> None:
    model, law = pair(), gaussian(0.6)
    votes = poll(model, (X, None), law, n_devices=20_000)
    certificate = drift_certificate(votes, alpha=0.001)
    levers = leverages(model, X)
    norm = math.sqrt(sum(float(v.square().sum()) for v in levers.values()))
    for rho in (0.2, 0.5, 1.0):
        # Against the margin, the shift that hurts most: its true effect is Phi(m / (sigma |v|) - rho).
        true = float(ndtr(margin(model, X) / (0.6 * norm) - rho))
        claimed = float(certificate.kept(rho)[0])
        assert claimed <= true
        assert claimed >= true - 0.02


# Row 2: the geometry of the shift.


def test_weight_change_of_exactly_that_norm_flips_the_class() -> None:
    model, law = pair(), gaussian(0.6)
    levers = leverages(model, X)
    norm2 = sum(float(v.square().sum()) for v in levers.values())
    nominal = {n: p.detach() for n, p in analog_parameters(model).items()}
    cells = poll(model, (X, None), law, n_devices=2).cells
    assert cells is not None
    for stretch, flips in ((1 - 1e-6, False), (1 + 1e-6, True)):
        moved = {
            n: w * (1 - stretch * margin(model, X) / norm2 * levers[n]) for n, w in nominal.items()
        }
        (cost,) = cells.cost(shift_between(law, nominal, moved))
        assert cost == pytest.approx(stretch * margin(model, X) / math.sqrt(norm2) / 0.6, rel=1e-12)
        out = functional_call(model, moved, (X,))[0]
        assert bool(out[0] < out[1]) is flips


def test_shift_with_a_sign_change_or_a_moved_zero_is_no_shift_of_log_weights() -> None:
    law = Law(sigma=0.3)
    w = {"w": torch.tensor([1.0, -2.0, 0.0])}
    assert shift_between(law, w, {"w": torch.tensor([2.0, -1.0, 0.0])}) == pytest.approx(
        [math.log(2), -math.log(2)]
    )
    with pytest.raises(CertifyError, match="change their sign"):
        shift_between(law, w, {"w": torch.tensor([-1.0, -2.0, 0.0])})
    with pytest.raises(CertifyError, match="exactly zero moved"):
        shift_between(law, w, {"w": torch.tensor([1.0, -2.0, 0.1])})


# Row 3: coverage.

REPETITIONS, N_EACH = 3000, 40


@pytest.fixture(scope="module", params=["gaussian", "log-normal"])
def experiment(request: pytest.FixtureRequest) -> tuple[list[Votes], dict[int, float]]:
    """3,000 independent fleets of 40 devices, and the true probability of each class.

    The probability lies just below one of the bounds that 40 devices can give, where the chance of a false
    claim is alpha itself and not less.
    """
    p = float(clopper_pearson(27, N_EACH, 0.05)) * (1 - 1e-9)
    assert 0.5 < p < 0.6
    if request.param == "gaussian":
        model, x, law = pair(), X, gaussian(sigma_for(p))
        assert truth(model, x, law) == pytest.approx(p, abs=1e-9)
    else:
        model, x = ratio(), ONE
        law = Law(sigma=math.log(1.3) / math.sqrt(2) / float(ndtri(p)))
    votes = poll(model, (x, None), law, n_devices=REPETITIONS * N_EACH, seed=5)
    return parts(votes, N_EACH), {0: p, 1: 1 - p}


@pytest.mark.slow
def test_coverage_of_3000_repetitions_at_alpha_5_percent(
    experiment: tuple[list[Votes], dict[int, float]],
) -> None:
    fleets, true = experiment
    assert len(fleets) == REPETITIONS
    certificates = [yield_certificate(votes, alpha=0.05) for votes in fleets]
    false = np.mean([c.lower[0] > true[c.classes[0]] for c in certificates])
    # Binomial: 5 % +- 3 standard errors of 0.40 %; below, the bound would give away what it could claim.
    assert 0.038 <= false <= 0.062


@pytest.mark.slow
def test_coverage_of_the_shifted_statement(
    experiment: tuple[list[Votes], dict[int, float]],
) -> None:
    fleets, true = experiment
    certificates = [drift_certificate(votes, alpha=0.05) for votes in fleets[:300]]
    false = np.mean([c.kept(0.7)[0] > ndtr(ndtri(true[c.classes[0]]) - 0.7) for c in certificates])
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_every_device_has_noise_of_its_own_in_every_weight() -> None:
    # One draw for a whole batch, or a tensor without noise, would show in these moments.
    model, law, n = pair(), gaussian(0.5), 4000
    parameters = {k: p.detach() for k, p in analog_parameters(model).items()}
    drawn = Sampler(law, parameters, 3)(range(n))
    relative = torch.cat([(drawn[k] / p - 1).flatten(1) for k, p in parameters.items()], 1).numpy()
    assert relative.shape == (n, 14)
    assert np.abs(relative.mean(0)).max() < 4.5 * 0.5 / math.sqrt(n)
    assert np.abs(relative.std(0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(2 * n)
    correlation = np.corrcoef(relative.T) - np.eye(14)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(n)


# Row 4: two groups of cells with their own sigma.


def test_two_groups_with_sigma_005_and_05_are_an_ellipsoid_not_a_ball() -> None:
    model = pair()
    law = gaussian(0.05, per_layer=(("b.*", 0.5),))
    p = truth(model, X, law)
    certificate = drift_certificate(poll(model, (X, None), law, n_devices=20_000), alpha=0.001)
    cells = poll(model, (X, None), law, n_devices=2).cells
    assert cells is not None
    levers = {k: v.flatten().numpy() for k, v in leverages(model, X).items()}
    v = np.concatenate([levers["a.weight"], levers["a.bias"], levers["b.weight"]])
    sigma = np.concatenate([np.full(8, 0.05), np.full(6, 0.5)])
    spread = math.sqrt(((sigma * v) ** 2).sum())
    # Along layer a alone, whose cells are the quiet ones.
    direction = -np.where(np.arange(14) < 8, v, 0)
    for length in (0.1, 0.3, 1.0):
        delta = length * direction / np.linalg.norm(direction)
        (cost,) = cells.cost(delta)
        assert cost == pytest.approx(np.linalg.norm(delta / sigma))
        true = float(ndtr(ndtri(p) + (delta * v).sum() / spread))
        assert float(certificate.kept(cost)[0]) <= true
    # One cell may move as far as the quietest sigma allows, whichever cell it is.
    one = next(t for t in certificate.translations if t.cells == 1 and t.keep == 0.5)
    assert one.amount is not None
    assert one.amount <= 0.05 * float(ndtri(p))


# Row 5: noise that follows the perturbed weight.


def test_statement_a_is_refused_where_the_spread_follows_the_weight() -> None:
    votes = poll(pair(), (X, None), gaussian(0.5, spread="following"), n_devices=200)
    with pytest.raises(CertifyError, match=r"sqrt\(1 \+ 2 sigma\^2\).*log-normal.*kl_certificate"):
        drift_certificate(votes)
    assert kl_certificate(votes).divergences[0] is not None


def test_statement_a_would_indeed_be_false_where_the_spread_follows_the_weight() -> None:
    """The refusal is needed: on the worst classifier the class falls below what A promises; F holds."""
    rng = np.random.default_rng(0)
    sigma, k, p = 0.5, 64, 0.9
    rho = float(ndtri(p))  # What A would certify for the majority, in deviations.
    d = rho * sigma / math.sqrt(k)
    nominal = 1 + sigma * rng.standard_normal((40_000, k))
    drifted = (1 + d) * (1 + sigma * rng.standard_normal((40_000, k)))

    def evidence(w: np.ndarray) -> np.ndarray:
        """Log-likelihood ratio of the drifted law to the nominal one: the worst classifier."""
        q = stats.norm.logpdf(w, 1 + d, sigma * (1 + d))
        return (q - stats.norm.logpdf(w, 1, sigma)).sum(1)

    threshold = np.quantile(evidence(nominal), p)
    kept = float((evidence(drifted) <= threshold).mean())
    error = math.sqrt(0.25 / 40_000)
    assert kept < 0.5 - 10 * error
    # The radius of A is too long by sqrt(1 + 2 sigma^2): shortened by it, the promise is kept nearly.
    assert kept == pytest.approx(ndtr(rho - rho * math.sqrt(1 + 2 * sigma**2)), abs=0.03)
    divergence = k * (-math.log(1 + d) + (sigma**2 * (1 + d) ** 2 + d**2) / (2 * sigma**2) - 0.5)
    assert float(kept_at_divergence(p, divergence)) <= kept


# Row 6: the log ball and the relative ball.


@settings(max_examples=200, deadline=None)
@given(
    radius=st.floats(0.01, 3.0),
    direction=st.lists(st.floats(-1, 1), min_size=1, max_size=5).filter(
        lambda v: sum(x * x for x in v) > 1e-6
    ),
)
def test_relative_ball_lies_inside_the_log_ball(radius: float, direction: list[float]) -> None:
    unit = np.array(direction) / np.linalg.norm(direction)
    inside = np.log1p(relative_ball(radius) * unit)
    assert np.linalg.norm(inside) <= radius * (1 + 1e-12)


def test_relative_ball_cannot_be_larger() -> None:
    for radius in (0.1, 0.5, 2.0):
        # Towards zero a relative change is longest in logarithms: a thousandth more leaves the ball.
        outside = math.log1p(-(relative_ball(radius) + 1e-3 * math.exp(-radius)))
        assert abs(outside) > radius
        assert relative_ball(radius) < radius


# Row 7: an order statistic, not a percentile.


@pytest.mark.slow
def test_order_statistic_on_normal_scores_covers_95_percent() -> None:
    rng = np.random.default_rng(1)
    repetitions, n, true = 4000, 100, float(ndtri(0.05))
    scores = rng.standard_normal((repetitions, n))
    error = math.sqrt(0.05 * 0.95 / repetitions)
    false = np.mean([reached_by(row, 0.95, 0.05) > true for row in scores])
    assert false <= 0.05 + 3 * error
    # Of 100 devices the rank is the second: by itself this rank is false in 3.7 % of cases.
    assert false == pytest.approx(float(stats.binom.cdf(1, n, 0.05)), abs=3 * error)
    percentile = np.mean(np.percentile(scores, 5, axis=1) > true)
    assert percentile > 0.3


# Row 8: inputs that fail together.


def test_500_identical_inputs_count_once() -> None:
    rng = np.random.default_rng(2)
    one = rng.random((200, 1)) < 0.9
    single, many = votes_of(one), votes_of(np.repeat(one, 500, 1))
    alone = yield_certificate(single, alpha=0.05 / 501)
    together = yield_certificate(many, alpha=0.05)
    assert set(together.lower) == {alone.lower[0]}
    assert together.joint == alone.lower[0]
    # A tenth of the chips fails on everything: 95 of 100 chips reach nothing, whatever the mean.
    for votes in (single, many):
        assert quantile_certificate(votes, rule="digital").bound == 0.0


@pytest.mark.slow
def test_coverage_of_identical_inputs() -> None:
    rng = np.random.default_rng(3)
    p, repetitions, false = 0.947, 1000, 0
    for _ in range(repetitions):
        votes = votes_of(np.repeat(rng.random((80, 1)) < p, 500, 1))
        false += quantile_certificate(votes, rule="digital").bound > 0
    # True is a bound of 0; all 80 right by chance (1.3 %) or the rank's luck is the only way to claim more.
    assert false / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


# Row 9: all devices agree.


def test_all_of_n_gives_alpha_to_the_1_over_n_and_a_finite_radius() -> None:
    n, alpha, sigma = 500, 0.05, 0.01
    certificate = drift_certificate(poll(pair(), (X, None), gaussian(sigma), n_devices=n))
    assert certificate.lower[0] == pytest.approx(alpha ** (1 / n), rel=1e-12)
    assert certificate.radii[0] == pytest.approx(float(ndtri(alpha ** (1 / n))), rel=1e-9)
    one = next(t for t in certificate.translations if t.cells == 1 and t.keep == 0.5)
    assert one.amount is not None
    assert one.amount <= sigma * float(ndtri(alpha ** (1 / n))) * (1 + 1e-9)


# Row 12: invariances.


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.one, self.two = nn.Linear(4, 16).double(), nn.Linear(16, 3).double()
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x)))


def mlp() -> Mlp:
    return analogize(Mlp().eval(), HARD)  # type: ignore[return-value]


INPUTS = torch.randn(20, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_scaling_a_pair_of_layers_changes_nothing() -> None:
    plain, scaled = mlp(), mlp()
    with torch.no_grad():
        scaled.one.weight *= 8
        scaled.one.bias *= 8
        scaled.two.weight /= 8
    a, b = (poll(m, (INPUTS, None), Law(sigma=0.5), n_devices=300) for m in (plain, scaled))
    assert (a.classes == b.classes).all()
    first, second = drift_certificate(a), drift_certificate(b)
    assert first.lower == second.lower
    assert first.translations == second.translations


def test_simultaneous_statements_take_alpha_over_n() -> None:
    votes = poll(mlp(), (INPUTS, None), Law(sigma=0.5), n_devices=300)
    right = votes.right().sum(0)
    # A yield certificate makes one statement more: all inputs at once.
    for make, n in ((yield_certificate, 21), (drift_certificate, 20), (kl_certificate, 20)):
        found = make(votes, alpha=0.05)
        assert found.lower == pytest.approx(clopper_pearson(right, 300, 0.05 / n))
        assert f"alpha / {n}" in found.multiplicity


def test_points_of_curves_take_alpha_over_their_number() -> None:
    # Thresholds so close that every rank has a score of its own.
    x = torch.linspace(0.2, 3.0, 2001, dtype=torch.float64).unsqueeze(1)
    votes = poll(ladder(), (x, None), Law(sigma=0.4), n_devices=2000)
    digital = votes.scores("digital")
    found = percentile_certificate(votes, shares=(0.5, 0.9), alpha=0.05, rule="digital")
    points = 2 * len(found.rho)
    for share, curve in zip(found.shares, found.bounds, strict=True):
        assert curve[0] == reached_by(digital, share, 0.05 / points)
        assert curve[0] < reached_by(digital, share, 0.05)


def test_permuting_neurons_changes_nothing_but_the_draws() -> None:
    plain, permuted = mlp(), mlp()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        permuted.one.weight.copy_(plain.one.weight[order])
        permuted.one.bias.copy_(plain.one.bias[order])
        permuted.two.weight.copy_(plain.two.weight[:, order])
    law = Law(sigma=0.5, gain=Gain(group="layer", tau=0.1))
    a, b = (poll(m, (INPUTS, None), law, n_devices=4000) for m in (plain, permuted))
    assert (a.digital == b.digital).all()
    assert a.cells is not None
    assert b.cells is not None
    assert a.cells.shifts() == b.cells.shifts()
    # 20 inputs, difference of two shares of 4,000: 4.5 standard errors of at most 1.1 %.
    assert np.abs(a.right().mean(0) - b.right().mean(0)).max() < 4.5 * math.sqrt(0.5 / 4000)


def test_accuracy_of_a_ladder_has_the_exact_quantiles_before_and_after_a_shift() -> None:
    """Statement H with its truth: the share passed is monotone in one weight, so the bound is attained."""
    sigma, n = 0.4, 20_000
    x = torch.linspace(0.2, 3.0, 141, dtype=torch.float64).unsqueeze(1)
    votes = poll(ladder(), (x, torch.zeros(141, dtype=torch.int64)), Law(sigma=sigma), n_devices=n)
    certificate = percentile_certificate(votes, shares=(0.5, 0.95), alpha=0.01)

    def true(share: float, rho: float) -> float:
        weight = math.exp(sigma * (float(ndtri(1 - share)) - rho))
        return float((x < weight).double().mean())

    for share, curve in zip(certificate.shares, certificate.bounds, strict=True):
        for rho, bound in zip(certificate.rho, curve, strict=True):
            if bound is None:
                continue
            assert bound <= true(share, rho)
            if rho <= 1:
                assert bound >= true(share, rho) - 0.05


def test_sub_fleets_are_what_they_say() -> None:
    votes = votes_of(np.eye(6, 2, dtype=bool))
    assert [len(v.classes) for v in parts(votes, 3)] == [3, 3]
    assert dataclasses.replace(votes, seed=1).n_inputs == 2
