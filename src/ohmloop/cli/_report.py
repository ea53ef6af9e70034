"""``ohmloop report``: a campaign, a loop, a run or a comparison as one file to send around."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Pdf = Annotated[
    bool, typer.Option("--pdf", help='PDF as well; needs `pip install "ohmloop[pdf]"`.')
]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("report")(report)


def report(
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder of a campaign, a loop (codesign.toml) or a run, or the file of `ohmloop compare -o`."
        ),
    ] = Path("."),
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder; PATH/reports, or beside the file, by default."),
    ] = None,
    pdf: Pdf = False,
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Write one self-contained HTML file: figures, tables, methods, sources, hashes; a CSV for each figure."""
    from ohmloop.report import kind_of, write_report

    kind = kind_of(path)
    page = write_report(path, out, kind=kind, pdf=pdf)
    made = page.with_suffix(".pdf")
    if json_:
        import json

        known = {"kind": kind, "file": str(page), "pdf": str(made) if pdf else None}
        typer.echo(json.dumps(known))
    else:
        typer.echo(f"wrote {page}" + (f" and {made.name}" if pdf else ""))
    typer.echo("Next: open it in a browser; it is one file that can be sent around.", err=True)
