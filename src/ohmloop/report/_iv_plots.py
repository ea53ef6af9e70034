"""One picture a measurement file: the I-V loops, and the ramp that the figures come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ohmloop.errors import OhmloopError
from ohmloop.report._style import COLOURS, GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ohmloop.data import Analysis, FiguresOfMerit, Sweep


def sweep_figure(sweep: Sweep, figures: FiguresOfMerit) -> Figure:
    """Draw one file: |I| against V on a log axis, and the conductance of the rising ramp."""
    figure = new_figure(9.6, 4.0)
    with styled():
        loops, ramp = figure.subplots(1, 2)
    _draw_loops(loops, sweep, figures)
    _draw_ramp(ramp, sweep, figures)
    name = figures.file if len(figures.file) <= 90 else figures.file[:87] + "..."
    figure.suptitle(name.replace("$", r"\$"), fontsize=8, color=GREY)
    return figure


def _draw_loops(axes: Axes, sweep: Sweep, figures: FiguresOfMerit) -> None:
    current = np.abs(sweep.current)
    current = np.where(current > 0, current, np.nan)
    for c in range(current.shape[1]):
        axes.plot(sweep.voltage[:, c], current[:, c], color=COLOURS[5], lw=0.6, alpha=0.6)
    present = np.isfinite(current).any(axis=1)
    middle = np.full(len(current), np.nan)
    middle[present] = np.nanmedian(current[present], axis=1)
    axes.plot(sweep.voltage[:, 0], middle, color=COLOURS[0], lw=1.6, label="median of cycles")
    for key, value, colour in (
        ("SET", figures.set_voltage, COLOURS[2]),
        ("RESET", figures.reset_voltage, COLOURS[1]),
    ):
        if value is not None:
            axes.axvline(value, color=colour, ls="--", lw=1, label=f"{key} {value:.2f} V")
    axes.set(xlabel="Voltage / V", ylabel="|Current| / A", yscale="log")
    axes.set_title(f"{figures.cycles} cycles", fontsize=9)
    axes.legend(fontsize=8, loc="best")


def _draw_ramp(axes: Axes, sweep: Sweep, figures: FiguresOfMerit) -> None:
    from ohmloop.data import mean_over_cycles, published_ramp

    ramp = published_ramp(sweep)
    axes.set(xlabel="Voltage / V", ylabel="Conductance I / V / S")
    if figures.window is None or figures.sigma is None:
        axes.text(0.5, 0.5, "no rising ramp", transform=axes.transAxes, ha="center", color=GREY)
        return
    positive = np.where(ramp.conductance > 0, ramp.conductance, np.nan)
    axes.plot(ramp.voltage, positive, ".", color=COLOURS[5], ms=3, alpha=0.6)
    mean = mean_over_cycles(ramp.conductance)
    axes.plot(
        ramp.voltage, np.where(mean > 0, mean, np.nan), color=COLOURS[0], lw=1.6, label="mean"
    )
    a, b = figures.window
    axes.axvspan(
        ramp.voltage[a], ramp.voltage[b], color=COLOURS[4], alpha=0.2, label="monotone window"
    )
    if np.isfinite(positive).any():
        axes.set_yscale("log")
    axes.set_title(
        f"sigma {figures.sigma:.3f}, monotonicity {figures.monotonicity:.2f}, "
        f"usability {figures.usability:.3f}",
        fontsize=9,
    )
    axes.legend(fontsize=8, loc="best")


def write_sweep_plots(rows: Sequence[Analysis], folder: Path) -> list[Path]:
    """Write one PNG for each analysed file; names are made safe and never collide.

    Raises:
        OhmloopError: If the folder cannot be written.
    """
    written: list[Path] = []
    used: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows:
            if row.sweep is None or row.figures is None:
                continue
            stem = re.sub(r"[^\w.+-]+", "_", Path(row.file).stem).strip("._-")[:120] or "sweep"
            name, k = stem, 2
            while name.lower() in used:
                name, k = f"{stem}-{k}", k + 1
            used.add(name.lower())
            path = folder / f"{name}.png"
            with styled():
                sweep_figure(row.sweep, row.figures).savefig(path, dpi=130)
            written.append(path)
    except OSError as error:
        raise OhmloopError(
            f"pictures cannot be written to {folder}: {error.strerror or error}. Name another folder."
        ) from error
    return written
