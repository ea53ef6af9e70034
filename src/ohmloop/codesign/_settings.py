"""``codesign.toml``: what one loop of device and network is about."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ohmloop.errors import CampaignError

SETTINGS = "codesign.toml"


class LoopSettings(BaseModel):
    """One loop of device and network.

    Attributes:
        task: What the network learns.
        data: Folder of the data set's files, if not fetched.
        model: Name of a network; the task's own by default.
        method: How it is trained; "{sigma}" stands for the noise of the best device so far.
        deployment: What each device gets beside its weights.
        epochs: Of one training; the task's own by default.
        limit: Use only that many development samples.
        networks: Training seeds; errors over trainings need at least two.
        first_device: Law that networks are trained for before a device was measured.
        retrain_factor: Train anew when the best device's sigma differs from the one trained for by more than
            this factor; networks are reused otherwise.
        points: Simulated laws of each sensitivity.
        devices: Virtual devices at each of them.
        stop_gain: Stop when the expected gain of the next batch is below this much score an experiment.
        seed: Of the trainings (seed, seed + 1, ...).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    task: str = "digits"
    data: str | None = None
    model: str | None = None
    method: str = "weight-noise:level={sigma}"
    deployment: str = "none"
    epochs: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=10)] | None = None
    networks: Annotated[int, Field(ge=1, le=20)] = 2
    first_device: str = "lognormal:0.5"
    retrain_factor: Annotated[float, Field(gt=1)] = 1.5
    points: Annotated[int, Field(ge=6)] = 48
    devices: Annotated[int, Field(ge=2)] = 20
    stop_gain: Annotated[float, Field(ge=0)] = 0.001
    seed: Annotated[int, Field(ge=0)] = 0


def read_settings(path: Path) -> LoopSettings:
    """Read and check a ``codesign.toml``.

    Raises:
        CampaignError: With the key, what was expected and what came.
    """
    try:
        return LoopSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CampaignError(
            f"{path} cannot be read ({error.strerror or error}). Start a loop: "
            f"ohmloop codesign new {path.parent}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CampaignError(f"{path} is no valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = ", ".join(LoopSettings.model_fields)
        hint = f" Settings: {known}." if first["type"] == "extra_forbidden" else ""
        raise CampaignError(f"{path.name}: {place}: {first['msg']}.{hint}") from error


def settings_text(settings: LoopSettings) -> str:
    """Return settings as TOML; what is not set is left out."""
    lines = ["# The network's half of the loop; campaign.toml beside it is the device's."]
    for name, value in settings.model_dump(exclude_none=True).items():
        lines.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
    return "\n".join(lines) + "\n"
