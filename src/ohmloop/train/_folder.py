"""The run folder: configuration, environment, history, weights; a run that resumes finds itself."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmloop._files import write_whole
from ohmloop.errors import TrainError

if TYPE_CHECKING:
    from torch import Tensor


def write_json(path: Path, value: object) -> None:
    """Write JSON; the file is replaced as a whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; TrainError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"{path} cannot be read: {error}. Is this a run folder?") from error


def environment() -> dict[str, str]:
    """Return the versions and the machine that a result was made with."""
    import torch

    packages = ("ohmloop", "torch", "numpy", "scipy", "botorch", "gpytorch", "scikit-learn")
    out = {"python": platform.python_version(), "platform": platform.platform()}
    for name in packages:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "not installed as a package"
    out["torch_threads"] = str(torch.get_num_threads())
    return out


def finished_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a finished run; TrainError if it is none, or not finished."""
    config: dict[str, Any] = read_json(folder / "config.json")
    if not (folder / "result.json").exists():
        raise TrainError(
            f"{folder} is not finished. Run the same `ohmloop train` command again; it goes on from "
            "its last epoch."
        )
    return config


def open_run(folder: Path, config: dict[str, Any]) -> None:
    """Make the folder of a run, or check that an existing one is of the same run.

    Raises:
        TrainError: If the folder holds another run, or something that is no run at all.
    """
    config = json.loads(json.dumps(config))
    path = folder / "config.json"
    if path.exists():
        old = read_json(path)
        differing = sorted(k for k in {*old, *config} if old.get(k) != config.get(k))
        if differing:
            listed = "; ".join(
                f"{k}: {old.get(k)!r} there, {config.get(k)!r} now" for k in differing
            )
            raise TrainError(
                f"{folder} holds another run ({listed}). Name another folder, or delete that one."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise TrainError(f"{folder} is not empty and holds no run. Name another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "environment.json", environment())
        write_json(path, config)
    except OSError as error:
        raise TrainError(f"{folder} cannot be written: {error.strerror}.") from error


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Write a state dict that ``torch.load(..., weights_only=True)`` reads."""
    import torch

    part = path.with_name(path.name + ".part")
    torch.save({key: value.detach().cpu() for key, value in state.items()}, part)
    os.replace(part, path)
