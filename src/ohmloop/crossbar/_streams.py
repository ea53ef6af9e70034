"""Random numbers for many virtual devices: one independent stream each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ohmloop.errors import ConversionError


class Streams:
    """One generator for each virtual device; a draw takes the next numbers of every stream.

    What device i sees depends on its own generator and on the order of its draws only, so a fleet may
    be cut into chunks of any size.

    Args:
        generators: One for each of the ``N`` devices, all on the device where draws are wanted.

    >>> streams = Streams([torch.Generator().manual_seed(k) for k in (5, 6)])
    >>> streams.normal((3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = tuple(generators)
        if not self.generators:
            raise ConversionError(
                "a fleet needs at least one virtual device; received no generator."
            )

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standard normal numbers, ``N x *shape``."""
        return self._draw(torch.randn, shape, dtype)

    def uniform(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return uniform numbers of [0, 1), ``N x *shape``."""
        return self._draw(torch.rand, shape, dtype)

    def spawn(self) -> Streams:
        """Return new streams, each seeded by the next number of its own: for loops of unknown length."""
        place = self.generators[0].device
        drawn = [torch.randint(2**62, (1,), generator=g, device=place) for g in self.generators]
        seeds = torch.cat(drawn).tolist()  # read together: each reading waits for a GPU
        return Streams([torch.Generator(device=place).manual_seed(s) for s in seeds])

    def _draw(
        self, draw: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype
    ) -> Tensor:
        place = self.generators[0].device
        if len(self.generators) == 1:
            return draw((1, *shape), generator=self.generators[0], dtype=dtype, device=place)
        out = torch.empty(len(self.generators), *shape, dtype=dtype, device=place)
        for row, generator in zip(out, self.generators, strict=True):
            draw(tuple(shape), generator=generator, out=row)
        return out
