"""A run's report: true to what is kept of the run, self-contained, the same bytes every time."""

import html
import json
import shutil
from pathlib import Path

import pytest
from tests.report.selfcontained import check, table

from ohmloop.certify import certify_folder
from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.device import load_device
from ohmloop.errors import TrainError
from ohmloop.report import write_run
from ohmloop.tasks import task
from ohmloop.train import Evaluation, evaluate_folder, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "iris-1"
    own = Hardware(device=load_device("lognormal:0.3"))
    fit(task("iris"), "weight-noise:level=0.3", hardware=own, epochs=4, run_dir=folder)
    laws = [Hardware(device=load_device(name)) for name in ("lognormal:0.3", "lognormal:0.8")]
    array = Array(rows=16, columns=16, dac=DAC(bits=8), adc=ADC(bits=8))
    chips = Hardware(device=load_device("nanowire-30"), array=array)
    evaluate_folder(folder, [*laws, chips], n_devices=12)
    certify_folder(folder, n_devices=200, test_limit=20)
    return folder


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(run, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return html.unescape(check(written)).replace("\u00a0", " ")


def shown(run: Path, out: Path) -> str:
    return html.unescape(check(write_run(run, out))).replace("\u00a0", " ")


def kept(run: Path) -> list[Evaluation]:
    files = sorted((run / "evaluations").glob("*.json"))
    return [Evaluation.model_validate_json(f.read_text()) for f in files]


def test_the_headline_cards_and_table_say_what_was_measured(run: Path, page: str) -> None:
    own = next(e for e in kept(run) if e.device == "lognormal:0.3")
    score = f"{100 * own.mean:.1f} ± {100 * own.std:.1f} %"
    assert page.count(score) >= 3  # headline, card, table
    assert f"the worst tenth of them {100 * own.worst_tenth:.1f} %" in page
    assert "12 simulated devices of lognormal:0.3" in page
    assert "nanowire-30 on 16 x 16 arrays" in page
    assert "simulated devices</p>" in page


def test_every_certificate_is_on_the_page_in_words(run: Path, page: str) -> None:
    certificates = json.loads((run / "certificates.json").read_text())["kept"]
    assert len(certificates) >= 4
    for c in certificates:
        assert c["record"]["claim"] in page
        assert c["record"]["theorem"] in page
        for limit in c["record"]["limits"]:
            assert limit in page


def test_tables_beside_the_page_hold_every_device_and_layer(run: Path, written: Path) -> None:
    out = written.parent
    rows = table(out / "run-accuracy-per-device.csv")
    assert len(rows) == 3 * 12
    chips = next(e for e in kept(run) if e.on_array)
    assert [float(r["score"]) for r in rows if r["evaluation"] == chips.name] == list(chips.scores)
    assert chips.arrays is not None
    (layers,) = out.glob("run-layers-*.csv")
    energies = [float(row["energy_J"]) for row in table(layers)]
    assert sum(energies) == pytest.approx(chips.arrays.energy)
    assert len(table(out / "run-history.csv")) == 4


def test_settings_sources_and_hashes_are_named(run: Path, page: str) -> None:
    config = json.loads((run / "config.json").read_text())
    for key in ("batch_size", "lr", "schedule", "epochs"):
        assert f"<td>{key}</td>" in page
        assert f"{config[key]}" in page
    assert "Joshi et al." in page
    assert "arXiv 2412.02779" in page
    assert "Device nanowire-30: " in page
    assert kept(run)[0].weights_sha256 in page
    for source in load_device("nanowire-30").sources:
        assert source.sha256 in page
    assert task("iris").entry.citation.rstrip(".") in page


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(run: Path, written: Path, tmp_path: Path) -> None:
    write_run(run, tmp_path)
    names = {path.name for path in written.parent.iterdir()}
    assert "run.html" in names
    assert names == {path.name for path in tmp_path.iterdir()}
    for name in names:
        assert (written.parent / name).read_bytes() == (tmp_path / name).read_bytes()


def test_what_was_measured_on_other_weights_is_marked_and_left_out(
    run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "iris-1"
    shutil.copytree(run, other)
    with (other / "weights.pt").open("ab") as handle:
        handle.write(b"changed")
    page = shown(other, tmp_path / "out")
    assert page.count("stale: measured on other weights") == 3
    assert "certificates are about other weights than these" in page
    assert "has not been measured on devices yet" in page
    assert not (tmp_path / "out" / "run-accuracy-against-sigma.csv").exists()


def test_a_run_that_was_only_trained_has_a_page_that_says_what_to_do(
    run: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("evaluations", "certificates.json"))
    page = shown(bare, tmp_path / "out")
    assert "ohmloop evaluate bare --sigma" in page
    assert "ohmloop certify bare" in page
    assert "Validation accuracy" in page


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"config\.json cannot be read"):
        write_run(tmp_path, tmp_path / "out")
