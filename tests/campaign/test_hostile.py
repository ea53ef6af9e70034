"""Settings and sheets that nobody sane would write: accepted or refused in words, and nothing is lost."""

import csv
import io
import math
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from ohmloop.campaign import Campaign, Config, list_templates, parse_config, template
from ohmloop.errors import CampaignError, OhmloopError, StoreError

LONGEST_TEXT = 4000  # characters of an error; a person has to read it
LONGEST_CALL = 10.0  # seconds; generous, the machine may be busy
Text = Callable[[str, np.random.Generator], str]
Bytes = Callable[[bytes, np.random.Generator], bytes]


@contextmanager
def in_words() -> Iterator[None]:
    """What is inside ends well or with a short error of ours, and soon."""
    begin = time.monotonic()
    try:
        yield
    except OhmloopError as error:
        assert 0 < len(str(error)) <= LONGEST_TEXT, str(error)[:300]  # noqa: PT017
        str(error).encode()
    assert time.monotonic() - begin < LONGEST_CALL


# -- settings -----------------------------------------------------------------------------------

WORDS = (
    "nan", "inf", "-inf", "1e999", "-0.0", "0", "1e308", "1e-320", "9" * 4000, "-1", "true", '""',
    "[]", "{}", '"x"', "[[[[]]]]", "1979-05-27", '"9**9**9"', "\"__import__('os').system('true')\"",
    '"a" * 3', "'''", "[1, 2, 3]", "{ a = 1 }", "0x7fffffffffffffff", "99999999999999999999",
    '"\\u0000"', '"material"', '"cvd_time_h"', '"' + "x" * 3000 + '"', '["a", "a"]', "[nan]",
    '"(" ', '"1 if 1 else"', '"log(-1)"', '"1/0"', '["p", 1, true]', "{ material = [] }",
)  # fmt: skip


def other_value(text: str, rng: np.random.Generator) -> str:
    lines = text.split("\n")
    keyed = [k for k, line in enumerate(lines) if re.match(r"^\w+ = ", line)]
    k = keyed[int(rng.integers(len(keyed)))]
    lines[k] = lines[k].split(" = ")[0] + " = " + WORDS[int(rng.integers(len(WORDS)))]
    return "\n".join(lines)


def other_number(text: str, rng: np.random.Generator) -> str:
    found = list(re.finditer(r"(?<![\w.])-?\d+(\.\d+)?", text))
    at = found[int(rng.integers(len(found)))]
    number = ("0", "-1", "1e-300", "1e300", "nan", "inf", "7", "1e17", "0.1")[int(rng.integers(9))]
    return text[: at.start()] + number + text[at.end() :]


def drop_line(text: str, rng: np.random.Generator) -> str:
    lines = text.split("\n")
    del lines[int(rng.integers(len(lines)))]
    return "\n".join(lines)


def twice_a_line(text: str, rng: np.random.Generator) -> str:
    lines = text.split("\n")
    lines.insert(int(rng.integers(len(lines))), lines[int(rng.integers(len(lines)))])
    return "\n".join(lines)


def swap_names(text: str, rng: np.random.Generator) -> str:
    names = sorted(set(re.findall(r"[A-Za-z_]\w+", text)))
    a, b = (names[int(k)] for k in rng.integers(0, len(names), 2))
    return re.sub(rf"\b{a}\b", b, text, count=int(rng.integers(1, 3)))


def flip_character(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(text)))
    new = "\0\x7f\u202e\ufeff=[]{}'\"\n#.é\U0001f600"
    return text[:at] + new[int(rng.integers(len(new)))] + text[at + 1 :]


def cut(text: str, rng: np.random.Generator) -> str:
    return text[: int(rng.integers(len(text)))]


EDITS = [other_value, other_number, drop_line, twice_a_line, swap_names, flip_character, cut]
N_SETTINGS = 250  # of each kind


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.__name__)
def test_edited_settings_are_accepted_or_refused_in_words(edit: Text) -> None:
    rng = np.random.default_rng(EDITS.index(edit))
    n_refused = 0
    for k in range(N_SETTINGS):
        text = template(list_templates()[k % len(list_templates())])
        for _ in range(int(rng.integers(1, 3))):
            text = edit(text, rng)
        accepted = False
        with in_words():
            config = parse_config(text)
            accepted = True
        n_refused += not accepted
        if accepted and k % 10 == 0:
            with in_words():
                config.problem().space.sample(3, np.random.default_rng(0))
    assert n_refused > 0


def settings(
    variable: str = 'type = "continuous"\nlow = 0\nhigh = 1', rest: str = "", stage: str = ""
) -> str:
    return (
        f'schema_version = 1\nname = "n"\n{rest}\n[variables.a]\n{variable}\n[variables.b]\n'
        f'type = "continuous"\nlow = 0\nhigh = 1\n[[stages]]\nname = "works"\n{stage}\n'
        '[[objectives]]\nname = "y"\n'
    )


BOMBS = [
    "a = " + "[" * 100_000,
    "a = " + "[" * 100_000 + "]" * 100_000,
    "a = " + "{a = " * 50_000,
    ".".join(["a"] * 100_000) + " = 1",
    "[" + ".".join(["a"] * 50_000) + "]",
    "\n".join(f"[variables.v{k}]" for k in range(20_000)),
    "a = " + "9" * 1_000_000,
    'name = "' + "x" * 1_000_000 + '"',
    settings(rest="x" * 200_000 + " = 1"),
    settings("type = " + repr("x" * 100_000)),
    settings(f'type = "categorical"\noptions = {[str(k) for k in range(100_000)]}'),
    settings('type = "ordinal"\nlevels = [0, 1e999]'),
    settings('type = "continuous"\nlow = -1e308\nhigh = 1e308'),
    settings('type = "continuous"\nlow = 1e308\nhigh = 1.1e308\nstep = 1e300'),
    settings('type = "continuous"\nlow = 0\nhigh = 1e300\nstep = 1e-300'),
    settings('type = "integer"\nlow = -1e300\nhigh = 1e300'),
    settings('type = "continuous"\nlow = 5e-324\nhigh = 1e-323'),
    settings('type = "continuous"\nlow = 5e-324\nhigh = 1e308\nscale = "log"'),
    settings('type = "continuous"\nlow = nan\nhigh = 1'),
    settings('type = "continuous"\nlow = 0\nhigh = inf'),
    settings('type = "continuous"\nlow = 0\nhigh = 1\nwhen = { a = [1] }'),
    settings('type = "continuous"\nlow = 0\nhigh = 1\nwhen = { "" = [] }'),
    "\0",
    "\ufeff\ufeff",
    "",
]


@pytest.mark.parametrize("number", range(len(BOMBS)))  # a name of a megabyte helps nobody
def test_settings_that_are_bombs_end_soon(number: int) -> None:
    with in_words():
        config = parse_config(BOMBS[number])
        config.problem().space.sample(3, np.random.default_rng(0))


@pytest.mark.parametrize(
    "formula",
    [
        "9**9**9",
        "9**9**9**9**9",
        "-" * 400 + "1",
        "(" * 240 + "1" + ")" * 240,
        "1+" * 240 + "1",
        "a" * 501,
        "__import__('os').system('touch /tmp/never')",
        "().__class__.__bases__[0].__subclasses__()",
        "open('/etc/passwd').read()",
        "exec('1')",
        "abs.__self__",
        "[a for a in a]",
        "lambda: 1",
        "(a := 1)",
        "f'{a}'",
        "a if a",
        "a @ b",
        "a << 99999",
        "10**100000",
        "1" * 400,
        "'x' * 10**9",
        "a and 'x'",
        "max()",
        "min(a, 'x')",
        "log('x')",
        "not 'x'",
        "-'x'",
        "a < 'x'",
        "a == 'x' == b",
        "True",
        "1j",
        "...",
        "b'x'",
        "a\n+b",
        "a; b",
        "\ud800",
        "ａ",
        "1e999",
        "nan",
        "0*1e999",
    ],
)
@pytest.mark.parametrize("place", ["constraint", "cost", "time", "stage"])
def test_a_formula_never_runs_and_never_hangs(formula: str, place: str) -> None:
    try:
        quoted = '"' + formula.encode("unicode_escape").decode().replace('"', '\\"') + '"'
        quoted = re.sub(r"\\x(..)", r"\\u00\1", quoted)
    except UnicodeEncodeError:
        quoted = repr(formula)
    text = {
        "constraint": settings() + f"[[constraints]]\nrule = {quoted}\n",
        "cost": settings() + f"[cost]\nformula = {quoted}\n",
        "time": settings() + f"[time]\nformula = {quoted}\n",
        "stage": settings(stage=f"passes_when = {quoted}"),
    }[place]
    with in_words():
        config = parse_config(text)
        config.problem().space.sample(3, np.random.default_rng(0))
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"a = 1\n" * 200_000, "settings have at most"),
        (b"", "campaign.toml"),
        (None, "cannot be read"),
    ],
)
def test_settings_that_are_broken_on_the_disk_leave_the_records_alone(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    folder = tmp_path / "lab"
    with Campaign.new(folder, text=settings()) as campaign:
        campaign.add({"a": 0.5, "b": 0.5})
        n = len(campaign.state.history)
    path = folder / "campaign.toml"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CampaignError, match=message):
        Campaign.open(folder)
    path.write_text(settings())
    with Campaign.open(folder) as campaign:
        assert len(campaign.state.history) == n


# -- sheets -------------------------------------------------------------------------------------


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    with Campaign.new(tmp_path / "lab", template="perovskite-nanowires", actor="ann") as campaign:
        for k, trial in enumerate(campaign.suggest(4)):
            if k % 2:
                campaign.record(trial.id, values={"usability": 0.1 * k}, device=f"d{k}")
        yield campaign


CELLS = (
    "nan", "inf", "-inf", "1e999", "9" * 400, "-", "=1+1", "=cmd|'/c calc'!A1", "T999", "T001", "",
    "done", "rejected", "accepted", "all", "fabricated", "switches", "\u202e", "'", '"', "1,5",
    "0x10", "1_000", "١", "½", "true", "None", "\x7f", "é" * 200, "MAPbI3", "T1; drop table events",
)  # fmt: skip


def other_cells(data: bytes, rng: np.random.Generator) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    for _ in range(int(rng.integers(1, 4))):
        row = rows[int(rng.integers(len(rows)))]
        if row:
            row[int(rng.integers(len(row)))] = CELLS[int(rng.integers(len(CELLS)))]
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def other_columns(data: bytes, rng: np.random.Generator) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    a, b = (int(k) for k in rng.integers(0, len(rows[0]), 2))
    kind = int(rng.integers(4))
    for row in rows:
        if kind == 0:
            row[a], row[b] = row[b], row[a]
        elif kind == 1:
            row.insert(b, row[a])
        elif kind == 2:
            del row[a]
        else:
            del row[a:]
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def other_rows(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\r\n")
    picked = rng.integers(0, len(lines), int(rng.integers(1, 2 * len(lines))))
    return b"\r\n".join(lines[int(k)] for k in picked)


def flip_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
        out[at] = int(rng.integers(256))
    return bytes(out)


def cut_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def other_delimiter(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b",", (b";", b"\t", b"|", b"\n", b'"', b"")[int(rng.integers(6))])


def other_encoding(data: bytes, rng: np.random.Generator) -> bytes:
    text = data.decode("utf-8-sig").replace("ann", "änn")
    name = ("utf-16", "utf-16-le", "latin-1", "cp037", "utf-32")[int(rng.integers(5))]
    return text.encode(name, "replace")


SHEET_EDITS = [
    other_cells,
    other_columns,
    other_rows,
    flip_bytes,
    cut_bytes,
    other_delimiter,
    other_encoding,
]
N_SHEETS = 120  # of each kind, CSV
N_BOOKS = 60  # of each kind, XLSX


def import_all(campaign: Campaign, path: Path, edits: Iterator[bytes]) -> int:
    """Import each of the contents; return how many were refused. Nothing recorded before may change."""
    n_refused = 0
    for content in edits:
        path.write_bytes(content)
        before = campaign.state.history
        accepted = False
        with in_words():
            campaign.import_(path)
            accepted = True
        n_refused += not accepted
        after = campaign.state.history
        assert after[: len(before)] == before
        if not accepted:
            assert len(after) == len(before)
        for trial in campaign.trials.values():
            for record in trial.records:
                assert all(math.isfinite(x) for x in record.values.values())
    assert campaign.check() == []
    with Campaign.open(campaign.folder, writable=False) as again:
        assert again.state.trials == campaign.state.trials
    return n_refused


@pytest.mark.slow
@pytest.mark.parametrize("edit", SHEET_EDITS, ids=lambda e: e.__name__)
def test_an_edited_csv_sheet_is_taken_or_refused_in_words(
    campaign: Campaign, tmp_path: Path, edit: Bytes
) -> None:
    rng = np.random.default_rng(SHEET_EDITS.index(edit))
    sheet = campaign.export(tmp_path / "sheet.csv").read_bytes()
    contents = (edit(sheet, rng) for _ in range(N_SHEETS))
    import_all(campaign, tmp_path / "edited.csv", contents)
    with in_words():
        campaign.observations()
    campaign.export(tmp_path / "again.csv")
    campaign.export(tmp_path / "again.xlsx")


def parts_of(book: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(book)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def flip_in_part(book: bytes, rng: np.random.Generator) -> bytes:
    parts = parts_of(book)
    name = sorted(parts)[int(rng.integers(len(parts)))]
    return zipped({**parts, name: flip_bytes(parts[name], rng)})


def drop_part(book: bytes, rng: np.random.Generator) -> bytes:
    parts = parts_of(book)
    del parts[sorted(parts)[int(rng.integers(len(parts)))]]
    return zipped(parts)


def other_number_in_part(book: bytes, rng: np.random.Generator) -> bytes:
    parts = parts_of(book)
    name = "xl/worksheets/sheet1.xml"
    text = other_number(parts[name].decode(), rng)
    return zipped({**parts, name: text.encode()})


BOOK_EDITS = [flip_bytes, cut_bytes, flip_in_part, drop_part, other_number_in_part]


@pytest.mark.slow
@pytest.mark.parametrize("edit", BOOK_EDITS, ids=lambda e: e.__name__)
def test_an_edited_workbook_is_taken_or_refused_in_words(
    campaign: Campaign, tmp_path: Path, edit: Bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(BOOK_EDITS.index(edit))
    book = campaign.export(tmp_path / "sheet.xlsx").read_bytes()
    contents = (edit(book, rng) for _ in range(N_BOOKS))
    import_all(campaign, tmp_path / "edited.xlsx", contents)
    capfd.readouterr()  # the reader of workbooks prints its panics


def one_row(campaign: Campaign, tmp_path: Path, **cells: str) -> bytes:
    """The exported sheet with some cells of its first row filled in."""
    path = campaign.export(tmp_path / "sheet.csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerow({**rows[0], **cells})
    return out.getvalue().encode()


@pytest.mark.slow
@pytest.mark.parametrize("column", ["note", "device", "usability", "material", "trial", "status"])
def test_a_cell_of_10_megabytes_ends_soon(campaign: Campaign, tmp_path: Path, column: str) -> None:
    filled = {"usability": "0.5", column: "x" * 10_000_000}
    content = one_row(campaign, tmp_path, **filled)
    book = openpyxl.Workbook()
    sheet = book.active
    cells = {"trial": "T001", "usability": 0.5, column: "MARK"}
    sheet.append(list(cells))
    sheet.append(list(cells.values()))
    packed = io.BytesIO()
    book.save(packed)
    parts = parts_of(packed.getvalue())
    parts = {n: p.replace(b"MARK", b"y" * 10_000_000) for n, p in parts.items()}
    for path, data in (("big.csv", content), ("big.xlsx", zipped(parts))):
        (tmp_path / path).write_bytes(data)
        before = campaign.state.history
        with in_words():
            campaign.import_(tmp_path / path)
        assert campaign.state.history == before


@pytest.mark.slow
def test_zip_bombs_end_soon(campaign: Campaign, tmp_path: Path) -> None:
    parts = parts_of(campaign.export(tmp_path / "sheet.xlsx").read_bytes())
    sheet = "xl/worksheets/sheet1.xml"
    bombs = [
        zipped({**parts, sheet: b" " * 450_000_000}),
        zipped({**parts, sheet: parts[sheet].replace(b"</sheetData>", b"<row/>" * 10**6)}),
        zipped({**parts, "xl/workbook.xml": b"<a>" * 10**6}),
        zipped(
            {
                **parts,
                sheet: b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
                + b"".join(
                    b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10) for k in range(9)
                )
                + b"]>"
                + parts[sheet].replace(b"T001", b"&j;"),
            }
        ),
        b"PK\x03\x04" + b"\0" * 10_000_000,
        b"PK\x05\x06" + b"\0" * 18,
    ]
    before = campaign.state.history
    for bomb in bombs:
        (tmp_path / "bomb.xlsx").write_bytes(bomb)
        with in_words():
            campaign.import_(tmp_path / "bomb.xlsx")
    assert campaign.state.history == before


@pytest.mark.parametrize("what", ["folder", "missing", "dangling", "empty"])
def test_what_is_no_sheet_is_refused(campaign: Campaign, tmp_path: Path, what: str) -> None:
    path = tmp_path / "sheet.csv"
    if what == "folder":
        path.mkdir()
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "empty":
        path.touch()
    with pytest.raises(OhmloopError, match=r"sheet\.csv"):
        campaign.import_(path)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_text_that_looks_like_a_formula_is_exported_harmless_and_comes_back(
    campaign: Campaign, tmp_path: Path, suffix: str
) -> None:
    texts = ["=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1+1", "'=quoted", "'"]
    for k, text in enumerate(texts):
        campaign.record("T001", values={"usability": 0.5}, device=f"d{k}", note=text)
        campaign.record("T001", values={"usability": 0.6}, device=text, note="")
    path = campaign.export(tmp_path / f"sheet{suffix}")
    if suffix == ".csv":
        text = path.read_bytes().decode("utf-8-sig")
        cells = [c for row in csv.reader(io.StringIO(text, newline="")) for c in row]
    else:
        rows = openpyxl.load_workbook(path)["trials"].iter_rows()
        found = [cell for row in rows for cell in row]
        assert not [c for c in found if c.data_type == "f"]
        cells = [c.value for c in found if isinstance(c.value, str)]
    numbers = re.compile(r"-?[\d.]+(e-?\d+)?")
    risky = [c for c in cells if c[:1] in tuple("=+-@\t\r") and not numbers.fullmatch(c)]
    assert risky == []
    before = campaign.state.trials
    campaign.import_(path)
    assert campaign.state.trials == before


def test_unknown_and_double_columns_are_named(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("trial,usabilty\nT001,0.5\n")
    with pytest.raises(CampaignError, match=r"usabilty.*Did you mean .usability"):
        campaign.import_(path)
    path.write_text("trial,usability,usability\nT001,0.5,0.6\n")
    with pytest.raises(CampaignError, match="usability"):
        campaign.import_(path)
    path.write_text("trial," + ",".join(f"c{k}" for k in range(5000)) + "\nT001\n")
    with pytest.raises(CampaignError, match="no column") as caught:
        campaign.import_(path)
    assert len(str(caught.value)) < LONGEST_TEXT
    path.write_text(",".join(["usability"] * 20_000) + "\n")
    with pytest.raises(CampaignError, match="twice") as caught:
        campaign.import_(path)
    assert len(str(caught.value)) < LONGEST_TEXT


def test_a_sheet_with_one_bad_row_records_nothing(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("trial,device,usability\nT001,a,0.5\nT002,b,0.6\nT003,c,OVLD\n")
    before = campaign.state.history
    with pytest.raises(CampaignError, match=r"nothing was recorded.\nrow 4: .*OVLD"):
        campaign.import_(path)
    assert campaign.state.history == before


# -- calls --------------------------------------------------------------------------------------

VALUES = (
    math.nan, math.inf, -math.inf, 1e308, -0.0, 0, 10**400, True, None, "", "x", "\0", "\ud800",
    b"x", [], {}, [1], {"a": 1}, "9" * 5000, 1j, object(),
)  # fmt: skip


def test_wrong_values_in_calls_are_refused_in_words(campaign: Campaign) -> None:
    recipe = campaign.trials["T001"].recipe
    calls: list[Callable[[object], object]] = [
        lambda x: campaign.record("T001", values={"usability": x}),
        lambda x: campaign.add({**recipe, "cvd_time_h": x}),
        lambda x: campaign.add({**recipe, "material": x}),
        lambda x: campaign.edit("T003", cvd_time_h=x),
        lambda x: campaign.pin("cvd_time_h", x),
        lambda x: campaign.pin("material", x),
    ]
    for call in calls:
        for value in VALUES:
            before = campaign.state.history
            with in_words():
                call(value)
            assert campaign.state.history[: len(before)] == before
    assert campaign.check() == []
    with Campaign.open(campaign.folder) as again:
        assert again.state.trials == campaign.state.trials


def test_text_that_is_no_unicode_does_not_break_the_campaign(
    campaign: Campaign, tmp_path: Path
) -> None:
    for text in ("\ud800", "a\udcffb", "\0", "\x1b[31m", "x" * 100_000, "\u202e"):
        with in_words():
            campaign.record(
                "T001", values={"usability": 0.5}, device=text, note=text, key=f"k{text}"
            )
        with in_words():
            campaign.reject("T003", text)
    for suffix in (".csv", ".xlsx"):
        with in_words():
            campaign.import_(campaign.export(tmp_path / f"sheet{suffix}"))
    assert campaign.check() == []


def test_a_measurement_file_whose_name_is_no_unicode_is_ingested(
    campaign: Campaign, tmp_path: Path
) -> None:
    import os

    from tests.store.crash import sweep

    path = os.fsencode(tmp_path) + b"/T003_\xff.csv"
    try:
        with open(path, "w") as file:
            file.write(sweep("x"))
    except OSError as error:
        pytest.skip(f"this file system has Unicode names only: {error}")
    (done,) = campaign.ingest([os.fsdecode(path)])
    assert (done.status, done.trial) == ("recorded", "T003")
    assert campaign.check() == []
    assert campaign.trials["T003"].records[0].device == "T003_?"


def test_a_full_folder_or_a_file_in_the_way_is_a_store_error(
    campaign: Campaign, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file"):
        Campaign.new(tmp_path / "file" / "lab", text=settings())
    with pytest.raises(StoreError, match="file"):
        campaign.export(tmp_path / "file" / "sheet.csv")
    with pytest.raises(CampaignError, match=r"\.csv or \.xlsx"):
        campaign.export(tmp_path / "sheet.pdf")


def test_the_settings_of_a_config_are_the_same_after_a_round_trip() -> None:
    for name in list_templates():
        config = parse_config(template(name))
        assert Config.model_validate(config.model_dump(exclude_unset=True)) == config


def test_what_the_settings_say_is_exported_harmless(tmp_path: Path) -> None:
    text = settings('type = "continuous"\nlow = 0\nhigh = 1\nhelp = "=cmd|\'/c calc\'!A1 \\u0001"')
    with Campaign.new(tmp_path / "lab", text=text) as campaign:
        path = campaign.export(tmp_path / "sheet.xlsx")
    cells = [c for sheet in openpyxl.load_workbook(path) for row in sheet.iter_rows() for c in row]
    assert not [c for c in cells if c.data_type == "f"]


@pytest.mark.parametrize("note", ["x" * 10_001, "\x00", "\x1b[31m", "\ud800"])
def test_a_note_that_no_sheet_can_hold_is_refused(campaign: Campaign, note: str) -> None:
    before = campaign.state.history
    with pytest.raises(CampaignError, match=r"note: .*(at most 10000|leave it out)"):
        campaign.record("T001", values={"usability": 0.5}, note=note)
    with pytest.raises(CampaignError, match=r"reason: .*(at most 10000|leave it out)"):
        campaign.reject("T001", note)
    assert campaign.state.history == before
