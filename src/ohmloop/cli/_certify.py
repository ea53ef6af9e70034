"""``ohmloop certify``: what can be proven about a trained network on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohmloop.cli._bars import bars
from ohmloop.cli._train import Deployed, Json, divided

if TYPE_CHECKING:
    from ohmloop.certify import Ablation, Certificate, Gain

_ALL = "yield,percentile,drift,kl,box,published"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("certify")(certify)


def certify(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="lognormal:S, nanowire-NN or a device.json; may be given again; the run's own by default."
        ),
    ] = None,
    statement: Annotated[
        str,
        typer.Option(
            help="Separated by commas: yield (chips as the law makes them), percentile and drift (after a "
            "systematic shift), box (every weight off at once), faults, kl, published; or all."
        ),
    ] = "yield,percentile,drift",
    deployment: Deployed = None,
    n_devices: Annotated[int, typer.Option(min=2, help="Virtual devices.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Chance that a statement is false.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the virtual devices.")] = 0,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="fixed: the device's sigma is exact; predictive: drawn from its calibration's interval, "
            "where it has one (the default there)."
        ),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="Of --device: median-1 (published) or mean-1.")
    ] = "median-1",
    gain: Annotated[
        str | None,
        typer.Option(help="Gain shared by a group, GROUP:TAU like layer:0.1 or tile:0.1:64x64."),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(
            help="For faults: groups left out on purpose, GROUP:PROBABILITY like tile:0.6:16x16."
        ),
    ] = None,
    chips: Annotated[
        Path | None,
        typer.Option(
            help="Real chips instead of a law: a CSV with a row for each, and a column accuracy or one column "
            "for each test input with the class that the chip gave."
        ),
    ] = None,
    test_limit: Annotated[int | None, typer.Option(min=1, help="Use only that many.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder for certificates as JSON files, and a page of their curves."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Prove what holds for a trained network on imperfect devices, and say what does not.

    The run's folder keeps the certificates.
    """
    from ohmloop.certify import certify_chips_folder, certify_folder, statements_on
    from ohmloop.cli._train import _hardwares, _json
    from ohmloop.crossbar import Hardware
    from ohmloop.nn import Deployment
    from ohmloop.train import read_run

    if convention not in ("median-1", "mean-1"):
        raise typer.BadParameter(f"--convention is median-1 or mean-1; received {convention!r}.")
    if sigma not in (None, "fixed", "predictive"):
        raise typer.BadParameter(f"--sigma is fixed or predictive; received {sigma!r}.")
    if chips is not None:
        measured = certify_chips_folder(chips, run, alpha=alpha)
        if json_:
            typer.echo(_json([c.to_dict() for c in measured]))
        else:
            _show(f"as in {chips.name}", measured)
        if out is not None:
            _write(out, [(chips.stem, measured)])
        _say_confidence(list(measured), alpha)
        typer.echo("Next: what a device's law says beside it: --device device.json.", err=True)
        return
    names = (_ALL if statement == "all" else statement).split(",")
    if statement == "all" and ablation is not None:
        names.append("faults")
    common = _group(gain, "--gain")
    left_out = _group(ablation, "--ablation")
    config = read_run(run).config
    deployed = Deployment.parse(deployment or config.get("deployment", "none"))
    if statement == "all" and deployed != Deployment(samples=deployed.samples):
        names.remove("box")
        typer.echo("The box is left out: it is about a network without a deployment.", err=True)
    # A fitted device of one's own has no name to load it by: the run holds it.
    own = Hardware.model_validate(config["hardware"][0])
    hardwares = _hardwares(list(device), convention) if device else [own]
    names = [name.strip() for name in names]
    for hardware in hardwares:
        possible = statements_on(hardware, names)  # type: ignore[arg-type]  # checked there
        if len(possible) < len(names):
            left_aside = ", ".join(n for n in names if n not in possible)
            typer.echo(f"Left out, as for the law on weights alone: {left_aside}.", err=True)
            names = list(possible)
    kept: list[tuple[str, tuple[Certificate, ...]]] = []
    with bars() as progress:
        for hardware in hardwares:
            certificates = certify_folder(
                run,
                hardware,
                statements=names,  # type: ignore[arg-type]  # checked there
                calibrated=sigma,  # type: ignore[arg-type]  # checked above
                gain=None if common is None else _gain(common),
                ablation=None if left_out is None else _ablation(left_out),
                deployment=deployed,
                n_devices=n_devices,
                alpha=alpha,
                seed=seed,
                test_limit=test_limit,
                progress=progress,
            )
            kept.append((hardware.device.name, certificates))
    files = [] if out is None else _write(out, kept)
    if out is not None:
        _write_page(out, kept)
    if json_:
        typer.echo(_json([c.to_dict() for _, certificates in kept for c in certificates]))
    else:
        for name, certificates in kept:
            _show(name, certificates)
    _say_confidence([c for _, certificates in kept for c in certificates], alpha)
    if files:
        typer.echo(f"Wrote {len(files)} certificates to {out}.", err=True)
    typer.echo(_next(run, statement, n_devices), err=True)


def _next(run: Path, statement: str, n_devices: int) -> str:
    if n_devices < 5000:
        return f"Next: more devices give tighter bounds: `ohmloop certify {run} --n-devices 5000`."
    if statement != "all":
        return f"Next: every statement: `ohmloop certify {run} --statement all`."
    return f"Next: `ohmloop report {run}` puts them on a page; docs/certificates.md derives them."


def _show(name: str, certificates: tuple[Certificate, ...]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"device {name}", title_justify="left", box=box.SIMPLE_HEAD, expand=True)
    table.add_column("", no_wrap=True)
    table.add_column("statement", no_wrap=True)
    table.add_column("what is claimed", ratio=1, overflow="fold")
    for c in certificates:
        table.add_row(c.statement, c.kind, c.claim)
        if c.kind == "drift":
            for what, words in _translations(c):
                table.add_row("", "", f"  {what}: {words}")
    # Off a terminal rich would cut lines at 80: a file or a pipe gets room.
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=112)
    console.print(table)
    head = certificates[0]
    if head.law_words:
        virtual = f"; {head.n_draws:,} virtual devices, simulated" if head.seed is not None else ""
        console.print(f"devices: {head.law_words}{virtual}", markup=False)
    if len(set(head.layer_arrays.values())) > 1:
        console.print(divided(head.layer_arrays), markup=False)
    for limit in dict.fromkeys(limit for c in certificates for limit in c.limits):
        console.print(f"- {limit}", markup=False)


def _say_confidence(certificates: list[Certificate], alpha: float) -> None:
    """Say with which confidence the statements hold, each and all together."""
    n = sum(bool(c.n_draws) for c in certificates)
    if n > 1:
        typer.echo(
            f"Each statement holds with {100 * (1 - alpha):g} % confidence; all {n} together with at least "
            f"{100 * max(0.0, 1 - alpha * n):g} %.",
            err=True,
        )


def _translations(c: Any) -> list[tuple[str, str]]:
    """Return the lines under a drift certificate: nine inputs of ten, half of the devices, what may shift."""
    return [
        (t.what, t.words)
        for t in c.translations
        if t.keep == 0.5 and t.inputs == 0.9 and t.amount is not None
    ]


def _write_page(folder: Path, kept: list[tuple[str, tuple[Certificate, ...]]]) -> None:
    """Write the curves as a page, where there are any."""
    from ohmloop.errors import OhmloopError
    from ohmloop.report import write_certificates

    try:
        page = write_certificates(dict(kept), folder)
    except OhmloopError as error:
        typer.echo(f"No page: {error}", err=True)
    else:
        typer.echo(f"Wrote {page}.", err=True)


def _write(folder: Path, kept: list[tuple[str, tuple[Certificate, ...]]]) -> list[Path]:
    import json
    import re

    from ohmloop.errors import CertifyError

    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, certificates in kept:
            for number, c in enumerate(certificates):
                stem = re.sub(r"[^\w.-]+", "-", f"{name}-{number:02d}-{c.kind}")
                path = folder / f"{stem}.json"
                text = json.dumps(c.to_dict(), indent=2, allow_nan=False)
                path.write_text(text + "\n", encoding="utf-8")
                files.append(path)
    except OSError as error:
        raise CertifyError(f"{folder} cannot be written: {error.strerror}.") from error
    return files


_Parts = tuple[str, float, int, int]


def _group(text: str | None, option: str) -> _Parts | None:
    """Parse "tile:0.1:64x64"."""
    if text is None:
        return None
    parts = text.split(":")
    try:
        kind, value = parts[0], float(parts[1])
        rows, columns = (int(v) for v in (parts[2] if len(parts) > 2 else "64x64").split("x"))
        known = kind in ("layer", "column", "tile", "chip")
        if len(parts) > 3 or not known or not value > 0 or min(rows, columns) < 1:
            raise ValueError
        if option == "--ablation" and value >= 1:
            raise ValueError
    except (ValueError, IndexError):
        raise typer.BadParameter(
            f"{option}: expected GROUP:NUMBER with layer, column, tile or chip and a positive number (a "
            f"probability below 1 for --ablation), like tile:0.1:64x64; received {text!r}."
        ) from None
    return kind, value, rows, columns


def _gain(parts: _Parts) -> Gain:
    from ohmloop.certify import Gain

    kind, tau, rows, columns = parts
    return Gain.model_validate({"group": kind, "tau": tau, "rows": rows, "columns": columns})


def _ablation(parts: _Parts) -> Ablation:
    from ohmloop.certify import Ablation

    kind, p, rows, columns = parts
    return Ablation.model_validate(
        {"group": kind, "probability": p, "rows": rows, "columns": columns}
    )
