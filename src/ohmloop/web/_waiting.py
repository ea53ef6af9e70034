"""Files dropped on a campaign that nobody attached yet, with what was recognised in them.

A file waits in ``.ohmloop/uploads``; what was read in it lies in ``.ohmloop/waiting/ID.json``, so that a page
of twenty files does not read twenty files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ohmloop._files import write_whole
from ohmloop.errors import OhmloopError
from ohmloop.web._errors import NotFoundError
from ohmloop.web._reader import Preview, Reader
from ohmloop.web._uploads import Upload, Uploads
from ohmloop.web._workspace import Workspace


class Waiting(BaseModel):
    """One file that waits.

    Attributes:
        id: As in `ohmloop.web._uploads.Upload`.
        campaign: Name of the campaign it was dropped on.
        name: Its base name.
        size: Bytes.
        trial: The trial that it probably belongs to; "" if that cannot be told.
        recipe: Fields of the mapping that a person confirmed for it; None without one.
        preview: What was recognised; None if it cannot be read at all.
        problem: Why not; "" where it can.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    campaign: str
    name: str
    size: int
    trial: str = ""
    recipe: dict[str, Any] | None = None
    preview: Preview | None = None
    problem: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether it can be attached as it is."""
        return self.preview is not None and not self.problem


class WaitingFiles:
    """The files of a workspace that wait, campaign by campaign."""

    def __init__(self, workspace: Workspace, uploads: Uploads, reader: Reader) -> None:
        self._workspace, self._uploads, self._reader = workspace, uploads, reader

    def add(
        self, campaign: str, name: str, chunks: Iterable[bytes], trials: Iterable[str], trial: str
    ) -> Waiting:
        """Keep a dropped file and read it.

        Args:
            campaign: Whose it is.
            name: As the browser gives it.
            chunks: Its bytes.
            trials: Ids that its name may hold.
            trial: The one to attach it to where its name says nothing.
        """
        upload = self._uploads.keep(name, chunks)
        found = trial_in(upload.name, trials) or trial
        return self._read(campaign, upload, found, None)

    def remap(self, item: Waiting, recipe: Mapping[str, Any]) -> Waiting:
        """Read a file again, its columns as a person says."""
        return self._read(item.campaign, self._uploads.get(item.id), item.trial, dict(recipe))

    def _read(
        self, campaign: str, upload: Upload, trial: str, recipe: dict[str, Any] | None
    ) -> Waiting:
        preview, problem = None, ""
        folder = self._workspace.campaign(campaign)
        try:
            preview = self._reader.preview(upload.path, recipe=recipe, campaign=folder)
            problem = preview.problem
        except OhmloopError as error:
            problem = str(error)
        item = Waiting(
            id=upload.id,
            campaign=campaign,
            name=upload.name,
            size=upload.size,
            trial=trial,
            recipe=recipe,
            preview=preview,
            problem=problem,
        )
        write_whole(self._path(upload.id), item.model_dump_json())
        return item

    def list(self, campaign: str) -> list[Waiting]:
        """Return what waits for a campaign, by name."""
        found = []
        for path in self._folder.glob("*.json"):
            item = self._load(path)
            if item is None or not self._upload_is_there(item.id):
                path.unlink(missing_ok=True)  # attached from elsewhere, or too old
            elif item.campaign == campaign:
                found.append(item)
        return sorted(found, key=lambda item: (item.name, item.id))

    def get(self, campaign: str, id: str) -> Waiting:
        """Return one file that waits; NotFoundError if there is none of this id."""
        upload = self._uploads.get(id)
        path = self._path(upload.id)
        item = self._load(path) if path.is_file() else None
        if item is None or item.campaign != campaign:
            raise NotFoundError(
                "this file waits no longer: it was attached or left out. Drop it again."
            )
        return item

    def path(self, item: Waiting) -> Path:
        """Return where its bytes lie."""
        return self._uploads.get(item.id).path

    def drop(self, item: Waiting) -> None:
        """Forget a file: it was attached, or somebody leaves it out."""
        self._uploads.drop(item.id)
        self._path(item.id).unlink(missing_ok=True)

    def _upload_is_there(self, id: str) -> bool:
        try:
            self._uploads.get(id)
        except NotFoundError:
            return False
        return True

    @staticmethod
    def _load(path: Path) -> Waiting | None:
        try:
            return Waiting.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError):  # of an older version, or just removed
            return None

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.json"

    @property
    def _folder(self) -> Path:
        place = self._workspace.private / "waiting"
        place.mkdir(exist_ok=True)
        return place


def trial_in(name: str, trials: Iterable[str]) -> str:
    """Return the trial that a file name holds ("T007_dev2.xlsx"); "" for none or several."""
    stem = name.rpartition(".")[0] or name
    digits = {int(d) for d in re.findall(r"(?<![A-Za-z0-9])[Tt](\d{1,6})(?![0-9])", stem)}
    found = [t for t in trials if int(t.lstrip("T")) in digits]
    return found[0] if len(found) == 1 else ""
