"""Two people on one campaign: what was decided on an old picture is refused, nothing is lost."""

import hashlib
from pathlib import Path

import pytest

from ohmloop.campaign import Campaign
from ohmloop.errors import CampaignError, ConflictError

from .small import TEXT, start


def _two(folder: Path) -> tuple[Campaign, Campaign]:
    """Ada and Bob look at the same state; Ada acts first in each test."""
    with start(folder) as campaign:
        campaign.suggest(3)
        seen = campaign.state.last_event
    ada = Campaign.open(folder, actor="ada", seen=seen)
    bob = Campaign.open(folder, actor="bob", seen=seen)
    return ada, bob


def test_a_decision_on_what_another_decided_is_refused_and_names_them(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    ada.reject("T001", "too thick")
    with pytest.raises(ConflictError, match=r"trial T001 was changed meanwhile: ada rejected T001"):
        bob.accept("T001")
    assert bob.trials["T001"].status == "rejected"
    with pytest.raises(CampaignError, match="T001 was rejected; accept it first"):
        bob.record("T001", values={"usability": 0.2})
    with pytest.raises(CampaignError, match="T001 is rejected; only a suggestion"):
        bob.reroll("T001", "T002")
    assert bob.trials["T002"].status == "suggested"


def test_a_result_of_a_recipe_that_was_edited_meanwhile_is_refused(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    ada.edit("T001", x=0.9)
    with pytest.raises(ConflictError, match="trial T001 was changed meanwhile: ada edited T001"):
        bob.record("T001", values={"usability": 0.2})


def test_decisions_on_different_trials_do_not_meet(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    ada.accept("T001")
    bob.accept("T002")
    ada.edit("T003", x=0.5)
    assert [t.status for t in bob.trials.values()] == ["accepted"] * 3


def test_the_same_acceptance_twice_and_results_after_it_are_no_conflict(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    ada.accept("T001")
    bob.accept("T001")
    bob.record("T001", values={"usability": 0.2})
    ada.record("T001", values={"usability": 0.3})
    assert [r.values["usability"] for r in ada.trials["T001"].records] == [0.2, 0.3]


def test_a_device_that_another_recorded_is_not_overwritten(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    ada.record("T001", values={"usability": 0.2}, device="a")
    with pytest.raises(ConflictError, match="device a of trial T001 was changed"):
        bob.record("T001", values={"usability": 0.9}, device="a")
    bob.record("T001", values={"usability": 0.3}, device="b")
    assert [r.values["usability"] for r in ada.trials["T001"].records] == [0.2, 0.3]


def test_ones_own_steps_are_no_conflict(tmp_path: Path) -> None:
    ada, _ = _two(tmp_path)
    ada.accept("T001")
    ada.edit("T001", x=0.5)
    ada.pin("kind", "doped")
    ada.pin("kind", "plain")
    ada.undo()
    assert ada.state.pins == {"kind": "doped"}


def test_a_pin_that_another_set_is_not_moved(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    ada.pin("kind", "doped")
    with pytest.raises(ConflictError, match="pin of kind was changed meanwhile"):
        bob.pin("kind", "plain")
    bob.pin("x", 0.5)
    with pytest.raises(ConflictError, match="pin of kind"):
        bob.undo(ada.state.history[-2].id)


def test_without_seen_the_latest_word_counts(tmp_path: Path) -> None:
    ada, _ = _two(tmp_path)
    ada.reject("T001")
    with Campaign.open(tmp_path, actor="eve") as eve:
        assert eve.accept("T001").status == "accepted"


def test_settings_are_replaced_only_where_nobody_else_changed_them(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    with pytest.raises(CampaignError, match="is no setting"):
        ada.configure(TEXT + "\n[sugest]\nbatch = 3\n")
    ada.configure(TEXT.replace("batch = 2", "batch = 5"))
    assert ada.config.suggest.batch == 5
    with pytest.raises(ConflictError, match="settings was changed meanwhile: ada"):
        bob.configure(TEXT.replace("batch = 2", "batch = 7"))
    assert "batch = 5" in (tmp_path / "campaign.toml").read_text()
    with Campaign.open(tmp_path) as again:
        assert not again.has_new_settings
        (tmp_path / "campaign.toml").write_text(TEXT.replace("batch = 2", "batch = 9"))
        with pytest.raises(ConflictError, match="changed by hand"):
            again.configure(TEXT)


def test_a_request_with_a_key_suggests_once(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        first = campaign.suggest(2, key="job-1")
        again = campaign.suggest(2, key="job-1")
        assert [t.id for t in again] == [t.id for t in first] == ["T001", "T002"]
        rolled = campaign.reroll("T001", key="job-2")
        assert [t.id for t in campaign.reroll("T001", key="job-2")] == [rolled[0].id] == ["T003"]
        assert campaign.trials["T001"].status == "withdrawn"
        assert len(campaign.trials) == 3


def test_what_was_accepted_meanwhile_is_not_rolled_away(tmp_path: Path) -> None:
    with start(tmp_path) as campaign:
        campaign.suggest(2)
        campaign.accept("T001")
        with pytest.raises(CampaignError, match="T001 is accepted; only a suggestion"):
            campaign.reroll("T001")


def test_the_same_keyed_result_twice_is_no_conflict(tmp_path: Path) -> None:
    ada, _ = _two(tmp_path)
    for _ in range(2):
        with Campaign.open(tmp_path, actor="tester", seen=ada.state.last_event) as tester:
            tester.record("T001", values={"usability": 0.2}, device="a", key="station-7")
    seen = ada.state.history[-2].id
    with Campaign.open(tmp_path, actor="tester", seen=seen) as tester:
        tester.record("T001", values={"usability": 0.2}, device="a", key="station-7")
    assert len(ada.trials["T001"].records) == 1


def test_a_sheet_does_not_overwrite_what_was_decided_after_it_was_made(tmp_path: Path) -> None:
    ada, bob = _two(tmp_path)
    for name in ("T001", "T002", "T003"):
        ada.accept(name)
    ada.record("T003", values={"usability": 0.2}, device="a")
    sheet = ada.export(tmp_path / "sheet.csv")
    with Campaign.open(tmp_path, actor="eve") as eve:
        eve.reject("T001", "furnace")
        eve.edit("T002", x=0.7)
        eve.record("T003", values={"usability": 0.4}, device="a")
        done = eve.import_(sheet)
    assert (done.recorded, done.decided) == (0, 0)
    assert ada.trials["T001"].status == "rejected"
    assert ada.trials["T002"].recipe["x"] == 0.7
    assert ada.trials["T003"].records[0].values == {"usability": 0.4}
    # What a person wrote into the sheet counts, unless others changed the same.
    text = sheet.read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    rows[2]["usability"], rows[2]["device"] = "0.3", "b"

    def write() -> None:
        lines = [",".join(header), *(",".join(row[n] for n in header) for row in rows)]
        sheet.write_text("\n".join(lines))

    write()
    with Campaign.open(tmp_path, actor="bob") as late:
        assert late.import_(sheet).recorded == 1
    assert [r.values["usability"] for r in ada.trials["T003"].records] == [0.4, 0.3]
    rows[1]["usability"] = "0.1"
    write()
    with pytest.raises(CampaignError, match="T002 was changed after the sheet was made"):
        bob.import_(sheet)
    rows[1]["usability"] = ""
    rows[0]["status"] = "suggested"
    write()
    with pytest.raises(CampaignError, match="row 2: T001 was accepted when the sheet was made"):
        bob.import_(sheet)
    rows[0]["status"], rows[0]["as_of"] = "accepted", "999"
    write()
    with pytest.raises(CampaignError, match='as_of: "999" is no event of this campaign'):
        bob.import_(sheet)


def test_settings_that_cannot_be_read_are_mended_unless_they_changed_meanwhile(
    tmp_path: Path,
) -> None:
    start(tmp_path).close()
    path = tmp_path / "campaign.toml"
    path.write_text("no toml [")
    was = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(CampaignError, match="is no valid TOML"):
        Campaign.mend(tmp_path, "still none [", was=was)
    path.write_text("none either [")
    with pytest.raises(ConflictError, match=r"campaign\.toml was changed meanwhile"):
        Campaign.mend(tmp_path, TEXT, was=was)
    assert path.read_text() == "none either ["
    mended = TEXT.replace("trials = 12", "trials = 14")
    Campaign.mend(tmp_path, mended, actor="ada")
    with Campaign.open(tmp_path) as campaign:
        assert campaign.config.budget.trials == 14
        assert campaign.log()[-1].actor == "ada"
        assert not campaign.has_new_settings
