"""The network of a wired array: closed forms, laws of linear circuits, gradients, and refusals."""

import pytest
import torch
from torch import Tensor

from ohmloop.crossbar._network import solve
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError

WIRES = Wires(row=1.0, column=2.0, source=30.0, sense=4.0)
PARTLY_ZERO = [
    Wires(row=1.0),
    Wires(column=1.0),
    Wires(source=1.0),
    Wires(sense=1.0),
    Wires(row=1.0, column=2.0),
    Wires(source=1.0, sense=2.0),
    Wires(row=1.0, sense=2.0),
    Wires(column=1.0, source=2.0),
    WIRES,
]


def random_cells(*shape: int, seed: int = 0, top: float = 1e-3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return top * torch.rand(*shape, generator=generator, dtype=torch.float64)


def random_volts(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense(conductance: Tensor, volts: Tensor, wires: Wires) -> Tensor:
    """Cell currents `R x C` from one dense system: i = G (V - Z i), Z the shared wire resistances."""
    r, c = conductance.shape
    along = torch.arange(c, dtype=torch.float64)
    up = torch.arange(r - 1, -1, -1, dtype=torch.float64)
    row = wires.source + wires.row * torch.minimum(along[:, None], along)
    column = wires.sense + wires.column * torch.minimum(up[:, None], up)
    z = torch.kron(torch.eye(r, dtype=torch.float64), row)
    z += torch.kron(column, torch.eye(c, dtype=torch.float64))
    g = conductance.reshape(-1)
    system = torch.eye(r * c, dtype=torch.float64) + g[:, None] * z
    return torch.linalg.solve(system, (conductance * volts[:, None]).reshape(-1)).reshape(r, c)


@pytest.mark.parametrize("wires", PARTLY_ZERO)
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 7), (8, 3)])
def test_currents_equal_a_dense_solution(shape: tuple[int, int], wires: Wires) -> None:
    g, v = random_cells(*shape, top=0.1), random_volts(3, shape[0])
    g[0, 0] = 0.0
    found = solve(g, v, wires, nodes=True)
    cells = torch.stack([dense(g, one, wires) for one in v])
    top = cells.sum(1).abs().max().clamp_min(1e-9)
    assert (found.current - cells.sum(1)).abs().max() <= 1e-12 * top
    assert found.rows is not None
    assert found.columns is not None
    assert ((found.rows - found.columns) * g - cells).abs().max() <= 1e-12 * top
    assert found.residual.max() < 1e-12


def test_ideal_wires_are_the_matrix_product() -> None:
    g, v = random_cells(3, 20, 30), random_volts(3, 5, 20)
    found = solve(g, v, Wires(), nodes=True)
    assert torch.allclose(found.current, v @ g, rtol=1e-12, atol=0)
    assert found.columns is not None
    assert found.columns.abs().max() == 0
    tiny = solve(g, v, Wires(row=1e-12, column=1e-12, source=1e-12, sense=1e-12))
    assert torch.allclose(tiny.current, v @ g, rtol=1e-9, atol=1e-15)


def test_one_cell_is_three_resistors_in_series() -> None:
    g = torch.tensor([[1e-3]], dtype=torch.float64)
    found = solve(g, torch.tensor([[0.7]], dtype=torch.float64), WIRES)
    assert found.current.item() == pytest.approx(0.7 / (30 + 1000 + 4), rel=1e-14)


def test_one_row_of_two_cells_by_hand() -> None:
    # Ladder from the right: cell b with its column, one segment, parallel to cell a, then the source.
    a, b, v = 2e-3, 5e-3, 0.9
    far = 1 / b + WIRES.sense
    near = 1 / a + WIRES.sense
    beyond = WIRES.row + far
    total = v / (WIRES.source + near * beyond / (near + beyond))
    found = solve(
        torch.tensor([[a, b]], dtype=torch.float64),
        torch.full((1, 1), v, dtype=torch.float64),
        WIRES,
    )
    expected = torch.tensor([total * beyond, total * near], dtype=torch.float64) / (near + beyond)
    assert torch.allclose(found.current[0], expected, rtol=1e-13, atol=0)


def test_one_column_of_two_cells_by_hand() -> None:
    # Mesh equations of the two rows' currents, which share the sense resistance.
    a, b, v = 2e-3, 5e-3, (0.9, -0.4)
    shared = WIRES.sense
    top = WIRES.source + 1 / a + WIRES.column + shared
    bottom = WIRES.source + 1 / b + shared
    det = top * bottom - shared**2
    total = ((bottom - shared) * v[0] + (top - shared) * v[1]) / det
    g = torch.tensor([[a], [b]], dtype=torch.float64)
    found = solve(g, torch.tensor([v], dtype=torch.float64), WIRES)
    assert found.current.item() == pytest.approx(total, rel=1e-13)


def test_two_by_two_with_source_resistance_only_by_hand() -> None:
    g = torch.tensor([[1e-3, 3e-3], [2e-3, 5e-3]], dtype=torch.float64)
    v = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    source = 100.0
    at_rows = v[0] / (1 + source * g.sum(1))
    found = solve(g, v, Wires(source=source))
    assert torch.allclose(found.current[0], at_rows @ g, rtol=1e-14, atol=0)


def test_nonlinear_cell_obeys_its_law() -> None:
    g, v = random_cells(6, 9), random_volts(4, 6)
    found = solve(g, v, WIRES, v0=0.2, nodes=True)
    assert found.rows is not None
    assert found.columns is not None
    cells = g * 0.2 * torch.sinh((found.rows - found.columns) / 0.2)
    assert torch.allclose(cells.sum(1), found.current, rtol=1e-9, atol=1e-15)
    assert torch.allclose(found.rows[..., 0], v - WIRES.source * cells.sum(2), rtol=0, atol=1e-12)
    assert found.residual.max() < 1e-12
    straight = solve(g, v, WIRES, v0=1e4).current
    assert torch.allclose(straight, solve(g, v, WIRES).current, rtol=1e-7, atol=0)


def test_steep_cells_converge_at_many_times_v0() -> None:
    g, v = random_cells(12, 12, top=1e-2), 5 * random_volts(2, 12)
    found = solve(g, v, Wires(row=5.0, column=5.0, source=100.0, sense=100.0), v0=0.5)
    assert found.residual.max() < 1e-12


def test_open_and_shorted_cells_are_conductances_like_others() -> None:
    g, v = random_cells(8, 8, top=1e-4), random_volts(2, 8).abs()
    g[:, 3] = 0.0  # an open column carries nothing
    g[2] = 0.0
    g[5, 5] = 1.0  # a short of 1 ohm
    found = solve(g, v, WIRES)
    expected = torch.stack([dense(g, one, WIRES).sum(0) for one in v])
    assert torch.allclose(found.current, expected, rtol=1e-11, atol=1e-15)
    assert found.current[:, 3].abs().max() == 0
    assert found.residual.max() < 1e-12


def test_an_array_of_open_cells_carries_nothing() -> None:
    found = solve(torch.zeros(4, 4), torch.ones(2, 4), WIRES, nodes=True)
    assert found.current.abs().max() == 0
    assert found.rows is not None
    assert bool((found.rows == 1).all())
    assert found.residual.max() == 0


@pytest.mark.parametrize("v0", [None, 0.4])
@pytest.mark.parametrize("wires", [WIRES, Wires(row=3.0), Wires(column=3.0, sense=5.0)])
def test_gradients_equal_finite_differences(wires: Wires, v0: float | None) -> None:
    g = (random_cells(2, 3, 4, top=0.02) + 0.01).requires_grad_()
    v = random_volts(2, 2, 3).requires_grad_()

    def outputs(g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        found = solve(g, v, wires, v0=v0, nodes=True)
        assert found.rows is not None
        assert found.columns is not None
        return found.current, found.rows, found.columns

    assert torch.autograd.gradcheck(outputs, (g, v), atol=1e-7, fast_mode=True)


def test_gradient_reaches_shared_arrays_and_shared_vectors() -> None:
    g, v = random_cells(5, 6).requires_grad_(), random_volts(4, 3, 5).requires_grad_()
    solve(g, v, WIRES).current.sum().backward()
    assert g.grad is not None
    assert v.grad is not None
    one_by_one = torch.stack(
        [torch.autograd.grad(solve(g, one, WIRES).current.sum(), g)[0] for one in v]
    ).sum(0)
    assert torch.allclose(g.grad, one_by_one, rtol=1e-12, atol=0)
    assert v.grad.shape == v.shape


def test_batches_equal_single_solutions() -> None:
    g, v = random_cells(2, 3, 5, 6), random_volts(3, 7, 5)
    together = solve(g, v, WIRES, nodes=True)
    assert together.current.shape == (2, 3, 7, 6)
    assert together.residual.shape == (2, 3, 7)
    assert together.rows is not None
    assert together.rows.shape == (2, 3, 7, 5, 6)
    bent = solve(g, v, WIRES, v0=0.5).current
    for a in range(2):
        for b in range(3):
            for k in range(7):
                one = solve(g[a, b], v[b, k : k + 1], WIRES)
                assert torch.allclose(
                    together.current[a, b, k], one.current[0], rtol=1e-11, atol=1e-18
                )
            alone = solve(g[a, b], v[b], WIRES, v0=0.5).current
            assert torch.allclose(bent[a, b], alone, rtol=1e-10, atol=1e-18)


def test_results_come_in_the_callers_dtype_from_double_arithmetic() -> None:
    g, v = random_cells(20, 20), random_volts(2, 20)
    single = solve(g.float(), v.float(), WIRES)
    assert single.current.dtype == torch.float32
    exact = solve(g.float().double(), v.float().double(), WIRES)
    assert torch.equal(single.current, exact.current.float())
    assert solve(g.float(), v, WIRES).current.dtype == torch.float64
    assert single.residual.max() < 1e-12


def test_strided_tensors_and_no_vectors() -> None:
    g, v = random_cells(7, 5), random_volts(5, 3)
    turned = solve(g.T, v.T, WIRES).current
    assert torch.equal(turned, solve(g.T.contiguous(), v.T.contiguous(), WIRES).current)
    assert solve(g, torch.zeros(0, 7, dtype=torch.float64), WIRES).current.shape == (0, 5)
    assert solve(g[None][:0], torch.zeros(2, 7, dtype=torch.float64), WIRES).current.shape == (
        0,
        2,
        5,
    )


@pytest.mark.parametrize(
    ("g", "v", "message"),
    [
        (torch.tensor([[1.0, -1e-6]]), torch.ones(1, 1), r"conductance\[0, 1\] = -1e-06 S"),
        (torch.tensor([[1.0], [float("nan")]]), torch.ones(1, 2), r"conductance\[1, 0\] = nan"),
        (torch.tensor([[float("inf")]]), torch.ones(1, 1), "a short as a large number"),
        (torch.ones(2, 2), torch.tensor([[1.0, float("nan")]]), r"voltage\[0, 1\] is not finite"),
        (torch.ones(3, 2), torch.ones(1, 2), r"with R = 3"),
        (torch.ones(3, 2), torch.ones(3), r"voltage\[None\]"),
        (torch.ones(4, 3, 2), torch.ones(5, 1, 3), "do not broadcast"),
        (torch.ones(3), torch.ones(1, 3), "at least one row"),
        (torch.ones(0, 3), torch.ones(1, 0), "at least one row"),
        (torch.ones(2, 2).half(), torch.ones(1, 2), "float32 or float64"),
        (torch.ones(2, 2), torch.ones(1, 2, dtype=torch.int64), "float32 or float64"),
    ],
)
def test_what_is_no_array_is_refused(g: Tensor, v: Tensor, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        solve(g, v, WIRES)


@pytest.mark.parametrize(
    ("v0", "message"), [(0.0, "positive"), (-1.0, "positive"), (1e-3, "volts")]
)
def test_impossible_v0_is_refused(v0: float, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        solve(torch.ones(2, 2), torch.ones(1, 2), WIRES, v0=v0)


@pytest.mark.parametrize("field", ["row", "column", "source", "sense"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_wires_refuse_what_is_no_resistance(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Wires.model_validate({field: value})


@pytest.mark.slow
@pytest.mark.parametrize("n", [256, 512, 1024])
def test_residual_stays_below_1e_12_at_every_size(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    g = 10 ** (2 * torch.rand(n, n, generator=generator, dtype=torch.float64) - 6)
    v = torch.rand(1, n, generator=generator, dtype=torch.float64)
    found = solve(g, v, Wires(row=1.0, column=1.0, source=1.0, sense=1.0))
    assert found.residual.item() < 1e-12
