"""What a run asked of a layer: its products, and how strongly its inputs drove what was programmed."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmloop.crossbar._costs import Costs
from ohmloop.crossbar._count import LayerUse, count_arrays, read_voltage
from ohmloop.crossbar._mvm import Programmed
from ohmloop.errors import ConversionError


def measure_layer(
    name: str,
    programmed: Programmed,
    x: Tensor,
    *,
    inferences: int = 1,
    bias: bool = False,
    costs: Costs | None = None,
) -> LayerUse:
    """Return how a layer was used: measured on its inputs and on what was programmed, mean of the chips.

    The power is that of V times I(V) in every cell: V^2 G where cells are ohmic, V G v0 sinh(V / v0) where they
    are not; pulse-width inputs are on at full scale for their share of the window. Drops along wires are left
    out, which makes the power an upper bound.

    Args:
        name: Of the layer.
        programmed: Its matrix on N chips.
        x: What the layer received, ``P x in`` or ``N x P x in``.
        inferences: How many inferences these inputs stand for (the batch); P / inferences products each.
        bias: Whether a bias is added digitally.
        costs: For the read voltage of a device that states none; the defaults if None.

    Raises:
        ConversionError: If there are no inputs, or fewer than one inference.
    """
    n_out, n_in = programmed.planes[0].weight.shape[1:]
    fits = x.ndim in (2, 3) and x.shape[-1] == n_in and x.shape[-2] > 0
    if not fits or inferences < 1:
        raise ConversionError(
            f'layer "{name}": energy is measured on inputs `P x {n_in}` of at least one inference; received '
            f"shape {tuple(x.shape)} for {inferences} inferences."
        )
    volts = read_voltage(programmed.physics, costs or Costs())
    with torch.no_grad():
        share = _shares(x, programmed).double()
        watts_per_siemens, drive = _activity(share, programmed, volts)
        held = programmed.row_conductance.double()  # N x in
        power = float((watts_per_siemens * held).sum(-1).mean())
    use = LayerUse(
        name=name,
        n_out=n_out,
        n_in=n_in,
        products=x.shape[-2] / inferences,
        bias=bias,
        array_power=power,
        drive=drive,
        pulses=None if programmed.pulses is None else float(programmed.pulses.double().mean()),
        programming_energy=None if programmed.energy is None else float(programmed.energy.mean()),
    )
    cells = count_arrays(use, programmed.array).cells
    return use.model_copy(update={"mean_conductance": float(held.sum(-1).mean()) / cells})


def _shares(x: Tensor, programmed: Programmed) -> Tensor:
    """Return what the rows are driven at, as a share of full scale, in the shape of ``x``."""
    driven, full = programmed._drive(x, None, noise=False)
    if full is not None:
        return driven
    return driven / driven.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(driven.dtype).tiny)


def _activity(share: Tensor, programmed: Programmed, volts: float) -> tuple[Tensor, float]:
    """Return the watts that one siemens takes on each row, ``(N x) in``, and the mean drive."""
    v0 = programmed.physics.v0
    if programmed.array.encoding == "pulse-width":
        on = share.abs().mean(-2)
        full = share.new_tensor(volts)
        current = full if v0 is None else v0 * torch.sinh(full / v0)
        return on * volts * current, float(on.mean())
    v = share * volts
    current = v if v0 is None else v0 * torch.sinh(v / v0)
    return (v * current).mean(-2), float(share.square().mean())
