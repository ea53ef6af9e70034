"""``ohmloop campaign`` as a lab types it: exit codes, stable JSON, clear errors, the next step."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.campaign.small import CONTEXT, TEXT
from tests.cli import typed
from tests.cli.typed import Run

Ohmloop = Callable[..., Run]

TRIAL = ["at", "batch", "event", "id", "note", "origin", "reasons", "recipe", "records", "status"]
RECORD = ["at", "device", "errors", "event", "figures", "file", "note", "stages", "values"]
REASONS = [
    *("differences", "gain", "importance", "likeliest_failure", "mode"),
    *("nearest", "predictions", "stages", "usable"),
]
STATUS = [
    *("advice", "best", "best_so_far", "budget", "counts", "failure_rate", "failures_by_stage"),
    *("n_done", "n_failed", "name", "open_trials", "pins"),
]


def call(*args: object) -> Run:
    return typed.ohmloop("campaign", *args)


@pytest.fixture
def ohmloop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ohmloop:
    """The command, inside the folder of a new campaign."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "campaign.toml").write_text(TEXT)
    assert call("new", tmp_path / "lab").code == 0
    monkeypatch.chdir(tmp_path / "lab")
    return call


@pytest.fixture(scope="module")
def suggested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with two suggestions; copy it."""
    place = tmp_path_factory.mktemp("suggested") / "lab"
    place.mkdir()
    (place / "campaign.toml").write_text(TEXT)
    assert call("new", place).code == 0
    with contextlib.chdir(place):
        assert call("suggest", "-q", 2).code == 0
    return place


@pytest.mark.slow
def test_every_command_has_stable_json(ohmloop: Ohmloop, tmp_path: Path) -> None:
    made = ohmloop("new", tmp_path / "other", "--template", "perovskite-nanowires", "--json").json
    assert sorted(made) == ["folder", "name", "variables"]

    trials = ohmloop("suggest", "-q", 4, "--json").json
    assert [sorted(t) for t in trials] == [TRIAL] * 4
    assert sorted(trials[0]["reasons"]) == REASONS
    assert sorted(ohmloop("decide", "T001", "accept", "--json").json) == TRIAL
    assert [t["id"] for t in ohmloop("decide", "all", "accept", "--json").json] == [
        *("T002", "T003", "T004")
    ]
    assert ohmloop("decide", "pin", "kind=plain", "--json").json == {"pins": {"kind": "plain"}}
    assert ohmloop("decide", "unpin", "kind", "--json").json == {"pins": {}}
    added = ohmloop("decide", "add", "x=0.25", "kind=gold", "--json")
    assert added.json[0]["recipe"] == {"kind": "gold", "x": 0.25}
    assert "is not on its steps" in added.err
    undone = ohmloop("decide", "undo", "--json").json
    assert sorted(undone) == ["event", "kind", "undone"]
    assert undone["kind"] == "added"

    recorded = ohmloop("record", "T001", "usability=0.2", "--passed", "all", "--json").json
    assert sorted(recorded["records"][0]) == RECORD
    ohmloop("record", "T002", "--failed-at", "conducts")
    refused = ohmloop("ingest", tmp_path / "nothing.csv", "--json")
    assert refused.code == 1
    assert [sorted(item) for item in refused.json] == [
        ["file", "stages", "status", "text", "trial", "values"]
    ]

    status = ohmloop("status", "--json").json
    assert sorted(status) == STATUS
    assert sorted(status["advice"]) == ["text", "verdict", "worth"]
    assert status["counts"] == {"accepted": 2, "done": 2}
    assert status["best"] == {"usability": ["T001", 0.2]}
    log = ohmloop("status", "--log", "--json").json
    assert sorted(log[0]) == ["actor", "at", "event", "text", "undone"]
    best = ohmloop("best", "--json").json
    assert sorted(best[0]) == sorted([*TRIAL, "measured"])
    assert best[0]["measured"] == {"usability": 0.2}

    assert ohmloop("export", "s.csv", "--json").json == {"file": "s.csv", "trials": 4}
    assert sorted(ohmloop("import", "s.csv", "--json").json) == [
        *("added", "decided", "notes", "recorded", "unchanged")
    ]
    assert ohmloop("report", "--json").json == {"file": "reports/campaign.html"}
    made = ohmloop("simulate", "-C", tmp_path / "other", "--json")
    assert made.code == 1
    ohmloop("suggest", "-q", 1, "-C", tmp_path / "other")
    made = ohmloop("simulate", "-C", tmp_path / "other", "-o", tmp_path / "m", "--json").json
    assert [sorted(item) for item in made] == [["device", "file", "outcome", "trial"]]


def test_talk_goes_to_stderr_and_names_the_next_step(ohmloop: Ohmloop) -> None:
    run = ohmloop("suggest")
    assert "Next: ohmloop campaign decide T001 accept" in run.err
    assert "Next" not in run.out
    assert "decide T001 accept" in ohmloop("status", "--quick").err
    ohmloop("decide", "all", "accept")
    assert (
        "Next: make T001, T002, then: ohmloop campaign ingest" in ohmloop("status", "--quick").err
    )
    assert "Next" in ohmloop("record", "T001", "--failed-at", "conducts").err
    ohmloop("record", "T002", "usability=0.2")
    assert ohmloop("status", "--quick").err == "Next: ohmloop campaign suggest\n"


def test_the_next_step_names_the_folder_when_one_stands_elsewhere(
    ohmloop: Ohmloop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "decide T001 accept -C lab" in ohmloop("suggest", "-C", "lab").err
    missing = ohmloop("status")
    assert missing.code == 1
    assert "is no campaign" in missing.err


def test_a_suggestion_is_shown_with_its_reasons_on_short_lines(ohmloop: Ohmloop) -> None:
    out = ohmloop("suggest", "-q", 1).out
    assert out.startswith("T001  x 0.")
    assert " um, kind " in out
    assert "      - It spreads the first trials over the space" in out
    assert max(map(len, out.splitlines())) <= 96


def test_decisions_read_as_they_are_typed(ohmloop: Ohmloop) -> None:
    ohmloop("suggest", "-q", 5)
    assert ohmloop("decide", "T001,T002", "accept").out == "T001: accepted\nT002: accepted\n"
    assert ohmloop("decide", "3", "reject", "-m", "no toluene").out == "T003: rejected\n"
    edited = ohmloop("decide", "T004", "edit", "x=3", "kind=dopd")
    assert edited.out == "T004: accepted\n"
    assert 'Did you mean "doped"?; it is taken all the same' in edited.err
    assert ohmloop("decide", "reroll").out.startswith("T006  ")
    assert ohmloop("decide", "pin", "kind=plain", "x=0.3").out == "pinned: kind = plain, x = 0.3\n"
    assert ohmloop("decide", "pin").out == "pinned: kind = plain, x = 0.3\n"
    assert ohmloop("decide", "unpin", "x").out == "pinned: kind = plain\n"
    added = ohmloop("decide", "add", "--like", "T001", "x=0.9", "-m", "my idea")
    assert added.out.startswith("T007  x 0.9 um, kind ")
    undone = ohmloop("decide", "undo")
    assert undone.out == "taken back: added T007 (own): my idea (event 13)\n"
    assert undone.err == "To have it again: ohmloop campaign decide undo 14\n"
    assert ohmloop("decide", "undo", 14).out == "taken back: took back event 13 (event 14)\n"
    assert "T007 accepted" in ohmloop("status", "--quick").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("decide", "T001"), "after T001 comes accept, reject, edit or reroll; received nothing"),
        (("decide", "T001", "acept"), 'received "acept"'),
        (("decide", "T001", "edit"), "edit needs what to change"),
        (("decide", "T001", "edit", "x"), '"x" is no assignment; write variable=value'),
        (("decide", "T001", "edit", "x=thick"), 'x: "thick" is no number'),
        (("decide", "T001", "edit", "y=3"), '"y" is no variable; variables: x, kind'),
        (("decide", "T009", "accept"), 'no trial "T009"; the latest are: T001, T002'),
        (("decide", "undo", "last"), 'received "last"'),
        (("decide", "undo", "99"), "event 99 is none that can be undone"),
        (("decide", "pin", "kind=gold"), '"gold" is no option'),
        (("decide", "unpin", "kind"), "is not pinned"),
        (("decide", "add", "x=0.5"), "missing: kind"),
        (("decide", "reroll", "T009"), 'no trial "T009"'),
        (("record", "T001"), "a result needs a value"),
        (("record", "T001", "usability=high"), 'usability: "high" is no number'),
        (("record", "T001", "--failed-at", "swiches"), 'Did you mean "switches"'),
        (("suggest", "--context", "humidity=3"), '"humidity" is no variable'),
        (("suggest", "--pin", "kind=gold"), '"gold" is no option'),
        (("ingest", "."), "holds no measurement file"),
        (("import", "gone.csv"), "gone.csv cannot be opened"),
        (("import", "campaign.toml"), "is no column of this campaign"),
        (("export", "s.doc"), 'export to .csv or .xlsx, not ".doc"'),
        (("simulate",), "the virtual lab makes halide-perovskite nanowires"),
        (("new", "."), "holds a campaign already"),
        (("new", "elsewhere"), "--template perovskite-nanowires"),
        (
            ("new", "elsewhere", "--template", "films"),
            "templates: perovskite-nanowires, spin-coated",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_exits_with_one_and_says_what_to_do(
    suggested: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    message: str,
) -> None:
    shutil.copytree(suggested, tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "lab")
    run = call(*args)
    assert run.code == 1
    assert run.out == ""
    assert message in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    "args", [("suggest", "-q", "0"), ("nonsense",), ("record",), ("status", "--fast"), ("export",)]
)
def test_a_wrong_command_line_exits_with_two(ohmloop: Ohmloop, args: tuple[str, ...]) -> None:
    assert ohmloop(*args).code == 2


def test_an_ingest_with_a_refused_file_exits_with_one_and_records_the_rest(
    ohmloop: Ohmloop, tmp_path: Path
) -> None:
    from tests.data.formats import loop, workbook

    ohmloop("suggest", "-q", 1)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "T001_a.xlsx").write_bytes(workbook(*loop(5)))
    (tmp_path / "in" / "T001_b.csv").write_bytes(b"")
    run = ohmloop("ingest", tmp_path / "in")
    assert run.code == 1
    assert run.out.splitlines()[0].startswith("T001_a.xlsx: T001: recorded: ")
    assert run.out.splitlines()[1].startswith("T001_b.csv: refused: T001_b.csv is empty")
    (tmp_path / "in" / "T001_b.csv").unlink()
    assert ohmloop("ingest", tmp_path / "in").out == "1 file was ingested before\n"


def test_changed_settings_are_noted_aloud(ohmloop: Ohmloop) -> None:
    Path("campaign.toml").write_text(TEXT + CONTEXT)
    run = ohmloop("suggest", "-q", 1, "--context", "humidity=41")
    assert "campaign.toml has changed; noted" in run.err
    assert "humidity 41 %" in run.out
    assert "has changed" not in ohmloop("decide", "T001", "accept").err
    missing = ohmloop("suggest")
    assert missing.code == 1
    assert "--context humidity=..." in missing.err


def test_a_sheet_may_bring_an_earlier_campaign(ohmloop: Ohmloop) -> None:
    Path("old.csv").write_text("x,kind,usability\n0.1,plain,0.2\n0.5,doped,0.3\n")
    assert ohmloop("import", "old.csv", "--earlier", "2024").out.startswith('2 results of "2024"')
    assert "none yet" in ohmloop("status", "--quick").out


def test_the_log_shows_what_was_taken_back(ohmloop: Ohmloop) -> None:
    ohmloop("suggest", "-q", 1)
    ohmloop("decide", "undo")
    lines = ohmloop("status", "--log").out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[2].endswith("suggested T001  (taken back)")


def test_replays_are_listed(ohmloop: Ohmloop) -> None:
    assert "nanowires" in ohmloop("replay").out.splitlines()


@pytest.mark.slow
def test_help_says_what_each_command_does(ohmloop: Ohmloop) -> None:
    out = ohmloop("--help").out
    for command in (
        *("new", "suggest", "decide", "record", "ingest", "status", "best", "export"),
        *("import", "report", "simulate", "replay"),
    ):
        assert command in out
        assert ohmloop(command, "--help").code == 0


@pytest.mark.slow
def test_best_says_why_the_luckiest_trial_is_not_believed(ohmloop: Ohmloop) -> None:
    for k, x in enumerate((0.1, 0.2, 0.3, 0.7, 0.8, 0.9), start=1):
        ohmloop("decide", "add", f"x={x}", "kind=plain")
        for value in (0.0, 0.25, 0.5) if x < 0.5 else (0.3, 0.55, 0.8):
            ohmloop("record", f"T00{k}", f"usability={value}")
    ohmloop("decide", "add", "x=0", "kind=plain")
    ohmloop("record", "T007", "usability=0.6")
    assert "0.6 (T007)" in ohmloop("status", "--quick").out
    run = ohmloop("best")
    assert run.out[:4] in ("T004", "T005", "T006")
    assert "T007 measured better (usability 0.6), but with the scatter seen so far" in run.err


def test_columns_are_shown_named_and_kept_for_the_next_files(
    ohmloop: Ohmloop, tmp_path: Path
) -> None:
    ohmloop("suggest", "-q", 1)
    file = tmp_path / "T001_a.csv"
    volts = [*(k / 20 for k in range(20)), *(1 - k / 20 for k in range(20))]
    file.write_text(
        "t,drive,sense\n"
        + "\n".join(f"{k},{1e3 * v:.3f},{1e3 * v * v + 10:.6f}" for k, v in enumerate(volts))
    )
    shown = ohmloop("columns", file)
    assert "sense: other, 40 numbers" in shown.out
    assert "--voltage COLUMN" in shown.err
    assert ohmloop("ingest", file).code == 1
    named = ("--voltage", "drive", "--current", "sense", "--voltage-unit", "mV")
    kept = ohmloop(
        "columns", file, *named, "--current-unit", "uA", "--keep", "station", "--json"
    ).json
    assert kept["recipe"]["headers"] == ["t", "drive", "sense"]
    assert ohmloop("ingest", file, "--json").json[0]["status"] == "recorded"
    wrong = ohmloop("columns", file, "--voltage", "drve", "--current", "sense")
    assert wrong.code == 1
    assert 'no column "drve"' in wrong.err
    assert 'Did you mean "drive"' in wrong.err
    assert 'no recipe for files "statoin"' in ohmloop("ingest", file, "--recipe", "statoin").err
