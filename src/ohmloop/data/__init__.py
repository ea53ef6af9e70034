"""Instrument files become sweeps, pulse trains and retention; sweeps become figures of merit."""

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
from ohmloop.data._pulse_train import Branch, PulseTrain, read_pulse_train
from ohmloop.data._read import Guess, read, sniff
from ohmloop.data._recipe import FileRecipe, FoundColumn, columns_of, confirmed, recognise
from ohmloop.data._retention import (
    KindGuess,
    Retention,
    read_measurement,
    read_retention,
    sniff_kind,
)
from ohmloop.data._sweep import Note, Sweep

__all__ = [
    "Analysis",
    "Branch",
    "FiguresOfMerit",
    "FileRecipe",
    "FoundColumn",
    "Guess",
    "KindGuess",
    "Note",
    "PulseTrain",
    "Ramp",
    "Retention",
    "Sweep",
    "analyze_files",
    "columns_of",
    "confirmed",
    "figures_of_merit",
    "find_files",
    "log_deviations",
    "mean_over_cycles",
    "monotone_window",
    "published_ramp",
    "read",
    "read_measurement",
    "read_pulse_train",
    "read_retention",
    "read_table",
    "recognise",
    "sniff",
    "sniff_kind",
]
