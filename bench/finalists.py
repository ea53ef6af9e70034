"""What plain training and the best noise come to, once the search of `steady` has chosen between them.

`steady:search=true` judges its two finalists after one training and goes on with one of them for another one
and a half. Here both go to the end. Only training and validation data are opened, of seeds that no other study
uses: `tie`, the lead up to which noise is kept, was chosen from this. Devices are simulated.

    python bench/finalists.py [--data ../shared/data/tasks] [--tasks digits,anuran]
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from _common import markdown, save
from _robustness_studies import MEDIAN
from ohmloop.crossbar import Hardware
from ohmloop.nn import Deployment, evaluate_fleets
from ohmloop.tasks import Split, Task, task
from ohmloop.train import RunResult, fit, parse_method
from ohmloop.train._steady import NO_CLIP

SEEDS = range(20, 24)
N_DEVICES = 20
WIDE = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


class Case(NamedTuple):
    """A network, what it is trained on and for."""

    task: str
    model: str
    sigmas: tuple[float, ...]
    seeds: int
    epochs: int
    limit: int | None = None
    lr: float | None = None


CASES = (
    Case("digits", "mlp", WIDE, 4, 60),
    Case("anuran", "mlp", (MEDIAN,), 3, 20),
    Case("anuran", "mlp-bn", (MEDIAN,), 3, 20),
    Case("fashion-mnist", "lenet", (MEDIAN,), 2, 5, 8_000, 1e-3),
    Case("fashion-mnist", "lenet-bn", (MEDIAN,), 2, 5, 8_000, 1e-3),
)


def whole(case: Case, found: Task, seed: int) -> list[dict[str, Any]]:
    """Search once, train both finalists to the end, and return what is known of each."""
    levels = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in case.sigmas]
    sigma = float(np.sqrt(np.mean(np.square(case.sigmas))))
    shared: dict[str, Any] = {
        "model": case.model,
        "hardware": levels,
        "seed": seed,
        "epochs": case.epochs,
        "limit": case.limit,
        "lr": case.lr,
    }
    searched = fit(found, "steady:search=true", **shared)
    last = max(t.epochs for t in searched.trials)
    out = []
    for trial in (t for t in searched.trials if t.epochs == last):
        noise = trial.noise
        method = parse_method("steady").model_copy(
            update={
                "strength": noise.level / sigma,
                "ramp": 0.0,
                "length": len(searched.history) / case.epochs,
                "slope": noise.slope,
                "first": noise.first,
                "last": noise.last,
                "mixture": noise.mixture,
                "clip": noise.clip or NO_CLIP,
            }
        )
        ended = fit(found, method, **shared)
        if ended.noise.model_copy(update={"level": noise.level}) != noise:
            raise RuntimeError(f"trained with {ended.noise} instead of {noise}")
        scores = {d: judged(ended, found, case, seed, levels, d) for d in ("readout", "none")}
        out.append({"level": noise.level, "early": trial.objective, **scores})
    return sorted(out, key=lambda row: bool(row["level"]))


def judged(
    result: RunResult, found: Task, case: Case, seed: int, levels: list[Hardware], text: str
) -> float:
    """Return the mean of mean and worst-tenth validation scores, as `steady` judges trials."""
    train, (x, y) = found.development(seed, case.limit)
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(x), generator=generator)[:1000]
    shown = torch.randperm(len(train.x), generator=generator)[:256]  # data may lie in an order
    fleets = evaluate_fleets(
        result.model,
        Split(x[some], y[some]),
        levels,
        n_devices=N_DEVICES,
        seed=90_000 + seed,
        metric=found.metric,
        deployment=Deployment.parse(text),
        unlabelled=train.x[shown],
    )
    return float(np.mean([(f.mean + f.worst) / 2 for f in fleets]))


def rows(studied: list[tuple[Case, int, list[dict[str, Any]]]]) -> Iterator[list[str]]:
    """Return a line a search."""
    for case, seed, (plain, noisy) in studied:
        gaps = [noisy[key] - plain[key] for key in ("early", "readout", "none")]
        name = f"{case.task}, {case.model}"
        yield [name, str(seed), f"{noisy['level']:.2f}", *(f"{gap:+.3f}" for gap in gaps)]


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tasks", help="only these, separated by commas")
    parser.add_argument("--data", type=Path, help="folder of data sets that no package brings")
    args = parser.parse_args()
    data = args.data or Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
    studied = []
    for case in CASES:
        if args.tasks and case.task not in args.tasks.split(","):
            continue
        place = data / case.task
        if case.task == "anuran" and not place.exists():
            print(f"anuran: skipped: not in {place}; --data names another folder")
            continue
        found = task(case.task, place if case.task == "anuran" else None)
        for seed in SEEDS[: case.seeds]:
            start = time.monotonic()
            studied.append((case, seed, whole(case, found, seed)))
            print(f"{case.task} {case.model} {seed}: {time.monotonic() - start:.0f} s", flush=True)
    head = ["task, network", "seed", "level", "after one training", "in the end", "without readout"]
    text = (
        "# The two finalists of `steady`, both trained to the end\n\n"
        f"Objective (average of mean and worst-tenth validation score, {N_DEVICES} simulated devices of each "
        "sigma) of the best noise minus that of plain training: after one training, as the search sees it; in "
        "the end, with readout; in the end, weights alone.\n\n"
        + markdown(head, list(rows(studied)))
    )
    kept = [{**case._asdict(), "seed": seed, "finalists": both} for case, seed, both in studied]
    save("finalists", {"runs": kept}, text)


if __name__ == "__main__":
    main()
