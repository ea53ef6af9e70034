"""Progress events drawn as bars on stderr, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ohmloop.progress import Progress, ProgressEvent


@contextmanager
def bars() -> Iterator[Progress]:
    """Give a `Progress` that draws one bar a label, or nothing where stderr is no terminal."""
    from ohmloop.progress import silent

    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as drawn:
        known: dict[str, TaskID] = {}

        def show(event: ProgressEvent) -> None:
            if event.label not in known:
                known[event.label] = drawn.add_task(event.label, total=event.total, message="")
            bar = known[event.label]
            drawn.update(bar, completed=event.done, message=event.message)
            if event.done >= event.total:
                drawn.update(bar, visible=False)

        yield show


def number_list(text: str, what: str) -> list[float]:
    """Parse "0.2,0.4" into numbers; a `typer.BadParameter` says what is wrong."""
    import typer

    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        raise typer.BadParameter(f"{what}: expected numbers like 0.2,0.4,0.8; received {text!r}.")
    return values
