"""Many files at once: each gives its figures or its error, none stops the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ohmloop.data._figures import FiguresOfMerit, figures_of_merit
from ohmloop.data._files import find_files, shown
from ohmloop.data._read import read
from ohmloop.data._sweep import Sweep
from ohmloop.errors import AnalysisError, IngestError


@dataclass(frozen=True, eq=False)
class Analysis:
    """What became of one file: figures and sweep, or an error.

    Attributes:
        file: Base name.
        sweep: None where the file could not be read.
        figures: None where the file could not be read.
        error: Why not, None where it could.
    """

    file: str
    sweep: Sweep | None
    figures: FiguresOfMerit | None
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures under their stable names, or ``file`` and ``error``."""
        if self.figures is None:
            return {"file": self.file, "error": self.error}
        return self.figures.to_dict()


def analyze_files(
    paths: Iterable[str | Path],
    *,
    read_voltage: float | None = None,
    voltage_unit: str | None = None,
    current_unit: str | None = None,
) -> list[Analysis]:
    """Read and analyse files and folders of them.

    Args:
        paths: Files and folders.
        read_voltage: As in `figures_of_merit`.
        voltage_unit: As in `read`.
        current_unit: As in `read`.

    Returns:
        One entry a file, in the order given, folders sorted.
    """
    out = []
    for path in paths:
        try:
            files = find_files([path])
        except IngestError as error:
            out.append(Analysis(shown(Path(path).name or str(path)), None, None, str(error)))
            continue
        for file in files:
            out.append(_analyse(file, read_voltage, voltage_unit, current_unit))
    return out


def _analyse(
    file: Path, read_voltage: float | None, voltage_unit: str | None, current_unit: str | None
) -> Analysis:
    name = shown(file.name)
    try:
        sweep = read(file, voltage_unit=voltage_unit, current_unit=current_unit)
        figures = figures_of_merit(sweep, read_voltage=read_voltage)
    except IngestError as error:
        return Analysis(name, None, None, str(error))
    except AnalysisError:
        raise
    except Exception as error:
        # A defect of ours on one file must not cost a lab the other fifty.
        reason = f"{type(error).__name__}: {error}"
        return Analysis(
            name,
            None,
            None,
            f"ohmloop failed on this file ({reason}); please report it with the file.",
        )
    return Analysis(sweep.file, sweep, figures, None)
