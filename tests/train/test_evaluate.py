"""A finished run on virtual devices: what it was trained for by default, and by what it does."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from ohmloop.cli._app import app
from ohmloop.crossbar import ADC, Array, Hardware
from ohmloop.errors import TrainError
from ohmloop.report import write_run
from ohmloop.tasks import task
from ohmloop.tasks._task import _ENTRIES
from ohmloop.train import Run, evaluate_run, fit, load_run, read_evaluations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hardware = [
        Hardware(device="lognormal:0.3", convention="mean-1"),
        Hardware(device="nanowire-30"),
    ]
    fit(task("iris"), "erm", hardware=hardware, epochs=2, run_dir=tmp_path / "run")
    return tmp_path / "run"


def command(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, args)])
    said = re.sub("[│╭╮╰╯─]", " ", f"{result.stderr} {result.exception}")
    return result.exit_code, result.stdout, " ".join(said.split())


def test_a_run_is_scored_on_what_it_was_trained_for(folder: Path) -> None:
    run = load_run(folder)
    own = evaluate_run(run, n_devices=5)
    assert [(f.device, f.convention) for f in own] == [
        ("lognormal:0.3", "mean-1"),
        ("nanowire-30", "median-1"),
    ]
    named = evaluate_run(run, [Hardware(device="lognormal:0.3", convention="mean-1")], n_devices=5)
    assert own[0].scores.tolist() == named[0].scores.tolist()


def test_command_says_on_which_devices_it_scores_where_none_is_named(folder: Path) -> None:
    code, out, err = command(folder, "--devices", 4, "--json")
    assert code == 0
    assert [(r["device"], r["convention"]) for r in json.loads(out)] == [
        ("lognormal:0.3", "mean-1"),
        ("nanowire-30", "median-1"),
    ]
    assert "on what it was trained for: lognormal:0.3, nanowire-30" in err
    code, out, err = command(folder, "--sigma", "0.2", "--devices", 4, "--json")
    assert [r["device"] for r in json.loads(out)] == ["lognormal:0.2"]
    assert "trained for" not in err


def test_a_convention_without_a_device_is_refused(folder: Path) -> None:
    code, _, err = command(folder, "--convention", "mean-1")
    assert code == 2
    assert "give one of them" in err


def by_doing(folder: Path) -> Run:
    """Return a run whose task has a measure of its own."""
    run = load_run(folder)
    entry = dataclasses.replace(run.task.entry, measure=lambda folder: lambda model: 0.5)
    return run._replace(task=dataclasses.replace(run.task, entry=entry))


def test_a_test_limit_does_not_go_with_scoring_by_doing(folder: Path) -> None:
    run = by_doing(folder)
    assert evaluate_run(run, n_devices=2, by_doing=True)[0].mean == 0.5
    with pytest.raises(TrainError, match=r"limit of 10 .*leave out --test-limit, or --by-doing"):
        evaluate_run(run, n_devices=2, by_doing=True, test_limit=10)
    code, _, err = command(folder, "--by-doing", "--test-limit", 10)
    assert code == 1
    assert "test limit of 10" in err


def test_figures_beside_a_score_by_doing_are_said_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(model: nn.Module) -> dict[str, float]:
        return {"finished": 0.5, "collisions": 0.25, "off_road": 0.125}

    entry = dataclasses.replace(task("iris").entry, measure=lambda folder: measure)
    monkeypatch.setitem(_ENTRIES, "iris", entry)
    code, out, err = command(folder, "--by-doing", "--devices", 2)
    assert code == 0, err
    assert "digital 0.500   collisions 0.250   off road 0.125\n" in out
    assert "± 0.000   worst tenth 0.500   collisions 0.250   off road 0.125\n" in out
    code, out, err = command(folder, "--by-doing", "--devices", 2, "--json")
    kept = [e.model_dump(mode="json")["figures"] for e in read_evaluations(folder)]
    assert kept == [row["figures"] for row in json.loads(out)]
    assert kept[0]["collisions"] == {"digital": 0.25, "mean": 0.25, "values": [0.25, 0.25]}
    assert command(folder, "--devices", 2)[0] == 0
    page = write_run(folder, tmp_path / "report")
    text = page.read_text("utf-8")
    assert "further, mean" in text
    assert text.count("collisions 0.25, off road 0.125") == 2
    # Routes finished are no accuracy, and share no axis with it.
    shown = {e.metric for e in read_evaluations(folder)}
    assert len(shown) == 2
    assert sum(f"test {metric}, digital" in text for metric in shown) == 1
    csv = next(page.parent.glob("**/*evaluations.csv"))
    head, *rows = csv.read_text("utf-8").splitlines()
    assert head.endswith(",collisions,off_road,stale")
    ends = (",0.25,0.125,False", ",,,False")  # by doing, and by outputs
    assert [sum(row.endswith(end) for row in rows) for end in ends] == [2, 2]


def test_a_run_is_scored_on_arrays_beside_the_law(folder: Path) -> None:
    run = load_run(folder)
    array = Array(rows=16, columns=16, adc=ADC(bits=8))
    hardwares = [
        Hardware(device="nanowire-30"),
        Hardware(device="lognormal:0.0", array=array),
        Hardware(device="nanowire-30"),
    ]
    law, exact, again = evaluate_run(run, hardwares, n_devices=5)
    assert law.scores.tolist() == again.scores.tolist()
    # Cells without noise: the digital network, but for what converters round.
    assert exact.std == 0
    assert abs(exact.mean - exact.digital) <= 0.05


def test_command_writes_the_network_into_arrays(folder: Path) -> None:
    code, out, err = command(
        folder,
        "--array",
        "rows=16,columns=16,adc=6",
        "--devices",
        3,
        "--json",
        "--device",
        "nanowire-30",
    )
    assert code == 0, err
    assert [r["device"] for r in json.loads(out)] == ["nanowire-30"]
    code, _, err = command(folder, "--array", "row=16")
    assert code == 1
    assert 'Did you mean "rows"' in err


def test_averaged_arrays_are_said_kept_and_counted(folder: Path) -> None:
    """The division of the cells in words and in JSON; tiles and energy are those of all arrays."""
    setting = (folder, "--device", "nanowire-30", "--devices", 2)
    code, out, err = command(*setting, "--deployment", "cells=2")
    assert code == 0, err
    words = re.search(r"arrays of each layer: (.*)", out)
    assert words is not None
    code, out, err = command(*setting, "--deployment", "cells=2", "--json")
    (kept,) = json.loads(out)
    counts = dict(re.findall(r"(\S+) \((\d+)\)", words[1]))
    assert kept["layer_arrays"] == {layer: int(m) for layer, m in counts.items()}
    assert max(kept["layer_arrays"].values()) > 1
    kept = {}
    for text in ("none", "arrays=3"):
        code, out, err = command(
            *setting, "--array", "rows=16,columns=16", "--deployment", text, "--json"
        )
        assert code == 0, err
        kept[text] = json.loads(out)[0]["arrays"]
    assert kept["arrays=3"]["tiles"] == 3 * kept["none"]["tiles"]
    assert kept["arrays=3"]["energy"] == pytest.approx(3 * kept["none"]["energy"])
