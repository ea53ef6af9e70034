"""What each device of a fleet says about each input: classes, not scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.errors import ConversionError
from ohmloop.nn._batched import FleetRunner
from ohmloop.nn._convert import analog_parameters
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._draw import budget_of
from ohmloop.nn._scoring import (
    _chunks,
    _samples,
    deployed_statistics,
    evaluating,
    nominal_batch,
    placed,
)
from ohmloop.progress import Progress, ProgressEvent, silent

NOT_FINITE = -1
"""Class of an input whose outputs on a device are not all finite numbers."""
Classes = NDArray[np.int32]


def predict(model: nn.Module, x: Tensor) -> Classes:
    """Return the classes ``n`` that ``model`` as it stands gives to inputs ``n x ...``, in eval mode.

    Its nominal weights count, or the chip that it was programmed to be. `NOT_FINITE` where outputs are not
    finite.
    """
    place = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        parts = [
            _classes(model(part.to(place)).unsqueeze(0))[0]
            for part in torch.split(x, nominal_batch(x))
        ]
        return np.asarray(torch.cat(parts).cpu().numpy())


def predict_fleet(
    model: nn.Module,
    x: Tensor,
    draw: Callable[[Sequence[int]], dict[str, Tensor]],
    *,
    n_devices: int,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    memory_budget: int | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Classes:
    """Return the class that each of many devices gives to each input, ``N x n``.

    The model is evaluated in eval mode and left as it was.

    Args:
        model: An analog model whose outputs are ``B x classes``.
        x: Inputs ``n x ...``.
        draw: From the numbers of some devices to parameter name -> ``N x *shape``, what they hold.
        n_devices: Size of the fleet; devices are numbered from 0.
        deployment: What each device gets beside its weights; nothing by default. How arrays are averaged,
            and gains divided out, is up to ``draw``.
        unlabelled: Inputs ``k x ...`` for deployments that show devices some.
        memory_budget: Bytes that drawn weights, and activations, may take together; by default 512 MiB, on
            a GPU half of what is free there.
        batch_size: Inputs at once; by default all that fit.
        progress: Told after each chunk of devices.

    Raises:
        ConversionError: If there is no input or no device, or outputs are not ``B x classes``.
    """
    if len(x) == 0 or n_devices < 1:
        raise ConversionError(
            f"a fleet needs at least one device and one input; received {n_devices} devices, "
            f"{len(x)} inputs."
        )
    deployment = deployment or Deployment()
    place = next(model.parameters()).device
    samples = _samples(deployment, unlabelled, place)
    memory_budget = budget_of(place, memory_budget)
    (x,) = placed([x], place, memory_budget)
    out = np.empty((n_devices, len(x)), dtype=np.int32)
    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        stack.enter_context(deployed_statistics(model, deployment, unlabelled, nominal_batch(x)))
        run = FleetRunner(model, frozenset(analog_parameters(model)), deployment)
        n_samples = 0 if samples is None else len(samples)
        chunk, batch = _chunks(
            model, x, place, n_devices, memory_budget, batch_size, n_samples, deployment
        )
        for start in range(0, n_devices, chunk):
            devices = range(start, min(start + chunk, n_devices))
            stacked = draw(devices)
            calibrated = None if samples is None else run.calibrate(stacked, samples)
            parts = [
                _classes(run(stacked, x[first : first + batch].to(place), calibrated))
                for first in range(0, len(x), batch)
            ]
            out[devices.start : devices.stop] = torch.cat(parts, 1).cpu().numpy()
            progress(ProgressEvent("devices", devices.stop, n_devices))
    return out


def _classes(out: Tensor) -> Tensor:
    """Return the classes ``N x B`` of outputs ``N x B x C``."""
    if out.ndim != 3:
        raise ConversionError(
            f"classes are read from outputs of inputs x classes; the model gave {tuple(out.shape[1:])}."
        )
    best = out.argmax(-1)
    finite = torch.isfinite(out).all(-1)
    return torch.where(finite, best, NOT_FINITE).to(torch.int32)
