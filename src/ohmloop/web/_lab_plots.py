"""Plots of a campaign as plain data for plotly, and the same numbers as tables. No plotly here."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ohmloop.campaign import CampaignStatus, Config, State

Figure = dict[str, Any]
Table = list[list[Any]]


def progress(config: Config, state: State, status: CampaignStatus, name: str) -> Figure:
    """Return the best outcome so far, and every device, against the number of trials with a result."""
    objective = next(o for o in config.objectives if o.name == name)
    curve = status.best_so_far[name]
    devices = _devices(state, name)
    known = [v for v in curve if v is not None] + [value for _, _, _, value in devices]
    is_log = objective.scale == "log" and all(v > 0 for v in known)
    n = list(range(1, len(curve) + 1))
    label = name + (f" / {objective.unit}" if objective.unit else "")
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "a device",
                "x": [k for k, _, _, _ in devices],
                "y": [value for _, _, _, value in devices],
                "text": [f"{trial}, device {device}" for _, trial, device, _ in devices],
                "hovertemplate": "%{text}: %{y:.4g}<extra></extra>",
                "marker": {"color": "@soft", "size": 6, "opacity": 0.65},
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "best mean of a usable trial",
                "x": n,
                "y": curve,
                "line": {"color": "@0", "width": 2.5, "shape": "hv"},
                "marker": {"color": "@0", "size": 5},
                "hovertemplate": "after %{x} trials: %{y:.4g}<extra></extra>",
            },
        ],
        "layout": {
            "xaxis": {
                "title": "trials with a result",
                "range": [0.5, max(len(curve), 1) + 0.5],
                "tickformat": "d",
                **({"dtick": 1} if len(curve) <= 12 else {}),
            },
            "yaxis": {"title": label, "type": "log" if is_log else "linear"},
        },
    }


def progress_table(state: State, status: CampaignStatus, name: str) -> Table:
    """Return the numbers of `progress`: one row a trial with a result, in order of results."""
    devices = _devices(state, name)
    rows: Table = [["trials", "trial", f"best_{name}", "devices"]]
    for k, trial in enumerate(_done(state), start=1):
        values = " ".join(f"{value:.6g}" for at, _, _, value in devices if at == k)
        rows.append([k, trial, status.best_so_far[name][k - 1], values])
    return rows


def _done(state: State) -> list[str]:
    found = [t for t in state.trials.values() if t.records]
    return [t.id for t in sorted(found, key=lambda t: t.records[0].event)]


def _devices(state: State, name: str) -> list[tuple[int, str, str, float]]:
    """Return (number of the trial in order of results, trial, device, value) of every device measured."""
    return [
        (k, trial, record.device, record.values[name])
        for k, trial in enumerate(_done(state), start=1)
        for record in state.trials[trial].records
        if name in record.values
    ]


def failures(config: Config, status: CampaignStatus) -> Figure:
    """Return how many trials failed at which stage."""
    rows = failures_table(config, status)[1:]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [stage for stage, _ in rows],
                "x": [count for _, count in rows],
                "marker": {"color": "@1"},
                "hovertemplate": "%{y}: %{x}<extra></extra>",
            }
        ],
        "layout": {
            "showlegend": False,
            "xaxis": {
                "title": "trials that failed there",
                "rangemode": "tozero",
                "tickformat": "d",
                **({"dtick": 1} if max(status.failures_by_stage.values(), default=0) < 8 else {}),
            },
            "yaxis": {"autorange": "reversed"},
        },
    }


def failures_table(config: Config, status: CampaignStatus) -> Table:
    """Return the numbers of `failures`, one row a stage."""
    names = dict.fromkeys([s.name for s in config.stages] + list(status.failures_by_stage))
    counts = status.failures_by_stage
    return [["stage", "trials_that_failed_there"], *([name, counts.get(name, 0)] for name in names)]


def failure_rate(status: CampaignStatus) -> Figure:
    """Return the share of failed trials in consecutive windows of results."""
    rows = failure_rate_table(status)[1:]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [trial for trial, _ in rows],
                "y": [share for _, share in rows],
                "line": {"color": "@0", "width": 2.5},
                "marker": {"size": 7},
                "hovertemplate": "up to %{x}: %{y:.0f} %<extra></extra>",
            }
        ],
        "layout": {
            "showlegend": False,
            "xaxis": {"title": "up to trial", "type": "category", "nticks": 8},
            "yaxis": {"title": "failed / %", "range": [-3, 103]},
        },
    }


def failure_rate_table(status: CampaignStatus) -> Table:
    """Return the numbers of `failure_rate`, one row a window of results."""
    rows = [[trial, round(100 * share, 2)] for trial, share in status.failure_rate]
    return [["up_to_trial", "failed_percent"], *rows]


def loop(voltage: Sequence[Any], currents: Sequence[Sequence[Any]], names: Sequence[str]) -> Figure:
    """Return an I-V loop: the size of the current on a log axis, one line a cycle.

    Args:
        voltage: Volts; one list for all cycles, or one list a cycle.
        currents: Amperes, one list a cycle; None where a point is missing.
        names: Of the cycles.
    """
    each = bool(voltage) and isinstance(voltage[0], list | tuple)
    n = len(currents)
    traces = []
    for k, current in enumerate(currents):
        first_or_last = k in (0, n - 1)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": names[k] if k < len(names) else f"cycle {k + 1}",
                "x": voltage[k] if each else voltage,
                "y": [abs(i) if i else None for i in current],
                "line": {
                    "color": "@1" if k == n - 1 and n > 1 else ("@0" if k == 0 else "@soft/0.45"),
                    "width": 1.8 if first_or_last else 1,
                },
                "showlegend": n > 1 and first_or_last,
                "hovertemplate": "%{x:.3g} V, %{y:.3g} A<extra>%{fullData.name}</extra>",
            }
        )
    # The first and the last cycle lie on top: their difference is what one looks for.
    order = [*traces[1:-1], traces[0], traces[-1]] if n > 2 else traces
    return {
        "data": order,
        "layout": {
            "xaxis": {"title": "voltage / V", "zeroline": True},
            "yaxis": {
                "title": "|current| / A",
                "type": "log",
                "exponentformat": "power",
                "dtick": 1,
            },
        },
    }


def loop_table(
    voltage: Sequence[Any], currents: Sequence[Sequence[Any]], names: Sequence[str]
) -> Table:
    """Return the points of `loop`, one row a point."""
    each = bool(voltage) and isinstance(voltage[0], list | tuple)
    rows: Table = [["cycle", "voltage_V", "current_A"]]
    for k, current in enumerate(currents):
        name = names[k] if k < len(names) else f"cycle {k + 1}"
        volts = voltage[k] if each else voltage
        rows += [[name, v, i] for v, i in zip(volts, current, strict=False) if i is not None]
    return rows


def to_csv(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as CSV; nothing for None. Text that a spreadsheet program would run is made text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def table_head(rows: Table, most: int = 200) -> Mapping[str, Any]:
    """Return a table for the page: its header, its last rows, and how many were left out."""
    body = rows[1:]
    return {"head": rows[0], "rows": body[-most:], "left_out": max(0, len(body) - most)}
