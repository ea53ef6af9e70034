"""``campaign.toml``: what a lab writes down once, checked key by key."""

from __future__ import annotations

import difflib
import re
import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ohmloop import bo
from ohmloop.campaign._specs import (
    TASK_ACCURACY,
    BeliefSpec,
    BudgetSpec,
    ConstraintSpec,
    FormulaSpec,
    Name,
    ObjectiveSpec,
    Part,
    ReplaySpec,
    SimplexSpec,
    StageSpec,
    SuggestSpec,
    VariableSpec,
)
from ohmloop.data import FiguresOfMerit
from ohmloop.errors import CampaignError, OhmloopError, SearchError

LARGEST_TOML = 1 << 20
# tomllib takes time and memory with the square of the depth of a dotted key.
_DEEP_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){20}""", re.ASCII
)
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 80
STAGES = ("fabricated", "conducts", "switches", "analog", "endures", "retains")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
RESERVED = frozenset(
    # columns of the trial sheet, and words of formulas
    (
        "trial",
        "status",
        "failed_at",
        "passed",
        "note",
        "source",
        "device",
        "as_of",
        "and",
        "or",
        "not",
        "if",
        "else",
    )
)


class Config(Part):
    """A whole ``campaign.toml``."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    variables: dict[Name, VariableSpec]
    simplex: tuple[SimplexSpec, ...] = ()
    constraints: tuple[ConstraintSpec, ...] = ()
    stages: tuple[StageSpec, ...] = tuple(StageSpec(name=name) for name in STAGES)
    objectives: tuple[ObjectiveSpec, ...] = ()
    cost: FormulaSpec | None = None
    time: FormulaSpec | None = None
    budget: BudgetSpec = BudgetSpec()
    suggest: SuggestSpec = SuggestSpec()
    beliefs: dict[Name, BeliefSpec] = Field(default_factory=dict)
    replay: ReplaySpec | None = None

    @model_validator(mode="after")
    def _check(self) -> Config:
        named = [
            *self.variables,
            *(o.name for o in self.objectives),
            *(s.name for s in self.stages),
        ]
        for name in named:
            if not _NAME.match(name) or name.lower() in RESERVED:
                raise CampaignError(
                    f'"{name[:80]}" is no usable name: letters, digits and _ only, not a digit first, '
                    f"at most 64 characters, and none of {', '.join(sorted(RESERVED))}."
                )
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise CampaignError(f"{twice} are used twice among variables, objectives and stages.")
        self.problem()
        self._check_figures()
        for objective in self.objectives:
            if objective.negate and objective.scale == "log":
                raise CampaignError(
                    f'objectives {objective.name}: with "negate" no value is positive, as scale = "log" needs. '
                    'Leave out "negate" and turn the goal round.'
                )
        for stage in self.stages:
            if stage.passes_when:
                rule = bo.Expression(stage.passes_when)
                if not rule.is_condition and not re.fullmatch(r"\w+", rule.text):
                    raise CampaignError(
                        f'stage "{stage.name}": "{stage.passes_when}" is an amount, not a condition.'
                    )
        if self.time is not None:
            strange = bo.Expression(self.time.formula).names - set(self.variables)
            if strange:
                raise CampaignError(f"time.formula names {sorted(strange)}, no variables.")
        return self

    def _check_figures(self) -> None:
        """Rules and objectives of ingested files name figures of merit; a replayed table has its own."""
        if self.replay is not None:
            return
        known = (*FiguresOfMerit.keys(), "clipped_share", TASK_ACCURACY)
        used = [
            (f'stages, "{stage.name}": passes_when', name)
            for stage in self.stages
            if stage.passes_when
            for name in sorted(bo.Expression(stage.passes_when).names)
        ]
        used += [(f'objectives, "{o.name}": figure', o.figure) for o in self.objectives if o.figure]
        for where, name in used:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f' Did you mean "{close[0]}"?' if close else ""
                raise CampaignError(f'{where} names "{name}", which is no figure of merit.{hint}')

    def problem(
        self, retired: Mapping[str, tuple[str, ...]] | None = None, **overrides: Any
    ) -> bo.Problem:
        """Return the search that the settings describe.

        Args:
            retired: Variable -> options that old trials have and the settings no longer.
            overrides: Fields of `ohmloop.bo.Settings` to set otherwise.
        """
        if not self.variables:
            raise CampaignError("campaign.toml needs at least one [variables.NAME].")
        space = bo.Space(
            variables=tuple(
                spec.build(name, (retired or {}).get(name, ()))
                for name, spec in self.variables.items()
            ),
            constraints=tuple(bo.Expression(c.rule) for c in self.constraints),
            simplexes=tuple(bo.Simplex(s.variables, s.total) for s in self.simplex),
        )
        settings: dict[str, Any] = {
            "n_initial": self.suggest.initial,
            "cover": self.suggest.cover,
            "failure_budget": self.suggest.failure_budget,
            "n_total": self.budget.trials,
        }
        return bo.Problem(
            space=space,
            objectives=tuple(
                bo.Objective(
                    name=o.name,
                    maximise=o.goal == "maximise",
                    scale=o.scale,
                    reference=o.reference,
                )
                for o in self.objectives
            ),
            stages=tuple(s.name for s in self.stages),
            cost=None if self.cost is None else bo.Expression(self.cost.formula),
            beliefs={name: bo.Belief(b.likely, b.spread) for name, b in self.beliefs.items()},
            settings=bo.Settings(**(settings | overrides)),
        )


def read_config(path: Path) -> Config:
    """Read and check a ``campaign.toml``.

    Raises:
        CampaignError: With the place, what was expected and what came.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_TOML:
            raise CampaignError(f"{path.name}: {size} bytes; settings have at most {LARGEST_TOML}.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CampaignError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise CampaignError(f"{path.name}: is not UTF-8 text (byte {error.start}).") from error
    return parse_config(text, path.name)


def parse_config(text: str, where: str = "campaign.toml") -> Config:
    """Return the settings in a TOML text; errors name the key as the person wrote it."""
    if len(text) > LARGEST_TOML:
        raise CampaignError(
            f"{where}: {len(text)} characters; settings have at most {LARGEST_TOML}."
        )
    if deep := _DEEP_KEY.search(text):
        raise CampaignError(
            f'{where}: "{deep[0][:40]}..." is nested too deeply; settings have a few levels.'
        )
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise CampaignError(f"{where}: is no valid TOML: {error}") from error
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise CampaignError(f"{where}: " + "\n".join(_complaints(error))) from error
    except (SearchError, CampaignError) as error:
        raise CampaignError(f"{where}: {error}") from error
    except (RecursionError, OverflowError) as error:
        raise CampaignError(f"{where}: holds values that are too deep or too large.") from error


def _complaints(error: ValidationError) -> list[str]:
    out = []
    for item in error.errors()[:10]:
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            close = difflib.get_close_matches(key, _all_keys(), n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            out.append(f'"{place[:200]}" is no setting.{hint}')
        elif isinstance(cause := item.get("ctx", {}).get("error"), OhmloopError):
            out.append(str(cause))
        else:
            shown = _SHOWN.repr(item["input"])
            out.append(
                f"{place[:200] or 'file'}: {item['msg']}; received "
                f"{shown if len(shown) <= 80 else shown[:77] + '...'}."
            )
    return out


def _all_keys() -> list[str]:
    keys: set[str] = set()
    for model in (
        Config, VariableSpec, SimplexSpec, ConstraintSpec, StageSpec, ObjectiveSpec, FormulaSpec,
        BudgetSpec, BeliefSpec, SuggestSpec, ReplaySpec,
    ):  # fmt: skip
        keys |= set(model.model_fields)
    return sorted(keys)


def list_templates() -> list[str]:
    """Return the names of the built-in templates."""
    folder = Path(__file__).parent / "templates"
    return sorted(path.stem for path in folder.glob("*.toml"))


def template(name: str) -> str:
    """Return the text of a built-in ``campaign.toml``.

    Raises:
        CampaignError: If there is no such template.
    """
    if name not in list_templates():
        close = difflib.get_close_matches(name, list_templates(), n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise CampaignError(
            f'there is no template "{name}"; templates: {", ".join(list_templates())}.{hint}'
        )
    return (Path(__file__).parent / "templates" / f"{name}.toml").read_text(encoding="utf-8")
