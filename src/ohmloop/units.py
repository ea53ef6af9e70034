"""Quantities as text: parsed once at the border, formatted for people; SI floats inside.

>>> parse("2.64 mA", "A")
0.00264
>>> format(0.00264, "A")
'2.64 mA'
>>> parse("80 degC", "K")
353.15
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from ohmloop.errors import UnitError

__all__ = ["Unit", "format", "parse", "split_header"]

# SI brochure, 9th edition (2019), table 7; the exponents of ten.
_PREFIXES = {
    **{"f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "": 0},
    **{"k": 3, "K": 3, "M": 6, "G": 9, "T": 12},
}
_FORMAT = {-15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_UNITS = ("V", "A", "S", "Ohm", "s", "m", "Hz", "J", "W", "F", "K", "")
_ALIASES = {
    **{
        "ohm": "Ohm",
        "ohms": "Ohm",
        "\u03a9": "Ohm",
        "\u2126": "Ohm",
        "sec": "s",
        "volt": "V",
        "volts": "V",
    },
    **{"amp": "A", "amps": "A", "ampere": "A", "amperes": "A", "siemens": "S"},
}
_CELSIUS = {"C", "degC", "°C", "℃"}
_CELSIUS_ZERO = 273.15  # K; the definition of the degree Celsius, SI brochure section 2.3.1
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,4})?)\s*(\S{0,12})\s*$")
_HEADER = re.compile(r"^(.*?)\s*(?:[\[(]\s*([^\])]*?)\s*[\])]|/\s*(\S+))\s*$")


@dataclass(frozen=True)
class Unit:
    """Marks an annotated float with its unit: ``Annotated[float, Unit("S")]``."""

    symbol: str


def _exponent(suffix: str, unit: str) -> int | None:
    """Return the power of ten that ``suffix`` puts before ``unit``, or None if it is no such unit."""
    for length in (0, 1):
        prefix, rest = suffix[:length], suffix[length:]
        if prefix in _PREFIXES and _ALIASES.get(rest, rest) == unit:
            return _PREFIXES[prefix]
    return _PREFIXES.get(suffix)


def parse(text: str, unit: str) -> float:
    """Return the SI value of ``text`` in ``unit``; a bare number is taken to be in that unit.

    Args:
        text: A number, an SI prefix and a unit: "2.64 mA", "1,5 V", "3k", "80 degC".
        unit: The unit asked for: V, A, S, Ohm, s, m, Hz, J, W, F, K, or "" for a plain number.

    Returns:
        The value in SI units, exactly the float nearest to the decimal text.

    Raises:
        UnitError: If the text is no such quantity.
    """
    if unit not in _UNITS:
        raise UnitError(f"unknown unit {unit!r}; one of {', '.join(u for u in _UNITS if u)}.")
    match = _NUMBER.match(text)
    if match is None:
        raise UnitError(
            f'expected a number in {unit or "plain form"}, like "2.5 m{unit}"; received {text!r}.'
        )
    number, suffix = match.groups()
    try:
        value = Decimal(number.replace(",", "."))
    except InvalidOperation as error:
        raise UnitError(f"{text!r} is no number.") from error
    if unit == "K" and suffix in _CELSIUS:
        return float(value + Decimal(str(_CELSIUS_ZERO)))
    exponent = 0 if not suffix else (0 if suffix == unit else _exponent(suffix, unit))
    if exponent is None:
        raise UnitError(
            f'{text!r}: "{suffix}" is not a unit of {unit or "a plain number"}; '
            f'write for example "2.5 m{unit}".'
        )
    result = float(value.scaleb(exponent))
    if not math.isfinite(result):
        raise UnitError(f"{text!r} is too large.")
    return result


def format(value: float, unit: str, digits: int = 3) -> str:
    """Return ``value`` (SI) as text with a prefix and ``digits`` significant digits.

    NaN and infinities are written as such, without a prefix.
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}".rstrip()
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = 3 * math.floor(math.log10(abs(rounded)) / 3 + 1e-12)
    exponent = min(12, max(-15, exponent))
    mantissa = Decimal(repr(rounded)).scaleb(-exponent)
    text = f"{float(mantissa):.{digits}g}"
    if "e" in text:
        text = f"{float(mantissa):.0f}" if abs(mantissa) >= 1 else text
    return f"{text} {_FORMAT[exponent]}{unit}".rstrip()


def split_header(text: str) -> tuple[str, str | None, float | None]:
    """Split a column header into its name, its unit and the factor that makes the values SI.

    "I (mA)" gives ("I", "A", 0.001); "Voltage / V" gives ("Voltage", "V", 1.0). A header without a
    unit, or with one that is neither volts, amperes, ohms, seconds nor siemens, gives None twice.
    """
    match = _HEADER.match(text.strip())
    if match is None:
        return text.strip(), None, None
    name, bracket, slash = match.groups()
    suffix = (bracket if bracket is not None else slash) or ""
    for unit in ("V", "A", "Ohm", "s", "S"):
        for length in (0, 1):
            prefix, rest = suffix[:length], suffix[length:]
            if prefix in _PREFIXES and (_ALIASES.get(rest, rest) == unit):
                return name.strip(), unit, float(f"1e{_PREFIXES[prefix]}")
    return text.strip(), None, None
