"""Results on the lab's pages: by hand, from files, from sheets; two people at once; settings and plots."""

import re
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from ohmloop.web import _lab_plots as plots
from ohmloop.web._waiting import trial_in
from tests.web import lab_content
from tests.web.lab_content import BASE, post, read, seen, state_of, words

# -- results ------------------------------------------------------------------------------------


def test_a_failure_by_stage_is_a_result(lab_root: Path, lab: httpx.Client) -> None:
    post(lab, f"{BASE}/trials/T001/accept", seen=seen(lab))
    fields = {"verdict": "failed:fabricated", "note": "pinholes"}
    shown = post(lab, f"{BASE}/trials/T001/record", seen=seen(lab), **fields)
    assert "Noted: recorded T001 1: failed at fabricated." in shown
    shown = read(lab, BASE)
    assert "without a usable device 100 % 1 of 1" in shown
    assert lab.get(f"{BASE}/plots/failures.csv").text.splitlines()[1] == "fabricated,1"


def test_a_measured_value_moves_the_best(lab_root: Path, lab: httpx.Client) -> None:
    for trial, value in (("T001", "0.2"), ("T002", "0.3")):
        fields = {"trial": trial, "verdict": "passed:switches", "y.usability": value}
        post(lab, f"{BASE}/trials/T001/record", **fields)
    assert "best usability 0.3 T002" in read(lab, BASE)
    figure = lab.get(f"{BASE}/plots/progress:usability.json").json()
    assert figure["data"][1]["y"] == [0.2, 0.3]
    assert figure["data"][0]["text"] == ["T001, device 1", "T002, device 1"]
    rows = lab.get(f"{BASE}/plots/progress:usability.csv").text.splitlines()
    assert rows[1:] == ["1,T001,0.2,0.2", "2,T002,0.3,0.3"]


def test_a_result_that_says_nothing_is_refused_with_what_was_typed(lab: httpx.Client) -> None:
    fields = {"verdict": "", "y.usability": "", "note": "forgot to measure"}
    answer = lab.post(f"{BASE}/trials/T001/record", data=fields)
    assert answer.status_code == 422
    assert 'value="forgot to measure"' in answer.text
    assert "nothing has been recorded" in answer.text


def test_a_plot_that_is_not_there_is_a_404(lab: httpx.Client) -> None:
    for name in ("progress:none.json", "failures.png", "x.csv"):
        assert lab.get(f"{BASE}/plots/{name}").status_code == 404


def test_csv_cells_are_no_formulas() -> None:
    assert plots.to_csv([["=1+1", "-x", -1.5, None]]) == "'=1+1,'-x,-1.5,\n"


def test_a_loop_shows_the_size_of_the_current_and_leaves_gaps() -> None:
    figure = plots.loop([0.0, 1.0, 2.0], [[1e-3, -2e-3, None], [0.0, 1e-4, 1e-4]], ["a", "b"])
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert [trace["y"] for trace in figure["data"]] == [[1e-3, 2e-3, None], [None, 1e-4, 1e-4]]


def test_devices_of_the_virtual_lab_are_marked(lab_root: Path, lab: httpx.Client) -> None:
    post(lab, f"{BASE}/trials/T001/record", verdict="failed:switches", device="d1 simulated")
    assert "holds SIMULATED devices" in read(lab, BASE)
    assert "simulated" in read(lab, f"{BASE}/trials")


# -- two people ---------------------------------------------------------------------------------


def test_a_stale_decision_is_a_page_that_loses_nothing(lab_root: Path, lab: httpx.Client) -> None:
    old = seen(lab)
    with Campaign.open(lab_root / "films", actor="Ann") as campaign:
        campaign.accept("T001")
    fields = {"seen": old, "reason": "the furnace is broken"}
    answer = lab.post(f"{BASE}/trials/T001/reject", data=fields)
    assert answer.status_code == 409
    shown = words(answer.text)
    assert "Ann accepted T001" in shown
    assert "What you wanted: reject T001" in shown
    assert 'value="the furnace is broken"' in answer.text
    assert state_of(lab_root).trials["T001"].status == "accepted"
    fresh = re.search(r'name="seen" value="(\d+)"', answer.text)
    assert fresh is not None
    post(lab, f"{BASE}/trials/T001/reject", seen=fresh[1], reason="the furnace is broken")
    assert state_of(lab_root).trials["T001"].status == "rejected"


def test_others_work_on_another_trial_is_no_conflict(lab_root: Path, lab: httpx.Client) -> None:
    old = seen(lab)
    with Campaign.open(lab_root / "films", actor="Ann") as campaign:
        campaign.accept("T001")
    assert "T002 is accepted." in post(lab, f"{BASE}/trials/T002/accept", seen=old)


def test_settings_that_others_changed_are_not_overwritten(
    lab_root: Path, lab: httpx.Client
) -> None:
    old = seen(lab)
    with Campaign.open(lab_root / "films", actor="Ann") as campaign:
        campaign.configure(lab_content.SETTINGS.replace("180", "170"))
    mine = lab_content.SETTINGS.replace("180", "190")
    answer = lab.post(f"{BASE}/settings", data={"seen": old, "text": mine})
    assert answer.status_code == 409
    assert "high = 190" in answer.text
    assert "high = 170" in (lab_root / "films" / "campaign.toml").read_text()


def test_a_stale_recipe_is_shown_with_the_widgets_of_its_form(
    lab_root: Path, lab: httpx.Client
) -> None:
    old = seen(lab)
    with Campaign.open(lab_root / "films", actor="Ann") as campaign:
        campaign.accept("T002")
    fields = {"seen": old, "v.anneal_c": "99", "v.solvent": "DMSO", "v.drip_s": "7"}
    answer = lab.post(f"{BASE}/trials/T002/edit", data=fields)
    assert answer.status_code == 409
    assert re.search(r'<select id="typed-solvent" name="v.solvent">\s*<option>DMF', answer.text)
    assert "<option selected>DMSO</option>" in answer.text
    assert 'name="v.anneal_c" value="99"' in answer.text
    assert "only if solvent is DMSO" in words(answer.text)
    fresh = re.search(r'name="seen" value="(\d+)"', answer.text)
    assert fresh is not None
    post(lab, f"{BASE}/trials/T002/edit", **{**fields, "seen": fresh[1]})
    assert state_of(lab_root).trials["T002"].recipe["anneal_c"] == 99


def test_what_was_chosen_stays_a_choice_where_a_result_is_refused(lab: httpx.Client) -> None:
    fields = {"trial": "T002", "verdict": "failed:switches", "y.usability": "much"}
    answer = lab.post(f"{BASE}/trials/T001/record", data=fields)
    assert answer.status_code in (400, 422)
    assert '<option value="failed:switches" selected>' in answer.text
    assert '<option value="T002" selected>' in answer.text
    assert 'name="y.usability" value="much"' in answer.text


# -- settings, log, trials ----------------------------------------------------------------------


def test_settings_are_checked_before_they_are_saved(lab_root: Path, lab: httpx.Client) -> None:
    wrong = lab_content.SETTINGS.replace('goal = "maximise"', 'goal = "maximize"')
    answer = lab.post(f"{BASE}/settings", data={"seen": seen(lab), "text": wrong})
    assert answer.status_code == 422
    assert 'Line 33: goal = "maximize"' in words(answer.text)
    assert (lab_root / "films" / "campaign.toml").read_text() == lab_content.SETTINGS
    right = lab_content.SETTINGS.replace("high = 180", "high = 200")
    shown = post(lab, f"{BASE}/settings", seen=seen(lab), text=right)
    assert "The settings are saved" in shown
    assert "60 to 200" in shown


def test_a_campaign_that_was_damaged_by_hand_says_where(lab_root: Path, lab: httpx.Client) -> None:
    path = lab_root / "films" / "campaign.toml"
    path.write_text(lab_content.SETTINGS.replace("budget", "bugdet"))
    assert '"bugdet" is no setting. Did you mean "budget"?' in read(lab, "/")
    assert "Line 35: [bugdet]" in read(lab, f"{BASE}/settings")
    assert "bugdet" in read(lab, BASE, 422)


def test_trials_are_filtered(lab: httpx.Client) -> None:
    post(lab, f"{BASE}/trials/T002/record", verdict="failed:switches")
    assert "1 of 3 trials" in read(lab, f"{BASE}/trials?show=failed")
    assert "2 of 3 trials" in read(lab, f"{BASE}/trials?show=open")
    assert "No trial here." in read(lab, f"{BASE}/trials?show=usable")


@pytest.mark.parametrize(
    ("name", "trial"),
    [
        ("T007_dev2.xlsx", "T007"),
        ("sweep t7.csv", "T007"),
        ("T0071.csv", ""),
        ("T001_T007.csv", ""),
        ("MAPbI3.xlsx", ""),
    ],
)
def test_a_file_name_says_its_trial(name: str, trial: str) -> None:
    assert trial_in(name, ["T001", "T007"]) == trial


# -- files: the reader's process is started ------------------------------------------------------


@pytest.mark.slow
def test_dropped_files_are_looked_at_before_anything_is_recorded(
    lab_root: Path, lab: httpx.Client
) -> None:
    before = state_of(lab_root).last_event
    sent = [
        ("file", ("T001_dev1.csv", lab_content.sweep_csv())),
        ("file", ("T002_dev1.csv", lab_content.sweep_csv(cycles=2))),
        ("file", ("broken.xlsx", b"PK\x03\x04 no workbook")),
    ]
    answer = lab.post(f"{BASE}/files", files=sent, data={"seen": "1"})
    assert answer.headers["location"] == f"{BASE}/files"
    page = lab.get(f"{BASE}/files").text
    assert "Looked at, not attached yet (3)" in words(page)
    assert "cannot be read broken.xlsx" in words(page)
    assert state_of(lab_root).last_event == before
    ids = re.findall(r'name="id" value="(\w+)"', page)
    assert len(ids) == 2
    fields = {"id": ids, "seen": seen(lab), **{f"trial.{k}": "T001" for k in ids}}
    answer = lab.post(f"{BASE}/files/attach", data=fields)
    assert answer.headers["location"] == f"{BASE}/trials/T001"
    records = state_of(lab_root).trials["T001"].records
    assert [r.device for r in records] == ["T001_dev1", "T002_dev1"]
    shown = read(lab, f"{BASE}/files")
    assert "Looked at, not attached yet (1)" in shown
    sha = records[0].file
    assert lab.get(f"{BASE}/raw/{sha}").content == lab_content.sweep_csv()
    assert lab.get(f"{BASE}/raw/{'0' * 64}").status_code == 404


@pytest.mark.slow
def test_columns_are_confirmed_once_for_all_files_of_a_kind(
    lab_root: Path, lab: httpx.Client
) -> None:
    odd = ("file", ("T001 odd.csv", lab_content.sweep_csv("a,b")))
    answer = lab.post(f"{BASE}/files", files=[odd])
    place = answer.headers["location"]
    assert "no voltage column" in read(lab, place)
    fields = {"role.0.1": "voltage", "role.0.2": "current", "current_unit": "mA", "keep": "ours"}
    shown = post(lab, f"{place}/mapping", seen=seen(lab), **fields)
    assert 'Further files with the same headers are read as "ours"' in shown
    figure = lab.get(f"{place}/loop.json").json()
    assert max(y for y in figure["data"][0]["y"] if y) == pytest.approx(2e-6)  # 2 of "mA"
    answer = lab.post(f"{BASE}/files", files=[("file", ("T002.csv", lab_content.sweep_csv("a,b")))])
    assert "as explained before: ours" in read(lab, answer.headers["location"])
    wrong = lab.post(f"{place}/mapping", data={"role.0.1": "voltage"})
    assert wrong.status_code == 400
    assert "which holds currents" in words(wrong.text)


@pytest.mark.slow
def test_a_real_workbook_is_recognised_with_intervals(
    nanowires: Path, lab_root: Path, lab: httpx.Client
) -> None:
    path = sorted((nanowires / "raw").glob("*.xlsx"))[0]
    answer = lab.post(f"{BASE}/files", files=[("file", ("T001_a.xlsx", path.read_bytes()))])
    place = answer.headers["location"]
    shown = read(lab, place)
    assert "perovskite-workbook, 100 % sure" in shown
    assert re.search(r"usability [\d.]+ [\d.]+ to [\d.]+", shown)
    rows = lab.get(f"{place}/loop.csv").text.splitlines()
    assert rows[0] == "cycle,voltage_V,current_A"
    shown = post(lab, f"{place}/leave-out")
    assert "is left out; nothing was recorded of it" in shown


@pytest.mark.slow
def test_a_sheet_goes_out_and_comes_back(lab_root: Path, lab: httpx.Client) -> None:
    text = lab.get(f"{BASE}/sheet.csv").raise_for_status().text
    filled = text.replace("T001,suggested", "T001,accepted")
    assert lab.get(f"{BASE}/sheet.xlsx").content[:2] == b"PK"
    answer = lab.post(f"{BASE}/sheet", files={"file": ("s.csv", filled.encode())})
    assert "From the sheet: 1 decision" in read(lab, answer.headers["location"])
    answer = lab.post(f"{BASE}/sheet", files={"file": ("s.csv", b"trial,status\nT999,x\n")})
    assert answer.status_code == 422
    assert state_of(lab_root).trials["T001"].status == "accepted"


BROKEN = lab_content.SETTINGS.replace("budget", "bugdet")


def was_in(html: str) -> str:
    """Return the digest of the file that a page of settings shows."""
    found = re.search(r'name="was" value="(\w+)"', html)
    assert found is not None
    return found[1]


def test_a_damaged_campaign_is_mended_on_the_page(lab_root: Path, lab: httpx.Client) -> None:
    path = lab_root / "films" / "campaign.toml"
    path.write_text(BROKEN)
    page = lab.get(f"{BASE}/settings").text
    assert 'data-line="35"' in page
    assert "readonly" not in page
    fields = {"seen": seen(lab, f"{BASE}/settings"), "was": was_in(page)}
    still = lab.post(f"{BASE}/settings", data={**fields, "text": BROKEN.replace("20", "30")})
    assert still.status_code == 422
    assert "trials = 30" in still.text  # nothing typed is lost
    assert path.read_text() == BROKEN
    shown = post(lab, f"{BASE}/settings", **fields, text=lab_content.SETTINGS.replace("20", "30"))
    assert "The settings are mended" in shown
    assert "trials = 30" in path.read_text()
    assert state_of(lab_root).config_text == path.read_text()


def test_mending_overwrites_nothing_that_somebody_changed_meanwhile(
    lab_root: Path, lab: httpx.Client
) -> None:
    path = lab_root / "films" / "campaign.toml"
    path.write_text(BROKEN)
    fields = {"seen": "1", "was": was_in(lab.get(f"{BASE}/settings").text)}
    path.write_text(BROKEN.replace("180", "170"))  # by another hand, and broken still
    mine = lab_content.SETTINGS.replace("180", "190")
    answer = lab.post(f"{BASE}/settings", data={**fields, "text": mine})
    assert answer.status_code == 409
    assert "was changed meanwhile" in words(answer.text)
    assert "high = 190" in answer.text
    assert "high = 170" in answer.text
    assert path.read_text() == BROKEN.replace("180", "170")
    post(lab, f"{BASE}/settings", **{**fields, "was": was_in(answer.text)}, text=mine)
    assert path.read_text() == mine


def test_settings_that_broke_while_their_page_was_open_are_not_overwritten_unseen(
    lab_root: Path, lab: httpx.Client
) -> None:
    page = lab.get(f"{BASE}/settings").text
    fields = {"seen": seen(lab, f"{BASE}/settings"), "was": was_in(page)}
    (lab_root / "films" / "campaign.toml").write_text(BROKEN)
    answer = lab.post(f"{BASE}/settings", data={**fields, "text": lab_content.SETTINGS})
    assert answer.status_code == 409
    assert "bugdet" in answer.text
