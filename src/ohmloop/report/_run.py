"""A run as one self-contained HTML file: what it scores, on which devices, what is proven, what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ohmloop.errors import OhmloopError
from ohmloop.report import _run_plots as plots_of
from ohmloop.report._certificates import certificate_rows, certificates_figure, group_of, shift_rows
from ohmloop.report._page import (
    PERCENT,
    Methods,
    Page,
    Plot,
    is_share,
    new_page,
    plot,
    score_text,
    settings_of,
    word_of,
    write_page,
)
from ohmloop.units import format as with_unit

if TYPE_CHECKING:
    from ohmloop.certify import Certificate
    from ohmloop.tasks import Entry
    from ohmloop.train import Evaluation, KeptCertificate, RunRecord


def write_run(run: str | Path, folder: Path, *, pdf: bool = False) -> Path:
    """Write ``run.html`` and a CSV for each of its figures; nothing is computed anew.

    The same run folder gives the same bytes.

    Args:
        run: Folder of a finished run.
        folder: Where the report goes.
        pdf: Whether ``run.pdf`` is written as well.

    Returns:
        The path of the HTML file.

    Raises:
        TrainError: If there is no finished run.
        OhmloopError: If the report cannot be written, or PDF is asked for and WeasyPrint is not here.
    """
    from ohmloop.train import read_run

    return write_page(run_page(read_run(run)), folder, pdf=pdf)


class _Fresh(NamedTuple):
    """What was measured on the weights that the folder holds; of one question, the largest fleet."""

    fleets: tuple[Evaluation, ...]
    groups: dict[str, list[Certificate]]


def run_page(record: RunRecord) -> Page:
    """Return the page of a run."""
    entry, description = _task(record)
    fresh = _fresh(record)
    metric = _metric(record, entry)
    plots: list[Plot] = []
    own = _own(record, fresh.fleets)
    if own is not None:
        # One axis has one score: routes finished are no accuracy.
        alike = [e for e in fresh.fleets if e.metric == own.metric]
        chance = 1 / entry.n_classes if entry is not None and own.metric == "accuracy" else None
        plots += [plots_of.sigma_plot(alike, chance), plots_of.device_plot(alike)]
    if record.history:
        plots.append(plots_of.history_plot(record.history, metric))
    arrays = [e for e in fresh.fleets if e.arrays is not None]
    plots += [plots_of.array_plot(e) for e in arrays]
    curves = _curves(fresh.groups)
    return new_page(
        "run",
        "run.html.j2",
        plots=[*plots, *([curves] if curves else [])],
        tables={
            "evaluations": _evaluation_rows(record),
            **({"certified-shifts": shift_rows(fresh.groups)} if fresh.groups else {}),
        },
        badge="simulated devices",
        title=f"{record.config['task']} by {record.config['method']}",
        lead=_lead(record, fresh, metric),
        cards=_cards(record, fresh),
        methods=_methods(record, entry, description, fresh),
        provenance=_provenance(record),
        evaluations=[_shown(record, e) for e in record.evaluations],
        trials=_trials(record),
        arrays=[(f"layers-{word_of(e.name)}", _layers(e)) for e in arrays],
        groups=[group_of(name, found) for name, found in fresh.groups.items()],
        stale=[c for c in record.certificates if record.is_stale(c)],
        folder=record.folder.name,
    )


def _task(record: RunRecord) -> tuple[Entry | None, str]:
    """Return the task's entry and its description; the entry is None where its data is not on this machine."""
    from ohmloop.errors import TaskError
    from ohmloop.tasks import describe_tasks, task

    name = record.config["task"]
    try:
        entry = task(name, record.config["data"], standardise=record.config["standardise"]).entry
    except TaskError:
        return None, next((t.description for t in describe_tasks() if t.name == name), name)
    return entry, entry.description


def _metric(record: RunRecord, entry: Entry | None) -> str:
    if entry is not None:
        return entry.metric.name
    return record.evaluations[0].metric if record.evaluations else "score"


def _fresh(record: RunRecord) -> _Fresh:
    from ohmloop.certify import read_certificate

    largest: dict[str, Evaluation] = {}
    for e in record.evaluations:
        if record.is_stale(e):
            continue
        key = repr((e.hardware, e.deployment, e.by_doing, e.test_limit))
        known = largest.get(key)
        if known is None or (e.n_devices, -e.seed) > (known.n_devices, -known.seed):
            largest[key] = e
    groups: dict[str, list[Certificate]] = {}
    for c in record.certificates:
        if not record.is_stale(c):
            groups.setdefault(_group_name(c), []).append(read_certificate(c.record))
    fleets = sorted(largest.values(), key=lambda e: (e.sigma, e.name))
    return _Fresh(tuple(fleets), groups)


def _group_name(c: KeptCertificate) -> str:
    """Return what a certificate was asked about: the device, and what differs from plain."""
    settings = c.settings
    parts = [c.device]
    if c.hardware is not None and c.hardware.get("array"):
        parts.append("on arrays")
    if settings.get("n_devices"):
        parts.append(f"{settings['n_devices']:,} devices")
    for key in ("deployment", "calibrated", "gain", "ablation", "test_limit"):
        value = settings.get(key)
        if value not in (None, "none"):
            words = (
                " ".join(f"{v}" for v in value.values()) if isinstance(value, dict) else str(value)
            )
            parts.append(f"{key.replace('_', ' ')} {words}")
    if settings.get("seed"):
        parts.append(f"seed {settings['seed']}")
    return ", ".join(parts)


def _curves(groups: dict[str, list[Certificate]]) -> Plot | None:
    try:
        figure = certificates_figure(groups)
    except OhmloopError:  # none of them has a curve
        return None
    return plot(
        "certificates",
        figure,
        "Curves of the certificates",
        "Lines are proven; a bound holds for every direction of a shift.",
        certificate_rows(groups),
    )


def _own(record: RunRecord, fleets: Sequence[Evaluation]) -> Evaluation | None:
    """Return the fleet of what the run was trained for, or else the first one of the same kind."""
    names = [h["device"]["name"] for h in record.config["hardware"]]
    for_array = any(h.get("array") is not None for h in record.config["hardware"])
    same = [e for e in fleets if e.on_array == for_array]
    return next((e for e in same if e.device in names), None) or next(iter(same or fleets), None)


def _lead(record: RunRecord, fresh: _Fresh, metric: str) -> str:
    from ohmloop.report._run_methods import trained_for

    config = record.config
    devices = ", ".join(map(trained_for, config["hardware"]))
    text = f"A network ({config['model']}) trained by {config['method']} for {devices}. "
    own = _own(record, fresh.fleets)
    if own is None:
        reached = record.result.get("validation_score")
        known = "" if reached is None else f" Validation {metric}: {score_text(reached, metric)}."
        return f"{text}It has not been measured on devices yet: ohmloop evaluate {record.folder}.{known}"
    text += (
        f"It scores {score_text(own.digital, own.metric)} {_over(own)} as a digital network, and "
        f"{_with_spread(own)} on {own.n_devices:,} simulated devices of {plots_of.label_of(own)} "
        f"(sigma {own.sigma:.3g}); the worst tenth of them {score_text(own.worst_tenth, own.metric)}."
    )
    proven = next((c for g in fresh.groups.values() for c in g if c.kind == "quantile"), None)
    if proven is not None and not proven.abstains:
        text += f" {proven.claim}"
    return text


def _over(e: Evaluation) -> str:
    return "by doing" if e.by_doing else "on test data"


def _with_spread(e: Evaluation) -> str:
    mean = score_text(e.mean, e.metric)
    if is_share(e.metric):
        return f"{mean.removesuffix(PERCENT)} ± {100 * e.std:.1f}{PERCENT}"
    return f"{mean} ± {e.std:.2g}"


def _cards(record: RunRecord, fresh: _Fresh) -> list[dict[str, str]]:
    own = _own(record, fresh.fleets)
    if own is None:
        return []
    cards = [
        {"value": score_text(own.digital, own.metric), "label": f"test {own.metric}, digital"},
        {
            "value": _with_spread(own),
            "label": f"on simulated {plots_of.label_of(own)}, sigma {own.sigma:.3g}",
        },
        {"value": score_text(own.worst_tenth, own.metric), "label": "its worst tenth of devices"},
    ]
    array = next((e for e in fresh.fleets if e.arrays is not None and e.arrays.energy), None)
    if array is not None and array.arrays is not None and array.arrays.energy is not None:
        cards.append(
            {
                "value": with_unit(array.arrays.energy, "J"),
                "label": f"for one input, {plots_of.label_of(array)}, {array.arrays.tiles} tiles",
            }
        )
    return cards


def _shown(record: RunRecord, e: Evaluation) -> dict[str, Any]:
    return {
        "label": plots_of.label_of(e),
        "sigma": f"{e.sigma:.3f}",
        "devices": f"{e.n_devices:,}",
        "seed": str(e.seed),
        "digital": score_text(e.digital, e.metric),
        "mean": _with_spread(e),
        "worst": score_text(e.worst_tenth, e.metric),
        "figures": ", ".join(f"{k.replace('_', ' ')} {f.mean:.3g}" for k, f in e.figures.items()),
        "deployment": e.deployment,
        "over": "by doing" if e.by_doing else f"{e.n_samples:,} test samples",
        "stale": record.is_stale(e),
    }


def _evaluation_rows(record: RunRecord) -> list[Sequence[object]]:
    heads = (
        "name", "device", "sigma", "convention", "on_array", "deployment", "by_doing", "test_limit",
        "n_devices", "seed", "n_samples", "metric", "digital", "mean", "std", "worst_tenth",
    )  # fmt: skip
    further = list(dict.fromkeys(name for e in record.evaluations for name in e.figures))
    return [
        (*heads, *further, "stale"),
        *(
            (
                *("" if (v := getattr(e, h)) is None else v for h in heads),
                *(e.figures[name].mean if name in e.figures else "" for name in further),
                record.is_stale(e),
            )
            for e in record.evaluations
        ),
    ]


def _trials(record: RunRecord) -> list[tuple[str, ...]]:
    from ohmloop.train import Noise

    def number(value: object) -> str:
        return f"{value:.4f}" if isinstance(value, int | float) else "–"

    return [
        (
            str(t["number"]),
            str(t["epochs"]),
            str(Noise.model_validate(t["noise"])),
            number(t["objective"]),
            number(t["clean"]),
        )
        for t in record.result.get("trials", [])
    ]


def _layers(e: Evaluation) -> list[tuple[str, ...]]:
    assert e.arrays is not None

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.3g} %"

    return [
        (
            layer.name or "(model)",
            f"{layer.type}, {'analog' if layer.analog else 'digital'}: {layer.reason}",
            f"{layer.parameters:,}",
            "–" if layer.tiles is None else f"{layer.arrays:,}",
            "–" if layer.tiles is None else f"{layer.tiles:,}",
            share(layer.utilisation),
            share(layer.error),
            "–" if layer.energy is None else with_unit(layer.energy, "J"),
        )
        for layer in e.arrays.layers
    ]


def _methods(record: RunRecord, entry: Entry | None, description: str, fresh: _Fresh) -> Methods:
    from ohmloop.report._run_methods import citations, paragraphs, settings

    return Methods(
        paragraphs=paragraphs(record, description, fresh.fleets),
        settings=settings(record, fresh.fleets),
        citations=citations(record, entry),
    )


def _provenance(record: RunRecord) -> list[tuple[str, str]]:
    from ohmloop import __version__

    rows = [
        ("report made by", f"ohmloop {__version__}"),
        ("run", record.folder.name),
        ("weights.pt (sha256)", record.weights_sha256),
        ("config.json (sha256)", record.config_sha256),
        ("training seed", str(record.config["seed"])),
        ("data that training saw", ", ".join(record.result.get("data_seen", ()))),
        *((f"trained with {name}", value) for name, value in record.environment.items()),
    ]
    hashes = sorted({str(c.record["data"]) for c in record.certificates if c.record.get("data")})
    rows += [("test inputs and labels (sha256)", value) for value in hashes]
    for e in record.evaluations:
        stale = "; measured on other weights than these" if record.is_stale(e) else ""
        rows.append((f"evaluations/{e.name}.json", f"{e.n_devices} devices, seed {e.seed}{stale}"))
    made = [*(e.versions for e in record.evaluations), *(c.versions for c in record.certificates)]
    for versions in made:
        rows += [
            (f"measured with {name}", value)
            for name, value in settings_of(versions)
            if record.environment.get(name) != value
        ]
    devices = [
        *record.config["hardware"],
        *(e.hardware for e in record.evaluations),
        *(c.hardware for c in record.certificates if c.hardware is not None),
    ]
    for hardware in devices:
        rows += [
            (f"source {s['file']} of {hardware['device']['name']} (sha256)", s["sha256"])
            for s in hardware["device"]["sources"]
        ]
    return list(dict.fromkeys(rows))
