"""Solve one array with badcrossbar; meant for its own environment, without ohmloop.

    python network.py CASE.npz OUT.json

CASE.npz holds conductances `R x C`, voltages `R x B` and the resistance of a segment; OUT.json gets CPU and
wall seconds of one solution (currents of the columns only, the cheapest that it offers), the growth of
resident memory, and the currents `B x C`.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")
warnings.simplefilter = lambda *a, **k: None  # the package switches its notice about cairo back on
import badcrossbar  # noqa: E402

logging.disable(logging.CRITICAL)


def main() -> None:
    case = np.load(sys.argv[1])
    options = {"node_voltages": False, "all_currents": False}
    small = np.ones((4, 4)) * 1e4
    badcrossbar.compute(np.ones((4, 1)), small, r_i=1.0, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    found = badcrossbar.compute(
        case["voltage"], 1 / case["conductance"], r_i=float(case["ohms"]), **options
    )
    out = {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
        "current": np.asarray(found.currents.output).tolist(),
    }
    with open(sys.argv[2], "w") as stream:
        json.dump(out, stream)


if __name__ == "__main__":
    main()
