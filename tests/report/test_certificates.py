"""The page of certificates: self-contained, repeatable, and true to its records."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ohmloop.certify import Certificate, Law, box_certificate, certify, poll
from ohmloop.crossbar import Hardware
from ohmloop.errors import OhmloopError
from ohmloop.nn import analogize
from ohmloop.report import (
    Observed,
    certificates_figure,
    render_certificates,
    write_certificates,
)


@pytest.fixture(scope="module")
def made() -> tuple[tuple[Certificate, ...], Observed]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        x = torch.randn(30, 6)
    y = model(x).argmax(1)
    hardware = Hardware.model_validate({"device": "lognormal:0.3"})
    analogize(model, hardware)
    law = Law.of(hardware)
    certificates = certify(
        model, (x, y), law, statements=("yield", "percentile", "drift"), n_devices=800
    )
    box = box_certificate(model, (x, y), method="linear")
    return (*certificates, box), Observed((0.0,), (poll(model, (x, y), law, seed=5),), "as <drawn>")


@pytest.mark.slow
def test_the_page_needs_no_network_and_repeats(
    made: tuple[tuple[Certificate, ...], Observed],
) -> None:
    certificates, seen = made
    groups = {'a <b>"network"</b>': certificates}
    page = render_certificates(groups, {'a <b>"network"</b>': seen})
    assert page == render_certificates(groups, {'a <b>"network"</b>': seen})
    assert "<b>&#34;network" not in page
    assert "a &lt;b&gt;" in page
    assert "as &lt;drawn&gt;" in page
    outside = page.replace("http://www.w3.org/", "").replace("http://purl.org/", "")
    outside = outside.replace("http://creativecommons.org/", "")
    for mark in ("http://", "https://", "<script", "<link", "@import"):
        assert mark not in outside


def test_every_claim_and_hash_is_on_the_page(
    made: tuple[tuple[Certificate, ...], Observed],
) -> None:
    import html

    certificates, _ = made
    page = html.unescape(render_certificates({"network": certificates}))
    for c in certificates:
        assert c.claim in page
        assert c.theorem in page
        assert c.weights in page
        assert c.data in page
        for text in c.limits:
            assert text in page


def test_a_panel_for_each_kind(made: tuple[tuple[Certificate, ...], Observed]) -> None:
    certificates, seen = made
    figure = certificates_figure({"network": certificates}, {"network": seen})
    assert sum(axes.get_visible() for axes in figure.axes) == 4
    only = [c for c in certificates if c.kind == "box"]
    assert len(certificates_figure({"network": only}).axes) == 1


def test_no_curve_is_an_error(made: tuple[tuple[Certificate, ...], Observed]) -> None:
    certificates, _ = made
    with pytest.raises(OhmloopError, match="none of the certificates has a curve"):
        certificates_figure({"network": [c for c in certificates if c.kind == "tail"]})


@pytest.mark.slow
def test_the_file_is_written(
    made: tuple[tuple[Certificate, ...], Observed], tmp_path: Path
) -> None:
    certificates, _ = made
    path = write_certificates({"network": certificates}, tmp_path / "new", title="Ours")
    assert path.read_text(encoding="utf-8").count("<h1>Ours</h1>") == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(OhmloopError, match="cannot be written"):
        write_certificates({"network": certificates}, tmp_path / "file")
