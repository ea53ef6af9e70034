"""Arrays for ngspice: an independent solution of the same circuit, written element by element."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

PROGRAM = shutil.which("ngspice")
needs_ngspice = pytest.mark.skipif(
    PROGRAM is None, reason="ngspice is not installed (apt-get install ngspice)"
)


class Circuit(NamedTuple):
    """What ngspice says: volts `R x C` of both wires, amperes `C` into the columns' ends."""

    rows: np.ndarray
    columns: np.ndarray
    current: np.ndarray


def netlist(
    conductance: np.ndarray,
    at_rows: Sequence[float | None],
    at_columns: Sequence[float | None],
    ohms: tuple[float, float, float, float],
    v0: float | None = None,
) -> str:
    """Return the circuit as text.

    Args:
        conductance: `R x C` siemens.
        at_rows: Volts of each row's driver; None: not connected.
        at_columns: Volts at each column's end; None: not connected.
        ohms: Of a row segment, a column segment, a source, a sense resistance; 0 is a wire.
        v0: Volts, of cells I = G v0 sinh(V / v0).
    """
    n_rows, n_columns = conductance.shape
    row, column, source, sense = ohms
    # A resistor of 0 ohm becomes 1 milliohm in ngspice; a source of 0 V is a wire.
    lines = [
        "array",
        ".options reltol=1e-10 abstol=1e-20 vntol=1e-14 gmin=1e-30 itl1=1000",
    ]

    def wire(name: str, a: str, b: str, value: float) -> None:
        lines.append(f"R{name} {a} {b} {value!r}" if value > 0 else f"V{name} {a} {b} 0")

    for i, volts in enumerate(at_rows):
        if volts is not None:
            lines.append(f"Vd{i} d{i} 0 {volts!r}")
            wire(f"s{i}", f"d{i}", f"r{i}_0", source)
        for j in range(n_columns - 1):
            wire(f"r{i}_{j}", f"r{i}_{j}", f"r{i}_{j + 1}", row)
    for j, volts in enumerate(at_columns):
        for i in range(n_rows - 1):
            wire(f"c{i}_{j}", f"c{i}_{j}", f"c{i + 1}_{j}", column)
        if volts is not None:
            wire(f"e{j}", f"c{n_rows - 1}_{j}", f"e{j}", sense)
            lines.append(f"Vm{j} e{j} 0 {volts!r}")
    for (i, j), g in np.ndenumerate(conductance):
        if g == 0:
            continue
        nodes = f"r{i}_{j} c{i}_{j}"
        if v0 is None:
            lines.append(f"Rg{i}_{j} {nodes} {1 / float(g)!r}")
        else:
            bent = f"{float(g) * v0!r}*sinh(v(r{i}_{j},c{i}_{j})/{v0!r})"
            lines.append(f"Bg{i}_{j} {nodes} I={bent}")
    return "\n".join(
        [
            *lines,
            ".control",
            "set numdgt=16",
            "set filetype=ascii",
            "op",
            "write out.raw all\n.endc\n.end\n",
        ]
    )


def run(text: str, folder: Path, *, seconds: float = 280) -> dict[str, float]:
    """Run ngspice; return every node voltage and source current by name."""
    (folder / "in.cir").write_text(text)
    assert PROGRAM is not None
    done = subprocess.run(
        [PROGRAM, "-b", "in.cir"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    raw = folder / "out.raw"
    assert raw.exists(), done.stdout + done.stderr
    head, values = raw.read_text().split("Values:")
    names = re.findall(r"^\t\d+\t(\S+)\t", head, flags=re.M)
    numbers = [float(x) for x in values.split()][1:]  # the first is the point's index
    assert len(names) == len(numbers)
    return dict(zip(names, numbers, strict=True))


def circuit(
    conductance: np.ndarray,
    at_rows: Sequence[float | None],
    folder: Path,
    ohms: tuple[float, float, float, float],
    v0: float | None = None,
    at_columns: Sequence[float | None] | None = None,
) -> Circuit:
    """Solve an array with ngspice; columns end at 0 V unless told otherwise."""
    n_rows, n_columns = conductance.shape
    ends = [0.0] * n_columns if at_columns is None else at_columns
    found = run(netlist(conductance, at_rows, ends, ohms, v0), folder)

    def nodes(letter: str) -> np.ndarray:
        return np.array(
            [[found[f"v({letter}{i}_{j})"] for j in range(n_columns)] for i in range(n_rows)]
        )

    current = np.array([found.get(f"i(vm{j})", np.nan) for j in range(n_columns)])
    return Circuit(nodes("r"), nodes("c"), current)
