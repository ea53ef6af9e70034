"""The tasks, networks and methods that there are. Listing them needs torch, so another process does it.

``python -m ohmloop.web._net_catalogue`` prints the catalogue as JSON; `catalogue` runs that once and keeps it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ohmloop._files import write_whole
from ohmloop._version import __version__
from ohmloop.web._errors import BusyError
from ohmloop.web._net_arrays import ArrayWord, known_words

_FILE = "catalogue.json"
_PATIENCE = 120.0  # seconds; importing torch from a slow disk takes tens


class TaskEntry(BaseModel):
    """A task that a network can be trained for.

    Attributes:
        name: As jobs name it.
        description: What is asked.
        metric: Name of its score.
        models: Its networks.
        default_model: The one that is taken when none is named.
        epochs: Of one training, by default.
        missing: How its data comes here; "" where it is here.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    metric: str
    models: tuple[str, ...]
    default_model: str
    epochs: int
    missing: str


class MethodEntry(BaseModel):
    """A training method.

    Attributes:
        name: As jobs name it.
        settings: Its settings with their defaults, as text.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    settings: dict[str, str]


class Catalogue(BaseModel):
    """What can be trained, how, and the words that arrays know."""

    model_config = ConfigDict(frozen=True)

    version: str
    tasks: tuple[TaskEntry, ...]
    methods: tuple[MethodEntry, ...]
    array: tuple[ArrayWord, ...]

    def task(self, name: str) -> TaskEntry | None:
        """Return a task by name."""
        return next((t for t in self.tasks if t.name == name), None)

    def method(self, name: str) -> MethodEntry | None:
        """Return a method by name."""
        return next((m for m in self.methods if m.name == name), None)


_lock = threading.Lock()
_kept: Catalogue | None = None


def catalogue(place: Path) -> Catalogue:
    """Return the catalogue; the first call in a workspace takes some seconds, because a process loads torch.

    Later servers show what the last one kept, and make it anew meanwhile: data may have come or gone.

    Args:
        place: Folder of the page's own files, where it is kept.

    Raises:
        BusyError: If that process fails.
    """
    global _kept
    with _lock:
        if _kept is None and (_kept := _read(place)) is not None:
            threading.Thread(target=_renew, args=[place], daemon=True).start()
        if _kept is None:
            _kept = _asked(place)
        return _kept


def warm(place: Path) -> None:
    """Ask for the catalogue meanwhile, so that a form that needs it comes at once."""
    if _kept is None:
        threading.Thread(target=_quietly, args=[place], daemon=True).start()


def _quietly(place: Path) -> None:
    with contextlib.suppress(BusyError):  # whoever needs it asks again, and is told
        catalogue(place)


def _renew(place: Path) -> None:
    global _kept
    with contextlib.suppress(BusyError):
        _kept = _asked(place)


def _read(place: Path) -> Catalogue | None:
    try:
        found = Catalogue.model_validate_json((place / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if found.version == __version__ else None


def _asked(place: Path) -> Catalogue:
    command = [sys.executable, "-m", "ohmloop.web._net_catalogue"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
        made = Catalogue.model_validate_json(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise BusyError(f"the list of tasks cannot be made ({error}). Try again.") from error
    with contextlib.suppress(OSError):  # then the next server makes it anew
        write_whole(place / _FILE, made.model_dump_json())
    return made


def _made() -> dict[str, Any]:
    from ohmloop.errors import TaskError
    from ohmloop.tasks import describe_tasks, task
    from ohmloop.train import list_methods, parse_method

    tasks = []
    for row in describe_tasks():
        entry: dict[str, Any] = {
            "name": row.name,
            "description": row.description,
            "metric": row.metric,
        }
        entry |= {
            "models": row.models,
            "default_model": row.models[0],
            "epochs": 0,
            "missing": row.data,
        }
        try:
            found = task(row.name)
        except TaskError:  # its data is not on this machine
            pass
        else:
            entry |= {"default_model": found.default_model, "missing": ""}
            entry |= {"epochs": found.entry.epochs, "models": found.models}
        tasks.append(entry)
    methods = [
        {
            "name": name,
            "settings": {
                key: str(field.default)
                for key, field in type(parse_method(name)).model_fields.items()
            },
        }
        for name in list_methods()
    ]
    array = [word.model_dump() for word in known_words()]
    return {"version": __version__, "tasks": tasks, "methods": methods, "array": array}


if __name__ == "__main__":
    print(json.dumps(_made()))
