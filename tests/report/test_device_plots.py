"""Residual plots: every figure says what it shows, tables hold all points, files repeat byte for byte."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.device.test_fit_pulses import simulate
from tests.device.test_fit_retention import TIMES, traces

from ohmloop.device import fit_pulses, fit_retention, pulse_residuals, retention_residuals
from ohmloop.errors import OhmloopError
from ohmloop.report import fitted_figure, quantile_figure, residual_figure, write_device_plots


@pytest.fixture(scope="module")
def parts():
    train = simulate(cycles=3)
    rng = np.random.default_rng(0)
    nu = 0.05 + 0.01 * rng.standard_normal(60)
    kept = traces(TIMES, 1e-5 * TIMES[:, None] ** -nu * (1 + 1e-3 * rng.standard_normal((61, 60))))
    return [
        pulse_residuals(fit_pulses([train], name="a", n_bootstrap=0), [train]),
        retention_residuals(fit_retention([kept], name="b", n_bootstrap=0), [kept]),
    ]


def test_figures_name_their_axes_and_what_is_left_out(parts) -> None:
    for part, x, told in zip(
        parts,
        ("Pulse number", "Time after programming / s"),
        ("6 branches", "40 of 60 traces"),
        strict=True,
    ):
        fitted, residual = fitted_figure(part).axes[0], residual_figure(part).axes[0]
        assert fitted.get_xlabel() == residual.get_xlabel() == x
        assert fitted.get_ylabel() == "Conductance / S"
        assert fitted.get_title() == residual.get_title() == told
        assert "fitted" in [t.get_text() for t in fitted.get_legend().get_texts()]
        quantiles = quantile_figure(part).axes[0]
        assert quantiles.get_xlabel() == "Normal quantile"
        n = int(quantiles.get_legend().get_texts()[1].get_text().split()[0])
        assert n == len(part.standard)


def test_polarities_differ_by_colour_and_marker(parts) -> None:
    lines = fitted_figure(parts[0]).axes[0].get_lines()
    marks = {(line.get_color(), line.get_marker()) for line in lines if line.get_marker() != "None"}
    assert len({c for c, _ in marks}) == len({m for _, m in marks}) == 2


@pytest.mark.slow
def test_files_hold_every_point_and_repeat(parts, tmp_path: Path) -> None:
    first = write_device_plots(parts, tmp_path / "a" / "plots")
    second = write_device_plots(parts, tmp_path / "b")
    assert [p.name for p in first] == [
        f"{kind}-{word}"
        for kind in ("pulses", "retention")
        for word in (
            *("fitted.svg", "residuals.svg", "quantiles.svg"),
            *("residuals.csv", "quantiles.csv"),
        )
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    for part in parts:
        with (tmp_path / "b" / f"{part.kind}-residuals.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(part.x)
        relative = np.array([float(r["relative_residual"]) for r in rows])
        np.testing.assert_array_equal(relative, part.relative)
    assert b"<svg" in first[0].read_bytes()


def test_a_folder_that_cannot_be_written_is_said(parts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OhmloopError, match="Name another folder"):
        write_device_plots(parts, tmp_path / "file")
