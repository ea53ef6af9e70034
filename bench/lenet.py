"""LeNet-5 on Fashion-MNIST and MNIST: methods under log-normal drift, and MNIST on the 43 nanowires.

A reduced setting for two cores: 12,000 development images (a fifth validates), the first 2,000 of the
official test images, 5 epochs, 2 training seeds, 20 virtual devices. `bayesmulti` runs 3 + 3 trials. A data
set that is not here is skipped, saying how to get it.
"""

import argparse
import time

import numpy as np
from scipy.stats import spearmanr

from _common import executor_of, executor_options, markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.device import list_devices
from ohmloop.errors import TaskError
from ohmloop.train import compare

SIGMAS = (0.1, 0.25, 0.5, 0.8, 1.2)
METHODS = (
    "erm",
    "dropout:rate=0.3",
    "multinomial:p0=0.2",
    "bayesmulti:n_iterations=3,max_p0=0.6",
    "weight-noise:level=0.3",
    "weight-noise:level=0.6",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    executor_options(parser)
    executor = executor_of(parser.parse_args())
    levels = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in SIGMAS]
    devices = list_devices()
    out: dict[str, object] = {"sigmas": SIGMAS}
    tables = [f"# LeNet-5\n\n{__doc__}\n"]
    for task in ("fashion-mnist", "mnist"):
        own = [Hardware(device=d) for d in devices] if task == "mnist" else []
        noise_only = [Hardware(device=d, use_rho=False) for d in devices] if task == "mnist" else []
        start = time.monotonic()
        try:
            rows = compare(
                task,
                METHODS,
                [*levels, *own, *noise_only],
                seeds=(0, 1),
                n_devices=20,
                epochs=5,
                limit=12_000,
                test_limit=2_000,
                lr=1e-3,
                executor=executor,
            )
        except TaskError as error:
            tables.append(f"## {task}\n\nskipped: {error}\n\n")
            out[task] = {"skipped": str(error)}
            continue
        seconds = time.monotonic() - start
        k = len(SIGMAS)
        cells = [
            [f"{r.method} ({r.cost:g})", f"{r.clean.mean():.3f}"]
            + [
                f"{a:.3f} ± {s:.3f}"
                for a, s in zip(r.scores[:k].mean((1, 2)), r.scores[:k].std((1, 2)), strict=True)
            ]
            for r in rows
        ]
        entry: dict[str, object] = {
            "seconds": seconds,
            "methods": {r.method: r.scores[:k].mean((1, 2)).tolist() for r in rows},
            "clean": {r.method: r.clean.tolist() for r in rows},
        }
        tables.append(
            f"## {task}\n\n{seconds:.0f} s on {executor}; mean ± s.d. over devices and seeds\n\n"
        )
        tables.append(markdown(["method (cost)", "clean", *map(str, SIGMAS)], cells) + "\n")
        if own:
            published = np.array([d.published["lenet_mnist_accuracy"] for d in devices])
            lines, agreement = [], {}
            for r in rows:
                for law, part in (
                    ("sigma and rho", r.scores[k : k + 43]),
                    ("sigma only", r.scores[k + 43 :]),
                ):
                    mine = part.mean((1, 2))
                    rho = float(spearmanr(mine, published).statistic)
                    gap = float(np.abs(mine - published).mean())
                    agreement[f"{r.method}, {law}"] = {
                        "spearman": rho,
                        "mean_abs_difference": gap,
                        "accuracy": mine.tolist(),
                    }
                    lines.append([r.method, law, f"{rho:+.3f}", f"{gap:.3f}"])
            entry["published_lenet_column"] = agreement
            tables.append(
                "Against the published LeNet / MNIST accuracy of each of the 43 devices:\n\n"
            )
            tables.append(
                markdown(["method", "law", "Spearman", "mean absolute difference"], lines) + "\n"
            )
        out[task] = entry
    save("lenet", out, "".join(tables))


if __name__ == "__main__":
    main()
