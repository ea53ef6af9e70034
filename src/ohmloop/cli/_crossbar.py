"""``ohmloop crossbar``: networks on simulated arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmloop.cli._bars import bars


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    crossbar = typer.Typer(no_args_is_help=True, help="Put networks on simulated crossbar arrays.")
    crossbar.callback()(_group)
    crossbar.command("run")(run)
    app.add_typer(crossbar, name="crossbar")


def _group() -> None:
    """Put networks on simulated crossbar arrays."""


def run(
    size: Annotated[int, typer.Option(help="Rows and columns of each array: 10, 64 or 256.")] = 10,
    task: Annotated[
        str | None,
        typer.Option(help="A task; the size's own by default: letters, digits, fashion-mnist."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A network of fully connected layers: linear or mlp.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="A device of `ohmloop device list`, or a device.json.")
    ] = "nanowire-30",
    method: Annotated[
        list[str] | None,
        typer.Option(help="How to train; may be given again. By default erm and steady."),
    ] = None,
    arrays: Annotated[int, typer.Option(min=1, help="Chips for each trained network.")] = 1000,
    seeds: Annotated[int, typer.Option(min=1, help="How many networks each method trains.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of one training.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=10, help="Use only that many development samples.")
    ] = None,
    dac_bits: Annotated[int, typer.Option(min=1, max=16, help="Of the row drivers.")] = 8,
    adc_bits: Annotated[int, typer.Option(min=2, max=16, help="Of the column converters.")] = 8,
    wire: Annotated[float, typer.Option(min=0, help="Ohms of a segment of wire (assumed).")] = 1.0,
    tolerance: Annotated[
        float, typer.Option(help="Of write-verify, as a share of the conductance window.")
    ] = 0.02,
    cycles: Annotated[int, typer.Option(min=1, help="Write cycles that a cell may take.")] = 50,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Where report, cells and trained networks go.")
    ] = Path("crossbar"),
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Train for a device, write many arrays, read them, and count the energy."""
    import json

    from pydantic import ValidationError

    from ohmloop.errors import ConversionError
    from ohmloop.experiment import ArraySetting, run_arrays
    from ohmloop.report import write_arrays

    try:
        setting = ArraySetting.model_validate(
            {
                "size": size,
                "task": task,
                "model": model,
                "device": device,
                "methods": tuple(method or ("erm", "steady")),
                "n_arrays": arrays,
                "seeds": tuple(range(seeds)),
                "epochs": epochs,
                "limit": limit,
                "dac_bits": dac_bits,
                "adc_bits": adc_bits,
                "wire": wire,
                "tolerance": tolerance,
                "cycles": cycles,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConversionError(f"--{first['loc'][0]}: {first['msg']}.") from error
    with bars() as progress:
        study = run_arrays(setting, folder=out, data=data, progress=progress)
    page = write_arrays(study, out)
    if json_:
        typer.echo(json.dumps(study.to_dict()))
    else:
        _print_rows([row.to_dict() for row in study.rows])
        typer.echo("\narrays")
        typer.echo(study.cost.table())
        typer.echo("\ndigital chip, int8")
        typer.echo(study.digital.table())
    typer.echo(f"wrote {page}, cells.csv and accuracies.csv (all simulated).", err=True)


def _print_rows(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("trained by", "cells", "beside weights"):
        table.add_column(column)
    for column in ("chips", "sd", "worst tenth", "usable"):
        table.add_column(column, justify="right")
    for row in rows:
        values = [f"{row[key]:.3f}" for key in ("mean", "std", "worst_tenth", "usable")]
        table.add_row(str(row["method"]), str(row["writing"]), str(row["deployment"]), *values)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    console.print(table)
