"""Retention traces, and which kind of file a file is."""

from pathlib import Path

import numpy as np
import openpyxl
import pytest

from ohmloop.data import (
    PulseTrain,
    Retention,
    Sweep,
    read_measurement,
    read_retention,
    sniff_kind,
)
from ohmloop.errors import IngestError
from tests.data.formats import FORMATS, loop

DEVICES = Path(__file__).resolve().parents[3] / "shared" / "data" / "devices"


def shared(name: str) -> Path:
    path = DEVICES / name
    if not path.exists():
        pytest.skip(f"the public device data are not in ../shared/data/devices/{name}")
    return path


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 1e-3), ("min", 60), ("h", 3600), ("days", 86400)]
)
def test_times_of_every_unit_become_seconds(unit: str, factor: float, tmp_path: Path) -> None:
    rows = [f"{t},{5 - t},{6 - t}" for t in (1, 2, 3)]
    path = write(tmp_path / "t.csv", f"Time ({unit}),cell A (uS),cell B (uS)", rows)
    trace = read_retention(path)
    np.testing.assert_allclose(trace.time[:, 0], factor * np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(trace.conductance[:, 1], np.array([5, 4, 3]) * 1e-6)
    assert trace.n_traces == 2
    assert sniff_kind(path).kind == "retention"


def test_long_tables_are_split_by_device_and_level(tmp_path: Path) -> None:
    rows = [
        f"{d},{level},{t},{level * 10 + t}"
        for t in (1, 10, 100)
        for d in ("W1B2", "W1B3")
        for level in (1, 2)
    ]
    trace = read_retention(
        write(tmp_path / "l.csv", "device,level,time (s),conductance (uS)", rows)
    )
    assert trace.names == ("W1B2/1", "W1B2/2", "W1B3/1", "W1B3/2")
    np.testing.assert_allclose(trace.conductance[:, 1], np.array([21, 30, 120]) * 1e-6)
    np.testing.assert_allclose(trace.time[:, 3], [1, 10, 100])


def test_readings_across_a_row_are_one_trace(tmp_path: Path) -> None:
    path = tmp_path / "across.csv"
    path.write_text("0\t1.4\t1000\t2000\t4000\n4\t1.6\t500\t250\t125\n")
    with pytest.raises(IngestError, match="--interval 1s"):
        read_retention(path, columns="device, skip, resistance (Ohm), ...", across=True)
    trace = read_retention(
        path, columns="device, skip, resistance (Ohm), ...", across=True, interval=0.5
    )
    assert trace.names == ("0", "4")
    np.testing.assert_allclose(trace.time[:, 0], [0.5, 1.0, 1.5])
    np.testing.assert_allclose(trace.conductance[:, 1], [2e-3, 4e-3, 8e-3])


def test_steady_voltage_divides_the_currents(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Voltage", "Current1", "Current2"])
    for k in range(5):
        sheet.append([-0.5, 1e-4 - k * 1e-6, 5e-5])
    book.save(tmp_path / "v.xlsx")
    guess = sniff_kind(tmp_path / "v.xlsx")
    assert guess.kind == "retention"
    assert 0.5 <= guess.confidence < 0.9
    trace = read_retention(tmp_path / "v.xlsx", interval=2.0)
    assert trace.read_voltage == 0.5
    np.testing.assert_allclose(trace.conductance[0], [2e-4, 1e-4])
    assert any("opposite" in note.text for note in trace.notes)


@pytest.mark.parametrize(
    ("header", "rows", "match"),
    [
        ("time (s),G (uS)", ["1,5", "2,4", "1,3"], r"falls from 2 to 1 s at reading 3.*device"),
        ("time (s),G (uS)", ["1,5"], "at least two"),
        ("time (s),G (uS)", ["1,OVLD", "2,NaN", "3,9.9e37"], "no trace has two readings"),
        ("time (s),G (uS)", ["-1,5", "2,4", "3,3"], "negative"),
        ("time,G (uS)", ["1,5", "2,4", "3,3"], r'--columns "time \(s\), G \(uS\)"'),
        ("time (s),G", ["1,5", "2,4", "3,3"], r"conductance\) states no unit and reaches 5"),
        ("time (s),R", ["1,5", "2,4", "3,3"], r"resistance \(kOhm\)"),
        ("time (s),current (uA)", ["1,5", "2,4", "3,3"], "--read-voltage"),
        ("time (s),current", ["1,5", "2,4", "3,3"], "current.*states no unit"),
        ("time (s),time (h),G (uS)", ["1,1,5", "2,2,4"], "2 columns of time"),
        ("time (s),G (uS)", ["1,5", "2,0", "3,3"], "must be positive"),
        ("colour,taste", ["1,5", "2,0", "3,3"], "no column of conductance"),
    ],
)
def test_what_is_not_clear_is_asked(
    header: str, rows: list[str], match: str, tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match=match):
        read_retention(write(tmp_path / "x.csv", header, rows))


def test_an_interval_beside_a_time_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "time (s),G (uS)", ["1,5", "2,4"])
    with pytest.raises(IngestError, match="Leave --interval out"):
        read_retention(path, interval=1.0)
    with pytest.raises(IngestError, match="above 0 s"):
        read_retention(path, interval=-1.0)


def test_a_running_number_taken_for_a_device_is_noticed(tmp_path: Path) -> None:
    rows = [f"a,{k},1" for k in range(20_000)] + [f"b{k},1,1" for k in range(20_000)]
    with pytest.raises(IngestError, match="very different length"):
        read_retention(write(tmp_path / "n.csv", "device,time (s),G (uS)", rows))


@pytest.mark.parametrize("name", FORMATS)
def test_sweeps_of_every_format_stay_sweeps(name: str, tmp_path: Path) -> None:
    writer, suffix, _ = FORMATS[name]
    path = tmp_path / f"sweep{suffix}"
    path.write_bytes(writer(*loop(2)))
    assert sniff_kind(path).kind == "sweep"
    assert isinstance(read_measurement(path), Sweep)


def test_a_stated_kind_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "Amplitude (V),time (s),G (uS)", ["1,1,5", "-1,2,4", "1,3,5"])
    assert isinstance(read_measurement(path), PulseTrain)
    assert isinstance(read_measurement(path, kind="retention"), Retention)
    with pytest.raises(IngestError, match="kind is one of"):
        read_measurement(path, kind="endurance")  # type: ignore[arg-type]  # what a user may type


def test_traces_of_taox() -> None:
    trace = read_retention(shared("taox-retention-bisol/FIB3_I7_3_10_retention.csv.gz"))
    assert trace.conductance.shape == (24_000, 1)
    assert trace.time[-1, 0] == pytest.approx(120.995)
    assert trace.conductance[0, 0] == pytest.approx(1 / 7.889952146730135e7)


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "rows"), [(32, 1451), (526, 350)])
def test_levels_of_mnn_cam(levels: int, rows: int) -> None:
    path = shared(f"mnn-cam-526-levels/{levels}-levels-retention.xlsx")
    assert sniff_kind(path).kind == "retention"
    trace = read_retention(path, interval=1.0)
    assert trace.conductance.shape == (rows, levels)
    assert trace.n_traces == levels


def test_rows_of_skywater() -> None:
    path = shared("skywater-1t4r-ni/target20-40_old.csv")
    trace = read_retention(
        path, columns="device, skip, skip, resistance (Ohm), ...", across=True, interval=0.1
    )
    assert trace.conductance.shape == (501, 156)
    assert trace.conductance[0, 0] == pytest.approx(1 / 21024.267)
