"""What the header of a column of pulses or retention says: which quantity, in which unit."""

from __future__ import annotations

import re

from ohmloop.data._columns import role_of
from ohmloop.units import split_header

QUANTITY = {
    "time": "s",
    "conductance": "S",
    "resistance": "Ohm",
    "current": "A",
    "amplitude": "V",
    "width": "s",
    "voltage": "V",
    "up": "S",
    "down": "S",
}
"""Roles that are measured, and their SI unit; "up" and "down" may also be resistances."""
LABELS = ("pulse", "pulses", "cycle", "device", "level", "polarity", "tag", "skip")
ROLES = (*QUANTITY, *LABELS)

_LONG_TIME = {
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), 1.0),
}
_UNIT = re.compile(r"^(.*?)\s*[\[(]\s*([^\])]*?)\s*[\])]\s*$")
_NAMES = (
    ("skip", r"skip|-|res[_ ]?m(in|ax)|.*(limit|complian|status|range|error|std|target).*"),
    ("width", r".*width.*|pw|t_?pulse|pulse[_ ](time|length|duration)"),
    (
        "pulses",
        r"num_applied|(n|num|number)[_ ]?(of[_ ])?(applied[_ ])?pulses|pulses([_ ]applied)?",
    ),
    ("pulse", r"pulse([ _]?(no|nr|number|index|id|count|#))?\.?|#|n|index|step"),
    ("amplitude", r".*amplitude.*|(pulse|prog\w*|write)[_ ]?v(olt\w*)?|v_?(pulse|prog\w*|write)"),
    ("polarity", r"polarity|direction|sign|operation|pulse[ _]type"),
    ("tag", r"tag"),
    ("up", r".*(potentiation|ltp).*|up([ _](g|conductance|resistance))?"),
    ("down", r".*(depression|ltd).*|down([ _](g|conductance|resistance))?"),
    ("cycle", r"(cycle|loop|repeat|run|iteration)s?([ _]?(no|nr|number|index|id|#))?\.?"),
    (
        "device",
        r"(device|cell|dut|sample|addr|address|wordline|bitline|row|column)([ _]?(id|no|nr|name|#))?",
    ),
    ("level", r"(level|state)([ _]?(id|no|nr|index|#))?"),
    (
        "time",
        r"t|time|elapsed|seconds|(elapsed|relative|retention|read)[ _]time|time[ _].*|timestamp",
    ),
    ("voltage", r"meas\w*[_ ]v(olt\w*)?|read[_ ]?v(olt\w*)?|v_?(read|meas)"),
)
_PATTERNS = tuple((role, re.compile(rf"^({pattern})$", re.I)) for role, pattern in _NAMES)
_CURRENT = re.compile(r"^(i|current)[_ ]?\d+$", re.I)
_CONDUCTANCE = re.compile(r"^(.*conductance.*|g[_ ]?\d*)$", re.I)
_RESISTANCE = re.compile(r"^(.*resistance.*|r[_ ]?\d*)$", re.I)


def unit_of(header: str) -> tuple[str, str | None, float | None]:
    """Return name, SI unit and factor of a header, minutes to days and "norm" included."""
    name, unit, factor = split_header(header)
    if unit is not None:
        return name, unit, factor
    match = _UNIT.match(header)
    suffix = match[2].lower() if match else ""
    if match and suffix in _LONG_TIME:
        return match[1], "s", _LONG_TIME[suffix]
    if match and suffix in ("norm", "normalised", "normalized", "a.u.", "arb"):
        return match[1], "norm", 1.0
    return header.strip(), None, None


def column_role(header: str) -> str:
    """Guess what a column of a pulse train or a retention trace holds, "other" if nothing fits."""
    name, unit, _ = unit_of(header)
    for role, pattern in _PATTERNS:
        if not pattern.match(name):
            continue
        if unit is None or role in ("skip",) or unit == QUANTITY.get(role):
            return role
        if role in ("up", "down") and unit in ("S", "Ohm", "norm"):
            return role
    if unit == "S" or (unit in (None, "norm") and _CONDUCTANCE.match(name)):
        return "conductance"
    if unit == "Ohm" or (unit is None and _RESISTANCE.match(name)):
        return "resistance"
    if unit == "s":
        return "time"
    plain = role_of(header)
    if unit == "A" or plain == "current" or (unit is None and _CURRENT.match(name)):
        return "current"
    return "voltage" if plain == "voltage" else "other"
