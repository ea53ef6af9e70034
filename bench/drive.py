"""Closed loop on imperfect devices: MetaDrive's pretrained PPO driver, and a highway policy.

Each device (simulated, log-normal drift of every analog weight) drives the task's test routes; the score is the
share of routes finished. Collisions: the share that ends in a crash; off road: the share that leaves the road;
the rest ran out of time. Progress: the mean share of a route driven. Rows: training, and what each device gets
beside its weights (64 observations of training drives, unlabelled; with `cells=2` twice the cells). Searches
choose by R2 on recorded actions. One training seed, few devices: a drive takes seconds.

    python bench/drive.py [--devices 3]    # --tasks "" drives nothing and writes the tables anew
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from _common import RESULTS, markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.errors import OhmloopError
from ohmloop.nn import Deployment
from ohmloop.tasks import task
from ohmloop.train import evaluate_run, fit, load_run

SIGMAS = (0.2, 0.5, 1.0)
METHODS = {
    "metadrive": (
        "as-it-comes",
        "bayesmulti:n_iterations=1,max_p0=0.6",
        "weight-noise:level=0.5",
        "steady",
        "steady:search=true",
    ),
    "highway": (
        "erm",
        "bayesmulti:n_iterations=1,max_p0=0.6",
        "steady",
        "steady:strength=1.25,length=1,ramp=0",
        "steady:search=true",
    ),
}
DEPLOYMENTS = ("none", "readout", "readout:cells=2")


def table(out: dict[str, object]) -> str:
    """Return all tasks in ``out`` as Markdown."""
    text = [f"# Closed-loop driving\n\n{__doc__}\n"]
    for name in METHODS:
        entry = out.get(name)
        if not isinstance(entry, dict):
            text.append(f"## {name}\n\nskipped: {entry or 'not run'}\n")
            continue
        every = [fleet for row in entry["rows"] for fleet in row["fleets"]]
        figures = list(dict.fromkeys(f for fleet in every for f in fleet.get("figures", {})))
        scores, outcomes = [], []
        for row in entry["rows"]:
            fleets = row["fleets"]
            key = [row["method"], fleets[0]["deployment"]]
            shown = [
                f"{f['mean']:.2f} ({', '.join(f'{x:.1f}' for x in f['scores'])})" for f in fleets
            ]
            scores.append([*key, f"{fleets[0]['digital']:.2f}", *shown])
            if fleets[0].get("figures"):
                means = [outcome(fleet, figures) for fleet in fleets]
                outcomes.append([*key, outcome(fleets[0], figures, "digital"), *means])
        head = ["training", "deployment", "digital", *(f"sigma {s:g}" for s in SIGMAS)]
        text.append(
            f"## {name}\n\nShare of routes finished: mean (each device).\n\n"
            f"{markdown(head, scores)}\n"
        )
        if figures:
            words = " / ".join(("finished", *figures)).replace("_", " ")
            text.append(
                f"What the routes came to: {words}, means of the devices, where all were noted.\n\n"
                f"{markdown(head, outcomes)}\n"
            )
    return "\n".join(text)


def outcome(fleet: dict[str, Any], figures: Sequence[str], of: str = "mean") -> str:
    """Return the score and the further figures of a fleet, or its digital network's."""
    further = (f"{fleet['figures'][figure][of]:.2f}" for figure in figures)
    return " / ".join((f"{fleet[of]:.2f}", *further))


def merged(name: str, before: object, rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return a task's rows in their order: fresh ones, and those kept of others that still belong."""

    def key(row: dict[str, Any]) -> tuple[str, str]:
        return row["method"], row["fleets"][0]["deployment"]

    kept = before["rows"] if isinstance(before, dict) else []
    found = {key(row): row for row in (*kept, *rows)}
    order = [(method, way) for method in METHODS[name] for way in DEPLOYMENTS]
    return {"seconds": seconds, "rows": [found[k] for k in order if k in found]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(METHODS), help="the others keep their results")
    parser.add_argument("--method", help="one of the task's; other rows keep their results")
    parser.add_argument("--deployments", default=",".join(DEPLOYMENTS), help="as well")
    args = parser.parse_args()
    laws = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in SIGMAS]
    kept = RESULTS / "drive.json"
    out: dict[str, object] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    out["sigmas"] = SIGMAS
    for name in filter(None, args.tasks.split(",")):
        rows = []
        start = time.monotonic()
        try:
            found = task(name)
            for method in METHODS[name] if args.method is None else (args.method,):
                with tempfile.TemporaryDirectory() as place:
                    fit(found, method, hardware=Hardware(device="lognormal:0.5"), run_dir=place)
                    run = load_run(place)
                    for deployment in args.deployments.split(","):
                        fleets = evaluate_run(
                            run,
                            laws,
                            deployment=Deployment.parse(deployment),
                            n_devices=args.devices,
                            by_doing=True,
                        )
                        rows.append(
                            {"method": method, "fleets": [fleet.to_dict() for fleet in fleets]}
                        )
                        print(name, method, deployment, [f.mean for f in fleets], flush=True)
        except OhmloopError as error:
            if not isinstance(out.get(name), dict):
                out[name] = str(error)
            print(f"{name}: {error}")
            continue
        out[name] = merged(name, out.get(name), rows, time.monotonic() - start)
        out["devices"] = args.devices
        out.pop("machine", None)  # `save` writes the one that drove last
    save("drive", out, table(out))


if __name__ == "__main__":
    main()
