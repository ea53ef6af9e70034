"""The training methods on the digits MLP (64-100-100-10), under log-normal drift of every weight.

Two protocols. *Raw*: pixels from 0 to 16 as they are stored, Adam at a constant 1e-3, the setting
whose plain training behaves like the design study that this table reproduces. *Standardised*: inputs
scaled by statistics of the training data, Adam from 3e-3 along a cosine to zero, what ohmloop does by
default. Within a protocol all methods share network, optimiser, batches, epochs and seeds. Seven
levels of sigma, 30 virtual devices for each of 3 training seeds; 60 epochs cost 1. Objectives under
drift average over the same seven levels, on validation data and on other virtual devices.

How the raw protocol was chosen: pixels and rate by the row of plain training on validation data; the
constant rate after a cosine had left the weight-noise rows of this very table undertrained (.685 and
.795). It is a reproduction, not a ranking: compare methods within a protocol.
"""

import argparse
import time

from _common import executor_of, executor_options, markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.train import compare

SIGMAS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
SHOWN = (0.4, 0.8, 1.2, 1.5)
# (method, epochs, mean over sigma in the design study that the raw protocol reproduces).
METHODS = (
    ("erm", 60, 0.561),
    ("dropout:rate=0.5", 60, 0.674),
    ("bayesft", 60, None),
    ("bayesmulti", 60, 0.624),
    ("bayesmulti:objective=drift-validation", 60, 0.677),
    ("weight-noise:level=0.5", 60, 0.669),
    ("weight-noise", 60, 0.720),
    ("weight-noise:level=1.2", 240, 0.827),
)
PROTOCOLS = {
    "raw": {"standardise": False, "lr": 1e-3, "schedule": "constant"},
    "standardised": {"standardise": True, "lr": 3e-3, "schedule": "cosine"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    executor_options(parser)
    executor = executor_of(parser.parse_args())
    hardwares = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in SIGMAS]
    out: dict[str, object] = {"sigmas": SIGMAS, "seeds": [0, 1, 2], "n_devices": 30}
    tables = ["# Methods on the digits MLP\n\n" + (__doc__ or "") + "\n"]
    for name, settings in PROTOCOLS.items():
        start = time.monotonic()
        rows = compare(
            "digits",
            [(method, epochs) for method, epochs, _ in METHODS],
            hardwares,
            executor=executor,
            **settings,
        )
        cells, entries = [], []
        for row, (_, _, design) in zip(rows, METHODS, strict=True):
            mean = row.scores.mean(axis=(1, 2))
            per_seed = row.scores.mean(axis=(0, 2))
            shown = [f"{mean[SIGMAS.index(s)]:.3f}" for s in SHOWN]
            cells.append(
                [
                    f"{row.method} ({row.cost:g})",
                    f"{row.clean.mean():.3f}",
                    *shown,
                    f"{mean.mean():.3f} ± {per_seed.std(ddof=1):.3f}",
                    *([f"{design:.3f}" if design else "–"] if name == "raw" else []),
                ]
            )
            entries.append(
                {
                    "method": row.method,
                    "cost": row.cost,
                    "clean": row.clean.tolist(),
                    "mean_by_sigma": mean.tolist(),
                    "std_over_devices_and_seeds": row.scores.std(axis=(1, 2)).tolist(),
                    "mean_by_seed": per_seed.tolist(),
                    "settings": row.settings,
                    "seconds": row.seconds,
                    "design_study_mean": design if name == "raw" else None,
                }
            )
        seconds = time.monotonic() - start
        out[name] = {"settings": settings, "rows": entries, "seconds": seconds}
        header = ["method (cost)", "clean", *map(str, SHOWN), "mean over 7 sigma ± s.d. of seeds"]
        tables.append(f"## {name}\n\n{settings}, {seconds:.0f} s on {executor}\n\n")
        tables.append(
            markdown([*header, *(["design study"] if name == "raw" else [])], cells) + "\n"
        )
    save("methods", out, "".join(tables))


if __name__ == "__main__":
    main()
