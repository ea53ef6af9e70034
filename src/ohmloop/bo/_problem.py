"""What is asked of the optimiser, and what has been seen: small validated values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ohmloop.bo._expression import Expression
from ohmloop.bo._space import Space
from ohmloop.bo._variables import Categorical, Point, nearest_text
from ohmloop.bo._warp import Scale
from ohmloop.errors import SearchError


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One outcome to make large or small.

    Attributes:
        name: Key of the outcome in `Observation.values`.
        maximise: Whether larger is better.
        scale: "log" where ratios count (values must be positive), "linear", or "auto": a power
            transform chosen from the data.
        reference: Worst value that still is of interest, for several objectives; from the data by default.
    """

    name: str
    maximise: bool = True
    scale: Scale = "auto"
    reference: float | None = None


@dataclass(frozen=True)
class Belief:
    """Where a person expects good recipes; its weight fades as trials accumulate.

    Attributes:
        likely: Best guess for a number, or option -> relative weight for a categorical variable.
        spread: Standard deviation of the guess in the variable's unit; a fifth of the range by default.
    """

    likely: float | Mapping[str, float]
    spread: float | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of one recipe that was tried.

    Attributes:
        point: The recipe.
        values: Outcome name -> replicates (one or more); outcomes that could not be measured are absent.
        stages: Stage name -> (number of devices that passed, number that failed); stages that were
            not reached or not looked at are absent.
        source: "" for this campaign, else the name of the earlier one that it comes from.
        errors: Outcome name -> standard error of the mean of its replicates, in its unit, where the measurement
            itself states one. Absent: the scatter among replicates and recipes tells alone.
    """

    point: Point
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    source: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, error in self.errors.items():
            if name not in self.values or not math.isfinite(error) or error < 0:
                raise SearchError(
                    f'outcome "{name}": an error is a finite number >= 0 of an outcome that has a value; '
                    f"received {error!r}."
                )
        for name, replicates in self.values.items():
            if not replicates or not all(math.isfinite(x) for x in replicates):
                raise SearchError(
                    f'outcome "{name}": needs one or more finite numbers; received {replicates!r}. '
                    "Leave an outcome out where nothing was measured."
                )
        for name, (passed, failed) in self.stages.items():
            if passed < 0 or failed < 0 or passed + failed < 1:
                raise SearchError(
                    f'stage "{name}": needs counts of devices that passed and failed, one of them above 0; '
                    f"received {(passed, failed)!r}."
                )

    @property
    def is_usable(self) -> bool:
        """Whether something is known of it, and a device passed every stage that was looked at."""
        return bool(self.stages or self.values) and not self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether no device passed one of the stages."""
        return any(passed == 0 for passed, _ in self.stages.values())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How suggestions are made; the defaults are what a lab should start with.

    Attributes:
        n_initial: Trials before the model takes over; by default half the number of variables, 4 to 10.
        cover: Variables whose options should all see a usable device (breadth before depth): the
            value of one more success with an option that has ``k`` is divided by sqrt(1 + k).
        failure_budget: Share of trials that may fail over ``n_total``; what is left of it bounds the
            risk of each suggestion.
        n_total: Number of trials planned.
        feasibility: Learn which recipes fail. Off only for comparisons.
        replicate_noise: Use the variance among replicates. Off only for comparisons.
        descriptors: Let options with near descriptors share strength. Off only for comparisons.
    """

    n_initial: int | None = None
    cover: tuple[str, ...] = ()
    failure_budget: float | None = None
    n_total: int | None = None
    feasibility: bool = True
    replicate_noise: bool = True
    descriptors: bool = True

    def __post_init__(self) -> None:
        if self.failure_budget is not None:
            if not 0 < self.failure_budget < 1:
                raise SearchError(
                    f"failure_budget is a share between 0 and 1; received {self.failure_budget!r}."
                )
            if self.n_total is None:
                raise SearchError("failure_budget needs n_total, the number of trials planned.")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A search: the space, what counts, and how to go about it.

    Attributes:
        space: The recipes that can be made.
        objectives: One or more outcomes; none to look for usable recipes alone.
        stages: Names of the stages of usability, in their order.
        cost: Formula of what one recipe costs, above 0; expected gains are divided by it.
        beliefs: Variable -> where good recipes are expected.
        settings: How suggestions are made.
    """

    space: Space
    objectives: tuple[Objective, ...] = ()
    stages: tuple[str, ...] = ()
    cost: Expression | None = None
    beliefs: Mapping[str, Belief] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not self.objectives and not self.stages:
            raise SearchError("a search needs an objective, or stages of usability to pass.")
        names = [o.name for o in self.objectives]
        if len(set(names)) != len(names) or len(set(self.stages)) != len(self.stages):
            raise SearchError(
                f"names of objectives and of stages must differ: {names}, {self.stages}."
            )
        if self.cost is not None:
            self._known(self.cost.names, "the cost")
            if self.cost.is_condition:
                raise SearchError(f'the cost "{self.cost.text}" is a condition, not an amount.')
        self._known(frozenset(self.settings.cover), "cover")
        for name in self.settings.cover:
            if not isinstance(self.space[name], Categorical):
                raise SearchError(f'cover names "{name}", which is not categorical.')
        self._known(frozenset(self.beliefs), "beliefs")
        for name, belief in self.beliefs.items():
            is_map = isinstance(belief.likely, Mapping)
            if is_map != isinstance(self.space[name], Categorical):
                raise SearchError(
                    f'the belief about "{name}" must be '
                    + (
                        "a number."
                        if is_map
                        else 'weights of options, such as { "Pt" = 2, "Au" = 1 }.'
                    )
                )

    def _known(self, used: frozenset[str], where: str) -> None:
        for name in sorted(used - set(self.space.names)):
            raise SearchError(
                f'{where} names "{name}", which is no variable.{nearest_text(name, self.space.names)}'
            )

    @property
    def n_initial(self) -> int:
        """Number of trials before the model takes over."""
        if self.settings.n_initial is not None:
            return self.settings.n_initial
        return min(10, max(4, len(self.space.variables) // 2))
