"""The objective "task_accuracy": what a network would score on the device that was measured.

A campaign folder holds ``task-accuracy.json``, a smooth function of the device law that `ohmloop.codesign`
makes from trained networks. An ingested sweep gives the law, the law gives the score. When the networks
change, so do the scores of devices that were measured before: `reassess` records them anew, and the log keeps
both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmloop.campaign._config import Config
from ohmloop.campaign._specs import TASK_ACCURACY
from ohmloop.data import Sweep, read
from ohmloop.device import DeviceModel, Estimate, TaskAccuracy, fit, load_task_accuracy
from ohmloop.errors import CampaignError, DeviceError

if TYPE_CHECKING:
    from ohmloop.campaign._campaign import Campaign
    from ohmloop.campaign._trials import Record

FILE = "task-accuracy.json"
_TABLE, _ERROR = "level_table", "task_accuracy_error"


def wants_task_accuracy(config: Config) -> bool:
    """Whether an objective is filled by what a network would score."""
    return any((o.figure or o.name) == TASK_ACCURACY for o in config.objectives)


def task_figures(folder: Path, sweep: Sweep, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the level table of a sweep and the score that the folder's networks would have on its device.

    Without a rising ramp there is no law: the score is None, and the stages say what is wrong.

    Raises:
        CampaignError: If the folder's ``task-accuracy.json`` is missing or damaged.
    """
    surrogate = _load(folder)
    if figures.get("sigma") is None:
        return {_TABLE: None, TASK_ACCURACY: None, _ERROR: None}
    table = fit([sweep], name=sweep.file, n_bootstrap=0).rho
    seen = {**figures, _TABLE: None if table is None else list(table)}
    return {_TABLE: seen[_TABLE], **_scored(surrogate, seen)}


def _load(folder: Path) -> TaskAccuracy:
    try:
        return load_task_accuracy(folder / FILE)
    except DeviceError as error:
        raise CampaignError(
            f'the objective "{TASK_ACCURACY}" asks what a network would score, and {error}'
        ) from error


def law_of(figures: Mapping[str, Any], name: str) -> DeviceModel | None:
    """Return the device law that recorded figures state; None where they state none."""
    sigma = figures.get("sigma")
    if not isinstance(sigma, int | float) or not math.isfinite(sigma) or not 0 <= sigma < 20:
        return None
    low, high = figures.get("sigma_interval") or (None, None)
    table = figures.get(_TABLE)
    g_min, g_max = figures.get("g_min"), figures.get("g_max")
    return DeviceModel(
        name=name,
        sigma=Estimate(value=float(sigma), low=low, high=high),
        rho=None if table is None else tuple(table),
        g_min=g_min,
        g_max=g_max,
    )


def _scored(surrogate: TaskAccuracy, figures: Mapping[str, Any]) -> dict[str, float | None]:
    law = law_of(figures, "measured")
    if law is None:
        return {TASK_ACCURACY: None, _ERROR: None}
    found = surrogate.of(law)
    return {TASK_ACCURACY: found.mean, _ERROR: found.error}


def reassess(campaign: Campaign) -> int:
    """Record anew what every ingested device is worth to the networks in ``task-accuracy.json``.

    A device whose value stays the same gets no record. Results that were typed in by hand stay as they are.

    Returns:
        How many devices have a new value.

    Raises:
        CampaignError: If no objective is "task_accuracy", or the file is missing or damaged.
    """
    names = [o.name for o in campaign.config.objectives if (o.figure or o.name) == TASK_ACCURACY]
    if not names:
        raise CampaignError(
            f'no objective asks for "{TASK_ACCURACY}". Add to campaign.toml: [[objectives]] '
            f'name = "{TASK_ACCURACY}"'
        )
    surrogate = _load(campaign.folder)
    digest = hashlib.sha256((campaign.folder / FILE).read_bytes()).hexdigest()[:12]
    sign = {o.name: -1.0 if o.negate else 1.0 for o in campaign.config.objectives}
    changed = 0
    for trial in list(campaign.trials.values()):
        for record in trial.records:
            if record.failed_at is not None or not record.file or not record.device:
                continue
            scored = _scored(surrogate, _with_table(campaign, record))
            value, error = scored[TASK_ACCURACY], scored[_ERROR]
            if value is None or error is None:
                continue
            values = {name: sign[name] * value for name in names}
            if any(abs(values[n] - record.values.get(n, math.inf)) > 1e-12 for n in names):
                campaign.record(
                    trial.id,
                    values=values,
                    errors=dict.fromkeys(names, error),
                    device=record.device,
                    note=f"by {FILE} {digest}",
                )
                changed += 1
    return changed


def _with_table(campaign: Campaign, record: Record) -> Mapping[str, Any]:
    """Return a record's figures with its level table: from the raw file, for a record that has none."""
    if _TABLE in record.figures or record.figures.get("sigma") is None:
        return record.figures
    path = campaign.file_path(record.file)
    table = fit([read(path)], name=record.device, n_bootstrap=0).rho
    return {**record.figures, _TABLE: None if table is None else list(table)}
