"""Training for arrays: plain, with noise on weights, and through the array itself; the digits MLP.

The network (64-100-100-10) is written into 64 x 64 tiles of pairs of cells of nanowire-36, once and
without verification, and read through converters. Training through the array programs a fresh chip at
each step and cuts weights to 2.5 deviations. The noise on weights has the device's sigma: Gaussian, as
most methods draw it, or log-normal, as the device's cells are; and, to tell what cutting alone brings,
the same with weights cut, and 1.5 times as much. All methods share network, optimiser, batches, epochs
and seeds: 60 epochs, 3 training seeds, each deployed on the same 50 chips and scored on the test set, as
it comes and with the readout of 64 unlabelled inputs on each chip. Chips are simulated; no time is measured.
"""

import argparse
from typing import Any

import numpy as np

from _common import markdown, save
from ohmloop.crossbar import Array, Hardware
from ohmloop.nn import Deployment, evaluate_fleets
from ohmloop.tasks import task
from ohmloop.train import fit, unlabelled_inputs

DEVICE = "nanowire-36"
ARRAYS = {
    "8-bit converters": "rows=64,columns=64,dac=8,adc=8",
    "4-bit converters": "rows=64,columns=64,dac=4,adc=4",
}
DEPLOYMENTS = ("none", "readout")
SEEDS, CHIPS, CHIP_SEED = (0, 1, 2), 50, 4_711
PLAIN = "erm"
THROUGH = "hardware-aware"


def methods(sigma: float) -> dict[str, str]:
    """Return what is compared, by what it is called."""
    return {
        "plain": PLAIN,
        "Gaussian noise on weights": f"weight-noise:level={sigma:.3f}",
        "log-normal noise on weights": f"weight-noise:level={sigma:.3f},distribution=lognormal",
        "Gaussian noise on weights, clipped": f"weight-noise:level={sigma:.3f},clip=2.5",
        "stronger noise on weights, clipped": f"weight-noise:level={1.5 * sigma:.3f},clip=2.5",
        "through the array": THROUGH,
        "through the array, not clipped": f"{THROUGH}:clip=1000",
    }


def measured(method: str, hardware: Hardware, epochs: int | None) -> dict[str, Any]:
    """Train and deploy one method: scores by deployment, ``seeds x chips``, and digital ones by seed."""
    found = task("digits")
    scores: dict[str, list[list[float]]] = {text: [] for text in DEPLOYMENTS}
    digital = []
    for seed in SEEDS:
        run = fit(found, method, hardware=hardware, epochs=epochs, seed=seed)
        for text in DEPLOYMENTS:
            deployment = Deployment.parse(text)
            fleet = evaluate_fleets(
                run.model,
                found.test(seed),
                [hardware],
                n_devices=CHIPS,
                seed=CHIP_SEED,
                deployment=deployment,
                unlabelled=unlabelled_inputs(found.development(seed)[0], seed, deployment.samples),
            )[0]
            scores[text].append(fleet.scores.tolist())
        digital.append(fleet.digital)
    return {"method": method, "digital": digital, "scores": scores}


def cell(scores: list[list[float]]) -> str:
    """Return the mean in %, the spread over chips of a network, and that over networks' means."""
    found = 100 * np.array(scores)
    chips, seeds = found.std(axis=1, ddof=1).mean(), found.mean(axis=1).std(ddof=1)
    return f"{found.mean():.1f} ± {chips:.1f} ({seeds:.1f})"


def gain(rows: dict[str, dict[str, Any]], name: str, over: str, deployment: str) -> str:
    """Return by how much one method's mean lies above another's, paired by seed, in points of %."""
    means = [np.array(rows[key]["scores"][deployment]).mean(axis=1) for key in (name, over)]
    each = 100 * (means[0] - means[1])
    return f"{each.mean():+.1f} ({', '.join(f'{d:+.1f}' for d in each)})"


def sentences(rows: dict[str, dict[str, Any]], label: str) -> list[str]:
    """Say which method wins, and what training through the array brings over noise on weights."""
    out = []
    for deployment in DEPLOYMENTS:
        ranked = sorted(
            rows,
            key=lambda name: -float(np.mean(rows[name]["scores"][deployment])),
        )
        noise = next(name for name in ranked if "noise on weights" in name)
        through = next(name for name in ranked if "through" in name)
        out.append(
            f"* {label}, deployment {deployment}: best is *{ranked[0]}*. *{through}* against *{noise}*, in "
            f"points of % by training seed: {gain(rows, through, noise, deployment)}; against plain training: "
            f"{gain(rows, through, 'plain', deployment)}."
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=None)
    epochs = parser.parse_args().epochs
    tables, out = [], {}
    said: list[str] = []
    for label, text in ARRAYS.items():
        hardware = Hardware.model_validate({"device": DEVICE, "array": Array.parse(text)})
        rows = {
            name: measured(method, hardware, epochs)
            for name, method in methods(hardware.device.sigma.value).items()
        }
        out[label] = {"array": text, "rows": rows}
        cells = [
            [
                name,
                f"`{row['method']}`",
                f"{100 * np.mean(row['digital']):.1f}",
                *(cell(row["scores"][d]) for d in DEPLOYMENTS),
            ]
            for name, row in rows.items()
        ]
        head = ["trained", "method", "digital", "on chips", "on chips, with readout"]
        tables.append(f"## {label}\n\n`--array {text}`\n\n" + markdown(head, cells) + "\n")
        said += sentences(rows, label)
    text = "".join(
        [
            f"# Training for arrays\n\n{__doc__}\n",
            "Test accuracy in %: mean over seeds and chips ± standard deviation over chips of one network "
            "(standard deviation of the networks' means over training seeds).\n\n",
            *tables,
            "## What wins\n\n" + "\n".join(said) + "\n",
        ]
    )
    facts = {"device": DEVICE, "seeds": SEEDS, "chips": CHIPS, "simulated": True, "arrays": out}
    save("array-training", facts, text)


if __name__ == "__main__":
    main()
