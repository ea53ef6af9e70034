"""The proposing half of `Campaign`: recipes from the model, with reasons, as trials that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ohmloop import bo
from ohmloop.campaign._ask import ask, held_values
from ohmloop.campaign._trials import State, Trial
from ohmloop.campaign._writing import Writing
from ohmloop.errors import CampaignError
from ohmloop.store import Draft, Event


class Suggesting(Writing):
    """The proposing half of `Campaign`."""

    def suggest(
        self,
        q: int | None = None,
        *,
        context: Mapping[str, bo.Value] | None = None,
        pin: Mapping[str, bo.Value] | None = None,
        seed: int | None = None,
        key: str | None = None,
        compute: str = "cpu",
    ) -> list[Trial]:
        """Suggest the next recipes, with reasons, and record them as trials that wait for a decision.

        Trials that wait are taken into account; rejected recipes are not proposed again.

        Args:
            q: How many; by default the batch of ``campaign.toml``.
            context: Present values of context variables.
            pin: Values that this batch has, beside the pins of the campaign.
            seed: Of everything random; by default that of ``campaign.toml``.
            key: Of the request; a second one with it suggests nothing new and returns the same trials.
            compute: Where torch computes: "cpu", "cuda".

        Raises:
            CampaignError: If a context value is missing, no recipe is left, or torch cannot compute there.
        """
        q = self.config.suggest.batch if q is None else q
        return self._suggested_before(key) or self._suggest(
            q, context or {}, pin or {}, seed, (), key, compute
        )

    def reroll(
        self,
        *trials: str,
        context: Mapping[str, bo.Value] | None = None,
        key: str | None = None,
    ) -> list[Trial]:
        """Withdraw suggestions and suggest others in their place; all open suggestions by default.

        What the first one's batch was held at is held again.

        Args:
            trials: Their ids.
            context: Present values of context variables; by default those of the first one withdrawn.
            key: As in `suggest`.

        Raises:
            CampaignError: If one of them is no open suggestion, or there is none.
        """
        if made := self._suggested_before(key):
            return made
        state = self.state
        names = list(dict.fromkeys(state.trial(t).id for t in trials)) or [
            t.id for t in state.trials.values() if t.status == "suggested"
        ]
        _must_be_suggested(state, names)
        if not names:
            raise CampaignError("there is no open suggestion to roll again.")
        asked = next(e for e in state.history if e.id == state.trials[names[0]].event)
        held = {n: v for n, v in asked.data["held"].items() if n in self.config.variables}
        roles = {name: spec.role for name, spec in self.config.variables.items()}
        known = {n: v for n, v in held.items() if roles[n] == "context"}
        pin = {n: v for n, v in held.items() if roles[n] != "context" and n not in state.pins}
        return self._suggest(len(names), {**known, **(context or {})}, pin, None, names, key)

    def _suggested_before(self, key: str | None) -> list[Trial]:
        """Return the trials that an earlier request with this key made."""
        number = None if key is None else self._store.event_of(f"suggest:{key}")
        made = [e for e in self.state.history if e.id == number]
        return [self.state.trial(entry["id"]) for e in made for entry in e.data["trials"]]

    def _suggest(
        self,
        q: int,
        context: Mapping[str, bo.Value],
        pin: Mapping[str, bo.Value],
        seed: int | None,
        withdrawn: Sequence[str],
        key: str | None,
        compute: str = "cpu",
    ) -> list[Trial]:
        state, mark = self.state, None if key is None else f"suggest:{key}"
        held = held_values(self.config, state, pin, context)
        entries = ask(self.config, state, q, held, seed=seed, withdrawn=withdrawn, compute=compute)

        def draft(new: list[Event]) -> list[Draft]:
            # Numbers are given under the lock: two people may suggest at the same time.
            if mark is not None and self._store.event_of(mark) is not None:
                return []
            now = self._agreed(state, new, *(("withdrawn", {"trials": [t]}) for t in withdrawn))
            _must_be_suggested(now, withdrawn)
            numbered = [
                {"id": name, **entry}
                for name, entry in zip(now.next_ids(len(entries)), entries, strict=True)
            ]
            out = [Draft("withdrawn", {"trials": list(withdrawn)})] if withdrawn else []
            return [*out, Draft("suggested", {"trials": numbered, "held": held}, key=mark)]

        events = self._store.transact(draft, after=state.last_event, actor=self._actor)
        self._own.update(event.id for event in events)
        if not events:
            return self._suggested_before(key)
        made = [entry["id"] for entry in events[-1].data["trials"]]
        return [self.state.trials[name] for name in made]


def _must_be_suggested(state: State, names: Sequence[str]) -> None:
    for name in names:
        if (status := state.trial(name).status) != "suggested":
            raise CampaignError(f"trial {name} is {status}; only a suggestion can be rolled again.")
