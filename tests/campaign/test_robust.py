"""Kill -9 at any moment, and several people at the same time: what was reported as recorded is there."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ohmloop.campaign import Campaign
from tests.store import crash

pytestmark = pytest.mark.slow

if not hasattr(os, "fork"):
    pytest.skip("kills need a system that forks", allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[crash.Server]:
    with crash.server(tmp_path_factory.mktemp("server") / "warm") as server:
        yield server


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of two variables and five results: the model suggests, in a fraction of a second."""
    folder = tmp_path_factory.mktemp("small") / "lab"
    with Campaign.new(folder, text=crash.SETTINGS, actor="ann") as campaign:
        for k, y in enumerate((1.0, 2.0, 3.0, 1.5, 2.5)):
            trial, _ = campaign.add({"a": k / 5, "b": "pq"[k % 2]})
            campaign.record(trial.id, values={"y": y}, passed="all")
    return folder


def reported(log: Path) -> list[tuple[str, str]]:
    """What a job said was recorded; its lines are written whole."""
    if not log.exists():
        return []
    return [(line.split()[0], line.split()[1]) for line in log.read_text().splitlines()]


def missing(campaign: Campaign, log: Path) -> list[tuple[str, str]]:
    """What was reported and is not in the campaign."""
    state = campaign.state
    devices = {r.device for t in state.trials.values() for r in t.records}
    there = {("recorded", name) for name in devices} | {("ingested", name) for name in devices}
    for event in state.history:
        if event.kind == "suggested":
            there |= {("suggested", t["id"]) for t in event.data["trials"]}
        elif event.kind in ("added", "accepted", "rejected"):
            there.add((event.kind, event.data["trial"]))
    return [line for line in reported(log) if line not in there]


def assert_sound(folder: Path, log: Path) -> int:
    """The folder opens, holds what was reported, all of it whole, and takes further records."""
    with Campaign.open(folder, actor="after") as campaign:
        assert missing(campaign, log) == []
        assert campaign.check() == []
        history = campaign.state.history
        assert [e.id for e in history] == list(range(1, len(history) + 1))
        records = [r for t in campaign.trials.values() for r in t.records]
        for record in records:
            if record.file:
                content = campaign.file_path(record.file).read_bytes()
                assert hashlib.sha256(content).hexdigest() == record.file
                name = campaign.files()[record.file]
                assert content == crash.sweep(Path(name).stem).encode()
        kept = {p.name for p in (folder / "raw").rglob("*") if p.is_file()}
        assert set(campaign.files()) <= kept
        names = [r.device for r in records if "-" in r.device]
        assert len(set(names)) == len(names)
        further = f"after-{len(history)}"
        campaign.record("T001", values={"y": 1.0}, device=further)
        assert campaign.trials["T001"].records[-1].device == further
    return len(history)


def kill_often(
    server: crash.Server,
    small: Path,
    tmp_path: Path,
    *,
    job: str,
    n_kills: int,
    longest: float,
    seed: int,
) -> tuple[int, int]:
    """Kill a job ``n_kills`` times, each after up to ``longest`` seconds, and look after each.

    Returns:
        How many things were reported, and how many kills hit before the first report.
    """
    rng = np.random.default_rng(seed)
    log = tmp_path / "log"
    n_reported = n_early = 0
    for k in range(n_kills):
        folder = tmp_path / f"lab{k // 10}"
        if k % 10 == 0:  # a folder lives through ten kills, then a fresh one keeps the looks cheap
            log.unlink(missing_ok=True)
            shutil.copytree(small, folder)
        before = len(reported(log))
        child = server.begin(job, folder, log, f"{job}{k}")
        assert server.kill_after(float(rng.uniform(0, longest)), child) == -9
        assert_sound(folder, log)
        new = len(reported(log)) - before
        n_reported, n_early = n_reported + new, n_early + (new == 0)
    return n_reported, n_early


@pytest.mark.long
def test_80_kills_while_recording_lose_nothing(
    server: crash.Server, small: Path, tmp_path: Path
) -> None:
    n_reported, _ = kill_often(
        server, small, tmp_path, job="record", n_kills=80, longest=0.12, seed=1
    )
    assert n_reported > 80  # or the kills came before the work


@pytest.mark.long
def test_80_kills_while_ingesting_lose_nothing(
    server: crash.Server, small: Path, tmp_path: Path
) -> None:
    n_reported, _ = kill_often(
        server, small, tmp_path, job="ingest", n_kills=80, longest=0.3, seed=2
    )
    assert n_reported > 40


@pytest.mark.long
def test_60_kills_while_suggesting_lose_nothing(
    server: crash.Server, small: Path, tmp_path: Path
) -> None:
    n_reported, n_early = kill_often(
        server, small, tmp_path, job="suggest", n_kills=60, longest=1.0, seed=3
    )
    assert n_reported > 20
    assert n_early > 0


def test_40_kills_while_starting_leave_a_folder_that_can_be_started_or_opened(
    server: crash.Server, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    log = tmp_path / "log"
    n_cut = 0
    for k in range(40):
        place = tmp_path / f"starts{k}"
        child = server.begin("start", place, log, "c")
        assert server.kill_after(float(rng.uniform(0, 0.1)), child) == -9
        finished = {name for kind, name in reported(log)}
        for folder in place.iterdir() if place.exists() else ():
            if not (folder / "campaign.db").exists():
                has_settings = (folder / "campaign.toml").exists()
                Campaign.new(folder, text=None if has_settings else crash.SETTINGS).close()
            elif folder.name not in finished and not (folder / "campaign.toml").exists():
                n_cut += 1
                Campaign.new(folder, text=crash.SETTINGS).close()
            with Campaign.open(folder) as campaign:
                assert campaign.check() == []
                trial, _ = campaign.add({"a": 0.5, "b": "p"})
                assert trial.id == "T001"
                assert campaign.state.config_text == crash.SETTINGS
        log.unlink(missing_ok=True)


def test_four_recording_and_one_suggesting_at_the_same_time_lose_nothing(
    server: crash.Server, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "lab"
    shutil.copytree(small, folder)
    jobs = [("record", 40), ("record", 40), ("record", 40), ("ingest", 15), ("suggest", 3)]
    logs = [tmp_path / f"log{k}" for k in range(len(jobs))]
    children = [
        server.begin(job, folder, log, f"{job}{k}", n)
        for k, ((job, n), log) in enumerate(zip(jobs, logs, strict=True))
    ]
    assert [server.end(child) for child in children] == [0] * len(jobs)
    with Campaign.open(folder) as campaign:
        assert [missing(campaign, log) for log in logs] == [[]] * len(jobs)
        made = [
            name
            for e in campaign.state.history
            for name in (
                [t["id"] for t in e.data["trials"]]
                if e.kind == "suggested"
                else [e.data["trial"]]
                if e.kind == "added"
                else []
            )
        ]
        assert made == [f"T{k:03d}" for k in range(1, len(made) + 1)]
    assert [len(reported(log)) for log in logs] == [56, 56, 56, 15, 7]
    assert_sound(folder, logs[0])


def test_kills_among_others_who_go_on_lose_nothing(
    server: crash.Server, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "lab"
    shutil.copytree(small, folder)
    rng = np.random.default_rng(5)
    steady = tmp_path / "steady"
    going_on = server.begin("record", folder, steady, "steady", 150)
    log = tmp_path / "log"
    for k in range(20):
        child = server.begin("record", folder, log, f"killed{k}")
        assert server.kill_after(float(rng.uniform(0, 0.08)), child) == -9
    assert server.end(going_on) == 0
    assert len(reported(steady)) == 150 + 2 * 30
    with Campaign.open(folder) as campaign:
        assert missing(campaign, steady) == []
    assert_sound(folder, log)


def test_four_that_ingest_the_same_file_record_it_once(
    server: crash.Server, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "lab"
    shutil.copytree(small, folder)
    log = tmp_path / "log"
    for k in range(5):
        (tmp_path / f"same{k}.csv").write_text(crash.sweep(f"same{k}"))
        children = [server.begin("share", folder, log, f"same{k}", 1) for _ in range(4)]
        assert [server.end(child) for child in children] == [0] * 4
    with Campaign.open(folder) as campaign:
        records = campaign.trials["T001"].records
        assert sorted(r.device for r in records if r.file) == [f"same{k}" for k in range(5)]
    told = [kind for kind, _ in reported(log)]
    assert (told.count("recorded"), told.count("unchanged")) == (5, 15)


def test_two_who_start_the_same_campaign_do_not_mix(server: crash.Server, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for k in range(10):
        children = [server.begin("race", tmp_path / f"lab{k}", log, "race", 1) for _ in range(3)]
        assert [server.end(child) for child in children] == [0] * 3
        with Campaign.open(tmp_path / f"lab{k}") as campaign:
            assert [e.kind for e in campaign.state.history].count("created") == 1
            assert campaign.check() == []
    assert [kind for kind, _ in reported(log)].count("started") == 10
