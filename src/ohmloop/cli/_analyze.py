"""``ohmloop analyze``: instrument files to figures of merit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ohmloop.data import FiguresOfMerit


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("analyze")(analyze)


def analyze(
    paths: Annotated[list[Path], typer.Argument(help="Measurement files, or folders of them.")],
    json_: Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write one picture a file into this folder.")
    ] = None,
    read_voltage: Annotated[
        float | None, typer.Option(help="Where the states are read, in volts; Vmax / 5 by default.")
    ] = None,
    voltage_unit: Annotated[
        str | None, typer.Option(help="Unit of voltage columns that state none, like mV.")
    ] = None,
    current_unit: Annotated[
        str | None, typer.Option(help="Unit of current columns that state none, like uA.")
    ] = None,
) -> None:
    """Turn instrument files into figures of merit: sigma, usability, SET, RESET, on/off ratio."""
    from ohmloop.data import analyze_files
    from ohmloop.errors import AnalysisError, IngestError

    if read_voltage is not None and not read_voltage > 0:
        raise typer.BadParameter(f"--read-voltage must be positive; received {read_voltage:g}.")
    try:
        rows = analyze_files(
            paths, read_voltage=read_voltage, voltage_unit=voltage_unit, current_unit=current_unit
        )
    except (AnalysisError, IngestError) as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from None
    good = [row for row in rows if row.figures is not None]
    if json_:
        import json

        typer.echo(json.dumps([row.to_dict() for row in rows], indent=1, allow_nan=False))
    else:
        _print_table([row.figures for row in good if row.figures is not None])
        for row in good:
            for note in row.figures.notes if row.figures is not None else ():
                typer.echo(f"{row.file}: {note}", err=True)
    for row in rows:
        if row.error is not None:
            typer.echo(f"{row.file}: {row.error}", err=True)
    if plot is not None and good:
        from ohmloop.report import write_sweep_plots

        for path in write_sweep_plots([row for row in good], plot):
            typer.echo(f"wrote {path}", err=True)
    if not json_ and good:
        typer.echo(
            "Next: `ohmloop device fit FILES -o device.json` makes a device model of them.",
            err=True,
        )
    if len(good) < len(rows):
        raise typer.Exit(1)


def _print_table(figures: list[FiguresOfMerit]) -> None:
    if not figures:
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # A pipe has no width of its own: a file is one line there.
        console = Console(width=max(len(f.file) for f in figures) + 120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold", max_width=46 if console.is_terminal else None)
    for name in (
        "cycles",
        "sigma",
        "monot.",
        "usability",
        "switched",
        "on/off",
        "SET / V",
        "RESET / V",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for f in figures:
        table.add_row(
            _escaped(f.file),
            str(f.cycles),
            _spread(f.sigma, f.sigma_interval),
            _text(f.monotonicity, ".2f"),
            _text(f.usability, ".3f"),
            "–" if f.switched is None else "yes" if f.switched else "no",
            _text(f.on_off_ratio, ".3g"),
            _text(f.set_voltage, ".2f"),
            _text(f.reset_voltage, ".2f"),
        )
    console.print(table)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _text(value: Any, digits: str) -> str:
    return "–" if value is None else format(value, digits)


def _spread(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return _text(value, ".3f")
    return f"{value:.3f} ({interval[0]:.2f}–{interval[1]:.2f})"
