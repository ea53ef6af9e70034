"""``ohmloop train``, ``evaluate`` and ``compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohmloop.cli._bars import bars, number_list
from ohmloop.cli._executor import Where

if TYPE_CHECKING:
    from ohmloop.crossbar import Hardware

_SIGMAS = "0.2,0.4,0.6,0.8,1,1.2,1.5"
_DEVICE = "lognormal:0.5"
_SHOWN = 6
"""Layers whose averaged arrays are said."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)
    app.command("tasks")(tasks)


Task = Annotated[str, typer.Option(help="A task; `ohmloop tasks` lists them.")]
Deployed = Annotated[
    str | None,
    typer.Option(
        help="What each device gets beside its weights: none, batch-norm, channel, layer, norm or readout, "
        "[:samples=64,arrays=2,mean_gain=true,adapter_rank=4]; cells=2 for twice the cells, on the layers "
        "that need them."
    ),
]
Data = Annotated[Path | None, typer.Option(help="Folder of the data set's files, if not fetched.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of one training; the task's own by default.")
]
Compute = Annotated[str, typer.Option(help="Where torch computes: cpu, cuda.")]
Limit = Annotated[int | None, typer.Option(min=10, help="Use only that many development samples.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def train(
    task: Task = "digits",
    method: Annotated[
        str,
        typer.Option(help="A method, like erm, bayesmulti, steady or weight-noise:level=0.5."),
    ] = "weight-noise",
    model: Annotated[str | None, typer.Option(help="A network; the task's own by default.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="What it will run on: lognormal:S, nanowire-NN, or a device.json; may be given again. "
            f"By default {_DEVICE}.",
        ),
    ] = None,
    sigma: Annotated[
        str | None, typer.Option(help="It will run on log-normal levels, like 0.2,0.5,1.")
    ] = None,
    array: Annotated[
        str | None,
        typer.Option(
            help="It will run on arrays, as for evaluate: rows=64,columns=64,dac=8,adc=8; hardware-aware "
            "trains through them."
        ),
    ] = None,
    deployment: Deployed = None,
    epochs: Epochs = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    limit: Limit = None,
    data: Data = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Run folder; an unfinished one is gone on with.")
    ] = Path("runs/latest"),
    compute: Compute = "cpu",
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that share each training: with --compute cuda a GPU each, else cores.",
        ),
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Short for --executor local:N.")] = 1,
    executor: Where = None,
    json_: Json = False,
) -> None:
    """Train a network by a method, for a device or several."""
    from ohmloop.tasks import task as load
    from ohmloop.train import fit

    names = _named(device, sigma) or [_DEVICE]
    found = load(task, data)
    with bars() as progress:
        result = fit(
            found,
            method,
            model=model,
            hardware=_hardwares(names, "median-1", array),
            deployment=deployment,
            epochs=epochs,
            seed=seed,
            limit=limit,
            device=compute,
            processes=processes,
            workers=workers,
            executor=executor,
            run_dir=out,
            progress=progress,
        )
    if json_:
        typer.echo((out / "result.json").read_text(encoding="utf-8"))
    else:
        typer.echo(
            f"{result.method}: validation {found.metric.name} {result.validation_score:.3f} (digital), "
            f"settings {result.noise}; cost {result.cost:.3g} training(s)"
        )
        if result.chip_score is not None:
            typer.echo(f"on chips of the array, simulated: {result.chip_score:.3f}")
    if executor is not None and not result.trials:
        note = f"{result.method} has no trials to run side by side: it was trained in this process."
        typer.echo(note, err=True)
    again = ""
    if array is None and len(names) == 1:
        again = f" --device {names[0]} --sigma 0.2,0.5,1"
    typer.echo(f"Next: `ohmloop evaluate {out}{again}`.", err=True)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="A device; may be given again. By default what the run was trained for.",
        ),
    ] = None,
    sigma: Annotated[str | None, typer.Option(help="Log-normal levels, like 0.2,0.5,1.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Virtual devices for each.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the virtual devices.")] = 0,
    convention: Annotated[
        str | None,
        typer.Option(help="Of the devices named: median-1 (published, the default) or mean-1."),
    ] = None,
    array: Annotated[
        str | None,
        typer.Option(
            help="Write the network into arrays: rows=64,columns=64,dac=8,adc=8,wire=1,"
            "programming=cycle-verify; '' for the default array.",
        ),
    ] = None,
    deployment: Deployed = None,
    test_limit: Annotated[
        int | None, typer.Option(min=1, help="Use only that many test samples; not by doing.")
    ] = None,
    by_doing: Annotated[
        bool,
        typer.Option(
            "--by-doing", help="Score by driving, decoding or detecting, where the task can."
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Measure a trained network on fleets of virtual devices, on the test set; the run's folder keeps it."""
    from ohmloop.nn import Deployment
    from ohmloop.train import evaluate_folder, read_run

    if convention not in (None, "median-1", "mean-1"):
        raise typer.BadParameter(f"--convention is median-1 or mean-1; received {convention!r}.")
    names = _named(device, sigma)
    if convention is not None and not names:
        raise typer.BadParameter("--convention belongs to --device or --sigma; give one of them.")
    hardwares = _hardwares(names, convention or "median-1", array) if names else None
    found = read_run(run)
    if hardwares is None and array is not None:
        own = [h["device"] for h in found.config["hardware"]]
        hardwares = _on_arrays(own, array)
    if not names:
        trained_for = ", ".join(h["device"]["name"] for h in found.config["hardware"])
        typer.echo(f"No --device, no --sigma: on what it was trained for: {trained_for}.", err=True)
    with bars() as progress:
        fleets = evaluate_folder(
            run,
            hardwares,
            deployment=None if deployment is None else Deployment.parse(deployment),
            n_devices=devices,
            seed=seed,
            test_limit=test_limit,
            by_doing=by_doing,
            progress=progress,
        )
    if json_:
        typer.echo(_json([fleet.model_dump(mode="json") for fleet in fleets]))
        return
    first = fleets[0]
    over = "" if by_doing else f"{first.n_samples} test samples, "
    typer.echo(
        f"{first.task}, {first.metric}, {over}{devices} virtual devices each, "
        f"simulated; deployment {first.deployment}"
    )
    if len(set(first.layer_arrays.values())) > 1:
        typer.echo(divided(first.layer_arrays))
    nominal = further({name: figure.digital for name, figure in first.figures.items()})
    typer.echo(f"digital {first.digital:.3f}{nominal}")
    for fleet in fleets:
        means = further({name: figure.mean for name, figure in fleet.figures.items()})
        typer.echo(
            f"{fleet.device:<20} sigma {fleet.sigma:.3f}  {fleet.convention}  mean "
            f"{fleet.mean:.3f} ± {fleet.std:.3f}   worst tenth {fleet.worst_tenth:.3f}{means}"
        )
    typer.echo(f"Next: `ohmloop report {run}` puts it on a page.", err=True)


def further(figures: Mapping[str, float]) -> str:
    """Return the end of a line that has figures beside the score."""
    return "".join(f"   {name.replace('_', ' ')} {v:.3f}" for name, v in figures.items())


def divided(arrays: Mapping[str, int]) -> str:
    """Return in words how averaged arrays are divided among layers."""
    ranked = sorted(arrays.items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{layer or 'model'} ({m})" for layer, m in ranked[:_SHOWN])
    rest = ranked[_SHOWN:]
    more = f", and {len(rest)} more with {rest[0][1]} or fewer" if rest else ""
    return f"arrays of each layer: {shown}{more}"


def compare(
    task: Task = "digits",
    methods: Annotated[
        str, typer.Option(help="Separated by blanks or, without settings, commas.")
    ] = "erm,bayesmulti,weight-noise",
    sigma: Annotated[str, typer.Option(help="Log-normal levels.")] = _SIGMAS,
    device: Annotated[list[str] | None, typer.Option(help="Devices instead of levels.")] = None,
    deployment: Annotated[
        list[str] | None, typer.Option(help="As for train; may be given again: one row for each.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds.")] = 3,
    devices: Annotated[int, typer.Option(min=1, help="Virtual devices a level and seed.")] = 30,
    epochs: Epochs = None,
    model: Annotated[str | None, typer.Option(help="A network of the task.")] = None,
    test_limit: Annotated[int | None, typer.Option(min=1, help="Test samples.")] = None,
    limit: Limit = None,
    data: Data = None,
    workers: Annotated[int, typer.Option(min=1, help="Short for --executor local:N.")] = 2,
    executor: Where = None,
    compute: Compute = "cpu",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON file for a report of the comparison.")
    ] = None,
    json_: Json = False,
) -> None:
    """Compare methods: same network, budget, seeds and devices; accuracy at each noise level."""
    from ohmloop.train import compare as run
    from ohmloop.train import comparison_record, write_comparison_record

    blanks = " " in methods.strip() or ":" in methods
    names = [name.strip(",") for name in (methods.split() if blanks else methods.split(","))]
    labels = list(device or []) or [f"lognormal:{s:g}" for s in number_list(sigma, "--sigma")]
    hardwares = _hardwares(labels, "median-1")
    with bars() as progress:
        rows = run(
            task,
            [name for name in names if name],
            hardwares,
            deployments=tuple(deployment or ["none"]),
            seeds=range(seeds),
            n_devices=devices,
            epochs=epochs,
            model=model,
            limit=limit,
            test_limit=test_limit,
            folder=None if data is None else str(data),
            workers=workers,
            executor=executor,
            device=compute,
            progress=progress,
        )
    if out is not None:
        record = comparison_record(
            rows,
            hardwares,
            task=task,
            folder=None if data is None else str(data),
            model=model,
            seeds=range(seeds),
            n_devices=devices,
            epochs=epochs,
            limit=limit,
            test_limit=test_limit,
        )
        write_comparison_record(record, out)
        typer.echo(f"Wrote {out}. Next: `ohmloop report {out}` puts it on a page.", err=True)
    if json_:
        typer.echo(
            _json(
                [
                    {
                        "method": r.method,
                        "deployment": r.deployment,
                        "needs": r.needs,
                        "metric": r.metric,
                        "is_higher_better": r.is_higher_better,
                        "cost": r.cost,
                        "clean": r.clean.tolist(),
                        "hardware": labels,
                        "scores": r.scores.tolist(),
                        "settings": r.settings,
                    }
                    for r in rows
                ]
            )
        )
        return
    short = [label.removeprefix("lognormal:").removeprefix("nanowire-") for label in labels]
    many = len(deployment or []) > 1
    heads = [f"{r.method} / {r.deployment}" if many else r.method for r in rows]
    width = max(len(head) for head in heads)
    share = rows[0].metric.endswith("accuracy")

    def cell(value: float) -> str:
        return f"{100 * value:5.1f}" if share else f"{value:5.3g}"

    typer.echo(
        f"{'method':<{width}}  cost  clean  " + "  ".join(f"{s:>5}" for s in short) + "    mean"
    )
    for head, r in zip(heads, rows, strict=True):
        cells = "  ".join(cell(a) for a in r.scores.mean(axis=(1, 2)))
        typer.echo(
            f"{head:<{width}}  {r.cost:4.1f}  {cell(r.clean.mean())}  "
            f"{cells}   {cell(r.scores.mean())}"
        )
    unit = " / %" if share else "" if rows[0].is_higher_better else " (lower is better)"
    typer.echo(
        f"test {rows[0].metric}{unit}, mean over {seeds} seed(s) x {devices} virtual devices, simulated",
        err=True,
    )
    for deployed, needs in {r.deployment: r.needs for r in rows if r.needs != "nothing"}.items():
        typer.echo(f"{deployed} needs {needs}", err=True)


def tasks(json_: Json = False) -> None:
    """List the tasks: what is asked, the networks, where the data comes from."""
    from ohmloop.tasks import describe_tasks

    rows = describe_tasks()
    if json_:
        import json

        typer.echo(json.dumps([row._asdict() for row in rows]))
        return
    for row in rows:
        typer.echo(f"{row.name:<16} {row.description}")
        typer.echo(f"{'':<16} {row.metric}; networks: {', '.join(row.models)}; data: {row.data}")


def _named(device: Sequence[str] | None, sigma: str | None) -> list[str]:
    """Return the devices of both options, in this order."""
    levels = number_list(sigma, "--sigma") if sigma else []
    return [*(device or ()), *(f"lognormal:{s:g}" for s in levels)]


def _on_arrays(devices: list[Any], array: str) -> list[Hardware]:
    from ohmloop.crossbar import Array, Hardware

    placed = Array.parse(array)
    return [Hardware.model_validate({"device": d, "array": placed}) for d in devices]


def _hardwares(names: list[str], convention: str, array: str | None = None) -> list[Hardware]:
    from ohmloop.crossbar import Hardware
    from ohmloop.device import load_device

    if array is not None:
        if convention != "median-1":
            raise typer.BadParameter(
                "--convention belongs to the law on weights; leave out --array."
            )
        return _on_arrays([load_device(name) for name in names], array)
    # Loaded here, so that a wrong name is said in one line.
    return [
        Hardware.model_validate({"device": load_device(name), "convention": convention})
        for name in names
    ]


def _json(value: object) -> str:
    """Return JSON; numbers that it cannot hold (an endless perplexity) become null."""
    import json
    import math

    def clean(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: clean(v) for key, v in part.items()}
        if isinstance(part, list | tuple):
            return [clean(v) for v in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(clean(value), allow_nan=False)
