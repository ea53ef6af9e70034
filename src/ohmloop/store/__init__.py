"""A campaign folder on disk: an append-only event log in SQLite and raw files by their sha256."""

from ohmloop.store._store import Draft, Event, Store

__all__ = ["Draft", "Event", "Store"]
