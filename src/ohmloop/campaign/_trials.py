"""The state of a campaign: what its events add up to. Pure: events in, trials out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ohmloop import bo
from ohmloop.errors import CampaignError
from ohmloop.store import Event

Status = Literal["suggested", "accepted", "rejected", "withdrawn", "done"]
Recipe = dict[str, bo.Value]

# Kinds of events that a person may take back. "created" and "configured" are facts about the folder.
UNDOABLE = frozenset(
    "suggested added accepted rejected edited withdrawn pinned unpinned recorded earlier undone "
    "file-recipe".split()
)


@dataclass(frozen=True)
class Record:
    """The result of one device of a trial.

    Attributes:
        event: Number of the last event that recorded something of it.
        at: When.
        device: Its name on the trial's chip; "1", "2", ... where nobody named it.
        stages: Stage -> passed; stages not reached or not looked at are absent.
        values: Objective -> number.
        figures: Figures of merit of the file, where it came from one.
        file: sha256 of that file.
        note: Remark.
        errors: Objective -> standard error of its value, where the measurement states one.
    """

    event: int
    at: str
    device: str = ""
    stages: dict[str, bool] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    note: str = ""
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def failed_at(self) -> str | None:
        """The first stage that was not passed; None for a device without a failure."""
        return next((name for name, passed in self.stages.items() if not passed), None)

    @property
    def is_usable(self) -> bool:
        """Whether something is known of it and nothing failed."""
        return self.failed_at is None and bool(self.stages or self.values)


@dataclass(frozen=True)
class Trial:
    """One fabrication.

    Attributes:
        id: "T001", "T002", ...
        recipe: Variable -> value.
        status: Where it stands.
        origin: "suggested", "own" (a person's) or "imported".
        event: Number of the event that made it.
        at: When.
        batch: Number of the batch it was suggested in, 0 for others.
        reasons: What the optimiser said, as in `ohmloop.bo.Suggestion`, for a suggested one.
        records: Results, one a device.
        note: Reason of a rejection, or a remark.
    """

    id: str
    recipe: Recipe
    status: Status
    origin: str
    event: int
    at: str
    batch: int = 0
    reasons: dict[str, Any] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    note: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it waits for a decision or a result."""
        return self.status in ("suggested", "accepted")

    @property
    def is_usable(self) -> bool:
        """Whether it has a device of which something is known and nothing failed."""
        return any(record.is_usable for record in self.records)

    @property
    def failed_at(self) -> str | None:
        """The stage where its best device failed; None if one is usable or nothing was decided."""
        failed = [record for record in self.records if record.failed_at is not None]
        if self.is_usable or not failed:
            return None
        return max(failed, key=lambda r: sum(r.stages.values())).failed_at

    @property
    def outcome(self) -> str:
        """In a word or two where it stands."""
        if not self.records:
            return self.status
        if self.failed_at:
            return f"failed at {self.failed_at}"
        return "usable" if self.is_usable else "undecided"

    def next_device(self, taken: Collection[str] = ()) -> str:
        """Return the name of a further device that nobody named: the next free number."""
        names = {record.device for record in self.records} | set(taken)
        k = len(self.records) + 1
        while str(k) in names:
            k += 1
        return str(k)


@dataclass(frozen=True)
class State:
    """Everything that the events of a campaign add up to.

    Attributes:
        trials: id -> trial, in the order of their ids.
        pins: Variable -> value that every suggestion has.
        earlier: Name of an earlier campaign -> its rows (recipe, stages, values).
        file_recipes: Name -> which column of a kind of file is which, as plain data.
        n_created: How many trials were ever numbered.
        n_batches: How many batches were ever suggested.
        last_event: Number of the last event.
        undone: Numbers of events that were taken back.
        history: All events, undone ones included.
        config_text: The settings as last seen.
    """

    trials: dict[str, Trial] = field(default_factory=dict)
    pins: Recipe = field(default_factory=dict)
    earlier: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    file_recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_created: int = 0
    n_batches: int = 0
    last_event: int = 0
    undone: frozenset[int] = frozenset()
    history: tuple[Event, ...] = ()
    config_text: str = ""

    def has_file(self, trial: str, sha256: str) -> bool:
        """Whether a raw file has been recorded for a trial, and the record still counts."""
        return any(
            e.kind == "recorded"
            and e.id not in self.undone
            and e.data["trial"] == trial
            and e.data.get("file") == sha256
            for e in self.history
        )

    def trial(self, name: str) -> Trial:
        """Return a trial by its id; "7", "t7" and "T007" are the same.

        Raises:
            CampaignError: If there is none.
        """
        wanted = name.strip().upper().lstrip("T").lstrip("0")
        for trial in self.trials.values():
            if trial.id.lstrip("T").lstrip("0") == wanted and wanted:
                return trial
        known = list(self.trials)
        shown = ", ".join(known[-5:]) if known else "none yet"
        raise CampaignError(f'there is no trial "{name[:40]}"; the latest are: {shown}.')

    def next_ids(self, n: int) -> list[str]:
        """Return the ids of the next ``n`` trials."""
        return [f"T{k:03d}" for k in range(self.n_created + 1, self.n_created + n + 1)]


def fold(events: Sequence[Event]) -> State:
    """Return what events add up to, those that were undone left out."""
    return _added(State(undone=_undone(events)), events)


def extended(state: State, new: Sequence[Event]) -> State:
    """Return what the events of ``state`` and ``new`` ones after them add up to.

    The same as `fold` of all of them, for the price of the new ones, unless one of these takes something back.
    """
    if not new:
        return state
    if any(event.kind == "undone" for event in new):
        return fold([*state.history, *new])
    return _added(state, new)


def _added(state: State, events: Sequence[Event]) -> State:
    """Return a state with events after its own; ``state.undone`` speaks of them too."""
    undone = state.undone
    trials, pins = dict(state.trials), dict(state.pins)
    earlier, file_recipes = dict(state.earlier), dict(state.file_recipes)
    n_created, n_batches, text = state.n_created, state.n_batches, state.config_text
    for event in events:
        data = event.data
        if event.kind == "suggested":
            n_created += len(data["trials"])
            n_batches += 1
        elif event.kind == "added":
            n_created += 1
        elif event.kind == "configured":
            text = data["text"]
        elif event.kind == "file-recipe" and event.id not in undone:
            file_recipes[data["name"]] = data["recipe"]
        if event.id not in undone:
            _apply(event, data, trials, pins, earlier, n_batches)
    if len(trials) != len(state.trials):
        trials = dict(sorted(trials.items(), key=lambda item: (len(item[0]), item[0])))
    return State(
        trials=trials,
        pins=pins,
        earlier=earlier,
        file_recipes=file_recipes,
        n_created=n_created,
        n_batches=n_batches,
        last_event=events[-1].id if events else state.last_event,
        undone=undone,
        history=(*state.history, *events),
        config_text=text,
    )


def _undone(events: Sequence[Event]) -> frozenset[int]:
    """Numbers of events that do not count; undoing an "undone" brings its target back."""
    out: set[int] = set()
    for event in reversed(events):
        if event.kind == "undone" and event.id not in out:
            out.add(event.data["event"])
    return frozenset(out)


def _apply(
    event: Event,
    data: Mapping[str, Any],
    trials: dict[str, Trial],
    pins: Recipe,
    earlier: dict[str, list[dict[str, Any]]],
    batch: int,
) -> None:
    kind = event.kind
    if kind == "suggested":
        for entry in data["trials"]:
            trials[entry["id"]] = Trial(
                id=entry["id"],
                recipe=entry["recipe"],
                status="suggested",
                origin="suggested",
                event=event.id,
                at=event.at,
                batch=batch,
                reasons=entry["reasons"],
            )
    elif kind == "added":
        trials[data["trial"]] = Trial(
            id=data["trial"],
            recipe=data["recipe"],
            status="accepted",
            origin=data["origin"],
            event=event.id,
            at=event.at,
            note=data.get("note", ""),
        )
    elif kind in ("accepted", "rejected", "edited"):
        _change(trials, data["trial"], event)
    elif kind == "withdrawn":
        for name in data["trials"]:
            _change(trials, name, event)
    elif kind == "pinned":
        pins[data["variable"]] = data["value"]
    elif kind == "unpinned":
        pins.pop(data["variable"], None)
    elif kind == "recorded" and data["trial"] in trials:
        trial = trials[data["trial"]]
        record = Record(
            event=event.id,
            at=event.at,
            device=data.get("device", ""),
            stages=data.get("stages", {}),
            values=data.get("values", {}),
            figures=data.get("figures", {}),
            file=data.get("file", ""),
            note=data.get("note", ""),
            errors=data.get("errors", {}),
        )
        trials[trial.id] = replace(trial, status="done", records=_joined(trial.records, record))
    elif kind == "earlier":
        earlier[data["name"]] = data["rows"]


def _joined(records: tuple[Record, ...], new: Record) -> tuple[Record, ...]:
    """Add a record; a device that is named again keeps what it had, and what was found later counts."""
    for k, old in enumerate(records):
        if new.device and old.device == new.device:
            # A failure speaks for all stages before it, and leaves none after it.
            stages = new.stages if new.failed_at else {**old.stages, **new.stages}
            both = replace(
                new,
                stages=stages,
                values={**old.values, **new.values},
                errors={k: e for k, e in old.errors.items() if k not in new.values} | new.errors,
                figures=new.figures or old.figures,
                file=new.file or old.file,
                note="; ".join(dict.fromkeys(filter(None, (old.note, new.note)))),
            )
            return (*records[:k], both, *records[k + 1 :])
    return (*records, new)


def _change(trials: dict[str, Trial], name: str, event: Event) -> None:
    trial = trials.get(name)
    if trial is None or trial.records:  # its suggestion was undone, or a result brought back
        return
    if event.kind == "edited":
        status = "accepted" if trial.is_open else trial.status
        trials[name] = replace(trial, recipe=event.data["recipe"], status=status)
    elif event.kind == "accepted":
        trials[name] = replace(trial, status="accepted")
    elif event.kind == "rejected":
        trials[name] = replace(trial, status="rejected", note=event.data.get("reason", ""))
    else:
        trials[name] = replace(trial, status="withdrawn")
