"""``ohmloop campaign columns``: say once which column of a kind of file is which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmloop.cli._campaign_io import (
    HERE,
    Folder,
    Json,
    here,
    open_campaign,
    print_json,
    say,
    talk,
)


def columns(
    file: Annotated[Path, typer.Argument(help="A measurement file of the kind.")],
    voltage: Annotated[
        str | None, typer.Option(help='The voltage column: its header, or "#1"; several by |.')
    ] = None,
    current: Annotated[
        str | None, typer.Option(help="The current columns, separated by |.")
    ] = None,
    cycle: Annotated[str, typer.Option(help="The column that numbers the cycles.")] = "",
    sheet: Annotated[str, typer.Option(help="The workbook's sheet.")] = "",
    voltage_unit: Annotated[str, typer.Option(help="Like mV; as the header says by default.")] = "",
    current_unit: Annotated[str, typer.Option(help="Like uA; as the header says by default.")] = "",
    keep: Annotated[
        str | None,
        typer.Option(help="Name to keep it under: further files of the kind need no question."),
    ] = None,
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Show the columns of a file, or say which is which and keep that as a recipe for its kind."""
    import dataclasses

    from ohmloop.data import FileRecipe, columns_of, confirmed, figures_of_merit, read

    if voltage is None or current is None:
        found = columns_of(file)
        if json_:
            print_json([dataclasses.asdict(column) for column in found])
        for column in () if json_ else found:
            where = f"{column.sheet}: " if column.sheet else ""
            typer.echo(
                f"{where}{column.name}: {column.role}, {column.n_numbers} numbers, "
                f"{column.low:.4g} to {column.high:.4g} {column.unit}".rstrip()
            )
        if not found:
            typer.echo(f"{file.name} says itself what its columns are.")
        talk("Next: name them: --voltage COLUMN --current COLUMN [--current-unit uA] --keep NAME")
        return
    recipe = confirmed(
        file,
        FileRecipe(
            voltage=tuple(voltage.split("|")),
            currents=tuple(current.split("|")),
            cycle=cycle,
            sheet=sheet,
            voltage_unit=voltage_unit,
            current_unit=current_unit,
        ),
    )
    figures = figures_of_merit(read(file, recipe=recipe)).to_dict()
    if keep is not None:
        with open_campaign(folder) as campaign:
            campaign.save_file_recipe(keep, recipe)
    sigma = figures.get("sigma")
    text = f"{file.name}: {figures['cycles']} cycle(s)" + (
        f", sigma {sigma:.4g}" if isinstance(sigma, float) else ""
    )
    say(json_, {"recipe": recipe.to_dict(), "figures": figures, "kept": keep}, text)
    talk(
        f"Next: ohmloop campaign ingest FILES{here(folder)}"
        if keep
        else "Next: --keep NAME keeps it for further files of the kind"
    )
