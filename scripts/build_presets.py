"""Write the built-in device models from the public nanowire workbooks.

    python scripts/build_presets.py FOLDER     # recipes.csv and raw/*.xlsx inside

Only figures, level tables, recipes and hashes are written, never a curve. The order is that of
recipes.csv, so names stay stable.
"""

import argparse
import csv
import json
from pathlib import Path

from ohmloop.data import read
from ohmloop.device import DeviceModel, fit

TARGET = Path(__file__).parents[1] / "src" / "ohmloop" / "device" / "presets" / "nanowires.json"
CITATION = (
    "Ye, Sun, Wang et al., arXiv 2412.02779 (2024); measurements: GitHub repository "
    "qiaosun22/BayesMultiOpenPCDet, Apache-2.0"
)
PUBLISHED = ("sigma", "monotonicity", "usability", "lenet_mnist_accuracy")


def _value(text: str) -> float | str | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _rounded(device: DeviceModel) -> dict[str, object]:
    """Return the model as plain data, its level table to six digits; all else stays exact."""
    out = device.model_dump(mode="json")
    out["rho"] = None if device.rho is None else [round(level, 6) for level in device.rho]
    return out


def build(folder: Path) -> str:
    """Return the JSON text of all presets."""
    models = []
    with (folder / "recipes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows, start=1):
        model = fit([read(folder / "raw" / row["file"])], name=f"nanowire-{k:02d}")
        recipe = {
            key: _value(text)
            for key, text in row.items()
            if key != "file" and not key.startswith("published_")
        }
        description = (
            f"{row['material']} nanowires, {float(row['aao_length_um']):g} um x "
            f"{float(row['aao_diameter_nm']):g} nm, {row['contact']} contact, "
            f"{float(row['sweep_max_v']):g} V sweep"
        )
        models.append(
            model.model_copy(
                update={
                    "description": description,
                    "recipe": recipe,
                    "published": {key: float(row[f"published_{key}"]) for key in PUBLISHED},
                    "citation": CITATION,
                }
            )
        )
    return "[\n" + ",\n".join(json.dumps(_rounded(m), allow_nan=False) for m in models) + "\n]\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    TARGET.write_text(build(parser.parse_args().folder), encoding="utf-8")
