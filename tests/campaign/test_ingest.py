"""Measurement files become results: the name says the trial, the figures decide the stages."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from ohmloop.campaign import Campaign, list_templates, parse_config, template
from ohmloop.errors import CampaignError, IngestError
from tests.campaign.small import TEXT, own
from tests.data.formats import loop, pymeasure, workbook

RULES = """
[[stages]]
name = "fabricated"
question = "Is it there?"

[[stages]]
name = "conducts"
passes_when = "clipped_share < 0.97 and g_max >= 1e-9 and g_max <= 0.03"

[[stages]]
name = "switches"
passes_when = "switched and on_off_ratio >= 2"

[[stages]]
name = "endures"
question = "Does it last?"

[[objectives]]
name = "noise"
goal = "minimise"
figure = "sigma"

[[objectives]]
name = "negative_noise"
figure = "sigma"
negate = true
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    campaign = Campaign.new(tmp_path / "lab", text=TEXT + RULES, actor="ada")
    own(campaign, x=0.1, kind="plain")
    own(campaign, x=0.2, kind="doped")
    return campaign


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def flat(ohm: float, compliance: float = 1.0) -> bytes:
    """A workbook of a resistor."""
    up = np.linspace(0, 2, 40)
    voltage = np.concatenate([up, up[::-1], -up, -up[::-1]])
    rng = np.random.default_rng(0)
    current = np.abs(voltage)[:, None] / ohm * np.exp(rng.normal(0, 0.01, (160, 5)))
    return workbook(voltage, np.minimum(current, compliance))


def switching(n_cycles: int) -> bytes:
    """A workbook of a device that rises gradually, switches on and off again."""
    up = np.linspace(0.02, 2, 60)
    rise = np.geomspace(1e-6, 1e-4, 60)
    voltage = np.concatenate([up, up[::-1], -up, -up[::-1]])
    g = np.concatenate([rise, np.full(60, 1e-4), rise[::-1], np.full(60, 1e-6)])
    spread = np.exp(np.random.default_rng(0).normal(0, 0.1, n_cycles))
    return workbook(voltage, np.abs(voltage)[:, None] * g[:, None] * spread)


def test_figures_of_merit_become_stages_and_outcomes(campaign: Campaign, tmp_path: Path) -> None:
    path = put(tmp_path / "in" / "2026-05-03 T002_dev1.xlsx", switching(6))
    (got,) = campaign.ingest([path])
    assert (got.file, got.trial, got.status) == (path.name, "T002", "recorded")
    (record,) = campaign.trials["T002"].records
    assert record.stages == {"fabricated": True, "conducts": True, "switches": True}
    assert record.device == "2026-05-03 T002_dev1"
    sigma = record.figures["sigma"]
    assert record.values == {
        "noise": sigma,
        "negative_noise": -sigma,
        "usability": record.figures["usability"],
    }
    assert record.figures["cycles"] == 6
    assert campaign.trials["T002"].is_usable
    assert campaign.status(advice=False).best["noise"] == ("T002", sigma)


def test_ingesting_twice_changes_nothing(campaign: Campaign, tmp_path: Path) -> None:
    put(tmp_path / "in" / "T001_a.xlsx", workbook(*loop(5)))
    put(tmp_path / "in" / "T002_b.csv", pymeasure(*loop(4)))
    first = campaign.ingest([tmp_path / "in"])
    before = campaign.state.last_event
    again = campaign.ingest([tmp_path / "in", tmp_path / "in" / "T001_a.xlsx"])
    assert [item.status for item in first] == ["recorded", "recorded"]
    assert [item.status for item in again] == ["unchanged", "unchanged"]
    assert campaign.state.last_event == before


def test_the_same_bytes_under_two_names_are_one_device(campaign: Campaign, tmp_path: Path) -> None:
    content = workbook(*loop(5))  # once: a workbook holds the second in which it was made
    for name in ("T001_a.xlsx", "T001_copy.xlsx"):
        put(tmp_path / "in" / name, content)
    got = campaign.ingest([tmp_path / "in"])
    assert [item.status for item in got] == ["recorded", "unchanged"]
    assert len(campaign.trials["T001"].records) == 1


def test_raw_bytes_are_kept_unchanged_and_the_original_may_go(
    campaign: Campaign, tmp_path: Path
) -> None:
    path = put(tmp_path / "in" / "T001.xlsx", workbook(*loop(5)))
    content = path.read_bytes()
    campaign.ingest([path])
    shutil.rmtree(path.parent)
    sha256 = hashlib.sha256(content).hexdigest()
    assert campaign.files() == {sha256: "T001.xlsx"}
    assert campaign.file_path(sha256).read_bytes() == content
    assert campaign.trials["T001"].records[0].file == sha256
    assert campaign.check() == []
    with Campaign.open(campaign.folder) as again:
        assert again.trials == campaign.trials


def test_a_file_is_taken_again_after_an_undo(campaign: Campaign, tmp_path: Path) -> None:
    path = put(tmp_path / "in" / "T001.xlsx", workbook(*loop(5)))
    for _ in range(3):
        assert campaign.ingest([path])[0].status == "recorded"
        assert campaign.ingest([path])[0].status == "unchanged"
        campaign.undo()
    assert not campaign.trials["T001"].records


def test_a_new_measurement_of_a_device_takes_the_place_of_the_old(
    campaign: Campaign, tmp_path: Path
) -> None:
    path = put(tmp_path / "in" / "T001_a.xlsx", workbook(*loop(5)))
    campaign.ingest([path])
    old = path.read_bytes()
    path.write_bytes(flat(1e5))
    campaign.ingest([path])
    (record,) = campaign.trials["T001"].records
    assert record.failed_at == "switches"
    assert len(campaign.files()) == 2
    path.write_bytes(old)
    assert campaign.ingest([path])[0].status == "unchanged"


def test_a_person_adds_what_no_sweep_shows(campaign: Campaign, tmp_path: Path) -> None:
    campaign.ingest([put(tmp_path / "in" / "T001_a.xlsx", switching(5))])
    trial = campaign.record("T001", passed="all", device="T001_a")
    (record,) = trial.records
    assert record.stages["endures"]
    assert record.figures["cycles"] == 5


def test_a_file_that_cannot_be_read_is_refused_and_the_others_are_recorded(
    campaign: Campaign, tmp_path: Path
) -> None:
    put(tmp_path / "in" / "T001_a.xlsx", workbook(*loop(5)))
    put(tmp_path / "in" / "T001_b.xlsx", b"PK\x03\x04 torn")
    put(tmp_path / "in" / "T001_c.csv", b"nothing to see\n")
    put(tmp_path / "in" / "holiday.csv", pymeasure(*loop(4)))
    put(tmp_path / "in" / "T099.csv", pymeasure(*loop(4)))
    put(tmp_path / "in" / "T001 or T002.csv", pymeasure(*loop(4)))
    got = {i.file: i for i in campaign.ingest([tmp_path / "in", tmp_path / "gone_T001.csv"])}
    assert [name for name, item in got.items() if item.status == "recorded"] == ["T001_a.xlsx"]
    for name, said in (
        ("T001_b.xlsx", "damaged"),
        ("T001_c.csv", "T001_c.csv"),
        ("holiday.csv", "its name holds no trial; name it like T007_dev1.csv, or say which"),
        ("T099.csv", "its name says T099, and there is no such trial"),
        ("T001 or T002.csv", r"holds several trials (T001, T002)"),
        ("gone_T001.csv", "there is no file"),
    ):
        assert got[name].status == "refused"
        assert said in got[name].text
    assert len(campaign.files()) == 1


def test_a_trial_may_be_named_and_must_take_results(campaign: Campaign, tmp_path: Path) -> None:
    path = put(tmp_path / "in" / "holiday.csv", pymeasure(*loop(4)))
    campaign.reject("T001")
    (got,) = campaign.ingest([path], trial="t1")
    assert (got.status, got.trial) == ("refused", "t1")
    assert "decide T001 accept" in got.text
    assert campaign.ingest([path], trial="2")[0].status == "recorded"


def test_units_are_asked_for_and_passed_on(campaign: Campaign, tmp_path: Path) -> None:
    up = np.linspace(0.1, 2, 20)
    rows = "\n".join(f"{v:.3f},{1e5 * v:.1f}" for v in [*up, *up[::-1], *-up, *-up[::-1]])
    path = put(tmp_path / "in" / "T001.csv", f"V,I\n{rows}\n".encode())
    refused = campaign.ingest([path])[0]
    assert refused.status == "refused"
    assert campaign.ingest([path], current_unit="nA")[0].status == "recorded"


def test_an_empty_folder_is_an_error(campaign: Campaign, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(IngestError, match="holds no measurement file"):
        campaign.ingest([tmp_path / "empty"])


@pytest.mark.parametrize("name", list_templates())
@pytest.mark.parametrize(
    ("ohm", "compliance", "stage"),
    [
        (20.0, 1.0, "conducts"),  # a short
        (20.0, 1e-5, "conducts"),  # a short that the compliance hides from the first point on
        (1e12, 1.0, "conducts"),  # nothing but noise
        (1e5, 1.0, "switches"),  # a resistor
    ],
)
def test_templates_judge_devices_that_do_not_work(
    tmp_path: Path, name: str, ohm: float, compliance: float, stage: str
) -> None:
    with Campaign.new(tmp_path / "lab", template=name) as campaign:
        context = {"humidity": 40.0} if "humidity" in campaign.config.variables else {}
        campaign.suggest(1, context=context)
        path = put(tmp_path / "in" / "T001.xlsx", flat(ohm, compliance))
        (got,) = campaign.ingest([path])
        assert got.text == f"failed at {stage}"
        assert got.values == {}


def test_a_rule_decides_nothing_where_a_missing_figure_matters(tmp_path: Path) -> None:
    text = TEXT + (
        '\n[[stages]]\nname = "switches"\npasses_when = "reset_voltage < -0.1"\n'
        '\n[[stages]]\nname = "works"\npasses_when = "cycles >= 1 or reset_voltage < -0.1"\n'
    )
    with Campaign.new(tmp_path / "lab", text=text) as campaign:
        own(campaign, x=0.1, kind="plain")
        campaign.ingest([put(tmp_path / "in" / "T001.xlsx", flat(1e5))])
        (record,) = campaign.trials["T001"].records
        assert record.figures["reset_voltage"] is None
        # The second stage is decided; the one before it counts as passed with it.
        assert record.stages == {"switches": True, "works": True}
    text = text.replace("cycles >= 1 or ", "")
    with Campaign.new(tmp_path / "other", text=text) as campaign:
        own(campaign, x=0.1, kind="plain")
        (got,) = campaign.ingest([tmp_path / "in" / "T001.xlsx"])
        assert dict(got.stages) == {}


def test_a_file_that_decides_nothing_makes_no_usable_device(tmp_path: Path) -> None:
    text = TEXT.replace('name = "usability"', 'name = "brightness"') + (
        '\n[[stages]]\nname = "switches"\npasses_when = "reset_voltage < -0.1"\n'
    )
    with Campaign.new(tmp_path / "lab", text=text) as campaign:
        own(campaign, x=0.1, kind="plain")
        (got,) = campaign.ingest([put(tmp_path / "in" / "T001.xlsx", flat(1e5))])
        assert got.text == "no stage decided"
        trial = campaign.trials["T001"]
        assert not trial.is_usable
        assert trial.failed_at is None
        status = campaign.status()
        assert (status.n_done, status.n_failed) == (1, 0)
        campaign.record("T001", failed_at="switches", device="T001")
        assert campaign.status(advice=False).n_failed == 1


def test_a_misspelt_figure_in_a_rule_is_an_error() -> None:
    with pytest.raises(CampaignError, match="Did you mean"):
        parse_config(template("perovskite-nanowires").replace("clipped_share", "cliped_share"))
