"""What a fleet of virtual devices scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FleetResult:
    """Scores of one network on a fleet of virtual devices.

    Attributes:
        scores: ``N`` scores, one a device, in the order of their numbers; accuracies lie in [0, 1].
        digital: Score of the nominal weights.
        metric: Name of the score ("accuracy", "R2", "perplexity", ...).
        is_higher_better: False for a perplexity or an error.
        device: Name of the device model; of all, where layers differ.
        sigma: Its sigma; the largest, where layers differ.
        convention: "median-1" or "mean-1".
        deployment: What each device got beside its weights.
        seed: Of the fleet.
        n_samples: Inputs that each score is taken over.
        layer_arrays: How many averaged arrays hold each analog layer, as divided; empty where one holds each.
        figures: What a measure by doing found beside the score, by name ("collisions"): ``N`` values each.
        digital_figures: The same of the nominal weights.
    """

    scores: NDArray[np.float64]
    digital: float
    metric: str
    is_higher_better: bool
    device: str
    sigma: float
    convention: str
    deployment: str
    seed: int
    n_samples: int
    layer_arrays: tuple[tuple[str, int], ...] = ()
    figures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    digital_figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean score over devices."""
        return float(self.scores.mean())

    @property
    def std(self) -> float:
        """Standard deviation over devices (sample; 0 for a single device)."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else 0.0

    @property
    def worst(self) -> float:
        """Mean score of the worst tenth of the devices, at least one."""
        k = max(1, len(self.scores) // 10)
        ranked = np.sort(self.scores if self.is_higher_better else -self.scores)
        return float(ranked[:k].mean()) * (1 if self.is_higher_better else -1)

    def to_dict(self) -> dict[str, Any]:
        """Return everything under stable names, ready for JSON."""
        return {
            "metric": self.metric,
            "is_higher_better": self.is_higher_better,
            "device": self.device,
            "sigma": self.sigma,
            "convention": self.convention,
            "deployment": self.deployment,
            "seed": self.seed,
            "n_devices": len(self.scores),
            "n_samples": self.n_samples,
            "layer_arrays": dict(self.layer_arrays),
            "digital": self.digital,
            "mean": self.mean,
            "std": self.std,
            "worst_tenth": self.worst,
            "scores": self.scores.tolist(),
            "figures": {
                name: {
                    "digital": self.digital_figures[name],
                    "mean": float(values.mean()),
                    "values": values.tolist(),
                }
                for name, values in self.figures.items()
            },
        }
