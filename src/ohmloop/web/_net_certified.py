"""The curves of a run's certificates, for plotly, as tables and CSV: from ``certificates.json``, without torch.

They are the curves that the report draws. What they show is proven for a law; nothing is simulated anew.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ohmloop.train import KeptCertificate
from ohmloop.web._net_runs import RunView

_POINTS = 400  # of a curve: more than a screen can show
_ROWS = 8  # of a table
_ABOUT = ("deployment", "calibrated", "gain", "ablation", "test_limit")
_SHIFT = "shift / deviations of the law"


class Curve(NamedTuple):
    """One proven curve.

    Attributes:
        group: What the certificate is about: the device, and what differs from plain.
        label: Which of its curves.
        share: Of the devices that it is about; NaN where it is about no share.
        x: Abscissa.
        y: What is proven there; None where nothing is.
        titles: Of the two axes.
    """

    group: str
    label: str
    share: float
    x: list[float]
    y: list[float | None]
    titles: tuple[str, str]


class Panel(NamedTuple):
    """How the curves of a kind of certificate are drawn.

    Attributes:
        title: What they show.
        note: What to know.
        curves: From a group and a certificate's record.
        is_log: Whether the abscissa is logarithmic.
        from_zero: Whether the ordinate begins at zero.
        preferred: Share of the devices of the one curve that is drawn of each of several groups.
    """

    title: str
    note: str
    curves: Callable[[str, dict[str, Any]], list[Curve]]
    is_log: bool = False
    from_zero: bool = True
    preferred: float = math.nan


def _yield(group: str, r: dict[str, Any]) -> list[Curve]:
    lower = 100 * np.sort(np.asarray(r["lower"], float))[::-1]
    share = 100 * np.arange(1, len(lower) + 1) / len(lower)
    titles = ("share of the inputs, best first / %", "share of the devices / %")
    return [Curve(group, "devices", math.nan, share.tolist(), lower.tolist(), titles)]


def _percentile(group: str, r: dict[str, Any]) -> list[Curve]:
    is_share = str(r["score"]).endswith("accuracy")
    titles = (_SHIFT, f"proven {r['score']}" + (" / %" if is_share else ""))
    return [
        Curve(
            group,
            f"{100 * share:g} % of the devices",
            share,
            list(r["rho"]),
            [None if v is None else (100 * v if is_share else v) for v in bounds],
            titles,
        )
        for share, bounds in zip(r["shares"], r["bounds"], strict=True)
    ]


def _drift(group: str, r: dict[str, Any]) -> list[Curve]:
    titles = (_SHIFT, "inputs kept / %")
    return [
        Curve(
            group,
            f"on {100 * curve['keep']:g} % of the devices",
            curve["keep"],
            list(r["rho"]),
            [None if v is None else 100 * v for v in curve["inputs"]],
            titles,
        )
        for curve in r["curves"]
    ]


def _box(group: str, r: dict[str, Any]) -> list[Curve]:
    is_relative = r["box"] == "relative"
    radii = np.sort(np.asarray(r["radii"], float))
    share = 100 * np.arange(len(radii), 0, -1) / len(radii)
    x = (100 if is_relative else 1) * radii
    titles = (
        "every weight off by up to / %" if is_relative else "ln of the factor on every weight",
        "inputs kept / %",
    )
    good = radii > 0  # a logarithm has no place for the inputs that nothing is proven for
    return [Curve(group, "inputs", math.nan, x[good].tolist(), share[good].tolist(), titles)]


PANELS = {
    "yield": Panel(
        "S2: how many random devices give the class, input by input",
        "Proven for all inputs at once.",
        _yield,
    ),
    "percentile": Panel(
        "S3: what a share of the devices scores after a systematic shift",
        "A curve ends where too few devices were drawn to say more.",
        _percentile,
        from_zero=False,
        preferred=0.95,
    ),
    "drift": Panel(
        "S3: how many inputs keep their class after a systematic shift",
        "For every direction of the shift; the drop is where too few devices were drawn to say more.",
        _drift,
        preferred=0.5,
    ),
    "box": Panel(
        "S1: how many inputs keep their class with every weight off at once",
        "For one device, for certain.",
        _box,
        is_log=True,
    ),
}
"""Kind of certificate -> its plot."""


def about(c: KeptCertificate) -> str:
    """Return what a certificate is about: the device, and what differs from plain."""
    words = [c.device]
    if c.hardware is not None and c.hardware.get("array"):
        words.append("on arrays")
    if c.settings.get("n_devices"):
        words.append(f"{c.settings['n_devices']:,} devices")
    for key in _ABOUT:
        value = c.settings.get(key)
        if value not in (None, "none"):
            told = " ".join(map(str, value.values())) if isinstance(value, dict) else str(value)
            words.append(f"{key.replace('_', ' ')} {told}")
    if c.settings.get("seed"):
        words.append(f"seed {c.settings['seed']}")
    return ", ".join(words)


def _curves(view: RunView, kind: str) -> list[Curve]:
    """Return every curve of a kind; those about other weights are left out."""
    out = []
    for c in () if view.record is None else view.record.certificates:
        if c.kind != kind or view.stale(c):
            continue
        try:
            found = PANELS[kind].curves(about(c), c.record)
        except (
            KeyError,
            TypeError,
            ValueError,
        ):  # of another version: its words stand all the same
            continue
        out += [c for c in found if any(v is not None for v in c.y)]
    return out


def _drawn(view: RunView, kind: str) -> list[Curve]:
    """Return the curves to draw: all of one group, or one of each of several."""
    curves = _curves(view, kind)
    groups = list(dict.fromkeys(curve.group for curve in curves))
    wanted = PANELS[kind].preferred
    if len(groups) < 2 or math.isnan(wanted):
        return curves
    return [
        min((c for c in curves if c.group == group), key=lambda c: abs(c.share - wanted))
        for group in groups
    ]


def _name(curve: Curve, curves: Sequence[Curve]) -> str:
    """Return what tells a curve from the others."""
    if len({c.group for c in curves}) == 1:
        return curve.label
    return curve.group if math.isnan(curve.share) else f"{curve.group}: {curve.label}"


def panels(view: RunView) -> list[dict[str, Any]]:
    """Return the plots that a run's certificates have: kind, title, note, and the numbers as a table."""
    return [
        {"kind": kind, "title": panel.title, "note": panel.note, "table": _table(curves)}
        for kind, panel in PANELS.items()
        if (curves := _drawn(view, kind))
    ]


def _table(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return some points of curves; a curve that is not proven so far has a dash."""
    longest = max(curves, key=lambda c: len(c.x)).x
    marks = [longest[k] for k in _some(len(longest), _ROWS)]
    return {
        "head": [curves[0].titles[0], *(_name(c, curves) for c in curves)],
        "rows": [[_short(x), *(_short(_at(c, x)) for c in curves)] for x in marks],
        "left_out": 0,
    }


def _at(curve: Curve, x: float) -> float | None:
    """Return what is proven at ``x``: by the next point that a curve has there, which promises less."""
    return next((y for at, y in zip(curve.x, curve.y, strict=True) if at >= x - 1e-12), None)


def _some(n: int, most: int) -> list[int]:
    """Return the numbers of at most ``most`` of ``n`` points, the first and the last among them."""
    return sorted(set(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()))


def plot(view: RunView, kind: str) -> dict[str, Any]:
    """Return the curves of a kind for plotly."""
    curves = _drawn(view, kind)
    if not curves:
        return {"data": [], "layout": {}}
    x, y = curves[0].titles
    panel = PANELS[kind]
    scale = {"type": "log"} if panel.is_log else {"rangemode": "tozero"}
    return {
        "data": [_trace(c, k, _name(c, curves), kind) for k, c in enumerate(curves)],
        "layout": {
            "xaxis": {"title": x, **scale},
            "yaxis": {"title": y, **({"rangemode": "tozero"} if panel.from_zero else {})},
            "showlegend": len(curves) > 1,
        },
    }


def _trace(curve: Curve, k: int, name: str, kind: str) -> dict[str, Any]:
    chosen = _some(len(curve.x), _POINTS)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [_short(curve.x[i]) for i in chosen],
        "y": [_short(curve.y[i]) for i in chosen],
        "line": {"color": f"@{k}", "width": 2.2, **({"shape": "vh"} if kind == "box" else {})},
        "hovertemplate": f"{name}: %{{y:.4g}}<extra></extra>",
    }


def to_csv(view: RunView) -> str:
    """Return every point of every curve as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "kind", "curve", "x", "x_is", "proven", "proven_is"])
    for kind in PANELS:
        for c in _curves(view, kind):
            for x, y in zip(c.x, c.y, strict=True):
                shown = "" if y is None else y
                writer.writerow([c.group, kind, c.label, x, c.titles[0], shown, c.titles[1]])
    return out.getvalue()


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
