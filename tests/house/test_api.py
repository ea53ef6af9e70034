"""Every public name is documented, sorted, and on the page docs/api.md."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ohmloop

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [name for name in ohmloop.__all__ if not name.startswith("_")]


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_complete_and_documented(package: str) -> None:
    module = importlib.import_module(f"ohmloop.{package}")
    assert list(module.__all__) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert inspect.getdoc(thing), f"ohmloop.{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_missing_from_all(package: str) -> None:
    module = importlib.import_module(f"ohmloop.{package}")
    own = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and str(getattr(thing, "__module__", "")).startswith(f"ohmloop.{package}")
    }
    assert own <= set(module.__all__)


@pytest.mark.slow
def test_api_page_is_what_the_code_says() -> None:
    run = subprocess.run([sys.executable, str(ROOT / "scripts" / "api_page.py"), "--check"])
    assert run.returncode == 0, "docs/api.md is stale: run .venv/bin/python scripts/api_page.py"


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'crossbars'"):
        _ = ohmloop.crossbars
