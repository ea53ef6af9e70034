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
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the token that requests have to bring; made if it is not there. By default "
            "FOLDER/.ohmloop/token, or the environment's OHMLOOP_TOKEN.",
        ),
    ] = None,
    no_token: Annotated[
        bool,
        typer.Option("--no-token", help="Let in everybody who has an account on this machine."),
    ] = False,
) -> None:
    """Serve campaigns, runs and devices as a page on this machine, until Ctrl-C.

    The link that it prints lets one browser in; programs send the token (Authorization: Bearer).
    """
    if no_token and token_file is not None:
        raise typer.BadParameter("--no-token asks for no token; leave out --token-file.")
    from ohmloop.web import serve as run

    def ready(address: str) -> None:
        typer.echo(address)
        once = "" if no_token else " The link works once; the browser is known then."
        typer.echo(f"Next: open it in a browser of this machine.{once} Ctrl-C ends it.", err=True)

    run(
        folder,
        port=port,
        open_browser=not no_browser,
        token_file=token_file,
        is_open=no_token,
        ready=ready,
    )
