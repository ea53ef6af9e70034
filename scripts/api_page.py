"""Write docs/api.md, the list of every public name, from the packages' ``__all__``."""

import argparse
import importlib
import inspect
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"

HEAD = """# All of ohmloop

Every public name, by package, in the order in which packages build on each other. This page is
written by `scripts/api_page.py` from the code; the docstrings say more (`help(ohmloop.data.read)`).

Whatever is not on this page is private and may change without notice.
"""

PACKAGES = (
    "units",
    "errors",
    "progress",
    "data",
    "store",
    "bo",
    "tasks",
    "device",
    "campaign",
    "crossbar",
    "nn",
    "train",
    "certify",
    "codesign",
    "run",
    "web",
    "experiment",
    "report",
)


def _line(owner: str, name: str) -> str:
    thing = getattr(importlib.import_module(f"ohmloop.{owner}"), name)
    documented = inspect.isclass(thing) or inspect.isroutine(thing)
    first = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ") if documented else ""
    kind = "class" if inspect.isclass(thing) else "function" if documented else "value"
    return f"| `{name}` | {kind} | {first} |"


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for package in PACKAGES:
        module = importlib.import_module(f"ohmloop.{package}")
        summary = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(
            f"\n## ohmloop.{package}\n\n{summary}\n\n| name | kind | what |\n|---|---|---|\n"
        )
        parts.append("\n".join(_line(package, name) for name in module.__all__) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is true")
    text = render()
    if parser.parse_args().check:
        sys.exit(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
