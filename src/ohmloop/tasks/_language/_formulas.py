"""Formulas in the normalised LaTeX that pix2tex was trained on, and their pictures, rendered by matplotlib.

The pictures are not those of the test set of Deng et al. 2017 (im2latex-100k, typeset by LaTeX): mathtext's
Computer Modern looks alike, its spacing differs a little. What a network scores here is comparable between
devices, not with published figures.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError

KNOWN = (
    r"E = m c ^ { 2 }",
    r"a ^ { 2 } + b ^ { 2 } = c ^ { 2 }",
    r"e ^ { i \pi } + 1 = 0",
    r"x = { \frac { - b \pm { \sqrt { b ^ { 2 } - 4 a c } } } { 2 a } }",
    r"F = G { \frac { m _ { 1 } m _ { 2 } } { r ^ { 2 } } }",
    r"\sum _ { n = 1 } ^ { \infty } { \frac { 1 } { n ^ { 2 } } } = { \frac { \pi ^ { 2 } } { 6 } }",
    r"\int _ { 0 } ^ { \infty } e ^ { - x } d x = 1",
    r"\nabla \cdot E = { \frac { \rho } { \epsilon _ { 0 } } }",
    r"{ \frac { d y } { d x } } = \lambda y",
    r"S = k \ln \Omega",
    r"P V = n R T",
    r"\Delta x \Delta p \geq { \frac { \hbar } { 2 } }",
    r"H \psi = E \psi",
    r"R _ { \mu \nu } - { \frac { 1 } { 2 } } g _ { \mu \nu } R = 8 \pi G T _ { \mu \nu }",
    r"f ( x ) = { \frac { 1 } { { \sqrt { 2 \pi } } } } e ^ { - x ^ { 2 } / 2 }",
    r"\cos ^ { 2 } \theta + \sin ^ { 2 } \theta = 1",
    r"{ \frac { \partial u } { \partial t } } = \alpha { \frac { \partial ^ { 2 } u } { \partial x ^ { 2 } } }",
    r"V = I R",
    r"\omega = { \sqrt { { \frac { k } { m } } } }",
    r"p = \hbar k",
    r"{ \frac { 1 } { f } } = { \frac { 1 } { u } } + { \frac { 1 } { v } }",
    r"A = \pi r ^ { 2 }",
    r"Z = \sum _ { i } e ^ { - \beta E _ { i } }",
    r"T = 2 \pi { \sqrt { { \frac { l } { g } } } }",
)
"""Well-known formulas; those that fit the picture are part of the test set."""
_LETTERS = (*"abcdefghkmnpqrstuvxyzABCDEFGHKLMNPQRSTVXYZ",)
_GREEK = tuple(
    rf"\{name}"
    for name in "alpha beta gamma delta lambda mu nu rho sigma tau phi psi omega theta Gamma Phi".split()
)
_JOINTS = ("+", "-", "+", "-", r"\cdot", r"\times")
_RELATIONS = ("=", "=", "=", r"\leq", r"\equiv", r"\simeq")
HEIGHT, WIDTH = 64, 160
_DPI = range(140, 80, -5)
"""Sizes of type, 12 points at so many dots an inch, that the network reads; the first that fits is taken."""
_SLACK = 40
"""White columns at most beside a formula: the network knows closely cropped pictures, and reads more white as
space to be typeset."""
_MARGIN = 4


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _atom(rng: np.random.Generator) -> str:
    return _one(rng, _GREEK if rng.random() < 0.35 else _LETTERS)


def _short(rng: np.random.Generator) -> str:
    """Return an index or exponent."""
    kind = rng.random()
    if kind < 0.5:
        return str(rng.integers(0, 10))
    return _one(rng, tuple("ijkmn")) + (f" {_one(rng, ('+', '-'))} 1" if kind > 0.85 else "")


def _term(rng: np.random.Generator, depth: int) -> str:
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        return _atom(rng)
    if kind < 0.5:
        return f"{_atom(rng)} _ {{ {_short(rng)} }}"
    if kind < 0.7:
        return f"{_atom(rng)} ^ {{ {_short(rng)} }}"
    if kind < 0.82:
        return rf"{{ \frac {{ {_sum(rng, depth - 1, 2)} }} {{ {_sum(rng, depth - 1, 2)} }} }}"
    if kind < 0.9:
        return rf"{{ \sqrt {{ {_sum(rng, depth - 1, 2)} }} }}"
    if kind < 0.96:
        return f"( {_sum(rng, depth - 1, 2)} )"
    big = _one(rng, (r"\sum", r"\int"))
    return f"{big} _ {{ {_one(rng, tuple('ijkn'))} = 0 }} ^ {{ {_one(rng, tuple('NMn'))} }} {_atom(rng)}"


def _sum(rng: np.random.Generator, depth: int, longest: int) -> str:
    parts = [_term(rng, depth)]
    for _ in range(int(rng.integers(longest))):
        parts += [_one(rng, _JOINTS), _term(rng, depth)]
    return " ".join(parts)


def formulas(n: int, seed: int) -> list[str]:
    """Return ``n`` distinct formulas drawn from a small grammar, all of which fit the picture."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        text = f"{_term(rng, 1)} {_one(rng, _RELATIONS)} {_sum(rng, 1, 3)}"
        if text not in found and text not in KNOWN and fits(text):
            found[text] = None
    return list(found)


def squeezed(text: str) -> str:
    """Return a formula as mathtext takes it: no spaces around indices, fractions of full size."""
    out = ""
    for token in text.split(" "):
        is_word = re.search(r"\\[a-zA-Z]+$", out) and token[0].isalpha()
        out += f" {token}" if is_word else token
    return out.replace(r"\frac", r"\dfrac")


def _ink(text: str, dpi: int) -> NDArray[np.uint8]:
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    prop = FontProperties(size=12, math_fontfamily="cm")
    parsed = MathTextParser("agg").parse(f"${squeezed(text)}$", dpi=dpi, prop=prop)
    ink = np.asarray(parsed.image)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@lru_cache(maxsize=4_096)
def _fitted(text: str) -> NDArray[np.uint8] | None:
    # Width grows with the size of type: one look tells which sizes can do.
    rough = _ink(text, _DPI[-1]).shape[1] / _DPI[-1]
    for dpi in _DPI:
        if rough * dpi > WIDTH:
            continue
        ink = _ink(text, dpi)
        if ink.shape[0] <= HEIGHT - 2 * _MARGIN and ink.shape[1] <= WIDTH - 2 * _MARGIN:
            return ink if ink.shape[1] >= WIDTH - _SLACK else None
    return None


def fits(text: str) -> bool:
    """Return whether a formula fills the picture without leaving it, in a readable size."""
    return _fitted(text) is not None


def render(text: str) -> NDArray[np.uint8]:
    """Return a formula in black on white, ``64 x 160``, at the left, in the middle of the height."""
    ink = _fitted(text)
    if ink is None:
        raise TaskError(f"the formula {text} does not fit a picture of {HEIGHT} x {WIDTH}.")
    picture = np.full((HEIGHT, WIDTH), 255, np.uint8)
    top = (HEIGHT - ink.shape[0]) // 2
    picture[top : top + ink.shape[0], _MARGIN : _MARGIN + ink.shape[1]] = 255 - ink
    return picture
