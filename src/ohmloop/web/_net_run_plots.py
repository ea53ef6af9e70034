"""Plots of trained networks as plain data for plotly, and the same numbers as CSV. No plotly here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ohmloop.train import Evaluation
from ohmloop.web._net_runs import RunView, fleet_name

_BAND = (10.0, 90.0)  # percentiles over devices: eight devices of ten lie between
_ROW = 34  # pixels of a fleet in the plot of single devices
_ORDER = _LAWS, _MEASURED, _ARRAYS = "log-normal laws", "measured devices", "on arrays"


def accuracy_plot(views: Sequence[RunView]) -> dict[str, Any]:
    """Return score against sigma for plotly: mean over devices, and where eight devices of ten lie.

    Laws that differ in sigma alone make a line with a band. Measured devices, which have level tables too, and
    arrays, which have wires and converters, are points with bars.
    """
    data: list[dict[str, Any]] = []
    scale = 100.0 if all(v.is_share for v in views) else 1.0
    k = 0
    for view in views:
        data += _digital(view, scale, len(views) > 1)
        for label, fleets in _series(view):
            name = label if len(views) == 1 else f"{view.name}: {label}"
            data += _drawn(name, fleets, scale, k, label.startswith(_LAWS))
            k += 1
    metric = views[0].metric if views else "score"
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": "sigma of ln G", "rangemode": "tozero"},
            "yaxis": {"title": f"test {metric}" + (" / %" if scale > 1 else "")},
            "showlegend": True,
            # Filled bands would turn the order around.
            "legend": {
                "traceorder": "normal",
                "orientation": "h",
                "y": 1.02,
                "yanchor": "bottom",
                "x": 0,
                "font": {"size": 12},
            },
        },
    }


def _series(view: RunView) -> list[tuple[str, list[Evaluation]]]:
    """Return the fleets that belong together: laws, measured devices or arrays, of one deployment."""
    groups: dict[str, list[Evaluation]] = {}
    for e in view.evaluations:
        if not math.isfinite(e.mean):
            continue
        is_law = e.device.startswith("lognormal:")
        words = [_ARRAYS if e.on_array else _LAWS if is_law else _MEASURED]
        words += [] if e.convention == "median-1" else [e.convention]
        words += [] if e.deployment == "none" else [f"with {e.deployment}"]
        words += ["by doing"] if e.by_doing else []
        groups.setdefault(", ".join(words), []).append(e)
    return sorted(groups.items(), key=lambda g: _ORDER.index(g[0].partition(",")[0]))


def _drawn(
    name: str, fleets: list[Evaluation], scale: float, k: int, is_line: bool
) -> list[dict[str, Any]]:
    x = [e.sigma for e in fleets]
    mean = [_short(scale * e.mean) for e in fleets]
    low, high = ([_short(scale * float(np.percentile(e.scores, q))) for e in fleets] for q in _BAND)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if is_line else "markers",
        "name": name,
        "x": x,
        "y": mean,
        "customdata": [[fleet_name(e), e.n_devices] for e in fleets],
        "hovertemplate": "%{customdata[0]}<br>%{y:.4g}, mean of %{customdata[1]} devices<extra></extra>",
        "line": {"color": f"@{k}", "width": 2.2},
        "marker": {"size": 7, "color": f"@{k}", "symbol": "circle" if is_line else "diamond"},
    }
    if not is_line or len(x) < 2:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_short(b - a) for a, b in zip(mean, high, strict=True)],
            "arrayminus": [_short(a - b) for a, b in zip(mean, low, strict=True)],
            "color": f"@{k}",
            "thickness": 1.4,
        }
        return [trace]
    edge: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "hoverinfo": "skip",
        "showlegend": False,
        "line": {"width": 0},
    }
    filled = {"fill": "tonexty", "fillcolor": f"@{k}/0.18"}
    return [{**edge, "y": high}, {**edge, "y": low, **filled}, trace]


def _digital(view: RunView, scale: float, is_named: bool) -> list[dict[str, Any]]:
    """Return the digital score as a dashed line from sigma 0 to the largest that was measured."""
    if not view.evaluations:
        return []
    e = view.evaluations[0]
    end = max(e.sigma for e in view.evaluations)
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{view.name}: digital" if is_named else "digital, no noise",
            "x": [0.0, end],
            "y": [_short(scale * e.digital)] * 2,
            "line": {"color": "@soft", "width": 1.5, "dash": "dash"},
            "hovertemplate": "digital %{y:.4g}<extra></extra>",
        }
    ]


def devices_plot(view: RunView) -> dict[str, Any]:
    """Return the score of every virtual device for plotly: a box and its points for each fleet."""
    scale = 100.0 if view.is_share else 1.0
    data = [
        {
            "type": "box",
            "orientation": "h",
            "name": fleet_name(e),
            "x": [_short(scale * v) for v in e.scores if math.isfinite(v)],
            "boxpoints": "all",
            "jitter": 0.6,
            "pointpos": 0,
            "marker": {"size": 4, "opacity": 0.5, "color": f"@{1 if e.on_array else 0}"},
            "line": {"width": 1.2},
            "fillcolor": "rgba(0,0,0,0)",
            "hovertemplate": "%{x:.4g}<extra></extra>",
        }
        for e in reversed(view.evaluations)  # plotly draws the first at the bottom
    ]
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": f"test {view.metric}" + (" / %" if view.is_share else "")},
            "yaxis": {"type": "category", "ticks": ""},
            "showlegend": False,
        },
    }


def devices_height(view: RunView) -> int:
    """Return the height of that plot in pixels: as many rows as there are fleets."""
    return max(340, _ROW * len(view.evaluations) + 70)


def history_plot(view: RunView) -> dict[str, Any]:
    """Return loss and validation score by epoch for plotly, one above the other."""
    history = () if view.record is None else view.record.history
    epochs = [h["epoch"] for h in history]

    def line(key: str, axis: str, colour: str, name: str) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "lines+markers" if len(epochs) < 40 else "lines",
            "name": name,
            "x": epochs,
            "y": [_short(h[key]) if h.get(key) is not None else None for h in history],
            "yaxis": axis,
            "line": {"color": colour, "width": 2},
            "marker": {"size": 5},
        }

    return {
        "data": [
            line("loss", "y", "@1", "training loss, under noise"),
            line("validation_score", "y2", "@0", "validation score, digital"),
        ]
        if epochs
        else [],
        "layout": {
            "xaxis": {"title": "epoch"},
            "yaxis": {"title": "loss", "rangemode": "tozero", "domain": [0, 0.44], "nticks": 4},
            "yaxis2": {"title": "validation", "domain": [0.56, 1], "nticks": 4},
        },
    }


def accuracy_csv(view: RunView) -> str:
    """Return the score of every virtual device as CSV, a row a device."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["device", "sigma", "on_array", "deployment", "number", view.metric])
    for e in view.evaluations:
        for number, value in enumerate(e.scores):
            writer.writerow([e.device, e.sigma, e.on_array, e.deployment, number, value])
    return out.getvalue()


def _short(value: float) -> float:
    return float(f"{value:.5g}")
