"""Quantities as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.errors import UnitError
from ohmloop.units import format, parse, split_header


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("2.64 mA", "A", 0.00264),
        ("2,64mA", "A", 0.00264),
        ("3k", "Ohm", 3000.0),
        ("3 kΩ", "Ohm", 3000.0),
        ("5 µS", "S", 5e-6),
        ("5 μS", "S", 5e-6),
        ("5uS", "S", 5e-6),
        ("80 degC", "K", 353.15),
        ("25 C", "K", 298.15),
        ("300 K", "K", 300.0),
        ("10 ms", "s", 0.01),
        ("10 m", "m", 10.0),
        ("1e-3 V", "V", 0.001),
        ("-.5", "V", -0.5),
        ("7", "", 7.0),
    ],
)
def test_known_quantities(text: str, unit: str, value: float) -> None:
    assert parse(text, unit) == value


@pytest.mark.parametrize(
    "text", ["", "V", "1 A", "1.2.3 V", "1 xV", "1e9999 V", "nan", "1 V V", "1_0"]
)
def test_what_is_no_voltage_is_said(text: str) -> None:
    with pytest.raises(UnitError):
        parse(text, "V")


def test_unknown_unit_is_said() -> None:
    with pytest.raises(UnitError, match="unknown unit"):
        parse("1", "parsec")


@given(st.floats(1e-14, 1e14) | st.floats(-1e14, -1e-14))
def test_formatted_value_parses_back(value: float) -> None:
    assert parse(format(value, "A", digits=9), "A") == pytest.approx(value, rel=1e-8)


def test_special_values_are_written() -> None:
    assert format(0.0, "V") == "0 V"
    assert format(math.nan, "V") == "nan V"
    assert format(999.9, "Ohm") == "1 kOhm"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("I (mA)", ("I", "A", 1e-3)),
        ("Voltage / V", ("Voltage", "V", 1.0)),
        ("Current [uA]", ("Current", "A", 1e-6)),
        ("V", ("V", None, None)),
        ("Time (s)", ("Time", "s", 1.0)),
        ("notes (see mail)", ("notes (see mail)", None, None)),
    ],
)
def test_headers_are_split(header: str, expected: tuple[str, str | None, float | None]) -> None:
    assert split_header(header) == expected
