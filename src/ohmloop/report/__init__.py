"""Figures and one-file reports. No logic: numbers in, pictures and pages out."""

from ohmloop.report._campaign import draw_replay, write_campaign
from ohmloop.report._charts import accuracy_against_sigma, accuracy_per_device, device_map
from ohmloop.report._demo import devices_from, run_study
from ohmloop.report._iv_plots import sweep_figure, write_sweep_plots
from ohmloop.report._page import render_study, study_tables, write_study
from ohmloop.report._study import Agreement, MethodResult, Study, agreement, choose_devices
from ohmloop.report._style import to_svg

__all__ = [
    "Agreement",
    "MethodResult",
    "Study",
    "accuracy_against_sigma",
    "accuracy_per_device",
    "agreement",
    "choose_devices",
    "device_map",
    "devices_from",
    "draw_replay",
    "render_study",
    "run_study",
    "study_tables",
    "sweep_figure",
    "to_svg",
    "write_campaign",
    "write_study",
    "write_sweep_plots",
]
