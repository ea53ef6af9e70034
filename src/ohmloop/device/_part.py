"""What the parts of a cell's physics share: validation, and each constant with its unit and source."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from ohmloop.errors import DeviceError
from ohmloop.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

Siemens = Annotated[float, Unit("S"), Field(ge=0)]
Share = Annotated[float, Unit(""), Field(ge=0)]
Seconds = Annotated[float, Unit("s"), Field(gt=0)]
Kelvin = Annotated[float, Unit("K"), Field(gt=0)]


class Constant(NamedTuple):
    """One constant of a cell: where it stands, its value and unit, and where it comes from."""

    name: str
    value: float | int | str | tuple[float, ...]
    unit: str
    source: str


class Part(BaseModel):
    """A frozen group of constants that says where each of them comes from.

    Attributes:
        source: One text for all constants of the part, or a mapping from a field's name to its text; the key
            "" of a mapping holds for the fields that it does not name. A source is a publication, a data set
            with the way it was evaluated, or "assumed: ..." with the reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str | dict[str, str] = ""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise DeviceError(unknown_field(cls, str(key)))
        return data

    @model_validator(mode="after")
    def _sources_fit(self) -> Part:
        if isinstance(self.source, dict):
            for key in self.source:
                if key and key not in type(self).model_fields:
                    raise DeviceError("source: " + unknown_field(type(self), key))
        return self

    def constants(self, prefix: str = "") -> list[Constant]:
        """Return the constants in the order of the fields, parts within parts included.

        A number at its neutral default (no noise, no faults) is left out unless a source names it.

        Args:
            prefix: Put before each name, with a dot.
        """
        found: list[Constant] = []
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(value, Part):
                found += value.constants(path)
            elif name == "kind" or (name != "source" and self._says(name, info)):
                found.append(Constant(path, value, _unit(info), self._source_of(name)))
        return found

    def _says(self, name: str, info: FieldInfo) -> bool:
        value = getattr(self, name)
        if value is None or value == ():
            return False
        return value != info.default or (isinstance(self.source, dict) and name in self.source)

    def _source_of(self, name: str) -> str:
        if isinstance(self.source, str):
            return self.source
        return self.source.get(name, self.source.get("", ""))


def polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Return c0 + c1 x + c2 x^2 + ..., of the shape of ``x``."""
    value = x * 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def _unit(info: FieldInfo) -> str:
    """Return the unit of a field; it stands one level down where the field may be None."""
    annotations = [
        info.metadata,
        *(getattr(a, "__metadata__", ()) for a in get_args(info.annotation)),
    ]
    return next((m.symbol for marks in annotations for m in marks if isinstance(m, Unit)), "")


def unknown_field(cls: type[BaseModel], key: str) -> str:
    """Return the text of an error about ``key``, which ``cls`` does not have."""
    close = difflib.get_close_matches(key, cls.model_fields, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'{cls.__name__} has no field "{key}".{hint} Fields: {", ".join(cls.model_fields)}.'
