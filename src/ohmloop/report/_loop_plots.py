"""Figures of a loop of device and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ohmloop.report._page import Plot, is_share, plot
from ohmloop.report._style import COLOURS, GREY, new_figure, styled, styled_axes

if TYPE_CHECKING:
    from ohmloop.codesign import Joint, Scored, Worth
    from ohmloop.device import DeviceModel, Predicted, TaskAccuracy


class Device(NamedTuple):
    """A usable device, its law, and what networks are expected to score on it."""

    trial: str
    name: str
    law: DeviceModel
    expected: Predicted | None
    is_best: bool


def _shown(metric: str) -> tuple[float, str]:
    """Return the factor and the unit of a score's axis."""
    return (100.0, " / %") if is_share(metric) else (1.0, "")


def worth_plot(worths: Sequence[Worth], metric: str) -> Plot:
    """Return what each improvement of the device is worth, with its standard error."""
    figure = new_figure(7.2, 0.9 + 0.42 * len(worths))
    axes = styled_axes(figure)
    factor = 100.0 if is_share(metric) else 1.0
    gains = [factor * w.gain for w in worths]
    errors = [factor * w.error for w in worths]
    names = [f"{w.phrase}\n({w.before:.3g} to {w.after:.3g})" for w in worths]
    ink = {"ecolor": "#000000", "capsize": 3, "lw": 1.2}
    axes.barh(names, gains, xerr=errors, color=COLOURS[0], error_kw=ink, height=0.6)
    axes.axvline(0, color=GREY, lw=1)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    unit = "points of " + metric if is_share(metric) else metric
    axes.set_xlabel(f"gain / {unit}")
    return plot(
        "worths",
        figure,
        "What improvements of the device are worth",
        "Simulated gain in score from the best device so far, each improvement alone; bars: standard error "
        "over trainings and virtual devices.",
        [
            ("property", "improvement", "before", "after", "gain", "standard_error"),
            *((w.name, w.phrase, w.before, w.after, w.gain, w.error) for w in worths),
        ],
    )


def sigma_plot(asked: TaskAccuracy, devices: Sequence[Device]) -> Plot:
    """Return the expected score against sigma, and the measured devices on it."""
    figure = new_figure(7.2, 3.8)
    axes = styled_axes(figure)
    factor, unit = _shown(asked.metric)
    axis = asked.axes[asked.names.index("sigma")]
    grid = np.array([axis.from_unit(share) for share in np.linspace(0, 1, 61)])
    curve = [asked.at({"sigma": float(s)}) for s in grid]
    mean = factor * np.array([p.mean for p in curve])
    error = factor * np.array([p.error for p in curve])
    spread = factor * np.array([p.spread for p in curve])
    axes.fill_between(
        grid,
        mean - spread,
        mean + spread,
        color=COLOURS[0],
        alpha=0.12,
        lw=0,
        label="from device to device",
    )
    axes.fill_between(
        grid,
        mean - 2 * error,
        mean + 2 * error,
        color=COLOURS[0],
        alpha=0.3,
        lw=0,
        label="± 2 standard errors",
    )
    axes.plot(grid, mean, color=COLOURS[0], lw=1.8, label="simulated, all else unharmed")
    rows: list[Sequence[object]] = [("what", "trial", "sigma", "score", "standard_error", "spread")]
    rows += [("curve", "", s, p.mean, p.error, p.spread) for s, p in zip(grid, curve, strict=True)]
    for d in devices:
        if d.expected is None:
            continue
        colour = COLOURS[1] if d.is_best else "#000000"
        axes.errorbar(
            d.law.sigma.value,
            factor * d.expected.mean,
            yerr=factor * d.expected.error,
            fmt="D" if d.is_best else "o",
            color=colour,
            ms=6 if d.is_best else 4,
            lw=1,
        )
        rows.append(
            (
                "device",
                f"{d.trial} {d.name}",
                d.law.sigma.value,
                d.expected.mean,
                d.expected.error,
                d.expected.spread,
            )
        )
    axes.plot([], [], "o", color="#000000", ms=4, label="measured devices")
    axes.plot([], [], "D", color=COLOURS[1], ms=6, label="of the best trial")
    axes.set(xlabel="sigma of the device", ylabel=f"expected {asked.metric}{unit}", xlim=(0, None))
    if is_share(asked.metric):
        axes.set_ylim(top=101)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return plot(
        "score-against-sigma",
        figure,
        "Expected score against sigma, with the measured devices",
        "What the networks are expected to score on a device of this sigma, on validation data, by simulation. "
        "Measured devices lie below the line where their level table does harm.",
        rows,
    )


def history_plot(steps: Sequence[Mapping[str, Any]], metric: str) -> Plot:
    """Return the expected score on the best device, and its sigma, against the devices made."""
    figure = new_figure(7.2, 3.0)
    with styled():
        left, right = figure.subplots(1, 2)
    factor, unit = _shown(metric)
    known = [s for s in steps if s["score"] is not None]
    made = [s["n_experiments"] for s in known]
    left.errorbar(
        made,
        [factor * s["score"] for s in known],
        yerr=[factor * s["error"] for s in known],
        fmt="o-",
        color=COLOURS[0],
        ms=5,
        capsize=2,
    )
    anew = [s for s in known if s["retrained"]]
    left.plot(
        [s["n_experiments"] for s in anew],
        [factor * s["score"] for s in anew],
        "o",
        mfc="none",
        mec="#000000",
        ms=10,
        label="networks trained anew",
    )
    right.plot(made, [s["sigma"] for s in known], "s-", color=COLOURS[1], ms=5)
    left.set(xlabel="devices made", ylabel=f"expected {metric}{unit}")
    right.set(xlabel="devices made", ylabel="sigma of the best trial")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if anew:
        left.legend(fontsize=8, frameon=False, loc="best")
    keys = (
        "number",
        "n_experiments",
        "trial",
        "sigma",
        "score",
        "error",
        "retrained",
        "gain",
        "verdict",
    )
    return plot(
        "history",
        figure,
        "The loop's history",
        "Expected score on the device believed best, with its standard error, and that device's sigma. "
        "Scores of different steps come from different networks where these were trained anew.",
        [keys, *(["" if s[k] is None else s[k] for k in keys] for s in steps)],
    )


def halves_of(found: Joint) -> list[tuple[str, Scored]]:
    """Return the pair and what each half alone reaches, with words for them."""
    return [
        ("both: best device, network trained for it", found.both),
        ("device alone: best device, plain training", found.device_alone),
        ("network alone: first device that worked", found.network_alone),
        ("neither: first device, plain training", found.neither),
    ]


def halves_plot(found: Joint) -> Plot:
    """Return test scores of the pair and of each half alone."""
    figure = new_figure(7.2, 2.5)
    axes = styled_axes(figure)
    factor, unit = _shown(found.metric)
    halves = halves_of(found)
    for y, (_, scored) in enumerate(halves):
        axes.errorbar(
            [factor * scored.score],
            [y],
            xerr=[factor * scored.error],
            fmt="o",
            color=COLOURS[0] if y == 0 else COLOURS[1],
            ms=7,
            capsize=3,
        )
    axes.set_yticks(range(len(halves)), [label for label, _ in halves])
    axes.set_ylim(len(halves) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"test {found.metric}{unit}")
    return plot(
        "halves",
        figure,
        "Test score of the pair and of each half alone",
        f"On test data, {found.n_devices} simulated devices of the measured laws for each network; bars: "
        "standard error over trainings and devices.",
        [
            ("what", "test_score", "standard_error"),
            *((label, s.score, s.error) for label, s in halves),
        ],
    )


def front_plot(found: Joint, metric: str) -> list[Plot]:
    """Return the trade-off of score, energy and devices made; nothing where no energy is known."""
    known = [p for p in found.points if p.energy is not None]
    if not known:
        return []
    figure = new_figure(7.2, 3.8)
    axes = styled_axes(figure)
    factor, unit = _shown(metric)
    energies = np.array([1e9 * (p.energy or 0.0) for p in known])
    scores = factor * np.array([p.score for p in known])
    order = np.array([p.experiments for p in known])
    front = np.array([p.on_front for p in known])
    dots = axes.scatter(energies, scores, c=order, cmap="cividis", s=55, zorder=3)
    axes.scatter(
        energies[front],
        scores[front],
        s=170,
        facecolor="none",
        edgecolor="#000000",
        lw=1.3,
        zorder=4,
    )
    axes.scatter([], [], s=170, facecolor="none", edgecolor="#000000", label="on the Pareto front")
    named = [k for k in range(len(known)) if known[k].on_front]
    for n, k in enumerate(sorted(named, key=lambda k: -scores[k])):
        axes.annotate(
            known[k].trial,
            (energies[k], scores[k]),
            xytext=(10, 4 - 11 * (n % 3)),
            textcoords="offset points",
            fontsize=8,
        )
    if energies.min() > 0 and energies.max() > 20 * energies.min():
        axes.set_xscale("log")
    axes.set(xlabel="energy of one input on arrays / nJ", ylabel=f"expected {metric}{unit}")
    axes.legend(fontsize=8, frameon=False, loc="best")
    figure.colorbar(dots, ax=axes, label="devices made until then")
    return [
        plot(
            "front",
            figure,
            "Score, energy and number of devices",
            "Every usable device: expected score on validation data, energy of one input on 256 x 256 arrays "
            "of such devices, and how many devices were made until it was there. Ringed: no other device is "
            "better in one of the three and as good in the others.",
            [
                ("trial", "devices_made", "expected_score", "energy_J", "on_front"),
                *(
                    (
                        p.trial,
                        p.experiments,
                        p.score,
                        "" if p.energy is None else p.energy,
                        p.on_front,
                    )
                    for p in found.points
                ),
            ],
        )
    ]
