"""When noise should come: not at all, from the first step, or growing over half or all of a training.

Each network is trained for four plain trainings on the noise of the median nanowire's sigma and judged on
validation data, on simulated devices of three sigmas. No test data are opened, and no other study uses these
seeds: the growth that `bench/robustness.py` then tests was chosen from this.

    python bench/ramps.py [--data ../shared/data/tasks]     # one core, about an hour
    python bench/ramps.py --cases digits,anuran --seeds 31  # the others keep their results
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from _common import RESULTS, markdown, save
from _robustness_studies import MEDIAN
from ohmloop.crossbar import Hardware
from ohmloop.nn import Deployment, evaluate_fleets, score
from ohmloop.tasks import Split, Task, task
from ohmloop.train import fit

SIGMAS = (0.2, MEDIAN, 1.2)
N_DEVICES = 15
N_JUDGED = 600
SEEDS = (30, 31)
PLAIN = "erm"
METHODS = (
    PLAIN,
    "steady:strength=0.8,ramp=0",
    "steady:strength=0.8,ramp=0.5",
    "steady:strength=0.8,ramp=1",
    "steady:strength=1.25,ramp=1",
)


class Case(NamedTuple):
    """A network, and how long a plain training of it is."""

    task: str
    model: str
    epochs: int
    limit: int | None = None
    lr: float | None = None
    folder: str | None = None


CASES = {
    "digits": Case("digits", "mlp", 60),
    "lenet": Case("fashion-mnist", "lenet", 5, 8_000, 1e-3),
    "lenet-bn": Case("fashion-mnist", "lenet-bn", 5, 8_000, 1e-3),
    "gtsrb": Case("gtsrb", "cnn-bn", 6, 1_500, folder="gtsrb32"),
    "anuran": Case("anuran", "mlp", 20, folder="anuran"),
}


def trained(case: Case, found: Task, method: str, seed: int) -> dict[str, Any]:
    """Train once and return validation scores: digital, and of devices with readout and without."""
    levels = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in SIGMAS]
    result = fit(
        found,
        method,
        model=case.model,
        hardware=[levels[SIGMAS.index(MEDIAN)]],
        seed=seed,
        epochs=case.epochs * (4 if method == PLAIN else 1),
        limit=case.limit,
        lr=case.lr,
    )
    train, (x, y) = found.development(seed, case.limit)
    generator = torch.Generator().manual_seed(seed)
    judged = torch.randperm(len(x), generator=generator)[:N_JUDGED]
    shown = torch.randperm(len(train.x), generator=generator)[:64]  # data may lie in an order
    split = Split(x[judged], y[judged])
    row: dict[str, Any] = {"clean": score(result.model, split, found.metric)}
    for deployment in ("readout", "none"):
        fleets = evaluate_fleets(
            result.model,
            split,
            levels,
            n_devices=N_DEVICES,
            seed=90_000 + seed,
            metric=found.metric,
            deployment=Deployment.parse(deployment),
            unlabelled=train.x[shown],
        )
        row[deployment] = [fleet.mean for fleet in fleets]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over seeds and devices, a line a network and method."""
    head = ["network", "training", "seeds", "clean"]
    head += [f"{d}, {s:g}" for d in ("readout", "none") for s in SIGMAS]
    lines = []
    for case in CASES:
        for method in METHODS:
            mine = [r for r in rows if (r["case"], r["method"]) == (case, method)]
            if not mine:
                continue
            scores = np.mean([[r["clean"], *r["readout"], *r["none"]] for r in mine], axis=0)
            name = "erm, four times as long" if method == PLAIN else method
            lines.append([case, name, str(len(mine)), *(f"{x:.3f}" for x in scores)])
    return markdown(head, lines)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="only these, separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--method", help="only this one")
    parser.add_argument("--data", type=Path, help="folder of data sets that no package brings")
    args = parser.parse_args()
    data = args.data or Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
    path = RESULTS / "ramps.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for name in args.cases.split(","):
        case = CASES[name]
        place = data / case.folder if case.folder else None
        if place is not None and not place.exists():
            print(f"{name}: skipped: not in {place}; --data names another folder")
            continue
        found = task(case.task, place)
        for seed in map(int, args.seeds.split(",")):
            for method in [args.method] if args.method else METHODS:
                start = time.monotonic()
                key = {"case": name, "seed": seed, "method": method}
                rows = [r for r in rows if any(r[k] != v for k, v in key.items())]
                rows.append({**key, **trained(case, found, method, seed)})
                print(f"{name} {seed} {method}: {time.monotonic() - start:.0f} s", flush=True)
    rows.sort(key=lambda r: (list(CASES).index(r["case"]), r["seed"], METHODS.index(r["method"])))
    save("ramps", {"rows": rows}, table(rows))


if __name__ == "__main__":
    main()
