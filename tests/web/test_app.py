"""The server as a whole: how it begins, and how errors look to a browser and to a program."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from ohmloop.errors import StoreError
from ohmloop.web import create_app
from ohmloop.web._errors import NotFoundError
from tests.web.served import served


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lab")
    Campaign.new(place / "films", template="perovskite-nanowires").close()
    return place


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    with served(root) as made:
        yield made


def test_a_program_gets_a_problem_and_a_browser_a_page(client: httpx.Client) -> None:
    problem = client.get("/api/v1/campaigns/none")
    page = client.get("/campaigns/none")
    assert problem.status_code == page.status_code == 404
    assert problem.headers["content-type"] == "application/problem+json"
    assert page.headers["content-type"].startswith("text/html")
    assert "no campaign called" in page.text


def test_plotly_is_served_from_its_package_and_kept_by_the_browser(client: httpx.Client) -> None:
    first = client.get("/static/plotly.min.js")
    assert first.status_code == 200
    assert "javascript" in first.headers["content-type"]
    assert len(first.content) > 10**6
    again = client.get("/static/plotly.min.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/templates/x").status_code == 404


def test_every_page_of_an_empty_folder_answers(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        for page in ("/", "/campaigns/new", "/devices", "/runs", "/jobs", "/api"):
            assert client.get(page).status_code == 200, page


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Name a folder that exists"):
        create_app(tmp_path / "nowhere")


def test_a_list_of_jobs_that_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / ".ohmloop").mkdir()
    (tmp_path / ".ohmloop" / "jobs.db").write_bytes(b"no database" * 500)
    with pytest.raises(StoreError, match="only keeps the list of jobs: delete it"):
        create_app(tmp_path)


def test_a_place_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / ".ohmloop").write_text("a file in the way")
    with pytest.raises(StoreError, match="keeps its jobs there"):
        create_app(tmp_path)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "python_multipart", "plotly"])
def test_a_missing_extra_names_the_pip_line(missing: str, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
sys.argv = ["ohmloop", "serve", {str(tmp_path)!r}, "--no-browser", "--port", "0"]
from ohmloop.cli import main
main()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"the local page needs {missing}" in run.stderr
    assert 'pip install "ohmloop[web]"' in run.stderr
    assert "Traceback" not in run.stderr
