"""What each device gets beside its weights, in one value and its text."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ohmloop.errors import ConversionError

Calibration = Literal["none", "batch-norm", "channel", "layer", "norm", "readout"]
MOST = 256
"""Arrays of one layer that may be averaged."""


def fits(pattern: str, layer: str) -> bool:
    """Return whether a name pattern is a layer's name, or matches it."""
    return pattern == layer or fnmatch.fnmatchcase(layer, pattern)


class Deployment(BaseModel):
    """What each device gets beside its weights.

    Attributes:
        calibration: Which digital corrections are set from unlabelled inputs (module head), or "none".
        samples: Unlabelled inputs that each device is shown for it.
        mean_gain: Divide weights by the mean factor exp(sigma^2 / 2) of the device's law, known from its
            fit: needs no data. With the convention "mean-1" the factor is 1.
        drift_gain: A digital gain for each analog matrix that makes up for the change of its summed conductance
            since programming, read anew at the time of use (Joshi et al. 2020: global drift compensation); for
            hardware with an array. Needs no data.
        arrays: Arrays that hold the same weights and whose outputs are averaged: so many times the hardware.
        cells: The same with arrays counted by layer: all layers together take so many times the cells of one
            array each, at least 1, divided so that the outputs change least (`allocate_arrays`).
        layer_arrays: The same by hand: name patterns of layers and their arrays, of which the first counts;
            layers that none matches have ``arrays``. A mapping is taken too.
        adapter_rank: Rank of a digital low-rank adapter beside each analog layer, trained on each device to
            give the nominal network's outputs on its ``samples``; 0 for none (Hu et al., arXiv 2106.09685).
        adapter_steps: Steps of Adam of its training.

    >>> Deployment.parse("channel:samples=32,arrays=2").needs
    '32 unlabelled inputs on each device, 2 arrays'
    >>> Deployment.parse("layer_arrays=stem=9;blocks.*=2").arrays_of("blocks.0.conv")
    2
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: Calibration = "none"
    samples: Annotated[int, Field(ge=2)] = 64
    mean_gain: bool = False
    drift_gain: bool = False
    arrays: Annotated[int, Field(ge=1, le=MOST)] = 1
    cells: Annotated[float, Field(ge=1, le=MOST)] = 1.0
    layer_arrays: tuple[tuple[str, Annotated[int, Field(ge=1, le=MOST)]], ...] = ()
    adapter_rank: Annotated[int, Field(ge=0)] = 0
    adapter_steps: Annotated[int, Field(ge=1)] = 50

    @field_validator("layer_arrays", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return tuple(value.items())
        if isinstance(value, str):
            pairs = [part.rpartition("=") for part in value.split(";")]
            if any(not equals for _, equals, _ in pairs):
                raise ValueError('write LAYER=NUMBER, several separated by ";"')
            return tuple((layer.strip(), number) for layer, _, number in pairs)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Deployment:
        if self.cells > 1 and (self.arrays > 1 or self.layer_arrays):
            raise ValueError(
                "cells says how many arrays there are in all; give it alone, or arrays and layer_arrays"
            )
        return self

    @classmethod
    def parse(cls, text: str) -> Deployment:
        """Return what a text names: "none", "channel", "batch-norm:samples=32,mean_gain=true".

        Raises:
            ConversionError: If a word is unknown or out of range.
        """
        name, _, rest = text.strip().partition(":")
        if "=" in name:  # settings alone
            name, rest = "none", text
        values: dict[str, str] = {"calibration": name or "none"}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise ConversionError(f"{part!r} in {text!r}: write key=value.")
            values[key.strip().replace("-", "_")] = value.strip()
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"{p}: " for p in first["loc"][:1])
            raise ConversionError(f"{text!r}: {where}{first['msg']}.") from error

    def __str__(self) -> str:
        rest = self.model_dump(exclude_defaults=True, exclude={"calibration"})
        if not self.needs_inputs:
            rest.pop("samples", None)
        if self.layer_arrays:
            rest["layer_arrays"] = ";".join(f"{layer}={m}" for layer, m in self.layer_arrays)
        if self.cells > 1:
            rest["cells"] = f"{self.cells:g}"
        text = ",".join(
            f"{k}={v if isinstance(v, str) else str(v).lower()}" for k, v in rest.items()
        )
        return f"{self.calibration}:{text}" if text else self.calibration

    @property
    def sees_inputs(self) -> bool:
        """Whether each device is shown unlabelled inputs."""
        return self.calibration != "none" or self.adapter_rank > 0

    @property
    def needs_inputs(self) -> bool:
        """Whether unlabelled inputs are needed: to show them to devices, or to divide cells among layers."""
        return self.sees_inputs or self.cells > 1

    @property
    def averaging(self) -> Deployment:
        """The averaging of arrays alone."""
        return Deployment(arrays=self.arrays, layer_arrays=self.layer_arrays)

    def arrays_of(self, layer: str) -> int:
        """Return how many arrays hold a layer's weights, by the layer's name."""
        found = (m for pattern, m in self.layer_arrays if fits(pattern, layer))
        return next(found, self.arrays)

    @property
    def needs(self) -> str:
        """What it needs beside the programmed weights, in words; "nothing" for none."""
        parts = []
        if self.sees_inputs:
            parts.append(f"{self.samples} unlabelled inputs on each device")
        if self.adapter_rank:
            parts.append(f"training of rank-{self.adapter_rank} digital adapters on each device")
        if self.mean_gain:
            parts.append("the law's mean factor")
        if self.drift_gain:
            parts.append("a reading of each array's summed conductance, now and after programming")
        if self.arrays > 1:
            parts.append(f"{self.arrays} arrays")
        if self.cells > 1:
            parts.append(f"{self.cells:g} times the cells, divided among layers")
        if self.layer_arrays:
            parts.append("arrays by layer: " + ", ".join(f"{n} {m}" for n, m in self.layer_arrays))
        return ", ".join(parts) or "nothing"
