"""Measurement files become results of trials: figures of merit decide stages and fill objectives."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ohmloop import bo
from ohmloop.campaign._config import Config
from ohmloop.campaign._observe import LONGEST_NAME
from ohmloop.campaign._specs import LARGEST
from ohmloop.campaign._task_accuracy import task_figures, wants_task_accuracy
from ohmloop.campaign._trials import State, Trial
from ohmloop.data import FileRecipe, Sweep
from ohmloop.errors import CampaignError, OhmloopError, StoreError
from ohmloop.store import Draft, Event, Store

Recorder = Callable[[Callable[[State], Draft]], list[Event]]
"""Records what a function makes of the state, with no other writer in between."""
_TRIAL_IN_NAME = re.compile(r"(?<![A-Za-z0-9])[Tt](\d{1,6})(?![0-9])")


@dataclass(frozen=True)
class Ingested:
    """What became of one file.

    Attributes:
        file: Its base name.
        trial: The trial that it belongs to, "" if none was found.
        status: "recorded", "unchanged" (it was ingested before) or "refused".
        text: What was found, or why it was refused.
        stages: Stage -> passed, as decided from the figures.
        values: Objective -> value.
    """

    file: str
    trial: str
    status: str
    text: str
    stages: Mapping[str, bool]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        voltage_unit: For columns that state none.
        current_unit: For columns that state none.
        recipe: Which column is which, for every file.
        kept: Recipes of the campaign; a file with the headers of one is read by it, where ``recipe`` is None.
    """

    voltage_unit: str | None = None
    current_unit: str | None = None
    recipe: FileRecipe | None = None
    kept: Mapping[str, FileRecipe] = field(default_factory=dict)

    def read(self, path: Path) -> tuple[Sweep, FileRecipe | None]:
        """Read one file; also return the recipe that was used."""
        from ohmloop.data import read, recognise

        recipe = self.recipe
        if recipe is None and (name := recognise(path, self.kept)) is not None:
            recipe = self.kept[name]
        units = {"voltage_unit": self.voltage_unit, "current_unit": self.current_unit}
        return read(path, **units, recipe=recipe), recipe


def judge(config: Config, figures: Mapping[str, Any]) -> tuple[dict[str, bool], dict[str, float]]:
    """Return stages and objective values that figures of merit speak for.

    A stage with a rule passes or fails by it; a rule for which a figure that could not be computed
    would matter decides nothing. Stages without a rule before a decided one are passed, as the device was
    measured. After the first failure nothing is judged, and no objective counts: a short may well have a "good"
    sigma. Rules see the figures of merit and ``clipped_share``, the share of the ramp at the compliance limit.
    """
    columns = _columns(figures)
    verdicts = {
        stage.name: verdict
        for stage in config.stages
        if stage.passes_when
        and (verdict := _verdict(bo.Expression(stage.passes_when), columns)) is not None
    }
    stages: dict[str, bool] = {}
    names = [s.name for s in config.stages]
    last = max((names.index(name) for name in verdicts), default=-1)
    for name in names[: last + 1]:
        stages[name] = verdicts.get(name, True)
        if not stages[name]:
            return stages, {}
    values = {}
    for objective in config.objectives:
        value = figures.get(objective.figure or objective.name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            continue
        number = -float(value) if objective.negate else float(value)
        if abs(number) <= LARGEST and (objective.scale != "log" or number > 0):
            values[objective.name] = number
    return stages, values


def _columns(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that a rule may name, one row each."""
    columns: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, bool | int | float):
            columns[name] = np.array([float(value)])
        elif isinstance(value, str):
            columns[name] = np.array([value], dtype=object)
    points = float(figures.get("ramp_rows") or 0) * float(figures.get("cycles") or 0)
    if points:
        columns["clipped_share"] = np.array([float(figures["clipped_points"]) / points])
    return columns


def _verdict(rule: bo.Expression, columns: Mapping[str, Any]) -> bool | None:
    """Return what a rule says; None where that depends on a figure that is missing."""
    missing = rule.names - set(columns)
    said = {
        bool(rule.evaluate({**columns, **dict.fromkeys(missing, np.array([guess]))})[0])
        for guess in ((-1e300, 0.0, 1e300) if missing else (0.0,))
    }
    return said.pop() if len(said) == 1 else None


def ingest_files(
    store: Store,
    config: Config,
    state: State,
    paths: Sequence[Path],
    reading: Reading,
    *,
    trial: str | None,
    record: Recorder,
) -> list[Ingested]:
    """Keep files and record what they say; see `Campaign.ingest`."""
    out = []
    for path in paths:
        try:
            out.append(_one(store, config, state, path, trial, reading, record))
        except StoreError:
            raise  # the disk, not the file: nothing after it can be kept either
        except OhmloopError as error:
            out.append(Ingested(path.name, trial or "", "refused", str(error), {}, {}))
    return out


def _one(
    store: Store,
    config: Config,
    state: State,
    path: Path,
    trial: str | None,
    reading: Reading,
    record: Recorder,
) -> Ingested:
    from ohmloop.data import figures_of_merit

    if not path.is_file():
        raise CampaignError(f"there is no file {path}.")
    owner = state.trial(trial) if trial else _by_name(state, path)
    _must_take_results(owner)
    sweep, recipe = reading.read(path)
    figures = figures_of_merit(sweep).to_dict()
    if wants_task_accuracy(config):
        figures |= task_figures(store.folder, sweep, figures)
    stages, values = judge(config, figures)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CampaignError(f"cannot be read: {error.strerror or error}.") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != sweep.sha256:
        raise CampaignError(f"{path.name} changed while it was read; ingest it again.")
    known = Ingested(path.name, owner.id, "unchanged", "it was ingested before", stages, values)
    if state.has_file(owner.id, sha256):
        return known
    store.add_file(content)
    data: dict[str, Any] = {
        "trial": owner.id,
        "device": "".join(c if c.isprintable() else "?" for c in path.stem)[:LONGEST_NAME],
        "stages": stages,
        "values": values,
        "errors": _errors(config, figures, values),
        "figures": figures,
        "file": sha256,
        "note": "",
    }
    if recipe is not None:
        data["recipe"] = recipe.to_dict()

    def draft(now: State) -> Draft:
        _must_take_results(now.trial(owner.id))
        # After an undo the same file may be recorded again: the key carries how often that was.
        key = f"file:{owner.id}:{sha256}:{len(now.undone)}"
        return Draft("recorded", data, key=key, files={sha256: path.name})

    events = record(draft)
    if not events:  # the same bytes under two names
        return known
    text = _found(config, stages, values)
    return Ingested(path.name, owner.id, "recorded", text, stages, values)


def _errors(
    config: Config, figures: Mapping[str, Any], values: Mapping[str, float]
) -> dict[str, float]:
    """Return the standard errors that the figures state for objective values."""
    stated = {o.name: figures.get(f"{o.figure or o.name}_error") for o in config.objectives}
    return {
        name: float(error)
        for name, error in stated.items()
        if name in values and isinstance(error, int | float) and math.isfinite(error)
    }


def _must_take_results(trial: Trial) -> None:
    if trial.status in ("rejected", "withdrawn"):
        raise CampaignError(
            f"trial {trial.id} was {trial.status}; accept it first "
            f"(`ohmloop campaign decide {trial.id} accept`) if it was made after all."
        )


def _by_name(state: State, path: Path) -> Trial:
    """Find the trial in a file name like "T007_dev2.xlsx"."""
    found = sorted({f"T{int(digits):03d}" for digits in _TRIAL_IN_NAME.findall(path.stem)})
    known = [name for name in found if name in state.trials]
    if len(known) == 1:
        return state.trials[known[0]]
    if known:
        wrong = f"its name holds several trials ({', '.join(known)})"
    elif found:
        wrong = f"its name says {', '.join(found)}, and there is no such trial"
    else:
        wrong = "its name holds no trial"
    waiting = [t.id for t in state.trials.values() if t.is_open]
    raise CampaignError(
        f"{wrong}; name it like T007_dev1{path.suffix}, or say which trial it is: "
        f"--trial {waiting[0] if waiting else 'T001'}"
    )


def _found(config: Config, stages: Mapping[str, bool], values: Mapping[str, float]) -> str:
    failed = next((name for name, passed in stages.items() if not passed), None)
    if failed is not None:
        return f"failed at {failed}"
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    passed = list(stages)[-1] if stages else None
    return (f"passed up to {passed}" if passed else "no stage decided") + (
        f"; {shown}" if shown else ""
    )
