"""Progress events: library code reports, faces draw.

A function that takes long has an argument ``progress`` of type `Progress`. It calls it with
`ProgressEvent` values whose ``done`` never decreases for one label and ends at ``total``.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "ProgressEvent", "silent"]


@dataclass(frozen=True)
class ProgressEvent:
    """One step of a long computation.

    Attributes:
        label: What is being done, stable over the computation ("train erm").
        done: Steps finished so far, 0 <= done <= total.
        total: Steps in all.
        message: A short remark for a person ("loss 0.12"); may be empty.
    """

    label: str
    done: int
    total: int
    message: str = ""


Progress = Callable[[ProgressEvent], None]
"""What a face passes in: called with each event, returns nothing."""


def silent(event: ProgressEvent) -> None:
    """Ignore the event; the default of every ``progress`` argument."""
