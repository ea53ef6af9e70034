"""The lab's loop: propose, decide, record, go on. The one stateful class of ohmloop."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ohmloop import bo
from ohmloop.campaign import _sheet_import, _sheets
from ohmloop.campaign._advice import Advice, CampaignStatus, advise, measured_mean, status_of
from ohmloop.campaign._ask import ask, held_values, pins_now, problem_now, refused
from ohmloop.campaign._config import Config, list_templates, parse_config, read_config, template
from ohmloop.campaign._ingest import Ingested, ingest_files
from ohmloop.campaign._log import LogLine, log_lines
from ohmloop.campaign._observe import (
    LONGEST_NAME,
    LONGEST_NOTE,
    checked,
    checked_text,
    checked_values,
    did_you_mean,
    observe,
    recipe_now,
    stages_upto,
    typed,
)
from ohmloop.campaign._trials import UNDOABLE, State, Trial, fold
from ohmloop.errors import CampaignError, SearchError, StoreError
from ohmloop.store import Draft, Event, Store

SETTINGS = "campaign.toml"


class Campaign:
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

    def __init__(self, folder: Path, store: Store, config: Config, actor: str | None) -> None:
        self.folder, self.config = folder, config
        self._store, self._actor = store, actor
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
        cls, folder: str | Path, *, writable: bool = True, actor: str | None = None
    ) -> Campaign:
        """Open a campaign folder.

        Raises:
            CampaignError: If ``campaign.toml`` is missing or wrong; the data stay as they are.
            StoreError: If the folder is no campaign, is damaged, or cannot be written as asked.
        """
        place = Path(folder)
        store = Store.open(place, writable=writable)
        try:
            config = read_config(place / SETTINGS)
            campaign = cls(place, store, config, actor)
            text = (place / SETTINGS).read_text(encoding="utf-8-sig")
            if writable and text != campaign._state.config_text:
                campaign._record(Draft("configured", {"text": text}))
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

    # -- reading ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Everything that was recorded, by anybody, up to now."""
        new = self._store.events(self._state.last_event)
        if new:
            self._state = fold([*self._state.history, *new])
        return self._state

    @property
    def trials(self) -> dict[str, Trial]:
        """Id -> trial."""
        return self.state.trials

    def problem(self) -> bo.Problem:
        """Return the search as the optimiser sees it, with options that only old trials have."""
        return problem_now(self.config, self.state)

    def observations(self) -> list[bo.Observation]:
        """Return one observation a trial with results, then those of earlier campaigns."""
        return observe(self.config, self.state)[0]

    def log(self) -> list[LogLine]:
        """Return every event in words, those that were taken back marked."""
        return log_lines(self.config, self.state)

    def outside(self, recipe: Mapping[str, bo.Value]) -> list[str]:
        """Return in words where a recipe leaves the space or breaks a rule; empty where it does not."""
        return checked(self.config, recipe_now(self.config, recipe, "the recipe"))[1]

    def files(self) -> dict[str, str]:
        """Return sha256 -> name of the raw files kept."""
        return self._store.files()

    def file_path(self, sha256: str) -> Path:
        """Return where a raw file lies in the folder."""
        return self._store.file_path(sha256)

    def check(self) -> list[str]:
        """Return what is wrong with the folder, in words; empty when all is well."""
        return self._store.check()

    def status(self, *, advice: bool = True) -> CampaignStatus:
        """Return where the campaign stands.

        Args:
            advice: Whether to fit the model and say what one more batch is worth (some seconds).
        """
        plain = status_of(self.config, self.state, None)
        if not advice:
            return plain
        return status_of(self.config, self.state, self.advice(plain))

    def advice(self, status: CampaignStatus | None = None) -> Advice:
        """Return whether to go on, and what the next batch is expected to bring."""
        status = status_of(self.config, self.state, None) if status is None else status
        observations, _ = observe(self.config, self.state)
        q = self.config.suggest.batch
        if sum(o.source == "" for o in observations) < 2 or not self.config.objectives:
            return advise(self.config, status, [], q)
        problem = self.problem()
        own = [o.point for o in observations if o.source == ""]
        context = {
            v.name: point[v.name]
            for v in problem.space.variables
            for point in own
            if v.context and v.name in point
        }  # as it was for the last trial
        seed = self.config.suggest.seed
        try:
            batch = bo.suggest(
                problem,
                observations,
                q,
                rejected=refused(self.config, self.state),
                fixed={**context, **pins_now(self.config, self.state)},  # type: ignore[dict-item]  # recorded values are never None
                seed=seed,
            )
        except SearchError as error:
            return Advice("look", str(error))
        worth = bo.worth(problem, observations, batch, seed=seed)
        return advise(self.config, status, worth, len(batch))

    def best(self) -> list[tuple[Trial, dict[str, float]]]:
        """Return the best usable trials: the one believed best, or the Pareto front of several objectives.

        Each comes with its measured means. With noise the luckiest measurement is not the best recipe, so the
        model's mean decides for one objective. Empty before there is one.
        """
        observations, names = observe(self.config, self.state)
        problem = self.problem()
        if len(problem.objectives) == 1:
            index = bo.best_recipe(problem, observations)
            rows = [] if index is None else [index]
        elif problem.objectives:
            rows = bo.pareto(problem, observations)
        else:
            rows = [k for k, o in enumerate(observations) if o.is_usable and not o.source]
        out = []
        for k in rows:
            trial = self.state.trials[names[k]]
            means = {o.name: measured_mean(trial, o.name) for o in self.config.objectives}
            out.append((trial, {name: x for name, x in means.items() if x is not None}))
        return out

    # -- suggesting -------------------------------------------------------------------------

    def suggest(
        self,
        q: int | None = None,
        *,
        context: Mapping[str, bo.Value] | None = None,
        pin: Mapping[str, bo.Value] | None = None,
        seed: int | None = None,
    ) -> list[Trial]:
        """Suggest the next recipes, with reasons, and record them as trials that wait for a decision.

        Trials that wait are taken into account; rejected recipes are not proposed again.

        Args:
            q: How many; by default the batch of ``campaign.toml``.
            context: Present values of context variables.
            pin: Values that this batch has, beside the pins of the campaign.
            seed: Of everything random; by default that of ``campaign.toml``.

        Raises:
            CampaignError: If a context value is missing or no recipe is left.
        """
        q = self.config.suggest.batch if q is None else q
        return self._suggest(q, context or {}, pin or {}, seed, ())

    def reroll(self, *trials: str, context: Mapping[str, bo.Value] | None = None) -> list[Trial]:
        """Withdraw suggestions and suggest others in their place; all open suggestions by default.

        What the first one's batch was held at is held again.

        Args:
            trials: Their ids.
            context: Present values of context variables; by default those of the first one withdrawn.

        Raises:
            CampaignError: If one of them is no open suggestion, or there is none.
        """
        state = self.state
        names = list(dict.fromkeys(state.trial(t).id for t in trials)) or [
            t.id for t in state.trials.values() if t.status == "suggested"
        ]
        for name in names:
            if state.trials[name].status != "suggested":
                raise CampaignError(
                    f"trial {name} is {state.trials[name].status}; only a suggestion can be rolled again."
                )
        if not names:
            raise CampaignError("there is no open suggestion to roll again.")
        asked = next(e for e in state.history if e.id == state.trials[names[0]].event)
        held = {n: v for n, v in asked.data["held"].items() if n in self.config.variables}
        roles = {name: spec.role for name, spec in self.config.variables.items()}
        known = {n: v for n, v in held.items() if roles[n] == "context"}
        pin = {n: v for n, v in held.items() if roles[n] != "context" and n not in state.pins}
        return self._suggest(len(names), {**known, **(context or {})}, pin, None, names)

    def _suggest(
        self,
        q: int,
        context: Mapping[str, bo.Value],
        pin: Mapping[str, bo.Value],
        seed: int | None,
        withdrawn: Sequence[str],
    ) -> list[Trial]:
        state = self.state
        held = held_values(self.config, state, pin, context)
        entries = ask(self.config, state, q, held, seed=seed, withdrawn=withdrawn)

        def draft(new: list[Event]) -> list[Draft]:
            # Numbers are given under the lock: two people may suggest at the same time.
            now = fold([*state.history, *new])
            numbered = [
                {"id": name, **entry}
                for name, entry in zip(now.next_ids(len(entries)), entries, strict=True)
            ]
            out = [Draft("withdrawn", {"trials": list(withdrawn)})] if withdrawn else []
            return [*out, Draft("suggested", {"trials": numbered, "held": held})]

        events = self._store.transact(draft, after=state.last_event, actor=self._actor)
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
        state = self.state

        def draft(new: list[Event]) -> list[Draft]:
            name = fold([*state.history, *new]).next_ids(1)[0]
            data = {
                "trial": name,
                "recipe": clean,
                "note": note,
                "origin": origin,
                "outside": outside,
            }
            return [Draft("added", data)]

        events = self._store.transact(draft, after=state.last_event, actor=self._actor)
        return self.state.trials[events[-1].data["trial"]], outside

    def _decide(self, kind: str, trial: str, data: Mapping[str, Any]) -> Trial:
        found = self.state.trial(trial)
        if found.records:
            raise CampaignError(
                f"trial {found.id} has results already; take them back first: "
                f"ohmloop campaign decide undo {found.records[-1].event}"
            )
        self._record(Draft(kind, {"trial": found.id, **data}))
        return self.state.trials[found.id]

    def pin(self, variable: str, value: bo.Value) -> None:
        """Hold a variable at a value in every suggestion to come."""
        clean = typed(self.config, {variable: value})
        if not clean:
            raise CampaignError(f'"{variable}" needs a value to be held at.')
        try:
            self.problem().space.sample(1, _rng(), {**pins_now(self.config, self.state), **clean})
        except SearchError as error:
            raise CampaignError(str(error)) from error
        self._record(Draft("pinned", {"variable": variable, "value": clean[variable]}))

    def unpin(self, variable: str) -> None:
        """Let a variable go again."""
        if variable not in self.state.pins:
            raise CampaignError(
                f'"{variable}" is not pinned; pinned: {", ".join(self.state.pins) or "nothing"}.'
                + did_you_mean(variable, self.state.pins)
            )
        self._record(Draft("unpinned", {"variable": variable}))

    def undo(self, event: int | None = None) -> Event:
        """Take an event back (the last that can be), or an undo itself; the log keeps both.

        Raises:
            CampaignError: If there is none, or later events build on it.
        """
        state = self.state
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
            raise CampaignError(
                f"{', '.join(built)} has results; undo those first (events {events})."
            )
        self._record(Draft("undone", {"event": target.id}))
        return target

    # -- recording --------------------------------------------------------------------------

    def record(
        self,
        trial: str,
        *,
        values: Mapping[str, float] | None = None,
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
            failed_at: Stage at which the device failed; the stages before it count as passed.
            passed: Last stage that it passed ("all" for every stage); later ones are unknown.
            device: Name of the device on the chip; the next number by default.
            note: Remark.
            key: Of the sender; a second record with it changes nothing.

        Raises:
            CampaignError: If the trial, a stage or an objective is unknown, or nothing is said.
        """
        state = self.state
        found = state.trial(trial)
        stages = stages_upto(self.config, failed_at=failed_at, passed=passed)
        clean = checked_values(self.config, values or {})
        note = checked_text("note", note, LONGEST_NOTE)
        device = checked_text("device", device, LONGEST_NAME)
        if not stages and not clean:
            raise CampaignError(
                "a result needs a value, a stage that was passed, or one that failed: "
                + self._example()
            )
        if found.status in ("rejected", "withdrawn"):
            raise CampaignError(
                f"trial {found.id} was {found.status}; accept it first: "
                f"ohmloop campaign decide {found.id} accept"
            )

        def draft(new: list[Event]) -> list[Draft]:
            now = fold([*state.history, *new]).trial(found.id)
            data = {"stages": stages, "values": clean, "note": note}
            name = device or now.next_device()
            return [Draft("recorded", {"trial": now.id, "device": name, **data}, key=key)]

        self._store.transact(draft, after=state.last_event, actor=self._actor)
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
    ) -> list[Ingested]:
        """Keep measurement files and record their figures of merit; a second time changes nothing.

        Each file is one device. It belongs to ``trial``, or to the trial in its name ("T007_dev2.xlsx").
        A file that cannot be read is refused with the reason; the others are recorded.

        Args:
            paths: Files and folders.
            trial: The trial of all of them.
            voltage_unit: For columns that state none.
            current_unit: For columns that state none.
        """
        from ohmloop.data import find_files

        return ingest_files(
            self._store,
            self.config,
            self.state,
            find_files(paths),
            trial=trial,
            voltage_unit=voltage_unit,
            current_unit=current_unit,
            actor=self._actor,
        )

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

    def _record(self, *drafts: Draft) -> list[Event]:
        return self._store.append(*drafts, actor=self._actor)


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


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
