"""The database schema and how older ones become it: numbered steps, ``PRAGMA user_version`` counts them."""

from __future__ import annotations

import sqlite3

from ohmloop.errors import StoreError

# Step k leads from version k to k + 1. A step is never edited once it was released; add another.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        create table events (
            id integer primary key,
            at text not null,
            actor text not null,
            kind text not null,
            data text not null,
            digest text not null
        )
        """,
        """
        create table files (
            sha256 text primary key,
            name text not null,
            size integer not null,
            event integer not null references events(id)
        )
        """,
        """
        create trigger events_are_never_edited before update on events
        begin select raise(abort, 'events are never edited'); end
        """,
        """
        create trigger events_are_never_deleted before delete on events
        begin select raise(abort, 'events are never deleted'); end
        """,
    ),
    (
        # A key makes an event happen once, however often an instrument or an import repeats it.
        "create table keys (key text primary key, event integer not null references events(id))",
        # The last event once more, on another page: a tail that went missing is noticed.
        """
        create table head (
            one integer primary key check (one = 1),
            event integer not null,
            digest text not null
        )
        """,
        """
        insert into head select 1, coalesce(max(id), 0),
            coalesce((select digest from events order by id desc limit 1), '') from events
        """,
    ),
)
VERSION = len(MIGRATIONS)


def version_of(db: sqlite3.Connection) -> int:
    """Return the schema version of a database; 0 for an empty one, below 0 for a damaged one."""
    return int(db.execute("pragma user_version").fetchone()[0])


def refuse_newer(db: sqlite3.Connection) -> None:
    """Raise a StoreError if a newer ohmloop wrote the database."""
    if version_of(db) > VERSION:
        raise StoreError(
            f"campaign.db has schema version {version_of(db)}, this ohmloop knows {VERSION}. "
            "Nothing was changed. Update ohmloop: pip install --upgrade ohmloop"
        )


def migrate(db: sqlite3.Connection, upto: int = VERSION) -> None:
    """Bring a database to a version, each step in one transaction.

    Raises:
        StoreError: If a newer ohmloop wrote it.
    """
    refuse_newer(db)
    while version_of(db) < upto:
        db.execute("begin immediate")
        try:
            now = version_of(db)  # another process may have been faster
            if now < upto:
                for statement in MIGRATIONS[now]:
                    db.execute(statement)
                db.execute(f"pragma user_version = {now + 1}")
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
