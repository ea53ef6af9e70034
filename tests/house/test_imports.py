"""The house rules that keep ohmloop understandable: imports point one way, and stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ohmloop

SRC = Path(ohmloop.__file__).parent

# A package may import itself and anything of a lower level; names on one level are strangers.
LEVEL = {
    "_compute": 0,
    "_files": 0,
    "_version": 0,
    "errors": 0,
    "units": 0,
    "progress": 0,
    "data": 1,
    "bo": 1,
    "run": 1,
    "tasks": 1,
    "store": 1,
    "device": 2,
    "campaign": 3,
    "crossbar": 3,
    "nn": 4,
    "train": 5,
    "certify": 6,
    "codesign": 7,
    "experiment": 7,
    "report": 8,
    "web": 9,
    "cli": 10,
}
HEAVY = (
    "torch",
    "pandas",
    "matplotlib",
    "botorch",
    "gpytorch",
    "sklearn",
    "scipy",
    "jinja2",
    "openpyxl",
    "optuna",
    "ray",
    "submitit",
    "fastapi",
    "plotly",
    "uvicorn",
)


def _package(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def _imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, not relative"
            if node.module == "ohmloop":
                names = [f"ohmloop.{alias.name}" for alias in node.names]
            elif node.module:
                names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("ohmloop.")}
    return found - {"__version__"}


FILES = sorted(path for path in SRC.rglob("*.py") if path != SRC / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_downward(path: Path) -> None:
    own = _package(path)
    upward = {
        name
        for name in _imported_packages(path)
        if name != own and LEVEL[name] >= LEVEL[own] and LEVEL[own] > 0
    }
    assert not upward, f"{path.relative_to(SRC)} imports {sorted(upward)}, which stand above it"


def test_every_package_has_a_level() -> None:
    assert {_package(path) for path in FILES} <= set(LEVEL)


@pytest.mark.parametrize("name", ["botorch", "gpytorch"])
def test_only_bo_imports_the_optimiser(name: str) -> None:
    for path in FILES:
        if _package(path) != "bo":
            text = path.read_text(encoding="utf-8")
            assert f"import {name}" not in text, path
            assert f"from {name}" not in text, path


def _loaded(code: str) -> set[str]:
    """Return the heavy modules that ``code`` loads."""
    script = f"import sys\n{code}\nprint(*[n for n in {HEAVY!r} if n in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return set(out[-1].split())


HELP = """
import contextlib, io
from ohmloop.cli import main
sys.argv = ["ohmloop", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
"""


@pytest.mark.parametrize(
    "code", ["import ohmloop", "import ohmloop.data", HELP], ids=["import", "import-data", "help"]
)
def test_import_and_help_stay_light(code: str) -> None:
    assert _loaded(code) == set()  # how long it takes is measured by bench/startup.py


def test_help_names_every_command() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "from ohmloop.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for command in (
        "analyze",
        "campaign",
        "device",
        "train",
        "evaluate",
        "compare",
        "certify",
        "crossbar",
        "codesign",
        "fetch",
        "demo",
        "serve",
    ):
        assert command in out
