"""One door to the reports of what lies in files: a campaign, a loop, a run, a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ohmloop.errors import OhmloopError

Kind = Literal["campaign", "loop", "run", "comparison"]


def kind_of(path: str | Path) -> Kind:
    """Return what a path holds: a loop (``codesign.toml``), a campaign, a run, or a comparison's file.

    Raises:
        OhmloopError: If it is none of these; the text says what each looks like.
    """
    place = Path(path)
    if place.is_dir():
        marks: tuple[tuple[str, Kind], ...] = (
            ("codesign.toml", "loop"),
            ("campaign.toml", "campaign"),
            ("config.json", "run"),
        )
        for mark, kind in marks:
            if (place / mark).exists():
                return kind
    elif place.suffix == ".json" and place.exists():
        try:
            known = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OhmloopError(f"{place} cannot be read as JSON: {error}.") from error
        if isinstance(known, dict) and known.get("kind") == "comparison":
            return "comparison"
    found = "is not there" if not place.exists() else "is none of these"
    raise OhmloopError(
        f"{place} {found}. A report is made of a campaign (a folder with campaign.toml), a loop (with "
        "codesign.toml), a run (with config.json, as `ohmloop train -o RUN` leaves it), or a comparison (the "
        "file of `ohmloop compare -o FILE.json`)."
    )


def default_folder(path: str | Path) -> Path:
    """Return where a report goes unless it is said: ``reports`` in the folder, or beside the file."""
    place = Path(path)
    return place / "reports" if place.is_dir() else place.with_name(f"{place.stem}-report")


def write_report(
    path: str | Path, folder: Path | None = None, *, kind: Kind | None = None, pdf: bool = False
) -> Path:
    """Write the report of what lies at a path: one HTML file, and a CSV for each of its figures.

    The same input gives the same bytes; nothing is computed anew.

    Args:
        path: Folder of a campaign, a loop or a run, or the file of a comparison.
        folder: Where the report goes; by default ``reports`` in the folder, ``NAME-report`` beside a file.
        kind: What to report; found from the path by default. A loop is a campaign too.
        pdf: Whether a PDF is written as well.

    Returns:
        The path of the HTML file: ``campaign.html``, ``loop.html``, ``run.html`` or ``comparison.html``.

    Raises:
        OhmloopError: If nothing there can be reported, the report cannot be written, or PDF is asked for and
            WeasyPrint is not here.
    """
    target = default_folder(path) if folder is None else folder
    chosen = kind_of(path) if kind is None else kind
    if chosen == "campaign":
        from ohmloop.campaign import Campaign
        from ohmloop.report._campaign import write_campaign

        with Campaign.open(path, writable=False) as campaign:
            return write_campaign(campaign, target / "campaign.html", pdf=pdf)
    if chosen == "loop":
        from ohmloop.report._loop import write_loop

        return write_loop(path, target, pdf=pdf)
    if chosen == "run":
        from ohmloop.report._run import write_run

        return write_run(path, target, pdf=pdf)
    from ohmloop.report._comparison import write_comparison

    return write_comparison(path, target, pdf=pdf)
