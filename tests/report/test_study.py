"""The comparison report: self-contained, repeatable, and true to its numbers."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import OhmloopError
from ohmloop.report import (
    MethodResult,
    Study,
    agreement,
    choose_devices,
    render_study,
    study_tables,
    write_study,
)

SIGMAS = (0.2, 0.6)


def _device(index: int, sigma: float, published: float | None = None) -> DeviceModel:
    return DeviceModel(
        name=f"device-{index}",
        description='<b>"hostile" & name</b>',
        sigma=Estimate(value=sigma, low=sigma * 0.9, high=sigma * 1.1),
        figures={"usability": 0.3 * np.exp(-sigma), "monotonicity": 0.3, "cycles": 7},
        recipe={"material": "MAPbI3"},
        published={} if published is None else {"lenet_mnist_accuracy": published},
    )


def _study(n_devices: int = 5, published: bool = True) -> Study:
    rng = np.random.default_rng(3)
    sigma = np.linspace(0.1, 1.5, n_devices)
    devices = tuple(
        _device(i, float(s), float(np.exp(-s)) if published else None) for i, s in enumerate(sigma)
    )

    def result(name: str, loss: float) -> MethodResult:
        noise = 0.01 * rng.random((n_devices, 2, 4))
        return MethodResult(
            method=name,
            cost=1.0,
            clean=np.array([0.97, 0.96]),
            sweep=np.clip(rng.random((2, 2, 4)), 0, 1),
            on_devices=np.exp(-loss * sigma)[:, None, None] * (1 - noise),
            seconds=1.0,
            settings=("level 0.5", "level 0.7"),
        )

    best, median = choose_devices(devices)
    return Study(
        task="digits (8x8 images)",
        model="MLP",
        epochs=3,
        seeds=(0, 1),
        n_devices=4,
        sigmas=SIGMAS,
        devices=devices,
        best=best,
        median=median,
        results=(result("erm", 0.5), result("weight-noise", 0.2)),
        chance=0.1,
        split_sizes=(10, 5, 5),
        provenance=(("torch", "x"),),
    )


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "img", "iframe"}
        # xlink:href="#..." refers into the same file.
        self.found += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href"}]


def test_report_needs_nothing_from_outside() -> None:
    page = render_study(_study(), agreement(_study()))
    links = _Links()
    links.feed(page)
    assert all(link.startswith("#") for link in links.found)
    assert "@import" not in page
    assert not re.search(r"url\((?!#|['\"]?#)", page)


@pytest.mark.slow
def test_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    write_study(_study(), tmp_path / "a")
    write_study(_study(), tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "accuracy_against_sigma.csv",
        "accuracy_per_device.csv",
        "devices.csv",
        "report.html",
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_text_from_files_is_escaped() -> None:
    page = render_study(_study())
    assert "<b>" not in page.replace("<b>5</b>", "").split("<h2>The devices")[1]
    assert "&lt;b&gt;" in page


def test_tables_hold_every_number_of_the_figures() -> None:
    study = _study()
    rows = list(csv.DictReader(io.StringIO(study_tables(study)["accuracy_against_sigma.csv"])))
    assert len(rows) == 2 * 2 * 2 * 4
    mine = [
        float(r["accuracy"])
        for r in rows
        if r["method"] == "erm" and float(r["sigma"]) == SIGMAS[1]
    ]
    assert np.allclose(mine, study.results[0].sweep[1].ravel(), atol=1e-6)


def test_agreement_is_the_rank_correlation() -> None:
    found = agreement(_study())
    assert found is not None
    assert found.n == 5
    # Published values fall with sigma, and so does the simulated accuracy.
    assert found.spearman["minus sigma"] == pytest.approx(1.0)
    assert found.spearman["simulated accuracy, erm"] == pytest.approx(1.0)
    # Monotonicity is the same for all: no order, hence no entry.
    assert "monotonicity" not in found.spearman


def test_own_devices_have_no_page_on_published_figures() -> None:
    assert agreement(_study(published=False)) is None
    assert "agree with what was published" not in render_study(_study(published=False))


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_devices_are_enough(n: int) -> None:
    study = _study(n_devices=n)
    assert render_study(study, agreement(study)).endswith("</html>")


def test_best_is_by_usability_and_median_by_sigma() -> None:
    devices = tuple(_device(i, s) for i, s in enumerate((0.9, 0.1, 0.5, 2.0)))
    assert choose_devices(devices) == (1, 2)


def test_unwritable_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OhmloopError, match="--out"):
        write_study(_study(), tmp_path / "taken")
