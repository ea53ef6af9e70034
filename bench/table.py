"""One table of how fast ohmloop is, from what other benchmarks wrote; peers stand beside where there are some.

    python bench/table.py [--results FOLDER]

Nothing is measured here. Medians, with the range over repeats; a benchmark that was not run is named with its
command, a peer that was left out with the reason. Writes ``how-fast.md`` and ``how-fast.json``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from _common import RESULTS, markdown, save

Record = dict[str, Any]


class Row(NamedTuple):
    """One line: what, ohmloop's figure, and others' on the same work."""

    what: str
    ours: str
    others: str = "-"


def spread(values: Sequence[float], unit: str, scale: float = 1.0) -> str:
    """Return median and range with a unit, "2.4 (2.2 to 2.7) s".

    >>> spread([0.0021, 0.0024, 0.0023], "ms", 1e3)
    '2.3 (2.1 to 2.4) ms'
    """
    every = [scale * float(x) for x in (np.median(values), min(values), max(values))]
    shown = [f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in every]
    return f"{shown[0]} ({shown[1]} to {shown[2]}) {unit}"


def fleets(record: Record) -> list[Row]:
    rows = []
    for name, case in record.items():
        if isinstance(case, dict) and "ratios" in case:
            rate = [record["n_devices"] / t for t in case["seconds"]["fleet"]]
            loops = ", ".join(
                f"a {kind} loop over copies takes {spread(ratios, 'times')}"
                for kind, ratios in case["ratios"].items()
            )
            rows.append(Row(f"fleet, {name}", f"{spread(rate, 'devices/s')} on the wall", loops))
    return rows


def layers(record: Record) -> list[Row]:
    left = [f"{tool} left out ({reason})" for tool, reason in record["left_out"].items()]
    own, peers = record["seconds"]["ohmloop"], dict(record["seconds"])
    del peers["ohmloop"]

    def over(times: Record) -> list[float]:
        return [a / b for a, b in zip(times["step"], times["plain"], strict=True)]

    fleet = [f"{tool} {spread(t['fleet'], 'ms', 1e3)}" for tool, t in peers.items()]
    step = [f"{tool} {spread(over(t), 'x')}" for tool, t in peers.items() if t["step"]]
    return [
        Row(
            "100 devices of a perceptron, CPU",
            spread(own["fleet"], "ms", 1e3),
            "; ".join(fleet + left),
        ),
        Row(
            "its training step with noise over plain torch",
            spread(over(own), "x"),
            "; ".join(step + left),
        ),
    ]


def overhead(record: Record) -> list[Row]:
    ratios = record["training"]["ratios"]
    rows = [
        Row(f"training step of ResNet-8, {name}, over plain torch", spread(values, "x"))
        for name, values in ratios.items()
    ]
    fleet = record["fleet"]
    before, peak = (fleet[key] / 2**30 for key in ("before_bytes", "peak_bytes"))
    what = f"peak memory: 100 chips of {fleet['parameters']:,} parameters"
    return [*rows, Row(what, f"{peak:.2f} GiB, {before:.2f} before (once)")]


def wires(record: Record) -> list[Row]:
    rows = []
    for name, case in list(record["exact"].items())[-2:]:
        others = []
        if "ratios" in case:
            others.append(f"badcrossbar takes {spread(case['ratios'], 'times')}")
            kib = np.median(case["badcrossbar"]["kib"]) / 1024
            others.append(f"{kib:.0f} MiB")
        size = f"{np.median(case['ohmloop']['kib']) / 1024:.0f} MiB"
        ours = f"{spread(case['ohmloop']['cpu'], 'ms', 1e3)}, {size}"
        rows.append(Row(f"exact wires, {name}, CPU", ours, ", ".join(others) or "left out"))
    return rows


def suggestions(record: Record) -> list[Row]:
    rows = []
    for size, own in record["seconds"]["ohmloop"].items():
        others = [
            f"{tool} {spread(times[size], 's')}" if times.get(size) else f"{tool} none in time"
            for tool, times in record["seconds"].items()
            if tool != "ohmloop" and times
        ]
        others += [f"{tool} left out (no environment)" for tool in record["left_out"]]
        what = f"a batch of 4 suggestions after {size} observations, CPU"
        rows.append(Row(what, spread(own, "s"), "; ".join(others)))
    return rows


def scaled(record: Record) -> list[Row]:
    rows = []
    for key in ("certificate", "fleet-arrays", "program", "transfer", "open", "append"):
        if key not in record["cases"]:
            continue
        case = record["cases"][key]
        run = case["runs"][-1]
        at = ", ".join(f"{name} = {value:,}" for name, value in run["variables"].items())
        rows.append(
            Row(f"{case['name']}: {at}, {case['clock']}", spread(run["seconds"], "ms", 1e3))
        )
    return rows


def started(record: Record) -> list[Row]:
    rows = []
    for name, runs in record["runs"].items():
        wall, size = [r["wall"] for r in runs], [r["bytes"] for r in runs]
        memory = f"{np.median(size) / 2**20:.0f} MiB"
        rows.append(Row(f"start: {name}", f"{spread(wall, 's')} on the wall, {memory}"))
    return rows


SOURCES: dict[str, Callable[[Record], list[Row]]] = {
    "fleet": fleets,
    "layers": layers,
    "overhead": overhead,
    "wires": wires,
    "suggest": suggestions,
    "scaling": scaled,
    "startup": started,
}


def rows(folder: Path) -> list[Row]:
    """Return all lines that the folder has figures for, and one for each benchmark that was not run."""
    out = []
    for name, read in SOURCES.items():
        path = folder / f"{name}.json"
        if path.exists():
            out += read(json.loads(path.read_text(encoding="utf-8")))
        else:
            out.append(Row(name, f"not measured: `python bench/{name}.py`"))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    if not folder.is_dir():
        sys.exit(f"{folder} is no folder")
    found = rows(folder)
    table = markdown(["what", "ohmloop", "beside it"], found)
    save("how-fast", {"rows": [row._asdict() for row in found]}, table, folder)


if __name__ == "__main__":
    main()
