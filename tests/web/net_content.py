"""A workspace with a run, its tests and certificates, a device and a loop, written by hand: no torch.

The numbers are invented for the tests; they say nothing about any device or network.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ohmloop.campaign import Campaign
from ohmloop.device import Axis, TaskAccuracy, load_device, save_device, save_task_accuracy

CAMPAIGN = """
schema_version = 1
name = "Loop of the tests"

[variables.temperature]
type = "continuous"
low = 100
high = 200

[[stages]]
name = "works"

[[objectives]]
name = "task_accuracy"
goal = "maximise"
"""
NOISE: dict[str, Any] = {"masks": [], "level": 0.5, "distribution": "gaussian", "tile": 16}


def make(root: Path) -> None:
    """Fill a workspace."""
    finished_run(root / "runs" / "robust")
    unfinished_run(root / "runs" / "stopped")
    (root / "devices").mkdir()
    wire = load_device("nanowire-12").model_copy(update={"name": "wire", "citation": ""})
    save_device(wire, root / "devices" / "wire.json")
    (root / "devices" / "torn.json").write_text('{"name": "torn"', encoding="utf-8")
    loop(root / "loop")


def unfinished_run(place: Path) -> None:
    """Write the folder of a training that was stopped."""
    place.mkdir(parents=True)
    hardware = [{"device": load_device("lognormal:0.5").model_dump(mode="json"), "array": None}]
    config = {"task": "digits", "model": "mlp", "method": "weight-noise:level=0.5", "seed": 0}
    config |= {"hardware": hardware, "epochs": 3, "deployment": "none", "limit": None}
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")


def finished_run(place: Path) -> None:
    """Write the folder of a training that ended, was tested and certified."""
    unfinished_run(place)
    (place / "weights.pt").write_bytes(b"weights")
    result = {"method": "weight-noise:level=0.5", "noise": NOISE, "cost": 1.0, "trials": []}
    result |= {"validation_score": 0.961, "data_seen": ["train", "validation"]}
    (place / "result.json").write_text(json.dumps(result), encoding="utf-8")
    history = [{"epoch": k, "loss": 1 / k, "validation_score": 1 - 0.3 / k} for k in (1, 2, 3)]
    (place / "history.jsonl").write_text("\n".join(map(json.dumps, history)), encoding="utf-8")
    (place / "evaluations").mkdir()
    for name, on_array in (("lognormal:0.2", False), ("lognormal:0.5", False), ("wire", True)):
        evaluation(place, name, on_array=on_array)
    kept = [
        certificate("quantile", "S2", "95 of 100 devices drawn from the law reach 91.3 %."),
        silent(),
    ]
    text = json.dumps({"schema_version": 1, "kept": kept})
    (place / "certificates.json").write_text(text, encoding="utf-8")


def evaluation(place: Path, device: str, *, on_array: bool) -> None:
    """Write a fleet of 40 devices."""
    sigma = 0.3 if on_array else float(device.rpartition(":")[2])
    scores = np.clip(0.97 - 0.1 * sigma * np.linspace(0, 1, 40), 0, 1).tolist()
    layer = {"name": "1", "type": "Linear", "analog": True, "reason": "", "parameters": 650}
    arrays = {"layers": [layer | {"tiles": 2, "energy": 1.25e-9}], "tiles": 2, "energy": 1.25e-9}
    array = {"rows": 64, "columns": 64}
    values = {
        "schema_version": 1,
        "name": f"{device.replace(':', '-')}-{int(on_array)}",
        "task": "digits",
        "model": "mlp",
        "method": "weight-noise:level=0.5",
        "hardware": {"device": {"name": device}, "array": array if on_array else None},
        "device": device,
        "sigma": sigma,
        "convention": "median-1",
        "n_devices": 40,
        "seed": 0,
        "n_samples": 359,
        "metric": "accuracy",
        "is_higher_better": True,
        "digital": 0.972,
        "mean": float(np.mean(scores)),
        "std": float(np.std(scores, ddof=1)),
        "worst_tenth": float(np.mean(sorted(scores)[:4])),
        "scores": scores,
        "arrays": arrays if on_array else None,
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
        "config_sha256": "0" * 64,
        "versions": {},
    }
    path = place / "evaluations" / f"{values['name']}.json"
    path.write_text(json.dumps(values), encoding="utf-8")


def certificate(kind: str, statement: str, claim: str) -> dict[str, Any]:
    """Return a kept certificate."""
    record = {"kind": kind, "statement": statement, "claim": f"With 95 % confidence: {claim}"}
    record |= {"theorem": "order statistic (Wilks 1941)", "limits": ["The devices are simulated."]}
    record |= {
        "law_words": "log-normal noise, sigma 0.5 (median-1)",
        "alpha": 0.05,
        "n_draws": 1000,
    }
    record |= {"multiplicity": "one statement", "class_rule": "", "n_inputs": 359, "abstentions": 0}
    return {
        "question": kind,
        "asked": "yield",
        "device": "lognormal:0.5",
        "hardware": None,
        "settings": {},
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
        "versions": {},
        "record": record,
    }


def silent() -> dict[str, Any]:
    """Return a kept certificate that claims nothing, about weights that are gone."""
    kept = certificate("box", "S1", "")
    kept["weights_sha256"] = "1" * 64
    kept["record"] |= {"claim": "No claim: nothing was proven.", "n_draws": 0, "alpha": 0.0}
    kept["record"] |= {"law_words": ""}
    return kept


def proven(device: str = "lognormal:0.5") -> list[dict[str, Any]]:
    """Return kept certificates that have curves, one of each kind."""
    records: dict[str, dict[str, Any]] = {
        "yield": {"lower": [0.4, 0.99, 0.9, 0.7]},
        "percentile": {
            "score": "accuracy",
            "shares": [0.5, 0.95],
            "rho": [0.0, 0.5, 1.0],
            "bounds": [[0.96, 0.95, 0.93], [0.94, 0.92, None]],
        },
        "drift": {"rho": [0.0, 1.0], "curves": [{"keep": 0.5, "inputs": [0.9, 0.6]}]},
        "box": {"box": "relative", "radii": [0.0, 0.02, 0.05, 0.1]},
    }
    statements = {"yield": "S2", "box": "S1"}
    out = []
    for kind, record in records.items():
        kept = certificate(kind, statements.get(kind, "S3"), f"{kind} holds.")
        kept["record"] |= record
        out.append(kept | {"device": device})
    return out


def loop(place: Path) -> None:
    """Write a loop that went round twice, with one measured device."""
    with Campaign.new(place, text=CAMPAIGN) as campaign:
        trial, _ = campaign.add({"temperature": 150.0})
        campaign.record(trial.id, values={"task_accuracy": 0.9}, passed="works", note="SIMULATED")
        campaign.add({"temperature": 120.0})
    (place / "codesign.toml").write_text(
        'task = "digits"\nmethod = "weight-noise:level={sigma}"\nnetworks = 2\nstop_gain = 0.001\n',
        encoding="utf-8",
    )
    steps = [step(1, 0, None), step(2, 1, 0.9)]
    # The last line is that of a process that was killed.
    text = "\n".join(map(json.dumps, steps)) + '\n{"number": 3, "n_ex'
    (place / "steps.jsonl").write_text(text, encoding="utf-8")
    worth = {"name": "sigma", "phrase": "halving sigma", "before": 0.6, "after": 0.3}
    worths = [worth | {"gain": 0.057, "error": 0.01}]
    (place / "worths.json").write_text(json.dumps(worths), encoding="utf-8")
    save_task_accuracy(task_accuracy(), place / "task-accuracy.json")


def step(number: int, n: int, score: float | None) -> dict[str, Any]:
    """Return a step of the loop as its file has it."""
    return {
        "number": number,
        "n_experiments": n,
        "trial": "" if score is None else "T001",
        "recipe": {},
        "sigma": 0.5,
        "method": "weight-noise:level=0.5",
        "retrained": number == 1,
        "score": score,
        "error": None if score is None else 0.02,
        "worths": ["halving sigma (0.6 to 0.3) is worth 5.70 ± 1.00 points"],
        "gain": None if score is None else 0.004,
        "verdict": "go on",
        "text": "There are too few results to say what the next batch is worth.",
        "suggestions": ["T002"],
    }


def task_accuracy() -> TaskAccuracy:
    """Return a score that falls with sigma."""
    n = 8
    points = tuple((k / (n - 1),) for k in range(n))
    return TaskAccuracy(
        task="digits",
        method="weight-noise:level=0.5",
        metric="accuracy",
        n_networks=2,
        n_devices=20,
        n_samples=287,
        digital=0.96,
        axes=(Axis(name="sigma", low=0.02, high=2.5, log=True, neutral=0.02),),
        usage=(0.5, 0.5),
        points=points,
        means=tuple(0.95 - 0.8 * p[0] ** 3 for p in points),
        errors=(0.01,) * n,
        spreads=(0.02,) * n,
        lengths=(0.4,),
        amplitude=0.1,
        noises=(1e-4,) * n,
    )
