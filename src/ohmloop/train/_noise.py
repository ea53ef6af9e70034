"""What a training adds to plain training: masks, noise on weights, a teacher, clipping, converters.

`Noise` is the one record of it. Methods make one, searches choose one, `train_once` applies one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ohmloop.errors import TrainError
from ohmloop.nn import analog_parameters, pretrained_norms
from ohmloop.nn._attention import calling_parts

Distribution = Literal["gaussian", "lognormal", "lognormal-mean-1", "right-censored", "mixture"]
Sharpness = Literal["none", "sam", "asam", "awp"]
Level = Annotated[float, Field(ge=0, lt=20)]


class Noise(BaseModel):
    """What is added during one training: the settings that a method, or its search, arrived at.

    Attributes:
        masks: For each noisy layer (p0, p_half): probabilities of 0 and of 1/2; empty for no masks.
        level: Level of the weight noise, 0 for none.
        distribution: Of the weight noise. "gaussian": w (1 + N(0, level^2)); "lognormal":
            w exp(N(0, level^2)), median 1; "lognormal-mean-1": the same over its mean; "right-censored":
            gaussian whose upper ``censored`` share is set to that quantile; "mixture": in each step
            log-normal (median 1) with probability ``mixture``, else gaussian.
        mixture: See above.
        censored: See above.
        slope: Ratio of the last layer's level to the first's, as its logarithm; geometric in between.
        first: Further factor of the first layer's level.
        last: Further factor of the last layer's level.
        ramp: Share of the epochs over which the level grows linearly from 0.
        spread: Each step's level is ``level |1 + spread N(0, 1)|``.
        clip: After each step weights are cut to this many deviations of their tensor; 0 for not.
        distill: Share of the teacher's term in the loss, [0, 1].
        match: Whether outputs of analog layers are brought to the nominal network's mean and deviation by
            channel within each batch, as the calibration "channel" does on a device. Where all batch norms
            of the network take statistics of the batch, nothing is to be matched.
        frozen_norm: Whether batch norms that come with running statistics keep them, and use them.
        sharpness: Second pass at weights moved uphill: "sam", "asam" (Foret et al. 2021, Kwon et al. 2021),
            "awp" (Wu et al. 2020).
        radius: Of that move.
        tile_drop: Probability that a tile of weights is zero in a step; the others are scaled up.
        tile: Rows and columns of a tile.
        bits: Of quantisers at inputs and outputs of analog layers, with static ranges set in the first
            epoch and gradients passed straight through; 0 for none.
        feedback: Further passes at higher levels whose losses join with falling weights.
        on_chips: Whether each step computes on a freshly programmed chip of the model's arrays, gradients
            passing through programming and reading, straight through rounding (`ohmloop.nn.program`). Weight
            noise, if any, is then what is programmed with. For models on arrays only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    masks: tuple[tuple[float, float], ...] = ()
    level: Level = 0.0
    distribution: Distribution = "gaussian"
    mixture: Annotated[float, Field(ge=0, le=1)] = 0.5
    censored: Annotated[float, Field(gt=0, lt=1)] = 0.3
    slope: float = 0.0
    first: Annotated[float, Field(ge=0)] = 1.0
    last: Annotated[float, Field(ge=0)] = 1.0
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.0
    spread: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 0.0
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    match: bool = False
    frozen_norm: bool = False
    sharpness: Sharpness = "none"
    radius: Annotated[float, Field(ge=0)] = 0.0
    tile_drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tile: Annotated[int, Field(ge=1)] = 16
    bits: Annotated[int, Field(ge=0, le=16)] = 0
    feedback: Annotated[int, Field(ge=0, le=8)] = 0
    on_chips: bool = False

    @property
    def passes(self) -> float:
        """Passes forward and backward of one step."""
        once = (1.0 + self.feedback) * (2 if self.match else 1)
        return once * (2 if self.sharpness != "none" else 1)

    def __str__(self) -> str:
        if self.masks and any(half for _, half in self.masks):
            return "p0 = " + ", ".join(f"{p0:.2f}" for p0, _ in self.masks)
        if self.masks:
            return "rates " + ", ".join(f"{p0:.2f}" for p0, _ in self.masks)
        rest = self.model_dump(exclude_defaults=True, exclude={"level", "masks", "on_chips"})
        parts = ["a fresh chip each step"] if self.on_chips else []
        parts += [f"level {self.level:.3g}"] if self.level else []
        for key, value in rest.items():
            parts.append(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}")
        return ", ".join(parts) or "none"


def frozen_norms(model: nn.Module, noise: Noise) -> list[nn.Module]:
    """Return the batch norms of a network, as a training starts with it, that keep their statistics."""
    return pretrained_norms(model) if noise.frozen_norm else []


def dropout_masks(rates: Sequence[float]) -> Noise:
    """Return dropout with one rate a layer."""
    return Noise(masks=tuple((float(rate), 0.0) for rate in rates))


def multinomial_masks(p0: Sequence[float], p1: Sequence[float] | None = None) -> Noise:
    """Return multinomial noise, one setting a layer, in either parametrisation."""
    if p1 is None:
        return Noise(masks=tuple((float(a), (1 - float(a)) / 2) for a in p0))
    return Noise(
        masks=tuple(
            (float(a), max(0.0, 1 - float(a) - float(b))) for a, b in zip(p0, p1, strict=True)
        )
    )


def noisy_layers(model: nn.Module) -> Sequence[nn.Module]:
    """Return the layers that masks follow: Linear and convolutions, all but the last, in order."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [m for m in model.modules() if isinstance(m, kinds)][:-1]


def draw_mask(like: Tensor, p0: float, p_half: float, generator: torch.Generator) -> Tensor:
    """Draw a mask in {0, 1/2, 1} / mean with the given probabilities of 0 and 1/2.

    The mean is the expected one, p_half / 2 + p1, so that activations keep their expectation.
    """
    u = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    mean = 1 - p0 - p_half / 2
    mask = (u >= p0).to(like.dtype)
    if p_half:
        mask -= 0.5 * ((u >= p0) & (u < p0 + p_half)).to(like.dtype)
    return mask / mean


@contextmanager
def masked(model: nn.Module, noise: Noise, generator: torch.Generator) -> Iterator[None]:
    """While active, multiply the outputs of the noisy layers by fresh masks."""
    handles = []
    if noise.masks:
        layers = noisy_layers(model)
        if len(noise.masks) != len(layers):
            raise TrainError(f"{len(noise.masks)} mask settings for {len(layers)} noisy layers.")
        for layer, (p0, p_half) in zip(layers, noise.masks, strict=True):

            def hook(
                module: nn.Module, inputs: Any, out: Tensor, p0: float = p0, p_half: float = p_half
            ) -> Tensor:
                return out * draw_mask(out, p0, p_half, generator)

            handles.append(layer.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def levels_by_layer(names: Sequence[str], noise: Noise) -> dict[str, float]:
    """Return the level of each analog parameter; those of one layer share theirs."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    out = {}
    for name in names:
        k = layers.index(name.rpartition(".")[0])
        place = k / (len(layers) - 1) - 0.5 if len(layers) > 1 else 0.0
        level = noise.level * math.exp(noise.slope * place)
        level *= noise.first if k == 0 else 1.0
        level *= noise.last if k == len(layers) - 1 else 1.0
        out[name] = level
    return out


def draw_weights(
    model: nn.Module, noise: Noise, generator: torch.Generator, scale: float = 1.0
) -> dict[str, Tensor]:
    """Draw the analog weights of one training step, differentiable in the nominal ones.

    Args:
        model: An analog model.
        noise: Its law.
        generator: Source of the randomness, on the model's device.
        scale: Multiplies all levels (a ramp, or a pass of the feedback).
    """
    parameters = analog_parameters(model)
    levels = levels_by_layer(list(parameters), noise)
    place = next(iter(parameters.values())).device
    size: Number = scale
    if noise.spread:
        z = torch.randn((), generator=generator, device=place)
        size = scale * number((1 + noise.spread * z.double()).abs())
    share: Tensor | None = None
    if noise.distribution == "mixture":
        share = torch.rand((), generator=generator, device=place)
    out = {}
    for name, p in parameters.items():
        weights: Tensor = p
        if levels[name] * scale:
            z = torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
            weights = p * _factors(z, levels[name] * size, noise, share)
        if noise.tile_drop and p.ndim > 1:
            weights = weights * tile_mask(p, noise.tile_drop, noise.tile, generator)
        out[name] = weights
    return out


Number = float | Tensor
"""A number of Python's, or a scalar that stays on its device."""


def number(x: Tensor) -> Number:
    """Return a scalar as a number where that costs nothing, on a CPU; a GPU would have to be waited for.

    In double precision either way, so that what is made of it is the same.
    """
    return float(x) if x.device.type == "cpu" else x.double()


def _factors(z: Tensor, level: Number, noise: Noise, share: Tensor | None) -> Tensor:
    """Return the factors on weights from standard normal numbers, which are overwritten."""
    if share is None:
        return _factor(z, level, noise.distribution, noise.censored)
    return _either(z, level, number(share) < noise.mixture)


def _either(z: Tensor, level: Number, is_log: bool | Tensor) -> Tensor:
    """Return log-normal factors or gaussian ones; both are made where only the device knows which."""
    if isinstance(is_log, Tensor):
        log = _factor(z.clone(), level, "lognormal", 0.0)
        return torch.where(is_log, log, _factor(z, level, "gaussian", 0.0))
    return _factor(z, level, "lognormal" if is_log else "gaussian", 0.0)


def _factor(z: Tensor, level: Number, family: str, censored: float) -> Tensor:
    if family == "gaussian":
        return z.mul_(level).add_(1)
    if family == "right-censored":
        return z.clamp_max_(upper_quantile(censored)).mul_(level).add_(1)
    shift = 0.5 * level**2 if family == "lognormal-mean-1" else 0.0
    return z.mul_(level).sub_(shift).exp_()


def upper_quantile(share: float) -> float:
    """Return the standard normal quantile that ``share`` of the distribution lies above."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - share)


def tile_mask(p: Tensor, rate: float, tile: int, generator: torch.Generator) -> Tensor:
    """Draw a mask in {0, 1 / (1 - rate)} that is constant on tiles of a layer's matrix.

    The matrix of a weight is outputs x (all else), as an array holds it.

    Args:
        p: Weights of any shape with at least two axes.
        rate: Probability that a tile is zero.
        tile: Rows and columns of a tile.
        generator: Source of the randomness.
    """
    rows, columns = p.shape[0], p[0].numel()
    shape = (-(-rows // tile), -(-columns // tile))
    keep: Tensor = torch.rand(shape, generator=generator, device=p.device) >= rate
    mask = keep.to(p.dtype).div_(1 - rate)
    wide: Tensor = mask.repeat_interleave(tile, 0)[:rows].repeat_interleave(tile, 1)[:, :columns]
    return wide.reshape(p.shape)


def clip_weights(model: nn.Module, deviations: float) -> None:
    """Cut each analog tensor to ``deviations`` times its own standard deviation, in place."""
    with torch.no_grad():
        for p in analog_parameters(model).values():
            if p.numel() > 1 and p.ndim > 1:
                bound = deviations * number(p.std())
                if isinstance(bound, Tensor):
                    bound = torch.where(bound > 0, bound, math.inf).to(p.dtype)
                    p.clamp_(-bound, bound)
                elif bound > 0:
                    p.clamp_(-bound, bound)


class Converters:
    """Quantisers at inputs and outputs of analog layers: straight-through, with static ranges.

    Ranges are the largest magnitudes of the first epoch; then they stay (static ranges of Rasch et al., Nat.
    Commun. 14, 5282 (2023), which sets them from data as well).

    Args:
        bits: Of each; 0 for none.
        largest: From magnitudes to the largest of the batch, of which a process may hold a part.
    """

    def __init__(self, bits: int, largest: Callable[[Tensor], Tensor] = torch.amax) -> None:
        self.bits, self.largest = bits, largest
        self.learning = True
        self._ranges: dict[str, float] = {}
        self._seen: dict[str, Tensor] = {}  # on a GPU, until somebody asks

    @property
    def ranges(self) -> dict[str, float]:
        """The largest magnitude of each place, by its name. To read what was learned waits for a GPU, once."""
        if self._seen:
            values = torch.stack(list(self._seen.values())).tolist()
            self._ranges |= dict(zip(self._seen, values, strict=True))
            self._seen.clear()
        return self._ranges

    @ranges.setter
    def ranges(self, ranges: dict[str, float]) -> None:
        self._seen.clear()
        self._ranges = ranges

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        """While active, analog layers see and give quantised values."""
        layers = {name.rpartition(".")[0] for name in analog_parameters(model)}
        handles = []
        for name, module in model.named_modules():
            if name not in layers:
                continue

            def before(m: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> Any:
                return (self._convert(f"{name} in", inputs[0]), *inputs[1:])

            def after(m: nn.Module, inputs: Any, out: Tensor, name: str = name) -> Tensor:
                return self._convert(f"{name} out", out)

            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        try:
            with calling_parts(model, layers):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _convert(self, key: str, x: Tensor) -> Tensor:
        if not self.bits or not x.is_floating_point():
            return x  # Numbers of tokens are no voltages.
        top = self._learned(key, x) if self.learning else self.ranges.get(key, 0.0)
        if isinstance(top, Tensor):
            top = torch.where(top > 0, top, 1.0)  # all that was seen is zero, and stays so
        elif not top > 0:
            return x
        step = top / (2 ** (self.bits - 1) - 1)
        cut = x.clamp(-top, top)  # type: ignore[arg-type]  # two numbers, or two tensors
        converted: Tensor = cut + (torch.round(cut / step) * step - cut).detach()
        return converted

    def _learned(self, key: str, x: Tensor) -> Number:
        """Return the largest magnitude of a place so far, ``x`` included."""
        seen = number(self.largest(x.detach().abs()))
        if not isinstance(seen, Tensor):
            top = self._ranges[key] = max(self._ranges.get(key, 0.0), seen)
            return top
        before = self._seen.get(key)
        if before is None:
            before = torch.full_like(seen, self._ranges.get(key, 0.0))
        self._seen[key] = torch.fmax(seen, before)
        return self._seen[key]


@contextmanager
def uphill(model: nn.Module, noise: Noise) -> Iterator[None]:
    """While active, analog weights stand moved along their gradients, by the rule of ``sharpness``.

    SAM: radius g / |g|. ASAM: radius T^2 g / |T g| with T = |w| (elementwise). AWP: in each tensor
    radius |w| g / |g|.
    """
    moved: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        pairs = [(p, p.grad) for p in analog_parameters(model).values()]
        found = [(p, g) for p, g in pairs if g is not None]
        if noise.sharpness == "asam":
            norm = _norm([g * p.abs() for p, g in found])
            steps = [g * p.square() / norm for p, g in found]
        elif noise.sharpness == "awp":
            steps = [g * (p.norm() / (g.norm() + _TINY)) for p, g in found]
        else:
            norm = _norm([g for _, g in found])
            steps = [g / norm for _, g in found]
        for (p, _), step in zip(found, steps, strict=True):
            moved.append((p, p.detach().clone()))
            p.add_(step, alpha=noise.radius)
    try:
        yield
    finally:
        with torch.no_grad():
            for weights, kept in moved:
                weights.copy_(kept)


_TINY = 1e-12


def _norm(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.square().sum() for part in parts]).sum().sqrt() + _TINY
