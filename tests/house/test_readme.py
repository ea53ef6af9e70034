"""What the README shows is what the code does and what the scripts wrote."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_python_example_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "README.md", "exec"), {})


def test_demo_table_is_the_one_that_the_script_wrote() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "bench" / "results" / "demo.md").read_text(encoding="utf-8")
    assert table.strip() in readme


def test_links_and_pictures_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
