"""What the co-design board shows of a loop: from the files of its folder, without torch."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ohmloop.campaign import State
from ohmloop.codesign._steps import read_steps
from ohmloop.device import TaskAccuracy, load_task_accuracy
from ohmloop.errors import DeviceError
from ohmloop.web._net_devices import TICKS

_CURVE = 60  # points of the smooth function
VERDICTS = {"go on": "good", "stop": "warn", "look": "warn"}
"""Verdict of a step -> the look of its badge."""


@dataclass(frozen=True)
class Board:
    """A loop as its page shows it.

    Attributes:
        settings: As ``codesign.toml`` has them.
        steps: What the steps so far found, oldest first.
        worths: What improvements of the device are worth, the largest first; empty before the first step.
        asked: Score as a smooth function of the device; None before the first step.
        problem: Why a file cannot be read, else "".
    """

    settings: dict[str, Any]
    steps: list[dict[str, Any]]
    worths: list[dict[str, Any]]
    asked: TaskAccuracy | None
    problem: str = ""

    @classmethod
    def of(cls, folder: Path) -> Board:
        """Read a loop's folder."""
        problem, asked = "", None
        try:
            settings = tomllib.loads((folder / "codesign.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            settings, problem = {}, f"codesign.toml cannot be read: {error}"
        if (folder / "task-accuracy.json").exists():
            try:
                asked = load_task_accuracy(folder / "task-accuracy.json")
            except DeviceError as error:
                problem = str(error)
        return cls(settings, read_steps(folder), _worths(folder), asked, problem)

    @property
    def last(self) -> dict[str, Any] | None:
        """The newest step."""
        return self.steps[-1] if self.steps else None

    @property
    def is_share(self) -> bool:
        """Whether scores are shares of 1, so that they read well in percent and points."""
        return self.asked is None or self.asked.metric.endswith("accuracy")

    @property
    def metric(self) -> str:
        """Name of the score."""
        return "score" if self.asked is None else self.asked.metric

    def score(self, value: float | None, error: float | None = None) -> str:
        """Return a score as text, with its standard error."""
        if value is None:
            return "–"
        told = "" if error is None else f" ± {100 * error:.1f}"
        if self.is_share:
            return f"{100 * value:.1f}{told} %"
        return f"{value:.4g}" + ("" if error is None else f" ± {error:.2g}")

    def worth(self, item: dict[str, Any]) -> str:
        """Return a worth as text, with its standard error."""
        gain, error = item["gain"], item["error"]
        if self.is_share:
            return f"{100 * gain:+.2f} ± {100 * error:.2f} points"
        return f"{gain:+.4g} ± {error:.2g}"


def _worths(folder: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads((folder / "worths.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def measured(state: State) -> list[tuple[str, float, float]]:
    """Return (trial, sigma, score) of every device that was measured and judged."""
    out = []
    for trial in state.trials.values():
        for record in trial.records:
            sigma, score = record.figures.get("sigma"), record.values.get("task_accuracy")
            if isinstance(sigma, int | float) and score is not None:
                out.append((trial.id, float(sigma), score))
    return out


# -- plots --------------------------------------------------------------------------------------


def worth_plot(board: Board) -> dict[str, Any]:
    """Return what each improvement is worth for plotly: a bar each, with two standard errors."""
    scale = 100.0 if board.is_share else 1.0
    items = board.worths[::-1]  # plotly draws the first at the bottom
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [w["phrase"] for w in items],
                "x": [_short(scale * w["gain"]) for w in items],
                "error_x": {
                    "type": "data",
                    "array": [_short(2 * scale * w["error"]) for w in items],
                    "color": "@ink",
                    "thickness": 1.4,
                },
                "marker": {"color": "@0/0.75"},
                "hovertemplate": "%{y}: %{x:.3g}<extra></extra>",
            }
        ]
        if items
        else [],
        "layout": {
            "xaxis": {
                "title": "worth / points" if board.is_share else f"worth / {board.metric}",
                "zeroline": True,
                "zerolinecolor": "@soft",
            },
            "yaxis": {"ticks": ""},
            "bargap": 0.45,
        },
    }


def history_plot(board: Board) -> dict[str, Any]:
    """Return the expected score of the best device by the number of devices made, for plotly."""
    scale = 100.0 if board.is_share else 1.0
    known = [s for s in board.steps if s.get("score") is not None]
    trained = [s for s in known if s.get("retrained")]
    unit = " / %" if board.is_share else ""
    data: list[dict[str, Any]] = []
    if known:
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "best device so far",
                "x": [s["n_experiments"] for s in known],
                "y": [_short(scale * s["score"]) for s in known],
                "error_y": {
                    "type": "data",
                    "array": [_short(2 * scale * (s.get("error") or 0)) for s in known],
                    "thickness": 1.3,
                },
                "text": [
                    f"step {s['number']}, {s['trial']}, sigma {s['sigma']:.3f}" for s in known
                ],
                "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
                "line": {"color": "@0", "width": 2.2},
                "marker": {"size": 8},
            }
        )
    if trained:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "network trained anew",
                "x": [s["n_experiments"] for s in trained],
                "y": [_short(scale * s["score"]) for s in trained],
                "marker": {
                    "symbol": "circle-open",
                    "size": 15,
                    "color": "@1",
                    "line": {"width": 2},
                },
                "hoverinfo": "skip",
            }
        )
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": "devices made, failed ones included", "rangemode": "tozero"},
            "yaxis": {"title": f"expected {board.metric}{unit}"},
        },
    }


def function_plot(board: Board, devices: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Return the score as a function of sigma for plotly, and the measured devices on it."""
    asked = board.asked
    if asked is None or "sigma" not in asked.names:
        return {"data": [], "layout": {}}
    scale = 100.0 if board.is_share else 1.0
    axis = asked.axes[asked.names.index("sigma")]
    x = (
        np.geomspace(axis.low, axis.high, _CURVE)
        if axis.log
        else np.linspace(axis.low, axis.high, _CURVE)
    )
    found = [asked.at({"sigma": float(v)}) for v in x]
    xs = [_short(float(v)) for v in x]
    high = [
        _short(scale * min(p.mean + p.spread, 1.0 if board.is_share else np.inf)) for p in found
    ]
    low = [_short(scale * (p.mean - p.spread)) for p in found]
    plain = {"type": "scatter", "mode": "lines", "x": xs, "hoverinfo": "skip", "showlegend": False}
    return {
        "data": [
            {**plain, "y": high, "line": {"width": 0}},
            {**plain, "y": low, "line": {"width": 0}, "fill": "tonexty", "fillcolor": "@0/0.18"},
            {
                "type": "scatter",
                "mode": "lines",
                "name": "a device without gaps in its levels",
                "x": xs,
                "y": [_short(scale * p.mean) for p in found],
                "line": {"color": "@0", "width": 2.2},
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "measured devices",
                "x": [s for _, s, _ in devices],
                "y": [_short(scale * v) for _, _, v in devices],
                "text": [t for t, _, _ in devices],
                "hovertemplate": "%{text}: %{y:.4g}<extra></extra>",
                "marker": {"color": "@1", "size": 8},
            },
        ],
        "layout": {
            "xaxis": {"title": "sigma of ln G", "type": "log", **TICKS}
            if axis.log
            else {"title": "sigma of ln G"},
            "yaxis": {"title": f"expected {board.metric}" + (" / %" if board.is_share else "")},
        },
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
