"""What happens late in a campaign: rolled twice, undone twice, changed costs, tables with holes."""

from pathlib import Path

import pytest

from ohmloop.campaign import load_replay, parse_config, replay
from ohmloop.errors import CampaignError
from tests.campaign.small import TEXT, filled, own, rewrite, start

COST = """
[variables.gas]
type = "categorical"
options = ["N2", "Ar"]
when = { kind = ["doped"] }

[cost]
formula = "10 + 5 * x + (4 if gas == 'Ar' else 0)"
unit = "EUR"
"""


def test_what_was_rolled_away_after_the_last_result_does_not_come_back(tmp_path: Path) -> None:
    text = TEXT.replace("step = 0.1", "step = 0.5").replace(
        'options = ["plain", "doped", "mixed"]', 'options = ["plain"]'
    )
    with start(tmp_path / "c", text) as campaign:
        (first,) = campaign.suggest(1)
        left = [x for x in (0.0, 0.5, 1.0) if x != first.recipe["x"]]
        made = own(campaign, x=left[0], kind="plain")
        campaign.record(made.id, values={"usability": 0.2})
        campaign.reroll(first.id)
        assert {t.recipe["x"] for t in campaign.trials.values() if t.is_open} == {left[1]}
        with pytest.raises(CampaignError, match="every recipe"):
            campaign.suggest(1)


def test_a_roll_keeps_what_its_batch_was_held_at(tmp_path: Path) -> None:
    with start(tmp_path / "c") as campaign:
        (first,) = campaign.suggest(1, pin={"kind": "doped"})
        (second,) = campaign.reroll(first.id, first.id)
        assert second.recipe["kind"] == "doped"


def test_cost_of_a_recipe_without_a_variable_is_counted(tmp_path: Path) -> None:
    with start(tmp_path / "c", TEXT + COST) as campaign:
        for kind, more in (("plain", {}), ("doped", {"gas": "Ar"})):
            campaign.record(own(campaign, x=1.0, kind=kind, **more).id, failed_at="conducts")
        assert campaign.status(advice=False).budget["cost (EUR)"][0] == pytest.approx(15 + 19)
        changed = TEXT + COST.replace("5 * x", "5 * w")
        changed += '\n[variables.w]\ntype = "continuous"\nlow = 0\nhigh = 1\nformer = 0.5\n'
        campaign = rewrite(campaign, changed)
        assert campaign.status(advice=False).budget["cost (EUR)"][0] == pytest.approx(12.5 + 16.5)
        campaign.close()


def test_a_result_that_comes_back_by_undo_closes_its_trial(tmp_path: Path) -> None:
    with start(tmp_path / "c") as campaign:
        made = own(campaign, x=0.5, kind="plain")
        campaign.record(made.id, values={"usability": 0.2})
        campaign.undo()
        campaign.reject(made.id, "lost")
        undone = next(e.id for e in campaign.state.history if e.kind == "undone")
        campaign.undo(undone)
        assert campaign.trials[made.id].status == "done"
        assert not campaign.trials[made.id].is_open


def test_values_that_no_measurement_has_are_refused(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as campaign:
        made = own(campaign, x=0.9, kind="plain")
        with pytest.raises(CampaignError, match="too large"):
            campaign.record(made.id, values={"usability": 1e200})
        assert campaign.suggest(1)
    with pytest.raises(CampaignError, match="turn the goal round"):
        parse_config(TEXT.replace('name = "usability"', 'name = "u"\nscale = "log"\nnegate = true'))


def test_advice_speaks_of_the_recipes_that_are_left(tmp_path: Path) -> None:
    text = TEXT.replace("step = 0.1", "step = 0.25").replace(
        'options = ["plain", "doped", "mixed"]', 'options = ["plain"]'
    )
    with start(tmp_path / "c", text.replace("batch = 2", "batch = 4")) as campaign:
        for x in (0.0, 0.25, 0.5):
            made = own(campaign, x=x, kind="plain")
            campaign.record(made.id, values={"usability": x})
        advice = campaign.status().advice
        assert advice is not None
        assert "the next 2 trials" in advice.text.lower()


def test_a_table_with_failed_rows_is_replayed(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text(
        "x,kind,ok,usability\n"
        + "".join(f"{k / 10},plain,{int(k > 2)},{k / 10 if k > 2 else ''}\n" for k in range(11))
    )
    settings = TEXT + "\n[[stages]]\nname = 'works'\npasses_when = 'ok == 1'\n"
    settings += "\n[replay]\ntable = 'lab.csv'\nexperiments = 11\ninitial = 3\ntop = 1\n"
    (tmp_path / "lab.toml").write_text(settings)
    table, runs = replay(str(tmp_path / "lab.toml"), methods=["ohmloop", "random"], n_seeds=1)
    assert table.outcome().max() == 1.0
    assert table.outcome()[0] == pytest.approx(0.3)  # a failed recipe counts like the worst
    assert all(run.order[-1] == 10 for run in runs)
    (tmp_path / "lab.csv").write_text("x,kind,ok,usability\n0.1,plain,1,high\n")
    with pytest.raises(CampaignError, match="usability"):
        load_replay(str(tmp_path / "lab.toml"))
