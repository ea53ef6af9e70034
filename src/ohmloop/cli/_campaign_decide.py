"""``ohmloop campaign decide``: a person has the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ohmloop.cli._campaign_io import (
    HERE,
    Folder,
    Json,
    open_campaign,
    pairs,
    pins_text,
    say,
    show_trials,
    talk,
    tell_outside,
    trial_json,
)

if TYPE_CHECKING:
    from ohmloop.campaign import Campaign


def decide(
    trial: Annotated[
        str,
        typer.Argument(
            help="A trial (T007), several (T007,T008), all open suggestions (all), or add, pin, unpin, "
            "reroll, undo."
        ),
    ],
    action: Annotated[
        str | None,
        typer.Argument(
            help="accept, reject, edit or reroll; a variable after unpin, an event after undo."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Argument(help="variable=value, for edit, add and pin.")
    ] = None,
    reason: Annotated[str, typer.Option("-m", "--reason", help="Why; for reject and add.")] = "",
    like: Annotated[
        str | None, typer.Option(help="For add: the trial whose values it has otherwise.")
    ] = None,
    context: Annotated[list[str] | None, typer.Option(help="For reroll: humidity=41.")] = None,
    folder: Folder = HERE,
    json_: Json = False,
) -> None:
    """Accept, reject, edit or re-roll suggestions; add an experiment; pin a variable; undo.

    decide all accept

    decide T003 reject -m "furnace is down"

    decide T004 edit cvd_time_h=3

    decide reroll T005

    decide add --like T002 cvd_time_h=4 -m "my own idea"

    decide pin contact=carbon; decide unpin contact

    decide undo; decide undo 17 (status --log has the numbers)
    """
    # After these words the second word is an argument, not an action.
    rest = ([action] if action else []) + (assignments or [])
    with open_campaign(folder) as campaign:
        if trial == "undo":
            _undo(campaign, rest, json_)
        elif trial == "pin":
            for name, value in pairs(rest).items():
                campaign.pin(name, value)
            say(json_, {"pins": campaign.state.pins}, f"pinned: {pins_text(campaign)}")
        elif trial == "unpin":
            for name in rest:
                campaign.unpin(name)
            say(json_, {"pins": campaign.state.pins}, f"pinned: {pins_text(campaign)}")
        elif trial == "add":
            base = campaign.state.trial(like).recipe if like else {}
            recipe = {k: v for k, v in base.items() if k in campaign.config.variables}
            made, outside = campaign.add({**recipe, **pairs(rest)}, note=reason)
            show_trials(campaign.config, [made], json_)
            tell_outside(made, outside)
        elif trial == "reroll" or action == "reroll":
            names = rest if trial == "reroll" else _named(campaign, trial)
            show_trials(campaign.config, campaign.reroll(*names, context=pairs(context)), json_)
        else:
            _decide_each(campaign, trial, action, assignments or [], reason, json_)


def _decide_each(
    campaign: Campaign,
    which: str,
    action: str | None,
    assignments: list[str],
    reason: str,
    json_: bool,
) -> None:
    from ohmloop.errors import CampaignError

    names = _named(campaign, which)
    if action not in ("accept", "reject", "edit"):
        told = f'received "{action}"' if action else "received nothing"
        raise CampaignError(
            f"after {which} comes accept, reject, edit or reroll; {told}. "
            f"Example: ohmloop campaign decide {which} accept"
        )
    if action == "edit" and not assignments:
        raise CampaignError(
            f"edit needs what to change: ohmloop campaign decide {which} edit variable=value"
        )
    done = []
    for name in names:
        if action == "accept":
            done.append(campaign.accept(name))
        elif action == "reject":
            done.append(campaign.reject(name, reason))
        else:
            done.append(campaign.edit(name, **pairs(assignments)))
            tell_outside(done[-1], campaign.outside(done[-1].recipe))
    one = len(done) == 1 and which.lower() != "all"
    say(
        json_,
        trial_json(done[0]) if one else [trial_json(trial) for trial in done],
        "\n".join(f"{trial.id}: {trial.status}" for trial in done),
    )


def _named(campaign: Campaign, which: str) -> list[str]:
    """Return the trials that "T007", "T007,T008" or "all" mean."""
    from ohmloop.errors import CampaignError

    if which.lower() == "all":
        names = [t.id for t in campaign.trials.values() if t.status == "suggested"]
        if not names:
            raise CampaignError(
                "there is no open suggestion; ask for some: ohmloop campaign suggest"
            )
        return names
    return [campaign.state.trial(name).id for name in which.split(",") if name.strip()]


def _undo(campaign: Campaign, rest: list[str], json_: bool) -> None:
    from ohmloop.errors import CampaignError

    if len(rest) > 1 or (rest and not rest[0].isdecimal()):
        raise CampaignError(
            f"undo takes the number of one event, or nothing for the last one; received "
            f'"{" ".join(rest)}". ohmloop campaign status --log has the numbers.'
        )
    undone = campaign.undo(int(rest[0]) if rest else None)
    lines = {line.event: line.text for line in campaign.log()}
    say(
        json_,
        {"undone": undone.id, "kind": undone.kind, "event": campaign.state.last_event},
        f"taken back: {lines[undone.id]} (event {undone.id})",
    )
    talk(f"To have it again: ohmloop campaign decide undo {campaign.state.last_event}")
