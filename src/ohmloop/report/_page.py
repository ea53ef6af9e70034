"""What every report page is made of: figures with their numbers as CSV, methods, provenance; one way to write.

A page holds no time of writing: the same input gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmloop._files import write_whole
from ohmloop.errors import OhmloopError
from ohmloop.report._style import to_svg

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

Rows = Sequence[tuple[str, str]]
PERCENT = "\u00a0%"
"""The sign with a space before it at which no line ends."""


@dataclass(frozen=True)
class Plot:
    """One figure of a page.

    Attributes:
        name: Stem of its CSV, "accuracy-against-sigma".
        svg: The picture.
        caption: What it shows.
        rows: Its numbers: a head, then one row each.
    """

    name: str
    svg: str
    caption: str
    rows: Sequence[Sequence[object]]


def plot(
    name: str, figure: Figure, title: str, caption: str, rows: Sequence[Sequence[object]]
) -> Plot:
    """Return a figure as a page shows it; screen readers call it ``title``."""
    return Plot(name, to_svg(figure, title), caption, rows)


@dataclass(frozen=True)
class Methods:
    """How it was done.

    Attributes:
        paragraphs: What was done, what is not claimed.
        settings: Every setting with its value.
        citations: Of methods, devices and data.
    """

    paragraphs: tuple[str, ...]
    settings: Rows = ()
    citations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A rendered report.

    Attributes:
        stem: Of its files: "run" for ``run.html``.
        html: The page.
        tables: Name of each CSV -> its text.
    """

    stem: str
    html: str
    tables: Mapping[str, str] = field(default_factory=dict)


def new_page(
    stem: str,
    template: str,
    *,
    plots: Sequence[Plot],
    tables: Mapping[str, Sequence[Sequence[object]]] | None = None,
    **content: Any,
) -> Page:
    """Return the page of a template, with ``stem-NAME.csv`` for each of its plots.

    Args:
        stem: Of the files.
        template: File in ``templates``.
        plots: All figures; the template gets them by name.
        tables: Further tables to lie beside the page, by name.
        content: What else the template shows; see `render`.
    """
    numbers = {plot.name: plot.rows for plot in plots} | dict(tables or {})
    return Page(
        stem=stem,
        html=render(template, stem=stem, plots={p.name: p for p in plots}, **content),
        tables={f"{stem}-{name}.csv": csv_text(rows) for name, rows in numbers.items()},
    )


def render(
    template: str,
    *,
    title: str,
    lead: str,
    cards: Sequence[Mapping[str, str]] = (),
    badge: str = "",
    methods: Methods | None = None,
    provenance: Rows = (),
    **content: Any,
) -> str:
    """Return the HTML of a template that extends ``_base.html.j2``.

    Args:
        template: File in ``templates``.
        title: Headline.
        lead: The result in words.
        cards: The few numbers that count: "value" and "label".
        badge: What is simulated.
        methods: How it was done; None where the template says it itself.
        provenance: Versions, seeds, hashes.
        content: What else the template shows.
    """
    from ohmloop import __version__

    return (
        environment_of()
        .get_template(template)
        .render(
            title=title,
            lead=lead,
            cards=cards,
            badge=badge,
            methods=methods,
            provenance=provenance,
            version=__version__,
            **content,
        )
    )


def environment_of() -> Environment:
    """Return the Jinja environment of all report pages: escaped, strict about names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ohmloop.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(page: Page, folder: Path, *, pdf: bool = False) -> Path:
    """Write ``STEM.html`` and its CSVs, and with ``pdf`` ``STEM.pdf``; return the path of the HTML.

    Raises:
        OhmloopError: If the folder cannot be written, or PDF is asked for and WeasyPrint is not here.
    """
    files: dict[str, str | bytes] = dict(page.tables)
    if pdf:
        from ohmloop.report._pdf import to_pdf

        files[f"{page.stem}.pdf"] = to_pdf(page.html)
    return write_files(folder, {**files, f"{page.stem}.html": page.html}, f"{page.stem}.html")


def write_files(folder: Path, files: Mapping[str, str | bytes], page: str) -> Path:
    """Write files into ``folder``, each as a whole, and return the path of the one called ``page``.

    Raises:
        OhmloopError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise OhmloopError(
            f"The report cannot be written to {folder}: {error.strerror or error}. "
            "Name another folder with --out."
        ) from error
    return folder / page


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV with plain line ends, the same everywhere."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def settings_of(values: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Return nested settings as pairs of a dotted name and a value; what is not set is left out.

    >>> settings_of({"a": {"b": 1, "c": None}, "d": [0.5, 2]})
    (('a.b', '1'), ('d', '0.5, 2'))
    """
    return tuple(_flat(prefix, dict(values)))


def _flat(name: str, value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list | tuple) and any(isinstance(part, dict) for part in value):
        for k, part in enumerate(value):
            own = part.get("name", k) if isinstance(part, dict) else k
            yield from _flat(f"{name}[{own}]", part)
    elif isinstance(value, list | tuple):
        if value:
            yield name, ", ".join(_text(part) for part in value)
    elif value is not None and value != "":
        yield name, _text(value)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def word_of(name: str) -> str:
    """Return a name as part of a file's name.

    >>> word_of("Task accuracy / %")
    'task-accuracy'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.").lower()


def score_text(value: float, metric: str, *, digits: int = 1) -> str:
    """Return a score for people: accuracies in percent, others as they are.

    >>> score_text(0.9434, "accuracy") == "94.3" + PERCENT, score_text(12.3456, "perplexity")
    (True, '12.35')
    """
    if not math.isfinite(value):
        return "no finite number"
    return f"{100 * value:.{digits}f}{PERCENT}" if is_share(metric) else f"{value:.4g}"


def is_share(metric: str) -> bool:
    """Whether a score lies in [0, 1] and is shown in percent."""
    return metric.endswith("accuracy")
