"""A layer's matrices on chips: what is programmed, and how it is read.

A matrix may come in groups (of a convolution, experts of a mixture): each group has arrays of its own, and its
own digital scale. Products with noise or converters are computed in single precision at least, whatever
the model's dtype; a product that is frozen runs in the model's dtype and by the library's kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmloop.crossbar import Array, Hardware, Plane, Programmed, Streams, program_matrix
from ohmloop.errors import ConversionError


class Matrix(NamedTuple):
    """One matrix that a layer multiplies with.

    Attributes:
        key: Its name within the layer.
        parameter: The parameter that it is made of.
        stack: From the layer to ``G x out x in``, differentiable.
        bias: From the layer to ``G x out``, or None where there is none.
        merged: Whether groups are kept as one matrix ``(G out) x in``, as convolutions read them.
    """

    key: str
    parameter: str
    stack: Callable[[nn.Module], Tensor]
    bias: Callable[[nn.Module], Tensor | None] = lambda module: None
    merged: bool = False


class Ranges(NamedTuple):
    """Full scales of converters, calibrated on inputs with the nominal weights.

    Attributes:
        dac: A scalar, or None.
        adc: For each part the ranges of `Programmed.adc_ranges`, or None.
    """

    dac: Tensor | None
    adc: tuple[tuple[Tensor, ...] | None, ...]


@dataclass(frozen=True, eq=False)
class Held:
    """One matrix on N chips.

    Attributes:
        copies: For each array that holds the same weights, its groups.
        gains: ``N``, a digital gain for each of these, or None.
        bias_row: Whether the last row is the bias, driven by an input of 1.
        plain: For each group ``N x out x in`` where reading is nothing but a product, with read noise or
            without; else None.
        noise: For each group the variance of one read, ``N x out x in``, in weights squared, if ``plain`` is
            there and there is read noise; else None.
    """

    copies: tuple[tuple[Programmed, ...], ...]
    gains: tuple[tuple[Tensor | None, ...], ...]
    bias_row: bool
    plain: tuple[Tensor, ...] | None = None
    noise: tuple[Tensor, ...] | None = None

    @property
    def n(self) -> int:
        """How many chips."""
        return len(self.copies[0][0].planes[0].weight)

    @property
    def place(self) -> torch.device:
        """Where it lies."""
        return self.copies[0][0].planes[0].weight.device

    @property
    def is_frozen(self) -> bool:
        """Whether reading is nothing but a product with `plain`."""
        return self.plain is not None and self.noise is None

    @property
    def is_noisy(self) -> bool:
        """Whether two reads of the same input differ."""
        return any(part.is_noisy for copy in self.copies for part in copy)

    def map(self, change: Callable[[Tensor], Tensor]) -> Held:
        """Return the same with every tensor changed; noise and converters stay in single precision."""

        def wide(x: Tensor) -> Tensor:
            y = change(x)
            if not x.is_floating_point() or y.dtype.itemsize >= 4:
                return y
            return (x.float() if x.dtype == torch.float64 else x).to(y.device)

        plain = change if self.noise is None else wide
        return Held(
            tuple(tuple(part.map(wide) for part in copy) for copy in self.copies),
            tuple(tuple(None if g is None else wide(g) for g in copy) for copy in self.gains),
            self.bias_row,
            None if self.plain is None else tuple(plain(w) for w in self.plain),
            None if self.noise is None else tuple(wide(v) for v in self.noise),
        )

    def read(self, x: Tensor, group: int, streams: Streams | None) -> Tensor:
        """Return ``N x P x out`` of ``P x in`` (the same on every chip) or ``N x P x in``."""
        if self.plain is not None and self.noise is None:
            return _plain(x, self.plain[group], self.bias_row)
        wide = _wide(x)
        if self.plain is not None:
            assert self.noise is not None
            assert streams is not None
            out = _plain(wide, self.plain[group], self.bias_row)
            return with_noise(out, wide, self.noise[group], streams, self.bias_row).to(x.dtype)
        if self.bias_row:
            wide = torch.cat([wide, wide.new_ones(*wide.shape[:-1], 1)], -1)
        total = None
        for parts, gains in zip(self.copies, self.gains, strict=True):
            one = parts[group].matmul(wide, streams)
            gain = gains[group]
            one = one if gain is None else one * gain.to(one.dtype)[:, None, None]
            total = one if total is None else total + one
        assert total is not None
        return (total if len(self.copies) == 1 else total / len(self.copies)).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _plain(x: Tensor, weight: Tensor, bias_row: bool) -> Tensor:
    """Return the product chip by chip, so that no result depends on how many chips there are."""
    bias = weight[:, :, -1] if bias_row else None
    matrix = weight[:, :, :-1] if bias_row else weight

    def one(k: int) -> Tensor:
        inputs = x if x.ndim == 2 else x[k if len(x) > 1 else 0]
        return torch.nn.functional.linear(inputs, matrix[k], None if bias is None else bias[k])

    if len(weight) == 1:
        return one(0).unsqueeze(0)
    return torch.stack([one(k) for k in range(len(weight))])


def with_noise(
    out: Tensor, x: Tensor, variance: Tensor, streams: Streams, bias_row: bool
) -> Tensor:
    """Return ``out`` with read noise: Gaussian, of the variance that independent cells add up to.

    A constant for gradients: the slope of a deviation is infinite where all inputs are zero.
    """
    with torch.no_grad():
        squared = x.square().to(variance.dtype)
        deviation = _plain(squared, variance, bias_row).to(out.dtype).sqrt_()
        normal = streams.normal(deviation.shape[1:], dtype=deviation.dtype)
    if out.requires_grad:
        return torch.addcmul(out, deviation, normal)
    return out.addcmul_(deviation, normal)


def hold(
    matrix: Matrix,
    module: nn.Module,
    hardware: Hardware,
    streams: Sequence[Streams],
    *,
    ranges: Ranges | None = None,
    gain: float = 1.0,
    drift_gain: bool = False,
) -> Held:
    """Program one matrix of a layer.

    Args:
        matrix: Which.
        module: The layer.
        hardware: With an array.
        streams: Of the chips; one set for each array that holds the weights.
        ranges: Of the converters, where they were calibrated.
        gain: A digital gain that is known without a measurement.
        drift_gain: Whether a digital gain makes up for the change of the summed conductance since
            programming (Joshi et al., Nat. Commun. 11, 2473 (2020): global drift compensation).
    """
    array = hardware.array
    assert array is not None
    stack = matrix.stack(module)
    bias = matrix.bias(module) if array.analog_bias else None
    if bias is not None:
        stack = torch.cat([stack, bias.unsqueeze(-1)], -1)
    narrow = stack.dtype
    stack = _wide(stack)
    copies, gains = [], []
    for own in streams:
        states = [g.get_state() for g in own.generators] if drift_gain else None
        parts = _programmed(stack, hardware, own, matrix.merged)
        gains.append([None] * len(parts) if gain == 1.0 else [_full(parts[0], gain)] * len(parts))
        if states is not None:
            for generator, state in zip(own.generators, states, strict=True):
                generator.set_state(state)
            young = hardware.model_copy(update={"seconds": 0.0})
            with torch.no_grad():
                before = _programmed(stack.detach(), young, own, matrix.merged)
            gains[-1] = [
                _full(b, gain) * b.row_conductance.sum(-1) / p.row_conductance.sum(-1)
                for b, p in zip(before, parts, strict=True)
            ]
        copies.append(ranged(parts, ranges))
    held = Held(tuple(copies), tuple(tuple(g) for g in gains), bias is not None)
    if not all(_is_product(part) for parts in copies for part in parts):
        return held
    noise = _variances(held)
    return replace(held, plain=_frozen(held, narrow if noise is None else stack.dtype), noise=noise)


def _is_product(part: Programmed) -> bool:
    """Whether reading is one product, with noise of each cell's own or without."""
    array = part.array
    return (
        array.dac is None
        and array.adc is None
        and array.is_linear(part.physics)
        and not part.networks
        and all(p.shared is None for p in part.planes)
    )


@functools.cache
def _has_fast_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def _full(part: Programmed, gain: float) -> Tensor:
    return part.row_conductance.new_full((len(part.row_conductance),), gain)


def ranged(parts: tuple[Programmed, ...], ranges: Ranges | None) -> tuple[Programmed, ...]:
    """Return the parts with calibrated converters."""
    if ranges is None:
        return parts
    adc = ranges.adc
    if len(adc) != len(parts):
        adc = by_group(adc[0] if len(adc) == 1 else None, len(parts))
    return tuple(
        replace(part, dac_range=ranges.dac, adc_ranges=own)
        for part, own in zip(parts, adc, strict=True)
    )


def by_group(
    merged: tuple[Tensor, ...] | None, n_groups: int
) -> tuple[tuple[Tensor, ...] | None, ...]:
    """Return the converter ranges of each group of a merged matrix."""
    if merged is None:
        return (None,) * n_groups
    parts = [r.chunk(n_groups, 2) if r.shape[2] > 1 else [r] * n_groups for r in merged]
    return tuple(tuple(p[g] for p in parts) for g in range(n_groups))


def _frozen(held: Held, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the effective weights of each group, the mean of its arrays."""
    out = []
    for group in range(len(held.copies[0])):
        total = None
        for parts, gains in zip(held.copies, held.gains, strict=True):
            weight, gain = parts[group].weight, gains[group]
            weight = weight if gain is None else weight * gain.to(weight.dtype)[:, None, None]
            total = weight if total is None else total + weight
        assert total is not None
        out.append((total if len(held.copies) == 1 else total / len(held.copies)).to(dtype))
    return tuple(out)


def _variances(held: Held) -> tuple[Tensor, ...] | None:
    """Return the variance of one read of each group's mean, or None without read noise."""
    if held.copies[0][0].planes[0].variance is None:
        return None
    out = []
    for group in range(len(held.copies[0])):
        total = None
        for parts, gains in zip(held.copies, held.gains, strict=True):
            gain = gains[group]
            factor = 1.0 if gain is None else gain.square()[:, None, None]
            for plane in parts[group].planes:
                assert plane.variance is not None
                one = plane.variance.detach() * factor
                total = one if total is None else total + one
        assert total is not None
        out.append(narrowed(total / len(held.copies) ** 2))
    return tuple(out)


def narrowed(variance: Tensor) -> Tensor:
    """Return variances in bfloat16 where that multiplies faster.

    Rounding them and squared inputs to 8 bits changes the deviation of a sum of many cells by less than 0.2 %.
    """
    fast = variance.dtype == torch.float32 and _has_fast_bfloat16(variance.device.type)
    return variance.bfloat16() if fast else variance


def _programmed(
    stack: Tensor, hardware: Hardware, streams: Streams, merged: bool
) -> tuple[Programmed, ...]:
    """Program ``G x out x in``: one part for each group, or one for all where they are merged."""
    if len(stack) == 1:
        return (program_matrix(stack[0], hardware, streams),)
    array = hardware.array
    assert array is not None
    if merged and _is_cell_by_cell(array):
        return (_at_once(stack, hardware, streams),)
    parts = tuple(program_matrix(matrix, hardware, streams) for matrix in stack)
    return (_merge(parts),) if merged and not parts[0].networks else parts


def _is_cell_by_cell(array: Array) -> bool:
    """Whether what a cell holds depends on nothing around it: groups may then share one call."""
    return (
        array.wires is None
        and array.mapping != "offset"
        and array.spare_columns == 0
        and array.scale != "tile"
    )


def _at_once(stack: Tensor, hardware: Hardware, streams: Streams) -> Programmed:
    """Program all groups by one call; each is scaled to its window by itself."""
    n_out = stack.shape[1]
    top = stack.detach().abs().amax((1, 2))
    top = torch.where(top > 0, top, torch.ones_like(top))
    whole = program_matrix((stack / top[:, None, None]).flatten(0, 1), hardware, streams)
    factor = top.repeat_interleave(n_out).unsqueeze(1)  # (G out) x 1
    return replace(
        whole,
        planes=tuple(
            Plane(
                p.weight * factor,
                p.full * factor,
                None if p.variance is None else p.variance * factor.square(),
                None,
            )
            for p in whole.planes
        ),
    )


def _merge(parts: tuple[Programmed, ...]) -> Programmed:
    """Return the groups' matrices below each other; references of an offset mapping likewise."""
    first = parts[0]

    def rows(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat([v for v in values if v is not None], 1)

    def full(s: int) -> Tensor:
        return torch.cat([p.planes[s].full.expand(p.planes[s].weight.shape[1], -1) for p in parts])

    def planes() -> tuple[Plane, ...]:
        made = []
        for s in range(len(first.planes)):
            weight = rows([p.planes[s].weight for p in parts])
            assert weight is not None
            made.append(
                Plane(
                    weight,
                    full(s),
                    rows([p.planes[s].variance for p in parts]),
                    rows([p.planes[s].shared for p in parts]),
                )
            )
        return tuple(made)

    def total(name: str) -> Tensor | None:
        values = [getattr(p, name) for p in parts]
        return None if values[0] is None else torch.stack(values).sum(0)

    return replace(
        first,
        planes=planes(),
        row_conductance=torch.stack([p.row_conductance for p in parts]).sum(0),
        pulses=total("pulses"),
        unconverged=total("unconverged"),
        stuck=total("stuck"),
    )


def check_room(label: str, numel: int, array: Array, place: torch.device) -> None:
    """Raise ConversionError if programming so many weights could not fit in memory."""
    needed = _BYTES_A_WEIGHT * array.slices * numel
    room = _memory(place)
    if room is not None and needed > room:
        raise ConversionError(
            f"{label} has {numel:,} weights; programming them takes about {needed / 2**30:,.0f} GiB, and "
            f"{place} has {room / 2**30:,.0f} GiB. Leave the layer digital (where=...), or split it."
        )


_BYTES_A_WEIGHT = 40
"""Of one slice of one chip while it is programmed: targets, noise and results of two single-precision cells."""


def _memory(place: torch.device) -> int | None:
    import os

    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[1])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
