"""What carries a pretrained network that imperfect devices ruin, and at how many cells.

Networks as they come, no training. Rows: what a device gets beside its weights. `arrays=m` holds every layer
on m arrays whose outputs are averaged; `cells=c` spends c times the cells on layers by what their errors do to
the outputs (`ohmloop.nn.allocate_arrays`). Devices are simulated: log-normal drift of every analog
weight. The division and each device see unlabelled training inputs; scores are of test data. Rows with digital
depthwise convolutions keep these out of the arrays.

    python bench/cells.py [--only birds965-small] [--data FOLDER] [--devices 5]
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from _common import RESULTS, markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.errors import OhmloopError
from ohmloop.nn import Deployment, allocate_arrays, analog_parameters, analogize, evaluate_fleets
from ohmloop.report._style import COLOURS, new_figure, styled_axes, to_svg
from ohmloop.tasks import Split, Task, task
from ohmloop.train import unlabelled_inputs

AVERAGED = ("channel", *(f"channel:{w}" for w in ("arrays=2", "arrays=4", "arrays=8", "arrays=16")))
DIVIDED = tuple(f"channel:cells={c}" for c in ("1.25", "1.5", "2", "4", "8"))


class Case(NamedTuple):
    """A network, and what is tried on it."""

    task: str
    sigmas: tuple[float, ...]
    test: int
    deployments: tuple[str, ...]
    digital: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    """Of these two devices only."""


CASES = (
    Case(
        "birds965-small",
        (0.2, 0.4, 0.587),
        100,
        ("none", *AVERAGED, "none:arrays=16,mean_gain=true", *DIVIDED),
        digital=("channel", "channel:arrays=4", "channel:cells=2"),
        slow=("channel:adapter_rank=4,adapter_steps=20",),
    ),
    Case("vl-retrieval", (0.2, 0.4, 0.587), 80, ("none", *AVERAGED[:3], *DIVIDED[2:])),
    Case(
        "lm", (0.2, 0.4), 12, ("channel", "channel:arrays=4", "channel:cells=2", "channel:cells=4")
    ),
)


def is_analog(name: str, module: nn.Module) -> bool:
    """Whether a layer is a matrix or a convolution that is not depthwise."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def measured(case: Case, chosen: Task, n_devices: int) -> dict[str, object]:
    train, _ = chosen.development(0, 500 if case.task == "vl-retrieval" else None)
    test = chosen.test(0, None)
    order = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))
    keep = order[: case.test].sort().values
    test = Split(test.x[keep], test.y[keep])
    network = chosen.model(chosen.default_model)
    hardwares = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in case.sigmas]
    every = analog_parameters(analogize(copy.deepcopy(network), hardwares[0])).values()
    weights = sum(p.numel() for p in every)
    plan = [
        *((text, False, n_devices) for text in case.deployments),
        *((text, True, n_devices) for text in case.digital),
        *((text, False, min(2, n_devices)) for text in case.slow),
    ]
    rows = []
    for text, is_digital, devices in plan:
        deployment = Deployment.parse(text)
        model = analogize(
            copy.deepcopy(network), hardwares[0], where=is_analog if is_digital else None
        ).eval()
        inputs = unlabelled_inputs(train, 0, deployment.samples)
        begin = time.monotonic()
        spread = allocate_arrays(model, deployment, inputs)
        divided = time.monotonic() - begin
        fleets = evaluate_fleets(
            model,
            test,
            hardwares,
            n_devices=devices,
            seed=7,
            metric=chosen.metric,
            deployment=spread,
            unlabelled=inputs,
        )
        sizes = {n: p.numel() for n, p in analog_parameters(model).items()}
        cells = sum(n * spread.arrays_of(name.rpartition(".")[0]) for name, n in sizes.items())
        counts = [spread.arrays_of(name.rpartition(".")[0]) for name in sizes]
        rows.append(
            {
                "deployment": text,
                "depthwise": "digital" if is_digital else "analog",
                "cells": cells / weights,
                "arrays": [min(counts), max(counts)],
                "layer_arrays": dict(spread.layer_arrays),
                "n_devices": devices,
                "samples": deployment.samples if deployment.sees_inputs else 0,
                "digital": fleets[0].digital,
                "scores": [f.scores.tolist() for f in fleets],
                "mean": [f.mean for f in fleets],
                "std": [f.std for f in fleets],
                "seconds_to_divide": divided,
                "seconds_a_device": (time.monotonic() - begin - divided) / devices / len(fleets),
            }
        )
        print(text, is_digital, [round(f.mean, 3) for f in fleets], flush=True)
    return {
        "sigmas": case.sigmas,
        "test": len(keep),
        "weights": weights,
        "metric": chosen.metric.name,
        "rows": rows,
    }


def table(found: dict[str, dict[str, object]]) -> str:
    text = []
    for name, case in found.items():
        sigmas, rows = case["sigmas"], case["rows"]
        assert isinstance(sigmas, list | tuple)
        assert isinstance(rows, list)
        head = ["deployment", "depthwise", "cells", "arrays a layer", "devices"]
        head += [*(f"sigma {s:g}" for s in sigmas), "s a device", "s to divide"]
        cells = [
            [
                f"`{row['deployment']}`",
                row["depthwise"],
                f"{row['cells']:.2f}",
                "–".join(str(m) for m in sorted(set(row["arrays"]))),
                str(row["n_devices"]),
                *(f"{m:.3g} ± {s:.2g}" for m, s in zip(row["mean"], row["std"], strict=True)),
                f"{row['seconds_a_device']:.1f}",
                f"{row['seconds_to_divide']:.0f}" if row["seconds_to_divide"] > 0.5 else "–",
            ]
            for row in rows
        ]
        text.append(
            f"### {name}\n\n{case['metric']} on {case['test']} test inputs, mean ± s.d. over devices; without "
            f"noise {rows[0]['digital']:.3g}. {case['weights']:,} weights. *cells*: over one array of each. "
            f"*s a device*: corrections and {case['test']} test inputs, on cores shared with other work.\n\n"
            f"{markdown(head, cells)}"
        )
    return "\n".join(text)


def picture(found: dict[str, Any]) -> None:
    """Draw what cells bring at the largest sigma, spread evenly and divided."""
    figure = new_figure()
    axes = styled_axes(figure)
    for k, (name, case) in enumerate(found.items()):
        for marker, line, word in (("o", "--", "arrays"), ("s", "-", "cells")):
            rows = [
                row
                for row in case["rows"]
                if row["depthwise"] == "analog"
                and (
                    row["deployment"] == "channel"
                    or row["deployment"].startswith(f"channel:{word}=")
                )
            ]
            rows.sort(key=lambda row: row["cells"])
            how = "spread evenly" if word == "arrays" else "divided among layers"
            axes.errorbar(
                [row["cells"] for row in rows],
                [row["mean"][-1] for row in rows],
                [row["std"][-1] for row in rows],
                fmt=marker + line,
                color=COLOURS[k],
                label=f"{name}, {how}",
                markersize=4,
                capsize=2,
            )
        axes.axhline(case["rows"][0]["digital"], color=COLOURS[k], linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    ticks = [1, 1.25, 1.5, 2, 4, 8, 16]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("cells, over one array of each layer (dotted: without noise)")
    axes.set_ylabel("test accuracy at sigma .587 (simulated devices)")
    axes.set_title("Pretrained networks as they come, corrected by channel")
    axes.legend(fontsize=8)
    path = RESULTS / "cells.svg"
    path.write_text(to_svg(figure, "Accuracy against cells") + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="only these networks, separated by commas; others are kept")
    parser.add_argument("--data", type=Path, help="folder of data sets that no package brings")
    parser.add_argument("--devices", type=int, default=5)
    args = parser.parse_args()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
    data = args.data or (beside if beside.exists() else None)
    kept = RESULTS / "cells.json"
    found = {}
    if args.only and kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))["cases"]
    wanted = args.only.split(",") if args.only else [case.task for case in CASES]
    for case in CASES:
        if case.task not in wanted:
            continue
        try:
            chosen = task(case.task, folder=data if case.task.startswith("birds") else None)
            found[case.task] = measured(case, chosen, args.devices)
        except OhmloopError as error:
            print(f"{case.task}: skipped: {error}")
            continue
        found = {c.task: found[c.task] for c in CASES if c.task in found}
        save("cells", {"cases": found}, table(found))
        picture({name: case for name, case in found.items() if case["metric"] == "accuracy"})


if __name__ == "__main__":
    main()
