"""The network against ngspice: every node and every current of random arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.crossbar.ngspice import circuit, needs_ngspice

from ohmloop.crossbar._network import solve
from ohmloop.crossbar._sneak import access
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires

pytestmark = needs_ngspice

SETS = {
    "usual": (1.0, 1.0, 50.0, 20.0),
    "uneven": (3.0, 0.4, 200.0, 5.0),
    "no drivers": (2.0, 2.0, 0.0, 0.0),
    "ideal rows": (0.0, 5.0, 0.0, 10.0),
    "ideal columns": (5.0, 0.0, 10.0, 0.0),
    "only ends": (0.0, 0.0, 100.0, 30.0),
}


def cells(rows: int, columns: int, seed: int, *, faults: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    g = 10 ** rng.uniform(-6, -4, (rows, columns))
    if faults:
        g[rng.random(g.shape) < 0.05] = 0.0
        g[rng.random(g.shape) < 0.03] = 0.1  # a short of 10 ohm
    return g


def worst(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", [(4, 4), (9, 5), (3, 12)])
def test_linear_network_agrees_with_ngspice(
    tmp_path: Path, shape: tuple[int, int], name: str, faults: bool
) -> None:
    ohms = SETS[name]
    g = cells(*shape, seed=sum(shape), faults=faults)
    volts = np.random.default_rng(1).uniform(-1, 1, shape[0])
    theirs = circuit(g, volts.tolist(), tmp_path, ohms)
    wires = Wires(row=ohms[0], column=ohms[1], source=ohms[2], sense=ohms[3])
    ours = solve(torch.from_numpy(g), torch.from_numpy(volts)[None], wires, nodes=True)
    assert worst(ours.current[0], theirs.current) < 1e-9
    assert ours.rows is not None
    assert ours.columns is not None
    assert worst(ours.rows[0], theirs.rows) < 1e-9
    # An ideal column is at 0 V everywhere: measured against the drive, not against itself.
    assert np.abs(ours.columns[0].numpy() - theirs.columns).max() < 1e-9 * np.abs(volts).max()
    matrix = transfer_matrix(torch.from_numpy(g), wires)
    assert worst(matrix @ torch.from_numpy(volts), theirs.current) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("n", [16, 32, 64])
def test_larger_linear_network_with_faults_agrees_with_ngspice(tmp_path: Path, n: int) -> None:
    g = cells(n, n, seed=n, faults=True)
    volts = np.random.default_rng(n).uniform(0, 1, n)
    theirs = circuit(g, volts.tolist(), tmp_path, (1.0, 1.0, 1.0, 1.0))
    wires = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)
    ours = solve(torch.from_numpy(g), torch.from_numpy(volts)[None], wires, nodes=True)
    assert worst(ours.current[0], theirs.current) < 1e-9
    assert ours.rows is not None
    assert worst(ours.rows[0], theirs.rows) < 1e-9


@pytest.mark.parametrize(
    ("n", "faults"),
    [
        *((n, faults) for n in (4, 8) for faults in (False, True)),
        *(pytest.param(n, True, marks=pytest.mark.slow) for n in (32, 64)),
    ],
)
def test_nonlinear_network_agrees_with_ngspice(tmp_path: Path, n: int, faults: bool) -> None:
    g = cells(n, n, seed=n, faults=faults)
    volts = np.random.default_rng(n).uniform(-1.0, 1.0, n)
    theirs = circuit(g, volts.tolist(), tmp_path, (1.0, 2.0, 50.0, 20.0), v0=0.25)
    wires = Wires(row=1.0, column=2.0, source=50.0, sense=20.0)
    ours = solve(torch.from_numpy(g), torch.from_numpy(volts)[None], wires, v0=0.25, nodes=True)
    assert worst(ours.current[0], theirs.current) < 1e-6
    assert ours.rows is not None
    assert worst(ours.rows[0], theirs.rows) < 1e-6


@pytest.mark.parametrize("v0", [None, 0.3])
@pytest.mark.parametrize("scheme", ["floating", "grounded", "half", "third"])
def test_access_to_one_cell_agrees_with_ngspice(
    tmp_path: Path, scheme: str, v0: float | None
) -> None:
    n, row, column, volts = 6, 2, 4, 0.9
    g = cells(n, n, seed=7, faults=False)
    share = {
        "floating": (None, None),
        "grounded": (0, 0),
        "half": (0.5, 0.5),
        "third": (1 / 3, 2 / 3),
    }
    others = [None if s is None else s * volts for s in share[scheme]]
    at_rows = [volts if i == row else others[0] for i in range(n)]
    at_columns = [0.0 if j == column else others[1] for j in range(n)]
    ohms = (1.0, 2.0, 50.0, 20.0)
    theirs = circuit(g, at_rows, tmp_path, ohms, v0=v0, at_columns=at_columns)
    ours = access(
        torch.from_numpy(g),
        Wires(row=1.0, column=2.0, source=50.0, sense=20.0),
        row=row,
        column=column,
        voltage=volts,
        scheme=scheme,  # type: ignore[arg-type]  # one of the four
        v0=v0,
    )
    close = 1e-9 if v0 is None else 1e-6
    assert ours.sensed.item() == pytest.approx(theirs.current[column], rel=close)
    across = theirs.rows - theirs.columns
    assert np.abs(ours.voltage.numpy() - across).max() < close * volts
    felt = np.abs(across)
    assert ours.row_disturb.item() == pytest.approx(np.delete(felt[row], column).max(), rel=close)
    felt[row] = felt[:, column] = 0
    assert ours.rest_disturb.item() == pytest.approx(felt.max(), rel=10 * close, abs=close * volts)
