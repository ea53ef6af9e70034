"""What came out of an array experiment: accuracies of chips, cells of the first one, costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.crossbar import Cost
from ohmloop.experiment._setting import ArraySetting


@dataclass(frozen=True, eq=False)
class ArrayRow:
    """One way of training and writing.

    Attributes:
        method: Name of the training method.
        writing: How cells were written.
        deployment: What each chip gets beside its weights.
        digital: Test accuracy of each seed's nominal network, ``S``.
        scores: Test accuracies, ``S x N``.
        development: Accuracies on the development data, ``S x N``, where they are few enough to be a
            published set of their own; else None.
    """

    method: str
    writing: str
    deployment: str
    digital: NDArray[np.float64]
    scores: NDArray[np.float64]
    development: NDArray[np.float64] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of a table; spreads are over all chips of all seeds."""
        flat = self.scores.reshape(-1)
        usable = (self.scores >= 0.9 * self.digital[:, None]).mean()
        return {
            "method": self.method,
            "writing": self.writing,
            "deployment": self.deployment,
            "digital": self.digital.tolist(),
            "mean": float(flat.mean()),
            "std": float(flat.std(ddof=1)) if len(flat) > 1 else 0.0,
            "seed_means": self.scores.mean(1).tolist(),
            "worst_tenth": float(np.sort(flat)[: max(1, len(flat) // 10)].mean()),
            "usable": float(usable),
            "development_mean": None
            if self.development is None
            else float(self.development.mean()),
        }


@dataclass(frozen=True, eq=False)
class Matrix:
    """One layer's matrix on the first chip.

    Attributes:
        name: Of the layer.
        target: ``2 x out x in`` siemens: what the cells of each pair should hold.
        held: ``2 x out x in`` siemens: what they hold.
        pulses: Programming pulses of a cell, mean over a few chips.
        unconverged: Share of their cells outside tolerance.
    """

    name: str
    target: NDArray[np.float64]
    held: NDArray[np.float64]
    pulses: float
    unconverged: float


@dataclass(frozen=True, eq=False)
class ArrayStudy:
    """The experiment as it came out.

    Attributes:
        setting: What was asked.
        rows: Accuracies, the first method first.
        matrices: Each layer on the first chip, written and verified, of the last method's first network:
            one of the chips that are scored.
        cost: Of one inference on these arrays, mean over a few chips.
        digital: The same products on a digital chip, int8.
        n_classes: Of the task; 1 / n_classes is chance.
        n_test: Test inputs.
        wire_solution: "exact" or "fast": how wires were solved.
        provenance: What the figures depend on, as rows of (what, value).
    """

    setting: ArraySetting
    rows: tuple[ArrayRow, ...]
    matrices: tuple[Matrix, ...]
    cost: Cost
    digital: Cost
    n_classes: int
    n_test: int
    wire_solution: Literal["exact", "fast"]
    provenance: tuple[tuple[str, str], ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, ready for JSON."""
        return {
            "setting": self.setting.model_dump(mode="json"),
            "rows": [row.to_dict() for row in self.rows],
            "scores": [row.scores.tolist() for row in self.rows],
            "matrices": [
                {
                    "name": m.name,
                    "shape": list(m.held.shape[1:]),
                    "pulses_per_cell": m.pulses,
                    "unconverged": m.unconverged,
                    "relative_error_of_window": float(
                        np.sqrt(np.mean((m.held - m.target) ** 2))
                        / (m.target.max() - m.target.min())
                    ),
                }
                for m in self.matrices
            ],
            "cost": self.cost.to_dict(),
            "digital": self.digital.to_dict(),
            "n_classes": self.n_classes,
            "n_test": self.n_test,
            "wire_solution": self.wire_solution,
            "provenance": [list(row) for row in self.provenance],
        }
