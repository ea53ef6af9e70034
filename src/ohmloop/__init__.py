"""ohmloop: from measured memristors to robust analog networks, and back to the next device.

Sub-packages load on first use, so that ``import ohmloop`` stays light:

>>> import ohmloop
>>> ohmloop.units.parse("2.64 mA", "A")
0.00264
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from ohmloop._version import __version__

if TYPE_CHECKING:
    from ohmloop import (
        bo,
        campaign,
        certify,
        codesign,
        crossbar,
        data,
        device,
        errors,
        experiment,
        nn,
        progress,
        report,
        run,
        store,
        tasks,
        train,
        units,
        web,
    )

__all__ = [
    "__version__",
    "bo",
    "campaign",
    "certify",
    "codesign",
    "crossbar",
    "data",
    "device",
    "errors",
    "experiment",
    "nn",
    "progress",
    "report",
    "run",
    "store",
    "tasks",
    "train",
    "units",
    "web",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"ohmloop.{name}")
    raise AttributeError(f"module 'ohmloop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
