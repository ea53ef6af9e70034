"""The trial sheet: the campaign as a table that a lab fills in Excel and hands back."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ohmloop._files import write_whole
from ohmloop.campaign._config import Config
from ohmloop.campaign._trials import State
from ohmloop.errors import CampaignError, StoreError

SHEET = "trials"
FORMULA_SIGNS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
)  # text that begins so, a spreadsheet program may run
AS_OF = "as_of"
"""Column with the number of the last event that the sheet knows: what others did later is not overwritten."""
TO_FILL = ("status", "device", "failed_at", "passed", "note")


def columns(config: Config) -> list[str]:
    """Return the header of the trial sheet."""
    outcome = [o.name for o in config.objectives]
    inner = ["device", "failed_at", "passed", *outcome, "note", AS_OF]
    return ["trial", "status", *config.variables, *inner]


def rows(config: Config, state: State) -> list[dict[str, Any]]:
    """Return one row a device with a result, and one a trial without."""
    out = []
    stages = [s.name for s in config.stages]
    for trial in state.trials.values():
        if trial.status == "withdrawn":
            continue
        base: dict[str, Any] = {"trial": trial.id, "status": trial.status, **trial.recipe}
        base[AS_OF] = state.last_event
        if not trial.records:
            out.append({**base, "note": trial.note})
        for record in trial.records:
            passed = [name for name in stages if record.stages.get(name)]
            out.append(
                {
                    **base,
                    "device": record.device,
                    "failed_at": record.failed_at or "",
                    "passed": "" if record.failed_at or not passed else _last(passed, stages),
                    **record.values,
                    "note": record.note,
                }
            )
    return out


def _last(passed: list[str], stages: list[str]) -> str:
    return "all" if passed == stages else passed[-1]


def write(config: Config, state: State, path: Path) -> Path:
    """Write the trial sheet; see `Campaign.export`."""
    header = columns(config)
    table = [[row.get(name, "") for name in header] for row in rows(config, state)]
    suffix = path.suffix.lower()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows([[_harmless(cell) for cell in line] for line in table])
        content = text.getvalue().encode("utf-8-sig")  # so that Excel sees UTF-8
    elif suffix == ".xlsx":
        content = _workbook(config, header, table)
    else:
        raise CampaignError(f'{path.name}: export to .csv or .xlsx, not "{path.suffix}".')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _harmless(cell: Any) -> Any:
    """Keep text that begins like a formula from being one in a spreadsheet program."""
    if isinstance(cell, str) and cell.lstrip("'")[:1] in FORMULA_SIGNS:
        return "'" + cell
    return cell


def _in_book(cell: Any) -> Any:
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return _harmless(ILLEGAL_CHARACTERS_RE.sub("\ufffd", cell) if isinstance(cell, str) else cell)


def _workbook(config: Config, header: list[str], table: list[list[Any]]) -> bytes:
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Font, PatternFill
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = SHEET
    sheet.append(header)
    for line in table:
        sheet.append([None if cell == "" else _in_book(cell) for cell in line])
    to_fill = {*TO_FILL, *(o.name for o in config.objectives)}
    for k, name in enumerate(header, start=1):
        cell = sheet.cell(1, k)
        cell.font = Font(bold=True)
        cell.alignment = Alignment(wrap_text=True, vertical="top")
        if name in to_fill:
            cell.fill = PatternFill("solid", fgColor="FFF2CC")
        sheet.column_dimensions[get_column_letter(k)].width = max(10, min(28, len(name) + 3))
    sheet.freeze_panes = "B2"
    last = len(table) + 200  # room for further devices and experiments of one's own
    stages = [s.name for s in config.stages]
    choices = {
        "status": ["suggested", "accepted", "rejected", "done"],
        "failed_at": stages,
        "passed": [*stages, "all"],
    }
    choices |= {n: list(v.options) for n, v in config.variables.items() if v.type == "categorical"}
    for name, options in choices.items():
        listed = ",".join(options)
        if 0 < len(listed) <= 250 and '"' not in listed and not any("," in o for o in options):
            rule = DataValidation(type="list", formula1=f'"{listed}"', allow_blank=True)
            rule.showErrorMessage = False  # a help, not a fence: own experiments may leave it
            letter = get_column_letter(header.index(name) + 1)
            rule.add(f"{letter}2:{letter}{last}")
            sheet.add_data_validation(rule)
    guide = book.create_sheet("how to fill in")
    for line in _guide(config):
        guide.append([_in_book(cell) for cell in line])
    guide.column_dimensions["A"].width, guide.column_dimensions["B"].width = 26, 100
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _guide(config: Config) -> list[list[str]]:
    lines = [
        ["Fill in the yellow columns", "and hand the file back: ohmloop campaign import FILE"],
        [
            "one row a device",
            "copy the row for a second device of the same trial, and name the devices",
        ],
        ["status", "accepted, or rejected with the reason under note; leave it otherwise"],
        ["device", "any name; the same name later adds to the device's result, or corrects it"],
        ["failed_at", "the stage at which the device failed; leave empty for a working device"],
        ["passed", "the last stage that a working device passed; all for every stage"],
        ["a recipe of your own", "a new row with an empty trial cell and all of the recipe"],
        ["a changed recipe", "write over it, as long as the trial has no result"],
        [AS_OF, "leave it: what others decided after this sheet was made is not overwritten"],
        [],
    ]
    lines += [[f"stage {s.name}", s.question] for s in config.stages]
    lines += [[f"objective {o.name}", f"{o.goal} {o.unit}".strip()] for o in config.objectives]
    lines += [[v, f"{spec.help} {spec.unit}".strip()] for v, spec in config.variables.items()]
    return lines
