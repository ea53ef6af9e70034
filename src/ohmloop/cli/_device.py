"""``ohmloop device``: fit, list and show device models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from ohmloop.data import PulseTrain, Retention, Sweep
    from ohmloop.device import Constant, DeviceModel

    Kind = Literal["sweep", "pulse-train", "retention"]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    device = typer.Typer(no_args_is_help=True, help="Fit, list and show stochastic device models.")
    device.command("fit")(fit)
    device.command("list")(list_)
    device.command("show")(show)
    device.command("export")(export)
    app.add_typer(device, name="device")


def fit(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Sweeps, pulse trains, retention: of one device, or several of a kind."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write the model.")] = Path(
        "device.json"
    ),
    name: Annotated[
        str | None, typer.Option(help="Name of the model; the file's by default.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="The model as JSON on stdout.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write residual plots and tables into this folder.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="sweep, pulse-train or retention; FILE=KIND for one file. Repeatable."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help='Header of your own, like "skip, time (s), conductance (uS), ..."; FILE=HEADER for one '
            "file. Repeatable."
        ),
    ] = None,
    polarity: Annotated[
        Literal["up", "down"] | None,
        typer.Option(help="What all pulses of a file do that does not say."),
    ] = None,
    interval: Annotated[
        str | None, typer.Option(help="Time between readings of retention without a time, like 1s.")
    ] = None,
    across: Annotated[
        bool, typer.Option("--across", help="A retention trace stands in one row.")
    ] = False,
    window: Annotated[
        str | None, typer.Option(help='What normalised pulse data span, like "1 uS, 50 uS".')
    ] = None,
    read_voltage: Annotated[
        str | None, typer.Option(help="Of currents of pulse trains and retention, like 0.1V.")
    ] = None,
    drift: Annotated[
        Literal["power", "walk"] | None, typer.Option(help="Law of the drift; chosen by default.")
    ] = None,
    voltage_unit: Annotated[str | None, typer.Option(help="For columns that state none.")] = None,
    current_unit: Annotated[str | None, typer.Option(help="For columns that state none.")] = None,
) -> None:
    """Fit a device model to measured sweeps, pulse trains and retention, whichever are given."""
    from ohmloop import units
    from ohmloop.data import find_files, read_measurement, sniff_kind
    from ohmloop.device import fit_measurements, save_device

    files = find_files(paths)
    kinds, headers = _by_file(kind, files, "--kind"), _by_file(columns, files, "--columns")
    found = []
    for path in files:
        chosen = _kind(kinds.get(path))
        if chosen is None:
            guess = sniff_kind(path, columns=headers.get(path))
            chosen = guess.kind
            if len(files) > 1 or guess.confidence < 0.5 or guess.kind != "sweep":
                typer.echo(
                    f"{path.name}: {guess.kind} ({guess.confidence:.1f}: {guess.reason})", err=True
                )
        item = read_measurement(
            path,
            kind=chosen,
            columns=headers.get(path),
            polarity=polarity,
            interval=None if interval is None else units.parse(interval, "s"),
            across=across,
            window=None if window is None else _window(window),
            read_voltage=None if read_voltage is None else units.parse(read_voltage, "V"),
            voltage_unit=voltage_unit,
            current_unit=current_unit,
        )
        if chosen != "sweep":
            for note in item.notes:
                typer.echo(f"{note.kind}: {note.text}", err=True)
        found.append(item)
    model = fit_measurements(
        found,
        name=name or out.stem,
        law=drift,
    )
    save_device(model, out)
    if json_:
        typer.echo(model.model_dump_json(indent=1))
    else:
        _print(model)
        _print_fit(model)
    if plot is not None:
        _plot(model, found, plot)
    typer.echo(
        f"wrote {out}. Next: `ohmloop train --task digits --method weight-noise --device {out} "
        "-o runs/first`.",
        err=True,
    )


def _by_file(given: list[str] | None, files: list[Path], option: str) -> dict[Path, str]:
    """Sort ``FILE=VALUE`` and plain ``VALUE`` (for all other files) by file."""
    out: dict[Path, str] = {}
    everywhere: str | None = None
    for text in given or ():
        head, equals, tail = text.partition("=")
        named = [f for f in files if f.name == head.strip()]
        if equals and not named:
            raise typer.BadParameter(
                f'{option}: no file is called "{head.strip()}"; here are '
                f"{', '.join(f.name for f in files[:5])}."
            )
        for file in named:
            out[file] = tail.strip()
        if not equals:
            everywhere = text.strip()
    if everywhere is not None:
        out = {file: out.get(file, everywhere) for file in files}
    return out


def _kind(text: str | None) -> Kind | None:
    """Return the kind that ``text`` names; exit code 2 otherwise."""
    kinds: tuple[Kind, ...] = ("sweep", "pulse-train", "retention")
    for kind in kinds:
        if text == kind:
            return kind
    if text is None:
        return None
    raise typer.BadParameter(f'--kind is {", ".join(kinds)}; received "{text}".')


def _window(text: str) -> tuple[float, float]:
    from ohmloop import units

    parts = [units.parse(part, "S") for part in text.split(",")]
    if len(parts) != 2:
        raise typer.BadParameter(f'--window takes two conductances, like "1 uS, 50 uS": {text!r}.')
    return parts[0], parts[1]


def _plot(
    model: DeviceModel, found: Sequence[Sweep | PulseTrain | Retention], folder: Path
) -> None:
    """Draw the residuals of pulses and retention; sweeps have ``ohmloop analyze --plot``."""
    from ohmloop.data import PulseTrain, Retention
    from ohmloop.device import pulse_residuals, retention_residuals
    from ohmloop.report import write_device_plots

    trains = [m for m in found if isinstance(m, PulseTrain)]
    traces = [m for m in found if isinstance(m, Retention)]
    parts = [pulse_residuals(model, trains)] if trains else []
    parts += [retention_residuals(model, traces)] if traces else []
    if not parts:
        typer.echo("no residual plots: sweeps have `ohmloop analyze --plot FOLDER`.", err=True)
    for path in write_device_plots(parts, folder) if parts else ():
        typer.echo(f"wrote {path}", err=True)


def _print_fit(model: DeviceModel) -> None:
    """Print the fitted numbers of pulses and drift with their intervals."""
    keys = [
        k
        for k in model.figures
        if k.startswith(("pulse", "drift", "read_noise", "read_flicker", "telegraph"))
        and not k.endswith("_interval")
    ]
    if not keys:
        return
    width = max(map(len, keys))
    typer.echo(f"\n{'fitted':<{width}}  value        95 % interval")
    for key in keys:
        value, limits = model.figures[key], model.figures.get(f"{key}_interval")
        text = f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
        told = f"{limits[0]:.4g} to {limits[1]:.4g}" if isinstance(limits, list) else ""
        typer.echo(f"{key:<{width}}  {text:<11}  {told}".rstrip())


def list_(
    presets: Annotated[
        bool, typer.Option("--presets", help="Only published cells with a physical law.")
    ] = False,
    json_: Annotated[
        bool,
        typer.Option("--json", help="JSON on stdout: the nanowires, or the cells with --presets."),
    ] = False,
) -> None:
    """List the built-in devices: 43 measured halide-perovskite nanowires, and published cells."""
    from ohmloop.device import list_devices, list_presets

    devices = () if presets else list_devices()
    cells = list_presets()
    if json_:
        import json

        chosen = cells if presets else sorted(devices, key=lambda d: d.sigma.value)
        typer.echo(json.dumps([d.model_dump(mode="json") for d in chosen]))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # A pipe has no width of its own: no row may wrap there.
        console = Console(width=150)
    if devices:
        console.print(_nanowire_table(devices))
        console.print()
    console.print(_cell_table(cells))
    source = f" Source of the nanowires: {devices[0].citation}." if devices else ""
    typer.echo(
        f"Also: lognormal:SIGMA. `ohmloop device show NAME` names every source.{source}", err=True
    )


def _nanowire_table(devices: Sequence[DeviceModel]) -> Table:
    """Return the measured nanowires as a table, quietest first."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "what it is"):
        table.add_column(column)
    for column in ("sigma", "95 % interval", "monotonicity", "usability", "on/off"):
        table.add_column(column, justify="right")
    for d in sorted(devices, key=lambda d: d.sigma.value):
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
    return table


def _cell_table(cells: Sequence[DeviceModel]) -> Table:
    """Return the published cells as a table."""
    from rich.table import Table

    from ohmloop import units

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "what it is"):
        table.add_column(column)
    for column in ("sigma", "window", "levels"):
        table.add_column(column, justify="right")
    table.add_column("write-verify")
    for d in cells:
        p = d.cell()
        levels = p.levels or len(p.targets) or None
        table.add_row(
            d.name,
            re.split(r"[:.] ", d.description)[0],
            f"{d.sigma.value:.3g}",
            f"{units.format(p.g_min, 'S')} – {units.format(p.g_max, 'S')}",
            "any" if levels is None else str(levels),
            "–" if p.pulses is None else "yes",
        )
    return table


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
    if model.physics is not None:
        typer.echo("")
        for text in _physics_lines(model.physics.constants()):
            typer.echo(text)


def _physics_lines(constants: list[Constant]) -> list[str]:
    """Return one line a constant: name, value with unit, number of its source; then the sources."""
    sources = list(dict.fromkeys(c.source or "not stated" for c in constants))
    rows = [
        (c.name, _value(c), str(1 + sources.index(c.source or "not stated"))) for c in constants
    ]
    first, second = (max(len(row[k]) for row in rows) for k in (0, 1))
    lines = [f"{'constant':<{first}}  {'value':<{second}}  source"]
    lines += [f"{name:<{first}}  {value:<{second}}  {source}" for name, value, source in rows]
    return [*lines, "", *(f"source {k}: {text}" for k, text in enumerate(sources, start=1))]


def _value(constant: Constant) -> str:
    from ohmloop import units

    def one(value: float | str) -> str:
        if isinstance(value, str) or not constant.unit or constant.unit in ("eV", "1/K"):
            text = value if isinstance(value, str) else f"{value:g}"
            return f"{text} {constant.unit}".rstrip()
        return units.format(value, constant.unit, 4)

    if not isinstance(constant.value, tuple):
        return one(constant.value)
    if len(constant.value) <= 5:
        return ", ".join(map(one, constant.value))
    first, last = constant.value[0], constant.value[-1]
    return f"{len(constant.value)} values, {one(first)} ... {one(last)}"


def export(
    name: Annotated[
        str, typer.Argument(help="A built-in name, lognormal:SIGMA, or a device.json.")
    ],
    target: Annotated[str, typer.Option("--to", help="json, aihwkit or crosssim.")] = "json",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where to write it; by default stdout.")
    ] = None,
) -> None:
    """Write a device as text that other simulators read; comments say what is near or left out."""
    from ohmloop.device import export_device, load_device, write_export

    model = load_device(name)
    if out is None:
        typer.echo(export_device(model, target), nl=False)
    else:
        typer.echo(f"wrote {write_export(model, target, out)}", err=True)
