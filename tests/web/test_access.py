"""Who is let in: a link that works once, a cookie for browsers, a token for programs; nobody else."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from ohmloop.web._access import Access, token_of
from ohmloop.web._errors import WebError
from tests.web.served import served

TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lab")
    Campaign.new(place / "films", template="perovskite-nanowires").close()
    return place


@pytest.fixture
def access() -> Access:
    return Access(TOKEN)


@pytest.fixture
def client(root: Path, access: Access) -> Iterator[httpx.Client]:
    with served(root, access=access) as made:
        yield made


@pytest.mark.parametrize(
    "path",
    ["/", "/campaigns/films", "/runs", "/jobs/strip", "/nowhere", "/enter/", "/api", "/static"],
)
def test_nobody_sees_a_page_without_being_let_in(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "Who are you?" in answer.text
    assert "films" not in answer.text.replace("/campaigns/films", "")
    assert "content-security-policy" in answer.headers


def test_a_program_without_the_token_gets_a_problem(client: httpx.Client) -> None:
    for method, path in (("GET", "/api/v1/campaigns"), ("POST", "/api/v1/jobs")):
        answer = client.request(method, path)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert ".ohmloop/token" in answer.json()["detail"]
    assert client.get("/api/openapi.json").status_code == 401


def test_a_program_with_the_token_is_let_in(client: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/v1/campaigns", headers=headers).json()[0]["folder"] == "films"
    for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", TOKEN):
        headers = {"Authorization": wrong}
        assert client.get("/api/v1/campaigns", headers=headers).status_code == 401


def test_the_link_lets_one_browser_in_once(client: httpx.Client, access: Access) -> None:
    link = access.link
    answer = client.get(link)
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0;url=/"' in answer.text
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert client.get(link).status_code == 303  # clicked again in the same browser
    client.cookies.clear()
    again = client.get(link)
    assert again.status_code == 401
    assert "This link was used before" in again.text


def test_another_browser_gets_in_by_the_token_and_to_the_page_it_wanted(
    client: httpx.Client,
) -> None:
    locked = client.get("/campaigns/films?x=1")
    assert 'name="to" value="/campaigns/films?x=1"' in locked.text
    wrong = client.post("/enter", data={"token": "guess", "to": "/runs"})
    assert wrong.status_code == 401
    assert "That is not the token." in wrong.text
    assert "guess" not in wrong.text
    right = client.post("/enter", data={"token": f" {TOKEN}\n", "to": "/campaigns/films?x=1"})
    assert right.headers["location"] == "/campaigns/films?x=1"
    assert client.get("/runs").status_code == 200


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_the_way_in_leads_to_this_server_only(client: httpx.Client, to: str) -> None:
    answer = client.post("/enter", data={"token": TOKEN, "to": to})
    assert answer.headers["location"] == "/"


def test_other_sites_cannot_try_tokens(client: httpx.Client) -> None:
    headers = {"Origin": "http://evil.example"}
    assert client.post("/enter", data={"token": TOKEN}, headers=headers).status_code == 403


def test_a_browser_stays_in_when_the_server_is_started_again(root: Path) -> None:
    first = Access(TOKEN)
    with served(root, access=first) as client:
        client.get(first.link)
        (value,) = client.cookies.values()
    second = Access(TOKEN)
    with served(root, access=second) as client:
        cookie = {"Cookie": f"ohmloop_session_{client.base_url.port}={value}"}
        assert client.get("/", headers=cookie).status_code == 200
        other = {"Cookie": f"ohmloop_session_1={value}"}
        assert client.get("/", headers=other).status_code == 401


def test_the_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    token = token_of(tmp_path)
    assert len(token) > 40
    assert token_of(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert (tmp_path / ".gitignore").read_text() == "*\n"  # git leaves it out


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_a_token_that_others_could_read_is_replaced_or_refused(tmp_path: Path) -> None:
    token = token_of(tmp_path)
    (tmp_path / "token").chmod(0o644)
    assert token_of(tmp_path) != token
    named = tmp_path / "named"
    named.write_text(TOKEN)
    named.chmod(0o644)
    with pytest.raises(WebError, match="chmod 600"):
        token_of(tmp_path, named)
    named.chmod(0o600)
    assert token_of(tmp_path, named) == TOKEN


def test_a_token_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHMLOOP_TOKEN", TOKEN)
    assert token_of(tmp_path) == TOKEN
    monkeypatch.setenv("OHMLOOP_TOKEN", "short")
    with pytest.raises(WebError, match="OHMLOOP_TOKEN: a token has at least 16"):
        token_of(tmp_path)
    assert token_of(tmp_path, tmp_path / "made") != TOKEN


@pytest.mark.slow
def test_serve_prints_a_link_and_opens_it_without_showing_it_to_others(
    root: Path, tmp_path: Path
) -> None:
    browser, told = tmp_path / "browser.sh", tmp_path / "told"
    browser.write_text(f'#!/bin/sh\necho "$1" > {told}.part; mv {told}.part {told}\n')
    browser.chmod(0o700)
    command = [sys.executable, "-c", "from ohmloop.cli import main; main()"]
    command += ["serve", str(root / "films"), "--port", "0"]
    environment = {**os.environ, "BROWSER": f"{browser} %s"}
    opened = root / ".ohmloop" / "open.html"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            link = process.stdout.readline().strip()
            with httpx.Client(base_url=link.partition("/enter")[0], timeout=60) as client:
                assert client.get("/").status_code == 401
                found = re.search(r'content="0;url=([^"]+)"', client.get(link).text)
                assert found is not None
                assert found[1] == "/campaigns/films"
                assert client.get(found[1]).status_code == 200
            end = time.monotonic() + 30
            while not told.exists():  # a thread opens the browser
                assert time.monotonic() < end
                time.sleep(0.05)
            assert told.read_text().strip() == opened.as_uri()  # and no token among the processes
            assert link in opened.read_text()
            assert stat.S_IMODE(opened.stat().st_mode) == 0o600
        finally:
            process.send_signal(signal.SIGINT)
    assert not opened.exists()


@pytest.mark.slow
def test_no_token_and_a_file_of_it_contradict_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from ohmloop.cli import main; main()", "serve", str(tmp_path)]
    run = subprocess.run(
        [*command, "--no-token", "--token-file", "x"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "leave out" in run.stderr
