"""What is kept of a run: replaced where the question is the same, added where not, read without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ohmloop.certify import certify_chips_folder, certify_folder, read_certificate
from ohmloop.crossbar import Array, Hardware
from ohmloop.device import load_device
from ohmloop.errors import CertifyError, TrainError
from ohmloop.tasks import task
from ohmloop.train import (
    evaluate_folder,
    evaluate_run,
    fit,
    list_methods,
    load_run,
    method_citation,
    read_evaluations,
    read_kept_certificates,
    read_run,
)

LAW = Hardware(device=load_device("lognormal:0.3"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fit(task("iris"), "erm", hardware=LAW, epochs=2, run_dir=tmp_path / "run")
    return tmp_path / "run"


def test_a_fleet_is_kept_as_it_was_measured(folder: Path) -> None:
    (made,) = evaluate_folder(folder, n_devices=5)
    fleet = evaluate_run(load_run(folder), n_devices=5)[0]
    (kept,) = read_evaluations(folder)
    assert kept == made
    assert list(kept.scores) == fleet.scores.tolist()
    assert (kept.mean, kept.std, kept.worst_tenth) == (fleet.mean, fleet.std, fleet.worst)
    assert kept.hardware == LAW.model_dump(mode="json")
    assert not kept.on_array
    assert kept.arrays is None
    record = read_run(folder)
    assert record.evaluations == (kept,)
    assert not record.is_stale(kept)


def test_the_same_question_replaces_and_another_is_added(folder: Path) -> None:
    evaluate_folder(folder, n_devices=3)
    evaluate_folder(folder, n_devices=3)
    assert len(read_evaluations(folder)) == 1
    evaluate_folder(folder, n_devices=3, seed=1)
    evaluate_folder(folder, n_devices=4)
    evaluate_folder(folder, [Hardware(device=load_device("nanowire-30"))], n_devices=3)
    assert len(read_evaluations(folder)) == 4


def test_a_fleet_on_arrays_knows_tiles_and_energy(folder: Path) -> None:
    chips = Hardware(device=load_device("nanowire-30"), array=Array(rows=16, columns=16))
    (made,) = evaluate_folder(folder, [chips], n_devices=2)
    assert made.on_array
    assert made.arrays is not None
    assert made.arrays.tiles == sum(layer.tiles or 0 for layer in made.arrays.layers) > 0
    assert made.arrays.energy == pytest.approx(sum(x.energy or 0.0 for x in made.arrays.layers))
    assert read_evaluations(folder) == (made,)


def test_certificates_are_replaced_by_statement_and_question(folder: Path) -> None:
    certify_folder(folder, statements=("yield", "drift"), n_devices=60, test_limit=10)
    first = read_kept_certificates(folder)
    assert {c.asked for c in first} == {"yield", "drift"}
    made = certify_folder(folder, statements=("yield",), n_devices=60, test_limit=10)
    again = read_kept_certificates(folder)
    assert len(again) == len(first)
    assert [read_certificate(c.record) for c in again if c.asked == "yield"] == list(made)
    certify_folder(folder, statements=("yield",), n_devices=61, test_limit=10)
    assert len(read_kept_certificates(folder)) == len(first) + len(made)
    assert again[0].claim == read_certificate(again[0].record).claim
    assert again[0].confidence == pytest.approx(0.95)
    certify_folder(folder, statements=("published",))
    assert read_kept_certificates(folder)[-1].confidence is None


def test_measured_chips_are_kept_with_the_hash_of_their_table(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "chips.csv").write_text("accuracy\n" + "0.9\n" * 100)
    certify_chips_folder(tmp_path / "chips.csv", folder)
    (kept, *_) = read_kept_certificates(folder)
    assert kept.hardware is None
    assert kept.device == "as in chips.csv"
    assert len(kept.settings["sha256"]) == 64


def test_changed_weights_make_what_was_measured_stale(folder: Path) -> None:
    evaluate_folder(folder, n_devices=2)
    certify_folder(folder, statements=("published",))
    with (folder / "weights.pt").open("ab") as handle:
        handle.write(b"x")
    record = read_run(folder)
    assert record.is_stale(record.evaluations[0])
    assert record.is_stale(record.certificates[0])


def test_damage_is_said_with_the_file(folder: Path) -> None:
    (made,) = evaluate_folder(folder, n_devices=2)
    file = folder / "evaluations" / f"{made.name}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "extra": 1}))
    with pytest.raises(TrainError, match=r"extra: .* Delete the file and measure again"):
        read_run(folder)
    with pytest.raises(CertifyError, match="no kind of certificate 'other'"):
        read_certificate({"kind": "other"})
    (folder / "result.json").unlink()
    with pytest.raises(TrainError, match="is not finished"):
        read_run(folder)


def test_reading_loads_no_torch(folder: Path) -> None:
    evaluate_folder(folder, n_devices=2)
    code = (
        "import sys; from ohmloop.train import read_comparison_record, read_run\n"
        f"assert read_run({str(folder)!r}).evaluations\n"
        "print([m for m in ('torch', 'scipy', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_method_says_where_it_comes_from() -> None:
    assert all(method_citation(name) for name in list_methods())
    assert method_citation("nothing:like=this") == ""
