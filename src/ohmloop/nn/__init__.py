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
from ohmloop.nn._deploy import (
    Deployment,
    check_deployment,
    has_batch_norm,
    matching,
    nominal_batch_norm,
)
from ohmloop.nn._draw import device_seed, draw, draw_fleet
from ohmloop.nn._fleet import (
    accuracy,
    evaluate_fleet,
    evaluate_fleets,
    evaluate_measure,
    evaluating,
    fleet_forward,
    score,
)
from ohmloop.nn._result import FleetResult

__all__ = [
    "Deployment",
    "FleetResult",
    "LayerSummary",
    "Where",
    "accuracy",
    "analog_parameters",
    "analogize",
    "check_deployment",
    "device_seed",
    "digitize",
    "draw",
    "draw_fleet",
    "evaluate_fleet",
    "evaluate_fleets",
    "evaluate_measure",
    "evaluating",
    "fleet_forward",
    "hardware_of",
    "has_batch_norm",
    "matching",
    "nominal_batch_norm",
    "score",
    "summary",
]
