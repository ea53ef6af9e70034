"""Where in a campaign.toml an error message points."""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"at line (\d+)")
_PATH = re.compile(r"[\"']?\b([A-Za-z_]\w*(?:\.\w+)+)")
_QUOTED = re.compile(r'"([^"\n]{1,80})"')
_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")


class Place(NamedTuple):
    """A line of a text.

    Attributes:
        line: Its number, from 1.
        text: The line.
    """

    line: int
    text: str


def place_in(text: str, message: str) -> Place | None:
    r"""Return the line that an error message about a campaign.toml means; None where it cannot be told.

    >>> place_in('[variables.fa]\nlow = 0\nhihg = 1', '"variables.fa.hihg" is no setting.')
    Place(line=3, text='hihg = 1')
    """
    lines = text.split("\n")
    message = message.removeprefix("campaign.toml: ")
    found = _LINE.search(message)
    if found and 1 <= (number := int(found[1])) <= len(lines):
        return Place(number, lines[number - 1].strip())
    for path in _PATH.findall(message):
        if (k := _of_path(lines, path.split("."))) is not None:
            return Place(k + 1, lines[k].strip())
    for word in _QUOTED.findall(message):
        for k, line in enumerate(lines):
            if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line.partition("#")[0]):
                return Place(k + 1, line.strip())
    return None


def _of_path(lines: list[str], path: list[str]) -> int | None:
    """Return the index of the line of a dotted key: its key under its table, else its table.

    A number in the path counts tables of an array: "stages.1.passes_when" is in the second [[stages]].
    """
    best: tuple[int, int] | None = None
    counts: dict[str, int] = {}
    table: list[str] = []
    for k, line in enumerate(lines):
        if header := _HEADER.match(line):
            name = header[1]
            table = [part.strip().strip("\"'") for part in name.split(".")]
            if line.lstrip().startswith("[["):
                table.append(str(counts.get(name, 0)))
                counts[name] = counts.get(name, 0) + 1
            here = table
        else:
            key = line.partition("=")[0].strip().strip("\"'")
            here = [*table, *key.split(".")] if key and not key.startswith("#") else []
        depth = next(
            (i for i, (a, b) in enumerate(zip(here, path, strict=False)) if a != b),
            min(len(here), len(path)),
        )
        if depth == len(here) and depth and (best is None or depth > best[0]):
            best = (depth, k)
    return best[1] if best else None
