"""The chain of digests: each event is hashed with its predecessor, so that damage shows."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence

from ohmloop.store._schema import version_of

Files = Sequence[tuple[str, str, int]]  # sha256, name, size


def digest(before: str, row: Sequence[object], key: str | None, files: Files) -> str:
    """Return the digest of an event, its key and the files it brought, after the digest ``before`` it."""
    rest = [key, sorted(files)] if key is not None or files else []
    # A damaged database may hand out any type: repr makes it differ instead of failing.
    text = json.dumps([before, *row, *rest], ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def verify(db: sqlite3.Connection) -> int:
    """Compare every event with its digest, and the last with the head; return how many there are.

    The head stands on a page of its own: a write that the disk lost, or a last event that somebody
    took away, leaves the two at odds.

    Raises:
        sqlite3.DatabaseError: Naming the first event that is not as it was recorded.
    """
    db.execute("begin")
    try:
        found = db.execute("pragma quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
        keys: dict[int, str] = {}
        if version_of(db) >= 2:
            keys = dict(db.execute("select event, key from keys").fetchall())
        files: dict[int, list[tuple[str, str, int]]] = {}
        for event, *file in db.execute("select event, sha256, name, size from files"):
            files.setdefault(event, []).append((str(file[0]), *file[1:]))
        before, count = "", 0
        rows = db.execute("select id, at, actor, kind, data, digest from events order by id")
        for *row, stored in rows:
            count += 1
            right = digest(before, row, keys.pop(count, None), files.pop(count, []))
            if row[0] != count or right != stored:
                raise sqlite3.DatabaseError(f"event {count} is missing or was changed")
            before = stored
        if version_of(db) >= 2:
            head = db.execute("select event, digest from head").fetchall()
            if head != [(count, before)]:
                known = head[0][0] if head and isinstance(head[0][0], int) else 0
                first = count if known == count else min(known, count) + 1
                raise sqlite3.DatabaseError(f"event {first} is missing or was changed")
        if keys or files:
            raise sqlite3.DatabaseError(
                f"event {min([*keys, *files], key=str)} is missing or was changed"
            )
    finally:
        if db.in_transaction:
            db.execute("rollback")
    return count
