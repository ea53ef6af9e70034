"""``ohmloop ...`` run in this process as the console script runs it; a new one would load torch anew."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ohmloop.cli import main


class Run(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def ohmloop(*args: object, cwd: Path | None = None) -> Run:
    """Run ``ohmloop args`` in ``cwd``; anything but an exit or a result fails the test."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    before = sys.argv
    sys.argv = ["ohmloop", *map(str, args)]
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    return Run(0 if code is None else int(code), out.getvalue(), err.getvalue())
