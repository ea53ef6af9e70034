"""A confirmed mapping of columns: the person's word counts, and the next files need no question."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from ohmloop.campaign import Campaign
from ohmloop.data import FileRecipe, columns_of, figures_of_merit, read, recognise
from ohmloop.errors import CampaignError, IngestError

VOLTS = np.concatenate([np.linspace(0, 1, 20), np.linspace(1, 0, 20)])
AMPS = 1e-3 * VOLTS**2 + 1e-5


def _odd(path: Path, *, head: str = "t,drive,sense,range") -> Path:
    """Millivolts under "drive", microamperes under "sense": no header says so."""
    rows = "\n".join(
        f"{k},{1e3 * v:.6f},{1e6 * i:.6f},3"
        for k, (v, i) in enumerate(zip(VOLTS, AMPS, strict=True))
    )
    path.write_text(f"{head}\n{rows}\n")
    return path


ODD = FileRecipe(
    voltage="drive",
    currents="sense",
    voltage_unit="mV",
    current_unit="uA",
    headers=("t", "drive", "sense", "range"),
)


def test_a_recipe_says_which_column_is_which_and_in_which_unit(tmp_path: Path) -> None:
    path = _odd(tmp_path / "odd.csv")
    with pytest.raises(IngestError, match="no voltage column"):
        read(path)
    sweep = read(path, recipe=ODD)
    np.testing.assert_allclose(sweep.voltage[:, 0], VOLTS, atol=1e-9)
    np.testing.assert_allclose(sweep.current[:, 0], AMPS, atol=1e-12)


def test_the_recipe_counts_more_than_the_header(tmp_path: Path) -> None:
    path = _odd(tmp_path / "odd.csv", head="t,Voltage (V),Current (A),range")
    recipe = FileRecipe(
        voltage="Voltage (V)", currents="Current (A)", voltage_unit="mV", current_unit="uA"
    )
    np.testing.assert_allclose(read(path, recipe=recipe).current[:, 0], AMPS, atol=1e-12)


def test_columns_without_a_header_are_named_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text(
        "\n".join(f"{k},{i:.9f},{v:.9f}" for k, (v, i) in enumerate(zip(VOLTS, AMPS, strict=True)))
    )
    found = columns_of(path)
    assert [(c.number, c.name, c.role) for c in found] == [
        (1, "#1", "other"),
        (2, "#2", "other"),
        (3, "#3", "other"),
    ]
    assert (found[2].low, found[2].high, found[2].n_numbers) == (0.0, 1.0, 40)
    sweep = read(path, recipe=FileRecipe(voltage="#3", currents="#2"))
    np.testing.assert_allclose(sweep.current[:, 0], AMPS, atol=1e-9)


def test_a_sheet_and_pairs_of_columns_of_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "notes"
    book.active.append(["nothing", "here"])
    sheet = book.create_sheet("run")
    sheet.append(["A1", "A2", "B1", "B2"])
    for v, i in zip(VOLTS, AMPS, strict=True):
        sheet.append([i, 2 * i, v, 2 * v])
    path = tmp_path / "book.xlsx"
    book.save(path)
    assert {c.sheet for c in columns_of(path)} == {"run"}
    recipe = FileRecipe(voltage=("B1", "B2"), currents=("A1", "A2"), sheet="run")
    sweep = read(path, recipe=recipe)
    np.testing.assert_allclose(sweep.voltage, np.stack([VOLTS, 2 * VOLTS], 1), atol=1e-12)
    np.testing.assert_allclose(sweep.current, np.stack([AMPS, 2 * AMPS], 1), atol=1e-12)
    with pytest.raises(IngestError, match='no sheet "Run"'):
        read(path, recipe=replace(recipe, sheet="Run"))


def test_a_column_that_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r'no column "drve"; columns: .*Did you mean "drive"'):
        read(_odd(tmp_path / "a.csv"), recipe=FileRecipe(voltage="drve", currents="sense"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"voltage": ("a", "b"), "currents": ("c",)}, "one voltage column, or one for each"),
        ({"voltage": "a", "current": "b"}, '"current" is no part of it'),
        ({"voltage": "a"}, "those are needed"),
        ({"voltage": (), "currents": "b"}, "needs a voltage and a current column"),
        ({"voltage": "a", "currents": 3}, "by text"),
        ({"voltage": "a", "currents": "a"}, "names each column once"),
        ({"voltage": "a", "currents": "b", "voltage_unit": "mA"}, "no unit of voltage"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(wrong: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(IngestError, match=message):
        FileRecipe.from_dict(wrong)


def test_a_file_that_says_itself_what_it_holds_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "b1500.csv"
    path.write_text("SetupTitle, x\nDataName, V, I\nDataValue, 0, 0\nDataValue, 1, 1e-3\n")
    assert columns_of(path) == []
    with pytest.raises(IngestError, match="says itself what its columns are"):
        read(path, recipe=ODD)


def test_a_kept_recipe_reads_the_next_files_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "campaign"
    with Campaign.new(folder, template="perovskite-nanowires") as campaign:
        campaign.suggest(1)
        first, second = _odd(tmp_path / "T001_a.csv"), _odd(tmp_path / "T001_b.csv")
        second.write_text(second.read_text() + "40,0,10,3\n")
        assert campaign.ingest([first])[0].status == "refused"
        campaign.save_file_recipe("probe station", ODD)
        assert recognise(second, campaign.file_recipes) == "probe station"
        assert [i.status for i in campaign.ingest([first, second])] == ["recorded", "recorded"]
        record = campaign.trials["T001"].records[0]
        assert record.figures["sigma"] == figures_of_merit(read(first, recipe=ODD)).sigma
        assert campaign.log()[-3].text == 'kept the recipe for files "probe station"'
        campaign.undo(campaign.log()[-3].event)
        assert campaign.file_recipes == {}
        with pytest.raises(CampaignError, match='no recipe for files "probe"'):
            campaign.ingest([first], recipe="probe")
