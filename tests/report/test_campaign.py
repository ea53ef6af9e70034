"""A campaign's report: everything on one page, self-contained, the same bytes every time."""

import re
from pathlib import Path

import pytest
from tests.campaign.small import TEXT, filled, own, start

from ohmloop.campaign import Campaign, make_in_virtual_lab
from ohmloop.errors import OhmloopError
from ohmloop.report import write_campaign


@pytest.mark.slow
def test_the_report_holds_trials_reasons_failures_and_provenance(tmp_path: Path) -> None:
    with filled(tmp_path / "lab") as campaign:
        (trial,) = campaign.suggest(1)
        campaign.reject(trial.id, "no toluene <today>")
        path = write_campaign(campaign, tmp_path / "out" / "r.html")
        settings = campaign.state.config_text
    page = path.read_text(encoding="utf-8")
    for name in ("T001", "T005", trial.id):
        assert f"<td>{name}</td>" in page
    assert "failed at conducts" in page
    assert "1: passed analog, usability 0.3" in page
    assert "why it was suggested" in page
    assert "Chance of a usable device" in page
    assert "no toluene &lt;today&gt;" in page
    assert "Advice: " in page
    assert "<b>T002</b>" in page  # the best
    import hashlib

    assert hashlib.sha256(settings.encode()).hexdigest() in page
    assert "recorded T003 1: failed at conducts" in page
    assert "SIMULATED" not in page
    numbers = (path.parent / "r-progress-usability.csv").read_text().splitlines()
    assert numbers[0] == "what,trials_with_a_result,usability"
    assert sum(line.startswith("best,") for line in numbers) == 5
    made = (path.parent / "r-trials.csv").read_text().splitlines()
    assert made[0].startswith("trial,outcome,device,failed_at,")
    assert any(line.startswith("T003,failed at conducts,1,conducts,") for line in made)
    for name in re.findall(r"Numbers: ([\w.-]+\.csv)", page):
        assert (path.parent / name).exists()


def test_the_report_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    with filled(tmp_path / "lab") as campaign:
        page = write_campaign(campaign, tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert not re.search(r"<(script|link|iframe|img)\b", page)
    assert "url(" not in page.replace("url(#", "")


@pytest.mark.slow
def test_the_same_campaign_gives_the_same_bytes(tmp_path: Path) -> None:
    with filled(tmp_path / "lab") as campaign:
        a = write_campaign(campaign, tmp_path / "a" / "r.html").read_bytes()
        b = write_campaign(campaign, tmp_path / "b" / "r.html").read_bytes()
    with Campaign.open(tmp_path / "lab", writable=False) as campaign:
        c = write_campaign(campaign, tmp_path / "c" / "r.html").read_bytes()
    assert a == b == c


def test_an_empty_campaign_has_a_report(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        page = write_campaign(campaign, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "None yet" in page
    assert "No usable device yet" in page


@pytest.mark.slow
def test_several_objectives_and_units_are_shown(tmp_path: Path) -> None:
    text = TEXT + '\n[[objectives]]\nname = "sigma"\ngoal = "minimise"\nunit = "mV"\n'
    with start(tmp_path / "lab", text) as campaign:
        for k, value in enumerate((3.0, 2.0, 4.0)):
            own(campaign, x=0.1 * k, kind="plain")
            campaign.record(
                f"T00{k + 1}", values={"usability": value, "sigma": value}, passed="all"
            )
        page = write_campaign(campaign, tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 3
    assert "sigma 2 mV" in page
    assert "best sigma (T002)" in page


def test_simulated_devices_are_marked_however_their_files_are_named(tmp_path: Path) -> None:
    with Campaign.new(tmp_path / "lab", template="perovskite-nanowires") as campaign:
        campaign.suggest(4)
        made = make_in_virtual_lab(campaign, tmp_path / "m")
        file = next(m for m in made if m["file"])
        (tmp_path / "m" / file["file"]).rename(tmp_path / "m" / "plain.xlsx")
        campaign.ingest([tmp_path / "m" / "plain.xlsx"], trial=file["trial"])
        page = write_campaign(campaign, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "holds SIMULATED devices of the virtual lab" in page


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with start(tmp_path / "lab") as campaign:
        with pytest.raises(OhmloopError, match="cannot be written"):
            write_campaign(campaign, tmp_path / "file" / "r.html")
