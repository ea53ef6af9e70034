"""The store: what it says it recorded is there, once, unchanged, whatever happens around it."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ohmloop.errors import StoreError
from ohmloop.store import Draft, Store
from ohmloop.store import _schema as schema


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lab"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store.create(folder) as store:
        yield store


def filled(folder: Path, n: int = 20) -> None:
    """Make a store with ``n`` events, some with keys, some with raw files, over several pages."""
    rng = np.random.default_rng(n)
    with Store.create(folder) as store:
        for k in range(1, n + 1):
            data = {"k": k, "text": rng.bytes(60).hex()}
            files = {store.add_file(rng.bytes(200)): f"file {k}.csv"} if k % 4 == 0 else {}
            key = f"key {k}" if k % 3 == 0 else None
            store.append(Draft("recorded", data, key=key, files=files), actor="ann")


def run_python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# -- events -------------------------------------------------------------------------------------


def test_events_are_numbered_from_one_without_gaps(store: Store, folder: Path) -> None:
    made = store.append(Draft("a", {"x": 1}), Draft("b", {}), actor="ann")
    made += store.append(Draft("c", {"y": [1.5, None, "µ"]}), actor="ben")
    with Store.open(folder) as again:
        assert again.events() == made
    assert [e.id for e in made] == [1, 2, 3]
    assert [(e.kind, e.actor) for e in made] == [("a", "ann"), ("b", "ann"), ("c", "ben")]
    assert made[2].data == {"y": [1.5, None, "µ"]}
    assert [e.id for e in store.events(after=2)] == [3]


def test_numbers_have_no_gap_after_a_refused_step(store: Store) -> None:
    store.append(Draft("a", {}))
    with pytest.raises(StoreError, match="put the file into the store"):
        store.append(Draft("b", {}), Draft("c", {}, files={"0" * 64: "x.csv"}))
    store.append(Draft("d", {}))
    assert [(e.id, e.kind) for e in store.events()] == [(1, "a"), (2, "d")]


def test_append_records_all_or_none(store: Store) -> None:
    with pytest.raises(StoreError, match=r"x\.csv: put the file into the store before"):
        store.append(Draft("a", {}, key="k"), Draft("b", {}, files={"0" * 64: "x.csv"}))
    assert store.events() == []
    assert store.files() == {}
    assert [e.kind for e in store.append(Draft("a", {}, key="k"))] == ["a"]  # the key is free still


def test_a_key_makes_an_event_happen_once(store: Store, folder: Path) -> None:
    assert len(store.append(Draft("a", {}, key="once"))) == 1
    assert store.append(Draft("a", {}, key="once")) == []
    with Store.open(folder) as other:
        assert [e.kind for e in other.append(Draft("a", {}, key="once"), Draft("b", {}))] == ["b"]
    assert [e.kind for e in store.events()] == ["a", "b"]


def test_an_exception_in_decide_records_nothing(store: Store) -> None:
    def decide(events: list[object]) -> list[Draft]:
        raise RuntimeError("changed my mind")

    store.append(Draft("a", {}))
    with pytest.raises(RuntimeError, match="changed my mind"):
        store.transact(decide)
    assert [e.kind for e in store.events()] == ["a"]
    assert [e.id for e in store.append(Draft("b", {}))] == [2]


def test_decide_sees_what_others_recorded(store: Store, folder: Path) -> None:
    store.append(Draft("a", {}))
    with Store.open(folder) as other:
        other.append(Draft("b", {}))
    seen: list[str] = []
    store.transact(lambda new: [seen.extend(e.kind for e in new) or Draft("c", {})], after=1)
    assert seen == ["b"]


@pytest.mark.parametrize(
    "data", [{"x": float("nan")}, {"x": [float("inf")]}, {"x": object()}, {"x": b"bytes"}]
)
def test_what_is_no_json_is_refused_and_nothing_recorded(
    store: Store, data: dict[str, object]
) -> None:
    with pytest.raises(StoreError, match=r'"recorded" cannot be kept.*Nothing of this step'):
        store.append(Draft("good", {}), Draft("recorded", data))
    assert store.events() == []


def test_text_that_is_no_unicode_is_kept_printable(store: Store, folder: Path) -> None:
    broken = os.fsdecode(b"T001_\xff.csv")  # what Linux gives for a name in Latin-1
    sha256 = store.add_file(b"1,2")
    draft = Draft("a", {"name": broken}, key=broken, files={sha256: broken})
    made = store.append(draft, actor=broken)
    assert store.append(draft) == []
    with Store.open(folder) as again:
        assert again.events() == made
        assert again.check() == []
        assert list(again.files().values()) == ["T001_\\udcff.csv"]
    assert made[0].data == {"name": "T001_\\udcff.csv"}
    made[0].actor.encode()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update events set data = '{}'", "events are never edited"),
        ("delete from events", "events are never deleted"),
    ],
)
def test_events_cannot_be_edited_or_deleted(folder: Path, statement: str, message: str) -> None:
    filled(folder, 3)
    db = sqlite3.connect(folder / "campaign.db")
    with pytest.raises(sqlite3.IntegrityError, match=message):
        db.execute(statement)
    db.close()
    with Store.open(folder) as store:
        assert len(store.events()) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("update events set data = '{\"k\":99}' where id = 5", 5),
        ("update events set at = '2020-01-01' where id = 5", 5),
        ("update events set actor = 'eve' where id = 1", 1),
        ("update events set kind = x'00ff' where id = 5", 5),
        ("update events set id = 99 where id = 5", 5),
        ("delete from keys where event = 3; delete from events where id = 3", 3),
        ("delete from files where event = 8; delete from events where id = 8", 8),
        ("delete from events where id = 7", 7),
        ("delete from events where id = 10", 10),
        ("delete from events where id > 1", 2),
        ("update files set name = 'other.csv' where event = 8", 8),
        ("delete from files where event = 8", 8),
        ("delete from keys where event = 6", 6),
        ("update keys set key = 'other' where event = 6", 6),
        ("update events set digest = 'x' where id = 10", 10),
        ("insert into events values (11, 'now', 'eve', 'recorded', '{}', 'x')", 11),
    ],
)
def test_an_edit_from_outside_is_noticed_and_named(
    folder: Path, statement: str, event: int
) -> None:
    filled(folder, 10)
    db = sqlite3.connect(folder / "campaign.db")
    db.executescript(
        "drop trigger events_are_never_edited; drop trigger events_are_never_deleted;"
        f"pragma foreign_keys = off; {statement};"
    )
    db.close()
    for writable in (True, False):
        with pytest.raises(StoreError, match=rf"event {event}\b"):
            Store.open(folder, writable=writable)


def test_an_edit_is_noticed_by_a_store_that_is_open(store: Store, folder: Path) -> None:
    store.append(Draft("a", {"x": 1}), Draft("b", {}))
    db = sqlite3.connect(folder / "campaign.db", isolation_level=None)
    db.execute("drop trigger events_are_never_edited")
    db.execute("update events set data = '{\"x\":2}' where id = 1")
    db.close()
    assert any("event 1" in line for line in store.check())


# -- raw files ----------------------------------------------------------------------------------


def test_a_raw_file_is_kept_once(store: Store, folder: Path) -> None:
    content = b"V,I\n1,2\n"
    sha256 = store.add_file(content)
    inode = store.file_path(sha256).stat().st_ino
    assert store.add_file(content) == sha256 == hashlib.sha256(content).hexdigest()
    assert store.file_path(sha256).stat().st_ino == inode
    store.append(Draft("a", {}, files={sha256: "one.csv"}))
    store.append(Draft("b", {}, files={sha256: "two.csv"}))
    assert store.files() == {sha256: "one.csv"}
    assert [p.read_bytes() for p in (folder / "raw").rglob("*") if p.is_file()] == [content]
    assert store.check() == []


def test_check_reports_a_missing_or_changed_raw_file(store: Store) -> None:
    one, two = store.add_file(b"one"), store.add_file(b"two")
    store.append(Draft("a", {}, files={one: "one.csv", two: "two.csv"}))
    assert store.check() == []
    store.file_path(one).unlink()
    store.file_path(two).write_bytes(b"TWO")
    found = "\n".join(store.check())
    assert "raw file of one.csv is missing" in found
    assert "raw file of two.csv was changed" in found


def test_adding_a_changed_raw_file_again_mends_it(store: Store) -> None:
    sha256 = store.add_file(b"content")
    store.append(Draft("a", {}, files={sha256: "a.csv"}))
    store.file_path(sha256).write_bytes(b"CONTENT")
    assert store.add_file(b"content") == sha256
    assert store.check() == []


def test_a_raw_file_its_name_and_its_new_folders_are_synced(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        really(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only /proc tells which file a descriptor belongs to")
    monkeypatch.setattr(os, "fsync", fsync)
    path = store.file_path(store.add_file(b"content")).resolve()
    folders = [str(path.parent), str(path.parent.parent), str(folder.resolve())]
    assert [name for name in folders if name not in synced] == []
    assert any(name.startswith(f"{path.parent}{os.sep}") for name in synced)


# -- opening ------------------------------------------------------------------------------------


def test_opening_a_folder_without_a_campaign_says_how_to_start_one(tmp_path: Path) -> None:
    for writable in (True, False):
        with pytest.raises(StoreError, match=r"is no campaign.*ohmloop campaign new"):
            Store.open(tmp_path, writable=writable)
    assert list(tmp_path.iterdir()) == []


def test_a_campaign_is_created_once(folder: Path) -> None:
    filled(folder, 2)
    with pytest.raises(StoreError, match="holds a campaign already"):
        Store.create(folder)
    with Store.open(folder) as store:
        assert len(store.events()) == 2


@pytest.mark.parametrize("content", [None, b""])
def test_a_creation_that_was_cut_short_can_be_repeated(folder: Path, content: bytes | None) -> None:
    if content is None:
        Store.create(folder).close()  # killed before the first event
    else:
        folder.mkdir()
        (folder / "campaign.db").write_bytes(content)
        with pytest.raises(StoreError, match="is damaged: it holds no tables"):
            Store.open(folder)
    with Store.create(folder) as store:
        store.append(Draft("created", {}))
        assert store.check() == []


def test_an_emptied_database_is_not_taken_for_a_new_one(folder: Path) -> None:
    filled(folder, 3)
    (folder / "campaign.db").write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged: it holds no tables"):
        Store.create(folder)
    with pytest.raises(StoreError, match="is damaged: it holds no tables"):
        Store.open(folder)
    assert (folder / "campaign.db").read_bytes() == b""


def version_one(folder: Path) -> list[tuple[object, ...]]:
    """Write a database as the first schema had it, with the formula of its digest spelt out."""
    import json

    folder.mkdir()
    db = sqlite3.connect(folder / "campaign.db", isolation_level=None)
    db.execute("pragma journal_mode = wal")
    schema.migrate(db, upto=1)
    before, rows = "", []
    for k in range(1, 6):
        row = (k, "2026-01-01T00:00:00+00:00", "ann", "recorded", json.dumps({"k": k}))
        before = hashlib.sha256(json.dumps([before, *row]).encode()).hexdigest()
        db.execute("insert into events values (?, ?, ?, ?, ?, ?)", (*row, before))
        rows.append(row)
    db.close()
    return rows


def test_migration_from_version_1_keeps_the_events(folder: Path) -> None:
    rows = version_one(folder)
    with Store.open(folder, writable=False) as reader:  # reads it as it is
        assert [e.id for e in reader.events()] == [row[0] for row in rows]
        assert reader.check() == []
    with sqlite3.connect(folder / "campaign.db") as db:
        assert schema.version_of(db) == 1
    db.close()
    with Store.open(folder) as store:
        kept = [(e.id, e.at, e.actor, e.kind, e.data) for e in store.events()]
        assert kept == [(*row[:4], {"k": row[0]}) for row in rows]
        assert [e.id for e in store.append(Draft("new", {}, key="k"))] == [6]
        assert store.append(Draft("new", {}, key="k")) == []
        assert store.check() == []


def test_a_failed_migration_step_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_one(folder)
    broken = (schema.MIGRATIONS[0], ("create table extra (x)", "create table events (x)"))
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(StoreError, match="table events already exists"):
        Store.open(folder)
    monkeypatch.undo()
    with Store.open(folder) as store:
        assert len(store.events()) == 5


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_schema_is_refused_and_stays_as_it_is(folder: Path, writable: bool) -> None:
    filled(folder, 3)
    with sqlite3.connect(folder / "campaign.db") as db:
        db.execute("pragma user_version = 99")
    db.close()
    before = (folder / "campaign.db").read_bytes()
    with pytest.raises(StoreError, match=r"schema version 99.*Update ohmloop"):
        Store.open(folder, writable=writable)
    assert (folder / "campaign.db").read_bytes() == before


def test_a_strange_schema_version_is_damage(folder: Path) -> None:
    filled(folder, 3)
    for version in (-1, -(2**31)):
        with sqlite3.connect(folder / "campaign.db") as db:
            db.execute(f"pragma user_version = {version}")
        db.close()
        for writable in (True, False):
            with pytest.raises(StoreError, match="is damaged"):
                Store.open(folder, writable=writable)


def test_a_database_of_another_program_is_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / "campaign.db") as db:
        db.execute("create table theirs (x)")
    db.close()
    before = (folder / "campaign.db").read_bytes()
    for attempt in (Store.create, Store.open):
        with pytest.raises(StoreError, match="holds"):
            attempt(folder)
    assert (folder / "campaign.db").read_bytes() == before


def test_a_store_opened_for_reading_refuses_to_write(folder: Path) -> None:
    filled(folder, 3)
    with Store.open(folder, writable=False) as store:
        with pytest.raises(StoreError, match="opened for reading; nothing was recorded"):
            store.append(Draft("a", {}))
        with pytest.raises(StoreError, match="opened for reading; nothing was kept"):
            store.add_file(b"x")
        assert len(store.events()) == 3
        store.close()
    store.close()


def test_a_writer_that_never_lets_go_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(folder, 2)
    monkeypatch.setattr("ohmloop.store._disk.WAIT_SECONDS", 0.1)
    other = sqlite3.connect(folder / "campaign.db", isolation_level=None)
    with Store.open(folder) as store:
        other.execute("begin immediate")
        with pytest.raises(StoreError, match=r"another program has held.*Close it and repeat"):
            store.append(Draft("a", {}))
        other.execute("rollback")
        other.close()
        assert [e.id for e in store.append(Draft("a", {}))] == [3]


@pytest.mark.parametrize("put", ["nothing", "a copy"])
def test_nothing_is_recorded_in_a_database_that_was_taken_away(folder: Path, put: str) -> None:
    filled(folder, 2)
    path = folder / "campaign.db"
    with Store.open(folder) as store:
        if put == "a copy":
            shutil.copy(path, folder / "copy")
            (folder / "copy").replace(path)
        else:
            path.unlink()
        with pytest.raises(StoreError, match=r"moved or replaced.*nothing of this step"):
            store.append(Draft("lost", {}))


READ_ONLY = """
import os, sys
from pathlib import Path
from ohmloop.store import Draft, Store
from ohmloop.errors import StoreError
os.setgid(65534); os.setuid(65534)  # root may write everywhere
folder = Path(sys.argv[1])
with Store.open(folder, writable=False) as store:
    print(len(store.events()), len(store.files()), store.check())
try:
    Store.open(folder)
except StoreError as error:
    print(error)
try:
    Store.create(folder / "new")
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("in_use", [False, True])
def test_a_read_only_folder_can_be_read_and_writing_says_so(in_use: bool) -> None:
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can become a user who may not write here")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name) / "lab"
        filled(folder)
        with Store.open(folder) as writer:
            if in_use:
                writer.append(Draft("recorded", {}))
            else:
                writer.close()
            names = sorted(p.name for p in folder.iterdir())
            done = run_python(READ_ONLY, folder)
            assert sorted(p.name for p in folder.iterdir()) == names
    if "Permission" in done.stderr and not done.stdout:
        pytest.skip(f"the other user cannot run this Python: {done.stderr[-200:]}")
    assert done.stderr == ""
    first, second, third = done.stdout.splitlines()
    assert first == f"{21 if in_use else 20} 5 []"
    assert "is read-only for this user" in second
    assert "Permission denied (nothing was created)" in third


# -- full disks ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 1 MiB; skips where none can be mounted."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no mount here: {error}")
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def fill_up(path: Path) -> None:
    """Write until the disk is full to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def test_a_full_disk_is_said_loses_nothing_and_recording_goes_on_after(small_disk: Path) -> None:
    folder = small_disk / "lab"
    filled(folder, 5)
    kept = b"measured" * 100
    with Store.open(folder) as store:
        raw = store.add_file(kept)
        store.append(Draft("recorded", {}, files={raw: "kept.csv"}))
        before = store.events()
        fill_up(small_disk / "ballast")
        for _ in range(3):
            with pytest.raises(StoreError, match=r"disk is full \(nothing of this step was rec"):
                store.append(Draft("big", {"text": "x" * 300_000}))
        with pytest.raises(StoreError, match=r"disk is full \(the file was not kept\)"):
            store.add_file(b"y" * 300_000)
        assert store.events() == before
        assert store.file_path(raw).read_bytes() == kept
        (small_disk / "ballast").unlink()
        assert [e.id for e in store.append(Draft("recorded", {}))] == [7]
        assert store.check() == []
        assert [p.name for p in (folder / "raw").rglob(".part-*")] == []
    with Store.open(folder) as store:
        assert len(store.events()) == 7
        assert store.events()[:6] == before


def test_opening_on_a_full_disk_reads_or_says_so(small_disk: Path) -> None:
    folder = small_disk / "lab"
    filled(folder, 5)
    fill_up(small_disk / "ballast")
    for writable in (True, False):
        try:
            with Store.open(folder, writable=writable) as store:
                assert len(store.events()) == 5
        except StoreError as error:
            assert "disk is full" in str(error)  # noqa: PT017  # either outcome is right
    with pytest.raises(StoreError, match="disk is full"):
        Store.create(small_disk / "other")
    (small_disk / "ballast").unlink()
    with Store.open(folder) as store:
        assert [e.id for e in store.append(Draft("a", {}))] == [6]
    with Store.create(small_disk / "other") as store:
        store.append(Draft("a", {}))


SMALL_FILES = """
import resource, signal, sys
from pathlib import Path
from ohmloop.store import Draft, Store
from ohmloop.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with Store.open(Path(sys.argv[1])) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, hard))
    for action in (
        lambda: store.append(Draft("a", {"text": "x" * 400_000})),
        lambda: store.add_file(b"y" * 400_000),
    ):
        try:
            action()
        except StoreError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print([e.id for e in store.append(Draft("b", {}))], store.check())
"""


def test_a_write_that_the_system_cuts_off_loses_nothing(folder: Path) -> None:
    if not hasattr(signal, "SIGXFSZ"):
        pytest.skip("this system has no limit for the size of a file")
    filled(folder, 5)
    with Store.open(folder) as store:
        before = store.events()
    done = run_python(SMALL_FILES, folder)
    assert done.stderr == ""
    first, second, third = done.stdout.splitlines()
    assert "does not take or give data" in first
    assert "nothing of this step was recorded" in first
    assert "disk is full (the file was not kept)" in second
    assert third == "[6] []"
    with Store.open(folder) as store:
        assert store.events()[:5] == before


# -- damage -------------------------------------------------------------------------------------


def flip_one(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return data


def flip_in_header(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    data[rng.integers(120)] = int(rng.integers(256))
    return data


def flip_in_page_head(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    at = 4096 * int(rng.integers(len(data) // 4096)) + int(rng.integers(24))
    data[at] = int(rng.integers(256))
    return data


def flip_many(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    for at in rng.integers(0, len(data), int(rng.integers(2, 50))):
        data[at] = int(rng.integers(256))
    return data


def truncate(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def blank_sector(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    at = 512 * int(rng.integers(len(data) // 512))
    data[at : at + 512] = bytes(512)
    return data


def swap_pages(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    a, b = (4096 * int(k) for k in rng.integers(0, len(data) // 4096, 2))
    data[a : a + 4096], data[b : b + 4096] = data[b : b + 4096], data[a : a + 4096]
    return data


def old_page(data: bytearray, rng: np.random.Generator, old: bytes) -> bytearray:
    """A write that the disk acknowledged and did not do."""
    at = 4096 * int(rng.integers(len(old) // 4096))
    data[at : at + 4096] = old[at : at + 4096]
    return data


DAMAGES = [
    flip_one,
    flip_in_header,
    flip_in_page_head,
    flip_many,
    truncate,
    blank_sector,
    swap_pages,
    old_page,
]
N_DAMAGES = 40  # of each kind


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_database_is_refused_or_whole(folder: Path, damage: object) -> None:
    filled(folder, 20)
    old = (folder / "campaign.db").read_bytes()
    with Store.open(folder) as store:
        for k in range(20):
            files = {store.add_file(bytes([k])): f"late {k}.csv"}
            store.append(Draft("recorded", {"late": k}, key=f"late {k}", files=files))
        events, files = store.events(), store.files()
    intact = (folder / "campaign.db").read_bytes()
    raw = {p: p.read_bytes() for p in (folder / "raw").rglob("*") if p.is_file()}
    rng = np.random.default_rng(DAMAGES.index(damage))
    n_refused = 0
    for _ in range(N_DAMAGES):
        damaged = bytes(damage(bytearray(intact), rng, old))
        for name in ("campaign.db-wal", "campaign.db-shm"):
            (folder / name).unlink(missing_ok=True)
        (folder / "campaign.db").write_bytes(damaged)
        opened = False
        try:
            with Store.open(folder) as store:
                assert store.events() == events
                assert store.files() == files
                opened = True
                added = store.append(Draft("further", {"text": "x" * 6000}, key="further"))
            with Store.open(folder) as store:
                assert store.events() == events + added
        except StoreError as error:
            n_refused += 1
            text = str(error)
            if opened:  # a header that says "read-only" shows at the first record
                assert "nothing of this step was recorded" in text
            assert len(text) < 700
            if "Update ohmloop" not in text:  # the version number itself was hit
                assert "damaged" in text or "cannot be written or opened" in text, text
            assert (folder / "campaign.db").read_bytes() == damaged
        assert {p: p.read_bytes() for p in (folder / "raw").rglob("*") if p.is_file()} == raw
    assert n_refused > 0


def test_a_store_that_finds_damage_while_open_says_so(folder: Path) -> None:
    filled(folder)
    with Store.open(folder) as store:
        data = bytearray((folder / "campaign.db").read_bytes())
        for at in range(4096, len(data), 4096):
            data[at : at + 100] = b"\xaa" * 100
        (folder / "campaign.db").write_bytes(bytes(data))
        with pytest.raises(StoreError, match="damaged"):
            Store.open(folder)
        assert any("damaged" in line for line in store.check())


def test_the_copy_that_the_message_names_opens(folder: Path) -> None:
    filled(folder)
    path = folder / "campaign.db"
    path.write_bytes(path.read_bytes()[:5000])
    (folder / "campaign.db-wal").write_bytes(b"left over from the damaged one")
    with pytest.raises(StoreError, match="is damaged") as caught:
        Store.open(folder)
    backup = folder / "backup" / "campaign.db"
    assert str(backup) in str(caught.value)
    for name in ("campaign.db", "campaign.db-wal", "campaign.db-shm"):
        assert name in str(caught.value)
        (folder / name).unlink(missing_ok=True)
    shutil.copy(backup, path)
    with Store.open(folder) as store:
        n = len(store.events())
        assert n >= 1
        assert f"the first {n} event" in str(caught.value)
        assert [e.id for e in store.append(Draft("a", {}))] == [n + 1]


def test_a_damaged_copy_is_not_recommended(folder: Path) -> None:
    filled(folder)
    for path in (folder / "campaign.db", folder / "backup" / "campaign.db"):
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError, match="from your own backup") as caught:
        Store.open(folder)
    assert "backup/campaign.db" not in str(caught.value)


def test_the_copy_is_refreshed_after_an_hour_and_never_from_a_damaged_one(folder: Path) -> None:
    filled(folder)
    backup = folder / "backup" / "campaign.db"

    def n_copied() -> int:
        db = sqlite3.connect(f"file:{backup}?immutable=1", uri=True)
        n = db.execute("select count(*) from events").fetchone()[0]
        db.close()
        return int(n)

    assert n_copied() == 1
    os.utime(backup, (0, 0))
    with Store.open(folder) as store:
        store.append(Draft("a", {}))
        assert n_copied() == 21
        os.utime(backup, (0, 0))
        outside = sqlite3.connect(folder / "campaign.db", isolation_level=None)
        outside.execute("drop trigger events_are_never_edited")
        outside.execute("update events set data = '{}' where id = 2")
        outside.close()
        store.append(Draft("b", {}))
        assert n_copied() == 21
    assert [p.name for p in (folder / "backup").iterdir()] == ["campaign.db"]


def test_the_database_file_alone_holds_what_was_reported(folder: Path, tmp_path: Path) -> None:
    # People copy campaign.db and leave the -wal file; clean-up programs delete it.
    filled(folder, 3)
    with Store.open(folder) as store, Store.open(folder, writable=False):
        for k in range(4, 8):
            store.append(Draft("a", {}))
            copy = tmp_path / f"copy {k}"
            copy.mkdir()
            shutil.copy(folder / "campaign.db", copy)
            with Store.open(copy) as other:
                assert len(other.events()) == k


@pytest.mark.slow
def test_a_backup_that_somebody_holds_does_not_hold_up_the_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ohmloop.store import _store

    monkeypatch.setattr(_store, "BACKUP_SECONDS", 0.2)
    with Store.create(tmp_path / "c") as store:
        (tmp_path / "c" / "backup").mkdir()
        held = sqlite3.connect(
            tmp_path / "c" / "backup" / f".campaign.db.{os.getpid()}", isolation_level=None
        )
        held.execute("create table t (x)")
        held.execute("begin exclusive")
        try:
            assert [e.id for e in store.append(Draft("noted", {}))] == [1]
        finally:
            held.close()
        assert [e.id for e in store.append(Draft("noted", {}))] == [2]
        assert (tmp_path / "c" / "backup" / "campaign.db").is_file()
