"""Wire resistance: exact solution against badcrossbar and ngspice, transfer matrices, the cheap stand-in.

    python bench/wires.py [--sizes 64,128,256,512] [--repeats 3] [--spice 64]

Random arrays, conductances log-uniform from 1 to 100 microsiemens, inputs uniform in 0 to 1 V, 1 ohm for
each segment, driver and sense amplifier. Every tool solves the same array in a process of its own with
one thread, in turn, ``repeats`` times; seconds are CPU seconds (other work may run beside), imports,
files and a first small solution excluded. badcrossbar returns column currents only, its cheapest mode, and
runs in the environment that ``bench/peers/setup badcrossbar`` makes; ngspice starts from the netlist
(parsing is part of what it does), computes one input vector, and is left out beyond ``--spice``. Ratios are
of neighbouring runs: median (range). Memory (MB) is the growth of resident memory during the first
solution of that size; differences are of column currents, relative to the largest.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import markdown, middle, save
from ohmloop.crossbar._approximate import approximate_transfer
from ohmloop.crossbar._network import solve
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / "bench" / "peers" / ".venv" / "badcrossbar" / "bin" / "python"
ONE_OHM = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)
VECTORS = (1, 32)


def array(n: int, top: float = 1e-4, seed: int = 0) -> np.ndarray:
    return top * 10 ** np.random.default_rng([seed, n]).uniform(-2, 0, (n, n))


def inputs(n: int, k: int, low: float = 0.0) -> np.ndarray:
    return np.random.default_rng([1, n]).uniform(low, 1, (n, k))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    value = run()
    return time.process_time() - began, value


def ours(case: Path, out: Path) -> None:
    """Solve one array in this process and write what it took."""
    torch.set_num_threads(1)
    data = np.load(case)
    g, v = torch.from_numpy(data["conductance"]), torch.from_numpy(data["voltage"]).T.contiguous()
    few = torch.rand(4, 4, dtype=torch.float64)
    solve(few, torch.rand(v.shape[0], 4, dtype=torch.float64), ONE_OHM)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, found = timed(lambda: solve(g, v, ONE_OHM))
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    cpu, found = timed(lambda: solve(g, v, ONE_OHM))
    result = {
        "cpu": cpu,
        "kib": kib,
        "current": found.current.tolist(),
        "residual": float(found.residual.max()),
    }
    out.write_text(json.dumps(result))


def process(command: list[str], folder: Path) -> dict[str, Any]:
    """Run one tool in a process of its own."""
    out = folder / "out.json"
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([*command, str(folder / "case.npz"), str(out)], check=True, env=one)
    return dict(json.loads(out.read_text()))


def spice(n: int, folder: Path) -> tuple[float, np.ndarray]:
    """Return CPU seconds of ngspice for one input vector and the currents."""
    sys.path.insert(0, str(ROOT))
    from tests.crossbar.ngspice import netlist, run

    text = netlist(array(n), inputs(n, 1)[:, 0].tolist(), [0.0] * n, (1.0, 1.0, 1.0, 1.0))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = run(text, folder, seconds=3600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime, np.array([found[f"i(vm{j})"] for j in range(n)])


def against_peers(
    sizes: list[int], repeats: int, largest_spice: int
) -> tuple[dict[str, Any], list[list[str]]]:
    """Solve every size with every tool, in turn."""
    out: dict[str, Any] = {}
    rows = []
    for n in sizes:
        for k in VECTORS:
            runs: dict[str, list[dict[str, Any]]] = {"ohmloop": [], "badcrossbar": []}
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                case = {"conductance": array(n), "voltage": inputs(n, k), "ohms": 1.0}
                np.savez(folder / "case.npz", **case)
                for _ in range(repeats):
                    runs["ohmloop"].append(process([sys.executable, __file__, "--case"], folder))
                    if PEER.exists():
                        worker = str(ROOT / "bench" / "peers" / "network.py")
                        runs["badcrossbar"].append(process([str(PEER), worker], folder))
                slow = spice(n, folder) if k == 1 and n <= largest_spice else None
            name = f"{n} x {n}, {k} input{'s' if k > 1 else ''}"
            out[name], row = compared(runs, slow)
            rows.append([name, *row])
            print(" | ".join(rows[-1]), flush=True)
    return out, rows


def compared(
    runs: dict[str, list[dict[str, Any]]], slow: tuple[float, np.ndarray] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return one case's record and its row."""
    mine, theirs = runs["ohmloop"], runs["badcrossbar"]
    current = np.array(mine[0]["current"])

    def error(other: np.ndarray) -> float:
        return float(np.abs(current - other).max() / np.abs(other).max())

    record: dict[str, Any] = {
        tool: {key: [r[key] for r in found] for key in ("cpu", "kib")}
        for tool, found in runs.items()
    }
    record["residual"] = mine[0]["residual"]
    row = [f"{1e3 * np.median([r['cpu'] for r in mine]):.1f} ms"]
    row.append(f"{mine[0]['residual']:.0e}")
    row.append(f"{np.median([r['kib'] for r in mine]) / 1024:.0f}")
    if theirs:
        ratios = [b["cpu"] / a["cpu"] for a, b in zip(mine, theirs, strict=True)]
        record["ratios"], record["difference"] = ratios, error(np.array(theirs[0]["current"]))
        row += [
            f"{np.median([r['cpu'] for r in theirs]):.2f} s",
            middle(ratios),
            f"{np.median([r['kib'] for r in theirs]) / 1024:.0f}",
            f"{record['difference']:.0e}",
        ]
    else:
        row += ["not installed"] + ["-"] * 3
    if slow is None:
        return record, [*row, "not run", "-", "-"]
    seconds, found = slow
    record["ngspice"] = {"cpu": seconds, "difference": error(found[None])}
    ratio = seconds / np.median([r["cpu"] for r in mine])
    return record, [*row, f"{seconds:.1f} s", f"{ratio:.0f}", f"{error(found[None]):.0e}"]


def growth(record: dict[str, Any], sizes: list[int]) -> dict[str, float]:
    """Return the exponent of N in the CPU seconds, fitted, for each number of inputs."""
    out = {}
    for k in VECTORS:
        name = f"{k} input{'s' if k > 1 else ''}"
        seconds = [np.median(record[f"{n} x {n}, {name}"]["ohmloop"]["cpu"]) for n in sizes]
        out[name] = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    return out


def transfers(sizes: list[int], repeats: int) -> tuple[dict[str, Any], list[list[str]]]:
    """Time transfer matrices, without and with gradient."""
    out: dict[str, Any] = {}
    rows = []
    for n in sizes:
        g = torch.from_numpy(array(n))
        v = torch.from_numpy(inputs(n, 4)).T
        transfer_matrix(g, ONE_OHM)
        runs = [timed(lambda: transfer_matrix(g, ONE_OHM)) for _ in range(repeats)]  # noqa: B023
        learned = g.clone().requires_grad_()
        transfer_matrix(learned[:2, :2], ONE_OHM).sum().backward()
        step, _ = timed(lambda: transfer_matrix(learned, ONE_OHM).sum().backward())  # noqa: B023
        cheap, _ = timed(lambda: approximate_transfer(g, ONE_OHM))  # noqa: B023
        exact = solve(g, v, ONE_OHM).current
        error = float((v @ runs[0][1].mT - exact).abs().max() / exact.abs().max())
        seconds = [r[0] for r in runs]
        out[str(n)] = {"cpu": seconds, "with_gradient": step, "cheap": cheap, "difference": error}
        rows.append(
            [
                f"{n} x {n}",
                f"{np.median(seconds):.3f} s",
                f"{step:.2f} s",
                f"{1e3 * cheap:.1f} ms",
                f"{error:.0e}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
    return out, rows


def kinds(n: int, top: float) -> dict[str, np.ndarray]:
    """Return the arrays on which the stand-in is judged."""
    rng = np.random.default_rng([2, n])
    half = top * np.where(rng.random((n, n)) < 0.5, 1.0, 0.01)
    faulty = array(n, top)
    faulty[rng.random((n, n)) < 0.01] = 0.0
    faulty[rng.random((n, n)) < 0.01] = top
    return {
        "log-uniform": array(n, top),
        "uniform": top * rng.uniform(0.01, 1, (n, n)),
        "binary": half,
        "2 % stuck": faulty,
    }


def stand_in(sizes: list[int]) -> tuple[dict[str, Any], list[list[str]]]:
    """Compare the cheap map with the exact one: r.m.s. error of currents over r.m.s. current."""
    out: dict[str, Any] = {}
    rows = []
    for n in sizes:
        for top in (1e-5, 1e-4):
            for kind, cells in kinds(n, top).items():
                g = torch.from_numpy(cells)
                exact = transfer_matrix(g, ONE_OHM)
                maps = {"ideal": g.mT}
                for k in (1, 2, 4):
                    maps[str(k)] = approximate_transfer(g, ONE_OHM, iterations=k)
                record = {}
                for label, low in (("positive", 0.0), ("both signs", -1.0)):
                    v = torch.from_numpy(inputs(n, 64, low)).T
                    right = v @ exact.mT
                    record[label] = {
                        name: float((v @ m.mT - right).norm() / right.norm())
                        for name, m in maps.items()
                    }
                name = f"{n}, {1e6 * top:.0f} uS, {kind}"
                out[name] = record
                rows.append(
                    [name]
                    + [
                        f"{100 * record[label][k]:.2g} %"
                        for label in record
                        for k in ("ideal", "1", "2", "4")
                    ]
                )
    return out, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="64,128,256,512")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--spice", type=int, default=64, help="largest array for ngspice")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        ours(*map(Path, options.case))
        return
    torch.set_num_threads(1)
    sizes = [int(n) for n in options.sizes.split(",")]
    solved, solved_rows = against_peers(sizes, options.repeats, options.spice)
    exponents = growth(solved, sizes)
    mapped, mapped_rows = transfers([n for n in sizes if n <= 256], options.repeats)
    judged, judged_rows = stand_in([n for n in sizes if n <= 256])
    text = [
        f"# Wire resistance\n\n{__doc__}\n## Exact solution\n",
        markdown(
            "array|ohmloop|residual|MB|badcrossbar|ratio|MB|difference|ngspice|ratio|difference".split(
                "|"
            ),
            solved_rows,
        ),
        "CPU seconds grow as N to the power "
        + ", ".join(f"{e:.2f} ({name})" for name, e in exponents.items())
        + ", fitted over the sizes above; the number of cells is N squared.\n",
        "## Transfer matrix\n\nThe stand-in is `approximate_transfer` with its two iterations.\n",
        markdown(["array", "exact", "with gradient", "stand-in", "difference"], mapped_rows),
        "## The stand-in's error\n\nR.m.s. error of the currents over their r.m.s., 64 random inputs in 0 to "
        "1 V (positive) or -1 to 1 V (both signs), after 0 (ideal wires), 1, 2 and 4 iterations.\n",
        markdown(
            ["array, largest cell, kind"]
            + [f"{label}, {k}" for label in ("positive", "both signs") for k in (0, 1, 2, 4)],
            judged_rows,
        ),
    ]
    record = {
        "exact": solved,
        "exponents": exponents,
        "transfer": mapped,
        "stand_in": judged,
        "threads": 1,
    }
    save("wires", record, "\n".join(text))


if __name__ == "__main__":
    main()
