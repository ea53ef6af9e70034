"""What a programmed array answers: drive, sum along the columns, read noise, conversion, digital sum.

Currents are handled in units of weights: an ideal array gives exactly ``x @ weight.T``. Read noise is not
drawn for each cell: cells are independent and Gaussian, so the noise of a column is Gaussian with variance
``sum_i V_i^2 std(G_i)^2``, one more matrix product and exact in distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ohmloop.crossbar._array import ADC, Array
from ohmloop.crossbar._mapping import Tile, row_blocks, swing
from ohmloop.crossbar._network import solve
from ohmloop.crossbar._quantise import quantise
from ohmloop.crossbar._streams import Streams
from ohmloop.device import Physics
from ohmloop.errors import ConversionError

HEURISTIC_RANGE = 0.5
"""An uncalibrated ADC spans this share of sqrt(rows) full-scale products. Independent weights and inputs whose
peak is three times their deviation sum to sqrt(rows) / 9, so 4.5 deviations fit (assumed; calibrate)."""

_HALF = (torch.float16, torch.bfloat16)
"""Inputs of these types are read in the chips' own precision, and the answer is rounded."""


class Plane(NamedTuple):
    """One slice of a programmed matrix; the only one unless the mapping is "sliced".

    Attributes:
        weight: ``N x out x in``: what its cells stand for.
        full: ``out x in`` or broadcastable: the weight that fills the window.
        variance: ``N x out x in`` of one read, in weights squared; None without read noise.
        shared: ``N x T x in``, of the reference cells that the outputs of a tile share, in full-scale weights
            squared; else None.
    """

    weight: Tensor
    full: Tensor
    variance: Tensor | None
    shared: Tensor | None


class Network(NamedTuple):
    """A tile that has to be solved for each input: wires with cells that are not ohmic.

    Attributes:
        tile: Its outputs and inputs.
        conductance: ``N x R x C`` siemens as laid out, C = outputs x slices x 2, or outputs + 1 with a
            reference.
    """

    tile: Tile
    conductance: Tensor


@dataclass(frozen=True, eq=False)
class Programmed:
    """One matrix ``out x in`` as ``N`` virtual chips hold it.

    Attributes:
        planes: Its slices.
        array: Where it is programmed.
        physics: Of its cells.
        row_conductance: ``N x in`` siemens: all cells of a row together, references included.
        networks: Tiles to be solved for each input; empty where effective weights say it all.
        conductance: Cells as programmed and drifted (plus ``N x S x out x in``, minus likewise or references
            ``N x 1 x T x in``), where they were kept; else None.
        target: What the cells should hold, in the same layout, where `conductance` is kept; else None.
        pulses: Programming pulses of each chip, ``N``, two for an erase-and-write cycle; None unless verified.
        energy: Joules of these pulses, ``N``; None where no source gives a pulse's energy.
        unconverged: Cells of each chip outside tolerance at the end of the budget, ``N``; None likewise.
        stuck: Faulty cells of each chip, ``N``; None without faults.
        dac_range: Calibrated full scale of the input, a scalar; None where the Array's own rule holds.
        adc_ranges: For each plane ``N x T x 1`` or ``N x T x out`` (T blocks of rows), calibrated full scale in
            units of full-scale products; None likewise.
    """

    planes: tuple[Plane, ...]
    array: Array
    physics: Physics
    row_conductance: Tensor
    networks: tuple[Network, ...] = ()
    conductance: tuple[Tensor, Tensor] | None = None
    target: tuple[Tensor, Tensor] | None = None
    pulses: Tensor | None = None
    energy: Tensor | None = None
    unconverged: Tensor | None = None
    stuck: Tensor | None = None
    dac_range: Tensor | None = None
    adc_ranges: tuple[Tensor, ...] | None = None

    @property
    def weight(self) -> Tensor:
        """Effective weights ``N x out x in``: everything frozen, nothing of the converters.

        Where `networks` are solved for each input, the wires are not in them.
        """
        total = self.planes[0].weight
        for plane in self.planes[1:]:
            total = total + plane.weight
        return total

    def map(self, change: Callable[[Tensor], Tensor]) -> Programmed:
        """Return the same with every tensor changed, as ``Module._apply`` wants it."""

        def maybe(value: Tensor | None) -> Tensor | None:
            return None if value is None else change(value)

        return replace(
            self,
            planes=tuple(
                Plane(change(p.weight), change(p.full), maybe(p.variance), maybe(p.shared))
                for p in self.planes
            ),
            row_conductance=change(self.row_conductance),
            networks=tuple(Network(n.tile, change(n.conductance)) for n in self.networks),
            conductance=None
            if self.conductance is None
            else (change(self.conductance[0]), change(self.conductance[1])),
            target=None
            if self.target is None
            else (change(self.target[0]), change(self.target[1])),
            pulses=maybe(self.pulses),
            energy=maybe(self.energy),
            unconverged=maybe(self.unconverged),
            stuck=maybe(self.stuck),
            dac_range=maybe(self.dac_range),
            adc_ranges=None
            if self.adc_ranges is None
            else tuple(change(r) for r in self.adc_ranges),
        )

    @property
    def is_plain(self) -> bool:
        """Whether its answer is the product with `weight` and nothing else."""
        return (
            self.array.dac is None
            and self.array.adc is None
            and self.array.is_linear(self.physics)
            and all(p.variance is None for p in self.planes)
        )

    def matmul(self, x: Tensor, streams: Streams | None = None) -> Tensor:
        """Read the arrays: ``x`` times the transposed matrix, as the chips compute it.

        Args:
            x: ``P x in``, the same inputs for every chip, or ``N x P x in``.
            streams: Of the noise that is fresh at each read, one stream for each chip; may be None where
                there is none.

        Returns:
            ``N x P x out``.

        Raises:
            ConversionError: If shapes do not fit, or read noise lacks its streams.
        """
        self._check(x, streams)
        if x.dtype in _HALF:
            return self.matmul(x.to(self.planes[0].weight.dtype), streams).to(x.dtype)
        if self.is_plain:
            return _product(x, self.weight)
        driven, full = self._drive(x, streams)
        blockwise = self.planes[0].shared is not None and self.array.scale == "tile"
        if self.array.adc is None and not self.networks and not blockwise:
            return self._exact_reads(driven, full, streams)
        return self._converted(driven, full, streams)

    def calibrated(self, x: Tensor, streams: Streams | None = None) -> Programmed:
        """Return the same chips with converter ranges set from inputs.

        A DAC with range "calibrated" gets the largest |x|, the same on every chip; the ADC gets the
        `ADC.quantile` of the magnitudes of each block's unconverted sums, for each chip, and for each column
        where `ADC.per_column` says so. Ranges that the Array states stay.

        Args:
            x: Unlabelled inputs of this layer, ``P x in`` or ``N x P x in``.
            streams: As in `matmul`.

        Raises:
            ConversionError: As in `matmul`, or if there are no inputs.
        """
        self._check(x, streams)
        if x.numel() == 0:
            raise ConversionError("converters are calibrated on inputs; received none.")
        x = x.to(self.planes[0].weight.dtype) if x.dtype in _HALF else x
        dac, adc = self.array.dac, self.array.adc
        ranged = self
        if dac is not None and dac.range == "calibrated":
            top = x.detach().abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
            ranged = replace(ranged, dac_range=top)
        if adc is None or adc.range is not None:
            return ranged
        driven, _ = ranged._drive(x.detach(), streams)
        ranges: list[list[Tensor]] = [[] for _ in self.planes]
        with torch.no_grad():
            for _, inputs in self._blocks():
                for k, sums in enumerate(ranged._sums(driven, inputs, streams)):
                    size = sums.abs() / _of_block(self.planes[k].full, inputs)
                    size = size if adc.per_column else size.reshape(len(size), -1, 1)
                    ranges[k].append(_top(size, adc.quantile, 1))
        # A finer range than rounding would be 0 where all sums are.
        least = torch.finfo(x.dtype).eps
        return replace(ranged, adc_ranges=tuple(torch.stack(r, 1).clamp_min(least) for r in ranges))

    def _check(self, x: Tensor, streams: Streams | None) -> None:
        n, _, n_in = self.planes[0].weight.shape
        if (
            x.ndim not in (2, 3)
            or x.shape[-1] != n_in
            or (x.ndim == 3 and x.shape[0] not in (1, n))
        ):
            raise ConversionError(
                f"an array with {n_in} inputs on {n} chips takes `P x {n_in}` or `{n} x P x {n_in}`; "
                f"received {tuple(x.shape)}."
            )
        if streams is None and self.is_noisy:
            raise ConversionError(
                "these arrays have noise that is fresh at each read: give streams, one generator a chip."
            )
        if streams is not None and len(streams) != n:
            raise ConversionError(f"{n} chips need {n} streams; received {len(streams)}.")

    @property
    def is_noisy(self) -> bool:
        """Whether two reads of the same input differ."""
        dac, adc = self.array.dac, self.array.adc
        return (
            any(p.variance is not None for p in self.planes)
            or (dac is not None and dac.noise > 0)
            or (adc is not None and adc.noise > 0)
        )

    def _drive(
        self, x: Tensor, streams: Streams | None, *, noise: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the rows are driven with and its full scale; full scale None: ``x`` as it is."""
        dac, linear = self.array.dac, self.array.is_linear(self.physics)
        if dac is None and linear and self.array.adc is None:
            return x, None
        if dac is None or dac.range is None:
            full = _dynamic(x)
        elif dac.range == "calibrated":
            if self.dac_range is None:
                raise ConversionError(
                    'the DAC\'s range is "calibrated", and nobody calibrated it: show the arrays some inputs '
                    "first (Programmed.calibrated), or give a range."
                )
            full = self.dac_range.to(x.dtype)
        else:
            full = x.new_tensor(dac.range)
        share = x / full
        if dac is not None:
            share = quantise(share, share.new_ones(()), dac.levels)
            if noise and dac.noise > 0 and streams is not None:
                n = len(streams)
                fresh = streams.normal(share.shape[-2:], dtype=share.dtype)
                share = (share if share.ndim == 3 else share.expand(n, -1, -1)) + dac.noise * fresh
        return share, full

    def _bent(self, driven: Tensor) -> Tensor:
        """Return the drive as cells that are not ohmic answer to it; exact at full scale."""
        v0, volts = self.physics.v0, self.physics.read_voltage
        if v0 is None or volts is None or self.array.is_linear(self.physics):
            return driven
        top = torch.sinh(driven.new_tensor(volts / v0))
        return torch.sinh(driven * (volts / v0)) / top

    def _exact_reads(self, driven: Tensor, full: Tensor | None, streams: Streams | None) -> Tensor:
        """All blocks of rows at once: without converters their digital sum is one product."""
        bent = self._bent(driven)
        out = _product(bent, self.weight)
        if self._variance is not None:
            rows = slice(0, bent.shape[-1])
            out = self._read(out, bent, self._variance, self.planes[0].shared, rows, streams)
        return out if full is None else out * full

    @cached_property
    def _variance(self) -> Tensor | None:
        """Of all planes together; None without read noise."""
        total = self.planes[0].variance
        for plane in self.planes[1:]:  # all have one, or none
            total = None if total is None or plane.variance is None else total + plane.variance
        return total

    def _read(
        self,
        sums: Tensor,
        bent: Tensor,
        variance: Tensor,
        shared: Tensor | None,
        inputs: slice,
        streams: Streams | None,
    ) -> Tensor:
        """Return ``sums`` with the read noise of a block of rows; a constant for gradients."""
        assert streams is not None
        with torch.no_grad():  # the slope of a deviation at zero input is infinite
            squared = bent.square()
            deviation = _product(squared, variance[..., inputs]).sqrt_()
            normal = streams.normal(deviation.shape[1:], dtype=deviation.dtype)
        sums = sums.addcmul_(deviation, normal)  # nobody else holds these sums
        if shared is None:
            return sums
        with torch.no_grad():
            deviation = _product(squared, shared[..., inputs]).sqrt_()
            common = deviation * streams.normal(deviation.shape[1:], dtype=deviation.dtype)
            index = torch.arange(sums.shape[-1], device=sums.device) // self.array.outputs
        return torch.addcmul(sums, common[..., index], _of_block(self.planes[0].full, inputs))

    def _blocks(self) -> Iterator[tuple[int, slice]]:
        return row_blocks(self.array, self.planes[0].weight.shape[2])

    def _converted(self, driven: Tensor, full: Tensor | None, streams: Streams | None) -> Tensor:
        """Block by block, as each tile is read by converters of its own and summed digitally."""
        adc, out = self.array.adc, None
        for block, inputs in self._blocks():
            for k, sums in enumerate(self._sums(driven, inputs, streams)):
                if adc is not None:
                    limit = self._adc_full(adc, k, block, inputs)
                    if adc.noise > 0:
                        assert streams is not None
                        fresh = streams.normal(sums.shape[1:], dtype=sums.dtype)
                        sums = sums + fresh * (adc.noise * limit)
                    sums = quantise(sums, limit, adc.levels)
                out = sums if out is None else out + sums
        assert out is not None
        return out if full is None else out * full

    def _sums(self, driven: Tensor, inputs: slice, streams: Streams | None) -> Iterator[Tensor]:
        """Yield each plane's sums of one block as they reach the converters, in weights, ``N x P x out``."""
        bent = self._bent(driven[..., inputs])
        solved = self._solved(driven, inputs) if self.networks else None
        for k, plane in enumerate(self.planes):
            if solved is None:
                sums = _product(bent, plane.weight[..., inputs])
            else:
                sums = solved[k]
            if plane.variance is not None:
                sums = self._read(sums, bent, plane.variance, plane.shared, inputs, streams)
            yield sums

    def _adc_full(self, adc: ADC, k: int, block: int, inputs: slice) -> Tensor:
        """Return the converters' full scale in units of weights, broadcastable to ``N x P x out``."""
        scale = _of_block(self.planes[k].full, inputs)
        rows: int = inputs.stop - inputs.start
        if adc.range is not None:
            return scale * (adc.range * rows)
        if self.adc_ranges is not None:
            calibrated = self.adc_ranges[k][:, block].unsqueeze(1)
            return calibrated * scale
        return scale * (HEURISTIC_RANGE * math.sqrt(rows))

    def _solved(self, driven: Tensor, inputs: slice) -> list[Tensor]:
        """Solve the tiles of one block for each input: wires with cells that are not ohmic; a plane each."""
        v0, volts = self.physics.v0, self.physics.read_voltage
        wires = self.array.wires
        assert wires is not None
        assert v0 is not None
        assert volts is not None
        parts: list[Tensor] = []  # N x P x outputs of a tile x planes
        for network in self.networks:
            if network.tile.inputs.start != inputs.start:
                continue
            n_out = network.tile.outputs.stop - network.tile.outputs.start
            voltage = driven[..., inputs] * volts
            voltage = voltage.expand(len(network.conductance), *voltage.shape[-2:])
            current = solve(network.conductance, voltage, wires, v0=v0).current.to(driven.dtype)
            if self.array.mapping == "offset":
                parts.append((current[..., :n_out] - current[..., n_out:]).unsqueeze(-1))
            else:
                pairs = current.reshape(*current.shape[:-1], n_out, len(self.planes), 2)
                parts.append(pairs[..., 0] - pairs[..., 1])
        # At full scale an ideal cell of conductance G carries G v0 sinh(V / v0).
        ampere = swing(self.physics, self.array) * v0 * math.sinh(volts / v0)
        return [
            current * (_of_block(plane.full, inputs) / ampere)
            for current, plane in zip(torch.cat(parts, -2).unbind(-1), self.planes, strict=True)
        ]


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``N x P x out`` of ``(N x) P x in`` and ``N x out x in``."""
    if len(weight) == 1:
        out = torch.nn.functional.linear(x, weight[0])
        return out if x.ndim == 3 else out.unsqueeze(0)
    return torch.matmul(x, weight.transpose(1, 2))


def _dynamic(x: Tensor) -> Tensor:
    """Return the largest magnitude of each input vector, positive, without gradient."""
    return x.detach().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def _of_block(full: Tensor, inputs: slice) -> Tensor:
    """Return the full-scale weights of one block of rows, for each output or for all."""
    column: Tensor = full[:, :1] if full.shape[1] == 1 else full[:, inputs][:, :1]
    return column.reshape(-1) if len(column) > 1 else column.reshape(())


def _top(x: Tensor, quantile: float, dim: int = 0) -> Tensor:
    """Return the quantile of magnitudes along ``dim``."""
    if quantile >= 1:
        return x.amax(dim)
    return x.kthvalue(max(1, math.ceil(quantile * x.shape[dim])), dim).values
