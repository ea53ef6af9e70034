"""Files as untrusted bytes: found, bounded, hashed, decoded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from ohmloop.errors import IngestError

MAX_BYTES = 64 * 2**20
"""Largest file that is opened: some 1,000 sweeps of 1,000 rows and four columns as text."""

SUFFIXES = frozenset({".csv", ".txt", ".tsv", ".dat", ".xlsx", ".xlsm", ".xls", ".ods"})
"""What a folder is searched for; a file that is named is always tried."""

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Content:
    """The bytes of one regular file, and its text where it is text.

    Attributes:
        name: Base name.
        data: All bytes.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data

    @classmethod
    def load(cls, path: Path) -> Content:
        """Read ``path``; IngestError if it is no regular, readable file of bounded size."""
        name = shown(path.name)
        try:
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(path, flags)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise IngestError(f"{name} is no regular file. Name a file or a folder.")
                if status.st_size > MAX_BYTES:
                    raise IngestError(
                        f"{name} has {status.st_size / 2**20:.0f} MiB; at most "
                        f"{MAX_BYTES // 2**20} MiB are read. Export the sweep alone."
                    )
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise IngestError(f"{name} cannot be opened: {reason}.") from error
        if not data:
            raise IngestError(f"{name} is empty. Export the measurement again.")
        return cls(name, data)

    @property
    def is_workbook(self) -> bool:
        """Whether the bytes start like a zipped or an old binary workbook."""
        return self.data.startswith((_ZIP, _OLE))

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes, 64 hex digits."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def text(self) -> str:
        """The bytes as text: UTF-8 or UTF-16 with its mark, else Latin-1; line ends as they are.

        Raises:
            IngestError: If the bytes are binary.
        """
        if self.data.startswith((b"\xff\xfe", b"\xfe\xff")):
            try:
                return self.data.decode("utf-16")
            except UnicodeDecodeError as error:
                raise IngestError(f"{self.name}: the UTF-16 text is damaged.") from error
        if b"\0" in self.data[: 2**20]:
            raise IngestError(
                f"{self.name} is binary, neither text nor a workbook. Export it as CSV or XLSX."
            )
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.data.decode("latin-1")

    @cached_property
    def lines(self) -> list[str]:
        """The text, line by line, without line ends."""
        return self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def shown(name: str) -> str:
    """Return ``name`` printable on one line: no control characters, no broken surrogates."""
    clean = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in clean)


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the files that ``paths`` name, folders searched to the bottom, in a stable order.

    A file that is named is returned whatever its suffix, also where it does not exist (reading it
    then says so). In folders only `SUFFIXES` count; hidden files and the lock files of
    spreadsheets (``~$...``) do not. A file named twice is returned once.

    Raises:
        IngestError: If a folder cannot be listed, or holds no readable file at all.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and not file.name.startswith((".", "~$"))
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and file.is_file()
        )
        if not inside:
            raise IngestError(
                f"{shown(str(path))} holds no measurement file "
                f"({', '.join(sorted(SUFFIXES))}). Name the files themselves if they end otherwise."
            )
        found.update(dict.fromkeys(inside))
    return list(found)
