"""Deep networks: whether the search layer by layer pays there, and what it costs.

Five ways to spend four plain trainings on a network, all with the same start and batches: plain training;
noise of one fixed level on all layers; that level tuned (a grid of four, plain training among them, and two
proposals); the whole search of `steady` (the grid, and five proposals of level, depth slope, first and last
layer, mixture, clipping); and `steady` without a search, whose noise grows. What a search spends is taken from
the training of the network that is kept. Objectives see validation data on devices of both sigmas, after the
readout that devices get; tests use other devices and the test images. The pretrained pair teaches its own
forks, plain training aside. Devices are simulated: log-normal drift of every analog weight and bias.

    python bench/deep.py                     # one core, about four hours
    python bench/deep.py --full --compute cuda
    python bench/deep.py --report            # the tables of what is finished so far

Each training is kept when it is done; a study that was stopped goes on, and reports the seeds that are whole.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _common import markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.train import compare

CACHE = Path(__file__).parent / ".cache" / "deep"
SIGMAS = (0.2, 0.587)
NOISY = ("fixed level", "tuned level", "layer by layer")
WAYS = (*NOISY, "plain", "growing level")
"""In the order in which a seed is worked off; a seed is whole with the noisy ones."""


@dataclass(frozen=True)
class Network:
    """One network and how it is trained.

    Attributes:
        task: What it learns.
        model: One of the task's.
        limit: Development images, a fifth of which validates; None for all 50,000.
        epochs: Of one plain training.
        deployments: What devices get beside their weights; one column each. The last is that of objectives.
        seeds: Training seeds, 0 and up.
        n_devices: Devices of each sigma and seed in the test.
        test_limit: Test images; None for all.
        passes: Of a step under noise: two where pretrained batch norm is matched.
    """

    task: str
    model: str
    limit: int | None
    epochs: int
    deployments: tuple[str, ...]
    seeds: int
    n_devices: int
    test_limit: int | None
    passes: int = 1


@dataclass(frozen=True)
class Study:
    """A setting of the whole study.

    Attributes:
        name: Of its results and of its cache.
        networks: Compared one by one.
        n_draws: Devices of each sigma in an objective.
    """

    name: str
    networks: tuple[Network, ...]
    n_draws: int


PLAIN = ("none", "readout")
NORMED = ("none", "batch-norm", "readout")
PRETRAINED = ("none", "channel", "readout")
QUICK = Study(
    "deep",
    (
        Network("cifar10", "resnet8", 2_500, 10, NORMED, seeds=2, n_devices=10, test_limit=300),
        Network("cifar10", "vit", 1_500, 10, PLAIN, seeds=2, n_devices=10, test_limit=300),
        Network("cifar10", "resnet18", 1_000, 5, NORMED, seeds=1, n_devices=5, test_limit=200),
        Network("vl-retrieval", "lite0-minilm", 500, 4, PRETRAINED, 1, 3, 100, passes=2),
    ),
    n_draws=4,
)
FULL = Study(
    "deep-full",
    (
        Network("cifar10", "resnet18", None, 30, NORMED, seeds=3, n_devices=30, test_limit=None),
        Network("cifar10", "vit", None, 30, PLAIN, seeds=3, n_devices=30, test_limit=None),
        Network("vl-retrieval", "lite0-minilm", None, 10, PRETRAINED, 3, 30, None, passes=2),
    ),
    n_draws=10,
)


def method(way: str, study: Study, network: Network) -> tuple[str, int]:
    """Return a way's method, and the epochs that `compare` gives it."""
    draws = f"n_draws={study.n_draws}"
    return {
        "plain": ("erm", 4 * network.epochs),
        "growing level": ("steady", network.epochs),
        "fixed level": (
            f"steady:strength=1.25,ramp=0,length={4 // network.passes}",
            network.epochs,
        ),
        "tuned level": (
            f"steady:search=true,slope=0,first=1,last=1,mixture=0,clip=0,{draws}",
            network.epochs,
        ),
        "layer by layer": (f"steady:search=true,n_trials=9,{draws}", network.epochs),
    }[way]


def kept(study: Study, network: Network, way: str, seed: int) -> Path:
    return CACHE / study.name / f"{network.model}-{way.replace(' ', '-')}-{seed}.json"


def work(study: Study, network: Network, way: str, seed: int, compute: str) -> None:
    """Train and test once, if that is not done, and keep what came out."""
    path = kept(study, network, way, seed)
    if path.exists():
        return
    start, busy = time.monotonic(), time.process_time()
    levels = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in SIGMAS]
    rows = compare(
        network.task,
        [method(way, study, network)],
        levels,
        deployments=network.deployments,
        objective=levels,
        seeds=[seed],
        n_devices=network.n_devices,
        epochs=network.epochs,
        model=network.model,
        limit=network.limit,
        test_limit=network.test_limit,
        device=compute,
        run_dir=path.with_suffix(""),
    )
    found = {
        "method": rows[0].method,
        "cost": rows[0].cost,
        "clean": float(rows[0].clean[0]),
        "scores": {r.deployment: r.scores[:, 0].tolist() for r in rows},
        "settings": rows[0].settings[0],
        "rank_correlation": rows[0].rank_correlations[0],
        "seconds": time.monotonic() - start,
        "processor_seconds": time.process_time() - busy,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    part.replace(path)
    print(f"{network.model}, {way}, seed {seed}: {found['seconds']:.0f} s", flush=True)


def collect(study: Study, network: Network) -> tuple[list[int], dict[str, list[dict[str, Any]]]]:
    """Return the seeds that are whole, in order from 0, and each way's results for them."""
    seeds = []
    for seed in range(network.seeds):
        if not all(kept(study, network, way, seed).exists() for way in NOISY):
            break
        seeds.append(seed)
    return seeds, {
        way: [
            json.loads(kept(study, network, way, seed).read_text(encoding="utf-8"))
            for seed in seeds
        ]
        for way in WAYS
        if all(kept(study, network, way, seed).exists() for seed in seeds)
    }


def means(runs: list[dict[str, Any]], deployment: str) -> np.ndarray:
    """Return mean scores, sigmas x seeds."""
    return np.array([np.mean(run["scores"][deployment], axis=1) for run in runs]).T


def spread(values: np.ndarray) -> str:
    """Return a mean with the standard deviation of seeds, if there are several."""
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def section(study: Study, network: Network) -> tuple[str, dict[str, Any]]:
    """Return one network's part of the report, and what it holds in numbers."""
    seeds, found = collect(study, network)
    images = f"{network.limit:,}" if network.limit else "all"
    head = (
        f"## {network.model}, {network.task}: {images} development images, {network.epochs} epochs a "
        f"training, {network.n_devices} devices, {network.test_limit or 'all'} test images\n\n"
    )
    if not seeds:
        return head + "No seed is finished.\n", {"seeds": []}
    table = []
    for way, runs in found.items():
        cells = [
            spread(means(runs, deployment)[k])
            for deployment in network.deployments
            for k in range(len(SIGMAS))
        ]
        clean = spread(np.array([run["clean"] for run in runs]))
        cost, seconds = (
            np.mean([run[key] for run in runs]) for key in ("cost", "processor_seconds")
        )
        table.append([way, f"{cost:.1f}", f"{seconds:.0f}", clean, *cells])
    columns = [f"{d}, {s:g}" for d in network.deployments for s in SIGMAS]
    done = f"Seeds finished, of {network.seeds}: {', '.join(map(str, seeds))}."
    if missing := [way for way in WAYS if way not in found]:
        done += f" Not finished: {', '.join(missing)}."
    text = [
        head + done + "\n",
        markdown(["way", "cost", "processor s", "clean", *columns], table),
        *(f"* {line}" for line in readings(found, network.deployments[-1])),
    ]
    return "\n".join(text) + "\n", {"seeds": seeds, "runs": found}


def readings(found: dict[str, list[dict[str, Any]]], deployment: str) -> list[str]:
    """Return differences of corrected devices, seed by seed, and what searches chose, in sentences."""
    lines = []
    ours = means(found["layer by layer"], deployment)
    for other in (way for way in found if way != "layer by layer"):
        gap = ours - means(found[other], deployment)
        words = "; ".join(
            f"at {sigma:g} {spread(part)} ({', '.join(f'{g:+.3f}' for g in part)})"
            for sigma, part in zip(SIGMAS, gap, strict=True)
        )
        lines.append(f"layer by layer minus {other}, with {deployment} (seed by seed): {words}")
    for way in NOISY[1:]:
        chosen = " | ".join(run["settings"] for run in found[way])
        ranks = " | ".join(
            ", ".join(f"{name} {rho:+.2f}" for name, (rho, _) in run["rank_correlation"].items())
            or "none"
            for run in found[way]
        )
        lines.append(f"{way}: chosen {chosen}; rank correlation of rounds {ranks}")
    return lines


def report(study: Study) -> None:
    """Write the tables of what is finished."""
    head = (
        f"# Deep networks ({study.name})\n\n"
        f"Test accuracy at sigma {' and '.join(f'{s:g}' for s in SIGMAS)} (simulated), mean over seeds x "
        "devices ± standard deviation of seeds. "
        "`cost` in plain trainings (passes over the training data); the processor's seconds include what "
        "searches spend on judging, and the test.\n\n"
    )
    parts, numbers = [], {}
    for network in study.networks:
        text, numbers[network.model] = section(study, network)
        parts.append(text)
    save(study.name, {"sigmas": SIGMAS, "networks": numbers}, head + "\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="ResNet-18 and all images: for a GPU")
    parser.add_argument("--report", action="store_true", help="only write what is finished")
    parser.add_argument("--networks", help="only these, separated by commas; the report has all")
    parser.add_argument("--ways", help="only these, separated by commas")
    parser.add_argument("--compute", default="cpu")
    args = parser.parse_args()
    study = FULL if args.full else QUICK
    ways = args.ways.split(",") if args.ways else WAYS
    if unknown := [way for way in ways if way not in WAYS]:
        parser.error(f"no way {', '.join(unknown)}; one of {', '.join(WAYS)}")
    names = [network.model for network in study.networks]
    asked = args.networks.split(",") if args.networks else names
    if unknown := [name for name in asked if name not in names]:
        parser.error(f"no network {', '.join(unknown)}; one of {', '.join(names)}")
    for network in study.networks if not args.report else ():
        if network.model not in asked:
            continue
        for seed in range(network.seeds):
            for way in ways:
                work(study, network, way, seed, args.compute)
    report(study)


if __name__ == "__main__":
    main()
