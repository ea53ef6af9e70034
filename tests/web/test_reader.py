"""Files from outside: previewed and recorded by a process that may fail without harm."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook, load_workbook

from ohmloop.campaign import Campaign
from ohmloop.data import FileRecipe
from ohmloop.device import VirtualLab, write_workbook
from ohmloop.errors import CampaignError, IngestError
from ohmloop.web._reader import Preview, Reader
from ohmloop.web._workspace import Workspace


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.at(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def reader(space: Workspace) -> Iterator[Reader]:
    made = Reader(space)
    yield made
    made.close()


@pytest.fixture
def campaign(space: Workspace, tmp_path: Path) -> Path:
    """A campaign with one trial."""
    folder = space.root / tmp_path.name
    with Campaign.new(folder, template="perovskite-nanowires") as made:
        made.add(VirtualLab(0)._law.complete({"material": "MAPbI3"}))
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook of a device that was made in the virtual lab."""
    path = tmp_path_factory.mktemp("files") / "T001_dev1.xlsx"
    lab = VirtualLab(0)
    devices = (lab.make({"material": "MAPbI3"}, k) for k in range(99))
    write_workbook(next(d for d in devices if len(d.voltage)), path, about="simulated")
    return path


def test_a_workbook_is_recognised_with_figures_and_curves(reader: Reader, sweep: Path) -> None:
    seen = reader.preview(sweep)
    assert (seen.name, seen.format, seen.confidence, seen.problem) == (
        "T001_dev1.xlsx",
        "perovskite-workbook",
        1.0,
        "",
    )
    assert seen.n_cycles == len(seen.currents) == len(seen.cycle_names) == 12
    assert len(seen.voltage) == len(seen.currents[0]) == seen.n_points
    assert seen.voltages == []
    assert seen.columns[0].role == "voltage"
    figures = {f.name: f for f in seen.figures}
    assert figures["sigma"].low is not None
    assert figures["sigma"].low <= figures["sigma"].value <= figures["sigma"].high  # type: ignore[operator]
    assert "95 %" in figures["sigma"].text
    assert figures["g_max"].text.partition(" ")[2].endswith("S")
    assert Preview.model_validate_json(seen.model_dump_json()) == seen


@pytest.mark.slow
def test_a_long_record_is_thinned_for_the_plot(reader: Reader, tmp_path: Path) -> None:
    volts = np.concatenate([np.linspace(0, 1, 30_000), np.linspace(1, 0, 30_000)])
    path = tmp_path / "long.csv"
    np.savetxt(path, np.c_[volts, volts * 1e-6], delimiter=",", header="V (V),I (A)", comments="")
    seen = reader.preview(path)
    assert (seen.n_points, len(seen.voltage)) == (60_000, 2000)
    assert (seen.voltage[0], seen.voltage[-1]) == (0.0, 0.0)


def test_unclear_columns_are_shown_and_a_mapping_reads_them(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("alpha,beta\n" + "".join(f"{v},{v * v}\n" for v in range(20)))
    seen = reader.preview(path)
    assert "no voltage column" in seen.problem
    assert [c.name for c in seen.columns] == ["alpha", "beta"]
    read = reader.preview(
        path, recipe={"voltage": "alpha", "currents": ["beta"], "current_unit": "uA"}
    )
    assert read.problem == ""
    assert read.currents[0][3] == pytest.approx(9e-6)
    wrong = reader.preview(path, recipe={"voltage": "gamma", "currents": ["beta"]})
    assert 'no column "gamma"' in wrong.problem


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", b"", "is empty"),
        ("noise.xlsx", b"PK\x03\x04" + bytes(range(256)) * 20, "damaged"),
        ("picture.csv", b"\x89PNG\0\0\0" * 100, "binary"),
        ("words.txt", b"dear diary\n" * 50, "no table"),
    ],
)
def test_what_is_no_measurement_is_refused_in_a_sentence(
    reader: Reader, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IngestError, match=reason):
        reader.preview(tmp_path / name)


def bomb(path: Path, mebibytes: int) -> None:
    """Write a workbook of some kilobytes that unpacks to many MiB."""
    blank = b" " * (10 * 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            for _ in range(mebibytes // 10):
                sheet.write(blank)


def test_a_workbook_that_unpacks_without_end_is_refused(reader: Reader, tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.xlsx", 410)
    with pytest.raises(IngestError, match="unpacks to more than 400 MiB"):
        reader.preview(tmp_path / "bomb.xlsx")


@pytest.mark.slow
def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_is_read(
    space: Workspace, tmp_path: Path, sweep: Path
) -> None:
    bomb(tmp_path / "bomb.xlsx", 150)
    reader = Reader(space, memory=320 * 2**20)
    try:
        with pytest.raises(IngestError, match=r"bomb.xlsx cannot be read here: .*memory"):
            reader.preview(tmp_path / "bomb.xlsx")
        assert reader.preview(sweep).n_cycles == 12
    finally:
        reader.close()


def test_a_file_that_takes_too_long_is_refused_and_the_next_is_read(
    space: Workspace, sweep: Path
) -> None:
    reader = Reader(space, seconds=0.01)
    try:
        with pytest.raises(IngestError, match="took too long"):
            reader.preview(sweep)
        reader._seconds = 30
        assert reader.preview(sweep).n_cycles == 12
    finally:
        reader.close()


def test_a_file_is_recorded_once(reader: Reader, campaign: Path, sweep: Path) -> None:
    (done,) = reader.ingest(campaign, [sweep], actor="ada")
    assert (done.status, done.trial) == ("recorded", "T001")
    (again,) = reader.ingest(campaign, [sweep], actor="ada")
    assert again.status == "unchanged"
    with Campaign.open(campaign, writable=False) as opened:
        assert opened.log()[-1].actor == "ada"
        assert len(opened.files()) == 1


def test_errors_of_the_library_come_through_as_they_are(
    reader: Reader, campaign: Path, sweep: Path
) -> None:
    with pytest.raises(CampaignError, match="no recipe for files"):
        reader.ingest(campaign, [sweep], recipe="unknown")
    with Campaign.open(campaign, actor="eve") as opened:
        opened.reject("T001")
        opened.accept("T001")
    (refused,) = reader.ingest(campaign, [sweep], trial="T009")
    assert refused.status == "refused"
    assert "no trial" in refused.text


def test_a_mapping_kept_with_the_campaign_is_tried(
    reader: Reader, campaign: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("alpha,beta\n" + "".join(f"{v},{v}e-6\n" for v in range(20)))
    with Campaign.open(campaign) as opened:
        recipe = FileRecipe(voltage=("alpha",), currents=("beta",), headers=("alpha", "beta"))
        opened.save_file_recipe("mine", recipe)
    seen = reader.preview(path, campaign=campaign)
    assert (seen.recipe, seen.problem, seen.n_cycles) == ("mine", "", 1)


# -- formulas -----------------------------------------------------------------------------------

FORMULAS = [
    '=HYPERLINK("http://x")',
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "'=1",
]


def test_formulas_of_a_workbook_are_not_computed(reader: Reader, tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["voltage", "current_cycle1"])
    for row in range(2, 30):
        sheet.append([f"=ROW()*{row}", f'=WEBSERVICE("http://127.0.0.1:1/{row}")'])
    book.save(tmp_path / "formulas.xlsx")
    with pytest.raises(IngestError, match="no voltage column with numbers"):
        reader.preview(tmp_path / "formulas.xlsx")


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_text_that_looks_like_a_formula_is_harmless_in_exported_sheets(
    reader: Reader, campaign: Path, tmp_path: Path, suffix: str
) -> None:
    with Campaign.open(campaign) as opened:
        for formula in FORMULAS:
            opened.record("T001", passed="all", device=formula.strip() or "x", note=formula)
    path = reader.export_sheet(campaign, tmp_path / f"sheet{suffix}")
    if suffix == ".csv":
        import csv

        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
    else:
        found = [cell for row in load_workbook(path)["trials"].iter_rows() for cell in row]
        assert all(cell.data_type != "f" for cell in found)
        cells = [str(cell.value) for cell in found if isinstance(cell.value, str)]
    texts = [cell for cell in cells if any(f.strip("'\t\r") in cell for f in FORMULAS)]
    assert len(texts) >= len(FORMULAS)
    assert all(not cell.startswith(("=", "+", "@", "\t", "\r")) for cell in cells)
    assert all(cell.startswith("'") for cell in texts if cell[:1] not in "0123456789")
    again = reader.import_sheet(campaign, path)
    assert (again.recorded, again.added, again.decided) == (0, 0, 0)
