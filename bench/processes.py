"""What two processes of one training take against one, on this machine's cores, and whether steps are the same.

    python bench/processes.py [--repeats 5]

One process on one thread and two processes on one thread each take turns in every repeat. A repeat trains the
network for three epochs; the first, with its start-up, is left out. The others are timed on the wall, and in
CPU seconds of all processes, which other work on the machine disturbs less: what two processes take together
over what one takes says how much is done twice, and half of it is the best that idle cores could reach. Data
are random images; a step is 64 of them with log-normal weight noise, forward, backward and Adam. GPUs are not
measured, nor is one process on two threads, the usual choice on a CPU: its threads wait actively for each other
where other work has the cores.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from _common import markdown, middle, save
from ohmloop.crossbar import Hardware
from ohmloop.nn import analogize
from ohmloop.progress import ProgressEvent
from ohmloop.tasks import Split, build_model
from ohmloop.train import Lesson, Noise, Recipe, train_once
from ohmloop.train._team import Team

NETWORKS = ("cnn", "resnet8")
STEPS = 8
BATCH = 64
RECIPE = Recipe(epochs=3, batch_size=BATCH, lr=1e-3, seed=0)
NOISE = Noise(level=0.3, distribution="lognormal")
CASES = ("one process", "two processes")

History = list[dict[str, float]]


def lesson() -> Lesson:
    """Return random images; few are watched after an epoch, so that scoring costs nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS * BATCH, 3, 32, 32, generator=generator)
    y = torch.randint(0, 10, (len(x),), generator=generator)
    return Lesson(Split(x, y), Split(x[:8], y[:8]))


def network(name: str) -> nn.Module:
    hardware = Hardware.model_validate({"device": "lognormal:0.3"})
    return analogize(build_model(name, (3, 32, 32), 10, 0), hardware)


class Step(NamedTuple):
    """Seconds of a step, on the wall and of all CPUs, and the last loss."""

    wall: float
    cpu: float
    loss: float


def cpu_seconds() -> float:
    """Return what this process and those that it started have computed."""
    tick = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / tick  # user, system
    return total


def timed(train: Callable[[Callable[[ProgressEvent], None]], History]) -> Step:
    """Time the steps of all epochs but the first."""
    ends: list[tuple[float, float]] = []
    history = train(lambda event: ends.append((time.perf_counter(), cpu_seconds())))
    n = STEPS * (len(ends) - 1)
    wall, cpu = ((late - early) / n for early, late in zip(ends[0], ends[-1], strict=True))
    return Step(wall, cpu, history[-1]["loss"])


def measured(name: str, repeats: int) -> dict[str, Any]:
    """Train a network in each case, in turn."""
    given = lesson()

    def alone() -> Step:
        return timed(lambda told: train_once(network(name), given, NOISE, RECIPE, progress=told))

    def together(team: Team) -> Step:
        return timed(
            lambda told: team.train(
                network(name),
                given,
                NOISE,
                RECIPE,
                chips=None,
                until=None,
                folder=None,
                label="train",
                progress=told,
            )
        )

    steps: dict[str, list[Step]] = {case: [] for case in CASES}
    torch.set_num_threads(1)  # The team's processes have one each at least.
    with Team(2, "cpu") as team:
        together(team)
        for k in range(repeats):
            print(f"{name}, repeat {k + 1} of {repeats} ...", file=sys.stderr, flush=True)
            for case, step in zip(CASES, (alone(), together(team)), strict=True):
                steps[case].append(step)
    return {
        "network": name,
        "parameters": sum(p.numel() for p in network(name).parameters()),
        "steps": {case: [step._asdict() for step in found] for case, found in steps.items()},
    }


def table(value: dict[str, Any]) -> str:
    rows = []
    for found in value["networks"]:
        one, two = (found["steps"][case] for case in CASES)
        pairs = list(zip(one, two, strict=True))
        rows.append(
            [
                found["network"],
                f"{found['parameters']:,}",
                *(middle([1e3 * step["wall"] for step in steps]) for steps in (one, two)),
                middle([b["wall"] / a["wall"] for a, b in pairs]),
                middle([b["cpu"] / a["cpu"] for a, b in pairs]),
                f"{max(abs(b['loss'] / a['loss'] - 1) for a, b in pairs):.1e}",
            ]
        )
    header = (
        *("network", "parameters", "one process / ms", "two processes / ms", "wall, two over one"),
        *("CPU, both over one", "largest relative difference of the last loss"),
    )
    return (
        "# Several processes in one training\n\n"
        f"A step of {BATCH} random 32 x 32 images with log-normal weight noise, on CPUs, one thread a process: "
        f"median (smallest to largest) of {value['repeats']} repeats, cases in turn; ratios are taken within a "
        "repeat. Two processes exchange gradients, and batch norm's statistics where a network has it, through "
        f"gloo. Other work ran beside: load {value['load_before']:.1f} before and {value['load_after']:.1f} "
        f"after on {os.cpu_count()} cores, some of it at lower priority. Times on the wall say little then; "
        "CPU seconds of both processes over those of one say what is done twice, and half of that is the best "
        "that idle cores could reach on the wall.\n\n" + markdown(header, rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    before = os.getloadavg()[0]
    networks = [measured(name, args.repeats) for name in NETWORKS]
    value = {"repeats": args.repeats, "steps": STEPS, "batch": BATCH, "networks": networks}
    value |= {"load_before": before, "load_after": os.getloadavg()[0]}
    save("processes", value, table(value))


if __name__ == "__main__":
    main()
