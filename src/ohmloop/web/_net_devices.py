"""What the device pages show of a device model: its properties in words, and its law as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ohmloop import units
from ohmloop.device import Constant, DeviceModel, list_devices, list_presets, load_device
from ohmloop.errors import DeviceError
from ohmloop.web._workspace import Workspace

Origin = Literal["yours", "nanowire", "cell", "law"]
_HALF = 0.6745  # quartile of the standard normal distribution: half of all draws lie within
_WIDEST = 3.0  # standard deviations that a curve is drawn over
_CURVE = 121  # points of a curve
_MOST_LEVELS = 12  # values of one constant that are printed in full


@dataclass(frozen=True)
class Shown:
    """A device as a row or a column of a page.

    Attributes:
        name: As URLs and jobs name it.
        origin: Where it comes from.
        model: The model; None where its file is damaged.
        problem: Why it cannot be read, else "".
    """

    name: str
    origin: Origin
    model: DeviceModel | None
    problem: str = ""

    @property
    def sigma(self) -> float:
        """Its sigma, to sort by; infinite where it is not known."""
        return math.inf if self.model is None else self.model.sigma.value

    @property
    def interval(self) -> str:
        """The 95 % interval of sigma in words, "" where there is none."""
        s = None if self.model is None else self.model.sigma
        if s is None or s.low is None or s.high is None:
            return ""
        return f"{s.low:.3f} to {s.high:.3f}"

    @property
    def factor(self) -> str:
        """How far half of the writes come, in words."""
        return "" if self.model is None else spread_words(self.model.sigma.value)

    @property
    def window(self) -> str:
        """The conductance window with units, "" where it is not known."""
        m = self.model
        if m is None or m.g_min is None or m.g_max is None:
            return ""
        return f"{units.format(m.g_min, 'S')} to {units.format(m.g_max, 'S')}"

    @property
    def table(self) -> str:
        """The level table in words."""
        if self.model is None:
            return ""
        rho = self.model.rho
        return "1 everywhere" if rho is None else f"{len(rho)} levels, least {min(rho):.2f}"

    @property
    def kind(self) -> str:
        """What sort of thing it is, in words."""
        if self.origin == "law":
            return "assumed law (simulated)"
        if self.origin == "cell":
            return "published cell"
        return "measured, built in" if self.origin == "nanowire" else "your fit"

    @property
    def source(self) -> str:
        """Where it was measured or published, in one line."""
        m = self.model
        if m is None:
            return ""
        if m.citation:
            return m.citation
        if m.sources:
            more = f" and {len(m.sources) - 1} more" if len(m.sources) > 1 else ""
            return f"your file {m.sources[0].file}{more}"
        return "no measurement: the law is assumed"

    def figure(self, key: str) -> float | None:
        """Return a figure of merit of its source, None where it was not measured."""
        value = None if self.model is None else self.model.figures.get(key)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if known else None  # type: ignore[arg-type]  # narrowed by `known`

    def told(self, key: str, digits: int = 3) -> str:
        """Return a figure of merit as text; large ones without an exponent."""
        value = self.figure(key)
        if value is None:
            return "–"
        return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}g}"


class Line(NamedTuple):
    """A row of facts: what, its value, its 95 % interval ("" without one), and where it comes from."""

    what: str
    value: str
    interval: str = ""
    source: str = ""


def spread_words(sigma: float) -> str:
    """Return what a sigma means for a single write, in words.

    >>> spread_words(0.5)
    'half of the writes within ×1.40'
    """
    return f"half of the writes within ×{math.exp(_HALF * sigma):.2f}"


def own_devices(workspace: Workspace) -> list[Shown]:
    """Return the devices of the workspace, damaged files included, by name."""
    out = []
    for name in workspace.devices():
        try:
            out.append(Shown(name, "yours", load_device(workspace.device(name))))
        except DeviceError as error:
            out.append(Shown(name, "yours", None, str(error)))
    return out


def built_in() -> list[Shown]:
    """Return the built-in devices: the measured nanowires, quietest first, then the published cells."""
    wires = sorted(list_devices(), key=lambda d: d.sigma.value)
    return [
        *(Shown(d.name, "nanowire", d) for d in wires),
        *(Shown(d.name, "cell", d) for d in list_presets()),
    ]


def find(workspace: Workspace, name: str) -> Shown:
    """Return one device: of the workspace, built in, or "lognormal:SIGMA".

    Raises:
        DeviceError: If there is none of this name, or its file is damaged.
    """
    if name in workspace.devices():
        return Shown(name, "yours", load_device(workspace.device(name)))
    for shown in built_in():
        if shown.name == name:
            return shown
    if name.startswith("lognormal:"):
        model = load_device(name)
        return Shown(model.name, "law", model)
    raise DeviceError(f'there is no device "{name[:80]}" here, and none is built in by that name.')


# -- facts in words -----------------------------------------------------------------------------

_FIGURES = {
    "monotonicity": ("monotone part of the ramp", ""),
    "usability": ("usability (published figure)", ""),
    "on_off_ratio": ("on/off ratio", ""),
    "set_voltage": ("set voltage", "V"),
    "reset_voltage": ("reset voltage", "V"),
    "read_voltage": ("read voltage", "V"),
    "cycles": ("cycles measured", ""),
    "ramp_rows": ("rows of the ramp", ""),
    "g_min": ("smallest conductance", "S"),
    "g_max": ("largest conductance", "S"),
    "set_voltage_std": ("spread of the set voltage", "V"),
    "reset_voltage_std": ("spread of the reset voltage", "V"),
    "v_max": ("largest voltage", "V"),
    "v_min": ("smallest voltage", "V"),
    "clipped_points": ("points at compliance", ""),
    "hrs_variation": ("variation of the high-resistance state", ""),
    "lrs_variation": ("variation of the low-resistance state", ""),
}


def figure_lines(model: DeviceModel) -> list[Line]:
    """Return the figures of merit of a device's source, those that are known by name first."""
    keys = [k for k in _FIGURES if k in model.figures]
    others = [k for k in model.figures if k not in _FIGURES and not k.endswith("_interval")]
    out = []
    for key in [*keys, *others]:
        label, unit = _FIGURES.get(key, (key.replace("_", " "), ""))
        value = model.figures[key]
        if value is None or isinstance(value, list) or key == "sigma":
            continue
        limits = model.figures.get(f"{key}_interval")
        told = ""
        if isinstance(limits, list) and len(limits) == 2:
            told = f"{_text(limits[0], unit)} to {_text(limits[1], unit)}"
        out.append(Line(label, _text(value, unit), told))
    return out


def constant_lines(model: DeviceModel) -> list[Line]:
    """Return the constants of a cell's physics, each with the source that states it."""
    if model.physics is None:
        return []
    return [Line(c.name, _constant(c), "", c.source) for c in model.physics.constants()]


def _constant(constant: Constant) -> str:
    unit = "" if constant.unit in ("eV", "1/K") else constant.unit
    tail = f" {constant.unit}" if not unit and constant.unit else ""
    values = constant.value if isinstance(constant.value, tuple) else (constant.value,)
    if len(values) > _MOST_LEVELS:
        first, last = _text(values[0], unit), _text(values[-1], unit)
        return f"{len(values)} values, {first} to {last}{tail}"
    return ", ".join(_text(v, unit) for v in values) + tail


def _text(value: float | int | bool | str, unit: str = "") -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return units.format(value, unit) if unit else f"{value:.4g}"


# -- curves -------------------------------------------------------------------------------------

TICKS: dict[str, Any] = {
    "tickmode": "array",
    "tickvals": [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)],
    "ticktext": [f"{m * 10.0**e:g}" for e in range(-3, 4) for m in (1, 2, 5)],
}
"""Ticks of a logarithmic axis that say their whole number."""


def law_plot(shown: Sequence[Shown]) -> dict[str, Any]:
    """Return a figure for plotly: how often a write comes out by which factor of what was asked."""
    known = [s for s in shown if s.model is not None]
    widest = max((s.sigma for s in known), default=1.0)
    reach = _WIDEST * max(widest, 0.05)
    data = []
    for k, s in enumerate(known):
        sigma = max(s.sigma, 1e-3)
        span = min(reach, 4 * sigma)
        logs = [span * (2 * i / (_CURVE - 1) - 1) for i in range(_CURVE)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": s.name,
                "x": [_short(math.exp(v)) for v in logs],
                # Every curve has the height 1: how wide it is counts, not how high.
                "y": [_short(math.exp(-0.5 * (v / sigma) ** 2)) for v in logs],
                "line": {"color": f"@{k}", "width": 2},
            }
        )
    return {
        "data": data,
        "layout": {
            "xaxis": {"type": "log", "title": "conductance written / asked for", **TICKS},
            "yaxis": {"title": "how often (relative)", "rangemode": "tozero"},
            "showlegend": len(known) > 1,
        },
    }


def table_plot(shown: Sequence[Shown]) -> dict[str, Any]:
    """Return a figure for plotly: the level table, by which each weight is multiplied."""
    data = []
    for k, s in enumerate(shown):
        if s.model is None:
            continue
        rho = s.model.rho or (1.0, 1.0)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if 2 < len(rho) <= 60 else "lines",
                "name": s.name,
                "x": [_short(i / (len(rho) - 1)) for i in range(len(rho))],
                "y": [_short(v) for v in rho],
                "line": {"color": f"@{k}", "width": 2},
                "marker": {"size": 5},
            }
        )
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": "weight / largest weight", "range": [-0.02, 1.02]},
            "yaxis": {"title": "level rho", "range": [-0.02, 1.08]},
            "showlegend": len(data) > 1,
        },
    }


def spark(rho: Sequence[float] | None, width: int = 84, height: int = 20) -> str:
    """Return the points of a small polyline of a level table, for an SVG of this size."""
    values = rho or (1.0, 1.0)
    step = (width - 4) / (len(values) - 1)
    return " ".join(
        f"{2 + k * step:.1f},{height - 2 - v * (height - 4):.1f}" for k, v in enumerate(values)
    )


def bell(sigma: float, width: int = 84, height: int = 20) -> str:
    """Return the points of a small curve of a law: a factor of 10 down to a factor of 10 up."""
    reach, width_of = math.log(10.0), max(sigma, 0.02)
    out = []
    for k in range(61):
        v = reach * (2 * k / 60 - 1)
        y = height - 2 - math.exp(-0.5 * (v / width_of) ** 2) * (height - 4)
        out.append(f"{2 + k / 60 * (width - 4):.1f},{y:.1f}")
    return " ".join(out)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
