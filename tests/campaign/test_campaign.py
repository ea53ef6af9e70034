"""The lab's loop: a person decides, everything is in the log, and nothing refused comes back."""

import math
from pathlib import Path

import pytest

from ohmloop.campaign import Campaign
from ohmloop.errors import CampaignError, StoreError
from tests.campaign.small import CONTEXT, TEXT, filled, own, rewrite, start


def recipes(trials: list) -> list[tuple]:  # type: ignore[type-arg]
    return [tuple(sorted(t.recipe.items())) for t in trials]


# -- opening ------------------------------------------------------------------------------------


def test_a_new_campaign_needs_settings_and_names_the_templates(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="perovskite-nanowires, spin-coated-films"):
        Campaign.new(tmp_path / "lab")
    with pytest.raises(CampaignError, match=r'no template "perovskite".*Did you mean'):
        Campaign.new(tmp_path / "lab", template="perovskite")
    assert not (tmp_path / "lab" / "campaign.db").exists()


def test_settings_of_ones_own_are_used_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "campaign.toml").write_text(TEXT)
    with pytest.raises(CampaignError, match="exists already"):
        Campaign.new(tmp_path, template="perovskite-nanowires")
    with Campaign.new(tmp_path) as campaign:
        assert campaign.config.name == "Small"
    with pytest.raises(StoreError, match="holds a campaign already"):
        Campaign.new(tmp_path)


def test_wrong_settings_leave_the_data_and_say_what_is_wrong(tmp_path: Path) -> None:
    campaign = filled(tmp_path)
    with pytest.raises(CampaignError, match=r'"variables.x.stepp" is no setting.*"step"'):
        rewrite(campaign, TEXT.replace("step = 0.1", "stepp = 0.1"))
    with rewrite(campaign, TEXT) as again:
        assert len(again.trials) == 5


# -- suggesting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 12])
def test_a_batch_of_any_size_holds_different_recipes_in_the_space(tmp_path: Path, q: int) -> None:
    with start(tmp_path) as campaign:
        trials = campaign.suggest(q)
        assert len(set(recipes(trials))) == q
        assert not any(campaign.outside(t.recipe) for t in trials)
        assert [t.id for t in trials] == [f"T{k:03d}" for k in range(1, q + 1)]


def test_pending_trials_are_not_suggested_a_second_time(tmp_path: Path) -> None:
    with filled(tmp_path) as campaign:
        first = campaign.suggest(3)
        second = campaign.suggest(3)
        assert not set(recipes(first)) & set(recipes(second))


def test_every_recipe_of_a_space_is_suggested_once_and_then_it_is_said(tmp_path: Path) -> None:
    text = TEXT.replace("step = 0.1", "step = 0.5")  # 3 x 3 recipes
    with start(tmp_path, text) as campaign:
        assert len(set(recipes(campaign.suggest(9)))) == 9
        with pytest.raises(CampaignError, match=r"no recipe|every|left"):
            campaign.suggest(1)


def test_a_suggestion_carries_reasons_that_a_fabricator_reads(tmp_path: Path) -> None:
    from ohmloop.campaign import sentences

    with filled(tmp_path) as campaign:
        (trial,) = campaign.suggest(1)
        text = " ".join(sentences(campaign.config, trial.reasons))
    assert "Expected usability: " in text
    assert "with 90 % between" in text
    assert "Chance of a usable device: " in text
    assert "Nearest trial: T00" in text
    low, median, high = (
        trial.reasons["predictions"]["usability"][k] for k in ("low", "median", "high")
    )
    assert low < median < high
    assert 0 < trial.reasons["usable"] < 1


def test_the_seed_decides_a_suggestion(tmp_path: Path) -> None:
    batches = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        with start(tmp_path / name) as campaign:
            batches.append(recipes(campaign.suggest(3, seed=seed)))
    assert batches[0] == batches[1] != batches[2]


def test_context_values_are_asked_for_and_held(tmp_path: Path) -> None:
    with start(tmp_path, TEXT + CONTEXT) as campaign:
        with pytest.raises(
            CampaignError, match=r"humidity: measured on the day.*--context humidity="
        ):
            campaign.suggest()
        with pytest.raises(CampaignError, match='"x" is chosen, not measured'):
            campaign.suggest(context={"x": 0.3})
        trials = campaign.suggest(context={"humidity": "41"})
        assert [t.recipe["humidity"] for t in trials] == [41.0, 41.0]
        again = campaign.reroll(trials[0].id)  # the weather is still the same
        assert again[0].recipe["humidity"] == 41.0
        campaign.record(trials[1].id, values={"usability": 0.1})
        own(campaign, x=0.5, kind="plain", humidity=30)
        campaign.record("T004", values={"usability": 0.2})
        assert campaign.advice().verdict == "go on"


# -- deciding -----------------------------------------------------------------------------------


def test_accept_reject_and_edit_change_where_a_trial_stands(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(3)
        assert campaign.accept("T001").status == "accepted"
        rejected = campaign.reject("2", "furnace is down")
        assert (rejected.status, rejected.note) == ("rejected", "furnace is down")
        edited = campaign.edit("t3", x=0.35, kind="doped")
        assert edited.status == "accepted"
        assert edited.recipe == {"x": 0.35, "kind": "doped"}
        assert campaign.outside(edited.recipe) == ['"x" = 0.35 is not on its steps']


def test_an_edit_may_leave_the_space_and_says_so(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(1)
        campaign.edit("T001", x=7, kind="dopd")
        said = campaign.outside(campaign.trials["T001"].recipe)
        assert len(said) == 2
        assert 'Did you mean "doped"?' in said[0]
        assert "lies outside 0 to 1" in said[1]
        assert campaign.suggest(1)


def test_an_edit_of_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(1)
        with pytest.raises(CampaignError, match=r'"knd" is no variable.*Did you mean "kind"'):
            campaign.edit("T001", knd="doped")
        with pytest.raises(CampaignError, match='x: "thick" is no number'):
            campaign.edit("T001", x="thick")
        with pytest.raises(CampaignError, match='no trial "T9"; the latest are: T001'):
            campaign.accept("T9")


def test_a_trial_with_results_is_not_decided_again(tmp_path: Path) -> None:
    with filled(tmp_path) as campaign:
        event = campaign.trials["T001"].records[-1].event
        with pytest.raises(CampaignError, match=f"has results already.*undo {event}"):
            campaign.reject("T001")


def test_a_rejected_recipe_is_never_proposed_again(tmp_path: Path) -> None:
    text = TEXT.replace("step = 0.1", "step = 0.5")
    with start(tmp_path, text) as campaign:
        refused = campaign.suggest(2)
        for trial in refused:
            campaign.reject(trial.id)
        rest = campaign.suggest(7)
        assert not set(recipes(refused)) & set(recipes(rest))
        campaign.record(rest[0].id, failed_at="conducts")
        with pytest.raises(CampaignError):  # nothing but the two rejected ones is left
            campaign.suggest(1)


def test_a_withdrawn_recipe_comes_back_only_after_a_new_result(tmp_path: Path) -> None:
    text = TEXT.replace("step = 0.1", "step = 0.5")
    with start(tmp_path, text) as campaign:
        first = campaign.suggest(1)
        second = campaign.reroll()
        assert campaign.trials["T001"].status == "withdrawn"
        rest = campaign.suggest(7)
        assert not set(recipes(first)) & set(recipes(second + rest))
        with pytest.raises(CampaignError):
            campaign.suggest(1)
        campaign.record(rest[0].id, failed_at="conducts")
        assert recipes(campaign.suggest(1)) == recipes(first)


def test_only_open_suggestions_are_rolled_again(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        with pytest.raises(CampaignError, match="no open suggestion"):
            campaign.reroll()
        campaign.suggest(1)
        campaign.accept("T001")
        with pytest.raises(CampaignError, match="T001 is accepted; only a suggestion"):
            campaign.reroll("T001")


def test_a_pin_holds_in_every_suggestion_until_it_is_taken_off(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.pin("kind", "mixed")
        campaign.pin("x", "0.3")
        assert campaign.state.pins == {"kind": "mixed", "x": 0.3}
        campaign.unpin("x")
        trials = campaign.suggest(4)
        assert {t.recipe["kind"] for t in trials} == {"mixed"}
        assert len({t.recipe["x"] for t in trials}) == 4
        (one,) = campaign.suggest(1, pin={"x": 0.95})  # of this batch only
        assert (one.recipe["x"], campaign.state.pins) == (0.95, {"kind": "mixed"})
        with pytest.raises(CampaignError, match='"brittle" is no option of "kind"'):
            campaign.pin("kind", "brittle")
        with pytest.raises(CampaignError, match='"x" is not pinned; pinned: kind'):
            campaign.unpin("x")


def test_an_experiment_of_ones_own_may_leave_the_space_and_is_learned_from(tmp_path: Path) -> None:
    with filled(tmp_path) as campaign:
        made, outside = campaign.add({"x": 1.7, "kind": "gold"}, note="a hunch")
        assert (made.origin, made.status, made.note) == ("own", "accepted", "a hunch")
        assert len(outside) == 2
        campaign.record(made.id, values={"usability": 0.9}, passed="all")
        assert campaign.best()[0][0].id == made.id
        (trial,) = campaign.suggest(1)
        assert campaign.outside(trial.recipe) == []
        with pytest.raises(CampaignError, match="missing: kind"):
            campaign.add({"x": 0.5})


# -- undo ---------------------------------------------------------------------------------------


def test_undo_takes_the_last_event_back_and_undo_of_the_undo_restores_it(tmp_path: Path) -> None:
    with filled(tmp_path) as campaign:
        before = campaign.trials["T005"]
        target = campaign.undo()
        assert target.kind == "recorded"
        assert campaign.trials["T005"].status == "accepted"
        assert not campaign.trials["T005"].records
        campaign.undo(campaign.state.last_event)  # the undo itself
        assert campaign.trials["T005"] == before
        kinds = [event.kind for event in campaign.state.history[-3:]]
        assert kinds == ["recorded", "undone", "undone"]


def test_undo_goes_back_step_by_step(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(1)
        campaign.accept("T001")
        assert [campaign.undo().kind for _ in range(2)] == ["accepted", "suggested"]
        assert campaign.trials == {}
        with pytest.raises(CampaignError, match="nothing to undo"):
            campaign.undo()
        assert campaign.suggest(1)[0].id == "T002"  # numbers are never given twice


def test_undo_refuses_what_later_events_build_on(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(1)
        campaign.record("T001", failed_at="fabricated")
        with pytest.raises(CampaignError, match=r"T001 has results; undo those first \(events 4\)"):
            campaign.undo(3)
        with pytest.raises(CampaignError, match=r"event 1 is none that can be undone.*--log"):
            campaign.undo(1)


# -- recording ----------------------------------------------------------------------------------


def test_replicates_are_kept_raw_and_shown_as_their_mean(tmp_path: Path) -> None:
    with filled(tmp_path) as campaign:
        for value in (0.4, 0.6):
            campaign.record("T002", values={"usability": value}, passed="all")
        assert [r.values["usability"] for r in campaign.trials["T002"].records] == [0.3, 0.4, 0.6]
        assert [r.device for r in campaign.trials["T002"].records] == ["1", "2", "3"]
        (seen,) = [o for o in campaign.observations() if o.point == campaign.trials["T002"].recipe]
        assert seen.values["usability"] == (0.3, 0.4, 0.6)
        assert math.isclose(campaign.status(advice=False).best["usability"][1], 1.3 / 3)


@pytest.mark.parametrize(
    "stage", ["fabricated", "conducts", "switches", "analog", "endures", "retains"]
)
def test_a_device_may_fail_at_each_stage_and_has_passed_those_before(
    tmp_path: Path, stage: str
) -> None:
    with start(tmp_path) as campaign:
        own(campaign, x=0.1, kind="plain")
        trial = campaign.record("T001", failed_at=stage)
        (record,) = trial.records
        names = [s.name for s in campaign.config.stages]
        assert trial.failed_at == record.failed_at == stage
        assert set(record.stages) == set(names[: names.index(stage) + 1])
        assert not trial.is_usable


def test_one_working_device_makes_a_trial_usable(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        own(campaign, x=0.1, kind="plain")
        campaign.record("T001", failed_at="fabricated")
        trial = campaign.record("T001", failed_at="switches")
        assert trial.failed_at == "switches"  # as far as the best one came
        trial = campaign.record("T001", passed="conducts")
        assert trial.is_usable
        (seen,) = campaign.observations()
        assert seen.stages == {"fabricated": (2, 1), "conducts": (2, 0), "switches": (0, 1)}


def test_a_device_named_again_adds_to_its_result(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        own(campaign, x=0.1, kind="plain")
        campaign.record("T001", values={"usability": 0.2}, passed="analog", device="left")
        trial = campaign.record("T001", passed="endures", device="left", note="after a month")
        (record,) = trial.records
        assert record.values == {"usability": 0.2}
        assert record.stages["endures"]
        trial = campaign.record("T001", failed_at="conducts", device="left")
        assert set(trial.records[0].stages) == {"fabricated", "conducts"}
        campaign.undo()
        assert campaign.trials["T001"].records == (record,)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({}, "a result needs a value, a stage that was passed, or one that failed"),
        ({"values": {"usablity": 1}}, '"usablity" is no objective.*Did you mean "usability"'),
        ({"values": {"usability": "0,2"}}, "is no number. Write 0.2"),
        ({"values": {"usability": math.nan}}, "is no finite number; leave out"),
        ({"failed_at": "swtches"}, '"swtches" is no stage.*Did you mean "switches"'),
        ({"passed": "switches", "failed_at": "conducts"}, 'cannot pass "switches" and fail'),
    ],
)
def test_a_wrong_result_is_refused(tmp_path: Path, result: dict, message: str) -> None:  # type: ignore[type-arg]
    with start(tmp_path) as campaign:
        own(campaign, x=0.1, kind="plain")
        with pytest.raises(CampaignError, match=message):
            campaign.record("T001", **result)
        assert not campaign.trials["T001"].records


def test_a_rejected_trial_takes_no_result(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(1)
        campaign.reject("T001")
        with pytest.raises(CampaignError, match="T001 was rejected; accept it first"):
            campaign.record("T001", failed_at="fabricated")
        campaign.accept("T001")
        assert campaign.record("T001", failed_at="fabricated").status == "done"


def test_a_key_makes_a_record_happen_once(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        own(campaign, x=0.1, kind="plain")
        for _ in range(2):
            campaign.record("T001", failed_at="conducts", key="prober-17")
        assert len(campaign.trials["T001"].records) == 1


# -- the log ------------------------------------------------------------------------------------


def test_everything_is_in_the_event_log_in_words(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(4)
        campaign.accept("T001")
        campaign.reject("T002", "no toluene")
        campaign.edit("T003", x=0.5)
        campaign.reroll("T004")
        campaign.pin("kind", "plain")
        campaign.unpin("kind")
        own(campaign, x=0.1, kind="plain")
        campaign.record("T001", values={"usability": 0.2}, passed="analog")
        campaign.record("T006", failed_at="conducts", device="b")
        campaign.undo()
        lines = campaign.log()
    assert [line.text for line in lines] == [
        "started the campaign",
        "noted campaign.toml",
        "suggested T001, T002, T003, T004",
        "accepted T001",
        "rejected T002: no toluene",
        "edited T003",
        "withdrew T004",
        "suggested T005",
        "pinned kind = plain",
        "unpinned kind",
        "added T006 (own)",
        "recorded T001 1: passed analog, usability 0.2",
        "recorded T006 b: failed at conducts",
        "took back event 13",
    ]
    assert [line.event for line in lines if line.undone] == [13]
    assert {line.actor for line in lines} == {"ada"}


# -- a space that changes -----------------------------------------------------------------------


def check_goes_on(campaign: Campaign) -> None:
    """Old trials are used, and new suggestions fit the new space."""
    assert len(campaign.observations()) == 5
    (trial,) = campaign.suggest(1)
    assert campaign.outside(trial.recipe) == []
    assert trial.reasons["nearest"] in campaign.trials
    assert campaign.best()[0][0].id == "T002"
    assert campaign.status(advice=False).n_failed == 2
    assert any(line.text == "noted campaign.toml" for line in campaign.log()[-2:])


def test_a_variable_is_added_with_the_value_that_it_had_before(tmp_path: Path) -> None:
    more = '\n[variables.flux]\ntype = "categorical"\noptions = ["low", "high"]\n'
    campaign = filled(tmp_path)
    with rewrite(campaign, TEXT + more) as changed:
        with pytest.raises(CampaignError, match=r'T001 has no value for "flux".*former ='):
            changed.suggest(1)
    with rewrite(changed, TEXT + more + 'former = "low"\n') as changed:
        check_goes_on(changed)
        assert {o.point["flux"] for o in changed.observations()} == {"low"}


def test_the_former_value_may_be_one_that_is_no_longer_proposed(tmp_path: Path) -> None:
    more = '\n[variables.flux]\ntype = "categorical"\noptions = ["low", "high"]\nformer = "none"\n'
    with rewrite(filled(tmp_path), TEXT + more) as changed:
        check_goes_on(changed)


def test_a_conditional_variable_that_is_added_needs_a_former_value_where_it_applies(
    tmp_path: Path,
) -> None:
    more = (
        '\n[variables.dose]\ntype = "continuous"\nlow = 1\nhigh = 2\nwhen = { kind = ["doped"] }\n'
    )
    campaign = filled(tmp_path)
    with rewrite(campaign, TEXT + more) as changed:
        with pytest.raises(CampaignError, match='T002 has no value for "dose"'):
            changed.suggest(1)
    with rewrite(changed, TEXT + more + "former = 1\n") as changed:
        check_goes_on(changed)


def test_a_variable_is_removed(tmp_path: Path) -> None:
    text = TEXT.replace(TEXT[TEXT.index("[variables.kind]") : TEXT.index("[[objectives]]")], "")
    with filled(tmp_path) as campaign:
        campaign.pin("kind", "plain")
        open_trial = own(campaign, x=0.9, kind="mixed")
    with rewrite(campaign, text) as changed:
        check_goes_on(changed)
        assert changed.edit(open_trial.id, x=0.8).recipe == {"x": 0.8}
        assert changed.record(open_trial.id, failed_at="conducts").records


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("high = 1", "high = 3"),
        TEXT.replace("high = 1", "high = 0.5"),
        TEXT.replace('"mixed"]', '"mixed", "gold"]'),
        TEXT.replace(', "mixed"]', "]"),
        TEXT.replace("step = 0.1", "step = 0.25"),
    ],
    ids=["wider", "narrower", "option-added", "option-removed", "other-steps"],
)
def test_a_range_or_the_options_change(tmp_path: Path, text: str) -> None:
    with rewrite(filled(tmp_path), text) as changed:
        check_goes_on(changed)


def test_stages_and_objectives_change(tmp_path: Path) -> None:
    text = TEXT + (
        '\n[[stages]]\nname = "fabricated"\n\n[[stages]]\nname = "inspected"\n\n[[stages]]\nname = "conducts"\n'
        '\n[[objectives]]\nname = "sigma"\ngoal = "minimise"\n'
    )
    with rewrite(filled(tmp_path), text) as changed:
        assert changed.record("T001", passed="inspected", device="1").records[0].stages["inspected"]
        assert changed.status(advice=False).failures_by_stage == {"conducts": 2}
        assert len(changed.suggest(1)) == 1
        assert changed.best() == []  # no trial has both objectives yet


def test_a_change_of_settings_is_noted_once(tmp_path: Path) -> None:
    campaign = filled(tmp_path)
    with rewrite(campaign, TEXT.replace("batch = 2", "batch = 3")) as changed:
        assert changed.has_new_settings
    with Campaign.open(tmp_path) as again:
        assert not again.has_new_settings


# -- several objectives -------------------------------------------------------------------------


def test_several_objectives_give_a_front_and_no_single_best(tmp_path: Path) -> None:
    text = TEXT + '\n[[objectives]]\nname = "sigma"\ngoal = "minimise"\nscale = "log"\n'
    with start(tmp_path, text) as campaign:
        for k, (usability, sigma) in enumerate([(0.1, 0.1), (0.3, 0.4), (0.2, 0.5), (0.25, 0.2)]):
            own(campaign, x=0.1 * k, kind="plain")
            values = {"usability": usability, "sigma": sigma}
            campaign.record(f"T{k + 1:03d}", values=values, passed="all")
        assert [t.id for t, _ in campaign.best()] == ["T001", "T002", "T004"]
        (trial,) = campaign.suggest(1)
        assert set(trial.reasons["predictions"]) == {"usability", "sigma"}
        best = campaign.status(advice=False).best
        assert (best["usability"][0], best["sigma"][0]) == ("T002", "T001")
        with pytest.raises(CampaignError, match="sigma: 0 is not positive"):
            campaign.record("T001", values={"sigma": 0})
