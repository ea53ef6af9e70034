"""Formulas: right on columns, harmless whatever they hold."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ohmloop.bo import Expression
from ohmloop.errors import SearchError

COLUMNS = {"a": np.array([1.0, 2.0, np.nan]), "m": np.array(["x", "y", "x"], dtype=object)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * a + 1", [3, 5, np.nan]),
        ("a ** 2", [1, 4, np.nan]),
        ("max(a, 1.5)", [1.5, 2, np.nan]),
        ("10 if m == 'x' else 0", [10, 0, 10]),
        ("-a % 3", [2, 1, np.nan]),
        ("9 ** 9 ** 9", [np.inf] * 3),
        ("log10(a)", [0, np.log10(2), np.nan]),
    ],
)
def test_values(text: str, expected: list[float]) -> None:
    assert Expression(text).evaluate(COLUMNS) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a <= 1", [True, False, False]),
        ("0 < a < 2", [True, False, False]),
        ("m == 'x' and a < 5", [True, False, False]),
        ("m == 'y' or a < 1.5", [True, True, False]),
        ("not a > 1", [True, False, True]),
    ],
)
def test_conditions_and_their_violation_agree(text: str, holds: list[bool]) -> None:
    condition = Expression(text)
    assert condition.is_condition
    assert condition.evaluate(COLUMNS).tolist() == holds
    assert ((condition.violation(COLUMNS) == 0) == holds).all()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.real",
        "[x for x in a]",
        "lambda: 1",
        "open('x')",
        "a := 2",
        "exp(a, base=2)",
        "True + 1",
        "b''",
        "(" * 200 + "a" + ")" * 200 + "+",
        "+".join("a" * 300),
        "",
        "1 +",
        "f'{a}'",
        "10" * 20,
    ],
)
def test_what_is_no_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(SearchError):
        Expression(text)


def test_text_is_not_calculated_with() -> None:
    with pytest.raises(SearchError, match="is text"):
        Expression("m + 1").evaluate(COLUMNS)
    with pytest.raises(SearchError, match="not by size"):
        Expression("m < 'x'").evaluate(COLUMNS)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="am0129.+-*/%()<>=!&|'\" ifelsndortxpg,_[]{}\n", max_size=60))
@example("a" + "+a" * 240)
def test_any_text_is_a_formula_or_a_clear_error(text: str) -> None:
    message = ""
    try:
        expression = Expression(text)
        if expression.names <= set(COLUMNS):
            assert len(expression.evaluate(COLUMNS)) == 3
    except SearchError as error:
        message = str(error)
    assert len(message) < 600
