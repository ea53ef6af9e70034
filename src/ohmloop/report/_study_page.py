"""A `Study` becomes one self-contained HTML file, and a CSV beside it for each figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ohmloop.report import _charts
from ohmloop.report._page import Methods, csv_text, render, write_files
from ohmloop.report._study import Agreement, MethodResult, Study, agreement
from ohmloop.report._style import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ohmloop.device import DeviceModel

_FIGURES: dict[str, tuple[Callable[[Study], Figure], str]] = {
    "device_map": (_charts.device_map, "Devices by sigma and monotonicity"),
    "accuracy_against_sigma": (
        _charts.accuracy_against_sigma,
        "Test accuracy against weight noise, one line a training method",
    ),
    "accuracy_per_device": (_charts.accuracy_per_device, "Test accuracy on each measured device"),
}


def write_study(study: Study, folder: Path) -> Path:
    """Write ``report.html`` and one CSV a figure into ``folder``.

    The same study gives the same bytes.

    Args:
        study: What to show.
        folder: Created if absent; files of the same names are replaced.

    Returns:
        The path of the HTML file.

    Raises:
        OhmloopError: If the folder cannot be written.
    """
    found = agreement(study)
    files = {**study_tables(study), "report.html": render_study(study, found)}
    return write_files(folder, files, "report.html")


def render_study(study: Study, found: Agreement | None = None) -> str:
    """Return the HTML of the report; ``found`` adds the page on published accuracies."""
    figures = dict(_FIGURES)
    if found is not None:
        figures["published_agreement"] = (
            _charts.published_agreement,
            "Simulated against published accuracy per device",
        )
    return render(
        "study.html.j2",
        badge="measured devices, simulated networks",
        title=_title(study),
        lead=_lead(study),
        cards=_cards(study),
        methods=Methods(paragraphs=tuple(_methods_text(study))),
        provenance=study.provenance,
        devices_text=_devices_text(study),
        device_rows=[_device_row(study, i) for i in _device_order(study)],
        training_text=_training_text(study),
        method_rows=[_method_row(study, result) for result in study.results],
        figures={name: to_svg(draw(study), title) for name, (draw, title) in figures.items()},
        agreement=found,
        agreement_text=_agreement_text(found) if found else "",
        n_draws=len(study.seeds) * study.n_devices,
    )


def _title(study: Study) -> str:
    return f"{len(study.devices)} measured memristors, {len(study.results)} ways to train a network"


def _percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std():.1f}"


def _lead(study: Study) -> str:
    median = study.devices[study.median]
    parts = [
        f"{result.method} keeps {100 * result.on_devices[study.median].mean():.1f} %"
        for result in study.results
    ]
    return (
        f"On the median device ({median.name}, sigma {median.sigma.value:.3f}) a network that "
        f"scores {100 * study.results[0].clean.mean():.1f} % digitally does not survive unharmed: "
        + ", ".join(parts)
        + ". The training decides how much of it is lost, and the device how much there is to lose."
    )


def _cards(study: Study) -> list[dict[str, str]]:
    best, median = study.devices[study.best], study.devices[study.median]
    usability = best.figures.get("usability")
    plain = study.results[0]
    winner = max(study.results, key=lambda r: float(r.on_devices[study.median].mean()))
    return [
        {"value": str(len(study.devices)), "label": "devices measured and analysed"},
        {
            "value": f"{usability:.3f}" if isinstance(usability, int | float) else "n/a",
            "label": f"best usability ({best.name}, sigma {best.sigma.value:.3f})",
        },
        {
            "value": f"{100 * plain.on_devices[study.median].mean():.1f} %",
            "label": f"{plain.method} on the median device ({median.name})",
        },
        {
            "value": f"{100 * winner.on_devices[study.median].mean():.1f} %",
            "label": f"the best method here ({winner.method}) on the same device",
        },
    ]


def _devices_text(study: Study) -> str:
    sigma = np.array([d.sigma.value for d in study.devices])
    cited = sorted({d.citation for d in study.devices if d.citation})
    source = f" Source: {'; '.join(cited).rstrip('.')}." if cited else ""
    return (
        f"{len(study.devices)} devices, sigma from {sigma.min():.3f} to {sigma.max():.3f} (median "
        f"{np.median(sigma):.3f}). sigma is the standard deviation of the log-conductance from "
        "cycle to cycle around the mean rising ramp; monotonicity the length of the longest nearly "
        "monotone stretch of that ramp in hundreds of steps; usability their product as published, "
        f"monotonicity × exp(−sigma).{source}"
    )


def _device_order(study: Study) -> list[int]:
    return sorted(range(len(study.devices)), key=lambda i: (study.devices[i].sigma.value, i))


def _number(device: DeviceModel, key: str, digits: str) -> str:
    value = device.figures.get(key)
    if not isinstance(value, int | float):
        return "–"
    # Ratios in full: 1,930 is read at once, 1.93e+03 is not.
    return f"{value:,.0f}" if digits == ".3g" and value >= 100 else format(value, digits)


def _device_row(study: Study, index: int) -> dict[str, str]:
    device = study.devices[index]
    low, high = device.sigma.low, device.sigma.high
    marks = [w for w, i in (("best", study.best), ("median", study.median)) if i == index]
    return {
        "name": device.name,
        "mark": ", ".join(marks),
        "description": device.description,
        "cycles": _number(device, "cycles", "d"),
        "sigma": f"{device.sigma.value:.3f}",
        "interval": f"{low:.3f} – {high:.3f}" if low is not None and high is not None else "–",
        "monotonicity": _number(device, "monotonicity", ".2f"),
        "usability": _number(device, "usability", ".3f"),
        "on_off": _number(device, "on_off_ratio", ".3g"),
        "set": _number(device, "set_voltage", ".2f"),
        "reset": _number(device, "reset_voltage", ".2f"),
    }


def _training_text(study: Study) -> str:
    train, validation, test = study.split_sizes
    return (
        f"Task: {study.task}. Network: {study.model}, {study.epochs} epochs a training, "
        f"{len(study.seeds)} training seed{'s' if len(study.seeds) > 1 else ''}, the same start, "
        f"optimiser and budget for every method. {train} images train, {validation} validate (all "
        f"that a search may look at), {test} test. Every weight and bias of the linear and "
        f"convolutional layers is analog; each accuracy is taken on {study.n_devices} independent "
        "virtual devices per seed."
    )


def _method_row(study: Study, result: MethodResult) -> dict[str, str]:
    return {
        "method": result.method,
        "cost": f"{result.cost:.3g}",
        "clean": _percent(result.clean),
        "best": _percent(result.on_devices[study.best]),
        "median": _percent(result.on_devices[study.median]),
        "sweep": f"{100 * result.sweep.mean():.1f}",
        "devices": f"{100 * result.on_devices.mean():.1f}",
        "settings": " | ".join(dict.fromkeys(result.settings)) or "–",
    }


def _agreement_text(found: Agreement) -> str:
    simulated = {k: v for k, v in found.spearman.items() if k.startswith("simulated")}
    best_name = max(simulated, key=lambda k: simulated[k]) if simulated else None
    best = (
        f" The order that our {best_name} gives reaches {simulated[best_name]:+.3f}."
        if best_name
        else ""
    )
    usability = found.spearman.get("usability")
    versus = (
        f" Usability, the published objective, orders them with {usability:+.3f}."
        if usability is not None
        else ""
    )
    return (
        f"For {found.n} of the devices the authors published the accuracy of a LeNet on MNIST "
        f"under the device's law.{versus}{best}"
    )


def _methods_text(study: Study) -> list[str]:
    low, high = _charts.BAND
    return [
        "Devices: figures come from measured current-voltage sweeps with the published definitions "
        "(arXiv 2412.02779); intervals are 95 % bootstrap intervals over cycles.",
        "Networks: simulated. Each programmed weight becomes w · rho(|w| / max|w|) · "
        "exp(N(0, sigma²)), independent per weight (median-1 convention: the factor's median is "
        "1, its mean is not). "
        "Activations, wires, converters, drift in time and stuck devices are not modelled here.",
        "Search: a method that searches its settings sees training and validation data only; the "
        "test set is touched once, after training.",
        f"Spread: tables give mean ± standard deviation, bands the {low:g}th to {high:g}th "
        "percentile, over virtual devices and training seeds together.",
        f"Training seeds: {', '.join(map(str, study.seeds))}. With few seeds the spread between "
        "trainings is known only roughly; `make bench` runs the wider comparison.",
    ]


def study_tables(study: Study) -> dict[str, str]:
    """Return file name -> CSV text with the numbers of each figure of the report."""
    sweep_rows: list[list[object]] = [["method", "sigma", "seed", "device", "accuracy"]]
    device_rows: list[list[object]] = [["method", "device_model", "seed", "device", "accuracy"]]
    for result in study.results:
        for array, labels, rows in (
            (result.sweep, study.sigmas, sweep_rows),
            (result.on_devices, [d.name for d in study.devices], device_rows),
        ):
            for index in np.ndindex(array.shape):
                i, seed, device = index
                rows.append(
                    [result.method, labels[i], study.seeds[seed], device, f"{array[index]:.6f}"]
                )
    keys = ("cycles", "monotonicity", "usability", "on_off_ratio", "set_voltage", "reset_voltage")
    figures: list[list[object]] = [["device", "sigma", "sigma_low", "sigma_high", *keys]]
    for device in study.devices:
        low, high = device.sigma.low, device.sigma.high
        figures.append(
            [device.name, device.sigma.value, low, high, *(device.figures.get(k) for k in keys)]
        )
    return {
        "accuracy_against_sigma.csv": csv_text(sweep_rows),
        "accuracy_per_device.csv": csv_text(device_rows),
        "devices.csv": csv_text(figures),
    }
