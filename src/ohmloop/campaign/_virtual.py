"""The open trials of a campaign, made in the virtual lab: simulated files, as a lab would hand them in."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ohmloop.campaign._campaign import Campaign
from ohmloop.device import VirtualLab, write_workbook
from ohmloop.errors import CampaignError
from ohmloop.progress import Progress, ProgressEvent, silent


def failures_path(folder: Path) -> Path:
    """Return where the sheet of failures goes: beside the folder, which holds measurements only."""
    return folder.with_name(folder.name + "-failures.csv")


def make_in_virtual_lab(
    campaign: Campaign, folder: str | Path, *, n_devices: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """Make every open trial in the virtual lab: SIMULATED workbooks, and a sheet of what never got to a sweep.

    Variables that the virtual lab does not know have no effect.

    Args:
        campaign: Its open trials are made.
        folder: Where the files go; ingest the workbooks and import ``FOLDER-failures.csv`` beside it.
        n_devices: Devices a trial.
        seed: Of the virtual lab; keep it over a campaign.

    Returns:
        One entry a device: trial, device, outcome, and the file ("" without one).

    Raises:
        CampaignError: If no trial is open, the virtual lab knows none of the variables, or the folder cannot be
            written.
    """
    open_trials = [t for t in campaign.trials.values() if t.is_open]
    if not open_trials:
        raise CampaignError("no trial is open; ask for suggestions first: ohmloop campaign suggest")
    lab = VirtualLab(seed)
    if not set(lab.variables) & set(campaign.config.variables):
        raise CampaignError(
            "the virtual lab makes halide-perovskite nanowires, as in the template perovskite-nanowires; it "
            "knows none of the variables of this campaign."
        )
    place = Path(folder)
    made: list[dict[str, Any]] = []
    try:
        place.mkdir(parents=True, exist_ok=True)
        for trial in open_trials:
            recipe = {name: x for name, x in trial.recipe.items() if name in lab.variables}
            for k in range(n_devices):
                device = lab.make(recipe, k)
                name = f"{trial.id}_dev{k + 1}_simulated"
                file, outcome = "", f"failed at {device.failed_at}"
                if len(device.voltage):
                    file, outcome = f"{name}.xlsx", "measured"
                    about = f"trial {trial.id} of {campaign.config.name}"
                    write_workbook(device, place / file, about=about)
                made.append({"trial": trial.id, "device": name, "outcome": outcome, "file": file})
        with failures_path(place.resolve()).open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["trial", "device", "failed_at", "note"])
            for m in made:
                if not m["file"]:
                    writer.writerow([m["trial"], m["device"], "fabricated", "SIMULATED"])
    except OSError as error:
        raise CampaignError(f"{place} cannot be written: {error.strerror or error}.") from error
    return made


def take_in(
    campaign: Campaign,
    folder: str | Path,
    made: Sequence[Mapping[str, Any]],
    *,
    key: str = "virtual",
    progress: Progress = silent,
) -> None:
    """Record what `make_in_virtual_lab` made: sweeps from its workbooks, and what never got to one.

    Args:
        campaign: Whose trials were made.
        folder: Where the files lie.
        made: As it was returned.
        key: Of the request; devices that were recorded with it are not recorded again.
        progress: Told of each device.

    Raises:
        CampaignError: If a workbook cannot be read.
    """
    for number, item in enumerate(made):
        progress(ProgressEvent("SIMULATED devices", number, len(made), item["device"]))
        if item["file"]:
            (done,) = campaign.ingest([Path(folder) / item["file"]])
            if done.status == "refused":
                raise CampaignError(f"{done.file}: {done.text}")
        else:
            campaign.record(
                item["trial"],
                failed_at="fabricated",
                device=item["device"],
                note="SIMULATED",
                key=f"{key}:{item['device']}",
            )
    progress(ProgressEvent("SIMULATED devices", len(made), len(made)))
