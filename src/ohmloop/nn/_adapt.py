"""Digital low-rank adapters beside analog layers, trained on one device (after Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import ConversionError
from ohmloop.nn._attention import calling_parts
from ohmloop.nn._convert import ANALOG_TYPES

Adapters = dict[str, tuple[Tensor, Tensor]]
"""Layer name -> (down ``r x in x *kernel``, up ``out x r``)."""

LEARNING_RATE = 1e-2
_SEED = 7


def analog_layers(model: nn.Module, names: frozenset[str]) -> dict[str, nn.Module]:
    """Return the Linear and convolution modules whose weight is analog, tied ones included, by name.

    Args:
        model: The network.
        names: Its analog parameters; a tied one stands there under its first name only.
    """
    held = {id(p) for name, p in model.named_parameters() if name in names}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, ANALOG_TYPES) and id(module.weight) in held
    }


def train_adapters(
    model: nn.Module,
    names: frozenset[str],
    samples: Tensor,
    forward: Callable[[Tensor, Adapters], Tensor],
    *,
    rank: int,
    steps: int,
) -> Adapters:
    """Return adapters that bring a device's outputs on ``samples`` near the nominal network's.

    The loss is the mean squared difference of the outputs over their nominal variance; Adam at
    `LEARNING_RATE`; adapters start at zero effect, from a fixed seed.

    Args:
        model: With its nominal weights.
        names: The analog parameters.
        samples: Unlabelled inputs ``k x ...``.
        forward: From inputs and adapters to the device's outputs.
        rank: Of each adapter, cut to what a layer can have.
        steps: Of Adam, each over all samples.
    """
    with torch.no_grad():
        target = model(samples)
        scale = target.var().clamp_min(1e-12)
    adapters = _fresh(model, names, rank)
    if not adapters:
        raise ConversionError(
            "adapters stand beside analog Linear layers and convolutions without groups, and the model has "
            "none; set adapter_rank=0."
        )
    learned = [p for pair in adapters.values() for p in pair]
    optimiser = torch.optim.Adam(learned, lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(steps):
            loss = (forward(samples, adapters) - target).square().mean() / scale
            optimiser.zero_grad(set_to_none=True)
            # The model's own digital parameters must not be left with gradients.
            torch.autograd.backward(loss, inputs=learned)
            optimiser.step()
    return {name: (down.detach(), up.detach()) for name, (down, up) in adapters.items()}


def _fresh(model: nn.Module, names: frozenset[str], rank: int) -> Adapters:
    generator = torch.Generator().manual_seed(_SEED)
    out: Adapters = {}
    for name, module in analog_layers(model, names).items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1:
            continue  # A depthwise kernel has rank one already: a gain by channel is its adapter.
        r = min(rank, weight.shape[0], weight[0].numel())
        down = torch.randn(r, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        up = torch.zeros(weight.shape[0], r)
        out[name] = (
            down.to(weight).requires_grad_(True),
            up.to(weight).requires_grad_(True),
        )
    return out


@contextmanager
def adapted(model: nn.Module, adapters: Adapters) -> Iterator[None]:
    """While active, each adapted layer gives its output plus its adapter's."""
    handles = []
    for name, module in model.named_modules():
        if name not in adapters:
            continue
        down, up = adapters[name]

        def hook(
            module: nn.Module,
            inputs: tuple[Tensor, ...],
            out: Tensor,
            down: Tensor = down,
            up: Tensor = up,
        ) -> Tensor:
            return out + _low_rank(module, inputs[0], down, up)

        handles.append(module.register_forward_hook(hook))
    try:
        with calling_parts(model, adapters):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _low_rank(module: nn.Module, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return F.linear(F.linear(x, down), up)
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    convolve = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
    # The layer's own padding mode lives in its _conv_forward; adapters pad with zeros.
    middle = convolve(x, down, None, module.stride, module.padding, module.dilation)
    return convolve(middle, up.reshape(*up.shape, *[1] * (down.ndim - 2)))
