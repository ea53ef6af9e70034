"""Certificates as curves and as a page, beside what simulated devices do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from ohmloop.certify import (
    BoxCertificate,
    Certificate,
    DriftCertificate,
    PercentileCertificate,
    Votes,
    YieldCertificate,
)
from ohmloop.errors import OhmloopError
from ohmloop.report._page import render, write_files
from ohmloop.report._style import COLOURS, GREY, new_figure, styled, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEEP = 0.95
"""Share of the devices that curves are drawn for, where a certificate holds several."""
_Kind = TypeVar("_Kind", bound=Certificate)
Groups = Mapping[str, Sequence[Certificate]]
STATEMENTS = {
    "S1": "one device, for certain",
    "S2": "a random device",
    "S3": "a random device after a systematic shift",
}


@dataclass(frozen=True, eq=False)
class Observed:
    """What simulated devices do: the truth that certificates stay below.

    Attributes:
        rho: Systematic shifts of the law's centre, in its deviations, one for each of ``votes``; the
            direction is chosen by whoever drew them.
        votes: What devices drawn after each shift say.
        direction: The direction in words.
    """

    rho: tuple[float, ...]
    votes: tuple[Votes, ...]
    direction: str = ""


def certificates_figure(
    groups: Groups, observed: Mapping[str, Observed] | None = None, *, keep: float = KEEP
) -> Figure:
    """Draw the curves of certificates, a colour a group: lines are proven, points are simulated.

    Args:
        groups: What they are about ("steady", "median device") -> certificates; at most one of a kind counts.
        observed: For some of the groups, simulated devices.
        keep: Share of the devices, for curves that exist for several.

    Returns:
        A panel for each kind that is there: yield by input, accuracy and inputs kept against the systematic
        shift, inputs against the radius of the box.
    """
    kinds: tuple[tuple[Callable[..., None], type[Certificate]], ...] = (
        (_draw_yield, YieldCertificate),
        (_draw_percentile, PercentileCertificate),
        (_draw_drift, DriftCertificate),
        (_draw_box, BoxCertificate),
    )
    panels = [
        (draw, kind)
        for draw, kind in kinds
        if any(_first(c, kind) is not None for c in groups.values())
    ]
    if not panels:
        raise OhmloopError(
            "none of the certificates has a curve; ask for yield, percentile, drift or box."
        )
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns, 3.6 * rows + 0.45)
    # Inches around each panel, so that its title keeps off the axis above it.
    figure.set_layout_engine("constrained", h_pad=0.1, w_pad=0.1)
    with styled():
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for (draw, kind), axes in zip(panels, grid, strict=False):
            for k, (name, certificates) in enumerate(groups.items()):
                found = _first(certificates, kind)
                if found is not None:
                    draw(axes, found, (observed or {}).get(name), COLOURS[k % 7], name, keep)
            axes.set_ylim(-0.02, 1.03)
        handles, labels = grid[0].get_legend_handles_labels()
        if observed:
            handles.append(_note(grid[0]))
            labels.append("points: simulated devices")
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


def _note(axes: Axes) -> object:
    return axes.plot([], [], "o", color=GREY, ms=3.5)[0]


def _first(certificates: Iterable[Certificate], kind: type[_Kind]) -> _Kind | None:
    return next((c for c in certificates if isinstance(c, kind)), None)


def _rule(certificate: Certificate) -> Literal["digital", "label"]:
    return "label" if certificate.class_rule.startswith("label") else "digital"


def _shares(votes: Votes, certificate: Certificate) -> np.ndarray:
    return np.asarray(votes.right(_rule(certificate)).mean(0))


def certificate_rows(groups: Groups) -> list[tuple[object, ...]]:
    """Return the numbers of the curves: group, kind, which curve, where, and the proven value."""
    rows: list[tuple[object, ...]] = [("group", "kind", "curve", "x", "proven")]
    for name, certificates in groups.items():
        for c in certificates:
            rows += [(name, c.kind, *row) for row in _curve_rows(c)]
    return rows


def shift_rows(groups: Groups) -> list[tuple[object, ...]]:
    """Return what certified shifts mean in cells, layers and tiles."""
    rows: list[tuple[object, ...]] = [
        ("group", "what_shifts", "cells", "inputs", "devices_that_keep", "amount", "words")
    ]
    for name, certificates in groups.items():
        for c in certificates:
            if isinstance(c, DriftCertificate):
                rows += [
                    (name, t.what, t.cells, t.inputs, t.keep, t.amount, t.words)
                    for t in c.translations
                ]
    return rows


def _curve_rows(c: Certificate) -> list[tuple[object, ...]]:
    if isinstance(c, YieldCertificate):
        return [("devices that give the class, by input", k, v) for k, v in enumerate(c.lower)]
    if isinstance(c, PercentileCertificate):
        return [
            (f"{c.score} of {100 * share:g} % of devices, by shift", rho, "" if v is None else v)
            for share, bounds in zip(c.shares, c.bounds, strict=True)
            for rho, v in zip(c.rho, bounds, strict=True)
        ]
    if isinstance(c, DriftCertificate):
        return [
            (f"inputs kept on {100 * curve.keep:g} % of devices, by shift", rho, v)
            for curve in c.curves
            for rho, v in zip(c.rho, curve.inputs, strict=True)
        ]
    if isinstance(c, BoxCertificate):
        return [("largest certified radius, by input", k, r) for k, r in enumerate(c.radii)]
    return []


def _draw_yield(
    axes: Axes, c: YieldCertificate, seen: Observed | None, colour: str, name: str, keep: float
) -> None:
    lower = np.sort(c.lower)[::-1]
    share = np.arange(1, len(lower) + 1) / len(lower)
    axes.plot(share, lower, color=colour, label=name)
    if seen is not None and seen.rho[0] == 0:
        truth = np.sort(_shares(seen.votes[0], c))[::-1]
        some = np.unique(np.linspace(0, len(truth) - 1, 25).astype(int))
        axes.plot(share[some], truth[some], "o", color=colour, ms=3, alpha=0.7)
    axes.set_xlabel("share of inputs, best first")
    axes.set_ylabel("devices that give the class")
    axes.set_title(
        f"S2: yield, {100 * c.confidence:g} % confidence for all inputs", fontsize=9, color=GREY
    )


def _draw_percentile(
    axes: Axes, c: PercentileCertificate, seen: Observed | None, colour: str, name: str, keep: float
) -> None:
    index = int(np.abs(np.array(c.shares) - keep).argmin())
    bounds = np.array([np.nan if v is None else v for v in c.bounds[index]])
    axes.plot(c.rho, bounds, color=colour, label=name)
    ended = np.isfinite(bounds).sum()
    if ended < len(bounds):
        axes.plot(c.rho[ended - 1], bounds[ended - 1], "|", color=colour, ms=9)
    if seen is not None:
        truth = [np.quantile(v.scores(_rule(c)), 1 - c.shares[index]) for v in seen.votes]
        axes.plot(seen.rho, truth, "o", color=colour, ms=4)
    axes.set_xlabel("systematic shift / deviations of the law")
    axes.set_ylabel(f"{c.score} of {100 * c.shares[index]:g} % of devices")
    axes.set_title("S3: a fleet after a shift (|: too few devices beyond)", fontsize=9, color=GREY)


def _draw_drift(
    axes: Axes, c: DriftCertificate, seen: Observed | None, colour: str, name: str, keep: float
) -> None:
    curve = min(c.curves, key=lambda curve: abs(curve.keep - 0.5))
    axes.plot(c.rho, curve.inputs, color=colour, label=name)
    if seen is not None:
        truth = [(_shares(v, c) > curve.keep).mean() for v in seen.votes]
        axes.plot(seen.rho, truth, "o", color=colour, ms=4)
    axes.set_xlabel("systematic shift / deviations of the law")
    axes.set_ylabel("inputs that keep their class")
    axes.set_title(f"S3: inputs kept on {100 * curve.keep:g} % of devices", fontsize=9, color=GREY)


def _draw_box(
    axes: Axes, c: BoxCertificate, seen: Observed | None, colour: str, name: str, keep: float
) -> None:
    radii = np.sort(np.array(c.radii))[::-1]
    share = np.arange(1, len(radii) + 1) / len(radii)
    good = radii > 0
    scale = 100 if c.box == "relative" else 1
    axes.step(
        np.r_[scale * radii[good][::-1], scale * radii[:1]],
        np.r_[share[good][::-1], 0.0],
        where="pre",
        color=colour,
        label=name,
    )
    axes.set_xscale("log")
    unit = "off / %" if c.box == "relative" else "ln factor"
    axes.set_xlabel(f"every weight at once {unit}")
    axes.set_ylabel("inputs certified")
    axes.set_title(f"S1: one device, {c.method} bounds", fontsize=9, color=GREY)


def render_certificates(
    groups: Groups,
    observed: Mapping[str, Observed] | None = None,
    *,
    title: str = "What can be proven about this network",
) -> str:
    """Return the HTML of a page: claims in words, curves, translations, and where they come from."""
    figure = certificates_figure(groups, observed)
    words = sorted({o.direction for o in (observed or {}).values() if o.direction})
    return render(
        "certificates.html.j2",
        badge="proven for a law of devices, devices simulated",
        title=title,
        lead=_lead(groups),
        groups=[group_of(name, certificates) for name, certificates in groups.items()],
        figure=to_svg(figure, "Curves of the certificates, with simulated devices as points"),
        has_points=bool(observed),
        direction="; ".join(words),
    )


def group_of(name: str, certificates: Sequence[Certificate]) -> dict[str, Any]:
    """Return what a page shows of the certificates about one thing: claims, translations, limits, origin."""
    return {
        "name": name,
        "claims": [_claim_row(c) for c in certificates],
        "translations": [
            row for c in certificates if isinstance(c, DriftCertificate) for row in _moves(c)
        ],
        "limits": list(dict.fromkeys(text for c in certificates for text in c.limits)),
        "provenance": _provenance(certificates),
    }


def write_certificates(
    groups: Groups,
    folder: Path,
    observed: Mapping[str, Observed] | None = None,
    *,
    title: str = "What can be proven about this network",
) -> Path:
    """Write the page as ``certificates.html`` into ``folder`` and return its path.

    The same certificates give the same bytes.

    Raises:
        OhmloopError: If the folder cannot be written, or no certificate has a curve.
    """
    page = render_certificates(groups, observed, title=title)
    return write_files(folder, {"certificates.html": page}, "certificates.html")


def _lead(groups: Groups) -> str:
    every = [c for certificates in groups.values() for c in certificates]
    silent = sum(c.abstains for c in every)
    text = f"{len(every)} certificates. Each says which of three statements it makes; they are not mixed."
    if silent:
        text += f" {silent} of them claim nothing here."
    return text


def _claim_row(c: Certificate) -> dict[str, str]:
    return {
        "statement": c.statement,
        "meaning": STATEMENTS[c.statement],
        "kind": c.kind,
        "claim": c.claim,
        "theorem": c.theorem,
        "confidence": f"{100 * c.confidence:g} %" if c.n_draws else "certain",
    }


def _moves(c: DriftCertificate) -> list[dict[str, str]]:
    return [
        {
            "what": t.what,
            "cells": f"{t.cells:,}",
            "inputs": f"{100 * t.inputs:g} %",
            "keep": f"{100 * t.keep:g} %",
            "words": t.words if t.amount is not None else "nothing is claimed",
        }
        for t in c.translations
    ]


def _provenance(certificates: Sequence[Certificate]) -> list[tuple[str, str]]:
    rows: dict[str, dict[str, None]] = {}

    def add(key: str, value: str) -> None:
        if value:
            rows.setdefault(key, {})[value] = None

    for c in certificates:
        add("law", c.law_words)
        add("calibration (sha256)", "" if c.law is None else c.law.calibration)
        add("weights (sha256)", c.weights)
        add("inputs and labels (sha256)", c.data)
        add("inputs", f"{c.n_inputs:,}")
        add("devices drawn", f"{c.n_draws:,}" if c.n_draws else "")
        add("seed", "" if c.seed is None else str(c.seed))
        add("class rule", c.class_rule)
        add("deployment", c.deployment)
        if len(set(c.layer_arrays.values())) > 1:
            add(
                "arrays of each layer",
                ", ".join(f"{n or 'model'} {m}" for n, m in c.layer_arrays.items()),
            )
        add(f"multiplicity ({c.kind})", c.multiplicity)
        add(f"abstentions ({c.kind})", f"{c.abstentions:,}" if c.abstentions else "")
        add("versions", ", ".join(f"{k} {v}" for k, v in c.versions.items()))
    return [(key, "; ".join(values)) for key, values in rows.items()]
