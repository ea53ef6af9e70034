"""``ohmloop certify``: words a lab understands on stdout, talk on stderr, errors in one line."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ohmloop.certify import QuantileCertificate
from ohmloop.cli import main
from ohmloop.cli._app import app
from ohmloop.errors import CertifyError
from ohmloop.tasks import task
from ohmloop.train import fit, read_kept_certificates


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "iris"
    fit(task("iris"), "multinomial:p0=0.2", epochs=3, run_dir=folder)
    return folder


def call(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["certify", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


def test_words_on_stdout_and_the_next_step_on_stderr(run: Path) -> None:
    out, err = call(str(run), "--device", "lognormal:0.1", "--n-devices", "300")
    flat = " ".join(out.split())
    assert "95 of 100 devices drawn from the law classify at least" in flat
    assert "one cell: by a factor of" in flat
    assert "nothing about one given chip" in flat
    assert "300 virtual devices, simulated" in flat
    assert "Next: more devices" in err
    assert "all 6 together with at least 70 %" in err


@pytest.mark.slow
def test_json_and_files_hold_whole_records(run: Path, tmp_path: Path) -> None:
    out, err = call(
        *(str(run), "--device", "nanowire-07", "--device", "lognormal:0.2", "--json"),
        *("--statement", "all", "--n-devices", "300", "-o", str(tmp_path / "c")),
        *("--gain", "layer:0.1", "--ablation", "tile:0.6:16x16"),
    )
    records = json.loads(out)
    kinds = [r["kind"] for r in records]
    each = ["yield", "quantile", "quantile", "tail", "percentile", "drift", "kl", "faults"]
    assert kinds == [*each, "box", "published"] * 2
    files = sorted((tmp_path / "c").glob("*.json"))
    assert len(files) == len(records)
    quantile = next(f for f in files if "quantile" in f.name)
    assert QuantileCertificate.model_validate_json(quantile.read_bytes()).share == 0.95
    assert "Wrote 20 certificates" in err
    page = (tmp_path / "c" / "certificates.html").read_text("utf-8")
    assert "nanowire-07" in page
    assert "<svg" in page
    published = records[-1]
    assert published["p1"] == pytest.approx(0.2)
    assert published["p2"] == pytest.approx(0.4)
    assert published["claim"].startswith("No claim")


def test_divided_cells_are_certified_said_and_kept(run: Path, tmp_path: Path) -> None:
    arguments = (str(run), "--device", "lognormal:0.5", "--n-devices", "300")
    out, _ = call(*arguments, "--deployment", "channel:cells=3", "-o", str(tmp_path))
    assert "arrays of each layer: " in out
    divided = read_kept_certificates(run)[-1].record["layer_arrays"]
    assert max(divided.values()) > min(divided.values()) >= 1
    page = (tmp_path / "certificates.html").read_text("utf-8")
    assert ", ".join(f"{layer} {m}" for layer, m in divided.items()) in page


def test_uncertain_sigma_can_be_taken_as_exact(run: Path) -> None:
    arguments = (str(run), "--device", "nanowire-07", "--statement", "yield", "--n-devices", "100")
    drawn, _ = call(*arguments)
    exact, _ = call(*arguments, "--sigma", "fixed")
    assert "sigma drawn from its calibration" in " ".join(drawn.split())
    assert "sigma taken as exact" in " ".join(exact.split())


def test_real_chips_are_certified_from_a_table(run: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("chip,accuracy\n" + "".join(f"{k},{0.9 + k / 1e4}\n" for k in range(60)))
    out, _ = call(str(run), "--chips", str(scores))
    flat = " ".join(out.split())
    assert "95 of 100 chips classify at least 90 % of the inputs right" in flat
    assert "60 measured chips (scores.csv)" in flat
    n = len(task("iris").test(0).y)
    classes = tmp_path / "classes.csv"
    head = ",".join(f"x{k}" for k in range(n))
    classes.write_text(head + "\n" + "\n".join(",".join(["0"] * n) for _ in range(59)) + "\n")
    records = json.loads(call(str(run), "--chips", str(classes), "--json")[0])
    assert [r["kind"] for r in records] == ["yield", "quantile", "tail"]
    # All chips say class 0: right for a third of the flowers.
    assert records[1]["bound"] == pytest.approx(1 / 3)


def test_too_few_devices_say_how_many_it_takes(run: Path) -> None:
    with pytest.raises(CertifyError, match="at least 59"):
        call(str(run), "--statement", "yield", "--n-devices", "58")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gain", "cell:0.1"), "--gain: expected GROUP:NUMBER"),
        (("--ablation", "tile:1.5"), "--ablation: expected GROUP:NUMBER"),
        (("--sigma", "exact"), "--sigma is fixed or predictive"),
        (("--convention", "mode-1"), "--convention is median-1 or mean-1"),
    ],
)
def test_wrong_options_are_named(run: Path, arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, ["certify", str(run), *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_errors_end_with_exit_code_1_and_one_message(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ohmloop", "certify", str(run), "--statement", "faults"])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err
    assert said.startswith("CertifyError: a statement about faults needs a law")
