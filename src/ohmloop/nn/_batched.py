"""A fleet as one forward pass: the devices ride along in the batch dimension.

The rows of the batch are ordered device-major (row ``n * B + b`` is input b on device n), or, where a
convolution comes first, input-major (row ``b * N + n``): each is the order that its first layer writes
without a copy. Digital layers see a larger batch and stay as they are. Analog layers know their N
weights: a Linear is one batched matrix product; a convolution of inputs that all devices share is one
product with the unfolded input; any other convolution runs device by device inside the layer, or, on a
GPU, as one convolution whose groups are the devices (of inputs that all share: whose outputs are). Max
pooling over whole windows is done by slices, which is exact and several times faster on a CPU than
the library's kernel. Devices that go one by one see pictures with their channels last, where the network
takes them so: on a CPU normalisation, depthwise convolutions and pooling are vectorised over channels.

`FleetRunner` uses this where it applies, checks it once per model against one device at a time,
and else falls back to `torch.func.vmap`, or to one device at a time where devices are corrected one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ohmloop.nn._adapt import Adapters, adapted, train_adapters
from ohmloop.nn._batch_norm import BATCH_NORMS
from ohmloop.nn._convert import ANALOG_TYPES
from ohmloop.nn._deploy import (
    Corrector,
    Recorder,
    Statistics,
    affine,
    corrected,
    put_back,
    readout,
    sites,
)
from ohmloop.nn._deployment import Calibration, Deployment
from ohmloop.nn._layer import AnalogLayer
from ohmloop.nn._rows import Rows, max_pool, stacked_rows

_CHECK_INPUTS = 3
_CHECK_DEVICES = 2


class Calibrated(NamedTuple):
    """What was set on some devices: one corrector for all in one batch, or one for each device."""

    together: Corrector | None
    each: list[tuple[Corrector | None, Adapters | None]]
    readout: tuple[Tensor, Tensor, Tensor] | None


class FleetRunner:
    """Runs batches through many devices of one model, by the fastest way that is right for it.

    Args:
        model: In eval mode.
        names: The analog parameters.
        deployment: What each device gets beside its weights.
    """

    def __init__(
        self, model: nn.Module, names: frozenset[str], deployment: Deployment | None = None
    ) -> None:
        self._model = model
        self._names = names
        self._layers = layers_of_law(model, names)
        self._batched: bool | None = None if self._layers is not None else False
        self._vmaps = True
        self._channels_last: bool | None = None
        self._deployment = deployment or Deployment()
        self._reads_out = self._deployment.calibration == "readout"
        self._kind: Calibration = "channel" if self._reads_out else self._deployment.calibration
        self._sites = sites(model, self._kind, names) if self._kind != "none" else {}
        self._nominal: Statistics | None = None

    def calibrate(self, stacked: dict[str, Tensor], samples: Tensor) -> Calibrated | None:
        """Set the deployment's corrections for devices ``N x *shape`` from unlabelled ``k x ...``."""
        if not self._deployment.sees_inputs:
            return None
        found = self._calibrate(stacked, samples)
        if not self._reads_out:
            return found
        return found._replace(readout=readout(self(stacked, samples, found), self._model(samples)))

    def _calibrate(self, stacked: dict[str, Tensor], samples: Tensor) -> Calibrated:
        kind, n = self._kind, len(next(iter(stacked.values())))
        if self._nominal is None and kind not in ("none", "batch-norm"):
            recorder = Recorder()
            with corrected(self._model, self._sites, recorder):
                self._model(samples)
            self._nominal = recorder.statistics
        if self._batched is None:
            self._batched = n > 1 and self._agrees(stacked, samples)
        if self._batched and n > 1 and not self._deployment.adapter_rank:
            corrector = Corrector(kind, self._nominal)
            self._run(stacked, samples, corrector)
            corrector.measuring = False
            return Calibrated(corrector, [], None)
        each = [self._calibrate_one(pick(stacked, k), samples) for k in range(n)]
        return Calibrated(None, each, None)

    def _calibrate_one(
        self, weights: dict[str, Tensor], samples: Tensor
    ) -> tuple[Corrector | None, Adapters | None]:
        corrector = None
        if self._sites:
            corrector = Corrector(self._kind, self._nominal)
            self._one(weights, samples, (corrector, None))
            corrector.measuring = False
        adapters = None
        if self._deployment.adapter_rank:
            adapters = train_adapters(
                self._model,
                self._names,
                samples,
                lambda x, trained: self._one(weights, x, (corrector, trained)),
                rank=self._deployment.adapter_rank,
                steps=self._deployment.adapter_steps,
            )
        return corrector, adapters

    def _one(
        self,
        weights: dict[str, Tensor],
        x: Tensor,
        own: tuple[Corrector | None, Adapters | None],
    ) -> Tensor:
        corrector, adapters = own
        x = self._laid_out(x)
        with ExitStack() as stack:
            if corrector is not None:
                corrector.start()
                stack.enter_context(corrected(self._model, self._sites, corrector))
            if adapters is not None:
                stack.enter_context(adapted(self._model, adapters))
            out: Tensor = functional_call(self._model, weights, (x,))
        return out

    def _laid_out(self, x: Tensor) -> Tensor:
        if self._channels_last is None:
            self._channels_last = takes_channels_last(self._model, x[:_CHECK_INPUTS])
        return x.contiguous(memory_format=torch.channels_last) if self._channels_last else x

    def __call__(
        self, stacked: dict[str, Tensor], x: Tensor, calibrated: Calibrated | None = None
    ) -> Tensor:
        """Return ``N x B x ...`` for weights ``N x *shape`` and inputs ``B x ...``."""
        out = self._forward(stacked, x, calibrated)
        if calibrated is None or calibrated.readout is None:
            return out
        matrix, centre, mean = calibrated.readout
        return ((out.flatten(1, -2) - centre) @ matrix + mean).reshape(out.shape)

    def _forward(
        self, stacked: dict[str, Tensor], x: Tensor, calibrated: Calibrated | None
    ) -> Tensor:
        n = len(next(iter(stacked.values())))
        if calibrated is not None and calibrated.together is None:
            return torch.stack(
                [self._one(pick(stacked, k), x, calibrated.each[k]) for k in range(n)]
            )
        if n == 1:
            return self._one(pick(stacked, 0), x, (None, None)).unsqueeze(0)
        if self._batched is None:
            self._batched = self._agrees(stacked, x)
        if not self._batched:
            return self._general(stacked, x)
        return self._run(stacked, x, None if calibrated is None else calibrated.together)

    def _general(self, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
        if self._vmaps:
            try:
                return by_vmap(self._model, stacked, x)
            except RuntimeError:
                # The network looks at values (a number read out, a branch): devices go one by one.
                self._vmaps = False
        n = len(next(iter(stacked.values())))
        return torch.stack([self._one(pick(stacked, k), x, (None, None)) for k in range(n)])

    @contextmanager
    def installed(
        self, weights: dict[str, Tensor], calibrated: Calibrated | None
    ) -> Iterator[None]:
        """While active, the model itself is one device (the first of ``calibrated``)."""
        corrector, adapters = (None, None) if calibrated is None else calibrated.each[0]
        with ExitStack() as stack:
            if corrector is not None:
                stack.enter_context(corrected(self._model, self._sites, corrector))
                handle = self._model.register_forward_pre_hook(lambda m, x: corrector.start())
                stack.callback(handle.remove)
            if adapters is not None:
                stack.enter_context(adapted(self._model, adapters))
            if calibrated is not None and calibrated.readout is not None:
                matrix, centre, mean = calibrated.readout
                handle = self._model.register_forward_hook(
                    lambda m, x, out: (out - centre[0]) @ matrix[0] + mean
                )
                stack.callback(handle.remove)
            stack.enter_context(put_in(self._model, weights))
            yield

    def _run(
        self, stacked: dict[str, Tensor], x: Tensor, corrector: Corrector | None = None
    ) -> Tensor:
        assert self._layers is not None
        n = len(next(iter(stacked.values())))
        first = next(iter(self._layers.values()))
        rows = Rows(n, len(x), device_major=isinstance(first, nn.Linear))
        if corrector is not None:
            corrector.start()
        with _patched(self._model, self._layers, stacked, rows, self._sites, corrector):
            out: Tensor = self._model(x)
        return rows.split(out)

    def _agrees(self, stacked: dict[str, Tensor], x: Tensor) -> bool:
        """Whether the batched pass gives what each device gives alone, on a few inputs."""
        few = {name: w[:_CHECK_DEVICES] for name, w in stacked.items()}
        # A batch of a size that no tensor of the model is likely to have by chance.
        sample = x[:_CHECK_INPUTS]
        expected = torch.stack(
            [functional_call(self._model, pick(few, k), (sample,)) for k in range(_CHECK_DEVICES)]
        )
        try:
            got = self._run(few, sample)
        except (RuntimeError, IndexError, TypeError, ValueError, AssertionError):
            # The model looks at its batch in a way that a longer one breaks; vmap is general.
            return False
        return alike(got, expected)


def alike(got: Tensor, expected: Tensor) -> bool:
    """Return whether two ways to compute the same outputs differ by rounding only."""
    if got.shape != expected.shape:
        return False
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return bool((got - expected).abs().max() <= room(expected) * scale)


ROOM = {"cpu": 100}
"""By how many eps of the dtype a batched pass may differ from one device's, by type of device.

Elsewhere `ROOM_OF_KERNELS`: cuDNN picks another algorithm for another shape, and Winograd's, in float32,
differs from a plain sum by some hundred eps."""
ROOM_OF_KERNELS = 1000

ROOM_OF_STEPS = 16
"""The same where factors of float32 products are rounded first, in steps of TF32 or bfloat16. Both passes round
the same inputs; what differs is on which side of a step a later activation falls."""


def room(out: Tensor) -> float:
    """Return the largest difference, relative to the largest output, that counts as rounding here and now."""
    step = rounding_step(out.device) if out.dtype == torch.float32 else 0.0
    if step:
        return ROOM_OF_STEPS * step
    return ROOM.get(out.device.type, ROOM_OF_KERNELS) * float(torch.finfo(out.dtype).eps)


def rounding_step(place: torch.device) -> float:
    """Return the relative step that factors of float32 products are rounded to, 0 where they are not.

    Read from `torch.set_float32_matmul_precision` and, on CUDA, from cuDNN's switch, which is on by default.
    """
    tf32, bfloat16 = 2.0**-10, 2.0**-7
    try:
        asked = torch.get_float32_matmul_precision()
        by_cudnn = place.type == "cuda" and torch.backends.cudnn.allow_tf32
    except RuntimeError:  # PyTorch refuses to read what was set by both of its interfaces
        return tf32
    if place.type == "cpu" and asked == "medium":
        return bfloat16
    return tf32 if asked != "highest" or by_cudnn else 0.0


@contextmanager
def put_in(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """While active, parameters of ``model`` hold these values."""
    parameters = dict(model.named_parameters())
    kept = {name: parameters[name].data for name in weights}
    try:
        for name, value in weights.items():
            parameters[name].data = value
        yield
    finally:
        for name, value in kept.items():
            parameters[name].data = value


def by_vmap(model: nn.Module, stacked: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run the fleet through `torch.func.vmap`: slower on a CPU, right for any model."""
    run = vmap(lambda weights: functional_call(model, weights, (x,)), randomness="different")
    out: Tensor = run(stacked)
    return out


def pick(stacked: dict[str, Tensor], device: int) -> dict[str, Tensor]:
    """Return what one device holds."""
    return {name: weights[device] for name, weights in stacked.items()}


def takes_channels_last(model: nn.Module, x: Tensor) -> bool:
    """Return whether a network with 2D convolutions computes the same on a CPU with channels last in memory.

    One that asks for views of a layout of its own (``x.view(len(x), -1)``) refuses.

    Args:
        model: In eval mode.
        x: A few inputs, ``B x channels x height x width``, or others, for which it is False.
    """
    if (
        x.dim() != 4
        or x.device.type != "cpu"
        or not any(isinstance(m, nn.Conv2d) for m in model.modules())
    ):
        return False
    with torch.no_grad():
        expected = model(x)
        try:
            found = model(x.contiguous(memory_format=torch.channels_last))
        except RuntimeError:
            return False
    return alike(found, expected)


def layers_of_law(model: nn.Module, names: frozenset[str]) -> dict[str, nn.Module] | None:
    """Return the layers that hold drawn weights by name, None if one of these is in none of the known types."""
    layers = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, ANALOG_TYPES) and not isinstance(m, AnalogLayer)
    }
    covered = {
        f"{name}.{key}" if name else key
        for name, m in layers.items()
        for key, _ in m.named_parameters(recurse=False)
    }
    # Tied, subclassed or patched layers may be read by other code than the class's own forward.
    if not names <= covered or any(
        type(m) not in ANALOG_TYPES or "forward" in m.__dict__ for m in layers.values()
    ):
        return None
    return {
        name: m
        for name, m in layers.items()
        if any((f"{name}.{key}" if name else key) in names for key in ("weight", "bias"))
    }


@contextmanager
def _patched(
    model: nn.Module,
    layers: dict[str, nn.Module],
    stacked: dict[str, Tensor],
    rows: Rows,
    places: dict[str, nn.Module],
    corrector: Corrector | None,
) -> Iterator[None]:
    changed: list[tuple[nn.Module, object]] = []

    def patch(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        changed.append((module, module.__dict__.get("forward")))
        module.__dict__["forward"] = forward

    try:
        for name, module in layers.items():
            patch(module, stacked_rows(name, module, stacked, rows))
        for module in model.modules():
            if type(module) is nn.MaxPool2d and "forward" not in module.__dict__:
                patch(module, max_pool(module))
        if corrector is not None:
            for name, module in places.items():
                patch(module, corrected_rows(name, module, rows, corrector))
        yield
    finally:
        for module, before in reversed(changed):
            put_back(module, before)


def corrected_rows(
    name: str,
    module: nn.Module,
    rows: Rows,
    corrector: Callable[[str, nn.Module, Tensor], Tensor],
) -> Callable[[Tensor], Tensor]:
    """Return a forward of a module that corrects many devices in one batch."""
    original = module.forward

    def forward(x: Tensor) -> Tensor:
        if isinstance(module, BATCH_NORMS):
            return rows.apply(x, lambda part: affine(module, corrector(name, module, part)))
        return rows.apply(original(x), lambda part: corrector(name, module, part))

    return forward
