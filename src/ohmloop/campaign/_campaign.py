"""The lab's loop: propose, decide, record, go on. The one stateful class of ohmloop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ohmloop import bo
from ohmloop.campaign import _sheet_import, _sheets
from ohmloop.campaign._ask import ask, held_values, pins_now
from ohmloop.campaign._config import Config, list_templates, parse_config, read_config, template
from ohmloop.campaign._conflict import refuse_stale
from ohmloop.campaign._ingest import Ingested, Reading, ingest_files
from ohmloop.campaign._observe import (
    LONGEST_NAME,
    LONGEST_NOTE,
    checked,
    checked_errors,
    checked_text,
    checked_values,
    did_you_mean,
    recipe_now,
    stages_upto,
    typed,
)
from ohmloop.campaign._readable import Readable
from ohmloop.campaign._trials import UNDOABLE, State, Trial, fold
from ohmloop.data import FileRecipe
from ohmloop.errors import CampaignError, ConflictError, SearchError, StoreError
from ohmloop.store import Draft, Event, Store

SETTINGS = "campaign.toml"


class Campaign(Readable):
    """A campaign folder, open. Use `new` or `open`; ``with`` closes it.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp() + "/first"
    >>> with Campaign.new(folder, template="perovskite-nanowires") as campaign:
    ...     [trial.id for trial in campaign.suggest(2)]
    ['T001', 'T002']

    Attributes:
        folder: Where it lies.
        config: The settings, as ``campaign.toml`` has them.
        has_new_settings: Whether ``campaign.toml`` had changed when it was opened; the log keeps both.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        config: Config,
        actor: str | None,
        seen: int | None = None,
    ) -> None:
        self.folder, self.config = folder, config
        self._store, self._actor = store, actor
        self._seen, self._own = seen, set[int]()
        self._state = fold(store.events())
        self.has_new_settings = False

    # -- opening ----------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        folder: str | Path,
        *,
        template: str | None = None,
        text: str | None = None,
        actor: str | None = None,
    ) -> Campaign:
        """Start a campaign: a folder with ``campaign.toml`` and an empty event log.

        Args:
            folder: Where; it may exist, with or without a ``campaign.toml`` of yours.
            template: Name of a built-in template (`list_templates`).
            text: Settings to write, instead of a template.
            actor: Who, for the event log; the login name by default.

        Raises:
            CampaignError: If the settings are wrong, or there are two sets of them.
            StoreError: If there is a campaign already or the folder cannot be written.
        """
        place = Path(folder)
        path = place / SETTINGS
        if template is not None:
            text = _template(template)
        if path.exists():
            if text is not None:
                raise CampaignError(
                    f"{path} exists already; leave the template out to use it, or take another folder."
                )
            config = read_config(path)
        elif text is None:
            raise CampaignError(
                f"{path} is not there. Take a template ({', '.join(list_templates())}): "
                f"ohmloop campaign new {place} --template {list_templates()[0]}, or write one first."
            )
        else:
            config = parse_config(text)
        store = Store.create(place)

        def begin(events: list[Event]) -> list[Draft]:
            # Under the lock: of two people who start the same campaign one does, wholly.
            if events:
                raise StoreError(
                    f"{place} holds a campaign already; open it, or choose another folder."
                )
            if text is not None:
                _write_text(path, text)
            settings = path.read_text(encoding="utf-8-sig")
            return [
                Draft("created", {"name": config.name}),
                Draft("configured", {"text": settings}),
            ]

        try:
            store.transact(begin, actor=actor)
        except BaseException:
            store.close()
            raise
        return cls(place, store, config, actor)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        writable: bool = True,
        actor: str | None = None,
        seen: int | None = None,
    ) -> Campaign:
        """Open a campaign folder.

        Args:
            folder: The folder.
            writable: Whether to record.
            actor: Who, for the event log; the login name by default.
            seen: Number of the last event that the person saw (`State.last_event`). A decision or result that
                touches what somebody else changed later is refused with `ConflictError`. None: the latest word
                counts.

        Raises:
            CampaignError: If ``campaign.toml`` is missing or wrong; the data stay as they are.
            StoreError: If the folder is no campaign, is damaged, or cannot be written as asked.
        """
        place = Path(folder)
        store = Store.open(place, writable=writable)
        try:
            config = read_config(place / SETTINGS)
            campaign = cls(place, store, config, actor, seen)
            text = (place / SETTINGS).read_text(encoding="utf-8-sig")
            if writable and text != campaign._state.config_text:
                store.append(Draft("configured", {"text": text}), actor=actor)
                campaign.has_new_settings = True
        except BaseException:
            store.close()
            raise
        return campaign

    def close(self) -> None:
        """Close the folder; a second call does nothing."""
        self._store.close()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- suggesting -------------------------------------------------------------------------

    def suggest(
        self,
        q: int | None = None,
        *,
        context: Mapping[str, bo.Value] | None = None,
        pin: Mapping[str, bo.Value] | None = None,
        seed: int | None = None,
        key: str | None = None,
    ) -> list[Trial]:
        """Suggest the next recipes, with reasons, and record them as trials that wait for a decision.

        Trials that wait are taken into account; rejected recipes are not proposed again.

        Args:
            q: How many; by default the batch of ``campaign.toml``.
            context: Present values of context variables.
            pin: Values that this batch has, beside the pins of the campaign.
            seed: Of everything random; by default that of ``campaign.toml``.
            key: Of the request; a second one with it suggests nothing new and returns the same trials.

        Raises:
            CampaignError: If a context value is missing or no recipe is left.
        """
        q = self.config.suggest.batch if q is None else q
        return self._suggested_before(key) or self._suggest(
            q, context or {}, pin or {}, seed, (), key
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
    ) -> list[Trial]:
        state, mark = self.state, None if key is None else f"suggest:{key}"
        held = held_values(self.config, state, pin, context)
        entries = ask(self.config, state, q, held, seed=seed, withdrawn=withdrawn)

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

    # -- deciding ---------------------------------------------------------------------------

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

    # -- recording --------------------------------------------------------------------------

    def record(
        self,
        trial: str,
        *,
        values: Mapping[str, float] | None = None,
        errors: Mapping[str, float] | None = None,
        failed_at: str | None = None,
        passed: str | None = None,
        device: str = "",
        note: str = "",
        key: str | None = None,
    ) -> Trial:
        """Record the result of one device of a trial; call it again for each further device.

        A device that is named again adds to what is known of it: endurance, say, weeks after the first sweep.

        Args:
            trial: Its id.
            values: Objective -> measured number; what was not measured is left out.
            errors: Objective -> standard error of its value, >= 0, where it is known; the model weighs by it.
            failed_at: Stage at which the device failed; the stages before it count as passed.
            passed: Last stage that it passed ("all" for every stage); later ones are unknown.
            device: Name of the device on the chip; the next number by default.
            note: Remark.
            key: Of the sender; a second record with it changes nothing.

        Raises:
            CampaignError: If the trial, a stage or an objective is unknown, or nothing is said.
        """
        found = self.state.trial(trial)
        stages = stages_upto(self.config, failed_at=failed_at, passed=passed)
        clean = checked_values(self.config, values or {})
        stated = checked_errors(clean, errors or {})
        note = checked_text("note", note, LONGEST_NOTE)
        device = checked_text("device", device, LONGEST_NAME)
        if not stages and not clean:
            raise CampaignError(
                "a result needs a value, a stage that was passed, or one that failed: "
                + self._example()
            )

        def draft(now: State) -> Draft:
            trial = now.trial(found.id)
            if trial.status in ("rejected", "withdrawn"):
                raise CampaignError(
                    f"trial {trial.id} was {trial.status}; accept it first: "
                    f"ohmloop campaign decide {trial.id} accept"
                )
            data = {"stages": stages, "values": clean, "errors": stated, "note": note}
            name = device or trial.next_device()
            return Draft("recorded", {"trial": trial.id, "device": name, **data}, key=key)

        self._record(draft)
        return self.state.trials[found.id]

    def _example(self) -> str:
        """Return how a result is written in this campaign."""
        parts = [f"--failed-at {self.config.stages[-1].name}"] if self.config.stages else []
        parts += [f"{o.name}=0.21" for o in self.config.objectives[:1]]
        return ", or ".join(parts) + "."

    def ingest(
        self,
        paths: Sequence[str | Path],
        *,
        trial: str | None = None,
        voltage_unit: str | None = None,
        current_unit: str | None = None,
        recipe: str | FileRecipe | None = None,
    ) -> list[Ingested]:
        """Keep measurement files and record their figures of merit; a second time changes nothing.

        Each file is one device. It belongs to ``trial``, or to the trial in its name ("T007_dev2.xlsx").
        A file that cannot be read is refused with the reason; the others are recorded. A file with the headers
        of a kept recipe (`save_file_recipe`) is read by it.

        Args:
            paths: Files and folders.
            trial: The trial of all of them.
            voltage_unit: For columns that state none.
            current_unit: For columns that state none.
            recipe: Which column is which, or the name of a kept one, for all of them.

        Raises:
            CampaignError: If there is no recipe of that name.
        """
        from ohmloop.data import find_files

        return ingest_files(
            self._store,
            self.config,
            self.state,
            find_files(paths),
            Reading(voltage_unit, current_unit, self._file_recipe(recipe), self.file_recipes),
            trial=trial,
            record=self._record,
        )

    def save_file_recipe(self, name: str, recipe: FileRecipe) -> None:
        """Keep a confirmed mapping of columns, so that further files of the kind need no question.

        An earlier one of the name is replaced.

        Raises:
            CampaignError: If the name is empty or too long.
        """
        clean = checked_text("name", name, LONGEST_NAME)
        if not clean:
            raise CampaignError("a recipe for files needs a name.")
        data = {"name": clean, "recipe": recipe.to_dict()}
        self._record(lambda _: Draft("file-recipe", data))

    def _file_recipe(self, recipe: str | FileRecipe | None) -> FileRecipe | None:
        if not isinstance(recipe, str):
            return recipe
        known = self.file_recipes
        if recipe not in known:
            raise CampaignError(
                f'there is no recipe for files "{recipe[:40]}"; kept: {", ".join(known) or "none"}.'
                + did_you_mean(recipe, known)
            )
        return known[recipe]

    def configure(self, text: str) -> None:
        """Replace ``campaign.toml`` by another text, which is checked first; the log keeps both.

        Raises:
            CampaignError: If the settings are wrong; nothing changes then.
            ConflictError: If the file was changed since it was opened, or others changed it (`open`).
        """
        config = parse_config(text)
        path = self.folder / SETTINGS

        def draft(now: State) -> Draft:
            if path.read_text(encoding="utf-8-sig") != now.config_text:
                raise ConflictError(
                    f"{path} was changed by hand while it was open. Nothing was recorded. Open the campaign "
                    "again, and repeat."
                )
            refuse_stale(
                self.config,
                now.history,
                [("configured", {})],
                seen=now.last_event if self._seen is None else self._seen,
                own=self._own,
            )
            _write_text(path, text)
            return Draft("configured", {"text": text})

        if text != self.state.config_text:
            self._record(draft)
        self.config = config

    def export(self, path: str | Path) -> Path:
        """Write the trial sheet, one row a device, as .csv or .xlsx; `import_` reads it back."""
        return _sheets.write(self.config, self.state, Path(path))

    def import_(self, path: str | Path, *, earlier: str | None = None) -> _sheet_import.Imported:
        """Read a trial sheet that was filled in: results, decisions and experiments of one's own.

        All rows are checked before any is recorded. Rows that are in the campaign already change nothing; a
        device that is named again adds to its result, or corrects it.

        Args:
            path: A .csv or .xlsx file with the columns that `export` writes, in any order.
            earlier: Name of another campaign that the rows come from: they inform the model, as far as
                they turn out to agree, and are no trials of this one.

        Raises:
            CampaignError: Naming every row and column that does not fit; nothing is recorded then.
        """
        return _sheet_import.read(self, Path(path), earlier)

    def _record(self, draft: Callable[[State], Draft]) -> list[Event]:
        """Record what ``draft`` makes of the state under the writer's lock, unless it is stale."""
        state = self.state

        def drafts(new: list[Event]) -> list[Draft]:
            made = draft(fold([*state.history, *new]))
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
        now = fold([*state.history, *new])
        if self._seen is not None:
            refuse_stale(self.config, now.history, wanted, seen=self._seen, own=self._own)
        return now


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def _must_be_suggested(state: State, names: Sequence[str]) -> None:
    for name in names:
        if (status := state.trial(name).status) != "suggested":
            raise CampaignError(f"trial {name} is {status}; only a suggestion can be rolled again.")


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


_template = template


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")  # whole or absent, also for a killed process
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
