"""Figures and one-file reports. No logic: numbers in, pictures and pages out."""

from ohmloop.report._page import render_study, study_tables, write_study
from ohmloop.report._study import Agreement, MethodResult, Study, agreement, choose_devices

__all__ = [
    "Agreement",
    "MethodResult",
    "Study",
    "agreement",
    "choose_devices",
    "render_study",
    "study_tables",
    "write_study",
]
