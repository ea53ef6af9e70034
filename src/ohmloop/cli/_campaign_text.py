"""Status and replay tables of ``ohmloop campaign`` as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ohmloop.campaign import CampaignStatus, Config, LogLine, ReplayTable

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 96
INDENT = "      "


def paragraph(text: str, *, lead: str, hang: str = INDENT + "  ") -> None:
    """Print text that fits a terminal."""
    typer.echo(_filled(text.replace(" %", "\xa0%"), lead, hang))


def _filled(text: str, lead: str, hang: str) -> str:
    """Wrap text at blanks; non-breaking ones become blanks afterwards."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\xa0", " ")


def recipe(config: Config, values: Mapping[str, Any], lead: str = "") -> None:
    """Print a recipe, a variable with its unit never split."""
    from ohmloop.campaign import recipe_text

    kept = recipe_text(config, values).replace(", ", ",\x00").replace(" ", "\xa0")
    typer.echo(_filled(kept.replace("\x00", " "), f"{lead:<{len(INDENT)}}", INDENT))


def log(lines: Sequence[LogLine]) -> None:
    """Print the event log."""
    for line in lines:
        tail = "  (taken back)" if line.undone else ""
        typer.echo(
            f"{line.event:>4}  {line.at[:16].replace('T', ' ')}  {line.actor}  {line.text}{tail}"
        )


def next_step(found: CampaignStatus, here: str) -> str:
    """Return what to type after a look at the status."""
    waiting = [t.id for t in found.open_trials if t.status == "suggested"]
    accepted = [t.id for t in found.open_trials if t.status == "accepted"]
    if waiting:
        return f"Next: ohmloop campaign decide {waiting[0]} accept{here} (or reject, edit)"
    if accepted:
        return (
            f"Next: make {', '.join(accepted[:4])}{' ...' if len(accepted) > 4 else ''}, then: "
            f"ohmloop campaign ingest FILES{here}, or record by hand"
        )
    return f"Next: ohmloop campaign suggest{here}"


def spark(
    values: Sequence[float | None], low: float | None = None, high: float | None = None
) -> str:
    """Return a line of blocks from ``low`` to ``high`` (of the values by default); a dot for no value."""
    known = [v for v in values if v is not None]
    if not known:
        return "·" * len(values)
    low = min(known) if low is None else low
    width = max((max(known) if high is None else high) - low, 1e-12)
    return "".join("·" if v is None else BLOCKS[min(7, int(8 * (v - low) / width))] for v in values)


def status(config: Config, found: CampaignStatus) -> None:
    """Print where a campaign stands."""
    typer.echo(found.name)
    order = ("done", "accepted", "suggested", "rejected", "withdrawn")
    counts = ", ".join(f"{found.counts[k]} {k}" for k in order if k in found.counts) or "none yet"
    lines = [("trials", counts)]
    for objective in config.objectives:
        if objective.name in found.best:
            trial, value = found.best[objective.name]
            curve = spark(found.best_so_far[objective.name][-40:])
            lines.append(
                (
                    f"best {objective.name}",
                    f"{value:.4g} {objective.unit}".strip() + f" ({trial})  {curve}",
                )
            )
        else:
            lines.append((f"best {objective.name}", "no usable device yet"))
    if found.n_done:
        share = 100 * found.n_failed / found.n_done
        rate = (
            spark([r for _, r in found.failure_rate], 0, 1) if len(found.failure_rate) > 1 else ""
        )
        lines.append(
            ("failures", f"{found.n_failed} of {found.n_done} ({share:.0f} %)  {rate}".rstrip())
        )
        if found.failures_by_stage:
            stages = ", ".join(f"{n} at {name}" for name, n in found.failures_by_stage.items())
            lines.append(("", stages))
    for name, (used, total) in found.budget.items():
        lines.append(
            (f"budget, {name}", f"{used:.4g}" + (f" of {total:g}" if total is not None else ""))
        )
    if found.pins:
        lines.append(("pinned", ", ".join(f"{k} = {v}" for k, v in found.pins.items())))
    if found.open_trials:
        lines.append(("waiting", ", ".join(f"{t.id} {t.status}" for t in found.open_trials[:12])))
    if found.advice is not None:
        lines.append(("advice", f"{found.advice.verdict.upper()}. {found.advice.text}"))
    width = max(len(key) for key, _ in lines)
    hang = " " * (width + 2)
    for key, text in lines:
        paragraph(text, lead=f"{key:<{width}}  ", hang=hang)


def replay(table: ReplayTable, rows: Sequence[dict[str, Any]]) -> None:
    """Print the summary of a replay."""
    assert table.config.replay is not None
    typer.echo(f"{table.config.description}: {len(table.observations)} recipes")
    if table.objective is not None:
        typer.echo(
            f"experiments to one of {int(table.top().sum())} best: median [quartiles], mean (95 %)"
        )
        rho = table.rank_correlation()
        typer.echo(f"leave-one-out rank correlation of the surrogate on the whole table: {rho:.2f}")
        if (again := table.repeatability()) is not None:
            typer.echo(
                f"recipes made more than once: {again[0]}; variance among devices of one recipe over that of "
                f"all: {again[1]:.2f}"
            )
    for row in rows:
        parts = []
        for key, value in row.items():
            if isinstance(value, dict):
                a, b = value["quartiles"]
                c, d = value["mean_interval"]
                parts.append(
                    f"{key} {value['median']:.3g} [{a:.3g}, {b:.3g}], {value['mean']:.3g} ({c:.3g} to {d:.3g})"
                )
        typer.echo(f"{row['method']:<27} " + " · ".join(parts))
    typer.echo(f"source: {table.config.replay.citation}", err=True)
