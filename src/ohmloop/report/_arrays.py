"""The array experiment as one self-contained HTML file, with each cell as a row of CSV beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ohmloop.report._page import Methods, csv_text, render, write_files
from ohmloop.report._style import COLOURS, GREY, INK, new_figure, styled, styled_axes, to_svg
from ohmloop.units import format as with_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ohmloop.experiment import ArrayRow, ArrayStudy, Matrix


def write_arrays(study: ArrayStudy, folder: Path) -> Path:
    """Write ``report.html``, ``arrays.json``, ``cells.csv`` and ``accuracies.csv`` into ``folder``.

    The same study gives the same bytes.

    Args:
        study: What to show.
        folder: Created if absent; files of the same names are replaced.

    Returns:
        The path of the HTML file.

    Raises:
        OhmloopError: If the folder cannot be written.
    """
    files = {
        "arrays.json": json.dumps(study.to_dict(), indent=1, allow_nan=False) + "\n",
        "cells.csv": _cells(study),
        "accuracies.csv": _accuracies(study),
        "report.html": render_arrays(study),
    }
    return write_files(folder, files, "report.html")


def render_arrays(study: ArrayStudy) -> str:
    """Return the HTML page of an array experiment."""
    setting = study.setting
    task, _ = setting.network
    figures = {
        f"array_{k}": to_svg(
            array_figure(matrix), f"Cells of layer {matrix.name} on the first chip"
        )
        for k, matrix in enumerate(study.matrices)
    }
    return render(
        "arrays.html.j2",
        badge="simulated arrays",
        title=f"{task} on {setting.size} x {setting.size} arrays of {setting.device}",
        lead=_lead(study),
        cards=_cards(study),
        methods=Methods(paragraphs=tuple(_assumptions(study))),
        provenance=study.provenance,
        rows=[_shown(row) for row in study.rows],
        has_development=any(row.development is not None for row in study.rows),
        accuracy=to_svg(accuracy_figure(study), "Accuracy of the chips, one line a way of writing"),
        arrays=[(figures[f"array_{k}"], _caption(m, study)) for k, m in enumerate(study.matrices)],
        energy=to_svg(energy_figure(study), "Energy of one inference by component"),
        costs=_cost_rows(study),
        notes=list(dict.fromkeys((*study.cost.notes, *study.digital.notes))),
    )


def accuracy_figure(study: ArrayStudy) -> Figure:
    """Draw the share of chips that reach each accuracy, one line for each method and way of writing."""
    figure = new_figure(7.2, 3.8)
    axes = styled_axes(figure)
    methods = list(dict.fromkeys(row.method for row in study.rows))
    styles = {"exact cells": ":", "written once": "--", "written and verified": "-"}
    for row in study.rows:
        if row.deployment != "none":
            continue
        scores = np.sort(row.scores.reshape(-1))
        share = 1 - np.arange(len(scores)) / len(scores)
        axes.step(
            np.concatenate([[0], scores, scores[-1:]]),
            np.concatenate([[1], share, [0]]),
            where="pre",
            color=COLOURS[methods.index(row.method) % len(COLOURS)],
            linestyle=styles.get(row.writing, "-"),
            label=f"{row.method}, {row.writing}",
        )
    lowest = min(float(row.scores.min()) for row in study.rows)
    axes.set(
        xlabel="test accuracy",
        ylabel="share of chips at least as good",
        xlim=(max(0.0, lowest - 0.05), 1.005),
        ylim=(0, 1.05),
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def array_figure(matrix: Matrix) -> Figure:
    """Draw what the cells of one layer hold, in siemens, and by how much each misses its target.

    Colours end at the 99th percentile, of the conductances and of the errors' magnitudes, where the largest
    lies far beyond.
    """
    figure = new_figure(7.2, 3.4)
    n_out, n_in = matrix.held.shape[1:]
    with styled():
        left, right = figure.subplots(1, 2)
    span = float(matrix.target.max() - matrix.target.min()) or 1.0
    error = 100 * (_laid_out(matrix.held) - _laid_out(matrix.target)) / span
    held = 1e6 * _laid_out(matrix.held)
    top, reach = _end(held), _end(np.abs(error)) or 1.0
    panels = (
        (left, held, "viridis", (float(held.min()), top), "conductance / uS"),
        (right, error, "RdBu_r", (-reach, reach), "error / % of the window"),
    )
    for axes, values, colours, (low, high), label in panels:
        axes.grid(False)
        image = axes.imshow(
            values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
        )
        axes.set(xlabel="column: + and - cell of each output", ylabel="row: input")
        if n_out <= 5 and n_in <= 12:
            axes.set_xticks(range(2 * n_out), [f"{k // 2}{'+-'[k % 2]}" for k in range(2 * n_out)])
            axes.set_yticks(range(n_in))
            _numbers(axes, values, ".2g" if axes is left else ".1f")
        beyond = (values.min() < low, values.max() > high)
        extend = {(False, True): "max", (True, False): "min", (True, True): "both"}
        figure.colorbar(image, ax=axes, label=label, extend=extend.get(beyond, "neither"))
    return figure


def _end(values: np.ndarray) -> float:
    """Return where colours end: at the largest value, or at the 99th percentile if that is far below."""
    top, usual = float(values.max()), float(np.quantile(values, 0.99))
    return usual if 0 < usual < top / 2 else top


def _numbers(axes: object, values: np.ndarray, form: str) -> None:
    """Write each cell's value into it, for arrays small enough to be read."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    middle = 0.5 * (values.max() + values.min())
    diverging = values.min() < 0
    for (i, j), value in np.ndenumerate(values):
        pale = abs(value) > 0.6 * np.abs(values).max() if diverging else value < middle
        axes.text(
            j,
            i,
            format(value, "z" + form),
            ha="center",
            va="center",
            fontsize=6,
            color="#fefefe" if pale else INK,
        )


def energy_figure(study: ArrayStudy) -> Figure:
    """Draw the energy of one inference by component, arrays above the digital chip."""
    figure = new_figure(7.2, 2.9)
    axes = styled_axes(figure)
    names = list(dict.fromkeys([*study.cost.energy_parts, *study.digital.energy_parts]))
    unit, scale = _scale(max(study.cost.energy, study.digital.energy))
    for y, cost in ((1, study.cost), (0, study.digital)):
        start = 0.0
        for name in names:
            value = cost.energy_parts.get(name, 0.0) * scale
            if value > 0:
                k = names.index(name)
                axes.barh(
                    y,
                    value,
                    left=start,
                    color=COLOURS[k % len(COLOURS)],
                    hatch="//" if k >= len(COLOURS) else None,
                    edgecolor="white",
                    label=name,
                )
            start += value
    axes.set_yticks([0, 1], ["digital chip, int8", "arrays"])
    axes.set_xlabel(f"energy of one inference / {unit}")
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    figure.legend(
        found.values(),
        found.keys(),
        ncols=5,
        fontsize=8,
        loc="outside lower center",
        frameon=False,
    )
    axes.axhline(0.5, color=GREY, lw=0.5)
    return figure


def _scale(joules: float) -> tuple[str, float]:
    for unit, scale in (("J", 1.0), ("mJ", 1e3), ("uJ", 1e6), ("nJ", 1e9)):
        if joules * scale >= 1:
            return unit, scale
    return "pJ", 1e12


def _laid_out(cells: np.ndarray) -> np.ndarray:
    """Return ``2 x out x in`` as the array stands: inputs down, the two cells of an output side by side."""
    return np.asarray(cells.transpose(2, 1, 0).reshape(cells.shape[2], -1))


def _caption(matrix: Matrix, study: ArrayStudy) -> str:
    n_out, n_in = matrix.held.shape[1:]
    size = study.setting.size
    tiles = -(-n_in // size) * -(-n_out // (size // 2))
    where = "one array" if tiles == 1 else f"{tiles} arrays, drawn side by side,"
    return (
        f"Layer {matrix.name or 'of the model'} on the first chip, trained by {study.rows[-1].method}: "
        f"{n_in} rows x {2 * n_out} columns of cells on {where} of {size} x {size}. Left: what each cell "
        f"holds; right: by how much it misses its target. {matrix.pulses:.1f} pulses a cell, "
        f"{100 * matrix.unconverged:.1f} % of the cells outside tolerance (mean of ten chips). A colour bar "
        "that ends in a point: some cells lie beyond."
    )


def _lead(study: ArrayStudy) -> str:
    setting = study.setting
    n = len(setting.seeds) * len(setting.methods)
    networks, each = ("One network", "it is") if n == 1 else (f"{n} networks", "each is")
    return (
        f"{networks} trained for the device {setting.device} (by {' and '.join(setting.methods)}): {each} "
        f"written into {setting.n_arrays:,} simulated chips, cell by cell, and read through "
        f"{setting.dac_bits}-bit drivers and {setting.adc_bits}-bit converters with the wires in between. "
        "Nothing on this page was measured on a fabricated array."
    )


def _cards(study: ArrayStudy) -> list[dict[str, str]]:
    verified = [
        r for r in study.rows if r.writing == "written and verified" and r.deployment == "none"
    ]
    shown = verified[-1]  # the network whose cells and energy follow, not the best by test data
    ratio = study.digital.energy / study.cost.energy
    return [
        {
            "value": f"{100 * shown.scores.mean():.1f} %",
            "label": f"of {study.n_test} test inputs right on verified chips ({shown.method})",
        },
        {"value": with_unit(study.cost.energy, "J"), "label": "energy of one inference on arrays"},
        {
            "value": with_unit(study.cost.energy_per_operation, "J"),
            "label": f"of one operation; {ratio:.2g} times less than the digital chip"
            if ratio >= 1
            else f"of one operation; {1 / ratio:.2g} times MORE than the digital chip",
        },
        {"value": with_unit(study.cost.latency, "s"), "label": "latency of one inference"},
    ]


def _shown(row: ArrayRow) -> dict[str, str]:
    figures = row.to_dict()
    known = figures["development_mean"]
    return {
        "method": row.method,
        "writing": row.writing,
        "deployment": "nothing" if row.deployment == "none" else "a readout fitted on each chip",
        "digital": f"{100 * float(row.digital.mean()):.1f}",
        "mean": f"{100 * figures['mean']:.1f} ± {100 * figures['std']:.1f}",
        "worst": f"{100 * figures['worst_tenth']:.1f}",
        "usable": f"{100 * figures['usable']:.1f}",
        "development": "" if known is None else f"{100 * known:.1f}",
    }


def _cost_rows(study: ArrayStudy) -> list[dict[str, str]]:
    out = []
    for label, cost in (("arrays", study.cost), ("digital chip, int8", study.digital)):
        out.append(
            {
                "what": label,
                "energy": with_unit(cost.energy, "J"),
                "operation": with_unit(cost.energy_per_operation, "J"),
                "operations": f"{cost.operations:,}",
                "latency": with_unit(cost.latency, "s"),
                "area": f"{cost.area * 1e6:.3g}",
                "programming": "unknown"
                if cost.programming is None
                else with_unit(cost.programming, "J"),
            }
        )
    return out


def _assumptions(study: ArrayStudy) -> list[str]:
    setting = study.setting
    return [
        f"Wires of {setting.wire:g} ohm a segment, {setting.lead:g} ohm for each driver and sense amplifier: "
        "assumed, no source states them for these arrays. "
        + (
            "The network of wires is solved exactly."
            if study.wire_solution == "exact"
            else "Wires take so little here that their fast approximation serves (error below .1 %)."
        ),
        "Window, levels, write error, read noise, drift and stuck cells are as the device's file says. A "
        "sweep, all there is of the nanowires, gives a window and a variation from cycle to cycle; what it "
        "does not give is left out: cells take any conductance of the window, and do not drift.",
        f"Programming pulses of {with_unit(setting.pulse_width, 's')} at the largest voltage of the sweep: "
        "assumed where the device states none.",
        "Energy counts what docs/energy.md lists; control, interconnect and leakage are on neither side.",
        "Networks are trained and chosen on training and validation data; test data are opened for this page.",
    ]


def _cells(study: ArrayStudy) -> str:
    rows: list[list[object]] = [
        ["layer", "input", "output", "cell", "target_S", "held_S", "error_of_window"]
    ]
    for matrix in study.matrices:
        span = float(matrix.target.max() - matrix.target.min()) or 1.0
        for (cell, out, inp), held in np.ndenumerate(matrix.held):
            target = float(matrix.target[cell, out, inp])
            rows.append(
                [
                    matrix.name,
                    inp,
                    out,
                    "+-"[cell],
                    f"{target:.9g}",
                    f"{float(held):.9g}",
                    f"{(float(held) - target) / span:.6g}",
                ]
            )
    return csv_text(rows)


def _accuracies(study: ArrayStudy) -> str:
    rows: list[list[object]] = [
        ["method", "writing", "deployment", "training_seed", "chip", "test_accuracy"]
    ]
    for row in study.rows:
        for s, seed in enumerate(study.setting.seeds):
            rows += [
                [row.method, row.writing, row.deployment, seed, k, f"{score:.6g}"]
                for k, score in enumerate(row.scores[s])
            ]
    return csv_text(rows)
