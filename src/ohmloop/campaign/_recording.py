"""The measuring half of `Campaign`: results by hand and from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ohmloop.campaign._ingest import Ingested, Reading, ingest_files
from ohmloop.campaign._observe import (
    LONGEST_NAME,
    LONGEST_NOTE,
    checked_errors,
    checked_text,
    checked_values,
    did_you_mean,
    stages_upto,
)
from ohmloop.campaign._trials import State, Trial
from ohmloop.campaign._writing import Writing
from ohmloop.data import FileRecipe
from ohmloop.errors import CampaignError
from ohmloop.store import Draft


class Recording(Writing):
    """The measuring half of `Campaign`."""

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
