"""Device and network together: what a device property is worth in accuracy, fed back to the lab."""

from ohmloop.codesign._axes import AXES
from ohmloop.codesign._joint import Joint, Point, Scored, energy_of, joint, pareto_front, read_joint
from ohmloop.codesign._lab import make_waiting, run_in_virtual_lab
from ohmloop.codesign._loop import CodesignLoop, Step
from ohmloop.codesign._networks import trained_networks
from ohmloop.codesign._sensitivity import Sensitivity, Worth, sensitivity
from ohmloop.codesign._settings import LoopSettings

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
