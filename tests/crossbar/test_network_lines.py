"""The three ways to solve along wires give one result, zeros and unconnected ends included."""

import pytest
import torch

from ohmloop.crossbar._lines import Lines
from ohmloop.crossbar._network import solve
from ohmloop.crossbar._transfer import transfer_matrix
from ohmloop.crossbar._wires import Wires


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("ohms", [(1.0, 2.0), (0.0, 2.0), (1.0, 0.0), (0.0, 0.0), (1.0, torch.inf)])
def test_lapack_loop_and_doubling_agree(ohms: tuple[float, float], n: int, axis: int) -> None:
    generator = torch.Generator().manual_seed(n)
    shape = (2, n, 3) if axis == 1 else (2, 3, n)
    leak = torch.rand(shape, generator=generator, dtype=torch.float64)
    leak.select(axis, n // 2)[0] = 0.0
    if n > 1 or ohms[1] != torch.inf:
        lines = Lines.of(leak, axis, *ohms)
        b = torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
        by_lapack = lines.solve(b)
        for way in (lines._loop, lines._doubling):
            assert torch.allclose(way(b, torch.empty_like(b)), by_lapack, rtol=1e-13, atol=0)
        # Kirchhoff's law at every node, and T^-1 T = 1.
        assert lines.missing(by_lapack, b - leak[..., None] * by_lapack).max() < 1e-13
        assert torch.allclose(lines.solve(lines.times(by_lapack)), by_lapack, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_line_equals_its_nodal_matrix(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    leak = torch.rand(1, 1, n, generator=generator, dtype=torch.float64)
    matrix, pair = torch.diag(leak[0, 0]), torch.eye(2, dtype=torch.float64)
    for k in range(n - 1):
        matrix[k : k + 2, k : k + 2] += (pair - pair.flip(0)) / 0.3
    matrix[-1, -1] += 1 / 0.7
    b = torch.rand(n, generator=generator, dtype=torch.float64)
    found = Lines.of(leak, 2, 0.3, 0.7).solve(b[None, None, :, None])
    assert torch.allclose(found.flatten(), torch.linalg.solve(matrix, b), rtol=1e-12, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    g = 1e-4 * torch.rand(3, 40, 30, generator=generator, dtype=torch.float64)
    v = torch.randn(3, 5, 40, generator=generator, dtype=torch.float64)
    wires = Wires(row=1.0, column=2.0, source=30.0, sense=4.0)
    for v0 in (None, 0.5):
        there = solve(g.cuda(), v.cuda(), wires, v0=v0).current.cpu()
        assert torch.allclose(there, solve(g, v, wires, v0=v0).current, rtol=1e-10, atol=1e-18)
    there = transfer_matrix(g.cuda(), wires).cpu()
    assert torch.allclose(there, transfer_matrix(g, wires), rtol=1e-10, atol=1e-18)
