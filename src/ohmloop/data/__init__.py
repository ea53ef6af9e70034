"""Instrument files become I-V sweeps, and sweeps become figures of merit."""

from ohmloop.data._analyze import Analysis, analyze_files
from ohmloop.data._figures import FiguresOfMerit, figures_of_merit
from ohmloop.data._files import find_files
from ohmloop.data._grid import read_table
from ohmloop.data._published import (
    Ramp,
    log_deviations,
    mean_over_cycles,
    monotone_window,
    published_ramp,
)
from ohmloop.data._read import Guess, read, sniff
from ohmloop.data._sweep import Note, Sweep

__all__ = [
    "Analysis",
    "FiguresOfMerit",
    "Guess",
    "Note",
    "Ramp",
    "Sweep",
    "analyze_files",
    "figures_of_merit",
    "find_files",
    "log_deviations",
    "mean_over_cycles",
    "monotone_window",
    "published_ramp",
    "read",
    "read_table",
    "sniff",
]
