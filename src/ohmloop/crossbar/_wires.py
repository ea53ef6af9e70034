"""The wires of an array: four resistances."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Ohms = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Wires(BaseModel):
    """Resistances of the wires, drivers and sense amplifiers of an array, in ohms; 0 is an exact short.

    ::

        V_0 --source--+----row----+----row----+
                      | G_00      | G_01      | G_02       + on a row wire and the + under it on a
        V_1 --source--|-+---row---|-+---row---|-+          column wire are two nodes, with the cell
                      | | G_10    | | G_11    | | G_12     G_ij between them
                      + |         + |         + |
                    column      column      column
                        +           +           +
                      sense       sense       sense
                        |           |           |
                       0 V         0 V         0 V

    Row i has its driver at the left end and C - 1 segments between its C crossings; column j has its
    virtual ground at the bottom end, below row R - 1, and R - 1 segments. The far ends (right, top) are
    open. A lead that is as long as a segment belongs to ``source`` or ``sense``.

    Attributes:
        row: Of a row-wire segment between two neighbouring columns.
        column: Of a column-wire segment between two neighbouring rows.
        source: Between a driver and its row's first crossing, the driver's own resistance included.
        sense: Between a column's last crossing and virtual ground.

    >>> Wires(row=1.0, column=1.0).ideal, Wires().ideal
    (False, True)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Ohms = 0.0
    column: Ohms = 0.0
    source: Ohms = 0.0
    sense: Ohms = 0.0

    @property
    def ideal(self) -> bool:
        """Whether all four are zero."""
        return not (self.row or self.column or self.source or self.sense)
