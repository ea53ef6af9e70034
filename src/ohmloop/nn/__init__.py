"""PyTorch models on analog hardware: one device or many at once."""

from ohmloop.nn._allocate import allocate_arrays
from ohmloop.nn._batch_norm import (
    mark_noisy_statistics,
    nominal_batch_norm,
    pretrained_norms,
    takes_batch_statistics,
)
from ohmloop.nn._convert import (
    Where,
    analog_parameters,
    analogize,
    digitize,
    hardware_of,
    has_arrays,
)
from ohmloop.nn._deploy import (
    check_deployment,
    fits_readout,
    matching,
)
from ohmloop.nn._deployment import Deployment
from ohmloop.nn._draw import device_seed, draw, draw_fleet
from ohmloop.nn._fleet import (
    evaluate_fleet,
    evaluate_fleets,
    evaluate_measure,
    fleet_forward,
)
from ohmloop.nn._predict import predict, predict_fleet
from ohmloop.nn._program import age, calibrate_converters, erase, program
from ohmloop.nn._result import FleetResult
from ohmloop.nn._scoring import accuracy, evaluating, score
from ohmloop.nn._summary import LayerSummary, Summary, summary

__all__ = [
    "Deployment",
    "FleetResult",
    "LayerSummary",
    "Summary",
    "Where",
    "accuracy",
    "age",
    "allocate_arrays",
    "analog_parameters",
    "analogize",
    "calibrate_converters",
    "check_deployment",
    "device_seed",
    "digitize",
    "draw",
    "draw_fleet",
    "erase",
    "evaluate_fleet",
    "evaluate_fleets",
    "evaluate_measure",
    "evaluating",
    "fits_readout",
    "fleet_forward",
    "hardware_of",
    "has_arrays",
    "mark_noisy_statistics",
    "matching",
    "nominal_batch_norm",
    "predict",
    "predict_fleet",
    "pretrained_norms",
    "program",
    "score",
    "summary",
    "takes_batch_statistics",
]
