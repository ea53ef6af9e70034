"""What a layer or a network costs: energy, latency and area by component, added up layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ohmloop.units import format as with_unit

SHARED = "units"
"""The one component of area that layers share instead of adding: the multipliers of a digital chip."""


@dataclass(frozen=True)
class Cost:
    """What one inference costs, and what programming cost once.

    Costs add: ``a + b`` runs one after the other on arrays of their own (energy, latency and area add), and
    ``sum(costs)`` is the cost of a network with its layers kept in `layers`.

    Attributes:
        name: Of the layer, or "total".
        energy_parts: Joules of one inference, by component.
        latency_parts: Seconds of one inference, by component; components of one layer follow each other.
        area_parts: Square metres, by component.
        operations: Of one inference: two for each multiplication with its addition.
        programming: Joules of programming the arrays once; None where it is not known. 0 for a digital chip.
        notes: What the count had to assume.
        layers: The parts of a sum; empty for one layer.

    >>> layer = Cost("fc", {"adc": 2e-12}, {"read": 1e-7}, {"cells": 1e-12}, operations=200)
    >>> (layer + layer).energy, layer.tops_per_watt
    (4e-12, 100.0)
    """

    name: str
    energy_parts: dict[str, float]
    latency_parts: dict[str, float]
    area_parts: dict[str, float]
    operations: int
    programming: float | None = None
    notes: tuple[str, ...] = ()
    layers: tuple[Cost, ...] = ()

    @property
    def energy(self) -> float:
        """Joules of one inference, programming left out."""
        return math.fsum(self.energy_parts.values())

    @property
    def latency(self) -> float:
        """Seconds of one inference."""
        return math.fsum(self.latency_parts.values())

    @property
    def area(self) -> float:
        """Square metres."""
        return math.fsum(self.area_parts.values())

    @property
    def energy_per_operation(self) -> float:
        """Joules of one operation; NaN where there are none."""
        return self.energy / self.operations if self.operations else math.nan

    @property
    def tops_per_watt(self) -> float:
        """Tera-operations a second and watt, that is, operations a picojoule; infinite at no energy."""
        return 1e-12 * self.operations / self.energy if self.energy else math.inf

    def __add__(self, other: Cost) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        area = _added(self.area_parts, other.area_parts)
        if SHARED in area:
            area[SHARED] = max(c.area_parts.get(SHARED, 0.0) for c in (self, other))
        known = self.programming is not None and other.programming is not None
        return Cost(
            name="total",
            energy_parts=_added(self.energy_parts, other.energy_parts),
            latency_parts=_added(self.latency_parts, other.latency_parts),
            area_parts=area,
            operations=self.operations + other.operations,
            programming=(self.programming or 0.0) + (other.programming or 0.0) if known else None,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
            layers=(*(self.layers or (self,)), *(other.layers or (other,))),
        )

    def __radd__(self, other: object) -> Cost:
        return self if other == 0 else NotImplemented

    def break_even(self, digital: Cost) -> float:
        """Return after how many inferences programming has paid for itself against ``digital``.

        Infinite where an inference saves nothing; NaN where the energy of programming is not known.
        """
        if self.programming is None:
            return math.nan
        saved = digital.energy - self.energy
        return self.programming / saved if saved > 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in SI units, ready for JSON, layers included."""
        return {
            "name": self.name,
            "energy_J": self.energy,
            "energy_parts_J": dict(self.energy_parts),
            "latency_s": self.latency,
            "latency_parts_s": dict(self.latency_parts),
            "area_m2": self.area,
            "area_parts_m2": dict(self.area_parts),
            "operations": self.operations,
            "energy_per_operation_J": self.energy_per_operation if self.operations else None,
            "tops_per_watt": self.tops_per_watt if self.energy else None,
            "programming_J": self.programming,
            "notes": list(self.notes),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def table(self) -> str:
        """Return a text table: a row for each layer and the total, a column for each component of energy."""
        parts = list(self.energy_parts)
        head = ["layer", *parts, "energy", "latency", "area", "operations", "TOPS/W", "programming"]
        rows = [head, *(cost._row(parts) for cost in self.layers or ())]
        rows.append(self._row(parts))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in rows
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _row(self, parts: list[str]) -> list[str]:
        return [
            self.name,
            *(with_unit(self.energy_parts.get(part, 0.0), "J") for part in parts),
            with_unit(self.energy, "J"),
            with_unit(self.latency, "s"),
            f"{self.area * 1e6:.3g} mm2",
            f"{self.operations:,}",
            f"{self.tops_per_watt:.3g}",
            "unknown" if self.programming is None else with_unit(self.programming, "J"),
        ]


def _added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    keys = dict.fromkeys((*one, *other))
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in keys}
