"""Device and network together: what a device property is worth in accuracy, fed back to the lab.

What a loop's folder says of it is read without torch; everything else loads with its first use.
"""

import importlib
from typing import TYPE_CHECKING

from ohmloop.codesign._settings import LoopSettings

if TYPE_CHECKING:
    from ohmloop.codesign._axes import AXES
    from ohmloop.codesign._joint import (
        Joint,
        Point,
        Scored,
        energy_of,
        joint,
        pareto_front,
        read_joint,
    )
    from ohmloop.codesign._lab import make_waiting, run_in_virtual_lab
    from ohmloop.codesign._loop import CodesignLoop, Step
    from ohmloop.codesign._networks import trained_networks
    from ohmloop.codesign._sensitivity import Sensitivity, Worth, sensitivity

__all__ = [
    "AXES",
    "CodesignLoop",
    "Joint",
    "LoopSettings",
    "Point",
    "Scored",
    "Sensitivity",
    "Step",
    "Worth",
    "energy_of",
    "joint",
    "make_waiting",
    "pareto_front",
    "read_joint",
    "run_in_virtual_lab",
    "sensitivity",
    "trained_networks",
]

_MODULES = ("_axes", "_sensitivity", "_networks", "_loop", "_lab", "_joint")


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"ohmloop.codesign.{module}")).get(name)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'ohmloop.codesign' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
