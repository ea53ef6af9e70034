"""Records, refusals and abstentions; laws and their calibration; faults, divergences, real chips."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from torch import nn

from ohmloop.certify import (
    Ablation,
    Certificate,
    Draws,
    DriftCertificate,
    Gain,
    Law,
    certify,
    certify_run,
    drift_certificate,
    fault_certificate,
    kl_certificate,
    percentile_certificate,
    poll,
    published_theorem,
    quantile_certificate,
    read_scores,
    read_votes,
    score_certificate,
    statements_on,
    tail_certificate,
    weights_hash,
    yield_certificate,
)
from ohmloop.certify._divergence import shift_divergence
from ohmloop.certify._votes import STREAM
from ohmloop.crossbar import Array, Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import CertifyError, ConversionError
from ohmloop.nn import Deployment, analog_parameters, analogize
from ohmloop.train._setting import OBJECTIVE_SEED
from tests.certify.small import HARD, ONE, X, filled, ladder, pair, ratio, votes_of

LABELS = torch.tensor([0])


def gaussian(sigma: float, **more: object) -> Law:
    return Law(noise="gaussian", sigma=sigma, **more)  # type: ignore[arg-type]


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.fc(x))))


# Refusals.


def test_batch_norm_in_training_mode_is_refused() -> None:
    model = analogize(filled(Normed()).train(), HARD)
    with pytest.raises(CertifyError, match=r"norm normalises by the statistics.*model\.eval\(\)"):
        poll(model, (X.float(), None), HARD, n_devices=3)
    assert poll(model.eval(), (X.float(), None), HARD, n_devices=3).n_devices == 3


def test_batch_norm_without_statistics_is_refused() -> None:
    model = Normed()
    model.norm = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(CertifyError, match="track_running_stats=True"):
        poll(analogize(model.eval(), HARD), (X.float(), None), HARD, n_devices=3)


@pytest.mark.parametrize("law", [Law(sigma=0.0), gaussian(0.0, per_layer=(("a.*", 0.3),))])
def test_noise_missing_on_a_mapped_tensor_is_refused(law: Law) -> None:
    with pytest.raises(
        CertifyError, match=r"(a|b)\.(weight|bias) is on analog hardware, but the law"
    ):
        poll(pair(), (X, None), law, n_devices=3)


def test_digital_model_is_refused() -> None:
    with pytest.raises(ConversionError, match="the model is digital"):
        poll(nn.Linear(3, 2).double(), (X, None), HARD, n_devices=3)


def test_draws_that_tuning_has_used_are_refused() -> None:
    votes = poll(pair(), (X, None), HARD, n_devices=20, seed=3)
    assert votes.seed == 3
    with pytest.raises(CertifyError, match=r"20 of the devices were drawn before.*another seed"):
        poll(pair(), (X, None), HARD, n_devices=20, seed=3, used=[Draws(STREAM + 3, 50)])


def test_certificates_share_no_device_with_searches_or_evaluations() -> None:
    used = [Draws(OBJECTIVE_SEED, 1024), Draws(0, 1000), Draws(10_007, 1000)]
    for seed in range(3):
        poll(pair(), (X, None), HARD, n_devices=500, seed=seed, used=used)


def test_a_finished_run_is_certified_on_draws_of_its_own(tmp_path: Path) -> None:
    from ohmloop.tasks import task
    from ohmloop.train import fit, load_run

    fit(task("iris"), "erm", epochs=2, run_dir=tmp_path / "run")
    run = load_run(tmp_path / "run")
    for certificate in certify_run(run, HARD, n_devices=200, statements=("yield", "drift")):
        assert certificate.n_draws == 200
        assert certificate.weights == weights_hash(run.model)


def test_outputs_that_are_not_finite_are_refused() -> None:
    model = pair()
    with pytest.raises(CertifyError, match="a drawn device gives outputs that are not finite"):
        poll(model, (X, None), Law(sigma=5000.0), n_devices=50)
    with torch.no_grad():
        model.a.bias[0] = float("nan")
    with pytest.raises(CertifyError, match="the digital network gives outputs that are not finite"):
        poll(model, (X, None), HARD, n_devices=3)


def test_empty_data_and_wrong_labels_are_refused() -> None:
    with pytest.raises(CertifyError, match="the data set is empty"):
        poll(pair(), (X[:0], None), HARD)
    with pytest.raises(CertifyError, match="labels of shape"):
        poll(pair(), (X, torch.zeros(1, 3)), HARD)
    with pytest.raises(CertifyError, match="at least two devices"):
        poll(pair(), (X, None), HARD, n_devices=1)


def test_label_rule_without_labels_is_refused() -> None:
    votes = poll(pair(), (X, None), HARD, n_devices=60)
    with pytest.raises(CertifyError, match='the class rule "label" needs the labels'):
        quantile_certificate(votes, rule="label")


@pytest.mark.parametrize(
    ("share", "alpha", "n"), [(0.95, 0.05, 59), (0.99, 0.05, 299), (0.99, 0.01, 459)]
)
def test_too_few_devices_are_refused_with_how_many_it_takes(
    share: float, alpha: float, n: int
) -> None:
    right = np.ones((n - 1, 4), dtype=bool)
    with pytest.raises(CertifyError, match=f"it takes at least {n}"):
        quantile_certificate(votes_of(right), share=share, alpha=alpha)
    right = np.ones((n, 4), dtype=bool)
    assert quantile_certificate(votes_of(right), share=share, alpha=alpha).bound == 1.0


def test_array_hardware_has_yields_but_no_shifts() -> None:
    hardware = Hardware(device="lognormal:0.4", array=Array())
    with pytest.raises(CertifyError, match="this hardware has an array"):
        Law.of(hardware)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(30, 6, generator=generator)
    net = filled(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)))
    model = analogize(net, hardware)
    votes = poll(model, (x, None), hardware, n_devices=40)
    assert votes.classes.shape == (40, 30)
    assert 0.5 < votes.right().mean() < 1
    # Devices differ, and none is the digital network on every input.
    assert len(np.unique(votes.classes, axis=0)) > 20
    found = yield_certificate(votes)
    assert found.law is None
    assert "in arrays of" in found.law_words
    with pytest.raises(CertifyError, match="needs virtual devices under the law on weights"):
        drift_certificate(votes)
    with pytest.raises(CertifyError, match="layers stand in arrays"):
        poll(model, (x, None), Law(sigma=0.4), n_devices=40)


# Abstentions.


def test_it_abstains_where_half_of_the_devices_or_fewer_agree() -> None:
    rng = np.random.default_rng(0)
    right = np.stack([rng.random(200) < p for p in (0.3, 0.5, 0.99)], 1)
    certificate = yield_certificate(votes_of(right))
    assert certificate.abstentions == 2
    assert certificate.covered[0] == 1
    none = yield_certificate(votes_of(right[:, :2]))
    assert none.abstains
    assert none.claim.startswith("No claim")


def test_drift_abstains_at_a_bound_of_one_half_and_gives_no_radius() -> None:
    law = Law(sigma=20.0)  # A coin: the probability is .504.
    certificate = drift_certificate(poll(ratio(), (ONE, None), law, n_devices=500))
    assert certificate.abstains
    assert certificate.radii == (None,)
    assert all(t.amount is None for t in certificate.translations)


# Records.


def test_record_says_what_it_claims_under_which_law(tmp_path: Path) -> None:
    model = pair()
    votes = poll(model, (X, LABELS), Hardware(device="nanowire-07"), n_devices=400, seed=11)
    made: list[Certificate] = [
        yield_certificate(votes),
        quantile_certificate(votes),
        tail_certificate(votes),
        drift_certificate(votes),
        percentile_certificate(votes, shares=(0.5,)),
        kl_certificate(votes),
    ]
    for c in made:
        assert c.statement == ("S3" if c.kind in ("drift", "percentile", "kl") else "S2")
        assert c.weights == weights_hash(model)
        assert len(c.data) == len(c.weights) == 64
        assert (c.n_draws, c.seed, c.alpha, c.n_inputs) == (400, 11, 0.05, 1)
        assert c.law is not None
        assert c.law.device == "nanowire-07"
        assert len(c.law.calibration) == 64
        assert "fixed before any device was drawn" in c.class_rule
        assert set(c.versions) == {"ohmloop", "torch", "numpy", "scipy"}
        assert c.limits
        assert c.multiplicity
        text = json.dumps(c.to_dict(), allow_nan=False)
        assert type(c).model_validate_json(text) == c
        with pytest.raises(ValueError, match="frozen"):
            c.alpha = 0.5  # type: ignore[misc]


def test_s3_says_that_it_is_not_about_one_chip() -> None:
    votes = poll(pair(), (X, LABELS), HARD, n_devices=400)
    for c in (drift_certificate(votes), kl_certificate(votes)):
        assert any("nothing about one given chip" in limit for limit in c.limits)


def test_weights_hash_sees_every_byte() -> None:
    first, second = pair(), pair()
    assert weights_hash(first) == weights_hash(second)
    with torch.no_grad():
        second.b.weight[1, 2] = torch.nextafter(second.b.weight[1, 2], torch.tensor(9.0).double())
    assert weights_hash(first) != weights_hash(second)


def test_same_seed_same_devices_whatever_the_memory_budget() -> None:
    votes = [
        poll(pair(), (X, None), HARD, n_devices=50, memory_budget=m).classes for m in (2**9, 2**29)
    ]
    assert (votes[0] == votes[1]).all()
    other = poll(pair(), (X, None), Law(sigma=1.5), n_devices=500, seed=1)
    assert (other.classes != poll(pair(), (X, None), Law(sigma=1.5), n_devices=500).classes).any()


def test_class_rule_is_the_digital_class_even_where_devices_disagree() -> None:
    # The nominal class of this device's levels is 1, but the digital network says 0.
    device = DeviceModel(name="d", sigma=Estimate(value=0.02), rho=(1.0, 1.0, 0.5))
    votes = poll(ratio(1.3, 0.7), (ONE, None), Hardware(device=device), n_devices=300)
    certificate = yield_certificate(votes)
    assert certificate.classes == (0,)
    assert certificate.lower[0] < 0.05
    assert certificate.abstains


def test_level_table_is_a_nominal_shift_that_is_part_of_the_law() -> None:
    device = DeviceModel(name="d", sigma=Estimate(value=0.2), rho=(1.0, 1.0, 0.8))
    law = Law.of(Hardware(device=device))
    nominal = law.nominal({"w": torch.tensor([1.0, 0.4, 0.0])})["w"]
    assert nominal.tolist() == pytest.approx([0.8, 0.4, 0.0])
    assert Law.of(Hardware(device=device, use_rho=False)).rho is None


# Calibration.


def fitted(low: float | None = 0.2, high: float | None = 0.8) -> Hardware:
    sigma = Estimate(value=0.4, low=low, high=high)
    return Hardware(device=DeviceModel(name="fitted", sigma=sigma))


def test_uncertain_sigma_is_drawn_and_its_spread_is_the_interval() -> None:
    law = Law.of(fitted())
    assert law.calibrated == "predictive"
    sigmas = law.sigma * np.array(law.levels)
    # The middles of 25 equal parts: 2 % to 98 % of the calibration.
    assert sigmas.min() == pytest.approx(0.4 * (0.2 / 0.4) ** (float(ndtri(0.98)) / ndtri(0.975)))
    assert sigmas.max() == pytest.approx(0.4 * (0.8 / 0.4) ** (float(ndtri(0.98)) / ndtri(0.975)))
    assert np.median(sigmas) == pytest.approx(0.4)


def test_predictive_probability_is_the_mean_over_the_calibration() -> None:
    law = Law.of(fitted(0.38, 9.0))
    true = np.mean([ndtr(math.log(1.3) / (math.sqrt(2) * 0.4 * f)) for f in law.levels])
    votes = poll(ratio(1.3), (ONE, None), law, n_devices=10_000)
    share = votes.right().mean()
    assert share == pytest.approx(true, abs=4 * math.sqrt(0.25 / 10_000))
    fixed = poll(
        ratio(1.3), (ONE, None), Law.of(fitted(0.38, 9.0), calibrated="fixed"), n_devices=10_000
    )
    assert abs(fixed.right().mean() - share) > 0.02


def test_shift_under_uncertain_sigma_never_claims_more_than_the_truth() -> None:
    law = Law.of(fitted(0.1, 1.6))
    certificate = drift_certificate(
        poll(ratio(1.6), (ONE, None), law, n_devices=10_000), alpha=0.001
    )
    cells = poll(ratio(1.6), (ONE, None), law, n_devices=2).cells
    assert cells is not None
    for amount in (0.05, 0.1, 0.3):
        # Both weights by the same amount in opposite directions, against the margin.
        true = np.mean(
            [
                ndtr((math.log(1.6) - 2 * amount) / (math.sqrt(2) * law.sigma * f))
                for f in law.levels
            ]
        )
        from ohmloop.certify import shifted

        kept = shifted(certificate.lower, np.array(cells.cost(np.array([-amount, amount]))))
        assert kept[0] <= true


def test_interval_that_is_missing_cannot_be_drawn() -> None:
    with pytest.raises(CertifyError, match="has no 95 % interval"):
        Law.of(fitted(None, None), calibrated="predictive")
    law = Law.of(fitted(), calibrated="fixed")
    votes = poll(pair(), (X, LABELS), law, n_devices=300)
    assert any("0.2 to 0.8, is not covered" in v for v in yield_certificate(votes).limits)
    assert Law.of(fitted(None, None)).calibrated == "fixed"


def test_conventions_are_different_laws() -> None:
    first = Law.of(Hardware(device="lognormal:0.4", convention="median-1"))
    second = Law.of(Hardware(device="lognormal:0.4", convention="mean-1"))
    assert first != second
    # One weight against a fixed threshold sees the difference of the medians, exp(-sigma^2 / 2).
    x = torch.tensor([[0.95]], dtype=torch.float64)
    for law, true in ((first, -math.log(0.95) / 0.4), (second, (-math.log(0.95) - 0.08) / 0.4)):
        share = poll(ladder(), (x, None), law, n_devices=10_000).right().mean()
        assert share == pytest.approx(float(ndtr(true)), abs=4 * math.sqrt(0.25 / 10_000))


def test_meaningless_laws_are_refused() -> None:
    # Raised while a value is built, they come as pydantic's ValidationError, a ValueError too.
    with pytest.raises(ValueError, match="mean-1"):
        gaussian(0.3, convention="mean-1")
    with pytest.raises(ValueError, match="follows the weight by itself"):
        Law(sigma=0.3, spread="following")
    with pytest.raises(ValueError, match="leave out the gain"):
        gaussian(0.3, spread="following", gain=Gain(group="layer", tau=0.1))


# Common gains.


def test_common_gain_is_as_certain_as_its_law() -> None:
    """Statement C with its truth: a ladder sees one weight, whose layer drifts as a whole."""
    x = torch.tensor([[0.6]], dtype=torch.float64)
    law = Law(sigma=0.2, gain=Gain(group="layer", tau=0.5))
    certificate = drift_certificate(poll(ladder(), (x, None), law, n_devices=10_000), alpha=0.001)
    p = float(ndtr(-math.log(0.6) / math.sqrt(0.2**2 + 0.5**2)))
    layer = next(
        t for t in certificate.translations if t.what.startswith("layer") and t.keep == 0.5
    )
    assert layer.amount is not None
    exact = math.sqrt(0.2**2 + 0.5**2) * float(ndtri(p))
    assert 0.9 * exact < layer.amount <= exact


# Deployments.


def test_deployment_is_part_of_the_device() -> None:
    model = filled(nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)))
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    analogize(model, HARD)
    law = Law(sigma=0.8)
    plain = poll(model, (x, None), law, n_devices=200)
    deployed = Deployment.parse("channel:samples=32")
    better = poll(model, (x, None), law, n_devices=200, deployment=deployed, unlabelled=x)
    assert drift_certificate(better).deployment == "channel:samples=32"
    assert better.right().mean() > plain.right().mean() + 0.02


def test_box_with_a_deployment_is_refused() -> None:
    with pytest.raises(CertifyError, match="the box is about the network alone"):
        certify(
            pair(),
            (X, None),
            HARD,
            statements=("box",),
            deployment=Deployment.parse("channel:samples=4"),
            unlabelled=X.repeat(4, 1),
        )


# Faults.


def test_faults_keep_what_enumeration_says() -> None:
    """Statement E against all masks: a column that does anything costs at most 1 - q^r."""
    q, n_columns = 0.7, 4
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]]))
        model[1].weight.copy_(torch.tensor([[0.5, 0.5], [-1.0, -1.0]]))
    analogize(model.eval(), HARD)
    x = torch.ones(1, 3, dtype=torch.float64)
    law = Law(sigma=1e-6, ablation=Ablation(group="column", probability=q))

    def exact(change: dict[int, float]) -> float:
        total = 0.0
        for mask in itertools.product((0, 1), repeat=n_columns):
            w0, w1 = (model[k].weight.detach().clone() for k in (0, 1))
            for column, value in change.items():
                (w0 if column < 2 else w1)[column % 2] = value
            w0 *= torch.tensor(mask[:2]).unsqueeze(1)
            w1 *= torch.tensor(mask[2:]).unsqueeze(1)
            out = (w1 @ (w0 @ x[0])).numpy()
            total += float(out.argmax() == 0) * q ** (4 - sum(mask)) * (1 - q) ** sum(mask)
        return total

    votes = poll(model, (x, None), law, n_devices=10_000)
    certificate = fault_certificate(votes, alpha=0.001)
    p = exact({})
    assert votes.right().mean() == pytest.approx(p, abs=4 * math.sqrt(0.25 / 10_000))
    worst = min(exact({c: v}) for c in range(4) for v in (-50.0, 50.0, 0.0))
    assert float(certificate.kept(1)[0]) <= worst < p
    pairs = itertools.combinations(range(4), 2)
    worst = min(exact({a: v, b: w}) for a, b in pairs for v in (-50, 50) for w in (-50, 50))
    assert float(certificate.kept(2)[0]) <= worst
    r = certificate.faults[0]
    assert r is not None
    assert certificate.lower[0] - (1 - q**r) > 0.5
    assert certificate.lower[0] - (1 - q ** (r + 1)) <= 0.5


def test_faults_need_a_law_that_hides_them() -> None:
    votes = poll(pair(), (X, None), HARD, n_devices=60)
    with pytest.raises(CertifyError, match=r"Ablation\(group"):
        fault_certificate(votes)


@pytest.mark.parametrize(
    ("f", "p1", "p2", "theta", "changes"),
    [
        (1.0, 0.9, 0.0, 17_610, 6),  # ln 2 / -ln .9 = 6.58
        (0.9, 0.5, 0.0, 17_610, 0),  # ln(1 / .6) / ln 2 = .74
        (1.0, 0.9, 0.7 / 17_610, 17_610, 0),  # beyond .69 / Theta it is negative
    ],
)
def test_published_theorem_with_its_numbers(
    f: float, p1: float, p2: float, theta: int, changes: int
) -> None:
    found = published_theorem(f, p1, p2, theta)
    rest = math.log(1 - p2)
    assert found.bound == pytest.approx(
        (math.log(1.5 - f) - theta * rest) / (math.log(p1) - rest), rel=1e-9
    )
    assert found.changes == changes
    assert found.abstains is (changes == 0)
    assert any("does not cover log-normal drift" in limit for limit in found.limits)


# Divergences.


def test_divergence_of_a_shift_is_that_of_normal_laws() -> None:
    assert shift_divergence(Law(sigma=0.4), 0.2, 0.4) == pytest.approx(0.125)
    following = shift_divergence(gaussian(0.4, spread="following"), 0.2, 0.4)
    p = torch.distributions.Normal(1.0, 0.4)
    q = torch.distributions.Normal(1.2, 0.48)
    assert following == pytest.approx(float(torch.distributions.kl_divergence(q, p)), rel=1e-6)


def test_divergence_certificate_holds_for_a_wrong_sigma() -> None:
    law = Law(sigma=0.2)
    certificate = kl_certificate(poll(ratio(1.4), (ONE, None), law, n_devices=10_000), alpha=0.001)
    for factor in (1.1, 1.5, 2.0):
        divergence = 2 * (-math.log(factor) + (factor**2 - 1) / 2)
        true = float(ndtr(math.log(1.4) / (math.sqrt(2) * 0.2 * factor)))
        assert float(certificate.kept(divergence)[0]) <= true
    row = next(t for t in certificate.translations if t.what == "sigma of all cells")
    assert row.amount is not None
    grown = 1 + row.amount
    true = float(ndtr(math.log(1.4) / (math.sqrt(2) * 0.2 * grown)))
    assert true >= 0.5


def test_divergence_of_a_mean_shift_claims_less_than_the_shift_itself() -> None:
    votes = poll(ratio(1.4), (ONE, None), Law(sigma=0.2), n_devices=2000)
    drift, kl = drift_certificate(votes), kl_certificate(votes)
    one = next(t for t in drift.translations if t.cells == 1 and t.keep == 0.5)
    other = next(t for t in kl.translations if t.what == "one cell")
    assert one.amount is not None
    assert other.amount is not None
    assert other.amount < one.amount


# Real chips.


def test_real_chips_need_no_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20)
    wrong = rng.random((80, 20)) < 0.1
    table = np.where(wrong, (labels + 1) % 3, labels)
    path = tmp_path / "chips.csv"
    head = "chip," + ",".join(f"image {k}" for k in range(20))
    rows = [f"c{k}," + ",".join(map(str, row)) for k, row in enumerate(table)]
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    votes = read_votes(path, labels=labels)
    assert (votes.classes == table).all()
    certificate = quantile_certificate(votes)
    assert certificate.law is None
    assert certificate.bound == np.sort((~wrong).mean(1))[0]
    assert "95 of 100 chips classify at least" in certificate.claim
    with pytest.raises(CertifyError, match="needs virtual devices under the law"):
        drift_certificate(read_votes(path, digital=labels))


def test_scores_of_real_chips(tmp_path: Path) -> None:
    path = tmp_path / "chips.csv"
    path.write_text("chip,accuracy\n" + "".join(f"{k},{0.8 + k / 1000}\n" for k in range(59)))
    scores = read_scores(path)
    assert score_certificate(scores, score="accuracy", noun="chips").claim == (
        "With 95 % confidence: 95 of 100 chips classify at least 80 % of the inputs right."
    )
    with pytest.raises(CertifyError, match="no column 'R2'"):
        read_scores(path, "R2")


def test_an_error_is_bounded_from_above() -> None:
    errors = np.linspace(0.1, 0.2, 59)
    found = score_certificate(errors, score="perplexity", is_higher_better=False)
    assert found.bound == 0.2
    assert "at most 0.2" in found.claim


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n", "holds no chip"),
        ("a,b\n1\n", "line 2 has 1 cells"),
        ("a,b\n1,x\n", "whole numbers"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "chips.csv"
    path.write_text(text)
    with pytest.raises(CertifyError, match=match):
        read_votes(path)
    with pytest.raises(CertifyError, match="cannot be read"):
        read_votes(tmp_path / "absent.csv")


# All at once.


def test_certify_makes_what_is_asked() -> None:
    made = certify(
        pair(),
        (X, LABELS),
        HARD,
        statements=("published", "yield", "percentile", "drift", "kl", "box"),
        n_devices=800,
    )
    assert [c.kind for c in made] == [
        "published",
        "yield",
        "quantile",
        "quantile",
        "tail",
        "percentile",
        "drift",
        "kl",
        "box",
    ]
    with pytest.raises(CertifyError, match="no statement drfit"):
        certify(pair(), (X, LABELS), HARD, statements=("drfit",))  # type: ignore[arg-type]


def test_shares_of_the_inputs_fall_with_the_shift() -> None:
    model = analogize(filled(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))), HARD)
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    found = drift_certificate(poll(model, (x, None), HARD, n_devices=400))
    assert isinstance(found, DriftCertificate)
    for curve in found.curves:
        assert (np.diff(curve.inputs) <= 0).all()
    for lower, higher in itertools.pairwise(found.curves):
        assert all(a >= b for a, b in zip(lower.inputs, higher.inputs, strict=True))
    assert round(30 * found.curves[0].inputs[0]) == 30 - found.abstentions
    assert len(analog_parameters(model)) == 4


def test_on_an_array_what_shifts_all_devices_of_a_law_is_left_out() -> None:
    law = Hardware(device="lognormal:0.2")
    array = Hardware(device="lognormal:0.2", array=Array())
    assert statements_on(law) == ("yield", "percentile", "drift")
    assert statements_on(array) == ("yield",)
    assert statements_on(array, ("drift", "quantile")) == ("quantile",)
    # Asked for alone it stays, so that the reason is said.
    assert statements_on(array, ("drift",)) == ("drift",)
