"""Stochastic device models, fitted from measured sweeps. Knows no network."""

from ohmloop.device._fit import fit, level_table
from ohmloop.device._library import list_devices, load_device, sample, save_device
from ohmloop.device._model import DeviceModel, Estimate, Source
from ohmloop.device._virtual_lab import VirtualDevice, VirtualLab, write_workbook

__all__ = [
    "DeviceModel",
    "Estimate",
    "Source",
    "VirtualDevice",
    "VirtualLab",
    "fit",
    "level_table",
    "list_devices",
    "load_device",
    "sample",
    "save_device",
    "write_workbook",
]
