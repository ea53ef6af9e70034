"""Residual plots of a device fit: measured against fitted, residuals, normal quantiles."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import OhmloopError
from ohmloop.report._style import COLOURS, GREY, MARKERS, new_figure, styled_axes, to_svg

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ohmloop.device import Residuals

MOST_SERIES = 40
"""Series drawn with a line of their own; of more, evenly spread ones are drawn."""
MOST_POINTS = 4000
"""Points drawn; of more, evenly spread ones are drawn. The table holds all."""
_X = {"pulses": "Pulse number", "retention": "Time after programming / s"}


def fitted_figure(residuals: Residuals) -> Figure:
    """Draw the readings and the fitted curves against the number of pulses or the time."""
    figure = new_figure(7.2, 4.3)
    axes = styled_axes(figure)
    shown = _shown(residuals)
    for k, series in enumerate(shown):
        at = np.flatnonzero(residuals.series == series)
        at = at[np.argsort(residuals.x[at], kind="stable")]
        colour, marker = _mark(residuals, series)
        axes.plot(
            residuals.x[at],
            residuals.measured[at],
            marker,
            color=colour,
            ms=_size(residuals),
            alpha=0.55,
            mew=0,
            zorder=2,
            label="measured" if k == 0 else None,
        )
    for k, series in enumerate(shown):
        at = np.flatnonzero(residuals.series == series)
        at = at[np.argsort(residuals.x[at], kind="stable")]
        axes.plot(
            residuals.x[at],
            residuals.fitted[at],
            color="black",
            lw=1.0 if residuals.kind == "pulses" else 0.7,
            zorder=3 if residuals.kind == "pulses" else 1,
            label="fitted" if k == 0 else None,
        )
    _finish(axes, residuals, shown)
    axes.set_ylabel("Conductance / S")
    if residuals.kind == "retention" or _decades(residuals.measured) > 2:
        axes.set_yscale("log" if (residuals.measured > 0).all() else "linear")
    return figure


def residual_figure(residuals: Residuals) -> Figure:
    """Draw the relative residuals against the number of pulses or the time."""
    figure = new_figure(7.2, 3.9)
    axes = styled_axes(figure)
    shown = _shown(residuals)
    limit = 1.15 * float(np.quantile(np.abs(residuals.relative), 0.995))
    for series in shown:
        at = np.flatnonzero(residuals.series == series)
        colour, marker = _mark(residuals, series)
        axes.plot(
            residuals.x[at],
            np.clip(residuals.relative[at], -limit, limit),
            marker,
            color=colour,
            ms=_size(residuals),
            alpha=0.6,
            mew=0,
        )
    axes.axhline(0, color="black", lw=0.8)
    _finish(axes, residuals, shown)
    axes.set_ylabel("measured / fitted − 1")
    if limit > 0:
        axes.set_ylim(-limit, limit)
    return figure


def quantile_figure(residuals: Residuals) -> Figure:
    """Draw the standardised residuals in order against normal quantiles: a normal law is the diagonal."""
    from scipy.stats import norm

    figure = new_figure(4.8, 4.5)
    axes = styled_axes(figure)
    ordered = np.sort(residuals.standard[np.isfinite(residuals.standard)])
    n = len(ordered)
    axes.set(xlabel="Normal quantile", ylabel="Standardised residual")
    axes.set_title(residuals.standard_of, fontsize=9, color=GREY)
    if n < 3:
        axes.text(0.5, 0.5, "too few to order", transform=axes.transAxes, ha="center", color=GREY)
        return figure
    wanted = norm.ppf((np.arange(n) + 0.5) / n)
    at = _thinned(n)
    end = 1.05 * max(3.0, float(np.abs(wanted).max()))
    axes.plot([-end, end], [-end, end], color="black", lw=1.0, label="standard normal")
    axes.plot(
        wanted[at], ordered[at], MARKERS[0], color=COLOURS[0], ms=3.5, mew=0, label=f"{n} values"
    )
    axes.legend(fontsize=8, loc="upper left")
    return figure


def write_device_plots(parts: Sequence[Residuals], folder: Path) -> list[Path]:
    """Write three figures (SVG) and a table (CSV) for each part of a fit.

    Args:
        parts: What `pulse_residuals` and `retention_residuals` gave.
        folder: Made where it is not there; files of the same name are replaced.

    Raises:
        OhmloopError: If the folder cannot be written.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            for word, draw in (
                ("fitted", fitted_figure),
                ("residuals", residual_figure),
                ("quantiles", quantile_figure),
            ):
                path = folder / f"{part.kind}-{word}.svg"
                path.write_text(to_svg(draw(part), f"{part.kind}: {word}"), encoding="utf-8")
                written.append(path)
            for word, table in (("residuals", _points(part)), ("quantiles", _quantiles(part))):
                path = folder / f"{part.kind}-{word}.csv"
                path.write_text(table, encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise OhmloopError(
            f"pictures cannot be written to {folder}: {error.strerror or error}. Name another folder."
        ) from error
    return written


def _points(part: Residuals) -> str:
    x = "pulse" if part.kind == "pulses" else "seconds"
    rows = zip(
        (part.names[k] for k in part.series),
        part.x.tolist(),
        part.measured.tolist(),
        part.fitted.tolist(),
        part.relative.tolist(),
        strict=True,
    )
    return _csv([("series", x, "measured_siemens", "fitted_siemens", "relative_residual"), *rows])


def _quantiles(part: Residuals) -> str:
    from scipy.stats import norm

    ordered = np.sort(part.standard[np.isfinite(part.standard)])
    wanted = norm.ppf((np.arange(len(ordered)) + 0.5) / max(len(ordered), 1))
    rows = zip(wanted.tolist(), ordered.tolist(), strict=True)
    return _csv([("normal_quantile", "standardised_residual"), *rows])


def _csv(rows: Sequence[tuple[object, ...]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _shown(residuals: Residuals) -> list[int]:
    """Return which series are drawn."""
    n = len(residuals.names)
    return [int(k) for k in np.unique(np.linspace(0, n - 1, min(n, MOST_SERIES)).round())]


def _thinned(n: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(np.int64))


def _mark(residuals: Residuals, series: int) -> tuple[str, str]:
    """Colour and marker: the two polarities of pulses; for traces, six in turn."""
    if residuals.kind == "pulses":
        kind = int(residuals.names[series].endswith("depression"))
        return COLOURS[kind], MARKERS[kind]
    return COLOURS[series % 6], MARKERS[series % 6]


def _size(residuals: Residuals) -> float:
    """Return a marker size: larger where there are few points."""
    return 3.0 if len(residuals.x) > 1000 else 4.5


def _finish(axes: Axes, residuals: Residuals, shown: Sequence[int]) -> None:
    axes.set_xlabel(_X[residuals.kind])
    if residuals.kind == "retention":
        axes.set_xscale("log")
    n = len(residuals.names)
    word = "branches" if residuals.kind == "pulses" else "traces"
    told = f"{n} {word}" if len(shown) == n else f"{len(shown)} of {n} {word}"
    axes.set_title(told, fontsize=9, color=GREY)
    handles: list[Artist] = []
    labels: list[str] = []
    if residuals.kind == "pulses":
        for kind, label in enumerate(("potentiation", "depression")):
            (handle,) = axes.plot([], [], MARKERS[kind], color=COLOURS[kind], ms=4)
            handles.append(handle)
            labels.append(label)
    lines, names = axes.get_legend_handles_labels()
    for line, name in zip(lines, names, strict=True):
        if name == "fitted" or (name == "measured" and residuals.kind == "retention"):
            handles.append(line)
            labels.append(name)
    if handles:
        axes.legend(handles, labels, fontsize=8, loc="best")


def _decades(values: NDArray[np.float64]) -> float:
    positive = values[values > 0]
    return float(np.log10(positive.max() / positive.min())) if len(positive) else 0.0
