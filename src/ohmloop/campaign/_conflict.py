"""Decisions that were made on an old picture of the campaign: what they touch, and who was faster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ohmloop.campaign._config import Config
from ohmloop.campaign._log import event_text
from ohmloop.errors import ConflictError
from ohmloop.store import Event

SETTINGS = "settings"


def topics(kind: str, data: Mapping[str, Any], history: Mapping[int, Event]) -> set[str]:
    """Return what an event is about: trials, pinned variables, the settings, kept recipes for files."""
    if kind in ("suggested", "withdrawn"):
        # A withdrawal names trials, a suggestion makes them.
        return {f"trial {t['id'] if isinstance(t, dict) else t}" for t in data["trials"]}
    if kind == "recorded":
        return {f"device {data['device']} of trial {data['trial']}"}
    if kind in ("added", "accepted", "rejected", "edited"):
        return {f"trial {data['trial']}"}
    if kind in ("pinned", "unpinned"):
        return {f"pin of {data['variable']}"}
    if kind == "configured":
        return {SETTINGS}
    if kind == "file-recipe":
        return {f"recipe for files {data['name']}"}
    if kind == "undone" and data["event"] in history:
        target = history[data["event"]]
        return topics(target.kind, target.data, history)
    return set()


def refuse_stale(
    config: Config,
    events: Sequence[Event],
    wanted: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    seen: int,
    own: Collection[int],
) -> None:
    """Refuse what touches something that others changed after event ``seen``.

    Args:
        config: For the words.
        events: All events so far.
        wanted: Kind and data of what is to be recorded.
        seen: Number of the last event that the person saw.
        own: Numbers of later events that are the person's own.

    Raises:
        ConflictError: Saying who changed what.
    """
    history = {event.id: event for event in events}
    touched = set().union(*(topics(kind, data, history) for kind, data in wanted))
    # A result counts for the recipe as it was made: a further device is none of its business, an edit is.
    touched |= {f"trial {data['trial']}" for kind, data in wanted if kind == "recorded"}
    may_be_accepted = {kind for kind, _ in wanted} <= {"accepted", "recorded"}
    for event in reversed(events):
        if event.id <= seen:
            return
        if event.kind == "accepted" and may_be_accepted:
            continue
        both = touched & topics(event.kind, event.data, history)
        if both and event.id not in own:
            raise ConflictError(
                f"{min(both)} was changed meanwhile: {event.actor} {event_text(config, event)} "
                f"(event {event.id}, {event.at[:16].replace('T', ' ')} UTC). Nothing was recorded. "
                "Look at it as it is now, and decide again."
            )
