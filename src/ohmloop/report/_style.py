"""How ohmloop's figures look: colours that colour-blind readers tell apart, SVG that repeats."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design": told apart under all common
# colour-vision types.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#777777"
INK = "#111111"
"""Stays black on a dark page, for what stands on a coloured ground; plain black follows the page."""

_RC = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # A fixed salt and no date: the same data gives the same bytes.
    "svg.hashsalt": "ohmloop",
}


@contextmanager
def styled() -> Iterator[None]:
    """While active, matplotlib draws in the house style."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float = 7.2, height: float = 3.9) -> Figure:
    """Return an empty figure of ``width x height`` inches in the house style, free of pyplot."""
    from matplotlib.figure import Figure

    with styled():
        return Figure(figsize=(width, height), layout="constrained")


def styled_axes(figure: Figure) -> Axes:
    """Return the only axes of ``figure`` in the house style."""
    with styled():
        return figure.subplots()


def to_svg(figure: Figure, title: str) -> str:
    """Return ``figure`` as an inline ``<svg>`` element that screen readers call ``title``.

    Ink, paper and grid follow the page that it stands on, light or dark; alone it is black on white. Its ids
    are its own, so that many figures share a page.
    """
    import hashlib
    import html
    import re

    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, follows in _FOLLOWS.items():
        text = re.sub(rf"(fill|stroke): {colour}\b", rf"\1: {follows}", text)
    key = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{key}-", text)
    label = html.escape(title, quote=True)
    # Letters in black have no style of their own: they take the ink of the whole.
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" fill="currentColor" ', 1)


_FOLLOWS = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper, #ffffff)",
    "#dddddd": "var(--grid, #dddddd)",
    "#cccccc": "var(--grid, #cccccc)",
    "#777777": "var(--soft, #777777)",
    "#0072b2": "var(--blue, #0072b2)",
}
"""Colours that follow the page: ink, paper, grid, asides, and the one line colour too dark for a dark page."""


def printed(page: str) -> str:
    """Return a page whose figures name their colours outright: black on white, for what knows no variables."""
    import re

    return re.sub(r"var\(--\w+, (#\w+)\)", r"\1", page).replace("currentColor", "#000000")
