"""Files that are whole or absent, and the words for what disks and SQLite raise."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from ohmloop.errors import StoreError
from ohmloop.store._chain import verify

DATABASE = "campaign.db"
WAIT_SECONDS = 60.0  # for another writer; a lab's writes take milliseconds
NEARLY_NOTHING = 1 << 16  # bytes; SQLite needs half of it to open a database for writing


def uri(path: Path, query: str) -> str:
    """Return a path as SQLite's URI."""
    return f"file:{quote(str(path.resolve()))}?{query}"


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can (Windows cannot, and need not)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and put their names on the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write so that the name appears only with all of the bytes behind it, even if power fails."""
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def events_in(path: Path) -> int:
    """Return how many events a database that nobody uses holds; 0 if it is absent or damaged."""
    if not path.is_file():
        return 0
    try:
        with contextlib.closing(
            sqlite3.connect(uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None)
        ) as db:
            return verify(db)
    except (sqlite3.Error, UnicodeDecodeError):
        return 0


@contextlib.contextmanager
def in_words(folder: Path, fate: str) -> Iterator[None]:
    """Turn what disks and SQLite raise into words, with the fate of the user's data."""
    tail = f" ({fate})" if fate else ""
    try:
        yield
    except StoreError:
        raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # Damage to a name can make SQLite's own message undecodable.
        raise StoreError(_sqlite_words(folder, error, tail)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(_full(folder, tail)) from error
        raise StoreError(f"{folder}: {error.strerror or error}{tail}.") from error


def _full(folder: Path, tail: str) -> str:
    return f"{folder}: the disk is full{tail}. Free some space and repeat."


def _sqlite_words(folder: Path, error: Exception, tail: str) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 160 else text[:157] + "..."
    if isinstance(error, sqlite3.OperationalError):
        cannot = "disk I/O" in text or "unable to open" in text
        if "disk is full" in text or (cannot and _free(folder) < NEARLY_NOTHING):
            return _full(folder, tail)
        if "is locked" in text or "busy" in text:
            return (
                f"{folder}: another program has held the campaign for {WAIT_SECONDS:g} s{tail}. "
                "Close it and repeat."
            )
        if "readonly" in text or "unable to open" in text:
            return f"{folder}: cannot be written or opened: {text}{tail}."
        if "disk I/O" in text:
            return f"{folder}: the disk does not take or give data: {text}{tail}."
    return (
        f"{folder}: {DATABASE} is damaged: {text}. It was left as it is, and so were the raw files. "
        + _remedy(folder / "backup" / DATABASE)
    )


def _remedy(backup: Path) -> str:
    count = events_in(backup)
    if not count:
        return f"Restore {DATABASE} from your own backup."
    when = datetime.fromtimestamp(backup.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    # A -wal file left beside the copy would be replayed into it.
    return (
        f"A copy of {when} with the first {count} event{'s' if count > 1 else ''} is {backup}: move "
        f"{DATABASE}, {DATABASE}-wal and {DATABASE}-shm out of the folder, then put the copy there."
    )


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return NEARLY_NOTHING
