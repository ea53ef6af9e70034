"""One function per figure of a comparison report: a `Study` in, a matplotlib figure out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ohmloop.report._style import COLOURS, GREY, MARKERS, new_figure, styled_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ohmloop.device import DeviceModel
    from ohmloop.report._study import Study

BAND = (10.0, 90.0)
"""Percentiles over devices and seeds that bands and bars span."""


def _figure_value(device: DeviceModel, key: str) -> float:
    value = device.figures.get(key)
    return float(value) if isinstance(value, int | float) else float("nan")


def device_map(study: Study) -> Figure:
    """Draw every device by sigma and monotonicity, with lines of equal published usability."""
    figure = new_figure(7.2, 4.3)
    axes = styled_axes(figure)
    sigma = np.array([d.sigma.value for d in study.devices])
    mono = np.array([_figure_value(d, "monotonicity") for d in study.devices])
    materials = [str(d.recipe.get("material", "measured")) for d in study.devices]
    x_top, y_top = 1.05 * sigma.max(), 1.25 * float(np.nanmax(mono))
    grid = np.linspace(0, x_top, 200)
    for usability in (0.02, 0.05, 0.1, 0.2, 0.3):
        line = usability * np.exp(grid)
        keep = line <= y_top
        if keep.sum() < 2:
            continue
        axes.plot(grid[keep], line[keep], color="#bbbbbb", lw=0.8, zorder=1)
        # The number stands on its line, just inside the right or the upper border.
        at = np.flatnonzero((line <= 0.96 * y_top) & (grid <= 0.97 * x_top))[-1]
        axes.text(
            grid[at],
            line[at],
            f"{usability:g}",
            color=GREY,
            fontsize=8,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            zorder=2,
        )
    for k, material in enumerate(sorted(set(materials))):
        chosen = [i for i, m in enumerate(materials) if m == material]
        axes.scatter(
            sigma[chosen],
            mono[chosen],
            s=38,
            color=COLOURS[k % len(COLOURS)],
            marker=MARKERS[k % len(MARKERS)],
            label=f"{material} ({len(chosen)})",
            zorder=3,
        )
    for index, word in ((study.best, "best"), (study.median, "median")):
        axes.scatter(sigma[index], mono[index], s=170, facecolor="none", edgecolor="k", zorder=4)
        axes.annotate(
            f"{word}: {study.devices[index].name}",
            (sigma[index], mono[index]),
            xytext=(14, 10),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "lw": 0.8},
        )
    axes.set(
        xlabel="sigma of ln G over cycles (lower is better)",
        ylabel="monotonicity (window / 100 steps)",
        xlim=(0, x_top * 1.04),
        ylim=(0, y_top),
    )
    axes.legend(title="material (devices)", loc="upper right")
    axes.set_title(
        "grey lines: equal usability = monotonicity × exp(−sigma)", fontsize=9, color=GREY
    )
    return figure


def accuracy_against_sigma(study: Study) -> Figure:
    """Draw accuracy against the noise level: mean, and the 10-90 % band over devices and seeds."""
    figure = new_figure(7.2, 4.1)
    axes = styled_axes(figure)
    sigmas = np.concatenate([[0.0], study.sigmas])
    for k, result in enumerate(study.results):
        flat = result.sweep.reshape(len(study.sigmas), -1)
        low, high = np.percentile(flat, BAND, axis=1)
        clean = result.clean.mean()
        colour = COLOURS[k % len(COLOURS)]
        axes.fill_between(
            sigmas,
            100 * np.concatenate([[result.clean.min()], low]),
            100 * np.concatenate([[result.clean.max()], high]),
            color=colour,
            alpha=0.18,
            lw=0,
        )
        axes.plot(
            sigmas,
            100 * np.concatenate([[clean], flat.mean(axis=1)]),
            color=colour,
            marker=MARKERS[k % len(MARKERS)],
            ms=5,
            label=result.method,
        )
    _mark_devices(axes, study)
    axes.axhline(100 * study.chance, color=GREY, ls=":", lw=1)
    axes.annotate(
        "chance",
        (sigmas[0], 100 * study.chance),
        xytext=(4, -11),
        textcoords="offset points",
        color=GREY,
        fontsize=8,
    )
    axes.set(
        xlabel="sigma of the log-normal weight noise", ylabel="test accuracy / %", ylim=(0, 102)
    )
    axes.set_xlim(0, max(study.sigmas))
    axes.legend(loc="upper right")
    return figure


def _mark_devices(axes: Axes, study: Study) -> None:
    for index, word in ((study.best, "best"), (study.median, "median")):
        sigma = study.devices[index].sigma.value
        if sigma <= max(study.sigmas):
            axes.axvline(sigma, color="k", ls="--", lw=0.8)
            axes.annotate(
                f"{word} device",
                (sigma, 1),
                xytext=(3, 0),
                textcoords="offset points",
                rotation=90,
                va="bottom",
                fontsize=8,
            )


def accuracy_per_device(study: Study) -> Figure:
    """Draw accuracy on each measured device, sorted by sigma: mean and 10-90 % bar."""
    figure = new_figure(9.2, 4.6)
    axes = styled_axes(figure)
    order = sorted(range(len(study.devices)), key=lambda i: (study.devices[i].sigma.value, i))
    width = 0.8 / max(1, len(study.results))
    for k, result in enumerate(study.results):
        flat = result.on_devices.reshape(len(study.devices), -1)[order]
        mean = flat.mean(axis=1)
        low, high = np.percentile(flat, BAND, axis=1)
        x = np.arange(len(order)) + (k - (len(study.results) - 1) / 2) * width
        axes.errorbar(
            x,
            100 * mean,
            # The mean of a skewed sample may lie outside its central 80 %.
            yerr=100 * np.maximum([mean - low, high - mean], 0),
            fmt=MARKERS[k % len(MARKERS)],
            ms=3.5,
            lw=1,
            color=COLOURS[k % len(COLOURS)],
            label=result.method,
        )
    axes.axhline(100 * study.chance, color=GREY, ls=":", lw=1, label="chance")
    axes.set_xticks(
        np.arange(len(order)),
        [
            f"{device.name.removeprefix('nanowire-')}  ({device.sigma.value:.2f})"
            for device in (study.devices[i] for i in order)
        ],
        rotation=90,
        fontsize=7,
    )
    axes.set(
        xlabel="measured device (its sigma), sorted by sigma",
        ylabel="test accuracy / %",
        ylim=(0, 102),
        xlim=(-0.8, len(order) - 0.2),
    )
    axes.grid(False, axis="x")
    axes.legend(loc="upper center", ncols=len(study.results) + 1, bbox_to_anchor=(0.5, 1.1))
    return figure


def published_agreement(study: Study) -> Figure:
    """Draw our simulated accuracy per device against the published LeNet / MNIST one."""
    figure = new_figure(5.2, 4.2)
    axes = styled_axes(figure)
    index = [
        i
        for i, d in enumerate(study.devices)
        if d.published.get("lenet_mnist_accuracy") is not None
    ]
    published = [100 * study.devices[i].published["lenet_mnist_accuracy"] for i in index]
    for k, result in enumerate(study.results):
        axes.scatter(
            published,
            100 * result.on_devices[index].mean(axis=(1, 2)),
            s=26,
            color=COLOURS[k % len(COLOURS)],
            marker=MARKERS[k % len(MARKERS)],
            label=result.method,
            alpha=0.85,
        )
    axes.plot([0, 100], [0, 100], color=GREY, ls=":", lw=1)
    axes.set(
        xlabel="published accuracy, LeNet on MNIST / %",
        ylabel=f"simulated here, {study.task.split(' (')[0]} / %",
        xlim=(0, 102),
        ylim=(0, 102),
    )
    axes.legend(loc="lower right")
    return figure
