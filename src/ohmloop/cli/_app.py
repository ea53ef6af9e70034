"""The ``ohmloop`` command: one app, its sub-commands registered by the modules beside this one."""

from __future__ import annotations

import sys

import typer

from ohmloop.cli import (
    _analyze,
    _campaign,
    _certify,
    _codesign,
    _crossbar,
    _demo,
    _device,
    _fetch,
    _report,
    _serve,
    _train,
)

app = typer.Typer(
    name="ohmloop",
    help="From measured memristors to robust analog networks, and back to the next device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from ohmloop import __version__

        typer.echo(f"ohmloop {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        help="Print the version and stop.",
        callback=_show_version,
        is_eager=True,
    ),
) -> None:
    """From measured memristors to robust analog networks, and back to the next device."""


for module in (
    _demo,
    _analyze,
    _campaign,
    _device,
    _fetch,
    _train,
    _crossbar,
    _certify,
    _codesign,
    _report,
    _serve,
):
    module.register(app)


def main() -> None:
    """Run the command line; errors meant for a user end with exit code 1, no traceback."""
    from ohmloop.errors import OhmloopError

    try:
        app()
    except OhmloopError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, less) went away; nothing is wrong.
        sys.stderr.close()
        sys.exit(1)
