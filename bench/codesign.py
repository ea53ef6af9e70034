"""Does co-design pay? What device properties are worth, nanowires ranked for a network, and the closed loop.

    python bench/codesign.py nanowires [--data FOLDER]    # LeNet on MNIST against the published column
    python bench/codesign.py hunt [--seeds 20]            # devices made until the best of the 43
    python bench/codesign.py worth                        # what improvements are worth on the digits
    python bench/codesign.py lab [--seeds 20] [--first 0] [--budget full]
    python bench/codesign.py pair                         # one loop, and what each half alone reaches
    python bench/codesign.py tables                       # write the pages from what was found

FOLDER holds the 43 published workbooks, by default ``../shared/data/perovskite-nanowire-iv/raw``. Finished
parts are kept in ``bench/.cache/codesign`` and not computed again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from _codesign_kept import CACHE, LENET_METHODS, ROOT, keep, kept, networks, scores
from _codesign_lab import BUDGETS, lab
from _codesign_pages import tables
from ohmloop import bo
from ohmloop.campaign import ReplayTable, load_replay
from ohmloop.codesign import (
    CodesignLoop,
    LoopSettings,
    joint,
    run_in_virtual_lab,
    sensitivity,
)
from ohmloop.crossbar import Hardware
from ohmloop.data import read
from ohmloop.device import (
    DeviceModel,
    list_devices,
    load_device,
    released_level_table,
)

SWEEPS = ROOT / ".." / "shared" / "data" / "perovskite-nanowire-iv" / "raw"
LENET = {"epochs": 5, "limit": 12_000, "lr": 1e-3}


# -- the 43 measured nanowires ------------------------------------------------------------------


def nanowires(data: Path) -> None:
    """Rank the 43 devices for LeNet, by simulation alone, and compare with the published accuracies."""
    devices = list_devices()
    laws: dict[str, list[DeviceModel]] = {
        "sigma alone": [d.model_copy(update={"rho": None}) for d in devices],
        "sigma and table of the rising ramp": list(devices),
    }
    if data.is_dir():
        laws["sigma and table of rows 2 to 101"] = [
            d.model_copy(update={"rho": released_level_table(read(data / d.sources[0].file))})
            for d in devices
        ]
    published = np.array([d.published["lenet_mnist_accuracy"] for d in devices])
    out: dict[str, Any] = {
        "published": published.tolist(),
        "names": [d.name for d in devices],
        "usability": float(
            spearmanr([d.published["usability"] for d in devices], published).statistic
        ),
        "minus sigma": float(spearmanr([-d.sigma.value for d in devices], published).statistic),
        "predictors": {},
    }
    for method in LENET_METHODS:
        runs = networks("mnist", method, 2, **LENET)
        found = sensitivity(runs, n_points=40, n_devices=8, limit=300)
        for law, models in laws.items():
            direct = scores(runs, [Hardware(device=m) for m in models], 12, 600).mean(0)
            asked = [found.surrogate.of(m, with_interval=False).mean for m in models]
            averaged = [found.surrogate.of(m).mean for m in models]
            for how, values in (
                ("simulated", direct),
                ("surrogate", asked),
                ("surrogate over sigma's interval", averaged),
            ):
                out["predictors"][f"{method}, {law}, {how}"] = {
                    "spearman": float(spearmanr(values, published).statistic),
                    "with_simulation": float(spearmanr(values, direct).statistic),
                    "values": list(map(float, values)),
                }
            print(method, law, {k: round(v["spearman"], 4) for k, v in out["predictors"].items()})
        out[f"left out, {method}"] = found.left_out
        keep("nanowires", out)


def hunt(seeds: int) -> None:
    """Count devices made until the published best one, with each objective told to the optimiser."""
    found = kept("nanowires")
    if found is None:
        raise SystemExit("first: python bench/codesign.py nanowires")
    table = load_replay("nanowires")
    named = {json.dumps(p, sort_keys=True): k for k, p in enumerate(table.points)}
    devices = list_devices()
    rows: dict[int, list[int]] = {}
    space = table.config.problem().space
    for k, device in enumerate(devices):
        clean = {n: "" if v is None else str(v) for n, v in device.recipe.items()}
        point = space.to_points(space.to_table([clean]))[0]
        rows.setdefault(named[json.dumps(point, sort_keys=True)], []).append(k)
    law = "sigma and table of rows 2 to 101"
    told = {
        "task accuracy": found["predictors"][f"{LENET_METHODS[0]}, {law}, surrogate"]["values"],
        "minus sigma": [-d.sigma.value for d in devices],
        "usability": [float(d.published["usability"]) for d in devices],
    }
    published = np.array([np.mean([found["published"][k] for k in rows[r]]) for r in rows])
    best = list(rows)[int(published.argmax())]
    out: dict[str, list[int]] = {name: [] for name in told}
    for seed in range(seeds):
        start = np.random.default_rng([seed, 9]).permutation(len(rows))[:3].tolist()
        for name, values in told.items():
            out[name].append(_until(table, rows, values, best, start))
        keep("hunt", {"devices": out, "n": len(rows)})


def _until(
    table: ReplayTable, rows: dict[int, list[int]], values: list[float], best: int, start: list[int]
) -> int:
    problem = bo.Problem(
        space=table.config.problem().space,
        objectives=(bo.Objective(name="told"),),
        settings=bo.Settings(n_initial=3),
    )
    tried = list(start)
    while best not in tried:
        seen = [
            bo.Observation(
                point=table.points[r], values={"told": tuple(float(values[k]) for k in rows[r])}
            )
            for r in tried
        ]
        left = [r for r in rows if r not in tried]
        chosen = bo.suggest(problem, seen, 2, candidates=[table.points[r] for r in left])
        points = [dict(s.point) for s in chosen]
        tried += [r for p in points for r in left if table.points[r] == p]
    return tried.index(best) + 1


# -- what improvements are worth ----------------------------------------------------------------


def worth() -> None:
    """What improvements of a device are worth on the digits, by method."""
    out: dict[str, Any] = {}
    for method in ("erm", "weight-noise:level=0.5", "weight-noise:level=1.2"):
        runs = networks("digits", method, 3)
        for name in ("lognormal:0.4", "lognormal:0.8", "nanowire-30", "nanowire-28"):
            found = sensitivity(runs, Hardware(device=load_device(name)), n_devices=30)
            out[f"{method}, {name}"] = found.to_dict() | {"surrogate": None}
    keep("worth", out)


# -- one loop from end to end -------------------------------------------------------------------


def pair() -> None:
    """Run one loop in the virtual lab and say what it came to, and what each half alone reaches."""
    place = CACHE / "loop"
    if (place / "codesign.toml").exists():
        loop = CodesignLoop.open(place)
    else:
        loop = CodesignLoop.new(place, LoopSettings(epochs=30, points=32, stop_gain=0.0))
    steps = run_in_virtual_lab(loop, BUDGETS["short"].experiments, seed=1)
    found = joint(loop)
    keep(
        "pair",
        {
            "experiments": steps[-1].n_experiments,
            "sigma": found.law.sigma.value,
            "method": found.method,
            "scores": {
                name: [getattr(found, name).score, getattr(found, name).error]
                for name in ("both", "device_alone", "network_alone", "neither")
            },
            "front": [[p.trial, p.score, p.energy, p.experiments] for p in found.front],
            "points": len(found.points),
            "worths": steps[-1].worths,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["nanowires", "hunt", "worth", "lab", "pair", "tables"])
    parser.add_argument("--data", type=Path, default=SWEEPS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--budget", choices=list(BUDGETS), default="full")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part == "nanowires":
        nanowires(given.data)
    elif given.part == "hunt":
        hunt(given.seeds)
    elif given.part == "worth":
        worth()
    elif given.part == "lab":
        lab(given.seeds, given.first, given.budget)
    elif given.part == "pair":
        pair()
    else:
        tables()


if __name__ == "__main__":
    main()
