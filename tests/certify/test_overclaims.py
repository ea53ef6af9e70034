"""Claims that would be a little too large: each test states the truth that the record must stay below."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import nn

from ohmloop.certify import (
    Ablation,
    Gain,
    Law,
    box_certificate,
    box_words,
    certify,
    certify_chips,
    drift_certificate,
    fault_certificate,
    kl_certificate,
    percentile_certificate,
    poll,
    read_votes,
    score_certificate,
    tail_certificate,
    yield_certificate,
)
from ohmloop.certify._bounds import clopper_pearson, needed_before, shifted
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import CertifyError
from ohmloop.nn import Deployment, analogize
from tests.certify.small import HARD, ONE, X, filled, pair, ratio, votes_of

SKEWED = (1.0, 4.0)
"""Levels of a sigma that may be much larger than its estimate, never smaller."""


def test_gain_does_not_grow_with_sigma_and_shifts_of_it_cost_no_less() -> None:
    law = Law(sigma=0.05, levels=SKEWED, gain=Gain(group="chip", tau=0.5))
    votes = poll(pair(), (X, None), law, n_devices=1000)
    assert votes.cells is not None
    everywhere = np.ones(votes.cells.n)
    unit = np.array(votes.cells.cost(everywhere))
    # tau dominates: what is one deviation at level 1 is nearly one at level 4 too.
    assert unit[1] / unit[0] > 0.95
    certificate = drift_certificate(votes)
    for rho in (0.5, 1.0, 2.0):
        least = shifted(certificate.lower, rho * unit / unit[0])
        assert (certificate.kept(rho) <= least + 1e-12).all()
    (radius,) = certificate.radii
    assert radius is not None
    assert shifted(certificate.lower, 1.001 * radius * unit / unit[0])[0] > 0.5 - 0.05
    assert shifted(certificate.lower, radius * unit / unit[0])[0] >= 0.5 - 1e-9
    needs = np.array([needed_before(0.5, rho * unit / unit[0]) for rho in certificate.rho[1:]])
    assert not np.any(
        (np.array(certificate.curves[0].inputs[1:]) > 0) & (certificate.lower < needs)
    )


def test_curve_of_accuracies_counts_what_a_common_shift_costs_at_every_level() -> None:
    law = Law(sigma=0.05, levels=SKEWED, gain=Gain(group="chip", tau=0.5))
    right = np.arange(4000)[:, None] >= np.arange(0, 4000, 40)[None]
    votes = poll(pair(), (X, torch.tensor([0])), law, n_devices=2)
    assert votes.cells is not None
    unit = np.array(votes.cells.cost(np.ones(votes.cells.n)))
    ranked = votes_of(right)
    fleet = type(votes)(**{**votes.__dict__, "classes": ranked.classes, "labels": ranked.labels})
    found = percentile_certificate(fleet, shares=(0.5,))
    at = found.rho.index(1.0)
    (curve,) = found.bounds
    bound = curve[at]
    assert bound is not None
    # The exact share that reaches the bound must be enough before the shift.
    assert (fleet.scores("label") >= bound).mean() >= needed_before(0.5, unit / unit[0])


def test_cost_at_every_level_is_taken_as_it_is() -> None:
    law = Law(sigma=0.1, levels=SKEWED)
    votes = poll(pair(), (X, None), law, n_devices=500)
    assert votes.cells is not None
    delta = np.full(votes.cells.n, 0.05)
    certificate = drift_certificate(votes)
    cost = votes.cells.cost(delta)
    assert certificate.kept(cost) == pytest.approx(shifted(certificate.lower, cost))
    assert certificate.kept(cost) == pytest.approx(certificate.kept(cost[0]))
    with pytest.raises(CertifyError, match="one for each of the law's 2 levels"):
        certificate.kept((1.0, 1.0, 1.0))


def test_same_shift_in_all_arrays_costs_more_than_in_one() -> None:
    one, four = (
        poll(pair(), (X, None), Law(sigma=0.3), n_devices=2, deployment=Deployment(arrays=k)).cells
        for k in (1, 4)
    )
    assert one is not None
    assert four is not None
    delta = np.full(one.n, 0.1)
    assert four.cost(delta)[0] == pytest.approx(2 * one.cost(delta)[0])
    assert four.cost(delta)[0] == pytest.approx(0.1 * four.shifts()[-1].costs[0])


def test_larger_sigma_moves_the_centre_of_mean_1_noise_too() -> None:
    sigma = 0.9
    law = Law(sigma=sigma, convention="mean-1")
    certificate = kl_certificate(poll(ratio(9.0), (ONE, None), law, n_devices=3000))
    row = next(t for t in certificate.translations if t.what == "sigma of all cells")
    (room,) = certificate.divergences
    assert row.amount is not None
    assert room is not None
    grown = sigma * (1 + row.amount)
    p = torch.distributions.Normal(-(sigma**2) / 2, sigma)
    q = torch.distributions.Normal(-(grown**2) / 2, grown)
    assert 2 * float(torch.distributions.kl_divergence(q, p)) <= room * (1 + 1e-6)


@pytest.mark.slow
def test_whole_claim_of_a_yield_is_false_with_alpha_at_most() -> None:
    # Two inputs that never fail together: three statements, and a false one is hardly a false other.
    alpha, n, repetitions = 0.5, 400, 2000
    kinds = np.array([[True, True], [True, False], [False, True]])
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(repetitions):
        right = kinds[rng.choice(3, size=n, p=(0.8, 0.1, 0.1))]
        found = yield_certificate(votes_of(right), alpha=alpha)
        false += max(found.lower) > 0.9 or found.joint > 0.8
    # Within 3 standard errors.
    assert false / repetitions <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repetitions)
    single = votes_of(np.ones((30, 1), dtype=bool))
    assert yield_certificate(single).lower == (yield_certificate(single).joint,)
    assert yield_certificate(single).joint == clopper_pearson(30, 30, 0.05)


def test_words_never_round_a_score_to_the_better_side() -> None:
    high = score_certificate([0.123456] * 59, score="R2")
    assert "at least 0.1234." in high.claim
    low = score_certificate([0.123412] * 59, score="loss", is_higher_better=False)
    assert "at most 0.1235." in low.claim
    assert "at least -0.1235." in score_certificate([-0.12345] * 59, score="R2").claim
    assert "at least 0.2." in score_certificate([0.2] * 59, score="R2").claim


def test_words_never_round_a_box_up() -> None:
    assert "off by 2.3 % at once" in box_words(0.02399)
    assert "off by 29 % at once" in box_words(0.29)
    assert f"factor of up to {1.105:g} at once" in box_words(0.1004, kind="log")
    assert math.exp(0.1004) > 1.1055


def test_shares_of_devices_are_rounded_down() -> None:
    claim = score_certificate([0.5] * 40, share=0.9 + 1e-9, score="accuracy").claim
    assert "90 of 100 devices" in claim
    claim = score_certificate([0.5] * 59, share=0.949999999, score="accuracy").claim
    assert "94.9999 of 100 devices" in claim


def test_worst_devices_of_a_small_fleet_get_no_claim() -> None:
    found = tail_certificate(votes_of(np.ones((10, 5), dtype=bool)), tail=0.05)
    assert found.bound == 0
    assert found.abstains


def test_accuracies_in_percent_and_chips_that_count_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chips.csv"
    path.write_text("chip,accuracy\n" + "".join(f"{k},95.5\n" for k in range(59)))
    with pytest.raises(CertifyError, match="Divide percentages by 100"):
        certify_chips(path)
    path.write_text("chip,accuracy\n" + "1,0.95\n" * 59)
    with pytest.raises(CertifyError, match="a chip stands in several rows"):
        certify_chips(path)
    with pytest.raises(CertifyError, match="a chip stands in several rows"):
        read_votes(path)


def test_deployment_is_set_up_after_the_shift_and_the_record_says_so() -> None:
    model = analogize(filled(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))), HARD)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))
    votes = poll(
        model,
        (x, torch.zeros(20, dtype=torch.long)),
        HARD,
        n_devices=600,
        deployment=Deployment.parse("channel:samples=8"),
        unlabelled=x,
    )
    for found in (drift_certificate(votes), percentile_certificate(votes, shares=(0.5,))):
        assert any("set up after the shift" in text for text in found.limits)
    plain = drift_certificate(poll(model, (x, None), HARD, n_devices=100))
    assert not any("after the shift" in text for text in plain.limits)


def test_sigma_for_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CertifyError, match=r"per_layer names 'c\.\*'"):
        poll(pair(), (X, None), Law(sigma=0.1, per_layer=(("c.*", 0.5),)), n_devices=3)


def test_gain_without_noise_of_the_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="a gain is the only noise"):
        Law(sigma=0.0, gain=Gain(group="layer", tau=0.1))


def test_layers_that_two_devices_leave_out_are_not_taken_for_noiseless() -> None:
    law = Law(sigma=0.1, ablation=Ablation(group="layer", probability=0.95))
    for seed in range(3):
        votes = poll(pair(), (X, None), law, n_devices=20, seed=seed)
        assert fault_certificate(votes).abstentions in (0, 1)
    with pytest.raises(CertifyError, match="puts no noise on it"):
        poll(pair(), (X, None), law.model_copy(update={"sigma": 0.0}), n_devices=20)


def test_box_stands_where_the_level_table_puts_the_weights() -> None:
    table = DeviceModel(name="steps", sigma=Estimate(value=0.1), rho=(1.0, 0.5, 0.9))
    hardware = Hardware(device=table)
    given = (X, torch.tensor([0]))
    (by_law,) = certify(pair(), given, Law.of(hardware), statements=("box",))
    (by_hardware,) = certify(pair(), given, hardware, statements=("box",))
    (plain,) = certify(pair(), given, Law(sigma=0.1), statements=("box",))
    assert by_law.to_dict() == by_hardware.to_dict()
    assert any("level table of steps" in text for text in by_law.limits)
    assert any("at the trained weights." in text for text in plain.limits)
    assert by_law.radii != plain.radii  # type: ignore[attr-defined]  # both are BoxCertificate


def test_box_for_labels_needs_labels() -> None:
    with pytest.raises(CertifyError, match='"label" needs the labels'):
        box_certificate(pair(), (X, None), rule="label")


class Tied(nn.Module):
    """One matrix at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        self.b = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        self.b.weight = self.a.weight
        nn.init.ones_(self.a.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.b(self.a(x)), torch.full_like(x, 0.7)], 1)


def test_tied_weights_are_one_cell_that_is_noisy_at_both_places() -> None:
    # Class 0 where w^2 > 0.7: of two cells the logarithms would add as squares, of a free one not at all.
    sigma = 0.4
    votes = poll(analogize(Tied().eval(), HARD), (ONE, None), Law(sigma=sigma), n_devices=20_000)
    assert votes.cells is not None
    assert votes.cells.n == 1
    true = float(ndtr(-math.log(0.7) / (2 * sigma)))
    assert votes.right().mean() == pytest.approx(
        true, abs=4 * math.sqrt(true * (1 - true) / 20_000)
    )
