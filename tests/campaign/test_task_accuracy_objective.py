"""The objective "task_accuracy": filled from sweeps by the folder's surrogate, and judged anew with another."""

from pathlib import Path
from typing import Any

import pytest

from ohmloop.campaign import Campaign, law_of, parse_config, reassess, template
from ohmloop.device import Axis, TaskAccuracy, VirtualLab, save_task_accuracy, write_workbook
from ohmloop.errors import CampaignError

from .small import TEXT

GOOD = {"material": "MAPbI3", "cvd_temperature_c": 180.0, "compliance_a": 0.002}
OURS = TEXT.replace('name = "usability"', 'name = "accuracy"\nfigure = "task-accuracy"')


def surrogate(level: float = 0.9) -> TaskAccuracy:
    points = [(u / 6,) for u in range(7)]
    return TaskAccuracy(
        task="made up",
        method="erm",
        metric="accuracy",
        n_networks=1,
        n_devices=2,
        n_samples=10,
        digital=level,
        axes=(Axis(name="sigma", low=0.05, high=2.0, log=True, neutral=0.05),),
        usage=(1.0, 1.0),
        points=tuple(points),
        means=tuple(level - 0.5 * u for (u,) in points),
        errors=(0.01,) * 7,
        spreads=(0.02,) * 7,
        lengths=(1.0,),
        amplitude=1.0,
        noises=(1e-6,) * 7,
    )


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    lab = VirtualLab(1)
    device = next(d for k in range(30) if (d := lab.make(GOOD, k)).failed_at is None)
    return write_workbook(device, tmp_path / "T001_dev1.xlsx")


def started(folder: Path, text: str = OURS, found: TaskAccuracy | None = None) -> Campaign:
    campaign = Campaign.new(folder, text=text)
    campaign.add({"x": 0.5, "kind": "plain"})
    if found is not None:
        save_task_accuracy(found, folder / "task-accuracy.json")
    return campaign


def only(campaign: Campaign) -> Any:
    return campaign.trials["T001"].records[-1]


def test_a_sweep_becomes_what_the_network_would_score(tmp_path: Path, workbook: Path) -> None:
    with started(tmp_path / "c", found=surrogate()) as campaign:
        (line,) = campaign.ingest([workbook])
        assert line.status == "recorded"
        record = only(campaign)
        law = law_of(record.figures, "x")
        assert law is not None
        assert law.sigma.value == record.figures["sigma"]
        assert record.values["accuracy"] == pytest.approx(surrogate().of(law).mean)
        assert record.figures["task_accuracy_error"] == pytest.approx(surrogate().of(law).error)
        assert "level_table" in record.figures


def test_another_surrogate_judges_anew_once_and_the_log_keeps_both(
    tmp_path: Path, workbook: Path
) -> None:
    with started(tmp_path / "c", found=surrogate()) as campaign:
        campaign.ingest([workbook])
        before = only(campaign).values["accuracy"]
        assert reassess(campaign) == 0
        save_task_accuracy(surrogate(0.8), tmp_path / "c" / "task-accuracy.json")
        assert reassess(campaign) == 1
        assert reassess(campaign) == 0
        record = only(campaign)
        assert record.values["accuracy"] == pytest.approx(before - 0.1, abs=2e-3)
        assert record.figures["sigma"] > 0
        assert len(campaign.trials["T001"].records) == 1
        noted = [
            e.data["values"]["accuracy"] for e in campaign.state.history if e.kind == "recorded"
        ]
        assert noted[0] == before
        campaign.undo()
        assert only(campaign).values["accuracy"] == before


def test_records_from_before_the_objective_are_judged_from_their_raw_file(
    tmp_path: Path, workbook: Path
) -> None:
    with started(tmp_path / "c", TEXT) as campaign:
        campaign.ingest([workbook])
    (tmp_path / "c" / "campaign.toml").write_text(OURS)
    save_task_accuracy(surrogate(), tmp_path / "c" / "task-accuracy.json")
    with Campaign.open(tmp_path / "c") as campaign:
        assert reassess(campaign) == 1
        assert 0 < only(campaign).values["accuracy"] < 0.91


def test_a_failed_device_and_one_typed_by_hand_are_left_alone(
    tmp_path: Path, workbook: Path
) -> None:
    with started(tmp_path / "c", found=surrogate()) as campaign:
        campaign.record("T001", values={"accuracy": 0.5}, device="by hand")
        campaign.record("T001", failed_at="conducts", device="short")
        assert reassess(campaign) == 0


def test_the_error_of_the_score_reaches_the_optimiser(tmp_path: Path, workbook: Path) -> None:
    with started(tmp_path / "c", found=surrogate()) as campaign:
        campaign.ingest([workbook])
        record = only(campaign)
        assert record.errors == {"accuracy": record.figures["task_accuracy_error"]}
        assert record.errors["accuracy"] > 0
        assert campaign.observations()[0].errors == record.errors
        save_task_accuracy(surrogate(0.7), campaign.folder / "task-accuracy.json")
        reassess(campaign)
        again = only(campaign)
        assert again.values["accuracy"] < record.values["accuracy"]
        assert again.errors["accuracy"] > 0
        # A value typed in by hand without an error has none.
        campaign.record("T001", values={"accuracy": 0.5}, device=again.device)
        assert campaign.observations()[0].errors == {}


def test_a_missing_surrogate_is_said_with_the_command_that_makes_it(
    tmp_path: Path, workbook: Path
) -> None:
    with started(tmp_path / "c") as campaign:
        (line,) = campaign.ingest([workbook])
        assert line.status == "refused"
        assert "ohmloop codesign sensitivity RUN" in line.text
        with pytest.raises(CampaignError, match="asks what a network would score"):
            reassess(campaign)


def test_reassess_needs_the_objective(tmp_path: Path) -> None:
    with (
        started(tmp_path / "c", TEXT) as campaign,
        pytest.raises(CampaignError, match='no objective asks for "task_accuracy"'),
    ):
        reassess(campaign)


def test_the_name_alone_asks_for_it_too() -> None:
    text = template("perovskite-nanowires").replace('"usability"', '"task_accuracy"')
    assert parse_config(text).objectives[0].name == "task_accuracy"
