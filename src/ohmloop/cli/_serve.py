"""``ohmloop serve``: the local page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("serve")(serve)


def serve(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder that holds campaigns; or one campaign, whose neighbours are served too."
        ),
    ] = Path("."),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = 8470,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page in the browser.")
    ] = False,
) -> None:
    """Serve campaigns, runs and devices as a page on this machine, until Ctrl-C."""
    from ohmloop.web import serve as run

    def ready(address: str) -> None:
        typer.echo(address)
        typer.echo("Next: open it in a browser of this machine. Ctrl-C ends it.", err=True)

    run(folder, port=port, open_browser=not no_browser, ready=ready)
