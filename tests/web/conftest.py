"""A workspace with one campaign for the tests of the lab's pages, behind one server for a whole file."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.web import lab_content


@pytest.fixture(scope="module")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, httpx.Client]]:
    from tests.web.served import served

    place = tmp_path_factory.mktemp("lab")
    with served(place) as found:
        yield place, found


@pytest.fixture
def lab_root(lab_server: tuple[Path, httpx.Client]) -> Path:
    """The workspace: the campaign "films" with three suggestions, fresh for each test."""
    place = lab_server[0]
    for left in place.iterdir():
        if left.is_dir() and not left.name.startswith("."):
            shutil.rmtree(left)
    lab_content.make_campaign(place / "films")
    return place


@pytest.fixture
def lab(lab_server: tuple[Path, httpx.Client], lab_root: Path) -> httpx.Client:
    """A client that nobody knows yet."""
    lab_server[1].cookies.clear()
    return lab_server[1]
