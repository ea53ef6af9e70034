"""The array experiment: trained, written, read, counted; every figure follows from what the cells hold."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ohmloop.crossbar import Hardware
from ohmloop.device import load_device
from ohmloop.errors import ConversionError
from ohmloop.experiment import ArraySetting, ArrayStudy, run_arrays
from ohmloop.nn import Deployment, analogize, device_seed, digitize, program
from ohmloop.report import write_arrays
from ohmloop.tasks import task
from ohmloop.train import fit


@pytest.fixture(scope="module")
def study() -> ArrayStudy:
    return run_arrays(ArraySetting(methods=("erm",), n_arrays=20, seeds=(0, 1), epochs=60))


def test_letters_fill_the_ten_rows_of_a_small_array(study: ArrayStudy) -> None:
    (matrix,) = study.matrices
    assert matrix.held.shape == (
        2,
        3,
        10,
    )  # nine pixels and the bias; a pair for each of three letters
    assert study.cost.operations == 2 * 30
    assert study.n_test == 108


def test_every_writing_and_deployment_is_scored_on_all_chips(study: ArrayStudy) -> None:
    found = {(row.writing, row.deployment) for row in study.rows}
    assert found == {
        (writing, deployment)
        for writing in ("exact cells", "written once", "written and verified")
        for deployment in ("none", "readout")
    }
    for row in study.rows:
        assert row.scores.shape == (2, 20)
        assert row.development is not None
        assert row.development.shape == (2, 20)
        assert row.digital.shape == (2,)


def test_exact_cells_are_as_good_as_the_digital_network(study: ArrayStudy) -> None:
    exact = next(r for r in study.rows if (r.writing, r.deployment) == ("exact cells", "none"))
    # Chips without write error are all alike; 8-bit converters may turn a test image at most.
    assert float(exact.scores.std(1).max()) == 0
    assert abs(float(exact.scores.mean() - exact.digital.mean())) <= 1 / 108


def test_verified_cells_lie_within_tolerance_and_once_written_ones_do_not(
    study: ArrayStudy,
) -> None:
    (matrix,) = study.matrices
    span = 1.7240831227331793e-06 - 1.3322932913957174e-08  # the measured window of nanowire-30
    error = np.abs(matrix.held - matrix.target) / span
    assert matrix.unconverged == 0
    assert float(error.max()) <= 0.02
    assert matrix.pulses > 2


def test_the_cells_shown_are_those_of_a_scored_chip(study: ArrayStudy) -> None:
    setting = study.setting
    device = load_device(setting.device)
    network = fit(
        task("letters"),
        "erm",
        model="linear",
        hardware=Hardware(device=device),
        deployment=Deployment(calibration="readout", samples=24),
        epochs=setting.epochs,
        seed=0,
    ).model
    verified = setting.array(setting.writings(has_pulses=False)["written and verified"], 1.7e-6)
    exact = verified.model_copy(update={"dac": None, "adc": None, "wires": None})
    model = analogize(digitize(network), Hardware(device=device, array=exact))
    generator = torch.Generator().manual_seed(device_seed(7, 0))
    program(model, generator)
    with torch.no_grad():
        pixels = model(torch.eye(9)) - model(torch.zeros(1, 9))  # the weights of one chip, in x out
    (matrix,) = study.matrices
    full = float(max(p.detach().abs().max() for p in network.parameters()))
    span = matrix.target.max() - 1.3322932913957174e-08
    wanted = (matrix.held[0] - matrix.held[1]) * full / span
    assert np.allclose(pixels.numpy(), wanted[:, :9].T, atol=1e-5 * full)


def test_a_poor_device_is_told_from_a_good_one() -> None:
    poor = run_arrays(
        ArraySetting(methods=("erm",), n_arrays=30, seeds=(0,), epochs=60, device="lognormal:1.5")
    )
    once = {r.deployment: r.scores.mean() for r in poor.rows if r.writing == "written once"}
    verified = {
        r.deployment: r.scores.mean() for r in poor.rows if r.writing == "written and verified"
    }
    assert once["none"] < 0.9
    assert verified["none"] > once["none"]


@pytest.mark.slow
def test_a_repeated_run_gives_the_same_bytes(tmp_path: Path) -> None:
    setting = ArraySetting(methods=("erm",), n_arrays=2, seeds=(0,), epochs=2)
    pages = []
    for name in ("a", "b"):
        result = run_arrays(setting, folder=tmp_path / name)
        pages.append(write_arrays(result, tmp_path / name))
    assert pages[0].read_bytes() == pages[1].read_bytes()
    for name in ("cells.csv", "accuracies.csv", "arrays.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_after_the_chips_it_has_scored(tmp_path: Path) -> None:
    setting = ArraySetting(methods=("erm",), n_arrays=2, seeds=(0,), epochs=2)
    whole = run_arrays(setting, folder=tmp_path)
    kept = sorted((tmp_path / "scores").iterdir())
    assert len(kept) == 6  # three writings, with and without readout
    marked = json.loads(kept[0].read_text())
    marked["test"] = [0.25, 0.75]  # shows which scores were read, and not made again
    kept[0].write_text(json.dumps(marked))
    kept[1].write_text("{", encoding="utf-8")  # the disk was full
    kept[2].unlink()
    again = run_arrays(setting, folder=tmp_path)
    found = [
        (a.scores.tolist(), b.scores.tolist()) for a, b in zip(whole.rows, again.rows, strict=True)
    ]
    assert sum(a == b for a, b in found) == 5
    assert sum(b == [[0.25, 0.75]] for _, b in found) == 1


@pytest.mark.slow
def test_scores_of_other_chips_are_not_taken_for_these(tmp_path: Path) -> None:
    setting = ArraySetting(methods=("erm",), n_arrays=2, seeds=(0,), epochs=2)
    run_arrays(setting, folder=tmp_path)
    for other in ({"wire": 30.0}, {"n_arrays": 3}):
        changed = setting.model_copy(update=other)
        fresh = run_arrays(changed)
        for a, b in zip(run_arrays(changed, folder=tmp_path).rows, fresh.rows, strict=True):
            assert a.scores.tolist() == b.scores.tolist()


@pytest.mark.slow
def test_the_report_stands_alone_and_its_tables_hold_every_cell(
    study: ArrayStudy, tmp_path: Path
) -> None:
    page = write_arrays(study, tmp_path).read_text("utf-8")
    # Names of XML's vocabularies look like addresses; nothing is loaded from them.
    assert (
        re.search(r"(?:src|href)\s*=\s*[\"'](?!#|data:)|@import|url\((?!#)|<script", page) is None
    )
    assert "simulated" in page
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == 1 + 2 * 3 * 10
    assert len((tmp_path / "accuracies.csv").read_text().splitlines()) == 1 + 6 * 2 * 20
    kept = json.loads((tmp_path / "arrays.json").read_text())
    assert kept["cost"]["energy_J"] == pytest.approx(study.cost.energy, rel=1e-12, abs=0)


def test_networks_with_other_layers_are_sent_elsewhere(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(ConversionError, match=r'layer ".*" is a Conv2d.*analogize'):
        run_arrays(
            ArraySetting(
                size=64, task="mnist", model="lenet", methods=("erm",), n_arrays=1, seeds=(0,)
            ),
            data=tmp_path,
        )


def write_images(folder: Path) -> None:
    """Write a few images of noise as the files of MNIST."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("t10k", 10)):
        for name, values in (
            ("images-idx3", rng.integers(0, 256, (n, 28, 28), np.uint8)),
            ("labels-idx1", np.arange(n, dtype=np.uint8) % 10),
        ):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            (folder / f"{part}-{name}-ubyte").write_bytes(head + values.tobytes())


@pytest.mark.parametrize(
    ("setting", "match"),
    [({"size": 11}, "10, 64 or 256"), ({"n_arays": 3}, "n_arays"), ({"tolerance": 0}, "tolerance")],
)
def test_impossible_settings_are_refused(setting: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ArraySetting.model_validate(setting)


def test_wires_are_solved_exactly_where_they_could_matter() -> None:
    assert ArraySetting(size=10).solution(1.7e-6) == "exact"
    assert ArraySetting(size=64).solution(1.7e-6) == "fast"
    assert ArraySetting(size=64).solution(1e-3) == "exact"
    assert ArraySetting(size=64, wire_solution="exact").solution(1e-9) == "exact"
