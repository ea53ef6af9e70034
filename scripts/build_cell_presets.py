"""Write the built-in cells: published memories whose physical law is known, with a source for each constant.

    python scripts/build_cell_presets.py FOLDER     # taox-lut-crosssim/, hfo2-1t1r-radar/, ... inside

Cells that come from measurements are evaluated here, from files that their authors published; only the
evaluated constants are written. The others hold constants that a paper states.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from cell_presets import measured, published
from ohmloop.device import DeviceModel, Estimate, list_devices

TARGET = Path(__file__).parents[1] / "src" / "ohmloop" / "device" / "presets" / "cells.json"


def finished(device: DeviceModel) -> DeviceModel:
    """Return the model with the sigma and the window that its physics imply."""
    physics = device.cell()
    sigma = float(f"{physics.log_std():.4g}")
    note = (
        f" sigma = {sigma:g} is the standard deviation of ln G right after programming to mid-window, "
        "computed from these constants."
    )
    return device.model_copy(
        update={
            "sigma": Estimate(value=sigma),
            "g_min": physics.g_min,
            "g_max": physics.g_max,
            "description": device.description + note,
        }
    )


def with_kinds(full: dict[str, Any], short: dict[str, Any]) -> dict[str, Any]:
    """Return ``short``, which leaves defaults out, with each "kind" of ``full`` put back."""
    kind = {"kind": full["kind"]} if "kind" in full else {}
    return kind | {
        key: with_kinds(full[key], value) if isinstance(value, dict) else value
        for key, value in short.items()
    }


def build(folder: Path) -> str:
    """Return the JSON text of all built-in cells."""
    nanowires = list_devices()
    sigma = statistics.median(d.sigma.value for d in nanowires)
    g_max = statistics.median(d.g_max for d in nanowires if d.g_max is not None)
    models = [*published.cells(sigma, g_max), *measured.cells(folder)]
    plain = []
    for model in map(finished, models):
        full = model.model_dump(mode="json")
        plain.append(with_kinds(full, model.model_dump(mode="json", exclude_defaults=True)))
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    text = build(parser.parse_args().folder)
    TARGET.write_text(text, encoding="utf-8")
    print(f"wrote {TARGET} ({len(text)} bytes)")
