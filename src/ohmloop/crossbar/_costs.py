"""What one conversion, one addition, one bit of memory costs: every constant with its unit and source.

Published constants keep the technology of their source (32 nm for the ADC and the drivers, 45 nm for digital
arithmetic and memory). Nothing is scaled to a common node: a factor of such a rule would be a guess.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ohmloop.device import Constant
from ohmloop.errors import ConversionError
from ohmloop.units import Unit, parse

Joule = Annotated[float, Unit("J"), Field(ge=0, allow_inf_nan=False)]
Second = Annotated[float, Unit("s"), Field(ge=0, allow_inf_nan=False)]
Area = Annotated[float, Unit("m2"), Field(ge=0, allow_inf_nan=False)]
Volt = Annotated[float, Unit("V"), Field(gt=0, allow_inf_nan=False)]
Farad = Annotated[float, Unit("F"), Field(ge=0, allow_inf_nan=False)]
Watt = Annotated[float, Unit("W"), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Unit(""), Field(ge=1)]

GIVEN = "given by the user without a source"
_KULL = (
    "Kull et al., JSSC 48 (2013) 3049: 8-bit SAR ADC in 32 nm SOI, 3.1 mW at 1.2 GS/s, 39.3 dB (6.24 bits), "
    "0.0015 mm2"
)
_ISAAC = "Shafiee et al. (ISAAC), ISCA 2016, table of parameters, 32 nm"
_HOROWITZ = "Horowitz, ISSCC 2014, 45 nm, 0.9 V"
_SZE = "Sze et al., Proc. IEEE 105 (2017) 2295, from Horowitz, ISSCC 2014, 45 nm"

SOURCES: Mapping[str, str] = {
    "adc_fom": f"{_KULL}; 34 fJ for each conversion step (Walden: E = FoM 2^ENOB)",
    "adc_time_per_bit": f"{_KULL}; one conversion in 1 / 1.2 GS/s, divided by its 8 bits",
    "adc_area": f"{_KULL}",
    "adc_area_share": "assumed: half of an 8-bit SAR ADC is its capacitor array, which doubles with each bit",
    "outputs_per_adc": "assumed: between ISAAC (one ADC for the 128 columns of an array) and HERMES (Khaddam-"
    "Aljameh et al., JSSC 2022: one for each of 256 columns)",
    "assumed_bits": "assumed: resolution counted for a converter that the array leaves out (exact values)",
    "dac_driver": f"{_ISAAC}: 4 mW for 8 x 128 one-bit row drivers, one drive in 100 ns",
    "dac_capacitor": "Harpe et al., JSSC 46 (2011) 1585: unit capacitors of 0.5 fF in an 8-bit SAR ADC; "
    "assumed: the row's DAC charges 2^bits of them to the supply at each conversion",
    "counter_step": f"{_HOROWITZ}: 8-bit addition; assumed: one step of the counter that times a row's pulse",
    "dac_settle": "assumed: one clock cycle; 8 time constants of a row of 256 cells (26 fF) behind 5 kiloohm",
    "dac_area": f"{_ISAAC}: 0.00017 mm2 for 8 x 128 one-bit drivers; assumed: doubles with each bit",
    "supply": "assumed: nominal supply at these nodes",
    "driver_efficiency": "assumed: between a linear driver (read voltage / supply) and a switched supply",
    "cell_capacitance": "assumed: 0.25 um of wire at 0.2 fF/um, and as much again for the cell's contact",
    "cell_area": "assumed: 1T1R, about 30 F^2 at F = 45 nm, a pitch of 0.25 um",
    "column_power": "assumed: a column amplifier biased with 10 uA at 1 V while it integrates",
    "sample_hold": f"{_ISAAC}: 10 uW for 8 x 128 sample-and-holds, one sample in 100 ns",
    "column_area": "assumed: amplifier and integration capacitor, about 50 fF at 2.5 fF/um2",
    "read_voltage": "assumed: where the device states none; below the switching voltage of most memristors",
    "read_time": "assumed: where the device states none; the read cycle of ISAAC (100 ns)",
    "add_int8": f"{_HOROWITZ}",
    "add_int32": f"{_HOROWITZ}",
    "mult_int8": f"{_HOROWITZ}",
    "mult_int32": f"{_HOROWITZ}",
    "add_fp16": f"{_HOROWITZ}",
    "mult_fp16": f"{_HOROWITZ}",
    "add_fp32": f"{_HOROWITZ}",
    "mult_fp32": f"{_HOROWITZ}",
    "sram_8k": f"{_HOROWITZ}: 64-bit access to 8 KB, 10 pJ; a write is assumed to cost a read",
    "sram_32k": f"{_HOROWITZ}: 64-bit access to 32 KB, 20 pJ",
    "sram_1m": f"{_HOROWITZ}: 64-bit access to 1 MB, 100 pJ",
    "dram": f"{_HOROWITZ}: 1.3 to 2.6 nJ for 64 bits; the lower end",
    "sram_area": "Mistry et al., IEDM 2007: 0.346 um2 for a bit cell at 45 nm; its periphery is left out",
    "area_add_int32": f"{_SZE}",
    "area_mac_int8": f"{_SZE}: 8-bit multiplication 282, 32-bit addition 137 um2",
    "area_mac_fp16": f"{_SZE}: multiplication 1640, addition 1360 um2",
    "area_mac_fp32": f"{_SZE}: multiplication 7700, addition 4184 um2",
    "cycle": "assumed: 1 GHz clock of the digital part, analog chip and baseline alike",
    "digital_units": "assumed: multipliers of the baseline that work at once; sets its latency and area only",
    "digital_reuse": "assumed: all products of one inference share one fetch of each weight, the best that "
    "a chip with enough registers can do at batch size one (favours the baseline)",
}
"""Where each default of `Costs` comes from."""


class Costs(BaseModel):
    """The constants that a count is multiplied with.

    Override any of them, with its source: ``Costs(adc_fom=12e-15, sources={"adc_fom": "Harpe 2011"})``, or
    `Costs.with_`, or a TOML file (`Costs.from_toml`). A value that is changed without a source says so.

    Attributes:
        adc_fom: Of a conversion step (Walden), in joules.
        adc_time_per_bit: Of a conversion, in seconds a bit.
        adc_area: Of an 8-bit ADC, in square metres.
        adc_area_share: Part of that area which doubles with each bit.
        outputs_per_adc: Outputs (and slices) that one ADC converts one after the other.
        assumed_bits: Resolution counted where the array has exact converters.
        dac_driver: Of driving one row once, in joules.
        dac_capacitor: Unit capacitor of the row's DAC, in farads.
        counter_step: Of a clock step of a pulse-width input, in joules.
        dac_settle: Until a row stands, in seconds.
        dac_area: Of a one-bit row driver, in square metres.
        supply: Supply voltage of converters, in volts.
        driver_efficiency: Share of the energy drawn for the rows that reaches the cells.
        cell_capacitance: Of a cell and its stretch of row wire, in farads.
        cell_area: Of a cell, in square metres.
        column_power: Of the amplifier of a physical column while it integrates, in watts.
        sample_hold: Of one sample, in joules.
        column_area: Of a column's front end, in square metres.
        read_voltage: Full-scale row voltage where the device states none, in volts.
        read_time: Integration window where the device states none, in seconds.
        add_int8: Of an addition, in joules; likewise the other additions and multiplications.
        add_int32: Likewise.
        mult_int8: Likewise.
        mult_int32: Likewise.
        add_fp16: Likewise.
        mult_fp16: Likewise.
        add_fp32: Likewise.
        mult_fp32: Likewise.
        sram_8k: Of one bit of an 8 KB memory, in joules; likewise the larger ones.
        sram_32k: Likewise.
        sram_1m: Likewise.
        dram: Likewise.
        sram_area: Of one bit, in square metres.
        area_add_int32: Of an adder, in square metres.
        area_mac_int8: Of a multiplier with its adder, in square metres; likewise the others.
        area_mac_fp16: Likewise.
        area_mac_fp32: Likewise.
        cycle: Of the digital clock, in seconds.
        digital_units: Multipliers of the baseline.
        digital_reuse: Products that share one fetch of a weight in the baseline; infinite: all of an inference.
        sources: Where values come from; defaults keep their own.

    >>> costs = Costs(adc_fom=12e-15, sources={"adc_fom": "Harpe et al. 2011"})
    >>> costs.source("adc_fom")
    'Harpe et al. 2011'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adc_fom: Joule = 34e-15
    adc_time_per_bit: Second = 1 / 1.2e9 / 8
    adc_area: Area = 1.5e-9
    adc_area_share: Annotated[float, Unit(""), Field(ge=0, le=1)] = 0.5
    outputs_per_adc: Count = 8
    assumed_bits: Annotated[int, Unit(""), Field(ge=1, le=24)] = 8
    dac_driver: Joule = 4e-3 / 1024 * 100e-9
    dac_capacitor: Farad = 0.5e-15
    counter_step: Joule = 0.03e-12
    dac_settle: Second = 1e-9
    dac_area: Area = 0.00017e-6 / 1024
    supply: Volt = 1.0
    driver_efficiency: Annotated[float, Unit(""), Field(gt=0, le=1)] = 0.5
    cell_capacitance: Farad = 0.1e-15
    cell_area: Area = 0.0625e-12
    column_power: Watt = 10e-6
    sample_hold: Joule = 10e-6 / 1024 * 100e-9
    column_area: Area = 20e-12
    read_voltage: Volt = 0.2
    read_time: Annotated[float, Unit("s"), Field(gt=0, allow_inf_nan=False)] = 100e-9
    add_int8: Joule = 0.03e-12
    add_int32: Joule = 0.1e-12
    mult_int8: Joule = 0.2e-12
    mult_int32: Joule = 3.1e-12
    add_fp16: Joule = 0.4e-12
    mult_fp16: Joule = 1.1e-12
    add_fp32: Joule = 0.9e-12
    mult_fp32: Joule = 3.7e-12
    sram_8k: Joule = 10e-12 / 64
    sram_32k: Joule = 20e-12 / 64
    sram_1m: Joule = 100e-12 / 64
    dram: Joule = 1.3e-9 / 64
    sram_area: Area = 0.346e-12
    area_add_int32: Area = 137e-12
    area_mac_int8: Area = (282 + 137) * 1e-12
    area_mac_fp16: Area = (1640 + 1360) * 1e-12
    area_mac_fp32: Area = (7700 + 4184) * 1e-12
    cycle: Second = 1e-9
    digital_units: Count = 256
    digital_reuse: Annotated[float, Unit(""), Field(ge=1)] = math.inf
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """Refuse what is no constant, and read quantities written as text."""
        if not isinstance(data, Mapping):
            return data
        read = {}
        for key, value in data.items():
            _check_name(str(key), (*SOURCES, "sources"))
            unit = UNITS.get(key)
            as_text = isinstance(value, str) and unit in _PARSED
            read[key] = parse(value, unit) if as_text and unit is not None else value
        return read

    @field_validator("sources")
    @classmethod
    def _sources_fit(cls, sources: dict[str, str]) -> dict[str, str]:
        for key, text in sources.items():
            _check_name(key, tuple(SOURCES))
            if not text.strip():
                raise ConversionError(
                    f'sources: "{key}" is empty; say where its value comes from, or "assumed: ..." and why.'
                )
        return sources

    @classmethod
    def from_toml(cls, path: str | Path) -> Costs:
        """Return the defaults with what a TOML file overrides.

        A key is a number in SI units, a text with its unit ("12 fJ", "1 ns"), or a table ``{value, source}``.

        Raises:
            ConversionError: If the file cannot be read, or a key is unknown or out of range.
        """
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConversionError(f"{path}: cannot be read as TOML: {error}") from error
        values: dict[str, Any] = {}
        sources = data.pop("sources", {})
        if not isinstance(sources, dict):
            raise ConversionError(f"{path}: sources is a table of texts by name.")
        for key, entry in data.items():
            _check_name(key, tuple(SOURCES), f"{path}: ")
            if isinstance(entry, dict):
                if set(entry) - {"value", "source"} or "value" not in entry:
                    raise ConversionError(
                        f"{path}: {key} is a table of value and source; received {', '.join(entry)}."
                    )
                values[key] = entry["value"]
                if "source" in entry:
                    sources[key] = entry["source"]
            else:
                values[key] = entry
        try:
            return cls(**values, sources=sources)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "costs"
            raise ConversionError(f"{path}: {where}: {first['msg']}") from error

    def with_(self, *, sources: Mapping[str, str] | None = None, **changes: object) -> Costs:
        """Return a copy with other values.

        Args:
            sources: Where the new values come from, by name; a changed value without one says so.
            changes: New values by name.

        Raises:
            ConversionError: If a name is unknown.
            ValueError: If a value is out of range (pydantic's ValidationError).

        >>> Costs().with_(read_time="1 us").source("read_time")
        'given by the user without a source'
        """
        for name in changes:
            _check_name(name, tuple(SOURCES))
        kept = {k: v for k, v in self.sources.items() if k not in changes}
        values = {name: getattr(self, name) for name in SOURCES}
        merged: dict[str, Any] = {**values, **changes, "sources": {**kept, **(sources or {})}}
        return Costs(**merged)

    def source(self, name: str) -> str:
        """Return where the value of one constant comes from.

        Raises:
            ConversionError: If there is no such constant.
        """
        _check_name(name, tuple(SOURCES))
        if name in self.sources:
            return self.sources[name]
        is_default = getattr(self, name) == type(self).model_fields[name].default
        return SOURCES[name] if is_default else GIVEN

    def constants(self) -> list[Constant]:
        """Return every constant with its value, unit and source, in order."""
        return [
            Constant(name, getattr(self, name), UNITS[name], self.source(name)) for name in SOURCES
        ]

    def adc_energy(self, bits: float, noise: float = 0.0) -> float:
        """Return the joules of one conversion.

        Walden's figure of merit: E = FoM 2^ENOB. An ideal quantiser of ``bits`` bits has as many effective
        ones; noise takes some away (`effective_bits`), and its ADC is cheaper.

        >>> round(Costs().adc_energy(6.24) * 1e12, 1)  # 3.1 mW / 1.2 GS/s = 2.6 pJ
        2.6
        """
        return self.adc_fom * 2 ** effective_bits(bits, noise)

    def adc_area_of(self, bits: int) -> float:
        """Return the square metres of one ADC."""
        share = self.adc_area_share
        return self.adc_area * (1 - share + share * 2.0 ** (bits - 8))

    def dac_energy(self, bits: int) -> float:
        """Return the joules of one conversion of a row's DAC, its driver included."""
        return self.dac_driver + self.dac_capacitor * 2.0**bits * self.supply**2

    def timer_energy(self, bits: int) -> float:
        """Return the joules of one pulse-width input: the driver and a down-counter of 2^(bits - 1) steps."""
        return self.dac_driver + self.counter_step * 2.0 ** (bits - 1)

    def memory_energy(self, n_bits: float) -> float:
        """Return the joules of one bit of an on-chip memory that holds ``n_bits``.

        Between the published sizes, 8 KB, 32 KB and 1 MB, a straight line of log energy over log size (assumed:
        it passes through all three); below 8 KB that of 8 KB, above 1 MB banks of 1 MB.

        >>> round(Costs().memory_energy(8 * 8192) * 64e12, 2), round(Costs().memory_energy(8e9) * 64e12, 2)
        (10.0, 100.0)
        """
        known = [(8192.0, self.sram_8k), (32768.0, self.sram_32k), (1048576.0, self.sram_1m)]
        size = min(max(n_bits / 8, known[0][0]), known[-1][0])
        (low, cheap), (high, dear) = known[:2] if size <= known[1][0] else known[1:]
        share = math.log(size / low) / math.log(high / low)
        return float(cheap ** (1 - share) * dear**share)


def effective_bits(bits: float, noise: float = 0.0) -> float:
    """Return the effective number of bits of a quantiser with added noise, at least 1.

    Quantisation has variance step^2 / 12 (Bennett 1948); noise of deviation ``noise`` x full scale adds to
    it: ENOB = bits - log2(1 + 12 (noise / step)^2) / 2, with step = 2 / (2^bits - 2) full scales.

    >>> effective_bits(8)
    8.0
    """
    step = 2 / max(2**bits - 2, 1)
    return max(1.0, float(bits - 0.5 * math.log2(1 + 12 * (noise / step) ** 2)))


def _units() -> dict[str, str]:
    found = {}
    for name, info in Costs.model_fields.items():
        if name != "sources":
            found[name] = next(m.symbol for m in info.metadata if isinstance(m, Unit))
    return found


def _check_name(name: str, known: tuple[str, ...], where: str = "") -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise ConversionError(
            f'{where}costs have no constant "{name}".{hint} Constants: {", ".join(known)}.'
        )


UNITS: Mapping[str, str] = _units()
"""The unit of each constant."""
_PARSED = ("J", "s", "V", "F", "W", "")
