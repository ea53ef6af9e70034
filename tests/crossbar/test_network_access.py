"""One cell of a passive array: sneak paths and half-selected cells."""

import pytest
import torch

from ohmloop.crossbar._sneak import access
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError

G = torch.tensor([[1e-3, 2e-3], [4e-3, 5e-3]], dtype=torch.float64)
WIRES = Wires(row=1.0, column=2.0, source=30.0, sense=4.0)


def test_floating_sneak_path_of_two_by_two_by_hand() -> None:
    found = access(G, Wires(), row=0, column=0, voltage=0.5, scheme="floating")
    around = 0.5 / (1 / 2e-3 + 1 / 5e-3 + 1 / 4e-3)
    assert found.cell.item() == pytest.approx(0.5e-3, rel=1e-12)
    assert found.sneak.item() == pytest.approx(around, rel=1e-12)
    assert found.driver.item() == pytest.approx(0.5e-3 + around, rel=1e-12)
    assert found.power.item() == pytest.approx(0.5 * found.driver.item(), rel=1e-12)
    assert found.row_disturb.item() == pytest.approx(around / 2e-3, rel=1e-12)
    assert found.column_disturb.item() == pytest.approx(around / 4e-3, rel=1e-12)
    assert found.rest_disturb.item() == pytest.approx(around / 5e-3, rel=1e-12)


@pytest.mark.parametrize(
    ("scheme", "row", "column", "rest"),
    [("grounded", 0.9, 0.0, 0.0), ("half", 0.45, 0.45, 0.0), ("third", 0.3, 0.3, 0.3)],
)
def test_biased_schemes_with_ideal_wires(scheme, row: float, column: float, rest: float) -> None:  # type: ignore[no-untyped-def]  # a literal
    found = access(G, Wires(), row=0, column=1, voltage=0.9, scheme=scheme)
    assert found.cell.item() == pytest.approx(0.9 * 2e-3, rel=1e-12)
    assert found.sneak.item() == pytest.approx(column * 5e-3, rel=1e-12, abs=1e-18)
    assert found.row_disturb.item() == pytest.approx(row, rel=1e-12)
    assert found.column_disturb.item() == pytest.approx(column, abs=1e-15)
    assert found.rest_disturb.item() == pytest.approx(rest, abs=1e-15)


def test_source_and_sense_of_a_single_cell() -> None:
    found = access(G[:1, :1], WIRES, row=0, column=0, voltage=1.0, scheme="floating")
    assert found.cell.item() == pytest.approx(1 / (30 + 1000 + 4), rel=1e-12)
    assert found.sneak.item() == pytest.approx(0.0, abs=1e-17)


@pytest.mark.parametrize("scheme", ["floating", "grounded", "half", "third"])
@pytest.mark.parametrize("v0", [None, 0.2])
def test_power_is_what_cells_and_wires_turn_into_heat(scheme, v0: float | None) -> None:  # type: ignore[no-untyped-def]  # a literal
    """Without wires it all goes into cells: V times I, summed."""
    generator = torch.Generator().manual_seed(0)
    g = 1e-3 * torch.rand(3, 6, 5, generator=generator, dtype=torch.float64)
    found = access(g, Wires(), row=2, column=3, voltage=0.8, scheme=scheme, v0=v0)
    v = found.voltage
    current = g * v if v0 is None else g * v0 * torch.sinh(v / v0)
    assert torch.allclose(found.power, (v * current).sum((1, 2)), rtol=1e-9, atol=0)
    assert found.residual.max() < 1e-12


def test_nonlinear_cells_cut_the_sneak_current_of_the_half_scheme() -> None:
    g = torch.full((16, 16), 1e-4, dtype=torch.float64)
    shares = [
        (a.sneak / a.cell).item()
        for a in (access(g, WIRES, row=0, column=0, voltage=1.0, v0=v0) for v0 in (None, 0.25))
    ]
    assert shares[1] < shares[0] / 2.5


def test_floating_arrays_with_open_lines_and_batches() -> None:
    g = torch.full((2, 4, 4), 1e-3, dtype=torch.float64)
    g[0, 1] = 0.0  # a floating row of open cells: connected to nothing at all
    g[0, :, 2] = 0.0
    found = access(g, WIRES, row=0, column=0, voltage=1.0, scheme="floating")
    assert bool(found.voltage.isfinite().all())
    assert found.sneak[0] < found.sneak[1]
    assert found.residual.max() < 1e-12


@pytest.mark.parametrize(("row", "column"), [(2, 0), (0, 2), (-1, 0)])
def test_cells_outside_are_refused(row: int, column: int) -> None:
    with pytest.raises(ConversionError, match="outside"):
        access(G, WIRES, row=row, column=column, voltage=1.0)


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(ConversionError, match='"floating"'):
        access(G, WIRES, row=0, column=0, voltage=1.0, scheme="quarter")  # type: ignore[arg-type]  # the point
