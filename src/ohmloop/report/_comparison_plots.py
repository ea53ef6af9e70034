"""Figures of a comparison, and the paired differences behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.report._page import PERCENT, Plot, is_share, plot
from ohmloop.report._run_plots import BAND
from ohmloop.report._style import COLOURS, GREY, MARKERS, new_figure, styled_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ohmloop.train import ComparisonRecord

CONFIDENCE = 0.95
"""Of the intervals of paired differences."""


class Difference(NamedTuple):
    """How much better one row is than the reference, over training seeds.

    Attributes:
        row: Number of the row.
        hardware: Number of the hardware; None for the mean over all.
        by_seed: Improvement for each seed, mean over devices; positive is better.
        mean: Over seeds.
        half: Half width of the 95 % interval (Student's t over seeds); NaN for a single seed.
    """

    row: int
    hardware: int | None
    by_seed: NDArray[np.float64]
    mean: float
    half: float


def paired_differences(record: ComparisonRecord) -> list[Difference]:
    """Return how much better every row is than the first, on the same seeds and devices.

    Both rows of a pair start from the same weights, see the same batches and are measured on the same
    simulated devices, so that what all trainings share cancels. Positive is better, whatever the direction of
    the score. The interval is Student's t over seeds: mean ± t(n - 1) s / sqrt(n).
    """
    from scipy.stats import t

    sign = 1.0 if record.is_higher_better else -1.0
    n = len(record.seeds)
    scores = [np.array(row.scores).mean(axis=2) for row in record.rows]
    out = []
    for k in range(1, len(scores)):
        gain = sign * (scores[k] - scores[0])
        parts: list[tuple[int | None, NDArray[np.float64]]] = [(None, gain.mean(axis=0))]
        parts += [(h, gain[h]) for h in range(len(gain))]
        for hardware, by_seed in parts:
            half = math.nan
            if n > 1:
                quantile = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1))
                half = quantile * float(by_seed.std(ddof=1)) / math.sqrt(n)
            out.append(Difference(k, hardware, by_seed, float(by_seed.mean()), half))
    return out


def name_of(record: ComparisonRecord, k: int) -> str:
    row = record.rows[k]
    many = len({r.deployment for r in record.rows}) > 1
    return f"{row.method} / {row.deployment}" if many else row.method


def hardware_name(record: ComparisonRecord, k: int) -> str:
    return str(record.hardware[k]["device"]["name"])


def _sigmas(record: ComparisonRecord) -> list[float]:
    return [float(h["device"]["sigma"]["value"]) for h in record.hardware]


def unit_of(record: ComparisonRecord) -> tuple[float, str]:
    """Return the factor of shown scores and the unit of their differences."""
    return (100.0, "points") if is_share(record.metric) else (1.0, record.metric)


def curve_plot(record: ComparisonRecord) -> Plot:
    """Return score against sigma where the hardwares have different ones, else by device."""
    sigmas = _sigmas(record)
    by_sigma = len(set(sigmas)) == len(sigmas) and len(sigmas) > 1
    order = np.argsort(sigmas, kind="stable") if by_sigma else np.arange(len(sigmas))
    x = np.array(sigmas)[order] if by_sigma else np.arange(len(sigmas), dtype=float)
    figure = new_figure(7.2, 4.2)
    axes = styled_axes(figure)
    factor = 100.0 if is_share(record.metric) else 1.0
    rows: list[Sequence[object]] = [
        ("method", "deployment", "device_model", "sigma", "seed", "device", "score")
    ]
    for k, row in enumerate(record.rows):
        scores = np.array(row.scores)[order].reshape(len(sigmas), -1)
        _line(axes, k, x, factor * scores, name_of(record, k), is_line=by_sigma)
        for h, per_seed in enumerate(row.scores):
            for seed, devices in zip(record.seeds, per_seed, strict=True):
                rows += [
                    (row.method, row.deployment, hardware_name(record, h), sigmas[h], seed, d, s)
                    for d, s in enumerate(devices)
                ]
    if by_sigma:
        axes.set(xlabel="sigma of the log-normal weight noise (of the device)", xlim=(0, None))
    else:
        names = [hardware_name(record, int(k)) for k in order]
        axes.set_xticks(x, names, rotation=30, ha="right")
        axes.grid(False, axis="x")
    axes.set_ylabel(f"test {record.metric}" + (" / %" if is_share(record.metric) else ""))
    figure.legend(
        loc="outside lower center", ncols=min(3, len(record.rows)), fontsize=8, frameon=False
    )
    return plot(
        "accuracy",
        figure,
        "Test score by method",
        "Mean, and the 10th to 90th percentile, over simulated devices and training seeds together"
        f" ({len(record.seeds)} seeds x {record.n_devices} devices). Digital scores are in the table.",
        rows,
    )


def _line(
    axes: Axes,
    k: int,
    x: NDArray[np.float64],
    scores: NDArray[np.float64],
    name: str,
    *,
    is_line: bool,
) -> None:
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
    mean = scores.mean(axis=1)
    low, high = np.nanpercentile(scores, BAND, axis=1)
    if is_line:
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(x, mean, color=colour, marker=marker, ms=5, label=name)
        return
    bars = np.maximum([mean - low, high - mean], 0)
    at = x + 0.08 * (k - 2)
    axes.errorbar(at, mean, yerr=bars, fmt=marker, color=colour, ms=5, lw=1.2, label=name)


def seed_plot(record: ComparisonRecord) -> Plot:
    """Return the mean score of each training seed: what the spread over trainings is."""
    figure = new_figure(7.2, 1.1 + 0.36 * len(record.rows))
    axes = styled_axes(figure)
    factor = 100.0 if is_share(record.metric) else 1.0
    rows: list[Sequence[object]] = [("method", "deployment", "seed", "mean_score", "digital")]
    for k, row in enumerate(record.rows):
        means = np.array(row.scores).mean(axis=(0, 2))
        axes.plot(factor * means, np.full(len(means), k), "o", color=COLOURS[k % 7], alpha=0.75)
        axes.plot([factor * means.mean()] * 2, [k - 0.3, k + 0.3], color=COLOURS[k % 7], lw=2)
        rows += [
            (row.method, row.deployment, seed, float(m), c)
            for seed, m, c in zip(record.seeds, means, row.clean, strict=True)
        ]
    axes.set_yticks(range(len(record.rows)), [name_of(record, k) for k in range(len(record.rows))])
    axes.set_ylim(len(record.rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    unit = " / %" if is_share(record.metric) else ""
    axes.set_xlabel(f"test {record.metric} of one training, mean over all devices{unit}")
    return plot(
        "seeds",
        figure,
        "Mean test score of each training",
        "One point a training seed; the line is their mean.",
        rows,
    )


def difference_plot(record: ComparisonRecord, found: Sequence[Difference]) -> Plot:
    factor, unit = unit_of(record)
    n_hardware = len(record.hardware) + 1
    figure = new_figure(7.2, 1.4 + 0.27 * n_hardware * (len(record.rows) - 1))
    axes = styled_axes(figure)
    labels = []
    rows: list[Sequence[object]] = [
        (
            "method",
            "against",
            "device_model",
            "mean",
            "half_width_95",
            *map(_seed_head, record.seeds),
        )
    ]
    for y, d in enumerate(found):
        colour = COLOURS[d.row % len(COLOURS)]
        where = "all devices" if d.hardware is None else hardware_name(record, d.hardware)
        labels.append(f"{name_of(record, d.row)}: {where}" if d.hardware is None else where)
        axes.plot(
            factor * d.by_seed,
            np.full(len(d.by_seed), y - 0.27),
            ".",
            color=colour,
            alpha=0.7,
            ms=5,
        )
        half = None if math.isnan(d.half) else [factor * d.half]
        thick = 2.2 if d.hardware is None else 1.2
        axes.errorbar(
            [factor * d.mean],
            [y],
            xerr=half,
            fmt=MARKERS[d.row % 7],
            color=colour,
            lw=thick,
            capsize=2,
        )
        rows.append(
            (
                name_of(record, d.row),
                name_of(record, 0),
                where,
                d.mean,
                "" if math.isnan(d.half) else d.half,
                *map(float, d.by_seed),
            )
        )
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    for label, d in zip(axes.get_yticklabels(), found, strict=True):
        label.set_fontweight("bold" if d.hardware is None else "normal")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"better than {name_of(record, 0)} by / {unit}")
    return plot(
        "differences",
        figure,
        f"Paired differences to {name_of(record, 0)}",
        f"Improvement over {name_of(record, 0)} on the same training seeds and simulated devices: small points "
        f"are seeds (drawn a little higher), bars the 95{PERCENT} interval of their mean (Student's t over "
        f"{len(record.seeds)} seeds). Right of the line is better.",
        rows,
    )


def _seed_head(seed: int) -> str:
    return f"seed_{seed}"
