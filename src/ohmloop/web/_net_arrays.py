"""Arrays in forms: what may be written of one, checked without torch, and an array of a run in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ohmloop.web._errors import WebError

PRESETS = {
    "usual": ("", "the usual ones: 256 x 256 cells, exact converters, ideal wires"),
    "eight": ("rows=64,columns=64,dac=8,adc=8", "64 x 64 cells, converters of 8 bits"),
    "six": (
        "rows=64,columns=64,dac=8,adc=6,programming=cycle-verify",
        "64 x 64 cells, readout of 6 bits, cells written again until they fit",
    ),
}
"""Choice of the form -> the text that it stands for, and its words."""
_OWN = "your own, written out"
CHOICES = {
    "none": "no arrays: the law on the weights, fast",
    **{key: words for key, (_, words) in PRESETS.items()},
    "own": _OWN,
}
"""All choices of the form -> their words."""

WORDS = {
    "rows": "cells in a column: the longest sum that is made in the analog domain",
    "columns": "cells in a row, spare ones included",
    "dac": "bits of the converters that drive the rows",
    "adc": "bits of the converters that read the columns",
    "wire": "ohms of a wire between two neighbouring cells",
    "lead": "ohms of a driver and of a sense amplifier",
    "wire_solution": "the whole network of wires, or some fifty times faster and nearly so",
    "programming": "how cells are written",
    "tolerance": "accepted error of a cell that is read while it is written, as a share of the window",
    "max_pulses": "pulses, or rewritings, of a cell at most",
    "mapping": "two cells a weight, one and a reference column, or a weight in slices",
    "weight_bits": "of the mapping sliced: bits of a weight",
    "slice_bits": "of the mapping sliced: bits of a cell",
    "scale": "weights share a factor by layer, by column, or by tile",
    "spare_columns": "columns of a tile that replace faulty ones",
    "remap": "whether the partner of a faulty cell is set anew",
    "encoding": "inputs as voltages, or as times",
    "analog_bias": "whether a layer's bias is a row of cells too",
}
"""Word of an array -> what it means, the ones to try first in front."""
_FLAGS = ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n")


class ArrayWord(BaseModel):
    """A word that a text about arrays may hold.

    Attributes:
        name: The word.
        kind: What its value is.
        choices: Of a choice.
        low: Smallest number.
        high: Largest number; None for none.
        is_above: Whether ``low`` itself is too small.
        default: Value where it is left out, as text.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["whole", "number", "choice", "flag"]
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    is_above: bool = False
    default: str

    @property
    def values(self) -> str:
        """What may be written, in words."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind == "flag":
            return "true or false"
        ends = "" if self.low is None else f"{'above' if self.is_above else 'from'} {self.low:g}"
        ends += "" if self.high is None else f" to {self.high:g}"
        return f"a {'whole ' if self.kind == 'whole' else ''}number {ends}".strip()

    def takes(self, value: str) -> bool:
        """Whether a text is one of its values."""
        if self.kind == "choice":
            return value in self.choices
        if self.kind == "flag":
            return value.lower() in _FLAGS
        try:
            number = float(value)
        except ValueError:
            return False
        if self.kind == "whole" and not number.is_integer():
            return False
        if not math.isfinite(number) or (self.high is not None and number > self.high):
            return False
        return self.low is None or number > self.low or (number == self.low and not self.is_above)


def array_in(form: Mapping[str, Any], words: Sequence[ArrayWord]) -> str | None:
    """Return the arrays that a form names, as ``ohmloop train --array`` takes them; None for none.

    Raises:
        WebError: If what is written of them does not fit, or is written and not chosen.
    """
    chosen = str(form.get("array", "none")).strip()
    own = str(form.get("array_own", "")).strip()
    if chosen == "own":
        if not own:
            raise WebError("arrays, written out: write key=value, like rows=64,columns=64,adc=8.")
        check_array(own, words)
        return own
    if own:
        raise WebError(
            f'arrays are written out ("{own[:60]}") but something else is chosen. Choose '
            f'"{_OWN}", or empty that field.'
        )
    if chosen == "none":
        return None
    if chosen not in PRESETS:
        raise WebError(f'there are no arrays "{chosen[:40]}"; choose some of the list.')
    return PRESETS[chosen][0]


def check_array(text: str, words: Sequence[ArrayWord]) -> None:
    """Refuse a text about arrays that names an unknown word or a value that does not fit.

    What depends on several words at once is checked by the job.

    Raises:
        WebError: Naming the word, what may be written, and what was.
    """
    known = {word.name: word for word in words}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        key = key.replace("-", "_")
        if not equals or not value:
            raise WebError(f'arrays: "{part[:60]}": write key=value, like rows=64.')
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise WebError(
                f'arrays have no "{key[:60]}".{hint} They have {", ".join(sorted(known))}.'
            )
        if not known[key].takes(value):
            raise WebError(f'arrays: {key} is {known[key].values}; received "{value[:40]}".')


def known_words() -> list[ArrayWord]:
    """Return the words that arrays know, from the library, which loads torch."""
    from ohmloop.crossbar import ADC, DAC, Array, Programming, Wires

    apart = ("dac", "adc", "wires", "programming")
    fields: dict[str, tuple[type[BaseModel], str]] = {
        name: (Array, name) for name in Array.model_fields if name not in apart
    }
    fields |= {"dac": (DAC, "bits"), "adc": (ADC, "bits")}
    fields |= {"wire": (Wires, "row"), "lead": (Wires, "source")}
    fields |= {
        "programming": (Programming, "method"),
        "tolerance": (Programming, "tolerance"),
        "max_pulses": (Programming, "max_pulses"),
    }
    found = [_word(name, model, field) for name, (model, field) in fields.items()]
    order = {name: k for k, name in enumerate(WORDS)}
    return sorted(found, key=lambda word: order.get(word.name, len(order)))


def _word(name: str, model: type[BaseModel], field: str) -> ArrayWord:
    schema = model.model_json_schema()["properties"][field]
    kinds: dict[str, Literal["whole", "number", "flag"]]
    kinds = {"integer": "whole", "number": "number", "boolean": "flag"}
    default = schema["default"]
    text = str(default).lower() if isinstance(default, bool) else str(default)
    above = schema.get("exclusiveMinimum")
    return ArrayWord(
        name=name,
        kind="choice" if "enum" in schema else kinds[schema["type"]],
        choices=tuple(schema.get("enum", ())),
        low=schema.get("minimum") if above is None else above,
        high=schema.get("maximum"),
        is_above=above is not None,
        default="exact" if name in ("dac", "adc") else text,
    )


def array_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the array that a run was trained for, as its configuration has it; None for none."""
    try:
        found = config["hardware"][0].get("array")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def array_words(array: Mapping[str, Any]) -> str:
    """Return an array in words: its size, and what is not left at its simplest.

    >>> array_words({"rows": 64, "columns": 32, "adc": {"bits": 6}, "mapping": "pair"})
    'arrays of 64 x 32 cells, adc 6 bits'
    """
    parts = [f"arrays of {array.get('rows', '?')} x {array.get('columns', '?')} cells"]
    for key, value in array.items():
        if key in ("rows", "columns") or value in (None, False, 0, *_PLAIN.get(key, ())):
            continue
        if not isinstance(value, Mapping):
            parts.append(key.replace("_", " ") if value is True else f"{_words(key)} {value}")
        elif key in ("dac", "adc"):
            parts.append(f"{key} {value.get('bits', '?')} bits")
        elif key == "programming":
            if value.get("method") != "statistical":
                parts.append(f"programming {value.get('method', '?')}")
        else:
            named = [f"{k} {v:g}" for k, v in value.items() if isinstance(v, int | float) and v]
            parts += [f"{_words(key)}: {' '.join(named)} ohm"] if named else []
    return ", ".join(parts)


def _words(key: str) -> str:
    return key.replace("_", " ")


_PLAIN = {
    "mapping": ("pair",),
    "scale": ("layer",),
    "encoding": ("amplitude",),
    "wire_solution": ("exact",),
    "weight_bits": (8,),
    "slice_bits": (2,),
}
"""Values that say nothing, because they are those of every array that does not name others."""
