"""``ohmloop train``, ``evaluate`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ohmloop.cli._bars import bars, number_list

if TYPE_CHECKING:
    from ohmloop.crossbar import Hardware

_SIGMAS = "0.2,0.4,0.6,0.8,1,1.2,1.5"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)


Task = Annotated[str, typer.Option(help="digits, iris, penguins, mnist or fashion-mnist.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the data set's files, if not fetched.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of one training.")]
Compute = Annotated[str, typer.Option(help="Where torch computes: cpu, cuda.")]
Limit = Annotated[int | None, typer.Option(min=10, help="Use only that many development samples.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def train(
    task: Task = "digits",
    method: Annotated[
        str,
        typer.Option(help="erm, dropout, bayesft, multinomial, bayesmulti, weight-noise[:k=v,...]"),
    ] = "weight-noise",
    model: Annotated[
        str | None, typer.Option(help="mlp or lenet; the task's own by default.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="What it will run on: lognormal:S, nanowire-NN, or a device.json.")
    ] = "lognormal:0.5",
    epochs: Epochs = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    limit: Limit = None,
    data: Data = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Run folder; an unfinished one is gone on with.")
    ] = Path("runs/latest"),
    compute: Compute = "cpu",
    json_: Json = False,
) -> None:
    """Train a network by a method, for a device."""
    from ohmloop.crossbar import Hardware
    from ohmloop.tasks import task as load
    from ohmloop.train import fit

    with bars() as progress:
        result = fit(
            load(task, data),
            method,
            model=model,
            hardware=Hardware.model_validate({"device": device}),
            epochs=epochs,
            seed=seed,
            limit=limit,
            device=compute,
            run_dir=out,
            progress=progress,
        )
    if json_:
        typer.echo((out / "result.json").read_text(encoding="utf-8"))
    else:
        typer.echo(
            f"{result.method}: validation accuracy {100 * result.validation_accuracy:.1f} % "
            f"(digital), settings {result.noise}, {result.cost} training(s)"
        )
    typer.echo(f"Next: `ohmloop evaluate {out} --device {device} --sigma 0.2,0.5,1`.", err=True)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    device: Annotated[list[str] | None, typer.Option(help="A device; may be given again.")] = None,
    sigma: Annotated[str | None, typer.Option(help="Log-normal levels, like 0.2,0.5,1.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Virtual devices for each.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the virtual devices.")] = 0,
    convention: Annotated[str, typer.Option(help="median-1 (published) or mean-1.")] = "median-1",
    json_: Json = False,
) -> None:
    """Measure a trained network on fleets of virtual devices, on the test set."""
    from ohmloop.nn import evaluate_fleets
    from ohmloop.train import load_run

    if convention not in ("median-1", "mean-1"):
        raise typer.BadParameter(f"--convention is median-1 or mean-1; received {convention!r}.")
    found = load_run(run)
    names = list(device or []) + [
        f"lognormal:{s:g}" for s in (number_list(sigma, "--sigma") if sigma else [])
    ]
    hardwares = _hardwares(names or ["lognormal:0.5"], convention)
    test = found.task.test(found.config["seed"], found.config["limit"])
    with bars() as progress:
        fleets = evaluate_fleets(
            found.model, test, hardwares, n_devices=devices, seed=seed, progress=progress
        )
    if json_:
        import json

        typer.echo(json.dumps([fleet.to_dict() for fleet in fleets]))
        return
    typer.echo(
        f"{found.task.name}, {len(test.x)} test samples, {devices} virtual devices each, simulated"
    )
    typer.echo(f"digital accuracy {100 * fleets[0].digital:.1f} %")
    for fleet in fleets:
        typer.echo(
            f"{fleet.device:<20} sigma {fleet.sigma:.3f}  {fleet.convention}  mean "
            f"{100 * fleet.mean:5.1f} ± {100 * fleet.std:4.1f} %   worst tenth {100 * fleet.worst:5.1f} %"
        )


def compare(
    task: Task = "digits",
    methods: Annotated[
        str, typer.Option(help="Separated by blanks or, without settings, commas.")
    ] = "erm,bayesmulti,weight-noise",
    sigma: Annotated[str, typer.Option(help="Log-normal levels.")] = _SIGMAS,
    device: Annotated[list[str] | None, typer.Option(help="Devices instead of levels.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds.")] = 3,
    devices: Annotated[int, typer.Option(min=1, help="Virtual devices a level and seed.")] = 30,
    epochs: Epochs = 60,
    model: Annotated[str | None, typer.Option(help="mlp or lenet.")] = None,
    limit: Limit = None,
    data: Data = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train side by side.")] = 2,
    compute: Compute = "cpu",
    json_: Json = False,
) -> None:
    """Compare methods: same network, budget, seeds and devices; accuracy at each noise level."""
    from ohmloop.train import compare as run

    names = methods.split() if " " in methods.strip() or ":" in methods else methods.split(",")
    labels = list(device or []) or [f"lognormal:{s:g}" for s in number_list(sigma, "--sigma")]
    hardwares = _hardwares(labels, "median-1")
    with bars() as progress:
        rows = run(
            task,
            [name for name in names if name],
            hardwares,
            seeds=range(seeds),
            n_devices=devices,
            epochs=epochs,
            model=model,
            limit=limit,
            folder=None if data is None else str(data),
            workers=workers,
            device=compute,
            progress=progress,
        )
    if json_:
        import json

        typer.echo(
            json.dumps(
                [
                    {
                        "method": r.method,
                        "cost": r.cost,
                        "clean": r.clean.tolist(),
                        "hardware": labels,
                        "accuracy": r.accuracy.tolist(),
                        "settings": r.settings,
                    }
                    for r in rows
                ]
            )
        )
        return
    short = [label.removeprefix("lognormal:").removeprefix("nanowire-") for label in labels]
    width = max(len(r.method) for r in rows)
    typer.echo(
        f"{'method':<{width}}  cost  clean  " + "  ".join(f"{s:>5}" for s in short) + "    mean"
    )
    for r in rows:
        cells = "  ".join(f"{100 * a:5.1f}" for a in r.accuracy.mean(axis=(1, 2)))
        typer.echo(
            f"{r.method:<{width}}  {r.cost:4d}  {100 * r.clean.mean():5.1f}  "
            f"{cells}   {100 * r.accuracy.mean():5.1f}"
        )
    typer.echo(
        f"test accuracy / %, mean over {seeds} seed(s) x {devices} virtual devices, simulated",
        err=True,
    )


def _hardwares(names: list[str], convention: str) -> list[Hardware]:
    from ohmloop.crossbar import Hardware

    return [Hardware.model_validate({"device": name, "convention": convention}) for name in names]
