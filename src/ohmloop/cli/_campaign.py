"""``ohmloop campaign``: the lab's loop from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmloop.cli._campaign_columns import columns
from ohmloop.cli._campaign_decide import decide
from ohmloop.cli._campaign_io import (
    HERE,
    Folder,
    Json,
    count,
    here,
    open_campaign,
    pairs,
    print_json,
    say,
    show_trials,
    talk,
    trial_json,
)
from ohmloop.cli._executor import Where
from ohmloop.cli._report import Pdf


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    campaign = typer.Typer(
        no_args_is_help=True, help="Propose what to fabricate next, record, learn from failures."
    )
    for name, command in (
        ("new", new),
        ("suggest", suggest),
        ("decide", decide),
        ("record", record),
        ("ingest", ingest),
        ("columns", columns),
        ("status", status),
        ("best", best),
        ("export", export),
        ("import", import_),
        ("report", report),
        ("simulate", simulate),
        ("replay", replay),
    ):
        campaign.command(name)(command)
    app.add_typer(campaign, name="campaign")


def new(
    folder: Annotated[Path, typer.Argument(help="Where to make the campaign folder.")],
    template: Annotated[
        str | None,
        typer.Option(
            help="perovskite-nanowires or spin-coated-films; none if campaign.toml is there."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Start a campaign: a folder with campaign.toml (yours to edit) and an event log."""
    from ohmloop.campaign import Campaign

    with Campaign.new(folder, template=template) as campaign:
        config = campaign.config
    say(
        json_,
        {"folder": str(folder), "name": config.name, "variables": list(config.variables)},
        f"{folder}: {config.name}, {len(config.variables)} variables",
    )
    talk(f"Next: look over {folder / 'campaign.toml'}, then: cd {folder}; ohmloop campaign suggest")


def suggest(
    q: Annotated[
        int | None,
        typer.Option("-q", "--batch", min=1, help="How many; that of campaign.toml by default."),
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="Present value of a context variable: humidity=41.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(help="Value of this batch: material=MAPbI3.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
    compute: Annotated[
        str, typer.Option(help="Where torch computes: cpu, cuda (for very many trials or recipes).")
    ] = "cpu",
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Suggest the next recipes, with reasons."""
    with open_campaign(folder) as campaign:
        trials = campaign.suggest(
            q, context=pairs(context), pin=pairs(pin), seed=seed, compute=compute
        )
        show_trials(campaign.config, trials, json_)
    c = here(folder)
    talk(
        f"Next: ohmloop campaign decide {trials[0].id} accept{c} (or reject, edit; all for all of them), or "
        f"ohmloop campaign export sheet.xlsx{c} to fill in by hand"
    )


def record(
    trial: Annotated[str, typer.Argument(help="The trial.")],
    values: Annotated[
        list[str] | None, typer.Argument(help="objective=value, as measured.")
    ] = None,
    failed_at: Annotated[str | None, typer.Option(help="Stage at which the device failed.")] = None,
    passed: Annotated[
        str | None, typer.Option(help="Last stage that it passed; all for every stage.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Name of the device; the same name later adds to its result.")
    ] = "",
    note: Annotated[str, typer.Option("-m", "--note", help="Remark.")] = "",
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Record the result of one device: a failure is a result too. Repeat it for further devices."""
    with open_campaign(folder) as campaign:
        done = campaign.record(
            trial,
            values=pairs(values),
            failed_at=failed_at,
            passed=passed,
            device=device,
            note=note,
        )
        said = campaign.log()[-1].text
    say(json_, trial_json(done), said)
    talk(f"Next: ohmloop campaign status{here(folder)}, or suggest for the next batch")


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Measurement files, or folders of them.")],
    trial: Annotated[
        str | None, typer.Option(help="Their trial; without it the name decides: T007_dev2.xlsx.")
    ] = None,
    voltage_unit: Annotated[str | None, typer.Option(help="For columns that state none.")] = None,
    current_unit: Annotated[str | None, typer.Option(help="For columns that state none.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Read them by a kept recipe (`ohmloop campaign columns`).")
    ] = None,
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Keep measurement files and record their figures of merit; a second time changes nothing."""
    import dataclasses

    with open_campaign(folder) as campaign:
        done = campaign.ingest(
            list(paths),
            trial=trial,
            voltage_unit=voltage_unit,
            current_unit=current_unit,
            recipe=recipe,
        )
    if json_:
        print_json([dataclasses.asdict(item) for item in done])
    else:
        for item in done:
            if item.status != "unchanged":
                typer.echo(
                    f"{item.file}: " + ": ".join(filter(None, (item.trial, item.status, item.text)))
                )
        known = sum(item.status == "unchanged" for item in done)
        if known:
            typer.echo(f"{known} {'file was' if known == 1 else 'files were'} ingested before")
    if any(item.status == "refused" for item in done):
        raise typer.Exit(1)
    talk(f"Next: ohmloop campaign status{here(folder)}, or suggest for the next batch")


def status(
    quick: Annotated[
        bool, typer.Option("--quick", help="Without advice: no model is fitted.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="The event log instead.")] = False,
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Show where the campaign stands: best so far, failures over time, budget, advice."""
    import dataclasses

    from ohmloop.cli import _campaign_text

    with open_campaign(folder, writable=False) as campaign:
        if log:
            lines = campaign.log()
            if json_:
                print_json([line._asdict() for line in lines])
            else:
                _campaign_text.log(lines)
            return
        found = campaign.status(advice=not quick)
        config = campaign.config
    if json_:
        print_json(dataclasses.asdict(found))
    else:
        _campaign_text.status(config, found)
    talk(_campaign_text.next_step(found, here(folder)))


def best(folder: Folder = HERE, json_: Json = False) -> None:
    """Show the best usable recipe; the Pareto front where there are several objectives."""
    from ohmloop.cli import _campaign_text

    with open_campaign(folder, writable=False) as campaign:
        found = campaign.best()
        config = campaign.config
        plain = campaign.status(advice=False)
    if json_:
        print_json([{**trial_json(trial), "measured": means} for trial, means in found])
        return
    if not found:
        typer.echo("no usable device yet")
    for trial, means in found:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        _campaign_text.paragraph(f"{trial.id}  {shown}", lead="")
        _campaign_text.recipe(config, trial.recipe)
    for name, (other, value) in plain.best.items():
        if len(config.objectives) == 1 and found and other != found[0][0].id:
            talk(
                f"{other} measured better ({name} {value:.4g}), but with the scatter seen so far the model "
                f"believes more in {found[0][0].id}."
            )


def export(
    path: Annotated[Path, typer.Argument(help="A .xlsx or .csv file.")],
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Write the trial sheet, to fill in with a spreadsheet program and hand back."""
    with open_campaign(folder, writable=False) as campaign:
        campaign.export(path)
        n = len(campaign.trials)
        outcomes = ", ".join(o.name for o in campaign.config.objectives)
    say(json_, {"file": str(path), "trials": n}, f"wrote {path}: {n} trials")
    what = "the yellow columns"
    if path.suffix.lower() != ".xlsx":
        what = f"status, device, failed_at or passed, {outcomes}".rstrip(", ")
    talk(f"Next: fill in {what}, then: ohmloop campaign import {path}{here(folder)}")


def import_(
    path: Annotated[Path, typer.Argument(help="A sheet as export writes it, filled in.")],
    earlier: Annotated[
        str | None, typer.Option(help="The rows come from an earlier campaign of this name.")
    ] = None,
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Read a filled-in sheet: results, decisions, own experiments. All rows or none."""
    import dataclasses

    with open_campaign(folder) as campaign:
        done = campaign.import_(path, earlier=earlier)
    of = "" if earlier is None else f' of "{earlier}"'
    say(
        json_,
        dataclasses.asdict(done),
        f"{count(done.recorded, 'result')}{of}, {count(done.added, 'new trial')}, "
        f"{count(done.decided, 'decision')}; {count(done.unchanged, 'row')} known before",
    )
    for line in done.notes:
        talk(f"note: {line}")
    talk(f"Next: ohmloop campaign status{here(folder)}, or suggest for the next batch")


def report(
    path: Annotated[
        Path | None, typer.Option("-o", "--out", help="HTML file; in reports/ by default.")
    ] = None,
    folder: Folder = HERE,
    pdf: Pdf = False,
    json_: Json = False,
) -> None:
    """Write the campaign as one HTML file: progress, failures, every trial with its reasons."""
    from ohmloop.report import write_campaign

    with open_campaign(folder, writable=False) as campaign:
        target = write_campaign(campaign, path or folder / "reports" / "campaign.html", pdf=pdf)
    say(json_, {"file": str(target)}, f"wrote {target}")
    talk("Next: open it in a browser; it is one file that can be sent around")


def simulate(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the measured files.")] = Path(
        "measured"
    ),
    devices: Annotated[int, typer.Option(min=1, max=20, help="Devices a trial.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the virtual lab.")] = 0,
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Make the open trials in the virtual lab: SIMULATED workbooks, and a sheet of the failures."""
    from ohmloop.campaign import make_in_virtual_lab

    with open_campaign(folder, writable=False) as campaign:
        made = make_in_virtual_lab(campaign, out, n_devices=devices, seed=seed)
    if json_:
        print_json(made)
    else:
        for item in made:
            typer.echo(f"{item['trial']} {item['device']}: {item['outcome']} (SIMULATED)")
    c = here(folder)
    steps = []
    if any(item["file"] for item in made):
        steps.append(f"ohmloop campaign ingest {out}{c}")
    if not all(item["file"] for item in made):
        steps.append(f"ohmloop campaign import {out.with_name(out.name + '-failures.csv')}{c}")
    talk("Next: " + " and ".join(steps))


def replay(
    table: Annotated[
        str | None,
        typer.Argument(help="A built-in table or a .toml with a [replay] part; none lists them."),
    ] = None,
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "ohmloop,random",
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the published tables.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Short for --executor local:N.")] = 1,
    executor: Where = None,
    plot: Annotated[Path | None, typer.Option(help="SVG of best so far, with intervals.")] = None,
    json_: Json = False,
) -> None:
    """Replay a measured table as if it were the lab, with several methods on the same seeds."""
    import dataclasses

    from ohmloop.campaign import list_replays, load_replay, summary
    from ohmloop.campaign import replay as run_replay
    from ohmloop.cli import _bars, _campaign_text

    if table is None:
        for name in list_replays():
            typer.echo(name)
        talk(
            "Methods: ohmloop, random, optuna-tpe, optuna-gp, and ohmloop-no-feasibility, "
            "-no-replicate-noise, -no-descriptors."
        )
        return
    load_replay(table, data)
    with _bars.bars() as progress:
        loaded, runs = run_replay(
            table,
            data=data,
            methods=[m.strip() for m in methods.split(",") if m.strip()],
            n_seeds=seeds,
            n_workers=workers,
            executor=executor,
            progress=progress,
        )
    rows = summary(loaded, runs)
    if plot is not None:
        from ohmloop.report import draw_replay

        draw_replay(loaded, runs, plot)
    if json_:
        print_json({"summary": rows, "runs": [dataclasses.asdict(run) for run in runs]})
    else:
        _campaign_text.replay(loaded, rows)
