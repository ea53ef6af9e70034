"""Figures and one-file reports. No logic: numbers in, pictures and pages out."""

from ohmloop.report._demo import devices_from, run_study
from ohmloop.report._iv_plots import sweep_figure, write_sweep_plots
from ohmloop.report._page import render_study, study_tables, write_study
from ohmloop.report._study import Agreement, MethodResult, Study, agreement, choose_devices

__all__ = [
    "Agreement",
    "MethodResult",
    "Study",
    "agreement",
    "choose_devices",
    "devices_from",
    "render_study",
    "run_study",
    "study_tables",
    "sweep_figure",
    "write_study",
    "write_sweep_plots",
]
