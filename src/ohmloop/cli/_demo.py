"""``ohmloop demo``: the main job from measured devices to a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ohmloop.cli._bars import bars

if TYPE_CHECKING:
    from ohmloop.report import Study


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("demo")(demo)


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Start from a folder of measurement files of your own.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the report.")] = Path(
        "ohmloop-demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train side by side.")] = 2,
) -> None:
    """Take 43 measured memristors, train a network in three ways, and write a report."""
    from ohmloop.device import list_devices
    from ohmloop.report import devices_from, run_study, write_study

    devices, left_out = (list_devices(), list[str]()) if data is None else devices_from(data)
    for sentence in left_out:
        typer.echo(sentence, err=True)
    typer.echo(
        f"{len(devices)} measured devices; training, which takes a minute or two ...", err=True
    )
    with bars() as progress:
        study = run_study(devices, seeds=range(seeds), workers=workers, progress=progress)
    path = write_study(study, out)
    _print(study)
    typer.echo(
        f"\nreport: {path}\n\nNext:\n"
        "  ohmloop analyze YOUR-FILES            figures of merit of your own sweeps\n"
        "  ohmloop device list                   the 43 devices\n"
        "  ohmloop train --task digits --method weight-noise --device nanowire-43 -o runs/a\n"
        "  ohmloop evaluate runs/a --device nanowire-43 --sigma 0.2,0.5,1"
    )


def _print(study: Study) -> None:
    best, median = study.devices[study.best], study.devices[study.median]
    typer.echo(f"best device    {best.name}: {best.description}, sigma {best.sigma.value:.3f}")
    typer.echo(
        f"median device  {median.name}: {median.description}, sigma {median.sigma.value:.3f}"
    )
    width = max(len(r.method) for r in study.results)
    typer.echo(f"\n{'accuracy / %':<{width}}  clean   best device   median device   all devices")
    for r in study.results:
        cells = (r.on_devices[study.best], r.on_devices[study.median], r.on_devices)
        typer.echo(
            f"{r.method:<{width}}  {100 * r.clean.mean():5.1f}   "
            + "   ".join(f"{100 * c.mean():5.1f} ± {100 * c.std():4.1f}" for c in cells)
        )
    typer.echo(
        f"simulated: {study.n_devices} virtual devices x {len(study.seeds)} training seed(s) each"
    )
