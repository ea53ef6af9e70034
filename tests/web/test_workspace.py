"""The folder that is served: listed, found by listing, and nothing beyond it."""

import os
from pathlib import Path

import pytest

from ohmloop.campaign import Campaign
from ohmloop.device import load_device, save_device
from ohmloop.web._errors import NameTakenError, NotFoundError, WebError
from ohmloop.web._workspace import Workspace

TEMPLATE = "perovskite-nanowires"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "lab"
    place.mkdir()
    Campaign.new(place / "films", template=TEMPLATE).close()
    return place


def test_campaigns_runs_devices_and_loops_are_listed(root: Path) -> None:
    Campaign.new(root / "Übung 2", template=TEMPLATE).close()
    (root / "films" / "codesign.toml").write_text("")
    (root / "runs" / "first").mkdir(parents=True)
    (root / "runs" / "first" / "config.json").write_text("{}")
    (root / "runs" / "no-run").mkdir()
    (root / "devices").mkdir()
    save_device(load_device("lognormal:0.3"), root / "devices" / "mine.json")
    space = Workspace.at(root)
    assert space.campaigns() == ["films", "Übung 2"]
    assert space.loops() == ["films"]
    assert space.runs() == ["first"]
    assert space.devices() == ["mine"]
    assert space.campaign("films") == root / "films"
    assert space.run("first") == root / "runs" / "first"
    assert space.device("mine") == root / "devices" / "mine.json"


def test_the_folder_of_a_campaign_opens_its_parent_on_it(root: Path) -> None:
    space = Workspace.at(root / "films")
    assert (space.root, space.start) == (root, "films")


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Name a folder that exists"):
        Workspace.at(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFoundError, match="is no folder"):
        Workspace.at(tmp_path / "file")


HOSTILE = [
    "..",
    ".",
    "",
    "/",
    "../lab/films",
    "films/..",
    "films/../../secret",
    "/etc/passwd",
    "..\\films",
    "C:\\films",
    "films\0",
    "films%2f..",
    "FILMS ",
    "\u2024\u2024/films",
    "\uff0e\uff0e",
    "fi\ufb01lms",
    "\ud800",
    "x" * 100_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_leads_out_of_the_folder(root: Path, name: str) -> None:
    Campaign.new(root.parent / "secret", template=TEMPLATE).close()
    space = Workspace.at(root)
    for find in (space.campaign, space.run, space.device, space.loop):
        with pytest.raises(NotFoundError, match="there is no"):
            find(name)
    with pytest.raises(NotFoundError, match="there is no report"):
        space.report(root / "films", name)


def test_links_that_leave_the_folder_are_not_listed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    Campaign.new(outside, template=TEMPLATE).close()
    (outside / "config.json").write_text("{}")
    os.symlink(outside, root / "linked")
    os.symlink(tmp_path, root / "runs")
    os.symlink(tmp_path / "devices", root / "devices")
    (tmp_path / "devices").mkdir()
    save_device(load_device("lognormal:0.3"), tmp_path / "devices" / "mine.json")
    half = root / "half"
    half.mkdir()
    os.symlink(outside / "campaign.toml", half / "campaign.toml")
    os.symlink(outside / "campaign.db", half / "campaign.db")
    reports = root / "films" / "reports"
    reports.mkdir()
    os.symlink(outside / "campaign.toml", reports / "stolen.html")
    os.symlink(root / "loop", root / "loop")
    space = Workspace.at(root)
    assert space.campaigns() == ["films"]
    assert space.runs() == space.devices() == space.reports(root / "films") == []


def test_links_within_the_folder_are_followed(root: Path) -> None:
    os.symlink(root / "films", root / "same")
    assert Workspace.at(root).campaigns() == ["films", "same"]


def test_hidden_entries_and_words_of_urls_are_no_campaigns(root: Path) -> None:
    for name in (".hidden", "new", "line\nbreak"):
        Campaign.new(root / name, template=TEMPLATE).close()
    assert Workspace.at(root).campaigns() == ["films"]


@pytest.mark.parametrize("wanted", ["second", "Film 2 (May)", " padded ", "Ümlaut", "a.b-c+d"])
def test_a_good_name_gives_a_place(root: Path, wanted: str) -> None:
    place = Workspace.at(root).new_name("campaign", wanted)
    assert place == root / wanted.strip()


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        " ",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "a\0",
        "x" * 81,
        "con",
        "NUL.txt",
        "a.",
        "a:b",
        "a\nb",
    ],
)
def test_a_name_that_no_file_can_have_is_refused(root: Path, wanted: str) -> None:
    with pytest.raises(WebError, match="cannot name a campaign"):
        Workspace.at(root).new_name("campaign", wanted)


@pytest.mark.parametrize("wanted", ["films", "FILMS", "runs", "new", "Devices"])
def test_a_name_that_is_taken_is_refused(root: Path, wanted: str) -> None:
    with pytest.raises(NameTakenError, match="already"):
        Workspace.at(root).new_name("campaign", wanted)


def test_reports_are_found_newest_first(root: Path) -> None:
    reports = root / "films" / "reports"
    reports.mkdir()
    for age, name in enumerate(["new.html", "old.csv"]):
        (reports / name).write_text("x")
        os.utime(reports / name, (1000 - age, 1000 - age))
    (reports / "script.js").write_text("x")
    space = Workspace.at(root)
    assert space.reports(root / "films") == ["new.html", "old.csv"]
    assert space.report(root / "films", "old.csv") == reports / "old.csv"
