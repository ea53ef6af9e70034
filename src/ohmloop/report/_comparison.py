"""A comparison of training methods as one self-contained HTML file: table, curves, paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ohmloop.report._comparison_plots import (
    Difference,
    curve_plot,
    difference_plot,
    hardware_name,
    name_of,
    paired_differences,
    seed_plot,
    unit_of,
)
from ohmloop.report._page import (
    PERCENT,
    Methods,
    Page,
    is_share,
    new_page,
    score_text,
    settings_of,
    write_page,
)
from ohmloop.report._run_methods import (
    LAW,
    PEROVSKITE,
    device_citations,
    hardware_settings,
    method_source,
)

if TYPE_CHECKING:
    from ohmloop.train import ComparisonRecord, ComparisonRow


def write_comparison(file: str | Path, folder: Path, *, pdf: bool = False) -> Path:
    """Write ``comparison.html`` and a CSV for each of its figures.

    The same file gives the same bytes.

    Args:
        file: What `ohmloop compare -o` wrote.
        folder: Where the report goes.
        pdf: Whether ``comparison.pdf`` is written as well.

    Returns:
        The path of the HTML file.

    Raises:
        TrainError: If the file holds no comparison.
        OhmloopError: If the report cannot be written, or PDF is asked for and WeasyPrint is not here.
    """
    from ohmloop.train import read_comparison_record
    from ohmloop.train._record import file_hash

    source = Path(file)
    record = read_comparison_record(source)
    origin = (f"{source.name} (sha256)", file_hash(source))
    return write_page(comparison_page(record, origin), folder, pdf=pdf)


def comparison_page(record: ComparisonRecord, *origin: tuple[str, str]) -> Page:
    """Return the page of a comparison; ``origin`` are further lines of its provenance."""
    found = paired_differences(record)
    plots = [curve_plot(record), seed_plot(record)]
    if found:
        plots.append(difference_plot(record, found))
    return new_page(
        "comparison",
        "comparison.html.j2",
        plots=plots,
        badge="simulated devices",
        title=f"{len(record.rows)} ways to train a network for {record.task}",
        lead=_lead(record, found),
        methods=_methods(record),
        provenance=_provenance(record, origin),
        heads=_heads(record),
        rows=[_table_row(record, k) for k in range(len(record.rows))],
        differences=[_words(record, d) for d in found if d.hardware is None],
        reference=name_of(record, 0),
        n_seeds=len(record.seeds),
        in_percent=is_share(record.metric),
        settings=[
            (name_of(record, k), " | ".join(dict.fromkeys(row.settings)) or "–", row.needs)
            for k, row in enumerate(record.rows)
        ],
    )


def _lead(record: ComparisonRecord, found: Sequence[Difference]) -> str:
    means = [float(np.mean(row.scores)) for row in record.rows]
    best = int(np.argmax(means) if record.is_higher_better else np.argmin(means))
    text = (
        f"Averaged over {len(record.hardware)} simulated devices and {len(record.seeds)} training "
        f"seed{'s' if len(record.seeds) > 1 else ''}, {name_of(record, best)} does best with "
        f"{score_text(means[best], record.metric)} {record.metric}"
    )
    if best == 0 or not found:
        return text + "."
    overall = next(d for d in found if d.row == best and d.hardware is None)
    factor, unit = unit_of(record)
    gain = f"{factor * overall.mean:.2g} {unit}"
    if math.isnan(overall.half):
        return f"{text}, {gain} better than {name_of(record, 0)} on the one seed; one seed shows no spread."
    sure = abs(overall.mean) > overall.half
    return (
        f"{text}, {gain} better than {name_of(record, 0)} (95{PERCENT} interval over seeds ± "
        f"{factor * overall.half:.2g}"
        + ("" if sure else ": the seeds do not tell them apart")
        + ")."
    )


def _words(record: ComparisonRecord, d: Difference) -> tuple[str, ...]:
    factor, unit = unit_of(record)
    interval = (
        "one seed: none"
        if math.isnan(d.half)
        else f"{factor * (d.mean - d.half):+.2f} to {factor * (d.mean + d.half):+.2f} {unit}"
    )
    wins = int((d.by_seed > 0).sum())
    return (
        name_of(record, d.row),
        f"{factor * d.mean:+.2f} {unit}",
        interval,
        f"{wins} of {len(d.by_seed)}",
    )


def _heads(record: ComparisonRecord) -> tuple[str, ...]:
    devices = [hardware_name(record, k) for k in range(len(record.hardware))]
    return ("<method", "cost", "digital", *devices, "mean of all")


def _table_row(record: ComparisonRecord, k: int) -> tuple[str, ...]:
    row = record.rows[k]
    scores = np.array(row.scores)
    return (
        name_of(record, k),
        f"{row.cost:.3g}",
        _spread(np.array(row.clean), record.metric),
        *(_spread(part.ravel(), record.metric) for part in scores),
        score_text(float(scores.mean()), record.metric),
    )


def _spread(values: NDArray[np.float64], metric: str) -> str:
    mean, deviation = float(values.mean()), float(values.std())
    if is_share(metric):
        return f"{100 * mean:.1f} ± {100 * deviation:.1f}"
    return f"{mean:.4g} ± {deviation:.2g}"


def _methods(record: ComparisonRecord) -> Methods:
    limit = "" if record.limit is None else f", {record.limit} development samples at most"
    test = "all test samples" if record.test_limit is None else f"{record.test_limit} test samples"
    names = list(dict.fromkeys(_base(row) for row in record.rows))
    settings = {
        key: value
        for key, value in record.model_dump(mode="json").items()
        if key not in ("rows", "hardware", "versions", "kind", "description", "citation")
    }
    return Methods(
        paragraphs=(
            f"Task {record.task}: {record.description.rstrip('.')}. Every method trained the network "
            f"{record.model} from the same initial weights with the same data division, batch order and "
            f"optimiser (Adam, {record.epochs} epochs of one plain training, batches of {record.batch_size}, "
            f"largest learning rate {record.lr:g}{limit}), once for each of the seeds "
            f"{', '.join(map(str, record.seeds))}. Cost counts passes over the training data in units of one "
            "plain training. Searches saw training and validation data only; test data were opened after "
            "training.",
            LAW,
            f"Every network was measured with {test} on {record.n_devices} simulated devices of each kind; for "
            "a training seed, all methods met the same devices. ± in the table is the standard deviation over "
            "devices and seeds together. Paired differences take the mean over devices first, so that their "
            f"intervals are about trainings: Student's t over {len(record.seeds)} seeds assumes that "
            "differences between seeds are about normal, and says nothing about other tasks, networks or "
            "devices. Intervals are not corrected for the number of methods compared.",
        ),
        settings=(
            *settings_of(settings),
            *(
                (
                    f"devices {k + 1}",
                    "; ".join(f"{n} {v}" for n, v in settings_of(hardware_settings(h))),
                )
                for k, h in enumerate(record.hardware)
            ),
        ),
        citations=(
            *(text for name in names if (text := method_source(name))),
            PEROVSKITE,
            *device_citations(record.hardware),
            *([f"Data {record.task}: {record.citation.rstrip('.')}."] if record.citation else []),
        ),
    )


def _base(row: ComparisonRow) -> str:
    return row.method.partition(":")[0].partition(" ")[0]


def _provenance(
    record: ComparisonRecord, origin: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    from ohmloop import __version__

    first = record.evaluation_seed
    rows = [
        ("report made by", f"ohmloop {__version__}"),
        *origin,
        ("training seeds", ", ".join(map(str, record.seeds))),
        ("seeds of the devices", ", ".join(str(first + s) for s in record.seeds)),
        *((f"computed with {name}", value) for name, value in record.versions.items()),
    ]
    for h in record.hardware:
        device = h["device"]
        rows += [
            (f"source {s['file']} of {device['name']} (sha256)", s["sha256"])
            for s in device["sources"]
        ]
    return list(dict.fromkeys(rows))
