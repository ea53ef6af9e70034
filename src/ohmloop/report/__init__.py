"""Figures and one-file reports. No logic: numbers in, pictures and pages out."""

from ohmloop.report._arrays import (
    accuracy_figure,
    array_figure,
    energy_figure,
    render_arrays,
    write_arrays,
)
from ohmloop.report._campaign import draw_replay, write_campaign
from ohmloop.report._certificates import (
    Observed,
    certificates_figure,
    render_certificates,
    write_certificates,
)
from ohmloop.report._charts import accuracy_against_sigma, accuracy_per_device, device_map
from ohmloop.report._comparison import write_comparison
from ohmloop.report._demo import devices_from, run_study
from ohmloop.report._device_plots import (
    fitted_figure,
    quantile_figure,
    residual_figure,
    write_device_plots,
)
from ohmloop.report._iv_plots import sweep_figure, write_sweep_plots
from ohmloop.report._loop import write_loop
from ohmloop.report._report import default_folder, kind_of, write_report
from ohmloop.report._run import write_run
from ohmloop.report._study import Agreement, MethodResult, Study, agreement, choose_devices
from ohmloop.report._study_page import render_study, study_tables, write_study
from ohmloop.report._style import to_svg

__all__ = [
    "Agreement",
    "MethodResult",
    "Observed",
    "Study",
    "accuracy_against_sigma",
    "accuracy_figure",
    "accuracy_per_device",
    "agreement",
    "array_figure",
    "certificates_figure",
    "choose_devices",
    "default_folder",
    "device_map",
    "devices_from",
    "draw_replay",
    "energy_figure",
    "fitted_figure",
    "kind_of",
    "quantile_figure",
    "render_arrays",
    "render_certificates",
    "render_study",
    "residual_figure",
    "run_study",
    "study_tables",
    "sweep_figure",
    "to_svg",
    "write_arrays",
    "write_campaign",
    "write_certificates",
    "write_comparison",
    "write_device_plots",
    "write_loop",
    "write_report",
    "write_run",
    "write_study",
    "write_sweep_plots",
]
