"""Figures as SVG: ids are a figure's own, colours stay, and ink follows the page."""

import re

from ohmloop.report import to_svg
from ohmloop.report._style import new_figure, styled_axes


def test_hatched_bars_keep_their_colour() -> None:
    figure = new_figure()
    styled_axes(figure).barh(0, 1, color="#0072B2", hatch="//", edgecolor="white")
    text = to_svg(figure, "bars")
    assert 'fill="#0072b2"' in text
    (pattern,) = re.findall(r'<pattern id="([^"]+)"', text)
    assert f"url(#{pattern})" in text


def test_two_figures_share_no_id() -> None:
    def ids(height: float) -> set[str]:
        figure = new_figure()
        styled_axes(figure).barh(0, height, hatch="//")
        return set(re.findall(r'\bid="([^"]+)"', to_svg(figure, "bars")))

    assert ids(1.0).isdisjoint(ids(2.0))
