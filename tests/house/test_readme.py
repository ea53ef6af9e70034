"""What the README shows is what the code does and what the scripts wrote."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "page", ["README.md", pytest.param("docs/crossbar.md", marks=pytest.mark.slow)]
)
def test_python_examples_run(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("name", ["demo", "replay-short"])
def test_tables_are_those_that_the_scripts_wrote(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "bench" / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert table.strip() in readme


def test_marked_tables_are_those_that_the_benchmarks_wrote() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_links_and_pictures_exist() -> None:
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
