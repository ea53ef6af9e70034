"""Networks written into many simulated arrays: 10 x 10, 64 x 64, 256 x 256, on a good, a median and a poor nanowire.

What `ohmloop crossbar run` does, for each size and device: three training seeds, 1,000 chips for each trained
network, 8-bit converters, wires of 1 ohm a segment, erase-and-write cycles with verification to 2 % of the
window. Accuracies are in %, mean and standard deviation over all chips of all seeds; the readout is a ridge
regression of a chip's outputs on up to 64 unlabelled inputs. Energy is counted from the same run, of one
inference. Devices: highest published usability (nanowire-30), median sigma, highest published sigma. Everything
but the devices' sweeps is simulated; for the two larger sizes {reduced}.
"""

import argparse
from pathlib import Path

import numpy as np

from _common import markdown, save
from ohmloop.device import list_devices
from ohmloop.experiment import ArraySetting, ArrayStudy, run_arrays
from ohmloop.units import format as with_unit

REDUCED = {
    10: {},
    64: {},
    256: {"limit": 6000, "epochs": 12, "n_arrays": 100, "seeds": (0, 1)},
}
WORDS = "256 x 256 uses 6,000 Fashion-MNIST images, 12 epochs, 2 seeds and 100 chips a seed"


def devices() -> dict[str, str]:
    """Return the three devices by what they stand for."""
    by_sigma = sorted(list_devices(), key=lambda d: d.sigma.value)
    best = max(by_sigma, key=lambda d: d.published["usability"])
    middle, worst = by_sigma[(len(by_sigma) - 1) // 2], by_sigma[-1]
    return {"best": best.name, "median": middle.name, "poor": worst.name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,64,256")
    parser.add_argument("--out", type=Path, default=Path("/tmp/ohmloop-arrays"))
    options = parser.parse_args()
    results, rows, costs = {}, [], []
    for size in (int(s) for s in options.sizes.split(",")):
        for word, device in devices().items():
            setting = ArraySetting.model_validate({"size": size, "device": device, **REDUCED[size]})
            study = run_arrays(setting, folder=options.out / f"{size}-{device}")
            results[f"{size}-{word}"] = summary(study)
            rows += accuracy_rows(study, word)
            if word == "best":
                costs.append(cost_row(study))
    head = ["array", "device", "trained by", "digital", "exact cells", "written once", "verified"]
    head += ["verified + readout", "usable"]
    text = markdown(head, rows)
    text += "\n" + markdown(
        [
            "array",
            "products",
            "arrays",
            "an operation",
            "digital int8",
            "of it multiplications",
            "programming",
        ],
        costs,
    )
    doc = (__doc__ or "").replace("{reduced}", WORDS)
    save("arrays", {"reduced": WORDS, "results": results}, f"# Arrays\n\n{doc}\n{text}")


def summary(study: ArrayStudy) -> dict[str, object]:
    """Return the study without each chip's score."""
    kept = study.to_dict()
    del kept["scores"]
    return kept


def accuracy_rows(study: ArrayStudy, word: str) -> list[list[str]]:
    """Return one row a method."""
    out = []
    for method in study.setting.methods:
        found = {(r.writing, r.deployment): r for r in study.rows if r.method == method}

        def cell(writing: str, deployment: str = "none", found: dict = found) -> str:
            scores = 100 * found[(writing, deployment)].scores
            return f"{scores.mean():.1f} ± {scores.std(ddof=1):.1f}"

        verified = found[("written and verified", "none")]
        usable = (verified.scores >= 0.9 * verified.digital[:, None]).mean()
        out.append(
            [
                f"{study.setting.size} x {study.setting.size}, {study.setting.network[0]}",
                f"{word}: {study.setting.device}",
                method,
                f"{100 * float(np.mean(verified.digital)):.1f}",
                cell("exact cells"),
                cell("written once"),
                cell("written and verified"),
                cell("written and verified", "readout"),
                f"{100 * usable:.0f} %",
            ]
        )
    return out


def cost_row(study: ArrayStudy) -> list[str]:
    """Return energies of one inference."""
    programming = study.cost.programming
    return [
        f"{study.setting.size} x {study.setting.size}, {study.setting.network[0]}",
        f"{study.cost.operations // 2:,}",
        with_unit(study.cost.energy, "J"),
        with_unit(study.cost.energy_per_operation, "J"),
        with_unit(study.digital.energy, "J"),
        with_unit(study.digital.energy_parts["arithmetic"], "J"),
        "unknown" if programming is None else with_unit(programming, "J"),
    ]


if __name__ == "__main__":
    main()
