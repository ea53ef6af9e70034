"""Figures of a run: numbers in, matplotlib figures and their rows out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ohmloop.report._page import Plot, is_share, plot, word_of
from ohmloop.report._style import COLOURS, GREY, new_figure, styled, styled_axes
from ohmloop.units import format as with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ohmloop.train import Evaluation

BAND = (10.0, 90.0)
"""Percentiles over devices that bands and bars span."""
SERIES = ("deployment", "by_doing", "test_limit", "convention")
_MOST_ROWS = 40


def is_level(e: Evaluation) -> bool:
    """Whether an evaluation is one point of a curve over sigma: the plain log-normal law on weights."""
    return e.device.startswith("lognormal:") and not e.on_array


def series_of(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Return evaluations that differ in device and array alone, under a name for each such set."""
    out: dict[tuple[object, ...], list[Evaluation]] = {}
    for e in evaluations:
        out.setdefault(tuple(getattr(e, key) for key in SERIES), []).append(e)
    differing = [k for k in range(len(SERIES)) if len({key[k] for key in out}) > 1]
    return {_series_name(found[0], differing): found for found in out.values()}


def _series_name(e: Evaluation, differing: Sequence[int]) -> str:
    words = {
        "deployment": "no deployment" if e.deployment == "none" else e.deployment,
        "by_doing": "by doing" if e.by_doing else "by outputs",
        "test_limit": "all test samples"
        if e.test_limit is None
        else f"{e.test_limit} test samples",
        "convention": e.convention,
    }
    return ", ".join(words[SERIES[k]] for k in differing) or "all"


def label_of(e: Evaluation) -> str:
    """Return what an evaluation is about, in a few words."""
    where = ""
    if e.on_array:
        array = e.hardware["array"]
        where = f" on {array['rows']} x {array['columns']} arrays"
        if e.hardware.get("seconds"):
            where += f" after {e.hardware['seconds']:g} s"
    return f"{e.device}{where}"


def sigma_plot(evaluations: Sequence[Evaluation], chance: float | None) -> Plot:
    """Return score against sigma: lines with bands for log-normal levels, points for devices and arrays."""
    figure = new_figure(7.2, 4.1)
    axes = styled_axes(figure)
    first = evaluations[0]
    factor = 100.0 if is_share(first.metric) else 1.0
    groups = series_of(evaluations)
    rows: list[tuple[object, ...]] = [
        ("series", "what", "sigma", "mean", "p10", "p90", "worst_tenth", "n_devices")
    ]
    for k, (name, found) in enumerate(groups.items()):
        colour = COLOURS[k % (len(COLOURS) - 1)]
        levels = sorted((e for e in found if is_level(e)), key=lambda e: e.sigma)
        others = [e for e in found if not is_level(e)]
        if levels:
            _curve(axes, levels, colour, name if len(groups) > 1 else "log-normal noise", factor)
        _points(axes, others, colour, factor)
        rows.append((name, "digital", 0.0, found[0].digital, "", "", "", ""))
        for e in (*levels, *others):
            low, high = np.nanpercentile(e.scores, BAND)
            rows.append((name, label_of(e), e.sigma, e.mean, low, high, e.worst_tenth, e.n_devices))
    _name_points(axes, [e for e in evaluations if not is_level(e)], factor)
    if chance is not None:
        axes.axhline(factor * chance, color=GREY, ls=":", lw=1, label="chance")
    unit = " / %" if is_share(first.metric) else ""
    axes.set(
        xlabel="sigma of the log-normal weight noise (of the device)",
        ylabel=f"test {first.metric}{unit}",
    )
    if is_share(first.metric):
        axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.legend(loc="best", fontsize=8, frameon=False)
    return plot(
        "accuracy-against-sigma",
        figure,
        "Test score against weight noise",
        "Mean over simulated devices; bands and bars span the 10th to the 90th percentile of the devices. "
        "Thin dashed lines: the worst tenth. At sigma 0: the digital network. Points with a cross: on arrays.",
        rows,
    )


def _curve(axes: Axes, levels: Sequence[Evaluation], colour: str, name: str, factor: float) -> None:
    sigma = np.array([0.0, *(e.sigma for e in levels)])
    bands = np.array([np.nanpercentile(e.scores, BAND) for e in levels]).T
    digital = levels[0].digital
    low, high = (np.concatenate([[digital], b]) for b in bands)
    axes.fill_between(sigma, factor * low, factor * high, color=colour, alpha=0.2, lw=0)
    mean = np.array([digital, *(e.mean for e in levels)])
    axes.plot(sigma, factor * mean, "o-", color=colour, ms=4, label=f"{name}: mean")
    worst = np.array([digital, *(e.worst_tenth for e in levels)])
    axes.plot(sigma, factor * worst, "--", color=colour, lw=1, label=f"{name}: worst tenth")


def _points(axes: Axes, found: Sequence[Evaluation], colour: str, factor: float) -> None:
    for e in found:
        low, high = np.nanpercentile(e.scores, BAND)
        bar = factor * np.array([[max(e.mean - low, 0)], [max(high - e.mean, 0)]])
        axes.errorbar(
            [e.sigma],
            [factor * e.mean],
            yerr=bar,
            fmt="X" if e.on_array else "D",
            color=colour,
            ms=6,
            capsize=2,
            mec="#ffffff",
            mew=0.6,
        )


def _name_points(axes: Axes, found: Sequence[Evaluation], factor: float) -> None:
    """Write names beside points, where there are few enough to be read."""
    if len(found) > 12:
        return
    for k, e in enumerate(sorted(found, key=lambda e: (e.sigma, e.mean))):
        axes.annotate(
            label_of(e),
            (e.sigma, factor * e.mean),
            xytext=(7, -12 - 11 * (k % 3)),
            textcoords="offset points",
            fontsize=7.5,
        )


def device_plot(evaluations: Sequence[Evaluation]) -> Plot:
    """Return every simulated device of every evaluation, one row an evaluation."""
    shown = sorted(evaluations, key=lambda e: (e.sigma, e.name))[:_MOST_ROWS]
    figure = new_figure(7.2, 1.0 + 0.34 * len(shown))
    axes = styled_axes(figure)
    first = shown[0]
    factor = 100.0 if is_share(first.metric) else 1.0
    names = {e.name: name for name, found in series_of(evaluations).items() for e in found}
    many = len(set(names.values())) > 1
    for y, e in enumerate(shown):
        scores = factor * np.array(e.scores)
        # Spread by number, not by chance: the same picture every time.
        lift = 0.3 * (np.arange(len(scores)) * 0.618034 % 1 - 0.5)
        axes.plot(scores, y + lift, ".", color=COLOURS[0], ms=5, alpha=0.6, mew=0)
        axes.plot([factor * e.mean] * 2, [y - 0.32, y + 0.32], color=COLOURS[1], lw=2)
    axes.plot([], [], ".", color=COLOURS[0], ms=6, label="one simulated device")
    axes.plot([], [], color=COLOURS[1], lw=2, label="mean")
    axes.axvline(factor * first.digital, color=GREY, ls=":", lw=1, label="digital")
    axes.set_yticks(
        range(len(shown)),
        [label_of(e) + (f" ({names[e.name]})" if many else "") for e in shown],
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"test {first.metric}" + (" / %" if is_share(first.metric) else ""))
    figure.legend(loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    return plot(
        "accuracy-per-device",
        figure,
        "Test score of every simulated device",
        "Every simulated device is a point; the lift within a row has no meaning."
        + ("" if len(shown) == len(evaluations) else f" The first {_MOST_ROWS} by sigma."),
        [
            ("evaluation", "what", "sigma", "device", "score"),
            *(
                (e.name, label_of(e), e.sigma, k, "" if math.isnan(s) else s)
                for e in sorted(evaluations, key=lambda e: (e.sigma, e.name))
                for k, s in enumerate(e.scores)
            ),
        ],
    )


def history_plot(history: Sequence[Mapping[str, float]], metric: str) -> Plot:
    """Return loss and validation score by epoch."""
    figure = new_figure(7.2, 2.9)
    with styled():
        left, right = figure.subplots(1, 2)
    epochs = [h["epoch"] for h in history]
    for axes, key, colour, label in (
        (left, "loss", COLOURS[1], "training loss"),
        (right, "validation_score", COLOURS[0], f"validation {metric}"),
    ):
        values = np.array([h.get(key, math.nan) for h in history], dtype=float)
        factor = 100.0 if key == "validation_score" and is_share(metric) else 1.0
        axes.plot(epochs, factor * values, color=colour, marker="o" if len(epochs) < 25 else "")
        axes.set(xlabel="epoch", ylabel=label + (" / %" if factor > 1 else ""))
        axes.xaxis.get_major_locator().set_params(integer=True)
    keys = list(dict.fromkeys(key for h in history for key in h))
    return plot(
        "history",
        figure,
        "Loss and validation score by epoch",
        "The training that was kept. Validation: the digital network, without noise.",
        [keys, *([h.get(key, "") for key in keys] for h in history)],
    )


def array_plot(e: Evaluation) -> Plot:
    """Return energy and tiles by layer of one evaluation on arrays."""
    assert e.arrays is not None
    layers = [layer for layer in e.arrays.layers if layer.analog]
    figure: Figure = new_figure(7.2, 1.3 + 0.32 * max(len(layers), 1))
    with styled():
        left, right = figure.subplots(1, 2, sharey=True)
    names = [layer.name or "(model)" for layer in layers]
    energies = [1e9 * (layer.energy or 0.0) for layer in layers]
    left.barh(names, energies, color=COLOURS[0])
    left.set(xlabel="energy of one input / nJ")
    right.barh(names, [layer.tiles or 0 for layer in layers], color=COLOURS[2])
    right.set(xlabel="tiles")
    right.xaxis.get_major_locator().set_params(integer=True)
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(False, axis="y")
    total = "" if e.arrays.energy is None else f"{with_unit(e.arrays.energy, 'J')} and "
    heads = (
        "name",
        "type",
        "analog",
        "parameters",
        "arrays",
        "tiles",
        "utilisation",
        "error",
        "energy",
    )
    rows: list[Sequence[Any]] = [
        ("layer", *heads[1:-1], "energy_J"),
        *([getattr(layer, head) for head in heads] for layer in e.arrays.layers),
    ]
    return plot(
        f"layers-{word_of(e.name)}",
        figure,
        f"Energy and tiles by layer, {label_of(e)}",
        f"{label_of(e)}: energy of one input by layer, programming left out, and the arrays that each layer "
        f"takes; together {total}{e.arrays.tiles:,} tiles. Counted from this network, its cells and 16 "
        "validation inputs.",
        rows,
    )
