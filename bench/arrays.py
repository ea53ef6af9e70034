"""Networks written into simulated arrays of 10 x 10, 64 x 64 and 256 x 256 cells: good, median, poor nanowires.

What `ohmloop crossbar run` does, for each size and device: three training seeds, 1,000 chips for each trained
network, 8-bit converters, wires of 1 ohm a segment, erase-and-write cycles with verification to 2 % of the
window. Accuracies are in %, mean and standard deviation over all chips of all seeds; the readout is a ridge
regression of a chip's outputs on up to 64 unlabelled inputs. Energy is counted from the same run, of one
inference. Devices: highest published usability (nanowire-30), median sigma, highest published sigma. Everything
but the devices' sweeps is simulated. Reduced: {reduced}.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from _common import RESULTS, markdown, save
from ohmloop.device import list_devices, load_device
from ohmloop.experiment import ArraySetting, ArrayStudy, run_arrays
from ohmloop.units import format as with_unit

REDUCED = {
    10: {},
    64: {"n_arrays": 200},
    256: {"limit": 6000, "epochs": 10, "seeds": (0, 1)},
}
EXACT = {
    "n_arrays": 20
}  # beside the above, where wires have to be solved exactly on the larger arrays
WORDS = (
    "64 x 64 has 200 chips a seed, 20 on the poor device, whose wires are solved exactly; 256 x 256 was run on "
    "the devices shown, with 6,000 Fashion-MNIST images, 10 epochs, 2 seeds, 20 chips a seed, and exact wires"
)


def devices() -> dict[str, str]:
    """Return the three devices by what they stand for."""
    by_sigma = sorted(list_devices(), key=lambda d: d.sigma.value)
    best = max(by_sigma, key=lambda d: d.published["usability"])
    middle, worst = by_sigma[(len(by_sigma) - 1) // 2], by_sigma[-1]
    return {"best": best.name, "median": middle.name, "poor": worst.name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes",
        default="10,64",
        help="256 needs `ohmloop fetch fashion-mnist`; '' only writes the tables anew.",
    )
    parser.add_argument("--devices", default="best,median,poor", help="only these of the three")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / ".cache" / "arrays")
    options = parser.parse_args()
    results = kept()
    for size in (int(s) for s in options.sizes.split(",") if s):
        for word, device in devices().items():
            if word not in options.devices.split(",") or (size == 256 and word == "poor"):
                continue
            setting = ArraySetting.model_validate({"size": size, "device": device, **REDUCED[size]})
            if size > 10 and setting.solution(load_device(device).cell().g_max) == "exact":
                setting = setting.model_copy(update=EXACT)
            study = run_arrays(setting, folder=options.out / f"{size}-{device}")
            results[f"{size}-{word}"] = summary(study)
    order = sorted(results, key=lambda key: int(key.partition("-")[0]))
    results = {key: results[key] for key in order}
    head = ["array", "device", "trained by", "digital", "exact cells", "written once", "verified"]
    head += ["verified + readout", "usable"]
    text = markdown(
        head, [row for key, kept in results.items() for row in accuracy_rows(key, kept)]
    )
    head = ["array", "products", "arrays", "an operation", "digital int8"]
    head += ["of it multiplications", "programming"]
    best = [kept for key, kept in results.items() if key.endswith("-best")]
    text += "\n" + markdown(head, [cost_row(kept) for kept in best])
    doc = (__doc__ or "").replace("{reduced}", WORDS)
    save("arrays", {"reduced": WORDS, "results": results}, f"{doc}\n{text}")


def kept() -> dict[str, dict]:
    """Return what former runs found for other sizes."""
    path = RESULTS / "arrays.json"
    return json.loads(path.read_text("utf-8"))["results"] if path.exists() else {}


def summary(study: ArrayStudy) -> dict[str, object]:
    """Return the study without each chip's score."""
    kept = study.to_dict()
    del kept["scores"]
    return kept


def label(kept: dict) -> str:
    """Return what an array is called in the tables."""
    setting = ArraySetting.model_validate(kept["setting"])
    return f"{setting.size} x {setting.size}, {setting.network[0]}"


def accuracy_rows(key: str, kept: dict) -> list[list[str]]:
    """Return one row a method."""
    out = []
    for method in kept["setting"]["methods"]:
        found = {(r["writing"], r["deployment"]): r for r in kept["rows"] if r["method"] == method}

        def cell(writing: str, deployment: str = "none", found: dict = found) -> str:
            row = found[(writing, deployment)]
            return f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f}"

        verified = found[("written and verified", "none")]
        out.append(
            [
                label(kept),
                f"{key.partition('-')[2]}: {kept['setting']['device']}",
                method,
                f"{100 * float(np.mean(verified['digital'])):.1f}",
                cell("exact cells"),
                cell("written once"),
                cell("written and verified"),
                cell("written and verified", "readout"),
                f"{100 * verified['usable']:.0f} %",
            ]
        )
    return out


def cost_row(kept: dict) -> list[str]:
    """Return energies of one inference."""
    arrays, digital = kept["cost"], kept["digital"]
    programming = arrays["programming_J"]
    return [
        label(kept),
        f"{arrays['operations'] // 2:,}",
        with_unit(arrays["energy_J"], "J"),
        with_unit(arrays["energy_per_operation_J"], "J"),
        with_unit(digital["energy_J"], "J"),
        with_unit(digital["energy_parts_J"]["arithmetic"], "J"),
        "unknown" if programming is None else with_unit(programming, "J"),
    ]


if __name__ == "__main__":
    main()
