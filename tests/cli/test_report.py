"""``ohmloop report``: it knows what lies at a path, and says where the page is."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.campaign.small import filled
from tests.codesign.small import started
from typer.testing import CliRunner

from ohmloop.cli._app import app
from ohmloop.errors import OhmloopError
from ohmloop.tasks import task
from ohmloop.train import fit, read_comparison_record, read_evaluations, read_kept_certificates


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.mark.slow
def test_a_run_is_measured_certified_and_reported(tmp_path: Path) -> None:
    place = tmp_path / "run"
    fit(task("iris"), "erm", epochs=2, run_dir=place)
    said = run("evaluate", place, "--sigma", "0.2,0.5", "--devices", 4)
    assert f"ohmloop report {place}" in said.stderr
    assert [e.device for e in read_evaluations(place)] == ["lognormal:0.2", "lognormal:0.5"]
    run("certify", place, "--statement", "published")
    assert [c.kind for c in read_kept_certificates(place)] == ["published"]
    made = run("report", place, "--json")
    page = place / "reports" / "run.html"
    assert json.loads(made.stdout) == {"kind": "run", "file": str(page), "pdf": None}
    assert "lognormal:0.5" in page.read_text(encoding="utf-8")
    assert (page.parent / "run-accuracy-against-sigma.csv").exists()


def test_a_comparison_is_kept_and_reported(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    said = run(
        "compare", "--task", "iris", "--methods", "erm,dropout", "--sigma", "0.3", "--seeds", 2,
        "--devices", 3, "--epochs", 1, "--workers", 1, "-o", file,
    )  # fmt: skip
    assert f"ohmloop report {file}" in said.stderr
    record = read_comparison_record(file)
    assert (record.task, record.epochs, record.seeds) == ("iris", 1, (0, 1))
    assert [row.method for row in record.rows] == ["erm", "dropout"]
    made = run("report", file)
    page = tmp_path / "c-report" / "comparison.html"
    assert made.stdout.strip() == f"wrote {page}"
    assert "erm" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_campaigns_and_loops_are_told_apart(tmp_path: Path) -> None:
    with filled(tmp_path / "lab"):
        pass
    made = json.loads(run("report", tmp_path / "lab", "--json").stdout)
    assert made["kind"] == "campaign"
    same = run(
        "campaign", "report", "-C", tmp_path / "lab", "-o", tmp_path / "again" / "campaign.html"
    )
    assert same.exit_code == 0
    assert (tmp_path / "again" / "campaign.html").read_bytes() == Path(made["file"]).read_bytes()
    started(tmp_path / "loop")
    made = json.loads(run("report", tmp_path / "loop", "-o", tmp_path / "out", "--json").stdout)
    assert made == {"kind": "loop", "file": str(tmp_path / "out" / "loop.html"), "pdf": None}


def test_what_cannot_be_reported_is_said_with_what_can(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is none of these"), (tmp_path / "no", "is not there")):
        with pytest.raises(OhmloopError, match=f"{words}.*ohmloop compare -o"):
            run("report", path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(OhmloopError, match="cannot be read as JSON"):
        run("report", tmp_path / "x.json")
