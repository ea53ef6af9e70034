"""``ohmloop device``: fit, list and show device models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ohmloop.device import DeviceModel


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    device = typer.Typer(no_args_is_help=True, help="Fit, list and show stochastic device models.")
    device.command("fit")(fit)
    device.command("list")(list_)
    device.command("show")(show)
    app.add_typer(device, name="device")


def fit(
    paths: Annotated[
        list[Path], typer.Argument(help="Sweeps of one device, or of several of a kind.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write the model.")] = Path(
        "device.json"
    ),
    name: Annotated[
        str | None, typer.Option(help="Name of the model; the file's by default.")
    ] = None,
    voltage_unit: Annotated[str | None, typer.Option(help="For columns that state none.")] = None,
    current_unit: Annotated[str | None, typer.Option(help="For columns that state none.")] = None,
) -> None:
    """Fit a device model to measured sweeps; several files are several devices of one kind."""
    from ohmloop.data import find_files, read
    from ohmloop.device import fit as fit_model
    from ohmloop.device import save_device

    sweeps = [
        read(path, voltage_unit=voltage_unit, current_unit=current_unit)
        for path in find_files(paths)
    ]
    model = fit_model(sweeps, name=name or out.stem)
    save_device(model, out)
    _print(model)
    typer.echo(
        f"wrote {out}. Next: `ohmloop train --task digits --method weight-noise --device {out} "
        "-o runs/first`.",
        err=True,
    )


def list_(
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """List the built-in devices: 43 measured halide-perovskite nanowires."""
    from ohmloop.device import list_devices

    devices = sorted(list_devices(), key=lambda d: d.sigma.value)
    if json_:
        import json

        typer.echo(json.dumps([d.model_dump(mode="json") for d in devices]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "what it is"):
        table.add_column(column)
    for column in ("sigma", "95 % interval", "monotonicity", "usability", "on/off"):
        table.add_column(column, justify="right")
    for d in devices:
        on_off = d.figures.get("on_off_ratio")
        table.add_row(
            d.name,
            d.description,
            f"{d.sigma.value:.3f}",
            _interval(d),
            f"{d.figures['monotonicity']:.2f}",
            f"{d.figures['usability']:.3f}",
            f"{on_off:.3g}" if isinstance(on_off, float) else "–",
        )
    console = Console()
    if not console.is_terminal:  # A pipe has no width of its own: no row may wrap there.
        console = Console(width=150)
    console.print(table)
    typer.echo("Also: lognormal:SIGMA. Source: " + devices[0].citation, err=True)


def show(
    name: Annotated[
        str, typer.Argument(help="A built-in name, lognormal:SIGMA, or a device.json.")
    ],
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Show one device model: its law, its figures, its recipe and its sources."""
    from ohmloop.device import load_device

    model = load_device(name)
    if json_:
        typer.echo(model.model_dump_json(indent=1))
    else:
        _print(model)


def _interval(model: DeviceModel) -> str:
    low, high = model.sigma.low, model.sigma.high
    return "–" if low is None or high is None else f"{low:.3f} – {high:.3f}"


def _print(model: DeviceModel) -> None:
    from ohmloop import units

    lines = [
        ("device", model.name),
        ("what it is", model.description),
        ("sigma of ln G", f"{model.sigma.value:.4f}   95 % interval {_interval(model)}"),
        ("level table rho", "1 everywhere" if model.rho is None else f"{len(model.rho)} levels"),
    ]
    if model.g_min is not None and model.g_max is not None:
        lines.append(
            ("conductance", f"{units.format(model.g_min, 'S')} to {units.format(model.g_max, 'S')}")
        )
    lines += [
        (k, f"{v:g}" if isinstance(v, float) else str(v))
        for k, v in model.recipe.items()
        if v is not None
    ]
    lines += [("source", f"{s.file}  sha256 {s.sha256[:12]}...") for s in model.sources[:5]]
    if len(model.sources) > 5:
        lines.append(("", f"and {len(model.sources) - 5} more"))
    if model.citation:
        lines.append(("published in", model.citation))
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        typer.echo(f"{key:<{width}}  {value}")
