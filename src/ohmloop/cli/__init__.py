"""The commands. Each parses, calls one library function and renders; no logic lives here."""

from ohmloop.cli._app import main

__all__ = ["main"]
