"""What is done to a device after it was programmed: digital corrections, averaging of arrays, adapters.

A network's weights are the same for every device; what a device makes of them is not. Digital scale and
offset behind each column of an array cost nothing new: accelerators have them for their converters.
`Deployment` says what they are set by:

* ``batch-norm``: running statistics of batch norm estimated anew on each device (Joshi et al., Nat. Commun.
  11, 2473 (2020): "adaptive batch normalisation statistics"; idea of Li et al., arXiv 1603.04779).
* ``channel``: after each analog layer a gain and an offset for each channel, so that mean and deviation over
  the samples are those of the nominal network on the same samples. It works for networks without batch norm
  or with it folded, reaches the logits, and the choice of samples cancels. Where there is batch norm that a
  training under noise has left with statistics of noisy weights (`mark_noisy_statistics`), they are replaced by
  the nominal weights' on all the unlabelled inputs, the same for every device.
* ``readout``: ``channel``, and behind it a digital matrix of outputs x outputs on each device: the ridge
  regression from its outputs on the samples to the nominal network's, shrunk towards the identity. It mixes
  what neither gain nor offset can, at the cost of (number of outputs)^2 digital products an input.
* ``layer``: one gain for each analog layer, by the ratio of deviations.
* ``norm``: gain and offset for each channel behind LayerNorm, GroupNorm and RMSNorm modules, in the same way.

All of these see k unlabelled inputs on each device (one pass), and the nominal network's statistics on the
same inputs, which are computed once for all devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ohmloop.errors import ConversionError
from ohmloop.nn._adapt import analog_layers
from ohmloop.nn._attention import calling_parts
from ohmloop.nn._batch_norm import BATCH_NORMS, in_mode, normalises_batches
from ohmloop.nn._conv import CONVS
from ohmloop.nn._deployment import Calibration, Deployment
from ohmloop.nn._forms import has_channels
from ohmloop.nn._transposed import TRANSPOSED

MAX_GAIN = 1e3
"""A channel that is nearly constant on a device would ask for an endless gain; converters end before."""


def sites(
    model: nn.Module, calibration: Calibration, analog: frozenset[str]
) -> dict[str, nn.Module]:
    """Return the modules that a calibration corrects, by name; ConversionError if there is none.

    Args:
        model: The network.
        calibration: Not "none".
        analog: Names of its analog parameters.
    """
    found = {}
    layers = analog_layers(model, analog)
    for name, module in model.named_modules():
        if calibration == "batch-norm":
            fits = isinstance(module, BATCH_NORMS) and module.track_running_stats
        elif calibration == "norm":
            fits = (
                isinstance(module, nn.LayerNorm | nn.GroupNorm)
                or "RMSNorm" in type(module).__name__
            )
        else:
            fits = name in layers or has_channels(module)
        if fits:
            found[name] = module
    if not found:
        wanted = {
            "batch-norm": "batch norm with running statistics",
            "norm": "LayerNorm, GroupNorm or RMSNorm",
        }.get(calibration, "analog Linear or convolution")
        raise ConversionError(
            f'calibration "{calibration}" corrects {wanted}, and the model has none; "channel" works for '
            "any network with analog layers."
        )
    return found


def channel_axis(module: nn.Module, out: Tensor) -> int:
    """Return the axis of channels in a module's outputs ``N x B x ...``, counted as in ``B x ...``.

    The last, but of convolutions and of norms over groups and batches; and of norms whose gains fit the first
    and not the last: layer norm of pictures with channels first (ConvNeXt).
    """
    if isinstance(module, (*CONVS, *TRANSPOSED, nn.GroupNorm, *BATCH_NORMS)):
        return 1
    gains = getattr(module, "weight", None)
    if not isinstance(gains, Tensor) or gains.ndim != 1 or out.ndim < 4:
        return -1
    return 1 if out.shape[2] == len(gains) != out.shape[-1] else -1


class Statistics:
    """Mean and deviation by channel of each site's outputs, in the order of its calls."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        self._calls: dict[str, int] = {}

    def start(self) -> None:
        """Begin a forward pass."""
        self._calls.clear()

    def key(self, name: str) -> tuple[str, int]:
        """Return the key of this call of a site; a module may be called several times in one pass."""
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        return name, call


RIDGE = 0.1
"""Weight of the pull towards the identity, over the mean eigenvalue of the outputs' covariance.

Chosen on validation data of the digits MLP; a tenth of it does as well."""
MAX_READOUT = 8192
"""Outputs that a readout may mix: its matrix, solved in double precision, takes 512 MiB there."""


def check_deployment(
    model: nn.Module, deployment: Deployment, analog: frozenset[str], inputs: Tensor
) -> None:
    """Raise ConversionError if devices of a network could not be deployed so.

    Args:
        model: The network.
        deployment: What its devices are to get.
        analog: Names of its analog parameters.
        inputs: The unlabelled inputs ``k x ...`` that there are.
    """
    if not deployment.sees_inputs:
        return
    if len(inputs) < deployment.samples:
        raise too_few_inputs(deployment, len(inputs))
    if deployment.calibration == "none":
        return
    kind: Calibration = "channel" if deployment.calibration == "readout" else deployment.calibration
    sites(model, kind, analog)
    if deployment.calibration == "readout":
        with in_mode(model, training=False), torch.no_grad():
            check_outputs(model(inputs[:1].to(next(model.parameters()).device)).shape[-1])


def too_few_inputs(deployment: Deployment, found: int) -> ConversionError:
    """Return the error of a deployment that needs more unlabelled inputs than there are."""
    way = f"{deployment.calibration}:samples={found}" if found >= 2 else "none"
    return ConversionError(
        f'deployment "{deployment}" shows each device {deployment.samples} unlabelled inputs; received '
        f'{found}. Give more (unlabelled=..., inputs of the training data), or the deployment "{way}".'
    )


def fits_readout(size: int) -> bool:
    """Return whether a readout may mix so many outputs."""
    return size <= MAX_READOUT


def check_outputs(size: int) -> None:
    """Raise ConversionError if a readout of so many outputs would be too large."""
    if not fits_readout(size):
        raise ConversionError(
            f'"readout" mixes outputs by a matrix of {size} x {size}; at most {MAX_READOUT} outputs are '
            'supported. Use the deployment "channel".'
        )


def readout(out: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what brings a device's outputs near the nominal network's: (matrix, centre, mean target).

    Minimises |(Y - mean Y) A - (T - mean T)|^2 + lambda |A - 1|^2 for each device (ridge regression, Hoerl &
    Kennard 1970, with its prior mean at the identity).

    Args:
        out: Outputs ``N x k x ... x C`` of N devices on k samples; positions (of a text) count as samples.
        target: The nominal network's ``k x ... x C``.

    Raises:
        ConversionError: If there are more than `MAX_READOUT` outputs.
    """
    check_outputs(out.shape[-1])
    out, target = out.flatten(1, -2), target.flatten(0, -2)
    centre, mean = out.mean(1, keepdim=True), target.mean(0)
    y, t = (out - centre).double(), (target - mean).double()
    count, size = y.shape[1:]
    scale = RIDGE * y.square().sum((1, 2)).div(size).clamp_min(_TINY)[:, None, None]
    change = t - y  # of the outputs: the matrix is the identity and what brings this about
    if count < size:  # (Y'Y + s)^-1 Y' = Y' (YY' + s)^-1: the smaller system
        gram = y @ y.transpose(1, 2) + scale * torch.eye(count, dtype=y.dtype, device=y.device)
        matrix = y.transpose(1, 2) @ torch.linalg.solve(gram, change)
    else:
        gram = y.transpose(1, 2) @ y + scale * torch.eye(size, dtype=y.dtype, device=y.device)
        matrix = torch.linalg.solve(gram, y.transpose(1, 2) @ change)
    matrix.diagonal(dim1=1, dim2=2).add_(1.0)
    return matrix.to(out.dtype), centre, mean


def moments(out: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of ``N x B x ...`` by device and channel, shaped to broadcast."""
    ax = axis + 1 if axis >= 0 else out.ndim + axis
    over = [d for d in range(1, out.ndim) if d != ax]
    variance, mean = torch.var_mean(out, over, correction=0, keepdim=True)
    return mean, variance


class Corrector:
    """The corrections of some devices: measured in one pass over their samples, then applied.

    Outputs come as ``N x B x ...``. While ``measuring``, each site's correction is computed from the very
    outputs that it then corrects, so later sites are measured behind corrected earlier ones.

    Args:
        calibration: Not "none".
        nominal: Mean and variance by channel of the nominal network's sites; not needed for batch norm.
    """

    def __init__(self, calibration: Calibration, nominal: Statistics | None) -> None:
        self.calibration = calibration
        self.measuring = True
        self._nominal = nominal
        self._own = Statistics()

    def start(self) -> None:
        """Begin a forward pass."""
        self._own.start()

    def __call__(self, name: str, module: nn.Module, out: Tensor) -> Tensor:
        """Return the corrected outputs ``N x B x ...`` of a site (of batch norm: of its inputs)."""
        key = self._own.key(name)
        if self.measuring:
            self._own.values[key] = self._measure(key, module, out)
        elif key not in self._own.values:
            # A text grows during decoding; later calls are corrected as the last one that was measured.
            measured = [k for k in self._own.values if k[0] == name]
            if not measured:
                return out  # The samples never went through this layer: nothing is known of it.
            key = max(measured)
        gain, offset = self._own.values[key]
        return out * gain + offset

    def _measure(
        self, key: tuple[str, int], module: nn.Module, out: Tensor
    ) -> tuple[Tensor, Tensor]:
        mean, variance = moments(out, channel_axis(module, out))
        if isinstance(module, BATCH_NORMS):
            gain = torch.rsqrt(variance + module.eps)
            return gain, -mean * gain
        assert self._nominal is not None
        wanted_mean, wanted = self._nominal.values[key]
        if self.calibration == "layer":
            over = list(range(1, out.ndim))
            # Variance within channels, averaged over them: the offsets between channels are no signal.
            gain = (wanted.mean() / variance.mean(over, keepdim=True).clamp_min(_TINY)).sqrt()
            return gain.clamp_max(MAX_GAIN), torch.zeros_like(gain)
        # Where a channel is constant the root would have no derivative, and training under `matching` none.
        varies = (variance > _TINY) & (wanted > _TINY)
        ratio = torch.where(varies, wanted / variance.clamp_min(_TINY), 1.0)
        gain = torch.where(varies, ratio.sqrt().clamp_max(MAX_GAIN), (variance <= _TINY).to(out))
        return gain, wanted_mean - mean * gain


_TINY = 1e-12


class Recorder:
    """Notes the nominal network's mean and variance by channel at each site; changes nothing."""

    def __init__(self) -> None:
        self.statistics = Statistics()

    def start(self) -> None:
        """Begin a forward pass."""
        self.statistics.start()

    def __call__(self, name: str, module: nn.Module, out: Tensor) -> Tensor:
        """Note and return ``N x B x ...``."""
        self.statistics.values[self.statistics.key(name)] = moments(out, channel_axis(module, out))
        return out


@contextmanager
def corrected(
    model: nn.Module, places: Mapping[str, nn.Module], apply: Corrector | Recorder
) -> Iterator[None]:
    """While active, one device's forward pass goes through ``apply`` at the given sites."""
    changed: list[tuple[nn.Module, object]] = []

    def patch(name: str, module: nn.Module) -> None:
        original = module.forward
        before = module.__dict__.get("forward")

        def forward(x: Tensor, *rest: object) -> Tensor:
            if isinstance(module, BATCH_NORMS):
                return affine(module, apply(name, module, x.unsqueeze(0))).squeeze(0)
            out: Tensor = original(x, *rest)
            return apply(name, module, out.unsqueeze(0)).squeeze(0)

        module.__dict__["forward"] = forward
        changed.append((module, before))

    try:
        for name, module in places.items():
            patch(name, module)
        with calling_parts(model, places):
            yield
    finally:
        for module, before in reversed(changed):
            put_back(module, before)


def put_back(module: nn.Module, before: object) -> None:
    """Give a module the instance's own ``forward`` that it had, None for its class's."""
    if before is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = before


def affine(module: nn.Module, x: Tensor) -> Tensor:
    """Return ``x`` of ``N x B x C x ...`` times weight plus bias of a batch norm."""
    shape = [1] * x.ndim
    shape[2] = x.shape[2]
    weight, bias = module.weight, module.bias
    if isinstance(weight, Tensor):
        x = x * weight.reshape(shape)
    if isinstance(bias, Tensor):
        x = x + bias.reshape(shape)
    return x


@contextmanager
def matching(model: nn.Module, names: frozenset[str], x: Tensor) -> Iterator[None]:
    """While active, a pass over ``x`` is corrected as the calibration "channel" corrects a device.

    The nominal network's statistics on ``x`` are taken first; they carry gradients (the scale of outputs would
    not be learned otherwise), as do those of the pass itself, as in batch norm. Networks whose batch norms are
    all in training mode are left as they are: these do the same.

    Args:
        model: In training, with its nominal weights.
        names: Its analog parameters.
        x: The batch ``B x ...`` that the pass will see.
    """
    if normalises_batches(model):
        yield
        return
    places = sites(model, "channel", names)
    recorder = Recorder()
    with corrected(model, places, recorder):
        model(x)
    with corrected(model, places, Corrector("channel", recorder.statistics)):
        yield
