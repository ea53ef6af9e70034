"""Time of a suggestion: batches of 4, ten mixed variables, two objectives and failures; peers beside it.

    python bench/suggest.py [--repeats 3] [--sizes 100,300] [--limit 900]
    python bench/suggest.py --only ohmloop,optuna      # these anew, the others as they were kept

CPU seconds of one process with one thread, fitting included, imports not. Every tool gets what it can
use: BoFire and Ax the two objectives and "usable" as a constraint on an outcome that is learned, BayBE the
objectives alone, Optuna them and which trials failed; its Parzen estimator fits no Gaussian process. Peers run
in the environments that ``bench/peers/setup`` makes; missing ones are named.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from _common import RESULTS, markdown, middle, save
from ohmloop import bo

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "bench" / ".cache"
PEERS = ROOT / "bench" / "peers"
TOOLS = ("ax", "baybe", "bofire", "optuna")

SPACE = bo.Space(
    (
        bo.Real(name="thickness", low=50, high=600, log=True),
        bo.Real(name="length", low=0.5, high=3),
        bo.Real(name="temperature", low=80, high=200),
        bo.Real(name="time", low=1, high=60, log=True),
        bo.Real(name="concentration", low=0.5, high=1.6),
        bo.Integer(name="cycles", low=1, high=10),
        bo.Ordinal(name="diameter", levels=(5, 50, 200, 300)),
        bo.Categorical(name="material", options=("MAPbI3", "FAPbI3", "MAPbBr3", "CsPbI3")),
        bo.Categorical(name="contact", options=("carbon", "probe", "silver")),
        bo.Categorical(name="antisolvent", options=("none", "toluene", "ether")),
    )
)
PROBLEM = bo.Problem(
    space=SPACE,
    objectives=(bo.Objective(name="usability"), bo.Objective(name="energy", maximise=False)),
    stages=("works",),
)


def laboratory(n: int, seed: int) -> list[dict[str, Any]]:
    """Return ``n`` made-up trials: a recipe, whether it works (about 60 %), and two outcomes if so."""
    rng = np.random.default_rng([seed, n])
    table = SPACE.sample(n, rng)
    features, groups = SPACE.features(table)
    u = np.stack([features[:, groups == k].mean(1) for k in range(len(SPACE.variables))], 1)
    quality = np.sin(4 * u[:, 0]) + (u[:, 2] - 0.6) ** 2 * -4 + u[:, 4] * u[:, 5] + table[:, 7] / 4
    energy = np.exp(u[:, 1] + u[:, 3] - u[:, 6]) + 0.2 * (table[:, 8] == 1)
    works = u[:, 2] + 0.7 * u[:, 3] + 0.2 * rng.normal(size=n) < 1.0
    return [
        {
            "point": point,
            "works": bool(w),
            "usability": float(q + 0.1 * rng.normal()),
            "energy": float(e + 0.05 * rng.normal()),
        }
        for point, w, q, e in zip(SPACE.to_points(table), works, quality, energy, strict=True)
    ]


def ours(trials: list[dict[str, Any]], seed: int) -> float:
    """Return the CPU seconds that ohmloop takes for a batch of 4, reasons included."""
    seen = [
        bo.Observation(
            point=t["point"],
            stages={"works": (int(t["works"]), int(not t["works"]))},
            values={k: (t[k],) for k in ("usability", "energy")} if t["works"] else {},
        )
        for t in trials
    ]
    began = time.process_time()
    bo.suggest(PROBLEM, seen, 4, seed=seed)
    return time.process_time() - began


def peer(tool: str, sizes: list[int], repeats: int, limit: float) -> dict[int, list[float]]:
    """Return size -> CPU seconds of what a peer did within ``limit`` seconds; empty without its environment."""
    python = PEERS / ".venv" / tool / "bin" / "python"
    if not python.exists():
        return {}
    CACHE.mkdir(exist_ok=True)
    source, target = CACHE / "timing.json", CACHE / f"timing.{tool}.json"
    variables = []
    for v in SPACE.variables:
        if isinstance(v, bo.Categorical):
            variables.append({"name": v.name, "type": "categorical", "options": list(v.options)})
        elif isinstance(v, bo.Ordinal):
            variables.append({"name": v.name, "type": "levels", "levels": list(v.levels)})
        else:
            kind = "integer" if isinstance(v, bo.Integer) else "number"
            low, high = v.low, v.high
            variables.append({"name": v.name, "type": kind, "low": low, "high": high, "log": v.log})
    runs = [
        {"n": n, "seed": seed, "trials": laboratory(n, seed)}
        for n in sizes
        for seed in range(repeats)
    ]
    source.write_text(json.dumps({"variables": variables, "runs": runs}), encoding="utf-8")
    target.unlink(missing_ok=True)
    try:
        command = [python, PEERS / "timing.py", tool, source, target]
        subprocess.run(command, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"{tool}: stopped after {limit:g} s", file=sys.stderr, flush=True)
    out: dict[int, list[float]] = {n: [] for n in sizes}
    done = json.loads(target.read_text(encoding="utf-8")) if target.exists() else []
    for entry in done:
        out[entry["n"]].append(entry["seconds"])
    return out


def kept(sizes: list[int]) -> dict[str, dict[int, list[float]]]:
    """Return what an earlier run of these sizes kept."""
    path = RESULTS / "suggest.json"
    if not path.exists():
        return {}
    seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
    return {
        tool: {n: runs[str(n)] for n in sizes if str(n) in runs} for tool, runs in seconds.items()
    }


def main() -> None:
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", default="100,300")
    parser.add_argument("--limit", type=float, default=900, help="wall seconds a peer")
    parser.add_argument("--only", help="run these tools anew, and keep what others did")
    args = parser.parse_args()
    sizes = [int(n) for n in args.sizes.split(",")]
    tools = args.only.split(",") if args.only else ["ohmloop", *TOOLS]
    if unknown := set(tools) - {"ohmloop", *TOOLS}:
        parser.error(f"no tool {', '.join(sorted(unknown))}; one of ohmloop, {', '.join(TOOLS)}")
    found = kept(sizes) if args.only else {}
    if "ohmloop" in tools:
        ours(laboratory(20, 99), 0)  # imports and first calls are not counted
        repeats = range(args.repeats)
        found["ohmloop"] = {n: [ours(laboratory(n, s), s) for s in repeats] for n in sizes}
    for tool in TOOLS:
        if tool in tools:
            print(tool, file=sys.stderr, flush=True)
            found[tool] = peer(tool, sizes, args.repeats, args.limit)
    found = {tool: found.get(tool, {}) for tool in ("ohmloop", *TOOLS)}
    left_out = [tool for tool in TOOLS if not found[tool]]
    rows = [
        [
            tool,
            *(
                f"{middle(t)}, {len(t)} runs" if (t := times.get(n)) else "none in time"
                for n in sizes
            ),
        ]
        for tool, times in found.items()
        if times
    ]
    table = markdown(["tool", *(f"{n} observations" for n in sizes)], rows)
    text = (
        "# Time of a suggestion\n\nA batch of 4, ten mixed variables, two objectives, about 40 % failures; CPU "
        f"seconds, median (range), one thread. A peer had {args.limit:g} s in all.\n\n" + table
    )
    if left_out:
        text += f"\nLeft out, no environment: {', '.join(left_out)}.\n"
    save("suggest", {"seconds": found, "left_out": left_out}, text)


if __name__ == "__main__":
    main()
