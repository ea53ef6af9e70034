"""Files that are replaced as a whole or not at all: a reader, or a killed process, never leaves half of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``path`` by way of a file beside it; text as UTF-8.

    Raises:
        OSError: If that cannot be done; the file is then what it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
