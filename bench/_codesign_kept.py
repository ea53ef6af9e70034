"""Networks and finished parts of bench/codesign.py, kept between runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ohmloop.crossbar import Hardware
from ohmloop.nn import evaluate_fleets
from ohmloop.tasks import task
from ohmloop.train import Run, fit, load_run

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "bench" / ".cache" / "codesign"
LENET_METHODS = ("multinomial:p0=0.2", "erm")
SEED = 60_001  # of virtual devices; no training or objective draws from it


def networks(name: str, method: str, seeds: int, **settings: Any) -> list[Run]:
    """Return one trained network a seed, from the cache where it is there."""
    runs = []
    for seed in range(seeds):
        folder = CACHE / f"{name}-{method.replace(':', '-').replace('=', '')}-{seed}"
        if not (folder / "result.json").exists():
            fit(task(name), method, seed=seed, run_dir=folder, **settings)
        runs.append(load_run(folder))
    return runs


def scores(runs: list[Run], hardwares: list[Hardware], n_devices: int, limit: int) -> np.ndarray:
    """Return ``networks x hardwares`` mean scores on validation data."""
    out = []
    for run in runs:
        _, validation = run.task.development(run.config["seed"], run.config["limit"])
        part = (validation.x[:limit], validation.y[:limit])
        fleets = evaluate_fleets(run.model, part, hardwares, n_devices=n_devices, seed=SEED)
        out.append([f.mean for f in fleets])
    return np.array(out)


def keep(name: str, value: dict[str, Any]) -> None:
    """Write one finished part."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def kept(name: str) -> dict[str, Any] | None:
    """Return a finished part."""
    path = CACHE / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
