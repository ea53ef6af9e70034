"""The store: one writer at a time, nothing is edited, what was reported as recorded stays.

Events live in SQLite in WAL mode with ``synchronous = FULL``: `Store.append` returns after the transaction has
reached the disk, and the write-ahead file is folded into the database right away, so that a copy of
``campaign.db`` alone is whole. Each event carries the sha256 of itself and its predecessor: damage and edits
from outside are noticed. Raw files are written to a temporary name, synced and renamed before the event that
names them is committed: a killed process leaves at most a file that nobody refers to.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ohmloop.errors import StoreError
from ohmloop.store import _disk
from ohmloop.store._chain import digest, verify
from ohmloop.store._disk import DATABASE, events_in, in_words, uri, write_durably
from ohmloop.store._schema import VERSION, migrate, refuse_newer, version_of

BACKUP_EVERY = 3600.0  # seconds between copies of the database
BACKUP_SECONDS = 5.0  # that one may take


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        id: 1, 2, 3, ... without gaps.
        at: UTC time, ISO 8601.
        actor: Who: the login name, or what a face passes.
        kind: What: "suggested", "recorded", ...
        data: The details, plain JSON.
    """

    id: int
    at: str
    actor: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """An event that is about to be recorded.

    Attributes:
        kind: As in `Event`.
        data: As in `Event`.
        key: If given, the event is recorded only if none with this key was before.
        files: sha256 -> name of files in ``raw/`` that the event brings.
    """

    kind: str
    data: Mapping[str, Any]
    key: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


class Store:
    """The facts of one campaign folder. Use `create` or `open`, and `close` or ``with``."""

    def __init__(self, folder: Path, db: sqlite3.Connection, *, writable: bool) -> None:
        self.folder, self._db, self.is_writable = folder, db, writable
        self._shadow: tempfile.TemporaryDirectory[str] | None = None
        self._identity = _identity(folder / DATABASE)

    # -- opening ----------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path) -> Store:
        """Make the database in a folder (which is created if need be).

        A database without a single event is a creation that was cut short, and is taken over.

        Raises:
            StoreError: If there is one already, or the folder cannot be written.
        """
        path = folder / DATABASE
        with in_words(folder, "nothing was created"):
            _disk.make_folder(folder)
            existed = path.exists()
            db = _connect(uri(path, "mode=rwc"))
            try:
                if existed and not _is_blank(db, folder):
                    raise StoreError(
                        f"{folder} holds a campaign already; open it, or choose another folder."
                    )
                _make_durable(db)
                migrate(db)
            except BaseException:
                db.close()
                raise
        return cls(folder, db, writable=True)

    @classmethod
    def open(cls, folder: Path, *, writable: bool = True) -> Store:
        """Open a campaign folder.

        Args:
            folder: The folder.
            writable: Whether to record; reading works on read-only folders too (there, as of now).

        Raises:
            StoreError: If it is no campaign, is damaged, was written by a newer ohmloop, or must be
                written and cannot be.
        """
        path = folder / DATABASE
        if not path.is_file():
            raise StoreError(
                f"{folder} is no campaign: it has no {DATABASE}. "
                f"Go into a campaign's folder, name it with -C, or start one: `ohmloop campaign new {folder}`."
            )
        if not writable:
            return cls._open_for_reading(folder, path)
        if not os.access(path, os.W_OK) or not os.access(folder, os.W_OK):
            raise StoreError(
                f"{folder} is read-only for this user: nothing can be recorded there. "
                "Change its permissions, or copy the folder to a place of your own."
            )
        with in_words(folder, "nothing was changed"):
            store = cls(folder, _connect(uri(path, "mode=rw")), writable=True)
            try:
                _must_be_ours(store._db)
                _make_durable(store._db)
                migrate(store._db)
                verify(store._db)
            except BaseException:
                store.close()
                raise
        return store

    @classmethod
    def _open_for_reading(cls, folder: Path, path: Path) -> Store:
        with in_words(folder, "nothing was changed"):
            shadow: tempfile.TemporaryDirectory[str] | None = None
            if not os.access(folder, os.W_OK) or not os.access(path, os.W_OK):
                # SQLite needs to write beside a WAL database, even to read: read a copy.
                shadow = tempfile.TemporaryDirectory(prefix="ohmloop-")
            try:
                if shadow is not None:
                    _copy(folder, Path(shadow.name))
                    path = Path(shadow.name) / DATABASE
                store = cls(folder, _connect(uri(path, "mode=rw")), writable=False)
            except BaseException:
                if shadow is not None:
                    shadow.cleanup()
                raise
            store._shadow = shadow
            try:
                store._db.execute("pragma query_only = on")
                _must_be_ours(store._db)
                verify(store._db)
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        self._db.close()
        if self._shadow is not None:
            self._shadow.cleanup()
            self._shadow = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- reading ----------------------------------------------------------------------------

    def events(self, after: int = 0) -> list[Event]:
        """Return all events later than the one numbered ``after``, in order."""
        with in_words(self.folder, "nothing was changed"):
            rows = self._db.execute(
                "select id, at, actor, kind, data from events where id > ? order by id", (after,)
            ).fetchall()
            try:
                return [
                    Event(i, at, who, kind, json.loads(data)) for i, at, who, kind, data in rows
                ]
            except (ValueError, TypeError) as error:
                raise sqlite3.DatabaseError("an event was changed") from error

    def event_of(self, key: str) -> int | None:
        """Return the number of the event that was recorded with a key, None where there is none."""
        with in_words(self.folder, "nothing was changed"):
            row = self._db.execute(
                "select event from keys where key = ?", (_printable(key),)
            ).fetchone()
        return None if row is None else int(row[0])

    def files(self) -> dict[str, str]:
        """Return sha256 -> name as it was handed in, of all raw files."""
        with in_words(self.folder, "nothing was changed"):
            return dict(
                self._db.execute("select sha256, name from files order by event").fetchall()
            )

    def file_path(self, sha256: str) -> Path:
        """Return where a raw file lies."""
        return self.folder / "raw" / sha256[:2] / sha256

    def check(self) -> list[str]:
        """Return what is wrong with the folder, in words; empty when all is well."""
        out = []
        files: dict[str, str] = {}
        try:
            with in_words(self.folder, "nothing was changed"):
                where = Path(self._shadow.name) if self._shadow else self.folder
                # A connection of its own: the store's remembers pages that the disk may not have.
                with contextlib.closing(_connect(uri(where / DATABASE, "mode=rw"))) as db:
                    bad = db.execute("pragma integrity_check").fetchall()
                    if bad != [("ok",)]:
                        out += [f"{DATABASE}: {str(line[0])[:200]}" for line in bad[:5]]
                    verify(db)
        except StoreError as error:
            out.append(str(error))
        try:
            files = self.files()
        except StoreError as error:
            out.append(str(error))
        for sha256, name in files.items():
            path = self.file_path(sha256)
            try:
                if not path.is_file():
                    out.append(f"raw file of {name} is missing ({path.name[:12]}...)")
                elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    out.append(f"raw file of {name} was changed ({path.name[:12]}...)")
            except OSError as error:
                out.append(f"raw file of {name} cannot be read: {error.strerror or error}")
        return list(dict.fromkeys(out))

    # -- writing ----------------------------------------------------------------------------

    def append(self, *drafts: Draft, actor: str | None = None) -> list[Event]:
        """Record events, all or none; they are on the disk when this returns.

        Returns:
            The recorded events; a draft whose key was used before leaves none.
        """
        return self.transact(lambda _: drafts, actor=actor)

    def transact(
        self,
        decide: Callable[[list[Event]], Sequence[Draft]],
        *,
        after: int = 0,
        actor: str | None = None,
    ) -> list[Event]:
        """Record what ``decide`` returns, with no other writer in between.

        Args:
            decide: Given the events later than ``after``, returns the drafts to record. An exception from
                it records nothing.
            after: Number of the last event that the caller knows.
            actor: Who; by default the login name.

        Raises:
            StoreError: If the folder is read-only, the disk full or the database damaged; nothing of
                this step is recorded then.
        """
        if not self.is_writable:
            raise StoreError(f"{self.folder} was opened for reading; nothing was recorded.")
        who = _login() if actor is None else actor
        with in_words(self.folder, "nothing of this step was recorded"):
            self._db.execute("begin immediate")
            try:
                self._must_be_in_place()
                recorded = [
                    event
                    for draft in decide(self.events(after))
                    if (event := self._insert(draft, who)) is not None
                ]
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        if recorded:
            self._fold_in()
            self._back_up()
        return recorded

    def _must_be_in_place(self) -> None:
        """SQLite goes on writing into a file that was deleted or replaced, and all of it is lost."""
        if _identity(self.folder / DATABASE) != self._identity:
            raise StoreError(
                f"{self.folder}: {DATABASE} was moved or replaced while it was open (nothing of this step "
                "was recorded). Open the campaign again, and repeat."
            )

    def _insert(self, draft: Draft, actor: str) -> Event | None:
        key = None if draft.key is None else _printable(draft.key)
        if key is not None:
            if self._db.execute("select 1 from keys where key = ?", (key,)).fetchone():
                return None
        last = self._db.execute("select id, digest from events order by id desc limit 1").fetchone()
        number, before = (last[0] + 1, last[1]) if last else (1, "")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        who, kind, data = _printable(actor), _printable(draft.kind), _json(draft)
        row = (number, at, who, kind, data)
        files = self._new_files(draft)
        after = digest(before, row, key, files)
        self._db.execute("insert into events values (?, ?, ?, ?, ?, ?)", (*row, after))
        self._db.execute("update head set event = ?, digest = ?", (number, after))
        if key is not None:
            self._db.execute("insert into keys values (?, ?)", (key, number))
        for file in files:
            self._db.execute("insert into files values (?, ?, ?, ?)", (*file, number))
        return Event(number, at, who, kind, json.loads(data))

    def _new_files(self, draft: Draft) -> list[tuple[str, str, int]]:
        """Return sha256, name and size of the files that no earlier event brought."""
        out = []
        for sha256, name in draft.files.items():
            path = self.file_path(sha256)
            if not path.is_file():
                raise StoreError(
                    f"{name}: put the file into the store before the event that names it."
                )
            known = self._db.execute("select 1 from files where sha256 = ?", (sha256,)).fetchone()
            if not known:
                out.append((sha256, _printable(name), path.stat().st_size))
        return out

    def add_file(self, content: bytes) -> str:
        """Keep the bytes of a raw file, once, and return their sha256.

        A kept file that was changed since is mended.
        """
        if not self.is_writable:
            raise StoreError(f"{self.folder} was opened for reading; nothing was kept.")
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.file_path(sha256)
        with in_words(self.folder, "the file was not kept"):
            if path.is_file() and path.read_bytes() == content:
                # Whoever wrote it may have been killed before the name was on the disk.
                for folder in (path.parent, path.parent.parent, self.folder):
                    _disk.sync_folder(folder)
            else:
                write_durably(path, content)
        return sha256

    def _fold_in(self) -> None:
        """Move what was recorded from the write-ahead file into the database, unless readers hold it.

        The commit is on the disk already, so a failure here is no failure to record.
        """
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("pragma busy_timeout = 0")
            self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
        self._db.execute(f"pragma busy_timeout = {int(_disk.WAIT_SECONDS * 1000)}")

    def _back_up(self) -> None:
        """Refresh ``backup/campaign.db`` once in a while; a failure to copy is no failure to record."""
        target = self.folder / "backup" / DATABASE
        with contextlib.suppress(OSError, sqlite3.Error):
            now = (self.folder / DATABASE).stat().st_mtime
            if target.exists() and now - target.stat().st_mtime < BACKUP_EVERY:
                return
            _disk.make_folder(target.parent)
            new = target.with_name(f".{DATABASE}.{os.getpid()}")
            try:
                until = time.monotonic() + BACKUP_SECONDS

                def in_time(*_: int) -> None:  # SQLite itself would wait for a busy reader for ever
                    if time.monotonic() > until:
                        raise sqlite3.OperationalError("no copy in time")

                with contextlib.closing(sqlite3.connect(new)) as copy:
                    self._db.backup(copy, pages=1000, progress=in_time, sleep=0.05)
                if events_in(new):  # a good copy is never replaced by one of damage
                    os.replace(new, target)
                    _disk.sync_folder(target.parent)
            finally:
                for suffix in ("", "-journal", "-wal", "-shm"):
                    new.with_name(new.name + suffix).unlink(missing_ok=True)


# -- helpers ------------------------------------------------------------------------------------


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another of its name; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _connect(where: str) -> sqlite3.Connection:
    return sqlite3.connect(where, uri=True, timeout=_disk.WAIT_SECONDS, isolation_level=None)


def _make_durable(db: sqlite3.Connection) -> None:
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute("pragma foreign_keys = on")


def _must_be_ours(db: sqlite3.Connection) -> None:
    refuse_newer(db)
    if version_of(db) < 1:
        tables = db.execute("select count(*) from sqlite_master").fetchone()[0]
        raise sqlite3.DatabaseError("it holds no campaign" if tables else "it holds no tables")


def _is_blank(db: sqlite3.Connection, folder: Path) -> bool:
    """Whether nothing was ever recorded: someone was killed while creating it."""
    tables = db.execute("select name from sqlite_master where type = 'table'").fetchall()
    if not tables:
        if (folder / "backup").exists() or (folder / "raw").exists():
            raise sqlite3.DatabaseError("it holds no tables")
        return version_of(db) == 0
    return (
        0 < version_of(db) <= VERSION
        and ("events",) in tables
        and db.execute("select 1 from events limit 1").fetchone() is None
    )


def _copy(folder: Path, into: Path) -> None:
    """Copy the database and its write-ahead file; again if someone wrote meanwhile."""
    sources = [folder / (DATABASE + suffix) for suffix in ("", "-wal")]
    for _ in range(20):
        before = [_stamp(source) for source in sources]
        for source in sources:
            if source.exists():
                shutil.copyfile(source, into / source.name)
            else:
                (into / source.name).unlink(missing_ok=True)
        if [_stamp(source) for source in sources] == before:
            return


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


_SURROGATE = re.compile("[\ud800-\udfff]")


def _printable(text: str) -> str:
    """Spell out what is no Unicode, such as a byte of a file name: disks and screens refuse it."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _json(draft: Draft) -> str:
    try:
        text = json.dumps(draft.data, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(
            f'"{_printable(draft.kind)}" cannot be kept: {error}. Nothing of this step was recorded.'
        ) from error
    return _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
