"""The commands as users run them: exit codes, stable JSON, clear errors, no traceback."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.typed import Run, ohmloop
from tests.data.formats import loop, pymeasure, workbook

from ohmloop.cli import main
from ohmloop.data import FiguresOfMerit


def started(*args: object) -> Run:
    """Run a command in a process of its own, as a shell does."""
    code = "from ohmloop.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.xlsx").write_bytes(workbook(*loop(5)))
    (tmp_path / "in" / "b.csv").write_bytes(pymeasure(*loop(4)))
    return tmp_path


@pytest.mark.slow
def test_analyze_gives_one_object_a_file(files: Path) -> None:
    run = started("analyze", files / "in", "--json", "--plot", files / "plots")
    assert run.code == 0
    rows = run.json
    assert [row["file"] for row in rows] == ["a.xlsx", "b.csv"]
    assert all(list(row) == list(FiguresOfMerit.keys()) for row in rows)
    assert [row["cycles"] for row in rows] == [5, 4]
    pictures = sorted((files / "plots").iterdir())
    assert [p.name for p in pictures] == ["a.png", "b.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_unreadable_file_has_an_error_and_the_rest_is_analysed(files: Path) -> None:
    (files / "in" / "c.csv").write_bytes(b"")
    run = ohmloop("analyze", files / "in", files / "nowhere.csv", "--json")
    assert run.code == 1
    rows = run.json
    assert [sorted(row) == ["error", "file"] for row in rows] == [False, False, True, True]
    table = ohmloop("analyze", files / "in")
    assert table.code == 1
    assert [line.split()[0] for line in table.out.splitlines()] == ["file", "a.xlsx", "b.csv"]
    assert "is empty" in table.err


@pytest.mark.parametrize(
    "args",
    [
        ("analyze",),
        ("analyze", "x", "--no-such"),
        ("nonsense",),
        ("train", "--epochs", "0"),
        ("analyze", "x", "--read-voltage", "-1"),
        ("compare", "--sigma", "a,b"),
    ],
)
def test_wrong_command_line_exits_with_two(
    args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ohmloop", *args])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2


@pytest.mark.slow
def test_device_commands(files: Path) -> None:
    out = files / "device.json"
    assert ohmloop("device", "fit", files / "in" / "a.xlsx", "-o", out).code == 0
    shown = ohmloop("device", "show", out, "--json")
    assert shown.json["sources"][0]["file"] == "a.xlsx"
    assert "sigma of ln G" in ohmloop("device", "show", "lognormal:0.4").out
    assert len(ohmloop("device", "list", "--json").json) == 43
    wrong = started("device", "show", "nanowire-99")
    assert wrong.code == 1
    assert "Did you mean" in wrong.err


@pytest.mark.slow
def test_train_evaluate_compare(tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ("--task", "iris", "--epochs", "3", "-o", run)
    assert ohmloop("train", "--method", "weight-noise:level=0.3", *args).code == 0
    assert ohmloop("train", "--method", "weight-noise:level=0.3", *args).code == 0
    other = ohmloop("train", "--method", "erm", *args)
    assert other.code == 1
    assert "holds another run" in other.err
    rows = ohmloop(
        "evaluate", run, "--device", "nanowire-30", "--sigma", "0.2", "--devices", "7", "--json"
    ).json
    assert [row["device"] for row in rows] == ["nanowire-30", "lognormal:0.2"]
    assert all(len(row["scores"]) == 7 for row in rows)
    table = ohmloop(
        "compare",
        "--task",
        "iris",
        "--methods",
        "erm,dropout",
        "--sigma",
        "0.3",
        "--seeds",
        "1",
        "--devices",
        "3",
        "--epochs",
        "2",
        "--workers",
        "1",
    )
    assert table.code == 0
    assert "dropout" in table.out
    assert ohmloop("evaluate", tmp_path).code == 1


@pytest.mark.slow
def test_a_training_is_for_all_devices_named_and_evaluated_on_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    named = ("--device", "nanowire-30", "--device", "lognormal:0.2", "--sigma", "0.4,0.8")
    done = ohmloop("train", "--task", "iris", "--epochs", "1", "--method", "erm", *named, "-o", run)
    assert done.code == 0, done.err
    assert f"Next: `ohmloop evaluate {run}`." in done.err
    rows = ohmloop("evaluate", run, "--devices", "2", "--json").json
    names = ["nanowire-30", "lognormal:0.2", "lognormal:0.4", "lognormal:0.8"]
    assert [row["device"] for row in rows] == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--device", "bogus"), "DeviceError: no device 'bogus'"),
        (("--compute", "nowhere"), "TrainError: torch cannot compute on 'nowhere'"),
        (("--deployment", "chanel"), "ConversionError: 'chanel'"),
        (("--deployment", "batch-norm"), 'ConversionError: calibration "batch-norm"'),
        (("--method", "steady", "--limit", "50"), '"readout:samples='),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    args: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    run = ohmloop("train", "--task", "iris", "--epochs", "2", "-o", tmp_path / "run", *args)
    assert run.code == 1
    assert said in run.err
    assert len(run.err.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.long
def test_compare_over_deployments_and_evaluate_with_them(tmp_path: Path) -> None:
    common = ("--epochs", "2", "--task", "iris")
    found = ohmloop(
        "compare", *common, "--methods", "erm, dropout", "--sigma", "0.3,0.6", "--seeds", "1", "--devices",
        "3", "--workers", "1", "--deployment", "none", "--deployment", "readout:samples=32", "--json",
    )  # fmt: skip
    rows = found.json
    assert [(r["method"], r["deployment"]) for r in rows] == [
        (method, way) for method in ("erm", "dropout") for way in ("none", "readout:samples=32")
    ]
    assert all(np.shape(r["scores"]) == (2, 1, 3) and r["is_higher_better"] for r in rows)
    assert ohmloop("train", *common, "--method", "erm", "-o", tmp_path / "run").code == 0
    doing = ohmloop("evaluate", tmp_path / "run", "--by-doing")
    assert doing.code == 1
    assert "leave out --by-doing" in doing.err
    few = ohmloop("evaluate", tmp_path / "run", "--deployment", "channel:samples=2000")
    assert "shows each device 2000 unlabelled inputs; received 96" in few.err
    many = ohmloop("evaluate", tmp_path / "run", "--deployment", "channel", "--devices", "4")
    assert "deployment channel" in many.out
    listed = {row["name"]: row for row in ohmloop("tasks", "--json").json}
    assert listed["iris"]["metric"] == "accuracy"


@pytest.mark.slow
@pytest.mark.long
def test_demo_from_own_files_writes_a_report(nanowires: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in sorted((nanowires / "raw").glob("*.xlsx"))[:4]:
        (data / path.name).symlink_to(path)
    (data / "broken.csv").write_text("")
    run = ohmloop("demo", "--data", data, "--out", tmp_path / "out", "--seeds", "1")
    assert run.code == 0
    assert "broken.csv" in run.err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "4 measured memristors" in page
    assert "nanowire-01" in page
