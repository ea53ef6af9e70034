"""What an array is made of: mapping of weights, tiles, converters, wires, programming, spare columns."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ohmloop.crossbar._wires import Wires
from ohmloop.device import Physics
from ohmloop.errors import ConversionError

Mapping = Literal["pair", "offset", "sliced"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DAC(_Value):
    """The converters that drive the rows.

    A uniform, symmetric (mid-tread) quantiser with ``2^bits - 1`` levels over [-range, range]; what lies
    outside is clipped.

    Attributes:
        bits: Resolution, sign included; 1 drives -range, 0 or +range.
        range: Full scale, in units of the layer's input. None: the largest magnitude of each input vector, by
            a digital unit before the array (dynamic scaling). "calibrated": the range that calibration
            found, the same for every input.
        noise: Standard deviation of the driven voltage, as a fraction of full scale; fresh at each use.

    >>> DAC(bits=8).levels
    255
    """

    bits: Annotated[int, Field(ge=1, le=24)] = 8
    range: Positive | Literal["calibrated"] | None = None
    noise: NotNegative = 0.0

    @property
    def levels(self) -> int:
        """How many values the converter has."""
        return 3 if self.bits == 1 else (1 << self.bits) - 1


class ADC(_Value):
    """The converters that read the columns of each tile.

    A uniform, symmetric (mid-tread) quantiser with ``2^bits - 1`` levels over [-range, range]; what lies
    outside saturates.

    Attributes:
        bits: Resolution, sign included.
        range: Full scale as a fraction of the largest signed current: (rows in use) x full-scale voltage x the
            conductance that a full-scale weight makes (g_max - g_min; from mid-window, for an offset
            column). None: the calibrated range where the array was calibrated, else half the square root
            of the rows in use, in full-scale products (`HEURISTIC_RANGE`).
        per_column: Whether calibration sets a range for each column, or one for each block of rows.
        noise: Standard deviation of the reading as a fraction of full scale; fresh at each use.
        quantile: Share of the calibration readings that the calibrated range holds.
    """

    bits: Annotated[int, Field(ge=2, le=24)] = 8
    range: Positive | None = None
    per_column: bool = False
    noise: NotNegative = 0.0
    quantile: Annotated[float, Field(gt=0.5, le=1)] = 1.0

    @property
    def levels(self) -> int:
        """How many values the converter has."""
        return (1 << self.bits) - 1


class Programming(_Value):
    """How conductances get into the cells.

    Attributes:
        method: "statistical": targets plus the device's write noise, drawn at once. "write-verify": pulse by
            pulse with the device's measured pulse response, read after each, until within tolerance; a device
            without a pulse response cannot. "cycle-verify": a cell is erased and written afresh, each time with
            the device's write noise (for the nanowires, the measured one from cycle to cycle), until a
            reading is within tolerance. "ideal": targets exactly (levels and faults still count).
        tolerance: Accepted error of a reading, as a fraction of the window g_max - g_min.
        max_pulses: Budget of pulses, or of erase-and-write cycles (two pulses each), for each cell.
    """

    method: Literal["statistical", "write-verify", "cycle-verify", "ideal"] = "statistical"
    tolerance: Positive = 0.02
    max_pulses: Annotated[int, Field(ge=1)] = 200


class Array(_Value):
    """The array that holds one layer's weights.

    Attributes:
        mapping: "pair": two cells a weight, whose difference counts; a positive weight raises one cell
            above g_min, a negative one the other. "offset": one cell a weight, and one column of
            mid-window cells (the nearest level to it) whose current is taken off the others'. "sliced":
            the integer weight of ``weight_bits`` bits, its magnitude cut into slices of ``slice_bits``
            bits, each slice a pair of cells in columns of its own, added with shifts after conversion.
        rows: Rows of a tile: the longest sum made in the analog domain.
        columns: Columns of a tile, reference and spare columns included.
        weight_bits: Of "sliced": bits of the integer weight, sign included.
        slice_bits: Of "sliced": bits a cell.
        scale: Weights are scaled to the window for each "layer" (one digital factor), "column" (one for
            each output), or "tile".
        dac: Converters of the rows; None drives exact voltages.
        adc: Converters of the columns; None reads exact currents.
        wires: Wire resistance; None for ideal wires.
        wire_solution: "exact": the whole network, once for each programmed tile. "fast": some fifty times
            faster by `approximate_transfer`, whose error (bench/results/wires.md) is small where wires take
            little.
        programming: How cells are written.
        spare_columns: Columns of each tile that stand in for the columns with the largest fault error.
        remap: Whether a faulty cell's partner in a pair is set anew so that the difference comes nearest
            to the target.
        encoding: "amplitude": an input is a voltage, so that cells that are not ohmic bend it (an ideal gain
            makes full scale exact). "pulse-width": an input is the time for which the read voltage is
            on, which no curvature of the cell can bend.
        analog_bias: Whether a layer's bias is a row of its own, driven by an input of 1, with all the errors of
            cells; else it is added digitally.

    >>> Array(rows=64, columns=64, adc=ADC(bits=6)).adc.bits
    6
    """

    mapping: Mapping = "pair"
    rows: Annotated[int, Field(ge=1, le=65536)] = 256
    columns: Annotated[int, Field(ge=1, le=65536)] = 256
    weight_bits: Annotated[int, Field(ge=2, le=16)] = 8
    slice_bits: Annotated[int, Field(ge=1, le=8)] = 2
    scale: Literal["layer", "column", "tile"] = "layer"
    dac: DAC | None = None
    adc: ADC | None = None
    wires: Wires | None = None
    wire_solution: Literal["exact", "fast"] = "exact"
    programming: Programming = Programming()
    spare_columns: Annotated[int, Field(ge=0)] = 0
    remap: bool = False
    encoding: Literal["amplitude", "pulse-width"] = "amplitude"
    analog_bias: bool = False

    @classmethod
    def parse(cls, text: str) -> Array:
        """Return what a text names, as command lines take it: "rows=64,columns=64,dac=8,adc=6,wire=1".

        Beside the attributes above: ``dac`` and ``adc`` with their bits, ``wire`` with the ohms of a row and of
        a column segment, ``lead`` with those of a driver and of a sense amplifier, ``programming`` with its
        method, ``tolerance`` and ``max_pulses`` of `Programming`. "" is the default array.

        Raises:
            ConversionError: If a word is unknown or out of range.

        >>> Array.parse("rows=64,columns=64,adc=6,programming=cycle-verify,tolerance=0.03").rows
        64
        """
        values: dict[str, Any] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            key, equals, value = part.partition("=")
            key, value = key.strip().replace("-", "_"), value.strip()
            if not equals or not value:
                raise ConversionError(f"{part!r} in {text!r}: write key=value, like rows=64.")
            if key in ("dac", "adc"):
                values[key] = {"bits": value}
            elif key in ("wire", "lead"):
                ends = ("row", "column") if key == "wire" else ("source", "sense")
                values.setdefault("wires", {}).update(dict.fromkeys(ends, value))
            elif key in ("programming", "tolerance", "max_pulses"):
                name = "method" if key == "programming" else key
                values.setdefault("programming", {})[name] = value
            elif key in cls.model_fields and key != "wires":
                values[key] = value
            else:
                known = sorted(
                    {*cls.model_fields, "wire", "lead", "tolerance", "max_pulses"} - {"wires"}
                )
                near = difflib.get_close_matches(key, known, 1)
                hint = f' Did you mean "{near[0]}"?' if near else ""
                raise ConversionError(
                    f'{text!r}: an array has no "{key}".{hint} Words: {", ".join(known)}.'
                )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            raise ConversionError(f"{text!r}: {where}: {first['msg']}.") from error

    @model_validator(mode="after")
    def _fits(self) -> Array:
        if self.outputs < 1:
            raise ConversionError(
                f"a tile of {self.columns} columns, {self.spare_columns} of them spare, has no room for one "
                f'output of the mapping "{self.mapping}", which takes {self.columns_per_output} columns '
                f"(and {self.reference_columns} for reference). Give more columns or fewer spare ones."
            )
        if self.remap and self.mapping == "offset":
            raise ConversionError(
                'remap=True sets the partner of a faulty cell anew; mapping "offset" has no partners. '
                'Use mapping "pair" or "sliced", or spare_columns.'
            )
        return self

    def is_linear(self, physics: Physics) -> bool:
        """Whether currents are proportional to inputs: ohmic cells, or inputs told by time."""
        return physics.v0 is None or self.encoding == "pulse-width"

    @property
    def slices(self) -> int:
        """How many slices hold one weight; 1 unless the mapping is "sliced"."""
        return -(-(self.weight_bits - 1) // self.slice_bits) if self.mapping == "sliced" else 1

    @property
    def columns_per_output(self) -> int:
        """Physical columns of one output in one tile."""
        return {"pair": 2, "offset": 1, "sliced": 2 * self.slices}[self.mapping]

    @property
    def reference_columns(self) -> int:
        """Columns of a tile that hold references instead of weights."""
        return 1 if self.mapping == "offset" else 0

    @property
    def outputs(self) -> int:
        """Outputs that one tile holds."""
        return (
            self.columns - self.spare_columns - self.reference_columns
        ) // self.columns_per_output
