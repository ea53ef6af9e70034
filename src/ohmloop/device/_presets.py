"""Built-in cells: published memories with a physical law, each constant with its source."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from ohmloop.device._model import DeviceModel


@cache
def list_presets() -> tuple[DeviceModel, ...]:
    """Return the built-in cells: phase-change memory, HfO2 and TaOx ReRAM, halide perovskites and others.

    Each has `DeviceModel.physics`. Its description says what was measured and what is assumed, and its sigma is
    the standard deviation of ln G right after programming to mid-window. scripts/build_cell_presets.py writes
    the file.

    >>> [p.name for p in list_presets()][0]
    'pcm-joshi2020'
    """
    text = resources.files("ohmloop.device").joinpath("presets/cells.json").read_text("utf-8")
    return tuple(DeviceModel.model_validate(item) for item in json.loads(text))
