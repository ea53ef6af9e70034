"""Arithmetic that a person writes in a settings file, evaluated safely on whole columns.

Nothing is ever executed: the text is parsed into a tree, only the nodes listed here are allowed, and
every number is a float64, so that ``9**9**9`` is infinity and not a minute of work.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import SearchError

Columns = Mapping[str, NDArray[Any]]
LONGEST = 500  # characters; longer text is no rule that a person checks by eye
DEEPEST = 40

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.LtE: np.less_equal,
    ast.Lt: np.less,
    ast.GtE: np.greater_equal,
    ast.Gt: np.greater,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "min": lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "max": lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
}
_ALLOWED = (
    "numbers, names of variables, quoted options, + - * / ** %, comparisons, and, or, not, "
    f"`a if b else c`, and {', '.join(sorted(_FUNCTIONS))}"
)


@dataclass(frozen=True)
class Expression:
    """A parsed formula over named columns.

    >>> Expression("2 + cvd_time_h / 10").evaluate({"cvd_time_h": np.array([10.0])})
    array([3.])

    Attributes:
        text: As the person wrote it.
        names: The variables that it reads.
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False)
    _tree: ast.expr = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text) > LONGEST:
            raise SearchError(
                f"a formula has 1 to {LONGEST} characters; received {len(self.text)}."
            )
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise SearchError(
                f'"{_shown(self.text)}" is no formula; it may hold {_ALLOWED}.'
            ) from error
        names: set[str] = set()
        _check(tree, names, self.text, 0)
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "names", frozenset(names))

    @property
    def is_condition(self) -> bool:
        """Whether the formula is a comparison (or several), not an amount."""
        return isinstance(self._tree, ast.Compare | ast.BoolOp) or (
            isinstance(self._tree, ast.UnaryOp) and isinstance(self._tree.op, ast.Not)
        )

    def evaluate(self, columns: Columns) -> NDArray[Any]:
        """Return the value for every row.

        Args:
            columns: Name -> ``n`` values, for at least the names of the formula.

        Returns:
            ``n`` floats, or booleans for a condition; not finite where the arithmetic is not.
        """
        n = len(next(iter(columns.values()))) if columns else 1
        with np.errstate(all="ignore"), _in_words(self.text):
            return np.broadcast_to(np.asarray(_evaluate(self._tree, columns)), (n,)).copy()

    def violation(self, columns: Columns) -> NDArray[np.float64]:
        """Return by how much a condition is missed: ``n`` values, 0 where it holds, inf where undefined."""
        n = len(next(iter(columns.values()))) if columns else 1
        with np.errstate(all="ignore"), _in_words(self.text):
            missed = np.broadcast_to(_missed(self._tree, columns), (n,)).astype(np.float64)
        return np.where(np.isnan(missed), np.inf, missed)


@contextmanager
def _in_words(text: str) -> Iterator[None]:
    """Say what numpy means when text and numbers are mixed."""
    try:
        yield
    except TypeError as error:
        raise SearchError(
            f'"{_shown(text)}" mixes options and numbers; compare options with == or != to quoted text.'
        ) from error


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:77] + "..."


def _check(node: ast.expr, names: set[str], text: str, depth: int) -> None:
    """Walk the tree and refuse what is not plain arithmetic."""
    if depth > DEEPEST:
        raise SearchError(f'"{_shown(text)}" is nested deeper than {DEEPEST} levels.')
    parts: list[ast.expr] = []
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float | str):
            raise SearchError(
                f'"{_shown(text)}": {node.value!r} is neither a number nor an option.'
            )
        if isinstance(node.value, int) and abs(node.value) > 10**15:
            raise SearchError(f'"{_shown(text)}": write large numbers as 1e20.')
    elif isinstance(node, ast.Name):
        names.add(node.id)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        parts = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
        parts = [node.operand]
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.IfExp):
        parts = [node.test, node.body, node.orelse]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and not node.keywords
        and node.args
    ):
        parts = node.args
    else:
        raise SearchError(
            f'"{_shown(text)}": "{_shown(ast.unparse(node))}" is not allowed here. '
            f"A formula may hold {_ALLOWED}."
        )
    for part in parts:
        _check(part, names, text, depth + 1)


def _evaluate(node: ast.expr, columns: Columns) -> Any:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else np.float64(node.value)  # type: ignore[arg-type]  # _check admits numbers only
    if isinstance(node, ast.Name):
        return columns[node.id]
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](*_numbers(columns, node.left, node.right))
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand, columns)
        if isinstance(node.op, ast.Not):
            return np.logical_not(value)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Compare):
        sides = [_evaluate(part, columns) for part in (node.left, *node.comparators)]
        out: Any = True
        for op, a, b in zip(node.ops, sides, sides[1:], strict=False):
            out = np.logical_and(out, _compare(type(op), a, b))
        return out
    if isinstance(node, ast.BoolOp):
        together = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return together.reduce(
            np.broadcast_arrays(*[_evaluate(part, columns) for part in node.values])
        )
    if isinstance(node, ast.IfExp):
        return np.where(
            _evaluate(node.test, columns),
            _evaluate(node.body, columns),
            _evaluate(node.orelse, columns),
        )
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id](*_numbers(columns, *node.args))


def _numbers(columns: Columns, *nodes: ast.expr) -> list[Any]:
    values = [_evaluate(node, columns) for node in nodes]
    for node, value in zip(nodes, values, strict=True):
        if np.asarray(value).dtype.kind not in "fib":
            raise SearchError(
                f'"{_shown(ast.unparse(node))}" is text; compare it with == or !=, do not calculate with it.'
            )
    return values


def _compare(op: type, a: Any, b: Any) -> Any:
    texts = [np.asarray(side).dtype.kind not in "fib" for side in (a, b)]
    if any(texts) and op not in (ast.Eq, ast.NotEq):
        raise SearchError("options are compared with == or !=, not by size.")
    return _COMPARE[op](a, b)


def _missed(node: ast.expr, columns: Columns) -> Any:
    """How far a condition is from holding; the sum over an `and`, the least over an `or`."""
    if isinstance(node, ast.BoolOp):
        parts = np.broadcast_arrays(*[_missed(part, columns) for part in node.values])
        # Of alternatives an undefined one (0 / 0) is no obstacle where another holds.
        reduce = np.add if isinstance(node.op, ast.And) else np.fmin
        return reduce.reduce(parts)
    if isinstance(node, ast.Compare):
        sides = [_evaluate(part, columns) for part in (node.left, *node.comparators)]
        total: Any = np.float64(0)
        for op, a, b in zip(node.ops, sides, sides[1:], strict=False):
            holds = _compare(type(op), a, b)
            if isinstance(op, ast.LtE | ast.Lt | ast.GtE | ast.Gt):
                gap = np.abs(np.asarray(a) - np.asarray(b)) + 1e-9
            else:
                gap = np.ones(np.shape(holds))
            total = total + np.where(holds, 0.0, gap)
        return total
    return np.where(_evaluate(node, columns), 0.0, 1.0)
