"""Programming pulse by pulse: read, compare, pulse up or down, until within tolerance or out of budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ohmloop.errors import DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ohmloop.device._physics import Physics


class WriteResult(NamedTuple):
    """What write-verify left behind, cell by cell, all of the target's shape.

    Attributes:
        conductance: In siemens.
        pulses: How many pulses a cell took, int64.
        energy: Of these pulses, in joules; NaN where the device's source gives no energy.
        converged: Whether the last reading lay within tolerance.
    """

    conductance: Tensor
    pulses: Tensor
    energy: Tensor
    converged: Tensor


def write_verify(
    physics: Physics,
    target: Tensor,
    generator: torch.Generator | Callable[[], Tensor],
    *,
    tolerance: float,
    max_pulses: int,
    mask: Tensor | None,
    cell: Tensor | None,
    start: Tensor | None,
) -> WriteResult:
    """Program ``target``; see `Physics.write_verify`.

    Each turn draws its normals for all cells, so a cell's history does not depend on when others finish, and
    a tighter tolerance only continues the history of a looser one.
    """
    import torch

    _check(physics, target, tolerance, max_pulses, cell)
    draw = generator if callable(generator) else _normals(target, generator)
    with torch.no_grad():
        wanted = physics.quantised(target)
        window, steps = _factors(physics, target, cell)
        held = torch.full_like(wanted, physics.g_min) if start is None else start.clone()
        held = physics.stuck(held * window if start is None else held, mask)
        moves = torch.ones_like(held, dtype=torch.bool) if mask is None else mask == 0
        done = torch.zeros_like(moves)
        pulses = torch.zeros_like(held, dtype=torch.int64)
        energy = torch.zeros_like(held)
        for turn in range(max_pulses + 1):
            error = wanted - (held + physics.verify_std(held) * draw())
            done |= error.abs() <= tolerance * physics.window
            if turn == max_pulses or bool(done.all()):
                break
            up, active = error > 0, ~done
            energy += torch.where(active, _pulse_energy(physics, held, up), 0.0)
            pulses += active
            moved = _pulse(physics, held / window, up, steps, draw()) * window
            held = torch.where(active & moves, moved, held)
    return WriteResult(held, pulses, energy, done)


def _pulse(physics: Physics, held: Tensor, up: Tensor, steps: Tensor | float, n: Tensor) -> Tensor:
    """Return the conductances after one pulse, kept inside the window."""
    assert physics.pulses is not None
    step = physics.pulses.step(held, up, physics.g_min, physics.g_max)
    moved = held + steps * (step.mean + step.std * n)
    return moved.clamp(physics.g_min, physics.g_max)


def _pulse_energy(physics: Physics, held: Tensor, up: Tensor) -> Tensor:
    """Return the energy of one pulse on each cell, in joules."""
    import torch

    if physics.pulse_energy is not None:
        return torch.full_like(held, physics.pulse_energy)
    if None in (physics.set_voltage, physics.reset_voltage, physics.pulse_width):
        return torch.full_like(held, math.nan)
    assert physics.set_voltage is not None
    assert physics.reset_voltage is not None
    assert physics.pulse_width is not None
    square = torch.where(up, physics.set_voltage**2, physics.reset_voltage**2)
    return square.to(held.dtype) * physics.pulse_width * held


def _factors(
    physics: Physics, target: Tensor, cell: Tensor | None
) -> tuple[Tensor | float, Tensor | float]:
    """Return each cell's factor on its conductances and on its steps."""
    if cell is None:
        return 1.0, 1.0
    return (
        (physics.variation.window * cell[0]).exp(),
        (physics.variation.steps * cell[1]).exp(),
    )


def _normals(target: Tensor, generator: torch.Generator) -> Callable[[], Tensor]:
    import torch

    def draw() -> Tensor:
        return torch.randn(
            target.shape, generator=generator, dtype=target.dtype, device=target.device
        )

    return draw


def _check(
    physics: Physics, target: Tensor, tolerance: float, max_pulses: int, cell: Tensor | None
) -> None:
    if physics.pulses is None:
        raise DeviceError(
            "write-verify needs the device's pulse response, and its source gives none. Program "
            'statistically (method "statistical"), or fit pulse trains to the device.'
        )
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise DeviceError(f"tolerance is a share of the window above 0; received {tolerance!r}.")
    if max_pulses < 1:
        raise DeviceError(f"max_pulses is at least 1; received {max_pulses!r}.")
    if cell is not None and cell.shape != (2, *target.shape):
        raise DeviceError(
            f"cell holds two normals a cell, shape {(2, *target.shape)}; received {tuple(cell.shape)}."
        )
