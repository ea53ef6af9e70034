"""What a change costs on the CPU: every hot path of an earlier revision and of this checkout, in turn.

    python bench/before_after.py [--base HEAD~1] [--repeats 5] [--only fleet,step,...] [--out FOLDER]

The earlier revision's package is unpacked into a temporary folder (`git archive`: the checkout is not touched).
Each repeat starts two processes with one thread, one for each revision, before and after in changing order, on
the same data and seeds. Each takes the least CPU seconds of two runs of a path, imports and a first run
excluded: CPU seconds and the least of them, because other work may run beside; what that does to caches stays
in the numbers. Ratios are after over before, of the two processes of a repeat: median and range. A path
is "slower" where the median is above 1.05 and the range is clear of 1. This script times both, so it must know
public functions only that both have.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from _common import RESULTS, markdown, middle, save

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1.05
"""Median ratio above which a path is slower, where all ratios are above 1."""
RUNS = 2


def _mlp() -> Any:
    import torch
    from torch import nn

    from ohmloop.crossbar import Hardware
    from ohmloop.nn import analogize

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    return analogize(model.eval(), Hardware.model_validate({"device": "lognormal:0.3"}))


def _data(n: int, *shape: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *shape, generator=generator)
    return x, torch.randint(0, 10, (n,), generator=generator)


def fleet() -> Callable[[], object]:
    """100 devices of a perceptron on 360 inputs."""
    from ohmloop.nn import evaluate_fleet

    model, split = _mlp(), _data(360, 64)
    return lambda: evaluate_fleet(model, split, n_devices=100)


def fleet_convolutions() -> Callable[[], object]:
    """10 devices of LeNet on 200 inputs of 28 x 28."""
    from ohmloop.crossbar import Hardware
    from ohmloop.nn import analogize, evaluate_fleet
    from ohmloop.tasks import build_model

    law = Hardware.model_validate({"device": "lognormal:0.3"})
    model = analogize(build_model("lenet", (1, 28, 28), 10, 0), law).eval()
    split = _data(200, 1, 28, 28)
    return lambda: evaluate_fleet(model, split, n_devices=10)


def step() -> Callable[[], object]:
    """50 training steps of 64 inputs under weight noise of a spread level, with clipping."""
    import torch

    from ohmloop.tasks import Split
    from ohmloop.train import Noise
    from ohmloop.train._loop import Lesson, Recipe, train_once

    split = Split(*_data(3200, 64))
    watched = Split(split.x[:10], split.y[:10])
    noise = Noise(level=0.3, spread=0.2, clip=2.5)
    recipe = Recipe(epochs=1, batch_size=64, lr=1e-3, seed=0)

    def run() -> None:
        model = _mlp()
        torch.manual_seed(0)
        train_once(model, Lesson(split, watched), noise, recipe)

    return run


def _wires(n: int, vectors: int) -> Callable[[], object]:
    import torch

    from ohmloop.crossbar import Wires, solve

    rng = np.random.default_rng(0)
    g = torch.from_numpy(1e-4 * 10 ** rng.uniform(-2, 0, (n, n)))
    v = torch.from_numpy(rng.uniform(0, 1, (vectors, n)))
    ohms = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)
    return lambda: solve(g, v, ohms)


def wires() -> Callable[[], object]:
    """Exact wires, 256 x 256, 1 input."""
    return _wires(256, 1)


def wires_32() -> Callable[[], object]:
    """Exact wires, 128 x 128, 32 inputs."""
    return _wires(128, 32)


def suggest() -> Callable[[], object]:
    """A suggestion after 25 trials, ten mixed variables, two objectives and failures."""
    from ohmloop import bo
    from suggest import PROBLEM, laboratory

    seen = [
        bo.Observation(
            point=t["point"],
            stages={"works": (int(t["works"]), int(not t["works"]))},
            values={k: (t[k],) for k in ("usability", "energy")} if t["works"] else {},
        )
        for t in laboratory(25, 0)
    ]
    seeds = iter(range(100))  # a fit is kept: each run gets another seed
    return lambda: bo.suggest(PROBLEM, seen, 1, seed=next(seeds))


def certificate() -> Callable[[], object]:
    """Yield, percentile and drift from 200 devices on 200 inputs."""
    from ohmloop.certify import certify

    model, split = _mlp(), _data(200, 64)
    return lambda: certify(model, split, n_devices=200)


PATHS: dict[str, Callable[[], Callable[[], object]]] = {
    "fleet": fleet,
    "fleet-convolutions": fleet_convolutions,
    "step": step,
    "wires": wires,
    "wires-32": wires_32,
    "suggest": suggest,
    "certificate": certificate,
}


def timed(names: list[str]) -> dict[str, float]:
    """Return the CPU seconds of each path in this process."""
    import torch

    torch.set_num_threads(1)
    out = {}
    for name in names:
        run = PATHS[name]()
        run()
        seconds = []
        for _ in range(RUNS):
            began = time.process_time()
            run()
            seconds.append(time.process_time() - began)
        out[name] = min(seconds)
    return out


def unpack(base: str, folder: Path) -> str:
    """Unpack a revision's package and return the revision's hash."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", base], check=True, capture_output=True, text=True
    ).stdout.strip()
    packed = subprocess.run([*git, "archive", found, "src"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return found


def process(source: Path, names: list[str]) -> dict[str, float]:
    """Time the paths of one revision in a process of its own."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(source), str(ROOT / "bench")]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, "--here", ",".join(names)]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    if Path(told["package"]).resolve() != (source / "ohmloop").resolve():
        raise RuntimeError(f"timed {told['package']}, not {source / 'ohmloop'}")
    return dict(told["seconds"])


def compared(base: Path, names: list[str], repeats: int) -> dict[str, Any]:
    """Return the CPU seconds before and after of each path, and their ratios."""
    out: dict[str, Any] = {name: {"before": [], "after": []} for name in names}
    for k in range(repeats):
        turns = [("before", base), ("after", ROOT / "src")]
        for side, source in turns if k % 2 == 0 else turns[::-1]:
            for name, seconds in process(source, names).items():
                out[name][side].append(seconds)
        print(f"{k + 1} of {repeats}", file=sys.stderr, flush=True)
    for record in out.values():
        pairs = zip(record["before"], record["after"], strict=True)
        record["ratios"] = [after / before for before, after in pairs]
        record["slower"] = (
            float(np.median(record["ratios"])) > LIMIT and min(record["ratios"]) > 1.0
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="HEAD~1", help="revision to compare with")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="paths, by comma: " + ", ".join(PATHS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        import ohmloop

        seconds = timed(options.here.split(","))
        print(json.dumps({"package": str(Path(ohmloop.__file__).parent), "seconds": seconds}))
        return
    names = options.only.split(",") if options.only else list(PATHS)
    unknown = sorted(set(names) - set(PATHS))
    if unknown:
        parser.error(f"no path {', '.join(unknown)}; there are {', '.join(PATHS)}")
    with tempfile.TemporaryDirectory() as folder:
        revision = unpack(options.base, Path(folder))
        found = compared(Path(folder) / "src", names, options.repeats)
    load = os.getloadavg()[1]
    rows = [
        [
            str(PATHS[name].__doc__).rstrip("."),
            f"{1e3 * np.median(record['before']):.1f} ms",
            f"{1e3 * np.median(record['after']):.1f} ms",
            middle(record["ratios"]),
            "slower" if record["slower"] else "no",
        ]
        for name, record in found.items()
    ]
    head = ["path", "before", "after", "after / before", "slower?"]
    text = f"# Before and after\n\n{__doc__}\nBefore: {revision[:12]}. {options.repeats} repeats, "
    text += f"{load:.1f} runnable processes on {os.cpu_count()} cores at the end.\n\n"
    record = {"base": revision, "load": load, "paths": found}
    save("before-after", record, text + markdown(head, rows), options.out)


if __name__ == "__main__":
    main()
