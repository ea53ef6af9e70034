"""The tables of ``campaign.toml``: what each may hold."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ohmloop import bo
from ohmloop.errors import CampaignError

Name = str
TASK_ACCURACY = "task_accuracy"  # what a network would score on the measured device
SMALLEST, LARGEST = 1e-50, 1e50  # of numbers that describe a device; floats overflow at 1e308


class Part(BaseModel):
    """A table of ``campaign.toml``: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class VariableSpec(Part):
    """One ``[variables.NAME]`` table.

    Attributes:
        type: Kind of variable.
        unit: Unit, for people ("degC", "um").
        help: One line for people.
        low: Lower bound (continuous, integer).
        high: Upper bound (continuous, integer).
        scale: "log" where ratios count.
        step: The equipment's step.
        levels: The numbers of an ordinal variable.
        options: The options of a categorical variable.
        descriptors: Option -> property -> number.
        tolerance: Standard deviation with which fabrication hits a set value.
        role: "recipe" is chosen; "context" is measured and stated with each suggestion (humidity).
        when: Parent variable -> its values for which this one exists.
        former: Value that trials had from before this variable was added.
    """

    type: Literal["continuous", "integer", "ordinal", "categorical"]
    unit: str = ""
    help: str = ""
    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    step: float | None = None
    levels: tuple[float, ...] = ()
    options: tuple[str, ...] = ()
    descriptors: dict[str, dict[str, float]] = Field(default_factory=dict)
    tolerance: float = 0.0
    role: Literal["recipe", "context"] = "recipe"
    when: dict[str, tuple[str | float, ...]] = Field(default_factory=dict)
    former: str | float | None = None

    def build(
        self, name: str, retired: tuple[str, ...] = ()
    ) -> bo.Categorical | bo.Ordinal | bo.Real:
        """Return the variable as the optimiser knows it."""
        if len(self.when) > 1:
            raise CampaignError(
                f'variables.{name}: "when" names one parent; received {list(self.when)}.'
            )
        when = None
        for parent, values in self.when.items():
            when = bo.When(parent, values)
        context = self.role == "context"
        self._sizes(name)
        if self.type == "categorical":
            self._only(name, ("options", "descriptors"))
            for option in self.options:
                if not option.isprintable() or option != option.strip() or len(option) > 200:
                    raise CampaignError(
                        f"variables.{name}: the option {option[:40]!r} is no plain text of at most 200 "
                        "characters without blanks around it."
                    )
            return bo.Categorical(
                name=name,
                options=self.options,
                descriptors=self._descriptors(name),
                retired=tuple(x for x in retired if x not in self.options),
                context=context,
                when=when,
            )
        if self.type == "ordinal":
            self._only(name, ("levels",))
            return bo.Ordinal(name=name, levels=self.levels, context=context, when=when)
        self._only(name, ("low", "high", "step", "scale", "tolerance"))
        if self.low is None or self.high is None:
            raise CampaignError(f'variables.{name}: a {self.type} variable needs "low" and "high".')
        if self.type == "integer" and self.step not in (None, 1.0):
            raise CampaignError(
                f'variables.{name}: an integer has no "step"; use "ordinal" with levels.'
            )
        common: dict[str, Any] = {
            "name": name,
            "low": self.low,
            "high": self.high,
            "log": self.scale == "log",
            "tolerance": self.tolerance,
            "context": context,
            "when": when,
        }
        if self.type == "integer":
            return bo.Integer(**common)
        return bo.Real(**common, step=self.step)

    def _only(self, name: str, allowed: tuple[str, ...]) -> None:
        special = {"low", "high", "scale", "step", "levels", "options", "descriptors", "tolerance"}
        for key in sorted((self.model_fields_set & special) - set(allowed)):
            raise CampaignError(
                f'variables.{name}: "{key}" means nothing for type = "{self.type}".'
            )

    def _sizes(self, name: str) -> None:
        """Refuse numbers that arithmetic cannot carry: overflows, and ranges that rounding swallows."""
        given = [self.low, self.high, self.step, self.tolerance, *self.levels]
        given += [x for table in self.descriptors.values() for x in table.values()]
        for number in given:
            if number and not SMALLEST <= abs(number) <= LARGEST:
                raise CampaignError(
                    f"variables.{name}: {number!r} is out of reach; numbers lie between {SMALLEST} and "
                    f"{LARGEST} in size, or are 0. Take another unit."
                )
        if self.low is not None and self.high is not None and self.low < self.high:
            width = self.high - self.low
            if width < 1e-9 * max(abs(self.low), abs(self.high)):
                raise CampaignError(
                    f"variables.{name}: {self.low!r} to {self.high!r} is too narrow a range to be told apart."
                )
            if self.step is not None and 0 < self.step < 1e-9 * width:
                raise CampaignError(
                    f"variables.{name}: step = {self.step!r} makes more than a billion values; leave it out."
                )

    def _descriptors(self, name: str) -> dict[str, tuple[float, ...]] | None:
        if not self.descriptors:
            return None
        keys = sorted({key for table in self.descriptors.values() for key in table})
        for option in self.options:
            missing = [key for key in keys if key not in self.descriptors.get(option, {})]
            if missing:
                raise CampaignError(
                    f'variables.{name}.descriptors: option "{option}" misses {", ".join(missing)}; '
                    "every option needs every property."
                )
        # An option that was removed keeps its descriptors: old trials with it still teach.
        return {
            option: tuple(table[key] for key in keys)
            for option, table in self.descriptors.items()
            if len(table) == len(keys)
        }


class SimplexSpec(Part):
    """One ``[[simplex]]``: variables that are shares of a whole."""

    variables: tuple[Name, ...]
    total: float = 1.0


class ConstraintSpec(Part):
    """One ``[[constraints]]``: a rule that every recipe obeys."""

    rule: str
    why: str = ""


class StageSpec(Part):
    """One ``[[stages]]``: a step to a usable device.

    Attributes:
        name: Its name.
        question: What the person at the bench answers yes or no to.
        passes_when: Formula over figures of merit that decides for ingested files; "" leaves it to people.
    """

    name: Name
    question: str = ""
    passes_when: str = ""


class ObjectiveSpec(Part):
    """One ``[[objectives]]``.

    Attributes:
        name: Its name, a column of the trial sheet.
        goal: Direction.
        scale: "log" where ratios count; "auto" lets the data choose.
        unit: For people.
        figure: Figure of merit of ingested files that fills it; by default the one of the same name.
            "task_accuracy" (or "task-accuracy") is what a network would score on the device, by the folder's
            ``task-accuracy.json``.
        negate: Whether the figure counts with a minus.
        reference: Worst value of interest, for several objectives.
    """

    name: Name
    goal: Literal["maximise", "minimise"] = "maximise"
    scale: Literal["auto", "linear", "log"] = "auto"
    unit: str = ""
    figure: str = ""
    negate: bool = False
    reference: float | None = None

    @field_validator("figure")
    @classmethod
    def _one_spelling(cls, figure: str) -> str:
        return TASK_ACCURACY if figure == TASK_ACCURACY.replace("_", "-") else figure


class FormulaSpec(Part):
    """``[cost]`` or ``[time]``: a formula over the recipe and its unit."""

    formula: str
    unit: str = ""


class BudgetSpec(Part):
    """``[budget]``: what the campaign may use up."""

    trials: int | None = Field(default=None, ge=1)
    cost: float | None = Field(default=None, gt=0)
    time: float | None = Field(default=None, gt=0)


class BeliefSpec(Part):
    """``[beliefs.NAME]``: where a person expects good recipes; it fades as trials accumulate."""

    likely: float | dict[str, float]
    spread: float | None = Field(default=None, gt=0)


class SuggestSpec(Part):
    """``[suggest]``: how suggestions are made.

    Attributes:
        batch: Recipes at a time.
        initial: Trials before the model takes over; by default half the number of variables, 4 to 10.
        cover: Categorical variables whose options should all be seen to work.
        failure_budget: Share of the budgeted trials that may fail.
        seed: Of everything random.
        stop_below: Advise to stop when the next batch is expected to bring less than this share of the
            range of outcomes seen so far.
    """

    batch: int = Field(default=4, ge=1, le=1000)
    initial: int | None = Field(default=None, ge=1)
    cover: tuple[Name, ...] = ()
    failure_budget: float | None = Field(default=None, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    stop_below: float = Field(default=0.01, ge=0)


class ReplaySpec(Part):
    """``[replay]``: a measured table that stands for a lab.

    Attributes:
        table: CSV file, relative to the data folder.
        header: Column names where the file has none.
        columns: Variable or objective -> column, where the names differ.
        descriptor_file: CSV of variable, option, property, value without a header.
        citation: Where the table was published.
        experiments: Recipes tried in one replay.
        initial: Random recipes at the start, the same for every method.
        batch: Recipes asked for at a time.
        top: What counts as found: a share of all recipes (0.05), or a number of them (1, 3).
    """

    table: str
    header: tuple[str, ...] = ()
    columns: dict[str, str] = Field(default_factory=dict)
    descriptor_file: str = ""
    citation: str = ""
    experiments: int = Field(default=60, ge=1)
    initial: int = Field(default=5, ge=1)
    batch: int = Field(default=1, ge=1)
    top: float = Field(default=0.05, gt=0)
