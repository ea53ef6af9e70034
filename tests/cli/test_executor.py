"""``--executor`` as users type it."""

import pytest
from tests.cli.typed import ohmloop

SMALL = ("--methods", "erm", "--sigma", "0.5", "--seeds", 2, "--devices", 2, "--epochs", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("train",), ("compare",), ("campaign", "replay", "nanowires"), ("codesign", "sensitivity")],
)
def test_wrong_executor_is_said_in_words(command: tuple[str, ...]) -> None:
    run = ohmloop(*command, "--executor", "locl:2")
    assert run.code == 1
    assert "Did you mean local?" in run.err or "nanowires" in run.err  # no data, no replay


@pytest.mark.slow
@pytest.mark.long
def test_comparison_says_the_same_on_an_executor() -> None:
    args = ("compare", *SMALL, "--limit", 100, "--json")
    rows = [ohmloop(*args, "--executor", text) for text in ("in-process", "local:2")]
    assert [run.code for run in rows] == [0, 0]
    assert rows[0].json == rows[1].json
