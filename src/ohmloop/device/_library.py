"""Where device models come from: presets, ``lognormal:SIGMA``, JSON files."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ohmloop._files import write_whole
from ohmloop.device._model import DeviceModel, Estimate
from ohmloop.device._presets import list_presets
from ohmloop.errors import DeviceError

_MAX_JSON = 16 * 2**20


@cache
def list_devices() -> tuple[DeviceModel, ...]:
    """Return the built-in devices: 43 measured halide-perovskite nanowires, with their source."""
    text = resources.files("ohmloop.device").joinpath("presets/nanowires.json").read_text("utf-8")
    return tuple(DeviceModel.model_validate(item) for item in json.loads(text))


def load_device(name: str | Path) -> DeviceModel:
    """Return the device model that ``name`` stands for.

    Args:
        name: "lognormal:0.4" (only noise, sigma 0.4), the name of a built-in device ("nanowire-30",
            "pcm-joshi2020"), or the path of a device.json.

    Raises:
        DeviceError: If there is no such device, or the file is not a device model.

    >>> load_device("lognormal:0.4").sigma.value
    0.4
    """
    text = str(name)
    if text.startswith("lognormal:"):
        return _lognormal(text)
    built_in = (*list_devices(), *list_presets())
    for device in built_in:
        if device.name == text:
            return device
    path = Path(text)
    if path.suffix == ".json" or _exists(path):
        return _load_json(path)
    names = [device.name for device in built_in]
    close = difflib.get_close_matches(text, [*names, "lognormal:0.4"], n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise DeviceError(
        f"no device {text!r}.{hint} Give lognormal:SIGMA, a name from `ohmloop device list`, or a "
        "device.json written by `ohmloop device fit`."
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name, or a place that may not be looked at
        return False


def _lognormal(text: str) -> DeviceModel:
    try:
        sigma = float(text.removeprefix("lognormal:"))
    except ValueError:
        raise DeviceError(f"{text!r}: expected a number, like lognormal:0.4.") from None
    if not 0 <= sigma < 20:
        raise DeviceError(f"{text!r}: sigma lies in [0, 20).")
    return DeviceModel(
        name=f"lognormal:{sigma:g}",
        description="simulated: log-normal noise, no level table",
        sigma=Estimate(value=sigma),
    )


def _load_json(path: Path) -> DeviceModel:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise DeviceError(f"{path} is too large for a device model.")
        return DeviceModel.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DeviceError(
            f"{path} is no device model: {where}: {first['msg']}. Write one with "
            "`ohmloop device fit FILES -o device.json`."
        ) from error


def save_device(device: DeviceModel, path: str | Path) -> None:
    """Write ``device`` as JSON; the file is replaced as a whole or not at all.

    Raises:
        DeviceError: If the path cannot be written.
    """
    target = Path(path)
    try:
        write_whole(target, device.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise DeviceError(f"{target} cannot be written: {error.strerror}.") from error


def sample(
    device: DeviceModel, n: int, rng: np.random.Generator, *, convention: str = "median-1"
) -> NDArray[np.float64]:
    """Draw ``n`` independent factors that the device's noise puts on programmed conductances.

    Args:
        device: Whose sigma is used.
        n: How many.
        rng: Source of the randomness.
        convention: "median-1": median 1, mean exp(sigma^2 / 2); "mean-1": mean 1.

    Returns:
        ``n`` positive factors.

    Raises:
        DeviceError: If the convention is unknown.
    """
    if convention not in ("median-1", "mean-1"):
        raise DeviceError(f'convention is "median-1" or "mean-1"; received {convention!r}.')
    sigma = device.sigma.value
    shift = 0.5 * sigma**2 if convention == "mean-1" else 0.0
    return np.asarray(np.exp(sigma * rng.standard_normal(n) - shift), dtype=np.float64)
