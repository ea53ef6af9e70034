"""Files that somebody dropped on the page and that wait to be looked at: ``.ohmloop/uploads/ID/NAME``."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ohmloop.errors import StoreError
from ohmloop.web._errors import NotFoundError, WebError
from ohmloop.web._security import MAX_UPLOAD
from ohmloop.web._workspace import Workspace

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long a file waits for somebody to attach it; then it is deleted."""

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Upload:
    """A file that waits.

    Attributes:
        id: 32 hex digits that nobody guesses.
        name: Its own base name, made harmless.
        path: Where it lies.
        size: Bytes.
        sha256: Hash of its bytes, 64 hex digits.
    """

    id: str
    name: str
    path: Path
    size: int
    sha256: str


class Uploads:
    """The files of a workspace that wait."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def keep(self, name: str, chunks: Iterable[bytes]) -> Upload:
        """Keep a file; ones that nobody attached for a week are deleted meanwhile.

        Args:
            name: As the browser gives it; only its last part counts.
            chunks: Its bytes.

        Raises:
            WebError: If it is empty or larger than any measurement file.
            StoreError: If it cannot be written.
        """
        self._forget_old()
        id, clean = secrets.token_hex(16), safe_name(name)
        digest, size = hashlib.sha256(), 0
        place = self._folder / id
        try:
            place.mkdir()
            with (place / clean).open("wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size > MAX_UPLOAD:
                        raise WebError(f"{clean}: at most {MAX_UPLOAD // 2**20} MiB are read.")
                    digest.update(chunk)
                    file.write(chunk)
            if not size:
                raise WebError(f"{clean} is empty. Export the measurement again.")
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise StoreError(f"{clean} cannot be kept: {error.strerror or error}.") from error
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return Upload(id, clean, place / clean, size, digest.hexdigest())

    def get(self, id: str) -> Upload:
        """Return a file that waits; NotFoundError if there is none of this id any more."""
        if _ID.fullmatch(id):
            for path in (self._folder / id).glob("*"):
                data = path.read_bytes()
                return Upload(id, path.name, path, len(data), hashlib.sha256(data).hexdigest())
        raise NotFoundError(
            "this file waits no longer: it was attached, or is a week old. Drop it again."
        )

    def drop(self, id: str) -> None:
        """Delete a file that waits; nothing happens if there is none."""
        if _ID.fullmatch(id):
            shutil.rmtree(self._folder / id, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        place = self._workspace.private / "uploads"
        place.mkdir(exist_ok=True)
        return place

    def _forget_old(self) -> None:
        for place in self._folder.iterdir():
            try:
                if time.time() - place.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(place, ignore_errors=True)
            except OSError:  # somebody else deleted it
                continue


def safe_name(name: str) -> str:
    """Return the last part of a file name, printable, of bounded length, its suffix kept."""
    last = re.split(r"[/\\]", name)[-1]
    clean = "".join(c if c.isprintable() and c not in '<>:"|?*' else "_" for c in last).strip(" .")
    stem, dot, suffix = clean.rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    # Long enough that recipes in file names stay apart: the name of a device is made of it.
    short = stem.encode()[:200].decode(errors="ignore")
    return f"{short or 'file'}{dot}{suffix[:12]}"
