"""Status and stop advice, from the empty campaign to the used-up budget."""

from pathlib import Path

import numpy as np
import pytest

from ohmloop.campaign import Campaign
from tests.campaign.small import TEXT, filled, own, start


def test_an_empty_campaign_has_a_status(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        status = campaign.status()
        assert (status.n_done, status.n_failed, status.counts) == (0, 0, {})
        assert status.best == {}
        assert status.best_so_far == {"usability": []}
        assert status.budget == {"trials": (0.0, 12)}
        assert status.advice is not None
        assert status.advice.verdict == "go on"
        assert campaign.best() == []


@pytest.mark.parametrize("n", [1, 2])
def test_a_few_results_are_no_ground_for_advice_or_are_said_as_such(tmp_path: Path, n: int) -> None:
    with start(tmp_path) as campaign:
        for k in range(n):
            own(campaign, x=0.5 * k, kind="plain")
            campaign.record(f"T00{k + 1}", values={"usability": 0.1 * (k + 1)}, passed="all")
        status = campaign.status()
        assert status.best["usability"] == (f"T00{n}", pytest.approx(0.1 * n))
        assert status.advice is not None
        assert status.advice.verdict == "go on"
        assert ("too few results" in status.advice.text) == (n == 1)


def test_only_failures_ask_a_person_to_look(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        for k in range(5):
            own(campaign, x=0.1 * k, kind="plain")
            campaign.record(f"T00{k + 1}", failed_at="conducts" if k else "fabricated")
        status = campaign.status()
        assert status.n_failed == status.n_done == 5
        assert status.failures_by_stage == {"fabricated": 1, "conducts": 4}
        assert status.advice is not None
        assert status.advice.verdict == "look"
        assert "All 5 trials failed, 4 of them at conducts" in status.advice.text
        assert campaign.best() == []
        assert len(campaign.suggest(2)) == 2


def test_failures_at_a_stage_that_was_removed_are_still_counted(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        for k in range(5):
            own(campaign, x=0.1 * k, kind="plain")
            campaign.record(f"T00{k + 1}", failed_at="retains")
    (tmp_path / "campaign.toml").write_text(TEXT + '\n[[stages]]\nname = "conducts"\n')
    with Campaign.open(tmp_path) as campaign:
        status = campaign.status()
        assert status.failures_by_stage == {"retains": 5}
        assert status.advice is not None
        assert status.advice.verdict == "look"


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("trials = 5", "5 of 5 trials"),
        ("cost = 30", "50 of 30 cost (EUR)"),
        ("time = 2", "of 2 time (h)"),
    ],
)
def test_a_used_up_budget_says_stop(tmp_path: Path, budget: str, said: str) -> None:
    text = TEXT.replace("trials = 12", budget) + (
        '\n[cost]\nformula = "10"\nunit = "EUR"\n\n[time]\nformula = "1 + x"\nunit = "h"\n'
    )
    with filled(tmp_path, text) as campaign:
        status = campaign.status()
        assert status.advice is not None
        assert status.advice.verdict == "stop"
        assert said in status.advice.text
        assert status.advice.worth  # what is left to gain is said all the same
        assert status.budget["cost (EUR)"][0] == 50.0
        assert status.budget["time (h)"][0] == pytest.approx(7.0)


def test_cost_counts_trials_with_a_result_only(tmp_path: Path) -> None:
    text = TEXT + "\n[cost]\nformula = \"10 if kind == 'doped' else 1\"\n"
    with filled(tmp_path, text) as campaign:
        campaign.suggest(2)
        assert campaign.status(advice=False).budget["cost"] == (23.0, None)


def test_best_so_far_never_falls_and_only_usable_trials_count(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        for k, (value, failed) in enumerate(
            [(0.1, None), (0.9, "endures"), (0.05, None), (0.2, None)]
        ):
            own(campaign, x=0.1 * k, kind="plain")
            campaign.record(
                f"T00{k + 1}", values={"usability": value}, failed_at=failed, passed=None
            )
        status = campaign.status(advice=False)
    assert status.best_so_far["usability"] == [0.1, 0.1, 0.1, 0.2]
    assert status.best["usability"] == ("T004", 0.2)


def test_the_failure_rate_over_time_adds_up_to_all_failures(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        failed = [k % 3 == 0 for k in range(12)]
        for k, bad in enumerate(failed):
            own(campaign, x=k / 12, kind="plain")
            if bad:
                campaign.record(f"T{k + 1:03d}", failed_at="switches")
            else:
                campaign.record(f"T{k + 1:03d}", passed="all")
        status = campaign.status(advice=False)
    sizes = [5, 5, 2]
    rates = [rate for _, rate in status.failure_rate]
    assert [name for name, _ in status.failure_rate] == ["T005", "T010", "T012"]
    assert np.dot(sizes, rates) == pytest.approx(status.n_failed) == 4


def test_advice_says_what_the_next_batch_is_worth(tmp_path: Path) -> None:
    with filled(tmp_path) as campaign:
        advice = campaign.advice()
    (worth,) = advice.worth
    assert worth.objective == "usability"
    assert 0 <= worth.low <= worth.gain <= worth.high
    assert 0 < worth.chance <= 1
    assert "The next 2 trials are expected to improve usability by" in advice.text


def test_no_gain_in_sight_says_stop(tmp_path: Path) -> None:
    text = TEXT.replace("[suggest]", "[suggest]\nstop_below = 1000")
    with filled(tmp_path, text) as campaign:
        advice = campaign.advice()
    assert advice.verdict == "stop"
    assert "below 100000 % of the range" in advice.text


def test_a_space_without_a_recipe_left_asks_a_person_to_look(tmp_path: Path) -> None:
    text = TEXT.replace("step = 0.1", "step = 0.5").replace('"plain", "doped", "mixed"', '"plain"')
    with start(tmp_path, text) as campaign:
        for k in range(3):
            own(campaign, x=0.5 * k, kind="plain")
            campaign.record(f"T00{k + 1}", values={"usability": 0.1}, passed="all")
        assert campaign.advice().verdict == "look"
