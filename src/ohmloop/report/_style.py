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
    """Return ``figure`` as an inline ``<svg>`` element that screen readers call ``title``."""
    import html

    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    label = html.escape(title, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
