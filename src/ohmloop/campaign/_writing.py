"""How anything is recorded in an open campaign: under the writer's lock, and never on an old picture of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ohmloop.campaign._conflict import refuse_stale
from ohmloop.campaign._readable import Readable
from ohmloop.campaign._trials import State, extended
from ohmloop.store import Draft, Event


class Writing(Readable):
    """A campaign that records: the base of all that is asked for, decided and measured."""

    _actor: str | None
    _seen: int | None
    _own: set[int]

    def _record(self, draft: Callable[[State], Draft]) -> list[Event]:
        """Record what ``draft`` makes of the state under the writer's lock, unless it is stale."""
        state = self.state

        def drafts(new: list[Event]) -> list[Draft]:
            made = draft(extended(state, new))
            if made.key is not None and self._store.event_of(made.key) is not None:
                return []  # one's own first request, not somebody else's
            self._agreed(state, new, (made.kind, made.data))
            return [made]

        events = self._store.transact(drafts, after=state.last_event, actor=self._actor)
        self._own.update(event.id for event in events)
        return events

    def _agreed(
        self, state: State, new: Sequence[Event], *wanted: tuple[str, Mapping[str, Any]]
    ) -> State:
        """Return the state with ``new`` events; ConflictError where others were faster (`open`)."""
        now = extended(state, new)
        if self._seen is not None:
            refuse_stale(self.config, now.history, wanted, seen=self._seen, own=self._own)
        return now
