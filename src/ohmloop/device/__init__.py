"""Stochastic device models, fitted from measurements or from published figures. Knows no network."""

from ohmloop.device._drift import Drift, LogLaw, PowerDrift, WalkDrift
from ohmloop.device._export import export_device, write_export
from ohmloop.device._fit import fit, level_table
from ohmloop.device._fit_all import fit_measurements
from ohmloop.device._fit_pulses import fit_pulses
from ohmloop.device._fit_retention import fit_retention
from ohmloop.device._library import list_devices, load_device, sample, save_device
from ohmloop.device._model import DeviceModel, Estimate, Source
from ohmloop.device._noise import Faults, Flicker, ReadNoise, Variation, WriteNoise
from ohmloop.device._part import Constant, Part
from ohmloop.device._physics import Physics
from ohmloop.device._presets import list_presets
from ohmloop.device._pulse_curve import asymmetry, nonlinearity
from ohmloop.device._pulses import PulseResponse, SoftPulses, Step, TablePulses
from ohmloop.device._released_table import released_level_table
from ohmloop.device._residuals import Residuals, pulse_residuals, retention_residuals
from ohmloop.device._task_accuracy import (
    Axis,
    Predicted,
    TaskAccuracy,
    load_task_accuracy,
    save_task_accuracy,
    table_distortion,
)
from ohmloop.device._thermal import Thermal
from ohmloop.device._virtual_lab import VirtualDevice, VirtualLab, write_workbook
from ohmloop.device._write_verify import WriteResult

__all__ = [
    "Axis",
    "Constant",
    "DeviceModel",
    "Drift",
    "Estimate",
    "Faults",
    "Flicker",
    "LogLaw",
    "Part",
    "Physics",
    "PowerDrift",
    "Predicted",
    "PulseResponse",
    "ReadNoise",
    "Residuals",
    "SoftPulses",
    "Source",
    "Step",
    "TablePulses",
    "TaskAccuracy",
    "Thermal",
    "Variation",
    "VirtualDevice",
    "VirtualLab",
    "WalkDrift",
    "WriteNoise",
    "WriteResult",
    "asymmetry",
    "export_device",
    "fit",
    "fit_measurements",
    "fit_pulses",
    "fit_retention",
    "level_table",
    "list_devices",
    "list_presets",
    "load_device",
    "load_task_accuracy",
    "nonlinearity",
    "pulse_residuals",
    "released_level_table",
    "retention_residuals",
    "sample",
    "save_device",
    "save_task_accuracy",
    "table_distortion",
    "write_export",
    "write_workbook",
]
