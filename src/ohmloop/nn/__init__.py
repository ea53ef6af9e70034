"""PyTorch models on analog hardware: one device or many at once."""

from ohmloop.nn._convert import (
    LayerSummary,
    Where,
    analog_parameters,
    analogize,
    digitize,
    hardware_of,
    summary,
)
from ohmloop.nn._draw import device_seed, draw, draw_fleet
from ohmloop.nn._fleet import (
    FleetResult,
    accuracy,
    evaluate_fleet,
    evaluate_fleets,
    evaluating,
    fleet_forward,
)

__all__ = [
    "FleetResult",
    "LayerSummary",
    "Where",
    "accuracy",
    "analog_parameters",
    "analogize",
    "device_seed",
    "digitize",
    "draw",
    "draw_fleet",
    "evaluate_fleet",
    "evaluate_fleets",
    "evaluating",
    "fleet_forward",
    "hardware_of",
    "summary",
]
