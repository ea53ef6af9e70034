"""The event log in words: who did what when, and what was taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ohmloop.campaign._config import Config
from ohmloop.campaign._reasons import number
from ohmloop.campaign._trials import State
from ohmloop.store import Event


class LogLine(NamedTuple):
    """One event in words.

    Attributes:
        event: Its number, for `Campaign.undo`.
        at: When, UTC.
        actor: Who.
        text: What.
        undone: Whether it was taken back.
    """

    event: int
    at: str
    actor: str
    text: str
    undone: bool


def log_lines(config: Config, state: State) -> list[LogLine]:
    """Return every event of a campaign in words, in order."""
    return [
        LogLine(e.id, e.at, e.actor, event_text(config, e), e.id in state.undone)
        for e in state.history
    ]


def event_text(config: Config, event: Event) -> str:
    """Return what an event did, in words."""
    data, kind = event.data, event.kind
    if kind == "suggested":
        return "suggested " + ", ".join(entry["id"] for entry in data["trials"])
    if kind == "withdrawn":
        return "withdrew " + ", ".join(data["trials"])
    if kind == "added":
        return f"added {data['trial']} ({data['origin']})" + _after(data.get("note"))
    if kind == "rejected":
        return f"rejected {data['trial']}" + _after(data.get("reason"))
    if kind in ("accepted", "edited"):
        return f"{kind} {data['trial']}"
    if kind == "pinned":
        return f"pinned {data['variable']} = {number(data['value'])}"
    if kind == "unpinned":
        return f"unpinned {data['variable']}"
    if kind == "recorded":
        return (
            f"recorded {data['trial']} {data.get('device', '')}".strip()
            + ": "
            + _found(config, data)
        )
    if kind == "earlier":
        return f'took in {len(data["rows"])} rows of "{data["name"]}"'
    if kind == "file-recipe":
        return f'kept the recipe for files "{data["name"]}"'
    if kind == "undone":
        return f"took back event {data['event']}"
    return {"created": "started the campaign", "configured": "noted campaign.toml"}.get(kind, kind)


def _found(config: Config, data: Mapping[str, Any]) -> str:
    stages = data.get("stages", {})
    failed = next((name for name, passed in stages.items() if not passed), None)
    if failed is not None:
        parts = [f"failed at {failed}"]
    else:
        passed = [s.name for s in config.stages if stages.get(s.name)]
        parts = [f"passed {passed[-1]}"] if passed else []
    parts += [f"{name} {number(value)}" for name, value in data.get("values", {}).items()]
    return ", ".join(parts) or "nothing could be decided"


def _after(text: str | None) -> str:
    return f": {text}" if text else ""
