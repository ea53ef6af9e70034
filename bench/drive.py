"""Closed loop on imperfect devices: MetaDrive's pretrained PPO driver, and a highway policy.

Each device (simulated, log-normal drift of every analog weight) drives the task's test routes; the score is the
share of routes finished. Rows: training, and what each device gets beside its weights (64 observations of
training drives, unlabelled). One training seed, few devices: a drive takes seconds.

    python bench/drive.py [--devices 3]
"""

import argparse
import tempfile
import time

from _common import markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.errors import OhmloopError
from ohmloop.nn import Deployment
from ohmloop.tasks import task
from ohmloop.train import evaluate_run, fit, load_run

SIGMAS = (0.2, 0.5, 1.0)
METHODS = {
    "metadrive": (
        "as-it-comes",
        "weight-noise:level=0.5",
        "steady:strength=1,length=1,distill=0.5",
    ),
    "highway": ("erm", "steady:strength=1.25,length=1"),
}
DEPLOYMENTS = ("none", "readout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--tasks", default="metadrive,highway")
    args = parser.parse_args()
    laws = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in SIGMAS]
    out: dict[str, object] = {"sigmas": SIGMAS, "devices": args.devices}
    text = [f"# Closed-loop driving\n\n{__doc__}\n"]
    for name in args.tasks.split(","):
        cells, entries = [], []
        start = time.monotonic()
        try:
            found = task(name)
            for method in METHODS[name]:
                with tempfile.TemporaryDirectory() as place:
                    fit(
                        found,
                        method,
                        hardware=Hardware(device="lognormal:0.5"),
                        run_dir=f"{place}/run",
                    )
                    run = load_run(f"{place}/run")
                    for deployment in DEPLOYMENTS:
                        fleets = evaluate_run(
                            run,
                            laws,
                            deployment=Deployment.parse(deployment),
                            n_devices=args.devices,
                            by_doing=True,
                        )
                        cells.append(
                            [method, deployment, f"{fleets[0].digital:.2f}"]
                            + [
                                f"{f.mean:.2f} ({', '.join(f'{x:.1f}' for x in f.scores)})"
                                for f in fleets
                            ]
                        )
                        entries.append(
                            {"method": method, "fleets": [fleet.to_dict() for fleet in fleets]}
                        )
                        print(name, *cells[-1], flush=True)
        except OhmloopError as error:
            text.append(f"## {name}\n\nskipped: {error}\n")
            continue
        seconds = time.monotonic() - start
        out[name] = {"seconds": seconds, "rows": entries}
        head = ["training", "deployment", "digital", *(f"sigma {s:g}" for s in SIGMAS)]
        text.append(
            f"## {name}\n\nShare of routes finished: mean (each device). {seconds:.0f} s.\n\n"
            f"{markdown(head, cells)}\n"
        )
    save("drive", out, "\n".join(text))


if __name__ == "__main__":
    main()
