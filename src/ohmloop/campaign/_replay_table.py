"""A measured table as a pool of recipes: what a replay asks instead of a lab."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop import bo
from ohmloop.campaign._config import Config, read_config
from ohmloop.errors import CampaignError


@dataclass(frozen=True)
class ReplayTable:
    """A measured table as a pool of recipes.

    Attributes:
        config: The settings, with a ``[replay]`` part.
        observations: One per distinct recipe, all its replicates in it.
    """

    config: Config
    observations: tuple[bo.Observation, ...]

    @property
    def points(self) -> list[bo.Point]:
        """The recipes."""
        return [o.point for o in self.observations]

    @property
    def objective(self) -> str | None:
        """Name of the objective; None where usability alone counts."""
        return self.config.objectives[0].name if self.config.objectives else None

    def outcome(self) -> NDArray[np.float64]:
        """Return one number a recipe, larger is better: the mean of the objective, or 1 for usable.

        A recipe without a measurement of the objective has failed, and counts like the worst.
        """
        name = self.objective
        if name is None:
            return np.array([float(o.is_usable) for o in self.observations])
        sign = 1.0 if self.config.objectives[0].goal == "maximise" else -1.0
        out = np.array(
            [
                sign * float(np.mean(o.values[name])) if name in o.values else np.nan
                for o in self.observations
            ]
        )
        return np.where(np.isnan(out), np.nanmin(out), out)

    def rank_correlation(self) -> float | None:
        """Return how well recipes predict the objective at all: Spearman, leave-one-out, on the whole table.

        None where usability alone counts.
        """
        if self.objective is None:
            return None
        return bo.rank_correlation(self.config.problem(), self.observations, self.objective)

    def repeatability(self) -> tuple[int, float] | None:
        """Return how many recipes were made more than once, and the share of variance within them.

        None without an objective or a repeated recipe. Unbiased pooled variance within recipes over the
        variance of all measurements: near 1, a recipe says nothing about the next device of the same recipe.
        """
        if self.objective is None:
            return None
        name = self.objective
        made = [np.asarray(o.values[name]) for o in self.observations if name in o.values]
        again = [x for x in made if len(x) > 1]
        if not again:
            return None
        freedom = sum(len(x) - 1 for x in again)
        within = sum(float(((x - x.mean()) ** 2).sum()) for x in again) / freedom
        return len(again), within / float(np.concatenate(made).var(ddof=1))

    def top(self, share: float | None = None) -> NDArray[np.bool_]:
        """Return which recipes count as found: the best share of all, or the best so many (1, 3)."""
        assert self.config.replay is not None
        share = self.config.replay.top if share is None else share
        values = self.outcome()
        count = int(share) if share >= 1 else max(1, round(share * len(values)))
        return np.asarray(values >= np.sort(values)[-count])


def list_replays() -> list[str]:
    """Return the names of the built-in replay tables."""
    return sorted(path.stem for path in (Path(__file__).parent / "replays").glob("*.toml"))


def load_replay(name: str, data: Path | None = None) -> ReplayTable:
    """Load a table to replay.

    Args:
        name: A built-in name (`list_replays`), or a path to a TOML file with a ``[replay]`` part.
        data: Folder that holds the table; by default that of the TOML file.

    Raises:
        CampaignError: If the table is missing or does not fit its settings.
    """
    own = name in list_replays()
    path = Path(__file__).parent / "replays" / f"{name}.toml" if own else Path(name)
    if not own and path.suffix != ".toml":
        raise CampaignError(
            f'there is no replay "{name}"; built in: {", ".join(list_replays())}, or a .toml file.'
        )
    config = read_config(path)
    if config.replay is None:
        raise CampaignError(f"{path.name}: has no [replay] part that names a table.")
    if config.replay.table == "builtin:nanowires":
        rows = _nanowire_rows()
    else:
        folder = data if data is not None else (None if own else path.parent)
        if folder is None:
            raise CampaignError(
                f'replay "{name}" needs its measurements: {config.replay.citation}. '
                f"Say where they are: --data FOLDER, with {config.replay.table} in it."
            )
        rows = _read_rows(folder / config.replay.table, config)
        if config.replay.descriptor_file:
            config = _with_descriptors(config, folder / config.replay.descriptor_file)
    return ReplayTable(config, tuple(_observations(config, rows)))


def _nanowire_rows() -> list[dict[str, str]]:
    from ohmloop.device import list_devices

    rows = []
    for device in list_devices():
        row = {k: "" if v is None else str(v) for k, v in device.recipe.items()}
        rows.append(row | {k: repr(v) for k, v in device.published.items()})
    return rows


def _read_rows(path: Path, config: Config) -> list[dict[str, str]]:
    assert config.replay is not None
    if not path.is_file():
        raise CampaignError(
            f"{path} is not there; it is published as {config.replay.citation or 'the table of this replay'}."
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    header = list(config.replay.header) or lines.pop(0)
    return [dict(zip(header, line, strict=False)) for line in lines if line]


def _with_descriptors(config: Config, path: Path) -> Config:
    tables: dict[str, dict[str, dict[str, float]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for variable, option, prop, value in csv.reader(file):
            tables.setdefault(variable, {}).setdefault(option, {})[prop] = float(value)
    variables = {
        name: spec.model_copy(update={"descriptors": tables[name]}) if name in tables else spec
        for name, spec in config.variables.items()
    }
    return config.model_copy(update={"variables": variables})


def _observations(config: Config, rows: Sequence[Mapping[str, str]]) -> list[bo.Observation]:
    """Group rows by recipe, replicates kept raw."""
    assert config.replay is not None
    column = config.replay.columns
    space = config.problem().space
    groups: dict[tuple[Any, ...], list[Mapping[str, str]]] = {}
    points: dict[tuple[Any, ...], dict[str, bo.Value]] = {}
    for number, row in enumerate(rows, start=1):
        try:
            raw = {name: row[column.get(name, name)] for name in space.names}
            point = space.to_points(space.to_table([raw]))[0]
        except (KeyError, ValueError) as error:
            raise CampaignError(f"{config.replay.table} row {number}: {error}") from error
        key = tuple(point.items())
        groups.setdefault(key, []).append(row)
        points[key] = point
    out = []
    for key, members in groups.items():
        values = {}
        for o in config.objectives:
            texts = [row.get(column.get(o.name, o.name), "") for row in members]
            try:
                numbers = tuple(float(text) for text in texts if text.strip())
            except ValueError as error:
                raise CampaignError(f"{config.replay.table}, {o.name}: {error}") from error
            if numbers:  # a device that failed may have none
                values[o.name] = numbers
        stages = {}
        for stage in config.stages:
            if stage.passes_when:
                rule = bo.Expression(stage.passes_when)
                passed = sum(_holds(rule, row, column) for row in members)
                stages[stage.name] = (passed, len(members) - passed)
        out.append(bo.Observation(point=points[key], values=values, stages=stages))
    return out


def _holds(rule: bo.Expression, row: Mapping[str, str], column: Mapping[str, str]) -> bool:
    columns: dict[str, NDArray[Any]] = {}
    for name in rule.names:
        text = row[column.get(name, name)]
        try:
            columns[name] = np.array([float(text)])
        except ValueError:
            columns[name] = np.array([text], dtype=object)
    return bool(rule.evaluate(columns)[0])
