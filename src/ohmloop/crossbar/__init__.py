"""Weights on arrays: what hardware a network runs on."""

from ohmloop.crossbar._hardware import Convention, Hardware

__all__ = ["Convention", "Hardware"]
