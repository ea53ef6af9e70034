"""``ohmloop device fit`` on files of every kind, as users run it."""

import json
from pathlib import Path

import pytest
from tests.cli.typed import ohmloop
from tests.data.formats import loop, workbook

PULSES = [1.0, 2.0, 2.8, 3.4, 3.8, 4.1]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "sweep.xlsx").write_bytes(workbook(*loop(4)))
    rows = [
        f"{c},{v},{g + 0.02 * ((7 * c + k) % 5)}"
        for c in range(4)
        for v, values in ((1.2, PULSES), (-1.0, PULSES[::-1]))
        for k, g in enumerate(values)
    ]
    (tmp_path / "pulses.csv").write_text("\n".join(["cycle,Amplitude (V),G (uS)", *rows]))
    times = [1, 3, 10, 30, 100, 300, 1000]
    rows = [f"{t},{5 * t**-0.04},{3 * t**-0.05},{2 * t**-0.06}" for t in times]
    (tmp_path / "keep.csv").write_text("\n".join(["Time (s),a (uS),b (uS),c (uS)", *rows]))
    return tmp_path


@pytest.mark.slow
def test_three_kinds_of_file_give_one_model(files: Path) -> None:
    run = ohmloop(
        *("device", "fit", "sweep.xlsx", "pulses.csv", "keep.csv", "-o", "d.json"),
        *("--json", "--plot", "plots"),
        cwd=files,
    )
    assert run.code == 0, run.err
    model = run.json
    assert model == json.loads((files / "d.json").read_text())
    assert model["physics"]["pulses"]["kind"] == "soft"
    assert model["physics"]["drift"]["kind"] == "power"
    assert model["physics"]["write"]["sigma"] == model["sigma"]["value"]
    assert len(model["figures"]["pulse_curvature_up_interval"]) == 2
    assert [s["file"] for s in model["sources"]] == ["sweep.xlsx", "pulses.csv", "keep.csv"]
    for file, kind in (
        ("sweep.xlsx", "sweep"),
        ("pulses.csv", "pulse-train"),
        ("keep.csv", "rete"),
    ):
        assert f"{file}: {kind}" in run.err
    assert len(list((files / "plots").glob("*.svg"))) == 6
    shown = ohmloop("device", "show", "d.json", cwd=files)
    assert "pulses.curvature_up" in shown.out


@pytest.mark.slow
def test_headers_and_kinds_may_be_stated_file_by_file(files: Path) -> None:
    (files / "bare.csv").write_text("".join(f"{g},{5 - g}\n" for g in PULSES))
    (files / "rows.csv").write_text("1,5,4.5,4.2,4.1\n2,3,2.9,2.8,2.75\n")
    run = ohmloop(
        *(
            "device",
            "fit",
            "bare.csv",
            "rows.csv",
            "-o",
            "d.json",
            "--across",
            "--interval",
            "10 s",
        ),
        *("--columns", "bare.csv=up (uS), down (uS)"),
        *("--columns", "rows.csv=device, conductance (uS), ...", "--kind", "rows.csv=retention"),
        cwd=files,
    )
    assert run.code == 0, run.err
    assert "pulse_nonlinearity_up" in run.out
    assert "drift_law" in run.out


@pytest.mark.slow
def test_what_is_missing_is_said_with_the_option_to_type(files: Path) -> None:
    (files / "i.csv").write_text("Time (s),Current (uA)\n1,5\n2,4\n3,3\n")
    run = ohmloop("device", "fit", "i.csv", "-o", "d.json", cwd=files)
    assert run.code == 1
    assert "--read-voltage 0.1" in run.err
    assert not (files / "d.json").exists()
    good = ohmloop("device", "fit", "i.csv", "-o", "d.json", "--read-voltage", "0.1", cwd=files)
    assert good.code == 0, good.err


@pytest.mark.parametrize(
    "args",
    [
        ("--kind", "endurance"),
        ("--polarity", "sideways"),
        ("--columns", "other.csv=time (s)"),
        ("--drift", "exponential"),
        ("--window", "1 uS"),
    ],
)
def test_wrong_options_exit_with_two(args: tuple[str, ...], files: Path) -> None:
    assert ohmloop("device", "fit", files / "pulses.csv", *args).code == 2


def test_a_device_is_exported_for_other_simulators(tmp_path: Path) -> None:
    shown = ohmloop("device", "export", "pcm-joshi2020", "--to", "aihwkit")
    assert shown.code == 0
    assert "InferenceRPUConfig" in shown.out
    path = tmp_path / "cell.py"
    done = ohmloop("device", "export", "nanowire-30", "--to", "crosssim", "-o", path)
    assert done.code == 0
    assert "CrossSimParameters" in path.read_text("utf-8")
