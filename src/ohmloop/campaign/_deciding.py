"""The person's half of `Campaign`: accept, reject, edit, add, hold a value, take back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ohmloop import bo
from ohmloop.campaign._ask import pins_now
from ohmloop.campaign._observe import (
    LONGEST_NOTE,
    checked,
    checked_text,
    did_you_mean,
    recipe_now,
    typed,
)
from ohmloop.campaign._trials import UNDOABLE, State, Trial
from ohmloop.campaign._writing import Writing
from ohmloop.errors import CampaignError, SearchError
from ohmloop.store import Draft, Event


class Deciding(Writing):
    """The person's half of `Campaign`."""

    def accept(self, trial: str) -> Trial:
        """Accept a trial: it will be made."""
        return self._decide("accepted", trial, {})

    def reject(self, trial: str, reason: str = "") -> Trial:
        """Reject a trial with a reason; its recipe and close ones are not proposed again."""
        clean = checked_text("reason", reason, LONGEST_NOTE)
        return self._decide("rejected", trial, {"reason": clean})

    def edit(self, trial: str, **changes: bo.Value) -> Trial:
        """Change values of a trial's recipe, also to ones outside the space, and accept it.

        Raises:
            CampaignError: If a variable is unknown, a value is no number, or the trial has results.
        """
        found = self.state.trial(trial)
        recipe = recipe_now(self.config, found.recipe, f"trial {found.id}")
        recipe |= typed(self.config, changes)
        return self._decide("edited", trial, {"recipe": checked(self.config, recipe)[0]})

    def add(
        self, recipe: Mapping[str, bo.Value], *, note: str = "", origin: str = "own"
    ) -> tuple[Trial, list[str]]:
        """Add an experiment of one's own; it need not lie in the space.

        Args:
            recipe: Variable -> value.
            note: Remark.
            origin: "own" or "imported".

        Returns:
            The trial, and in words where it leaves the space or breaks a rule (it is added all the same).

        Raises:
            CampaignError: If a variable is unknown or missing, or a number is none.
        """
        clean, outside = checked(self.config, recipe)
        note = checked_text("note", note, LONGEST_NOTE)
        data = {"recipe": clean, "note": note, "origin": origin, "outside": outside}
        (added,) = self._record(lambda now: Draft("added", {"trial": now.next_ids(1)[0], **data}))
        return self.state.trials[added.data["trial"]], outside

    def _decide(self, kind: str, trial: str, data: Mapping[str, Any]) -> Trial:
        name = self.state.trial(trial).id

        def draft(now: State) -> Draft:
            found = now.trial(name)
            if found.records:
                raise CampaignError(
                    f"trial {found.id} has results already; take them back first: "
                    f"ohmloop campaign decide undo {found.records[-1].event}"
                )
            return Draft(kind, {"trial": found.id, **data})

        self._record(draft)
        return self.state.trials[name]

    def pin(self, variable: str, value: bo.Value) -> None:
        """Hold a variable at a value in every suggestion to come."""
        clean = typed(self.config, {variable: value})
        if not clean:
            raise CampaignError(f'"{variable}" needs a value to be held at.')
        try:
            self.problem().space.sample(1, _rng(), {**pins_now(self.config, self.state), **clean})
        except SearchError as error:
            raise CampaignError(str(error)) from error
        data = {"variable": variable, "value": clean[variable]}
        self._record(lambda _: Draft("pinned", data))

    def unpin(self, variable: str) -> None:
        """Let a variable go again."""

        def draft(now: State) -> Draft:
            if variable not in now.pins:
                raise CampaignError(
                    f'"{variable}" is not pinned; pinned: {", ".join(now.pins) or "nothing"}.'
                    + did_you_mean(variable, now.pins)
                )
            return Draft("unpinned", {"variable": variable})

        self._record(draft)

    def undo(self, event: int | None = None) -> Event:
        """Take an event back (the last that can be), or an undo itself; the log keeps both.

        Raises:
            CampaignError: If there is none, or later events build on it.
        """

        def draft(now: State) -> Draft:
            return Draft("undone", {"event": _to_undo(now, event).id})

        (undone,) = self._record(draft)
        return next(e for e in self.state.history if e.id == undone.data["event"])


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def _to_undo(state: State, event: int | None) -> Event:
    """Return the event that is to be taken back, the last one by default."""
    live = [e for e in state.history if e.kind in UNDOABLE and e.id not in state.undone]
    if event is None:
        live = [e for e in live if e.kind != "undone"]
        if not live:
            raise CampaignError("there is nothing to undo.")
        target = live[-1]
    else:
        known = {e.id: e for e in live}
        if event not in known:
            raise CampaignError(
                f"event {event} is none that can be undone. ohmloop campaign status --log shows them all."
            )
        target = known[event]
    made = {t["id"] for t in target.data.get("trials", ()) if isinstance(t, dict)}
    if target.kind == "added":
        made = {target.data["trial"]}
    built = [t.id for t in state.trials.values() if t.id in made and t.records]
    if built:
        events = ", ".join(str(r.event) for name in built for r in state.trials[name].records)
        raise CampaignError(f"{', '.join(built)} has results; undo those first (events {events}).")
    return target
