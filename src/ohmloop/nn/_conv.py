"""Convolutions on chips.

The kernel of one output channel, flattened, is one column of cells; an inference drives the rows once for each
position. The library's convolutions do this for all positions at once, tile by tile: blocks of rows that are
read together are convolutions of their own. Where the DAC's range is dynamic, it follows the largest
magnitude of each image, not of each position, so that neighbouring positions see the same value alike; so does
the noise of the DACs, drawn once for each value of an image. Only tiles that have to be solved for each input
(wires with cells that are not ohmic) are read position by position, each with a range and noise of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.crossbar import Programmed, Streams
from ohmloop.crossbar._mapping import row_blocks
from ohmloop.crossbar._mvm import _of_block, _top
from ohmloop.crossbar._quantise import quantise
from ohmloop.errors import ConversionError
from ohmloop.nn._held import Held, Matrix, narrowed
from ohmloop.nn._layer import LayerState, _as_autocast, _own_precision, split

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)


class ConvForm:
    """Conv1d, Conv2d, Conv3d; groups, dilation and every padding included."""

    reason = "one matrix product at each position"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the kernel, ``G x out/G x (in/G kernel)``."""
        return (Matrix("weight", "weight", _kernel, _kernel_bias, merged=True),)

    def forward(self, module: nn.Module, state: LayerState, x: Tensor) -> Tensor:
        """Return ``B x out x ...`` of ``B x in x ...``."""
        conv = cast(Any, module)
        bare = x.ndim == len(conv.kernel_size) + 1
        batch = x.unsqueeze(0) if bare else x
        if state.observe is not None:
            state.observe("weight", 0, batch)
        held = state.get(module, "weight")
        if held is None:
            out = conv._conv_forward(batch, conv.weight, conv.bias)
        else:
            if held.place != x.device:
                held = held.map(lambda t: t.to(x.device))
            out = self._on_chips(conv, state, held, batch)
        return cast(Tensor, out.squeeze(0) if bare else out)

    def _on_chips(self, conv: Any, state: LayerState, held: Held, x: Tensor) -> Tensor:
        assert state.chip is not None
        bias = None if held.bias_row else conv.bias
        if held.is_frozen and not held.bias_row:
            assert held.plain is not None
            if held.n == 1:
                return cast(Tensor, conv._conv_forward(x, held.plain[0].view_as(conv.weight), bias))
            return _each(conv, split(x, held.n, state.chip.batch), held.plain[0], bias).flatten(
                0, 1
            )
        streams = state.chip.streams_on(x.device) if held.is_noisy else None
        with _own_precision(x, held) as given:
            wide = given if given.dtype.itemsize >= 4 else given.float()
            inputs = split(wide, held.n, state.chip.batch)
            if held.noise is not None and not held.bias_row:
                out = _with_noise(conv, held, inputs, streams)
            else:
                out = read_conv(conv, held, inputs, streams)
            out = out.flatten(0, 1).to(x.dtype)
        if bias is not None:
            out = out + bias.reshape(-1, *[1] * (x.ndim - 2))
        return _as_autocast(out)


def _kernel(module: nn.Module) -> Tensor:
    conv = cast(Any, module)
    weight = cast(Tensor, conv.weight)
    return weight.reshape(conv.groups, weight.shape[0] // conv.groups, -1)


def _kernel_bias(module: nn.Module) -> Tensor | None:
    conv = cast(Any, module)
    return None if conv.bias is None else conv.bias.reshape(conv.groups, -1)


def _each(conv: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``N x B x out x ...``: each chip's convolution with its row of ``N x out x (in kernel)``."""
    outs = [
        conv._conv_forward(x[k if len(x) > 1 else 0], w.view_as(conv.weight), bias)
        for k, w in enumerate(weight)
    ]
    return outs[0].unsqueeze(0) if len(outs) == 1 else torch.stack(outs)


def _with_noise(conv: Any, held: Held, x: Tensor, streams: Streams | None) -> Tensor:
    """Return the convolutions with read noise and no converters; see `with_noise` of linear layers."""
    assert held.plain is not None
    assert held.noise is not None
    assert streams is not None
    out = _each(conv, x, held.plain[0], None)
    with torch.no_grad():
        variance = held.noise[0]
        spread = _each(conv, x.square().to(variance.dtype), variance, None)
        deviation = spread.to(out.dtype).clamp_min_(0).sqrt_()
        normal = streams.normal(deviation.shape[1:], dtype=deviation.dtype)
    return torch.addcmul(out, deviation, normal)


def read_conv(conv: Any, held: Held, x: Tensor, streams: Streams | None) -> Tensor:
    """Return ``N x B x out x ...`` of ``(N) x B x in x ...``, without the digital bias."""
    out = None
    for parts, gains in zip(held.copies, held.gains, strict=True):
        if len(parts) > 1 or parts[0].networks:
            one = _by_patches(conv, parts, x, streams, held.bias_row)
        else:
            one = _Reader(conv, parts[0], held.bias_row, streams).read(x)
        if gains[0] is not None:
            gain = torch.stack([cast(Tensor, g) for g in gains], 1)  # N x G
            gain = gain.repeat_interleave(one.shape[2] // gain.shape[1], 1)
            one = one * gain.reshape(len(one), 1, -1, *[1] * (one.ndim - 3)).to(one.dtype)
        out = one if out is None else out + one
    assert out is not None
    return out if len(held.copies) == 1 else out / len(held.copies)


class _Reader:
    """Reads one merged matrix by convolutions: what `Programmed.matmul` does at each position."""

    def __init__(
        self, conv: Any, held: Programmed, bias_row: bool, streams: Streams | None
    ) -> None:
        self.conv, self.held, self.bias_row, self.streams = conv, held, bias_row, streams
        self.n = len(held.planes[0].weight)
        self.taps = cast(Tensor, conv.weight)[0, 0].numel()
        self.dims = len(conv.kernel_size)

    def read(self, x: Tensor) -> Tensor:
        """Return ``N x B x out x ...`` of ``(N) x B x in x ...``."""
        driven, one, full, unit = self.drive(x)
        adc, out = self.held.array.adc, None
        for k in range(len(self.held.planes)):
            for block, inputs in self.blocks():
                sums = self.sums(k, driven, one, inputs)
                if adc is not None:
                    limit = self.channels(self.held._adc_full(adc, k, block, inputs))
                    limit = limit if unit is None else limit * unit
                    if adc.noise > 0:
                        sums = sums + self._fresh(sums) * (adc.noise * limit)
                    sums = quantise(sums, limit, adc.levels)
                out = sums if out is None else out + sums
        assert out is not None
        return out if full is None else out * full

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return what rows are driven with, what the bias row is, and what outputs and ranges are times.

        Cells that are proportional are driven in units of the input, which saves two passes over memory: then
        it is the converters' ranges that are scaled.
        """
        held = self.held
        dac, linear = held.array.dac, held.array.is_linear(held.physics)
        one = x.new_ones(()) if self.bias_row else None
        if dac is None and linear and held.array.adc is None:
            return x, one, None, None
        full = self._full(x)
        if not linear:
            x, one = x / full, None if one is None else one / full
        top = full if linear else x.new_ones(())
        if dac is not None:
            x = quantise(x, top, dac.levels)
            one = None if one is None else quantise(one, top, dac.levels)
            if dac.noise > 0:
                x = x + dac.noise * top * self._fresh(x)
        if linear:
            return x, one, None, full
        return held._bent(x), None if one is None else held._bent(one), full, None

    def _full(self, x: Tensor) -> Tensor:
        """Return full scale of the input: a scalar, or one for each image."""
        dac = self.held.array.dac
        if dac is None or dac.range is None:
            top = largest(x.flatten(0, 1), bias_row=self.bias_row)
            return top.reshape(*x.shape[:2], *top.shape[1:])
        if dac.range == "calibrated":
            return _calibrated_range(self.held).to(x.dtype)
        return x.new_tensor(dac.range)

    def sums(self, k: int, driven: Tensor, one: Tensor | None, inputs: slice) -> Tensor:
        """Return one block's sums as they reach the converters, ``N x B x out x ...``."""
        plane = self.held.planes[k]
        sums = self._product(driven, one, plane.weight, inputs)
        if plane.variance is None:
            return sums
        return sums + self._noise(k, driven, one, inputs)

    @torch.no_grad()
    def _noise(self, k: int, driven: Tensor, one: Tensor | None, inputs: slice) -> Tensor:
        """Return read noise: Gaussian, with the variance of independent cells; a constant for gradients."""
        plane = self.held.planes[k]
        assert plane.variance is not None
        variance = narrowed(plane.variance)
        squared = driven.square().to(variance.dtype)
        unit = None if one is None else one.square()
        spread = self._product(squared, unit, variance, inputs).to(driven.dtype)
        deviation = spread.clamp_min_(0).sqrt_()
        noise = deviation.mul_(self._fresh(deviation))
        if plane.shared is not None:
            shared_variance = self._spread(plane.shared).to(squared.dtype)
            common = self._product(squared, unit, shared_variance, inputs).to(driven.dtype)
            scale = self.channels(_of_block(plane.full, inputs))
            # Outputs of one tile share their reference, and its noise.
            shared = self._fresh_shared(common, plane.shared.shape[1])
            noise = noise + common.clamp_min_(0).sqrt_() * shared * scale
        return noise

    def _index(self) -> Tensor:
        """Return which reference each output has: groups stand in tiles of their own."""
        out = self.held.planes[0].weight.shape[1]
        each = out // self.conv.groups
        tiles = -(-each // self.held.array.outputs)
        within = torch.arange(each) // self.held.array.outputs
        return torch.cat([within + g * tiles for g in range(self.conv.groups)])

    def _spread(self, shared: Tensor) -> Tensor:
        return shared[:, self._index().to(shared.device)]

    def _fresh_shared(self, like: Tensor, references: int) -> Tensor:
        assert self.streams is not None
        shape = (like.shape[1], references, *like.shape[3:])
        drawn = self.streams.normal(shape, dtype=like.dtype)
        return drawn[:, :, self._index().to(like.device)]

    def _fresh(self, like: Tensor) -> Tensor:
        assert self.streams is not None
        return self.streams.normal(like.shape[1:], dtype=like.dtype)

    def channels(self, value: Tensor) -> Tensor:
        """Return what broadcasts over ``N x P x out`` such that it does over ``N x B x out x ...``."""
        if value.ndim == 0:
            return value
        lead = value if value.ndim == 3 else value.reshape(1, 1, -1)
        return lead.reshape(*lead.shape, *[1] * self.dims)

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Yield number and inputs of each block of rows."""
        return row_blocks(self.held.array, self.held.planes[0].weight.shape[2])

    def _product(self, x: Tensor, one: Tensor | None, weight: Tensor, inputs: slice) -> Tensor:
        """Return the block's products with ``N x out x in`` for ``(N) x B x in x ...``."""
        kernel, row, channels = self._kernels(weight, inputs)
        given = x if channels is None else x[:, :, channels]
        outs = [
            convolve(self.conv, given[k if len(x) > 1 else 0], kernel[k], self.conv.groups)
            for k in range(len(weight))
        ]
        out = outs[0].unsqueeze(0) if len(outs) == 1 else torch.stack(outs)
        if row is None or one is None:
            return out
        return out + row.reshape(len(row), 1, -1, *[1] * self.dims) * one

    def _kernels(self, weight: Tensor, inputs: slice) -> tuple[Tensor, Tensor | None, slice | None]:
        """Return the kernels of a block of rows, the bias row if it is among them, and the input channels."""
        conv, n_in = self.conv, weight.shape[2]
        n_taps = n_in - (1 if self.bias_row else 0)
        row = weight[:, :, -1] if self.bias_row and inputs.stop == n_in else None
        shape = cast(Tensor, conv.weight).shape
        if inputs.start == 0 and inputs.stop == n_in:
            return weight[..., :n_taps].reshape(-1, *shape), row, None
        stop = min(inputs.stop, n_taps)
        first = inputs.start // self.taps if conv.groups == 1 else 0
        last = -(-stop // self.taps) if conv.groups == 1 else shape[1]
        if stop <= inputs.start:  # the bias row alone
            return weight.new_zeros(len(weight), shape[0], 1, *shape[2:]), row, slice(0, 1)
        block = weight[..., inputs.start : stop]
        padded = F.pad(block, (inputs.start - first * self.taps, last * self.taps - stop))
        kernels = padded.reshape(len(weight), shape[0], last - first, *shape[2:])
        return kernels, row, slice(first, last) if conv.groups == 1 else None


def _calibrated_range(held: Programmed) -> Tensor:
    if held.dac_range is None:
        raise ConversionError(
            'the range of the DACs is "calibrated", and nobody calibrated them: '
            "calibrate_converters(model, inputs), or give a range."
        )
    return held.dac_range


def calibrated_conv(
    conv: Any, held: Programmed, x: Tensor, streams: Streams, *, bias_row: bool
) -> Programmed:
    """Return a merged matrix with converter ranges set from images ``B x in x ...``.

    As `Programmed.calibrated` does it for linear layers.
    """
    dac, adc = held.array.dac, held.array.adc
    if dac is not None and dac.range == "calibrated":
        top = x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
        held = replace(held, dac_range=top)
    if adc is None or adc.range is not None:
        return held
    reader = _Reader(conv, held, bias_row, streams)
    driven, one, _, unit = reader.drive(x.unsqueeze(0))
    ranges = []
    for k, plane in enumerate(held.planes):
        blocks = []
        for _, inputs in reader.blocks():
            sums = reader.sums(k, driven, one, inputs)
            sums = sums / reader.channels(_of_block(plane.full, inputs))
            sums = (sums if unit is None else sums / unit).abs()[0].movedim(1, 0)
            sums = sums.flatten(1) if adc.per_column else sums.reshape(1, -1)
            blocks.append(_top(sums, adc.quantile, 1))
        ranges.append(torch.stack(blocks).unsqueeze(0).clamp_min(torch.finfo(x.dtype).tiny))
    return replace(held, adc_ranges=tuple(ranges))


def largest(images: Tensor, *, bias_row: bool) -> Tensor:
    """Return the dynamic range of each image, ``B x 1 x ...`` of ``B x in x ...``, without gradient."""
    top = images.detach().abs().amax(list(range(1, images.ndim)), keepdim=True)
    # The bias row is driven by 1, which has to fit.
    return top.clamp_min(1.0 if bias_row else torch.finfo(images.dtype).tiny)


def convolve(conv: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve as the layer does, with another kernel."""
    padding = conv.padding
    if conv.padding_mode != "zeros":
        x = F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
        padding = 0
    run = _CONVOLVE[len(conv.kernel_size) - 1]
    return run(x, weight, None, conv.stride, padding, conv.dilation, groups)


def patches(conv: Any, x: Tensor) -> Tensor:
    """Return what each position drives the rows with: ``B x G x (in/G kernel) x ...`` of ``B x in x ...``."""
    kernel = cast(Tensor, conv.weight).shape[2:]
    taps = kernel.numel()
    pick = torch.eye(taps, dtype=x.dtype, device=x.device).reshape(taps, 1, *kernel)
    rows = convolve(conv, x, pick.repeat(x.shape[1], *[1] * (pick.ndim - 1)), x.shape[1])
    return rows.reshape(len(x), conv.groups, -1, *rows.shape[2:])


def conv_rows(conv: Any, x: Tensor, group: int, *, bias_row: bool) -> Tensor:
    """Return ``P x in`` that one group of a convolution is driven with."""
    rows = patches(conv, x)[:, group].movedim(1, -1).flatten(0, -2)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1) if bias_row else rows


def _by_patches(
    conv: Any, parts: tuple[Programmed, ...], x: Tensor, streams: Streams | None, bias_row: bool
) -> Tensor:
    """Read position by position, where tiles have to be solved for each input."""
    outs = []
    n = len(parts[0].planes[0].weight)
    unfolded = [patches(conv, one) for one in x]  # B x G x in x ...
    for group, part in enumerate(parts):
        rows = torch.stack([u[:, group].movedim(1, -1).flatten(0, -2) for u in unfolded])
        if bias_row:
            rows = torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], -1)
        out = part.matmul(rows, streams)  # N x (B ...) x out
        outs.append(out.reshape(n, x.shape[1], *unfolded[0].shape[3:], -1).movedim(-1, 2))
    return torch.cat(outs, 2)
