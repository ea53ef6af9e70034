"""``steps.jsonl``: what the steps of a loop found, a line a step. Read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STEPS = "steps.jsonl"


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """Return what the steps of a loop found so far (`Step`), oldest first; none before the first.

    Args:
        folder: Of the loop.
    """
    try:
        lines = (folder / STEPS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    out = []
    for line in lines:
        try:
            out.append(json.loads(line))
        except ValueError:  # the last line of a process that was killed
            continue
    return out
