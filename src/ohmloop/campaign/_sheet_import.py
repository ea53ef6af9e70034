"""A filled-in trial sheet read back: every row is checked before any is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmloop.campaign._config import Config
from ohmloop.campaign._observe import (
    LONGEST_NAME,
    LONGEST_NOTE,
    checked,
    checked_text,
    checked_values,
    did_you_mean,
    number_of,
    recipe_now,
    same_recipe,
    stages_upto,
)
from ohmloop.campaign._sheets import AS_OF, FORMULA_SIGNS, SHEET, columns
from ohmloop.campaign._trials import Recipe, Record, State, Trial, extended, fold
from ohmloop.errors import CampaignError, OhmloopError
from ohmloop.store import Draft, Event

if TYPE_CHECKING:
    from ohmloop.campaign._campaign import Campaign

Row = dict[str, str]
STATUSES = ("", "suggested", "accepted", "rejected", "withdrawn", "done")


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        recorded: Results recorded.
        added: Trials added that the sheet had without an id.
        decided: Decisions and edits taken over.
        unchanged: Rows that were in the campaign already.
        notes: What a person should know: recipes outside the space, columns that were left out.
    """

    recorded: int = 0
    added: int = 0
    decided: int = 0
    unchanged: int = 0
    notes: tuple[str, ...] = ()


def read(campaign: Campaign, path: Path, earlier: str | None) -> Imported:
    """Read a trial sheet back; see `Campaign.import_`."""
    from ohmloop.data import read_table

    config, state = campaign.config, campaign.state
    former = {name for trial in state.trials.values() for name in trial.recipe}
    rows, notes = _rows(config, read_table(path, sheet=SHEET), path.name, former, earlier)
    if earlier is not None:
        return _take_earlier(campaign, rows, path.name, earlier.strip(), notes)
    done = Imported()

    def draft(new: list[Event]) -> list[Draft]:
        # Under the lock, against everything that was recorded up to now.
        nonlocal done
        reader = _Reader(config, extended(state, new))
        _each(rows, path.name, reader.take)
        campaign._agreed(state, new, *((d.kind, d.data) for d in reader.drafts))
        n = reader.counts
        done = Imported(
            recorded=n["recorded"],
            added=n["added"],
            decided=n["decided"],
            unchanged=n["unchanged"],
            notes=(*notes, *reader.notes),
        )
        return reader.drafts

    campaign._store.transact(draft, after=state.last_event, actor=campaign._actor)
    return done


# -- the table ----------------------------------------------------------------------------------


def _rows(
    config: Config, table: list[list[str]], file: str, former: set[str], earlier: str | None
) -> tuple[list[tuple[int, Row]], list[str]]:
    """Return (number in the sheet, column -> cell) of every row that is not empty, and notes."""
    top = next((k for k, line in enumerate(table) if line), None)
    if top is None:
        raise CampaignError(f"{file} holds no table.")
    known = columns(config)
    plain = {name.casefold(): name for name in known}
    header = [plain.get(name.strip().casefold(), name.strip()) for name in table[top]]
    strange = [name for name in header if name and name not in known]
    # Variables that were removed meanwhile, and another campaign's own, are left out; misspellings are not.
    left_out = [
        n for n in strange if n in former or (earlier is not None and not did_you_mean(n, known))
    ]
    wrong = [name for name in strange if name not in left_out]
    if wrong:
        told = "".join(
            f' "{n[:40]}" is no column of this campaign.{did_you_mean(n, known)}' for n in wrong[:5]
        )
        raise CampaignError(f"{file}:{told} Columns: {', '.join(known)}.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise CampaignError(f"{file}: the column {', '.join(twice)} occurs twice.")
    rows = []
    for number, line in enumerate(table[top + 1 :], start=top + 2):
        nameless = [cell for name, cell in zip(header, line, strict=False) if not name and cell]
        nameless += [cell for cell in line[len(header) :] if cell]
        if nameless:
            raise CampaignError(
                f'{file}, row {number}: "{nameless[0][:40]}" stands in a column without a name. Give the '
                "column its name back, or empty it."
            )
        row = {
            n: _plain(cell) for n, cell in zip(header, line, strict=False) if n in known and cell
        }
        if row:
            rows.append((number, row))
    return rows, [
        f"column {name} was left out: it is no variable (any longer)" for name in left_out
    ]


def _plain(cell: str) -> str:
    """Take the sign off that keeps text from being a formula."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in FORMULA_SIGNS else cell


def _each(rows: Iterable[tuple[int, Row]], file: str, take: Any) -> None:
    """Call ``take(number, row)`` for every row; name every row that is wrong."""
    errors = []
    for number, row in rows:
        try:
            take(number, row)
        except OhmloopError as error:
            errors.append(f"row {number}: {error}")
    if errors:
        more = f"\nand {len(errors) - 20} rows more" if len(errors) > 20 else ""
        raise CampaignError(f"{file}: nothing was recorded.\n" + "\n".join(errors[:20]) + more)


# -- trials -------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """Rows in, drafts out; knows what the campaign has and what the rows before brought."""

    config: Config
    state: State
    drafts: list[Draft] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("recorded", "added", "decided", "unchanged"), 0)
    )

    def __post_init__(self) -> None:
        # Each record answers for one row, so that two equal devices stay two.
        self._unmatched = {t.id: list(t.records) for t in self.state.trials.values()}
        self._devices: dict[str, dict[str, int]] = {}  # trial -> device -> its row
        self._pasts: dict[int, State] = {}
        self._own: list[tuple[Recipe, str]] = [
            (t.recipe, t.id) for t in self.state.trials.values() if t.origin == "imported"
        ]
        self._n_added = 0

    def take(self, number: int, row: Row) -> None:
        """Turn one row into drafts.

        Raises:
            CampaignError: If it does not fit.
        """
        before = len(self.drafts)
        row = {**row, "note": checked_text("note", row.get("note", ""), LONGEST_NOTE)}
        trial = self.state.trial(row["trial"]) if "trial" in row else None
        past = None if trial is None else self._past(row).get(trial.id)
        status = row.get("status", "").casefold()
        if past is not None and trial is not None:
            row, status = self._only_changes(row, status, past, trial)
        if status not in STATUSES:
            raise CampaignError(
                f'status: "{row["status"][:40]}" is neither accepted nor rejected; leave it empty otherwise.'
            )
        result = self._result(row)
        if trial is None:
            name = self._own_trial(number, row)
        else:
            name = trial.id
            edited = self._edit(number, trial, row)
            self._decide(trial, status, edited, result, row)
        before_it = () if past is None else past.records
        if result is not None and not any(_is_row(r, result) for r in before_it):
            if past is not None and trial and not same_recipe(past.recipe, trial.recipe):
                raise CampaignError(
                    f"the recipe of {trial.id} was changed after the sheet was made: is the result of the old "
                    "or the new one? Record it with the trial, or as an experiment of your own (no trial cell)."
                )
            self._record(number, name, result)
        elif status == "done" and trial is not None and not trial.records:
            self.notes.append(f"row {number}: {name} is done, but has no result: nothing to record")
        if len(self.drafts) == before:
            self.counts["unchanged"] += 1

    def _past(self, row: Row) -> Mapping[str, Trial]:
        """Return the trials as the sheet knew them; none where it does not say."""
        if AS_OF not in row:
            return {}
        event = number_of(AS_OF, row[AS_OF])
        if not 0 < event <= self.state.last_event or event != int(event):
            raise CampaignError(
                f'{AS_OF}: "{row[AS_OF][:20]}" is no event of this campaign; empty the column if the sheet is '
                "from elsewhere."
            )
        if event not in self._pasts:
            history = [e for e in self.state.history if e.id <= event]
            self._pasts[int(event)] = fold(history)
        return self._pasts[int(event)].trials

    def _only_changes(self, row: Row, status: str, past: Trial, trial: Trial) -> tuple[Row, str]:
        """Leave out what stands in the row as it was exported: only what a person changed is theirs.

        Raises:
            CampaignError: If somebody else changed the same meanwhile.
        """
        if status == past.status:
            status = ""
        elif status and past.status != trial.status != status and not trial.records:
            raise CampaignError(
                f"{trial.id} was {past.status} when the sheet was made, and is {trial.status} since; the sheet "
                f"says {status}. Decide it anew: ohmloop campaign decide {trial.id}, or empty the cell."
            )
        given = {n: row[n] for n in self.config.variables if n in row}
        then = recipe_now(self.config, past.recipe, f"trial {trial.id}") if given else {}
        if not given or same_recipe(
            checked(self.config, {**then, **given})[0], checked(self.config, then)[0]
        ):
            row = {n: cell for n, cell in row.items() if n not in given}
        elif not same_recipe(past.recipe, trial.recipe):
            raise CampaignError(
                f"the recipe of {trial.id} was changed after the sheet was made, and the sheet changes it too. "
                "Export a new one, or empty its cells."
            )
        return row, status

    def _result(self, row: Row) -> dict[str, Any] | None:
        objectives = [o.name for o in self.config.objectives]
        values = checked_values(self.config, {n: row[n] for n in objectives if n in row})
        stages = stages_upto(self.config, failed_at=row.get("failed_at"), passed=row.get("passed"))
        if not values and not stages:
            return None
        note = row.get("note", "")
        device = checked_text("device", row.get("device", ""), LONGEST_NAME)
        return {"device": device, "stages": stages, "values": values, "note": note}

    def _own_trial(self, number: int, row: Row) -> str:
        """Return the trial of a row without an id: a new one, unless its recipe was there already."""
        given = {name: row[name] for name in self.config.variables if name in row}
        if not given:
            raise CampaignError("it has neither a trial nor a recipe.")
        recipe, outside = checked(self.config, given)
        for known, name in self._own:
            if same_recipe(known, recipe):
                return name
        self._n_added += 1
        name = self.state.next_ids(self._n_added)[-1]
        data = {"trial": name, "recipe": recipe, "note": row.get("note", ""), "outside": outside}
        self.drafts.append(Draft("added", {**data, "origin": "imported"}))
        self.counts["added"] += 1
        self._own.append((recipe, name))
        self._unmatched[name] = []
        self._tell(number, name, outside)
        return name

    def _edit(self, number: int, trial: Trial, row: Row) -> bool:
        """Take over a changed recipe; a cell that was emptied keeps its value."""
        given = {name: row[name] for name in self.config.variables if name in row}
        if not given:
            return False
        now = recipe_now(self.config, trial.recipe, f"trial {trial.id}")
        recipe, outside = checked(self.config, {**now, **given})
        present, _ = checked(self.config, now)
        if same_recipe(recipe, present):
            return False
        if trial.records:
            changed = [n for n in recipe if recipe[n] != present.get(n)]
            raise CampaignError(
                f"trial {trial.id} has results; its recipe cannot change ({', '.join(changed)}). For another "
                "recipe leave the trial cell empty."
            )
        self.drafts.append(Draft("edited", {"trial": trial.id, "recipe": recipe}))
        self.counts["decided"] += 1
        self._tell(number, trial.id, outside)
        return True

    def _tell(self, number: int, name: str, outside: list[str]) -> None:
        self.notes += [
            f"row {number}, {name}: {line}; it is taken all the same" for line in outside
        ]

    def _decide(
        self, trial: Trial, status: str, edited: bool, result: dict[str, Any] | None, row: Row
    ) -> None:
        if trial.records:
            return
        if status == "rejected" and result is not None:
            raise CampaignError("the row has a result but is rejected; set status to accepted.")
        if status == "rejected" and trial.status != "rejected":
            self.drafts.append(
                Draft("rejected", {"trial": trial.id, "reason": row.get("note", "")})
            )
            self.counts["decided"] += 1
        elif status == "accepted" and trial.status != "accepted" and not edited:
            self.drafts.append(Draft("accepted", {"trial": trial.id}))
            self.counts["decided"] += 1
        elif result is not None and trial.status in ("rejected", "withdrawn") and not edited:
            raise CampaignError(
                f"the row has a result but {trial.id} was {trial.status}; set status to accepted."
            )

    def _record(self, number: int, name: str, result: dict[str, Any]) -> None:
        device = result["device"]
        seen = self._devices.setdefault(name, {})
        if device and device in seen:
            raise CampaignError(
                f'row {seen[device]} is device "{device}" of {name} already; give the second one another name.'
            )
        if device:
            seen[device] = number
        left = self._unmatched[name]
        match = next((r for r in left if device in ("", r.device) and _says(r, result)), None)
        if match is not None:
            left.remove(match)
            return
        if not device:
            known = self.state.trials.get(name) or Trial(name, {}, "accepted", "imported", 0, "")
            device = known.next_device(seen)
            seen[device] = number
        self.drafts.append(Draft("recorded", {"trial": name, **result, "device": device}))
        self.counts["recorded"] += 1


def _is_row(record: Record, result: Mapping[str, Any]) -> bool:
    """Whether a row stands as it was exported from a record."""
    return bool(record.device == result["device"] and _says(record, result))


def _says(record: Record, result: Mapping[str, Any]) -> bool:
    """Whether a record says all that a row says: the row was exported, or imported before."""
    return all(record.stages.get(n) == ok for n, ok in result["stages"].items()) and all(
        n in record.values and math.isclose(record.values[n], x, rel_tol=1e-9)
        for n, x in result["values"].items()
    )


# -- an earlier campaign ------------------------------------------------------------------------


def _take_earlier(
    campaign: Campaign, rows: list[tuple[int, Row]], file: str, name: str, notes: list[str]
) -> Imported:
    config = campaign.config
    if not name:
        raise CampaignError("an earlier campaign needs a name: --earlier first-year")
    taken: list[dict[str, Any]] = []

    def take(number: int, row: Row) -> None:
        objectives = [o.name for o in config.objectives]
        values = checked_values(config, {n: row[n] for n in objectives if n in row})
        stages = stages_upto(config, failed_at=row.get("failed_at"), passed=row.get("passed"))
        if values or stages:  # a recipe without a result teaches nothing
            given = {n: row[n] for n in config.variables if n in row}
            recipe, _ = checked(config, recipe_now(config, given, "it"))
            taken.append({"recipe": recipe, "stages": stages, "values": values})

    _each(rows, file, take)
    if not taken:
        raise CampaignError(
            f"{file}: no row has a result (failed_at, passed"
            + "".join(f", {o.name}" for o in config.objectives)
            + ")."
        )
    if campaign.state.earlier.get(name) == taken:
        return Imported(unchanged=len(taken), notes=tuple(notes))
    campaign._record(lambda _: Draft("earlier", {"name": name, "rows": taken}))
    return Imported(recorded=len(taken), notes=tuple(notes))
