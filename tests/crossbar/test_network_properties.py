"""Laws that hold for every array: over many ratios of wires to cells, with opens and shorts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmloop.crossbar._network import solve
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires

WIRES = Wires(row=1.0, column=2.0, source=30.0, sense=4.0)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Tensor, Tensor, Wires]:
    """Arrays whose segment ohms times siemens are 1e-8 to 10, with opens, and shorts 1,000 times that."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    g = 10 ** (draw(st.floats(-8, 1)) - draw(st.floats(0, 3)) * uniform(rows, columns))
    g[uniform(rows, columns) < draw(st.sampled_from([0.0, 0.1, 0.5]))] = 0.0
    g[uniform(rows, columns) < draw(st.sampled_from([0.0, 0.05]))] = 1e3 * g.max()
    ohms = st.sampled_from([0.0, 0.1, 1.0, 1.0])
    ends = st.sampled_from([0.0, 1.0, 100.0])
    wires = Wires(row=draw(ohms), column=draw(ohms), source=draw(ends), sense=draw(ends))
    return g, 2 * uniform(2, rows) - 1, wires


def floor(g: Tensor, wires: Wires) -> float:
    """What float64 node voltages leave open: one rounding across the largest conductance, against a current
    that the wires limit."""
    rows, columns = g.shape
    ohms = wires.source + wires.sense + columns * wires.row + rows * wires.column
    return 1e-12 + 1e-15 * float(g.max()) * ohms


@pytest.mark.slow
@given(arrays())
@settings(max_examples=150, deadline=None)
def test_kirchhoff_holds_and_elimination_agrees(case: tuple[Tensor, Tensor, Wires]) -> None:
    g, v, wires = case
    found = solve(g, v, wires)
    assert found.residual.max() < floor(g, wires)
    other = v @ transfer_matrix(g, wires).mT
    assert (found.current - other).abs().max() <= 1e-9 * other.abs().max()


@given(arrays())
@settings(max_examples=40, deadline=None)
def test_nodes_lie_between_the_sources(case: tuple[Tensor, Tensor, Wires]) -> None:
    g, v, wires = case
    found = solve(g, v, wires, v0=0.3, nodes=True)
    assert found.rows is not None
    assert found.columns is not None
    top = v.amax(-1).clamp_min(0)[:, None, None]
    bottom = v.amin(-1).clamp_max(0)[:, None, None]
    for nodes in (found.rows, found.columns):
        assert bool((nodes <= top + 1e-9).all())
        assert bool((nodes >= bottom - 1e-9).all())


@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_superposition(seed: int, a: float, b: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    g = 1e-3 * torch.rand(7, 5, generator=generator, dtype=torch.float64)
    v = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    one, two = solve(g, v, WIRES).current
    both = solve(g, (a * v[0] + b * v[1])[None], WIRES).current[0]
    assert torch.allclose(both, a * one + b * two, rtol=1e-11, atol=1e-16)


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_reciprocity(seed: int) -> None:
    """Driven at column c and read at row r, an array passes what it passes from r to c."""
    generator = torch.Generator().manual_seed(seed)
    g = 1e-2 * torch.rand(6, 4, generator=generator, dtype=torch.float64)
    forward = solve(g, torch.eye(6, dtype=torch.float64), WIRES).current
    turned = Wires(row=WIRES.column, column=WIRES.row, source=WIRES.sense, sense=WIRES.source)
    back = solve(g.mT.flip((0, 1)), torch.eye(4, dtype=torch.float64), turned).current
    assert torch.allclose(forward, back.mT.flip((0, 1)), rtol=1e-11, atol=1e-18)


@given(st.integers(0, 2**31), st.sampled_from(["row", "column", "source", "sense"]))
@settings(max_examples=25, deadline=None)
def test_more_resistance_less_current(seed: int, field: str) -> None:
    """With equal voltages on all rows the total is V^T Y V: it falls with every resistance."""
    generator = torch.Generator().manual_seed(seed)
    g = 1e-2 * torch.rand(5, 6, generator=generator, dtype=torch.float64) + 1e-4
    v = torch.ones(1, 5, dtype=torch.float64)
    more = WIRES.model_copy(update={field: 2 * getattr(WIRES, field)})
    assert solve(g, v, more).current.sum() < solve(g, v, WIRES).current.sum()


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_without_segments_lines_may_be_permuted(axis: str) -> None:
    generator = torch.Generator().manual_seed(3)
    g = 1e-3 * torch.rand(6, 5, generator=generator, dtype=torch.float64)
    v = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    if axis == "rows":
        wires, order = Wires(row=2.0, source=5.0, sense=3.0), torch.randperm(6, generator=generator)
        found, expected = solve(g[order], v[:, order], wires), solve(g, v, wires).current
    else:
        wires, order = (
            Wires(column=2.0, source=5.0, sense=3.0),
            torch.randperm(5, generator=generator),
        )
        found, expected = solve(g[:, order], v, wires), solve(g, v, wires).current[:, order]
    assert torch.allclose(found.current, expected, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-8, -6, -4, -2, 0, 1])
@pytest.mark.parametrize("shorts", [False, True])
def test_every_ratio_of_wire_to_cell_converges_at_128(exponent: int, shorts: bool) -> None:
    generator = torch.Generator().manual_seed(exponent + 10)
    g = 10 ** (exponent - 2 * torch.rand(128, 128, generator=generator, dtype=torch.float64))
    if shorts:
        chance = torch.rand(128, 128, generator=generator)
        g[chance < 0.01] = 1e3 * 10.0**exponent
        g[chance > 0.99] = 0.0
    v = torch.rand(1, 128, generator=generator, dtype=torch.float64)
    wires = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)
    found = solve(g, v, wires)
    assert found.residual.max() < floor(g, wires)
    other = v @ transfer_matrix(g, wires).mT
    assert (found.current - other).abs().max() <= 1e-9 * other.abs().max()
