"""The folder that is served: what is in it, found by listing, so that no name leads out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ohmloop.errors import StoreError
from ohmloop.web._errors import NameTakenError, NotFoundError, WebError

Kind = Literal["campaign", "run", "device"]

PRIVATE = ".ohmloop"
"""Folder of the page's own files in the workspace: jobs, uploads that wait."""

_TAKEN = frozenset({"new", "runs", "devices"})
_NAME = re.compile(r"[^\W_][\w.+() -]{0,79}", re.UNICODE)
# What Windows will not have as a file name, whatever follows the dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_REPORTS = frozenset({".html", ".csv", ".pdf", ".json", ".svg"})


@dataclass(frozen=True)
class Workspace:
    """The folder given to ``ohmloop serve``.

    Every name that a URL brings is compared with a listing. Links that leave the folder, hidden entries and
    names that no URL can hold are not listed.

    Attributes:
        root: Absolute, links resolved.
        start: The campaign that the page opens on, where the folder given was one.
    """

    root: Path
    start: str | None = None

    @classmethod
    def at(cls, folder: Path) -> Workspace:
        """Return the workspace of a folder; for a campaign's folder, its parent's, opened on it.

        Raises:
            NotFoundError: If there is no such folder.
        """
        try:
            root = folder.resolve(strict=True)
        except OSError as error:
            raise NotFoundError(f"{folder}: {error.strerror}. Name a folder that exists.") from None
        if not root.is_dir():
            raise NotFoundError(f"{folder} is no folder. Name the one that holds your campaigns.")
        if (root / "campaign.toml").is_file() and (root / "campaign.db").is_file():
            return cls(root.parent, root.name)
        return cls(root)

    # -- listing ----------------------------------------------------------------------------

    def campaigns(self) -> list[str]:
        """Return the names of the campaigns, sorted."""
        return sorted(
            place.name
            for place in self._folders(self.root)
            if place.name not in _TAKEN and self._has(place, "campaign.toml", "campaign.db")
        )

    def loops(self) -> list[str]:
        """Return the names of the campaigns that are co-design loops too, sorted."""
        return [n for n in self.campaigns() if self._has(self.root / n, "codesign.toml")]

    def runs(self) -> list[str]:
        """Return the names of the trainings, finished or not, sorted."""
        return sorted(
            place.name
            for place in self._folders(self.root / "runs")
            if place.name not in _TAKEN and self._has(place, "config.json")
        )

    def devices(self) -> list[str]:
        """Return the names (without .json) of the workspace's own fitted devices, sorted."""
        return sorted(
            path.stem
            for path in self._entries(self.root / "devices")
            if path.suffix == ".json" and path.stem not in _TAKEN and path.is_file()
        )

    # -- finding ----------------------------------------------------------------------------

    def campaign(self, name: str) -> Path:
        """Return a campaign's folder; NotFoundError if there is none of this name."""
        return self.root / _listed("campaign", name, self.campaigns())

    def loop(self, name: str) -> Path:
        """Return a loop's folder; NotFoundError if there is none of this name."""
        return self.root / _listed("loop", name, self.loops())

    def run(self, name: str) -> Path:
        """Return a run's folder; NotFoundError if there is none of this name."""
        return self.root / "runs" / _listed("run", name, self.runs())

    def device(self, name: str) -> Path:
        """Return a device's file; NotFoundError if there is none of this name."""
        return self.root / "devices" / (_listed("device", name, self.devices()) + ".json")

    def reports(self, folder: Path) -> list[str]:
        """Return the names of the files in the ``reports`` folder of a campaign or run, newest first."""
        found = [
            path
            for path in self._entries(folder / "reports")
            if path.suffix in _REPORTS and path.is_file()
        ]
        return [path.name for path in sorted(found, key=lambda p: (-p.stat().st_mtime, p.name))]

    def report(self, folder: Path, name: str) -> Path:
        """Return a file of the ``reports`` folder; NotFoundError if there is none of this name."""
        return folder / "reports" / _listed("report", name, self.reports(folder))

    def is_inside(self, path: Path) -> bool:
        """Whether a path, its links followed, lies in the workspace."""
        try:
            return path.resolve(strict=True).is_relative_to(self.root)
        except (OSError, RuntimeError, ValueError):
            return False

    # -- making -----------------------------------------------------------------------------

    def new_name(self, kind: Kind, wanted: str) -> Path:
        """Return where a new campaign, run or device of this name goes.

        Raises:
            WebError: If the name cannot be that of a file everywhere.
            NameTakenError: If something of this name is there.
        """
        name = wanted.strip()
        if not _NAME.fullmatch(name) or name.endswith(".") or _DEVICES.fullmatch(name):
            raise WebError(
                f'"{_shown(wanted)}" cannot name a {kind}: use up to 80 letters, digits, blanks, and '
                "- _ . + ( ), beginning with a letter or digit."
            )
        place = {
            "campaign": self.root / name,
            "run": self.root / "runs" / name,
            "device": self.root / "devices" / f"{name}.json",
        }[kind]
        if name.lower() in _TAKEN or _exists(place):
            raise NameTakenError(
                f'there is something called "{name}" already; give the {kind} another name.'
            )
        return place

    @property
    def private(self) -> Path:
        """The folder of the page's own files; made on first use.

        Raises:
            StoreError: If it cannot be made.
        """
        place = self.root / PRIVATE
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{place} cannot be made ({error.strerror}), and the page keeps its jobs there. Change the "
                "permissions of the folder, or serve a copy of it in a place of your own."
            ) from None
        return place

    def _entries(self, folder: Path) -> Iterator[Path]:
        try:
            found = list(folder.iterdir()) if self.is_inside(folder) else []
        except OSError:
            return
        for path in found:
            if not path.name.startswith(".") and path.name.isprintable() and self.is_inside(path):
                yield path

    def _folders(self, folder: Path) -> Iterator[Path]:
        return (path for path in self._entries(folder) if path.is_dir())

    def _has(self, folder: Path, *names: str) -> bool:
        """Whether regular files of these names are there, none of them a link out of the workspace."""
        return all((folder / n).is_file() and self.is_inside(folder / n) for n in names)


def _exists(path: Path) -> bool:
    """Whether anything is there, a broken link too; case counts for nothing on some disks."""
    try:
        return any(p.name.lower() == path.name.lower() for p in path.parent.iterdir())
    except OSError:
        return False


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:80])


def _listed(kind: str, name: str, known: list[str]) -> str:
    if name in known:
        return name
    raise NotFoundError(f'there is no {kind} called "{_shown(name)}" in this folder.')
