"""The exact linear map, and the cheap one that stands in for it."""

import pytest
import torch
from torch import Tensor

from ohmloop.crossbar._approximate import approximate_transfer
from ohmloop.crossbar._network import solve
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires
from ohmloop.errors import ConversionError

WIRES = Wires(row=1.0, column=2.0, source=30.0, sense=4.0)


def cells(*shape: int, top: float = 1e-3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return top * torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "wires",
    [WIRES, Wires(row=1.0), Wires(column=1.0), Wires(source=5.0), Wires(sense=5.0), Wires()],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 7), (40, 3), (19, 18)])
def test_transfer_is_the_response_to_every_row(shape: tuple[int, int], wires: Wires) -> None:
    g = cells(2, *shape, top=0.05)
    g[0, 0] = 0.0
    found = transfer_matrix(g, wires)
    rows = solve(g, torch.eye(shape[0], dtype=torch.float64), wires).current
    assert found.shape == (2, shape[1], shape[0])
    assert (found - rows.mT).abs().max() <= 1e-12 * rows.abs().max()


def test_transfer_of_ideal_wires_is_the_transpose() -> None:
    g = cells(3, 4, 5).float()
    assert torch.equal(transfer_matrix(g, Wires()), g.mT)
    assert transfer_matrix(g, WIRES).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (20, 2)])
def test_transfer_gradient_equals_finite_differences(shape: tuple[int, int]) -> None:
    g = (cells(2, *shape, top=0.02) + 0.005).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: transfer_matrix(g, WIRES), (g,), fast_mode=True)


def test_transfer_gradient_equals_the_adjoint_solve() -> None:
    g, v = cells(9, 8, top=1e-2).requires_grad_(), cells(3, 9, top=1.0, seed=1)
    (by_map,) = torch.autograd.grad((v @ transfer_matrix(g, WIRES).mT).square().sum(), g)
    (by_solve,) = torch.autograd.grad(solve(g, v, WIRES).current.square().sum(), g)
    assert torch.allclose(by_map, by_solve, rtol=1e-9, atol=1e-18)


def test_transfer_refuses_negative_cells() -> None:
    with pytest.raises(ConversionError, match=r"conductance\[0, 0\]"):
        transfer_matrix(-torch.ones(2, 2), WIRES)


def test_approximation_is_exact_to_first_order_for_any_input() -> None:
    """Ten times less wire: a hundred times less error, with inputs of both signs."""
    g, v = cells(30, 20, top=1e-4), cells(5, 30, top=2.0, seed=2) - 1.0
    errors = []
    for ohms in (1.0, 0.1):
        wires = Wires(row=ohms, column=ohms, source=ohms, sense=ohms)
        exact = solve(g, v, wires).current
        errors.append((v @ approximate_transfer(g, wires).mT - exact).norm() / exact.norm())
    assert errors[0] < 1e-3
    assert 60 < errors[0] / errors[1] < 160


def test_approximation_beats_ideal_wires_by_far() -> None:
    g, v = cells(128, 128, top=1e-5), cells(8, 128, top=1.0, seed=2)
    wires = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)
    exact = solve(g, v, wires).current

    def error(matrix: Tensor) -> float:
        return float((v @ matrix.mT - exact).norm() / exact.norm())

    ideal = error(g.mT)
    assert error(approximate_transfer(g, wires, iterations=1)) < ideal / 50
    assert error(approximate_transfer(g, wires)) < ideal / 300


def test_approximation_converges_to_what_equal_drive_gives() -> None:
    g = cells(40, 30, top=1e-4)
    found = approximate_transfer(g, WIRES, iterations=60).sum(1)
    assert torch.allclose(found, solve(g, torch.ones(1, 40).double(), WIRES).current[0], rtol=1e-9)


def test_approximation_stays_between_zero_and_the_cell() -> None:
    g = cells(64, 64, top=1.0)
    found = approximate_transfer(g, WIRES, iterations=3)
    assert bool((found >= 0).all())
    assert bool((found <= g.mT).all())


def test_approximation_has_gradients_and_follows_the_dtype() -> None:
    g = (cells(3, 4, top=0.02) + 0.005).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: approximate_transfer(g, WIRES), (g,))
    assert approximate_transfer(g.detach().float(), WIRES).dtype == torch.float32
    with pytest.raises(ConversionError, match="iterations"):
        approximate_transfer(g, WIRES, iterations=0)
