"""The trial sheet goes to Excel and comes back as people fill it in."""

import csv
import datetime
import io
from pathlib import Path
from typing import Any

import pytest

from ohmloop.campaign import Campaign, Imported
from ohmloop.data import read_table
from ohmloop.errors import CampaignError, IngestError, StoreError
from tests.campaign.small import TEXT, filled, own, rewrite, start

INNER = ["x", "kind", "device", "failed_at", "passed", "usability", "note"]
HEADER = ["trial", "status", *INNER, "as_of"]


def sheet(path: Path, *rows: dict[str, Any], header: list[str] | None = None) -> Path:
    """Write rows as a comma-separated sheet."""
    header = header or HEADER
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def excel(path: Path, rows: list[list[Any]], title: str = "trials", first: str = "") -> Path:
    from openpyxl import Workbook

    book = Workbook()
    page = book.active
    assert page is not None
    if first:
        page.title = first
        page = book.create_sheet(title)
    page.title = title
    for row in rows:
        page.append(row)
    book.save(path)
    return path


def done(campaign: Campaign) -> list[tuple[str, str, str | None, dict[str, float]]]:
    return [
        (t.id, r.device, r.failed_at, r.values) for t in campaign.trials.values() for r in t.records
    ]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_an_exported_sheet_comes_back_without_a_change(tmp_path: Path, suffix: str) -> None:
    with filled(tmp_path / "lab") as campaign:
        campaign.suggest(2)
        campaign.reject("T006", "no, thank you")
        campaign.record("T002", values={"usability": 0.123456789012345}, device="second")
        path = campaign.export(tmp_path / f"sheet{suffix}")
        before = campaign.state.last_event
        got = campaign.import_(path)
        assert got == Imported(unchanged=8)
        assert campaign.state.last_event == before


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_the_sheet_has_one_row_a_device_and_the_last_stage_passed(
    tmp_path: Path, suffix: str
) -> None:
    with start(tmp_path / "lab") as campaign:
        own(campaign, x=0.5, kind="doped")
        campaign.record("T001", values={"usability": 0.2}, passed="switches", note="=1+1")
        campaign.record("T001", failed_at="analog", device="b")
        campaign.record("T001", passed="all", device="c")
        table = read_table(campaign.export(tmp_path / f"s{suffix}"))
    assert table[0] == HEADER
    assert table[1] == ["T001", "done", "0.5", "doped", "1", "", "switches", "0.2", "'=1+1", "6"]
    assert table[2][4:7] == ["b", "analog", ""]
    assert table[3][4:7] == ["c", "", "all"]


def test_results_decisions_edits_and_own_experiments_are_taken_over(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        trials = campaign.suggest(4)
        path = sheet(
            tmp_path / "s.csv",
            {"trial": "T001", "status": "accepted", "failed_at": "fabricated", "note": "cracked"},
            {"trial": "T002", "status": "rejected", "note": "no toluene"},
            {"trial": "t3", "x": 0.35, "kind": "mixed"},
            {"trial": "4", "usability": 0.2, "passed": "Analog", "device": "left"},
            {"trial": "4", "usability": 0.3, "passed": "analog", "device": "right"},
            {"x": 0.7, "kind": "plain", "usability": 0.1, "passed": "all", "note": "mine"},
            {"x": 0.7, "kind": "plain", "failed_at": "conducts"},
        )
        got = campaign.import_(path)
        assert (got.recorded, got.added, got.decided, got.unchanged) == (5, 1, 3, 0)
        assert done(campaign) == [
            ("T001", "1", "fabricated", {}),
            ("T004", "left", None, {"usability": 0.2}),
            ("T004", "right", None, {"usability": 0.3}),
            ("T005", "1", None, {"usability": 0.1}),
            ("T005", "2", "conducts", {}),
        ]
        assert campaign.trials["T002"].note == "no toluene"
        assert campaign.trials["T003"].recipe == {"x": 0.35, "kind": "mixed"}
        assert campaign.trials["T003"].status == "accepted"
        assert campaign.trials["T004"].recipe == trials[3].recipe
        assert (campaign.trials["T005"].origin, campaign.trials["T005"].note) == (
            "imported",
            "mine",
        )
        assert any("T003" in note and "not on its steps" in note for note in got.notes)
        before = campaign.state.last_event
        again = campaign.import_(path)
        assert (again.recorded, again.added, again.decided) == (0, 0, 0)
        assert campaign.state.last_event == before


def test_a_german_excel_csv_is_understood(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        text = (
            "note;USABILITY;trial; passed ;x;kind\r\n"
            ";;;;;\r\n"
            "  ein Haarriss, rechts ;0,21;T001 ; all;;\r\n"
            "Hä?;1,5e-1;;analog;0,4;doped\r\n"
        )
        (tmp_path / "s.csv").write_bytes(text.encode("latin-1"))
        got = campaign.import_(tmp_path / "s.csv")
        assert (got.recorded, got.added) == (2, 1)
        assert campaign.trials["T001"].records[0].values == {"usability": 0.21}
        assert campaign.trials["T001"].records[0].note == "ein Haarriss, rechts"
        assert campaign.trials["T002"].recipe == {"x": 0.4, "kind": "doped"}
        assert campaign.trials["T002"].records[0].values == {"usability": 0.15}


def test_a_workbook_with_blank_rows_other_sheets_and_numbers_for_names(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        path = excel(
            tmp_path / "s.xlsx",
            [
                [None, None],
                ["device", "usability", "trial", "x", "kind", "note", None],
                [None, None, None],
                [1, 0.25, " T001 ", None, None, datetime.date(2026, 5, 1)],
                [2, 1, "T001"],
            ],
            first="my plots",
        )
        assert campaign.import_(path).recorded == 2
        records = campaign.trials["T001"].records
        assert [(r.device, r.values["usability"]) for r in records] == [("1", 0.25), ("2", 1.0)]
        assert records[0].note.startswith("2026-05-01")


def test_a_wrong_sheet_records_nothing_and_names_every_wrong_row(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(2)
        before = campaign.state.last_event
        path = excel(
            tmp_path / "s.xlsx",
            [
                HEADER,
                ["T001", None, None, None, None, None, None, 0.2],
                [],
                ["T099", None, None, None, None, None, None, 0.2],
                ["T002", "perhaps"],
                ["T002", None, datetime.date(2026, 5, 1)],
                ["T002", None, None, None, None, "swtches"],
                ["T002", None, None, None, None, None, None, "0,2"],
                [None, None, 0.5, None, None, None, None, 0.2],
                [None, None, None, None, None, None, None, 0.2],
                ["T002", "rejected", None, None, None, None, None, 0.2],
            ],
        )
        with pytest.raises(CampaignError) as caught:
            campaign.import_(path)
        lines = str(caught.value).splitlines()
        assert lines[0] == "s.xlsx: nothing was recorded."
        for line, (number, said) in zip(
            lines[1:],
            [
                (4, 'no trial "T099"'),
                (5, '"perhaps" is neither accepted nor rejected'),
                (6, "made a date of it: format the cell as a number"),
                (7, 'Did you mean "switches"'),
                (8, "Write 0.2 if the comma is a decimal one"),
                (9, "missing: kind"),
                (10, "neither a trial nor a recipe"),
                (11, "has a result but is rejected"),
            ],
            strict=True,
        ):
            assert line.startswith(f"row {number}: ")
            assert said in line
        assert campaign.state.last_event == before


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            ["trial", "usabilty"],
            ["T001", "1"],
            'no column of this campaign. Did you mean "usability"',
        ),
        (["trial", "device", "device"], ["T001", "a", "b"], "the column device occurs twice"),
        (
            ["trial", "", "note"],
            ["T001", "0.3", ""],
            'row 2: "0.3" stands in a column without a name',
        ),
        ([""], [""], "holds no table"),
    ],
)
def test_a_wrong_header_is_named(
    tmp_path: Path, header: list[str], row: list[str], message: str
) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        (tmp_path / "s.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
        with pytest.raises(CampaignError, match=message):
            campaign.import_(tmp_path / "s.csv")


def test_equal_rows_of_unnamed_devices_are_as_many_devices(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        row = {"trial": "T001", "failed_at": "fabricated"}
        assert campaign.import_(sheet(tmp_path / "two.csv", row, row)).recorded == 2
        assert campaign.import_(sheet(tmp_path / "two.csv", row, row)).unchanged == 2
        assert campaign.import_(sheet(tmp_path / "three.csv", row, row, row)).recorded == 1
        assert len(campaign.trials["T001"].records) == 3


def test_a_corrected_cell_corrects_the_device_and_keeps_the_old_event(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        campaign.record("T001", values={"usability": 0.021})
        path = campaign.export(tmp_path / "s.csv")
        path.write_text(path.read_text(encoding="utf-8-sig").replace("0.021", "0.21"))
        assert campaign.import_(path).recorded == 1
        assert done(campaign) == [("T001", "1", None, {"usability": 0.21})]
        campaign.undo()
        assert done(campaign) == [("T001", "1", None, {"usability": 0.021})]


def test_one_device_cannot_have_two_rows(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        rows = [{"trial": "T001", "device": "a", "usability": v} for v in (0.1, 0.2)]
        with pytest.raises(CampaignError, match='row 3: row 2 is device "a" of T001 already'):
            campaign.import_(sheet(tmp_path / "s.csv", *rows))


def test_the_recipe_of_a_trial_with_results_stays(tmp_path: Path) -> None:
    with filled(tmp_path / "lab") as campaign:
        row = {"trial": "T001", "x": 0.9, "kind": "plain"}
        with pytest.raises(CampaignError, match=r"row 2: trial T001 has results.*\(x\)"):
            campaign.import_(sheet(tmp_path / "s.csv", row))


def test_a_trial_marked_done_without_a_result_is_mentioned(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        got = campaign.import_(sheet(tmp_path / "s.csv", {"trial": "T001", "status": "done"}))
        assert got.notes == ("row 2: T001 is done, but has no result: nothing to record",)


def test_a_sheet_from_before_the_space_changed_is_still_read(tmp_path: Path) -> None:
    with filled(tmp_path / "lab") as campaign:
        path = campaign.export(tmp_path / "s.csv")
    text = TEXT.replace(TEXT[TEXT.index("[variables.kind]") : TEXT.index("[[objectives]]")], "")
    text += '\n[variables.flux]\ntype = "ordinal"\nlevels = [1, 2]\nformer = 1\n'
    with rewrite(campaign, text) as changed:
        got = changed.import_(path)
        assert (got.recorded, got.unchanged) == (0, 5)
        assert got.notes == ("column kind was left out: it is no variable (any longer)",)


def test_imports_after_an_undo_count_again(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        path = sheet(tmp_path / "s.csv", {"trial": "T001", "failed_at": "fabricated"})
        campaign.import_(path)
        campaign.undo()
        assert campaign.import_(path).recorded == 1


def test_only_csv_and_xlsx_are_written_and_the_disk_is_said(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        with pytest.raises(CampaignError, match=r'export to .csv or .xlsx, not ".ods"'):
            campaign.export(tmp_path / "s.ods")
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="cannot be written"):
            campaign.export(tmp_path / "file" / "s.csv")
        with pytest.raises(IngestError, match="cannot be opened"):
            campaign.import_(tmp_path / "nowhere.csv")


def test_the_workbook_helps_to_fill_it_in(tmp_path: Path) -> None:
    from openpyxl import load_workbook

    with start(tmp_path / "lab") as campaign:
        campaign.suggest(1)
        book = load_workbook(campaign.export(tmp_path / "s.xlsx"))
    assert book.sheetnames == ["trials", "how to fill in"]
    page = book["trials"]
    yellow = [c.value for c in page[1] if c.fill.fgColor.rgb == "00FFF2CC"]
    assert yellow == ["status", "device", "failed_at", "passed", "usability", "note"]
    lists = {rule.formula1 for rule in page.data_validations.dataValidation}
    assert '"plain,doped,mixed"' in lists
    assert page.freeze_panes == "B2"


# -- earlier campaigns --------------------------------------------------------------------------


@pytest.mark.slow
def test_an_earlier_campaign_informs_and_makes_no_trial(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        path = tmp_path / "old.csv"
        path.write_text(
            "x,kind,usability,passed,failed_at,operator\n"
            "0.1,plain,0.1,all,,ada\n0.9,gold,0.4,all,,ada\n0.5,mixed,,,conducts,ada\n0.2,plain,,,,ada\n"
        )
        got = campaign.import_(path, earlier="2024")
        assert (got.recorded, got.added) == (3, 0)
        assert got.notes == ("column operator was left out: it is no variable (any longer)",)
        assert campaign.import_(path, earlier="2024").unchanged == 3
        assert campaign.trials == {}
        assert [o.source for o in campaign.observations()] == ["2024"] * 3
        for k in range(4):
            own(campaign, x=0.1 * k, kind="doped")
            campaign.record(f"T{k + 1:03d}", values={"usability": 0.1 * k}, passed="all")
        assert campaign.best()[0][0].id == "T004"  # of this campaign
        assert campaign.suggest(1)[0].reasons["nearest"] in campaign.trials
        campaign.undo(3)
        assert len(campaign.observations()) == 4


def test_an_earlier_campaign_without_results_or_name_is_refused(tmp_path: Path) -> None:
    with start(tmp_path / "lab") as campaign:
        path = sheet(tmp_path / "old.csv", {"x": 0.1, "kind": "plain"})
        with pytest.raises(
            CampaignError, match=r"no row has a result \(failed_at, passed, usability"
        ):
            campaign.import_(path, earlier="2024")
        with pytest.raises(CampaignError, match="needs a name"):
            campaign.import_(path, earlier=" ")
        path = sheet(tmp_path / "old.csv", {"x": 0.1, "usability": 1})
        with pytest.raises(CampaignError, match='row 2: it has no value for "kind"'):
            campaign.import_(path, earlier="2024")
