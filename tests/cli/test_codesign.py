"""``ohmloop codesign`` from the command line: what is printed, written, and said to do next."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ohmloop.cli._app import app
from ohmloop.device import load_task_accuracy
from ohmloop.tasks import task
from ohmloop.train import fit

CAMPAIGN = """
schema_version = 1
name = "One setting of a nanowire"

[variables.sweep_max_v]
type = "continuous"
low = 2
high = 8

[[objectives]]
name = "task_accuracy"

[suggest]
batch = 3
initial = 3
"""


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["codesign", *map(str, arguments)], catch_exceptions=False)


def test_sensitivity_of_runs_in_words_json_and_file(tmp_path: Path) -> None:
    fit(task("digits"), "erm", epochs=2, limit=300, run_dir=tmp_path / "run")
    small = ["--points", 6, "--devices", 2]
    said = run("sensitivity", tmp_path / "run", "--device", "nanowire-28", *small)
    assert said.exit_code == 0
    assert "halving sigma (0.486 to 0.243) is worth" in said.stdout
    assert "simulated" in said.stdout
    assert "Next: -o CAMPAIGN/task-accuracy.json" in said.stderr
    out = tmp_path / "task-accuracy.json"
    data = json.loads(run("sensitivity", tmp_path / "run", *small, "--json", "-o", out).stdout)
    assert data["worths"][0]["name"] == "sigma"
    assert load_task_accuracy(out).model_dump(mode="json") == data["surrogate"]


def test_sensitivity_trains_where_no_run_is_given(tmp_path: Path) -> None:
    said = run(
        "sensitivity", "--networks", 1, "--epochs", 1, "--method", "erm", "--keep", tmp_path,
        "--points", 6, "--devices", 2, "--property", "sigma", "--json",
    )  # fmt: skip
    assert said.exit_code == 0
    assert [a["name"] for a in json.loads(said.stdout)["surrogate"]["axes"]] == ["sigma"]
    assert len(list(tmp_path.glob("*/result.json"))) == 1


@pytest.mark.slow
def test_new_step_loop_and_result_tell_the_way(tmp_path: Path) -> None:
    place = tmp_path / "loop"
    place.mkdir()
    (place / "campaign.toml").write_text(CAMPAIGN)
    made = run("new", place, "--method", "erm", "--networks", 1, "--epochs", 1)
    assert made.exit_code == 0
    assert f"ohmloop codesign step {place}" in made.stderr
    settings = (place / "codesign.toml").read_text()
    (place / "codesign.toml").write_text(
        settings.replace("points = 48", "points = 6").replace("devices = 20", "devices = 2")
    )
    first = json.loads(run("step", place, "--json").stdout)
    assert first["suggestions"] == ["T001", "T002", "T003"]
    steps = run("loop", place, "--experiments", 3)
    assert steps.exit_code == 0
    assert steps.stdout.startswith("SIMULATED devices")
    assert "step 3: 3 devices" in steps.stdout
    came = run("result", place, "--devices", 2)
    assert came.exit_code == 0
    assert "network alone (first device that worked)" in came.stdout
    data = json.loads(run("result", place, "--devices", 2, "--json").stdout)
    assert set(data["both"]) == {"score", "error"}


def test_a_folder_that_is_no_loop_is_an_error_that_says_how_to_start(tmp_path: Path) -> None:
    from ohmloop.errors import CampaignError

    with pytest.raises(CampaignError, match="ohmloop codesign new"):
        run("step", tmp_path)
