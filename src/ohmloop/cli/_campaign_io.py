"""What the commands of ``ohmloop campaign`` share: opening, parsing assignments, printing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ohmloop.campaign import Campaign, Config, Trial

Folder = Annotated[
    Path, typer.Option("-C", "--campaign", help="Campaign folder; this one by default.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
HERE = Path(".")


def open_campaign(folder: Path, *, writable: bool = True) -> Campaign:
    """Open a campaign; say so where campaign.toml has changed since."""
    from ohmloop.campaign import Campaign

    campaign = Campaign.open(folder, writable=writable)
    if campaign.has_new_settings:
        talk("campaign.toml has changed; noted. What was recorded before still counts.")
    return campaign


def here(folder: Path) -> str:
    """Return what a command needs to find the folder from here."""
    return "" if folder == HERE else f" -C {folder}"


def pairs(items: list[str] | None) -> dict[str, Any]:
    """Turn ``["a=1", "b=x"]`` into a mapping of text."""
    from ohmloop.errors import CampaignError

    out: dict[str, Any] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise CampaignError(f'"{item}" is no assignment; write variable=value, without blanks.')
        out[name.strip()] = value.strip()
    return out


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain data."""
    import dataclasses

    return dataclasses.asdict(trial)


def show_trials(config: Config, trials: list[Trial], json_: bool) -> None:
    """Print trials with their reasons."""
    from ohmloop.campaign import sentences
    from ohmloop.cli import _campaign_text

    if json_:
        print_json([trial_json(trial) for trial in trials])
        return
    for trial in trials:
        _campaign_text.recipe(config, trial.recipe, lead=trial.id)
        if trial.reasons:
            for line in sentences(config, trial.reasons):
                _campaign_text.paragraph(f"- {line}", lead="      ")


def count(n: int, thing: str) -> str:
    """Return "1 row", "2 rows"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def tell_outside(trial: Trial, lines: list[str]) -> None:
    """Say where a recipe leaves the space."""
    for line in lines:
        talk(f"note: {trial.id}: {line}; it is taken all the same")


def pins_text(campaign: Campaign) -> str:
    """Return what is pinned."""
    return ", ".join(f"{k} = {v}" for k, v in campaign.state.pins.items()) or "nothing"


def say(json_: bool, data: Any, text: str) -> None:
    """Print data as JSON, or the text that says the same."""
    if json_:
        print_json(data)
    else:
        typer.echo(text)


def print_json(data: Any) -> None:
    """Print data as one line of JSON."""
    import json

    typer.echo(json.dumps(_finite(data), default=str))


def _finite(data: Any) -> Any:
    """JSON knows neither infinity nor NaN: they become null."""
    import math

    if isinstance(data, dict):
        return {str(k): _finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(v) for v in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def talk(text: str) -> None:
    """Print to stderr: notes, and the next step."""
    typer.echo(text, err=True)
