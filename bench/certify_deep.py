"""Certificates of deep networks: a pretrained identifier of birds, and what a ResNet-18 costs.

The identifier (MobileNetV2 with the weights of its authors, 965 species, `birds965-small`: 128 x 128 pixels)
as it comes, with log-normal drift of every analog weight and bias, {devices} virtual devices a row at 95 %
confidence on {images} photographs; "true": as many other devices. `channel` shows each device 64 unlabelled
photographs. Data, see docs/tasks.md, are real photographs; devices are simulated. Which photographs: drawn
once from the test set.

ResNet-18: 300 virtual devices with weights as drawn at the start of a training (what they cost does not depend
on what was learned), `poll` and the certificates of yield, percentile and drift, each number of images in a
process of its own with one thread. CPU seconds, and the largest resident memory over that of the process
before. A line through the two smaller numbers of images is checked at the third, and carried on to 10,000.

    python bench/certify_deep.py [--data FOLDER] [--only birds|resnet18|page]

`page` only writes the page anew. A part that is missing below was not run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import RESULTS, markdown, save
from ohmloop.certify import (
    Law,
    clopper_pearson,
    drift_certificate,
    percentile_certificate,
    poll,
    quantile_certificate,
    yield_certificate,
)
from ohmloop.crossbar import Hardware
from ohmloop.nn import Deployment, analogize
from ohmloop.tasks import Split, build_model, task
from ohmloop.train import fit, unlabelled_inputs

DEVICES, IMAGES = 200, 40
SIGMAS = (0.02, 0.05, 0.1)
DEPLOYMENTS = ("none", "channel")
RESNET_IMAGES, RESNET_DEVICES, GOAL = (4, 12, 24), 300, 10_000
SHIFT = 0.5


def birds(folder: Path) -> dict[str, Any]:
    """Certify the identifier at each sigma and deployment."""
    found = task("birds965-small", folder)
    run = fit(found, "as-it-comes", model="mobilenet-v2", seed=0)
    test = found.test(0, None)
    order = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))
    keep = order[:IMAGES].sort().values
    data = Split(test.x[keep], test.y[keep])
    train, _ = found.development(0, None)
    unlabelled = unlabelled_inputs(train, 0)
    rows = []
    for name in DEPLOYMENTS:
        deployment = Deployment.parse(name)
        shown = unlabelled if deployment.sees_inputs else None
        for sigma in SIGMAS:
            hardware = Hardware.model_validate({"device": f"lognormal:{sigma}"})
            law = Law.of(hardware, calibrated="fixed")
            votes, others = (
                poll(
                    run.model.eval(),
                    data,
                    law,
                    n_devices=DEVICES,
                    seed=seed,
                    deployment=deployment,
                    unlabelled=shown,
                )
                for seed in (1, 2)
            )
            rows.append({"deployment": name, "sigma": sigma, **statements(votes, others)})
            print(rows[-1], flush=True)
    return {"n_images": len(data.x), "n_devices": DEVICES, "rows": rows}


def statements(votes: Any, others: Any) -> dict[str, Any]:
    """Return what is certified from some devices, and what others do."""
    yields = yield_certificate(votes)
    percentile = percentile_certificate(votes, shares=(0.95,))
    drift = drift_certificate(votes)
    right = others.right("digital")
    upper = 1 - clopper_pearson(len(right) - right.sum(0), len(right), 1e-4 / right.shape[1])
    return {
        "digital": float((votes.digital == votes.labels).mean()),
        "yield_50": yields.covered[yields.keeps.index(0.5)] / yields.n_inputs,
        "yield_95": yields.covered[yields.keeps.index(0.95)] / yields.n_inputs,
        "accuracy_95": quantile_certificate(votes, share=0.95).bound,
        "true_95": float(np.quantile(others.scores("label"), 0.05)),
        "true_mean": float(others.scores("label").mean()),
        "shifted_95": percentile.bounds[0][percentile.rho.index(SHIFT)],
        "kept_50": next(c for c in drift.curves if c.keep == 0.5).inputs[drift.rho.index(SHIFT)],
        "contradicted": int((upper < np.array(yields.lower)).sum()),
    }


def resnet_once(n_images: int) -> dict[str, Any]:
    """Draw 300 devices of a ResNet-18 and certify, in this process."""
    torch.set_num_threads(1)
    hardware = Hardware.model_validate({"device": "lognormal:0.2"})
    model = analogize(build_model("resnet18", (3, 32, 32), 10, 0), hardware).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n_images, 3, 32, 32, generator=generator)
    y = torch.randint(10, (n_images,), generator=generator)
    poll(model, (x[:1], y[:1]), Law.of(hardware, calibrated="fixed"), n_devices=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    votes = poll(
        model, (x, y), Law.of(hardware, calibrated="fixed"), n_devices=RESNET_DEVICES, seed=1
    )
    yield_certificate(votes)
    percentile_certificate(votes, shares=(0.95,))
    drift_certificate(votes)
    return {
        "images": n_images,
        "seconds": time.process_time() - began,
        "memory": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def resnet() -> dict[str, Any]:
    """Measure all numbers of images, and carry them on."""
    runs = []
    for n in RESNET_IMAGES:
        command = [sys.executable, __file__, "--images", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        print(runs[-1], flush=True)
    slope = (runs[1]["seconds"] - runs[0]["seconds"]) / (runs[1]["images"] - runs[0]["images"])
    start = runs[0]["seconds"] - slope * runs[0]["images"]
    checked = start + slope * runs[2]["images"]
    return {
        "runs": runs,
        "seconds_draw": start,
        "seconds_image": slope,
        "error": checked / runs[2]["seconds"] - 1,
        "seconds_goal": start + slope * GOAL,
    }


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def page(kept: dict[str, Any]) -> str:
    """Return the page of what has been measured."""
    doc = (__doc__ or "").format(devices=DEVICES, images=IMAGES)
    parts = [f"# Certificates of deep networks\n\n{doc}"]
    if found := kept.get("birds"):
        head = ["deployment", "sigma", "digital accuracy", "inputs with yield > 50 %", ">= 95 %"]
        head += ["accuracy of 95 % of devices", "true", "mean", "of 95 % after shift .5"]
        head += ["inputs kept after shift .5 (50 %)", "contradicted"]
        keys: tuple[str, ...] = (
            "digital",
            "yield_50",
            "yield_95",
            "accuracy_95",
            "true_95",
            "true_mean",
        )
        keys = (*keys, "shifted_95", "kept_50")
        rows = [
            [
                r["deployment"],
                f"{r['sigma']:g}",
                *(percent(r[k]) for k in keys),
                str(r["contradicted"]),
            ]
            for r in found["rows"]
        ]
        parts.append("## Identifier of 965 birds\n\n" + markdown(head, rows))
    if found := kept.get("resnet18"):
        rows = [
            [str(r["images"]), f"{r['seconds']:.0f} s", f"{r['memory'] / 2**20:.0f} MiB"]
            for r in found["runs"]
        ]
        words = (
            f"{found['seconds_draw']:.0f} s for drawing and {found['seconds_image']:.2f} s an image, "
            f"{100 * found['error']:+.0f} % off at the third; {GOAL:,} images would take "
            f"{found['seconds_goal'] / 3600:.0f} CPU hours (not run)."
        )
        head = ["images", "CPU s", "memory over the start"]
        parts.append(
            f"## ResNet-18, {RESNET_DEVICES} devices\n\n" + markdown(head, rows) + f"\n{words}\n"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of data sets that no package brings")
    parser.add_argument("--only", choices=("birds", "resnet18", "page"))
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.images:
        print(json.dumps(resnet_once(options.images)))
        return
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
    folder = options.data or beside
    path = RESULTS / "certify-deep.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept.pop("machine", None)
    if options.only in (None, "resnet18"):
        kept["resnet18"] = resnet()
    if options.only in (None, "birds"):
        if folder.exists():
            kept["birds"] = birds(folder)
        else:
            print("birds: skipped: no folder of data; see --data and docs/tasks.md")
    save("certify-deep", kept, page(kept))


if __name__ == "__main__":
    main()
