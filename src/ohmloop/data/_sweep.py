"""What a measured I-V sweep is, whatever file it came from."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import IngestError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Note:
    """One thing a reader guessed, left out or found odd, with its reason.

    Attributes:
        kind: ``"guess"`` (inferred: unit, column role, cycle split), ``"ignored"`` (data left out:
            other sheets, empty columns, text cells) or ``"warning"`` (kept, but look at it).
        text: One sentence for a person, naming the sheet, column or line concerned.
    """

    kind: Literal["guess", "ignored", "warning"]
    text: str


@dataclass(frozen=True, eq=False)
class Sweep:
    """The current-voltage cycles of one device, in SI units, as one file holds them.

    Attributes:
        voltage: ``n_rows x n_cycles`` in volts, NaN where missing; a file with one voltage column
            for all cycles gives a broadcast (read-only) array whose columns are equal.
        current: ``n_rows x n_cycles`` in amperes, NaN where missing.
        cycle_names: The ``n_cycles`` names as the file gives them ("current_cycle3").
        file: Base name of the file.
        format: The reader that understood it ("perovskite-workbook", "pymeasure-csv", ...).
        sha256: Hash of the file's bytes (64 hex digits).
        notes: What was guessed or left out.
    """

    voltage: FloatArray
    current: FloatArray
    cycle_names: tuple[str, ...]
    file: str
    format: str
    sha256: str
    notes: tuple[Note, ...] = field(default=())

    def __post_init__(self) -> None:
        expected = (self.voltage.shape[0], len(self.cycle_names))
        if self.voltage.shape != expected or self.current.shape != expected:
            raise IngestError(
                f"{self.file}: expected voltage and current of shape {expected} (rows x cycles), "
                f"received {self.voltage.shape} and {self.current.shape}."
            )

    @property
    def n_cycles(self) -> int:
        """Number of cycles with at least one finite current."""
        return int(np.isfinite(self.current).any(axis=0).sum())
