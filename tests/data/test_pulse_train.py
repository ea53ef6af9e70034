"""Pulse trains: what a table's columns mean, and what is refused with a way out."""

import gzip
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from ohmloop.data import PulseTrain, read_measurement, read_pulse_train, sniff_kind
from ohmloop.errors import IngestError
from tests.data.test_fuzz import MUTATIONS

DEVICES = Path(__file__).resolve().parents[3] / "shared" / "data" / "devices"
UP = [1.0, 2.0, 3.0, 4.0]
DOWN = [3.5, 2.5, 1.5, 1.0]


def shared(name: str) -> Path:
    path = DEVICES / name
    if not path.exists():
        pytest.skip(f"the public device data are not in ../shared/data/devices/{name}")
    return path


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def signed(cycles: int = 2) -> list[str]:
    one = [f"1.2,{g}" for g in UP] + [f"-1.0,{g}" for g in DOWN]
    return one * cycles


def test_signed_amplitudes_tell_polarity_cycles_and_branches(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "Amplitude (V),Conductance (uS)", signed())
    assert sniff_kind(path).kind == "pulse-train"
    train = read_pulse_train(path)
    np.testing.assert_allclose(train.conductance[:8], np.array(UP + DOWN) * 1e-6, rtol=1e-15)
    assert train.n_cycles == 2
    assert train.polarity.tolist() == ([1] * 4 + [-1] * 4) * 2
    branches = train.branches()
    assert [(b.cycle, b.polarity) for b in branches] == [(0, 1), (0, -1), (1, 1), (1, -1)]
    assert np.isnan(branches[0].conductance[0])
    # A branch starts from the last reading of the one before.
    assert branches[1].conductance[0] == train.conductance[3]
    assert branches[1].total.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("unit", "factor"), [("S", 1.0), ("mS", 1e-3), ("uS", 1e-6), ("nS", 1e-9), ("µS", 1e-6)]
)
def test_every_unit_gives_the_same_siemens(unit: str, factor: float, tmp_path: Path) -> None:
    rows = [f"{'up' if k < 4 else 'down'},{g / factor!r}" for k, g in enumerate(UP + DOWN)]
    train = read_pulse_train(write(tmp_path / "u.csv", f"polarity,G ({unit})", rows))
    np.testing.assert_allclose(train.conductance, UP + DOWN, rtol=1e-12)


def test_resistance_and_current_give_the_conductance_too(tmp_path: Path) -> None:
    pairs = [("set", g) for g in UP] + [("reset", g) for g in DOWN]
    by_ohm = write(
        tmp_path / "r.csv", "operation,Resistance (kOhm)", [f"{s},{1 / g!r}" for s, g in pairs]
    )
    by_amp = write(
        tmp_path / "i.csv",
        "operation,Read voltage (mV),Read current (uA)",
        [f"{s},100,{0.1 * g * 1e3!r}" for s, g in pairs],
    )
    expected = np.array(UP + DOWN) * 1e-3
    np.testing.assert_allclose(read_pulse_train(by_ohm).conductance, expected, rtol=1e-12)
    train = read_pulse_train(by_amp)
    np.testing.assert_allclose(train.conductance, expected, rtol=1e-12)
    assert train.read_voltage == pytest.approx(0.1)


def test_workbook_gzip_and_text_say_the_same(tmp_path: Path) -> None:
    text = write(tmp_path / "p.csv", "Amplitude (V),Conductance (uS)", signed())
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(text.read_bytes()))
    book = openpyxl.Workbook()
    book.active.append(["a note"])
    sheet = book.create_sheet("pulses")
    sheet.append(["Amplitude (V)", "Conductance (uS)"])
    for row in signed():
        sheet.append([float(cell) for cell in row.split(",")])
    book.save(tmp_path / "p.xlsx")
    trains = [read_pulse_train(tmp_path / name) for name in ("p.csv", "p.csv.gz", "p.xlsx")]
    for train in trains[1:]:
        np.testing.assert_array_equal(train.conductance, trains[0].conductance)
        np.testing.assert_array_equal(train.polarity, trains[0].polarity)
    assert trains[0].sha256 != trains[1].sha256


def test_arc_one_export_is_a_pulse_train_of_each_cell(tmp_path: Path) -> None:
    head = "Wordline,Bitline,Resistance,Amplitude (V),Pulse width (s),Tag,ReadTag,ReadVoltage"
    rows = [
        f"{w},{b},{r},{v},{1e-4 if v else 0},P,R1 V=0.5,0.5"
        for w, b in ((1, 3), (2, 7))
        for r, v in ((10_000, 0), (8_000, 1.5), (7_000, 1.5), (9_000, -1.5), (11_000, -1.5))
    ]
    path = tmp_path / "arc.csv"
    path.write_text("\n".join(["ArC ONE, sample 4", head, *rows]))
    guess = sniff_kind(path)
    assert (guess.kind, guess.confidence) == ("pulse-train", 1.0)
    train = read_pulse_train(path)
    assert train.format == "arc-one-csv"
    assert train.devices == ("1/3", "2/7")
    assert train.polarity.tolist() == [0, 1, 1, -1, -1] * 2
    first = train.branches()[0]
    assert first.conductance.tolist() == pytest.approx([1e-4, 1 / 8000, 1 / 7000])
    assert first.total.tolist() == [0, 1, 2]


def test_columns_of_potentiation_and_depression_are_cycles(tmp_path: Path) -> None:
    rows = [f"{a},{b},{a + 0.1},{b + 0.1}" for a, b in zip(UP, DOWN, strict=True)]
    train = read_pulse_train(
        write(tmp_path / "l.csv", "LTP 1 (uS),LTD 1 (uS),LTP 2 (uS),LTD 2 (uS)", rows)
    )
    assert train.n_cycles == 2
    assert [b.polarity for b in train.branches()] == [1, -1, 1, -1]


def test_numbers_of_pulses_between_readings_are_counted(tmp_path: Path) -> None:
    rows = [f"{p},{s},{g}" for s in ("up", "down") for p, g in ((0, 1), (10, 2), (20, 3), (30, 4))]
    train = read_pulse_train(write(tmp_path / "n.csv", "pulse number,polarity,G (uS)", rows))
    assert train.branches()[0].total.tolist() == [0, 10, 20, 30]
    applied = [f"1000,{v},{g}" for v, g in ((1, 1), (1, 2), (-1, 1.5), (-1, 1))]
    train = read_pulse_train(write(tmp_path / "a.csv", "num_applied,pulse_v,G (uS)", applied))
    assert train.branches()[1].total.tolist() == [0, 1000, 2000]


def test_repeated_readings_are_averaged_and_said(tmp_path: Path) -> None:
    rows = ["1,0.1,1e-8,3e-8", "-1,0.1,1e-8,2e-8", "-1,0.1,1e-8,"]
    train = read_pulse_train(write(tmp_path / "k.csv", "pulse_v,meas_v,i_0,i_1", rows))
    np.testing.assert_allclose(train.conductance, [2e-7, 1.5e-7, 1e-7])
    assert any("averaged" in note.text for note in train.notes)


def test_normalised_numbers_need_a_window(tmp_path: Path) -> None:
    path = tmp_path / "norm.csv"
    path.write_text("".join(f"{a - 3},{b - 3}\n" for a, b in zip(UP, DOWN, strict=True)))
    with pytest.raises(IngestError, match='--window "1 uS, 50 uS"'):
        read_pulse_train(path, columns="up (norm), down (norm)")
    train = read_pulse_train(path, columns="up (norm), down (norm)", window=(1e-6, 4e-6))
    np.testing.assert_allclose(train.conductance, np.array(UP + DOWN) * 1e-6, rtol=1e-12)
    with pytest.raises(IngestError, match="It must be positive"):
        read_pulse_train(path, columns="up (uS), down (uS)")


@pytest.mark.parametrize(
    ("header", "rows", "match"),
    [
        (
            "Amplitude (V),G",
            signed(),
            r'states no unit.*--columns "Amplitude \(V\), conductance \(uS\)"',
        ),
        ("Amplitude (V),Width,G (uS)", ["1,100,2"] * 4, r"width\).*states no unit"),
        ("Amplitude (V),G (uS)", ["1.2,3"] * 4, "--polarity up"),
        ("pulse,G (uS)", ["1,3", "2,4", "3,5"], "--polarity up"),
        ("polarity,G (uS)", ["up,1", "sideways,2", "down,3"], 'polarity "sideways"'),
        ("Amplitude (V),Current (A)", ["1,1e-6", "-1,2e-6", "-1,2e-6"], "--read-voltage"),
        ("Amplitude (V),G (uS)", ["1,3", "-1,-2", "1,3"], "row 2 of the numbers.*positive"),
        ("Amplitude (V),G (uS)", ["1,3", "-1,2"], "at least three readings"),
        ("Amplitude (V),G (uS)", ["1,OVLD", "-1,OVLD", "1,9.91e37"], "at least three readings"),
        ("Amplitude (V),V_prog (V),G (uS)", ["1,1,3", "-1,1,4", "1,1,3"], "2 columns of amplitude"),
        ("LTP (uS),G (uS)", ["1,2", "1,3", "2,4"], "1 columns of potentiation and 0"),
        ("num_applied,polarity,G (uS)", ["1.5,up,2", "1,up,3", "1,down,3"], "whole numbers"),
    ],
)
def test_what_is_not_clear_is_asked(
    header: str, rows: list[str], match: str, tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match=match):
        read_pulse_train(write(tmp_path / "x.csv", header, rows))


def test_overload_texts_are_left_out_and_said(tmp_path: Path) -> None:
    rows = signed()
    rows[2] = "1.2,OVLD"
    rows[5] = "-1.0,9.91e37"
    train = read_pulse_train(write(tmp_path / "o.csv", "Amplitude (V),Conductance (uS)", rows))
    assert np.flatnonzero(np.isnan(train.conductance)).tolist() == [2, 5]
    said = " ".join(note.text for note in train.notes)
    assert '"OVLD"' in said
    assert "overflow" in said


def test_columns_option_names_what_it_does_not_know(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "a,b", signed())
    with pytest.raises(
        IngestError, match=r'"speed \(m/s\)" is no kind of column. Choose from time'
    ):
        read_pulse_train(path, columns="amplitude (V), speed (m/s)")
    with pytest.raises(IngestError, match="names 3 columns, but the table has 2"):
        read_pulse_train(path, columns="skip, skip, conductance (uS)")
    assert read_pulse_train(path, columns="amplitude (V), conductance (uS)").n_cycles == 2


def test_too_many_rows_are_refused_before_they_are_split(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_bytes(b"1,2\n" * 3_000_000)
    with pytest.raises(IngestError, match="more than 1000000 rows"):
        read_pulse_train(path)
    sparse = tmp_path / "huge.csv"
    with sparse.open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(IngestError, match="at most 64 MiB"):
        read_pulse_train(sparse)
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"1,2\n" * 2**25, compresslevel=6))
    with pytest.raises(IngestError, match="unpacks to more than 64 MiB"):
        read_pulse_train(bomb)


def test_digitised_response_of_gong() -> None:
    path = shared("aihwkit-gong/gong_et_al.csv")
    train = read_measurement(path, columns="up (norm), down (norm)", window=(1e-6, 5e-5))
    assert isinstance(train, PulseTrain)
    assert [len(b.total) for b in train.branches()] == [1001, 1001]
    assert train.conductance.min() == pytest.approx(1e-6)
    assert train.conductance.max() == pytest.approx(5e-5)


@pytest.mark.slow
def test_incremental_programming_of_taox_and_hfo2() -> None:
    taox = shared("taox-retention-bisol/FIB3_K9_1_7_low_drift_LP6dB6dBHz_Integ1.0.csv")
    train = read_pulse_train(taox, polarity="down")
    assert len(train.conductance) == 12
    assert train.pulses.tolist() == [1000] * 12
    assert train.amplitude[-1] == pytest.approx(-3.7)
    hfo2 = shared("hfo2-1t1r-radar/sweeps/set-sweep-wl-200ns-step-0.05-9-21-20.csv")
    train = read_pulse_train(
        hfo2,
        columns="device, width (ns), skip, amplitude (V), skip, resistance (Ohm)",
        polarity="up",
    )
    assert len(train.devices) == 50
    assert train.conductance[0] == pytest.approx(1 / 6113.781)
    assert set(train.width) == {2e-7}


@pytest.mark.parametrize("kind", ["pulse-train", "retention"])
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    """200 damaged files: positive conductances and rising times, or an error of ours."""
    rows = signed(4)
    text = "\n".join(["Amplitude (V),Conductance (uS)", *rows])
    if kind == "retention":
        text = "\n".join(
            ["Time (s),a (uS),b (uS)", *(f"{k},{9 - k / 9},{k}" for k in range(1, 30))]
        )
    rng = np.random.default_rng(7)
    read = 0
    for k in range(200):
        data = MUTATIONS[k % len(MUTATIONS)](text.encode(), rng)
        path = tmp_path / "damaged.csv"
        path.write_bytes(data)
        try:
            found = read_measurement(path, kind=kind)  # type: ignore[arg-type]  # one of the two
        except IngestError:
            continue
        read += 1
        values = found.conductance[np.isfinite(found.conductance)]  # type: ignore[union-attr]  # no sweep
        assert (values > 0).all()
        sniff_kind(path)
    assert 20 < read < 200
