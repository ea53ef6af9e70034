"""Files from outside, read in a small process with bounded memory and time.

A workbook may unpack to a thousand times its size. What goes wrong there is a sentence here; the process is
ended and the next file finds a fresh one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ohmloop.errors import IngestError
from ohmloop.web._errors import HelperLostError, OutOfMemoryError
from ohmloop.web._helper import Helper
from ohmloop.web._workspace import Workspace

SECONDS = 30.0
"""A file may take; the largest real workbook (1.4 MB, 40,000 cells) takes 0.3 s."""
MEMORY = 2**30
"""Bytes of address space that the process may have, where the system can say so."""


class Figure(BaseModel):
    """A figure of merit, ready to be shown.

    Attributes:
        name: Its stable name ("sigma").
        label: For a person ("scatter over cycles, sigma").
        value: In SI units; None where the sweep does not give one.
        low: Lower end of its 95 % interval; None without one.
        high: Upper end.
        unit: "V", "S", "Ohm" or "".
        text: Value, unit and interval as a person reads them; "–" without a value.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    value: float | bool | str | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    text: str


class Column(BaseModel):
    """A column of numbers, for a person who says what it is; as `ohmloop.data.FoundColumn`."""

    model_config = ConfigDict(frozen=True)

    sheet: str
    number: int
    name: str
    header: str
    role: str
    unit: str
    n_numbers: int
    low: float | None
    high: float | None


class Preview(BaseModel):
    """What was recognised in a file.

    Attributes:
        name: Its base name.
        sha256: Hash of its bytes.
        size: Bytes.
        problem: Why it cannot be read as it is; "" where it can. The columns are there all the same, so that a
            person can say which is which.
        format: "perovskite-workbook", "workbook", "text", ... as in `ohmloop.data.Guess`.
        confidence: Of the format, 0 to 1.
        reasons: What in the file decided.
        notes: What was guessed or left out, a sentence each.
        units: Quantity -> unit of what follows: volts and amperes.
        n_points: Rows of the longest cycle.
        n_cycles: Cycles with at least one current.
        recipe: Name of the kept recipe that it was read by; "" without one.
        columns: What the file holds; empty for files that say themselves what their columns are.
        figures: Figures of merit.
        cycle_names: Names of the cycles shown.
        voltage: Of the first cycle shown, at most 2,000 points, volts; None where a cell is missing.
        voltages: One list a cycle where cycles have voltages of their own; else empty.
        currents: One list a cycle shown, amperes.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    size: int
    problem: str = ""
    format: str = ""
    confidence: float = 0.0
    reasons: list[str] = []
    notes: list[str] = []
    units: dict[str, str] = {"voltage": "V", "current": "A"}
    n_points: int = 0
    n_cycles: int = 0
    recipe: str = ""
    columns: list[Column] = []
    figures: list[Figure] = []
    cycle_names: list[str] = []
    voltage: list[float | None] = []
    voltages: list[list[float | None]] = []
    currents: list[list[float | None]] = []


class Ingestion(BaseModel):
    """What became of one file, as `ohmloop.campaign.Ingested`."""

    model_config = ConfigDict(frozen=True)

    file: str
    trial: str
    status: str
    text: str
    stages: dict[str, bool]
    values: dict[str, float]


class Import(BaseModel):
    """What a trial sheet brought, as `ohmloop.campaign.Imported`."""

    model_config = ConfigDict(frozen=True)

    recorded: int
    added: int
    decided: int
    unchanged: int
    notes: list[str]


class Reader:
    """Reads files in its process, one after the other; any thread may ask."""

    def __init__(
        self, workspace: Workspace, *, seconds: float = SECONDS, memory: int = MEMORY
    ) -> None:
        self._seconds = seconds
        # One thread: each one more would take address space, and there is nothing to win.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._helper = Helper(
            "ohmloop.web._reading", str(memory), log=workspace.private / "reader.log", **threads
        )
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process, so that the first file does not wait for it."""
        self._helper.start()

    def preview(
        self,
        path: Path,
        *,
        recipe: Mapping[str, Any] | None = None,
        campaign: Path | None = None,
        voltage_unit: str | None = None,
        current_unit: str | None = None,
    ) -> Preview:
        """Return what is recognised in a file; nothing is recorded.

        Args:
            path: The file.
            recipe: An `ohmloop.data.FileRecipe` as plain data: which column is which.
            campaign: Folder of a campaign whose kept recipes are tried.
            voltage_unit: For columns that state none.
            current_unit: For columns that state none.

        Raises:
            IngestError: If it is damaged, no table, or takes too much time or memory.
        """
        question = {
            "do": "preview",
            "path": str(path),
            "recipe": None if recipe is None else dict(recipe),
            "campaign": None if campaign is None else str(campaign),
            "voltage_unit": voltage_unit,
            "current_unit": current_unit,
        }
        return Preview.model_validate(self._ask(question, [path]))

    def ingest(
        self,
        campaign: Path,
        paths: Sequence[Path],
        *,
        trial: str | None = None,
        recipe: Mapping[str, Any] | str | None = None,
        voltage_unit: str | None = None,
        current_unit: str | None = None,
        actor: str | None = None,
        seen: int | None = None,
    ) -> list[Ingestion]:
        """Record files in a campaign; see `ohmloop.campaign.Campaign.ingest`.

        Raises:
            IngestError: If a file takes too much time or memory; those before it are recorded.
        """
        question = {
            "do": "ingest",
            "campaign": str(campaign),
            "paths": [str(path) for path in paths],
            "trial": trial,
            "recipe": dict(recipe) if isinstance(recipe, Mapping) else recipe,
            "voltage_unit": voltage_unit,
            "current_unit": current_unit,
            "actor": actor,
            "seen": seen,
        }
        return [Ingestion.model_validate(item) for item in self._ask(question, paths)]

    def import_sheet(
        self,
        campaign: Path,
        path: Path,
        *,
        earlier: str | None = None,
        actor: str | None = None,
        seen: int | None = None,
    ) -> Import:
        """Read a trial sheet that was filled in; see `ohmloop.campaign.Campaign.import_`."""
        question = {
            "do": "import",
            "campaign": str(campaign),
            "path": str(path),
            "earlier": earlier,
            "actor": actor,
            "seen": seen,
        }
        return Import.model_validate(self._ask(question, [path]))

    def export_sheet(self, campaign: Path, path: Path) -> Path:
        """Write the trial sheet of a campaign to a .xlsx or .csv file."""
        self._ask({"do": "export", "campaign": str(campaign), "path": str(path)}, [path])
        return path

    def close(self) -> None:
        """End the process."""
        self._helper.close()

    def _ask(self, question: Mapping[str, Any], paths: Sequence[Path]) -> Any:
        name = paths[0].name if len(paths) == 1 else f"one of {len(paths)} files"
        with self._lock:
            try:
                return self._helper.ask(question, seconds=self._seconds * max(len(paths), 1))
            except (HelperLostError, OutOfMemoryError) as error:
                self._helper.kill()
                raise IngestError(
                    f"{name} cannot be read here: {error} Export the sweep alone, as CSV."
                ) from None
