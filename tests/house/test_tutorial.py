"""The tutorial is true: every command runs, in order, and prints what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
# glibc gives large arrays back and asks for them again at once; that doubles the time of a fit.
CALM = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


@pytest.mark.slow
def test_every_command_runs_and_prints_what_the_page_shows() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "tutorial.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **CALM},
    )
    assert done.returncode == 0, done.stderr[-6000:]


def test_the_page_walks_every_step_of_the_loop() -> None:
    code = "".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    for command in (
        *("new", "suggest", "decide", "simulate", "ingest", "import", "record"),
        *("export", "status", "best", "report"),
    ):
        assert f"ohmloop campaign {command}" in code, command
    for step in ("accept", "reject", "edit", "reroll", "undo", "add"):
        assert re.search(rf"ohmloop campaign decide .*\b{step}\b", code), step
    assert "campaign.toml" in code


def test_links_of_the_page_exist() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / link).exists(), link
