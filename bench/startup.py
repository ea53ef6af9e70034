"""How long it takes until something answers: the import, the command line, the page; and the memory of each.

    python bench/startup.py [--repeats 5]

Each run is a process of its own; the first of each is left out, for it reads files that later ones find in
memory. Seconds by the clock on the wall and of the CPU, and the peak of resident memory, of the process itself.
*Bare*: the interpreter alone. *Page*: from the start of `ohmloop serve` on an empty folder until its first page
is there, asked for every 20 ms; CPU and memory are those of the server and of the processes that it started.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from _common import markdown, save

COMMAND = "import sys; from ohmloop.cli import main; sys.argv[0] = 'ohmloop'; main()"
CASES = {
    "bare Python": ["-c", "pass"],
    "import ohmloop": ["-c", "import ohmloop"],
    "ohmloop --help": ["-c", COMMAND, "--help"],
    "ohmloop device list": ["-c", COMMAND, "device", "list"],
    "import ohmloop.bo": ["-c", "import ohmloop.bo"],
    "import ohmloop.campaign": ["-c", "import ohmloop.campaign"],
    "import ohmloop.nn": ["-c", "import ohmloop.nn"],
}
WAIT = 60.0


def run(arguments: list[str]) -> dict[str, float]:
    """Run Python once and return what it took."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status != 0:
        assert child.stderr is not None
        sys.exit(f"{arguments} failed: {child.stderr.read().decode()}")
    return {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "bytes": used.ru_maxrss * 1024,
    }


def page() -> dict[str, float]:
    """Start the page on an empty folder and return what it took until it was there."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [
            sys.executable,
            "-c",
            COMMAND,
            "serve",
            folder,
            "--port",
            "0",
            "--no-browser",
            "--no-token",
        ]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert child.stdout is not None
            address = child.stdout.readline().strip()
            while True:
                try:
                    with urllib.request.urlopen(address, timeout=WAIT) as answer:
                        answer.read()
                    break
                except urllib.error.URLError:
                    if time.perf_counter() - began > WAIT or child.poll() is not None:
                        sys.exit(f"the page at {address!r} did not answer")
                    time.sleep(0.02)
            wall = time.perf_counter() - began
            cpu, size = _of_process(child.pid)
            return {"wall": wall, "cpu": cpu, "bytes": size}
        finally:
            child.terminate()
            child.wait(WAIT)


def _of_process(number: int) -> tuple[float, float]:
    """Return CPU seconds and the peak memory of a process and those that it started, from /proc."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{number}/status").read_text()
    size = int(status.partition("VmHWM:")[2].split()[0]) * 1024.0
    children = Path(f"/proc/{number}/task/{number}/children")
    for child in children.read_text().split() if children.exists() else []:
        more, extra = _of_process(int(child))
        cpu, size = cpu + more, size + extra
    return cpu, size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    every = {name: (lambda a=arguments: run(a)) for name, arguments in CASES.items()}
    found: dict[str, list[dict[str, float]]] = {}
    for name, take in {**every, "ohmloop serve, first page": page}.items():
        take()
        found[name] = [take() for _ in range(repeats)]
    rows = [[name, *_cells(runs)] for name, runs in found.items()]
    table = markdown(["what", "on the wall", "CPU", "peak memory"], rows)
    value: dict[str, Any] = {"runs": found}
    save("startup", value, f"# Start-up\n\n{__doc__}\n{table}")


def _cells(runs: list[dict[str, float]]) -> list[str]:
    """Return medians, with the range of the first two."""
    cells = []
    for key in ("wall", "cpu"):
        values = [r[key] for r in runs]
        cells.append(f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) s")
    return [*cells, f"{np.median([r['bytes'] for r in runs]) / 2**20:.0f} MiB"]


if __name__ == "__main__":
    main()
