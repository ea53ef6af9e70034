"""``ohmloop codesign``: what a device property is worth to a network, and the loop of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohmloop.cli._bars import bars
from ohmloop.cli._campaign_io import Json, print_json, talk
from ohmloop.cli._executor import Where

if TYPE_CHECKING:
    from ohmloop.codesign import Point, Scored, Step

Folder = Annotated[Path, typer.Argument(help="Folder of the loop; it is a campaign folder too.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    codesign = typer.Typer(
        no_args_is_help=True,
        help="What a device property is worth in accuracy, and the loop of device and network.",
    )
    for name, command in (
        ("sensitivity", sensitivity),
        ("new", new),
        ("step", step),
        ("loop", loop),
        ("result", result),
    ):
        codesign.command(name)(command)
    app.add_typer(codesign, name="codesign")


def sensitivity(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Finished runs of one task and method, one a seed; none trains with --task."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="Task to train for, without RUNS.")] = "digits",
    method: Annotated[str, typer.Option(help="How, without RUNS.")] = "weight-noise:level=0.5",
    networks: Annotated[int, typer.Option(min=1, help="Training seeds, without RUNS.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of one training.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where the device stands today; by default what was trained for."),
    ] = None,
    properties: Annotated[
        str | None, typer.Option("--property", help="To vary, by commas: sigma,distortion.")
    ] = None,
    points: Annotated[int, typer.Option(min=6, help="Simulated laws.")] = 64,
    devices: Annotated[int, typer.Option(min=2, help="Virtual devices at each.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Write the smooth function: CAMPAIGN/task-accuracy.json."),
    ] = None,
    keep: Annotated[Path, typer.Option(help="Where trained runs are kept.")] = Path(
        "runs/codesign"
    ),
    executor: Where = None,
    json_: Json = False,
) -> None:
    """Say what device properties are worth to a trained network, by simulation."""
    from ohmloop.codesign import sensitivity as run
    from ohmloop.codesign import trained_networks
    from ohmloop.crossbar import Hardware
    from ohmloop.device import load_device, save_task_accuracy
    from ohmloop.run import using
    from ohmloop.train import load_run

    hardware = None if device is None else Hardware(device=load_device(device))
    with bars() as progress, using(executor) as opened:
        if runs:
            found = [load_run(path) for path in runs]
        else:
            found = trained_networks(
                task,
                method,
                range(networks),
                keep,
                hardware=hardware,
                epochs=epochs,
                executor=opened,
                progress=progress,
            )
        what = run(
            found,
            hardware,
            properties=None if properties is None else properties.split(","),
            n_points=points,
            n_devices=devices,
            executor=opened,
            progress=progress,
        )
    if out is not None:
        save_task_accuracy(what.surrogate, out)
    if json_:
        print_json(what.to_dict())
    else:
        s = what.surrogate
        typer.echo(
            f"{s.task}, {s.method}, {s.n_networks} network(s) x {s.n_devices} virtual devices, simulated; "
            f"{s.metric} on validation data"
        )
        typer.echo(
            f"{what.hardware}: {what.score:.3f} ± {what.error:.3f} (digital {s.digital:.3f})"
        )
        for text in what.sentences():
            typer.echo(f"- {text}")
        typer.echo(f"smooth function: {what.left_out:.3f} off at laws that were left out")
    if out is None:
        talk("Next: -o CAMPAIGN/task-accuracy.json makes it the objective of a campaign")
    else:
        talk(f'wrote {out}. An objective named "task_accuracy" in campaign.toml asks it.')


def new(
    folder: Folder,
    task: Annotated[str, typer.Option(help="What the network learns.")] = "digits",
    method: Annotated[
        str, typer.Option(help="How; {sigma} is the noise of the best device so far.")
    ] = "weight-noise:level={sigma}",
    networks: Annotated[int, typer.Option(min=1, help="Training seeds.")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of one training.")] = None,
    template: Annotated[str, typer.Option(help="Of a new campaign.")] = "perovskite-nanowires",
    json_: Json = False,
) -> None:
    """Start a loop: a campaign whose objective is what the network scores, and codesign.toml."""
    from ohmloop.codesign import CodesignLoop, LoopSettings

    settings = LoopSettings(task=task, method=method, networks=networks, epochs=epochs)
    CodesignLoop.new(folder, settings, template_name=template)
    if json_:
        print_json({"folder": str(folder), **settings.model_dump()})
    else:
        typer.echo(f"{folder}: {task} by {method}, {networks} network(s)")
    talk(
        f"Next: look over {folder}/campaign.toml and codesign.toml, then: ohmloop codesign step {folder}"
    )


def step(
    folder: Folder,
    q: Annotated[int | None, typer.Option(min=1, help="Suggestions; the batch by default.")] = None,
    executor: Where = None,
    json_: Json = False,
) -> None:
    """Go round once: device law, network, worth of device properties, next recipes."""
    from ohmloop.codesign import CodesignLoop

    with bars() as progress:
        made = CodesignLoop.open(folder).step(q=q, executor=executor, progress=progress)
    if json_:
        print_json(vars(made))
    else:
        _show(made)
    if made.suggestions:
        talk(
            f"Next: make {', '.join(made.suggestions)} (recipes: ohmloop campaign status -C {folder}), then: "
            f"ohmloop campaign ingest FILES -C {folder}, and step again"
        )
    else:
        talk(f"Next: ohmloop codesign result {folder}")


def loop(
    folder: Folder,
    experiments: Annotated[int, typer.Option(min=1, help="Devices in all.")] = 24,
    devices: Annotated[int, typer.Option(min=1, max=20, help="Devices a trial.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the virtual lab.")] = 0,
    executor: Where = None,
    json_: Json = False,
) -> None:
    """Run the loop with the virtual lab in the place of people (SIMULATED devices)."""
    from ohmloop.codesign import CodesignLoop, run_in_virtual_lab

    with bars() as progress:
        steps = run_in_virtual_lab(
            CodesignLoop.open(folder),
            experiments,
            n_devices=devices,
            seed=seed,
            executor=executor,
            progress=progress,
        )
    if json_:
        print_json([vars(made) for made in steps])
    else:
        typer.echo("SIMULATED devices")
        for made in steps:
            _show(made)
    talk(f"Next: ohmloop codesign result {folder}")


def _show(made: Step) -> None:
    where = f"best {made.trial}" if made.trial else "no device yet"
    score = "" if made.score is None else f", expected score {made.score:.3f} ± {made.error:.3f}"
    trained = "trained anew" if made.retrained else "reused"
    typer.echo(
        f"step {made.number}: {made.n_experiments} devices, {where}, sigma {made.sigma:.3f}{score}; "
        f"network {made.method} {trained}"
    )
    for text in made.worths:
        typer.echo(f"  - {text}")
    typer.echo(f"  {made.verdict}: {made.text}")


def result(
    folder: Folder,
    devices: Annotated[int, typer.Option(min=2, help="Virtual devices of each score.")] = 50,
    executor: Where = None,
    json_: Json = False,
) -> None:
    """Say what the loop came to on test data, what each half alone reaches, and the trade-offs."""
    from ohmloop.codesign import CodesignLoop, joint

    with bars() as progress:
        found = joint(
            CodesignLoop.open(folder), n_devices=devices, executor=executor, progress=progress
        )
    if json_:
        print_json(_plain(found))
        return
    typer.echo(f"pair: trial {found.trial} (sigma {found.law.sigma.value:.3f}) and {found.method}")
    for label, scored in (
        ("both", found.both),
        ("device alone (plain training)", found.device_alone),
        ("network alone (first device that worked)", found.network_alone),
        ("neither", found.neither),
    ):
        typer.echo(f"{label:<42} test {found.metric} {_score(scored)}")
    typer.echo("front of score, energy of one input, and devices made:")
    for point in found.front:
        typer.echo(f"  {_point(point)}")


def _score(scored: Scored) -> str:
    return f"{scored.score:.3f} ± {scored.error:.3f}"


def _point(point: Point) -> str:
    from ohmloop import units

    energy = "–" if point.energy is None else units.format(point.energy, "J")
    return f"{point.trial}  {point.score:.3f}  {energy}  {point.experiments}"


def _plain(value: Any) -> Any:
    """Return records as plain data."""
    import dataclasses

    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
