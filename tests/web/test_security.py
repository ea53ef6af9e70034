"""Who may talk to the server, how much they may send, and that no address leads out of the folder."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from ohmloop.web._security import MAX_BODY, MAX_UPLOAD, Guard
from tests.web.served import served

TEMPLATE = "perovskite-nanowires"
SECRET = "the secret of another folder"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, with a secret beside it and links to it inside."""
    top = tmp_path_factory.mktemp("top")
    place = top / "lab"
    place.mkdir()
    Campaign.new(place / "films", template=TEMPLATE).close()
    (place / "films" / "reports").mkdir()
    (top / "secret.json").write_text(f'{{"text": "{SECRET}"}}')
    (top / "secret.html").write_text(SECRET)
    (place / "devices").mkdir()
    os.symlink(top / "secret.json", place / "devices" / "link.json")
    os.symlink(top / "secret.html", place / "films" / "reports" / "link.html")
    run = place / "runs" / "first"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    os.symlink(top / "secret.json", place / "runs" / "linked.json")
    os.symlink(top, place / "runs" / "top")
    return place


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    with served(root) as made:
        yield made


def raw(client: httpx.Client, request: bytes) -> bytes:
    """Send bytes as they are; a client library would mend them."""
    with socket.create_connection(("127.0.0.1", client.base_url.port or 80), timeout=20) as line:
        line.sendall(request)
        answer = b""
        while part := line.recv(65536):
            answer += part
    return answer


# -- hosts and origins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.", "0.0.0.0", "[::]", "", "127.0.0.1:x"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_hosts_are_refused(client: httpx.Client, host: str, method: str) -> None:
    answer = raw(
        client,
        f"{method} /api/v1/campaigns HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(),
    )
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))
    assert b"films" not in answer


def test_a_second_host_header_does_not_help(client: httpx.Client) -> None:
    answer = raw(
        client,
        b"GET /api/v1/campaigns HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n"
        b"Connection: close\r\n\r\n",
    )
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
def test_names_of_this_machine_are_served(client: httpx.Client, host: str) -> None:
    address = f"{host}:{client.base_url.port}"
    assert client.get("/api/v1/campaigns", headers={"Host": address}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/api/v1/campaigns", "/campaigns/films/undo", "/theme"])
def test_other_origins_may_not_change_anything(
    client: httpx.Client, headers: dict[str, str], path: str
) -> None:
    answer = client.post(path, json={"folder": "x", "template": TEMPLATE}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["detail"]
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.request(method, path, headers=headers).status_code == 403


def test_a_refusal_reaches_who_is_still_sending(client: httpx.Client) -> None:
    host = f"127.0.0.1:{client.base_url.port}"
    head = (
        f"POST /theme HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\n"
        "Content-Length: 40000\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", client.base_url.port or 80), timeout=20) as line:
        line.sendall(head.encode())
        for _ in range(4):
            time.sleep(0.05)
            line.sendall(b"x" * 10_000)
        time.sleep(0.1)
        answer = b""
        while part := line.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"another site" in answer


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([10, 1], [10, 1]), ([2 * MAX_BODY, 1], [2 * MAX_BODY]), ([], [])],
    ids=["whole", "no more than the limit", "nothing comes"],
)
def test_a_refused_request_is_heard_out_for_a_moment(sizes: list[int], expected: list[int]) -> None:
    heard: list[int] = []

    async def app(*_: object) -> None:
        raise AssertionError("a refused request went on")

    async def receive() -> dict[str, object]:
        if not sizes:
            await asyncio.sleep(60)
        size = sizes[len(heard)]
        heard.append(size)
        more = len(heard) < len(sizes)
        return {"type": "http.request", "body": b"x" * size, "more_body": more}

    async def send(message: dict[str, object]) -> None:
        answers.append(message)

    answers: list[dict[str, object]] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/theme",
        "headers": [(b"host", b"127.0.0.1"), (b"origin", b"http://evil.example")],
    }
    asyncio.run(Guard(app)(scope, receive, send))
    assert answers[0]["status"] == 403
    assert heard == expected


def test_our_own_origin_may(client: httpx.Client, root: Path) -> None:
    headers = {
        "Origin": str(client.base_url).rstrip("/"),
        "Sec-Fetch-Site": "same-origin",
    }
    body = {"folder": "mine", "template": TEMPLATE}
    assert client.post("/api/v1/campaigns", json=body, headers=headers).status_code == 201
    assert (root / "mine" / "campaign.db").exists()


@pytest.mark.parametrize(
    "path", ["/api", "/api/v1/campaigns", "/static/style.css", "/nowhere", "/"]
)
def test_every_answer_carries_the_headers_that_protect_it(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    scripts = next(part for part in policy.split(";") if "script-src" in part)
    assert "unsafe" not in scripts
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


def test_no_page_of_documentation_asks_the_internet(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    text = client.get("/api").text
    assert "//cdn" not in text
    assert "<script>" not in text


# -- addresses ----------------------------------------------------------------------------------

NAMES = [
    "..",
    "%2e%2e",
    "..%2f..%2fsecret.json",
    "%2e%2e%2f%2e%2e%2fsecret.json",
    "..%252f..%252fsecret",
    "..%5c..%5csecret.json",
    "%2fetc%2fpasswd",
    "....//....//secret",
    "films%00",
    "films%00.json",
    "films/../../secret.json",
    "%c0%ae%c0%ae%c0%afsecret",
    "\u2025%2fsecret".encode().decode("latin-1"),
    "link",
    "link.json",
    "linked",
    "top",
    "x" * 60_000,
    "%ed%a0%80",
    "~",
    "file:%2f%2f%2fetc%2fpasswd",
]
PATHS = [
    "/api/v1/campaigns/{}",
    "/api/v1/campaigns/{}/trials",
    "/api/v1/campaigns/films/trials/{}",
    "/api/v1/campaigns/films/files/{}",
    "/api/v1/runs/{}",
    "/api/v1/devices/{}",
    "/api/v1/jobs/{}",
    "/static/{}",
    "/campaigns/{}",
    "/campaigns/films/reports/{}",
    "/campaigns/films/files/{}",
    "/runs/{}",
    "/runs/first/files/{}",
    "/runs/first/reports/{}",
    "/devices/{}",
    "/jobs/{}",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_address_leads_out_of_the_folder(client: httpx.Client, path: str) -> None:
    for name in NAMES:
        target = path.format(name).encode("latin-1")
        host = f"127.0.0.1:{client.base_url.port}".encode()
        answer = raw(
            client, b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)
        )
        status = answer[9:12]
        assert status in (b"200", b"303", b"307", b"308", b"400", b"404", b"405", b"422"), (
            name,
            answer[:200],
        )
        if status == b"200":  # a client that mends ".." in its own address asks for a page of ours
            assert name in ("..", "%2e%2e", "films/../../secret.json", "~"), (name, answer[:500])
        assert SECRET.encode() not in answer
        assert b"root:" not in answer


def test_jobs_cannot_be_about_other_folders(client: httpx.Client) -> None:
    for target in ("campaign/../films", "run/../../x", "device/../x", "run//etc", "campaign/"):
        for kind in ("suggest", "train", "device-fit", "codesign-new", "evaluate"):
            arguments = {"uploads": ["../x"]} if kind == "device-fit" else {}
            body = {"kind": kind, "target": target, "arguments": arguments}
            answer = client.post("/api/v1/jobs", json=body)
            assert answer.status_code in (400, 404, 422), (body, answer.text)


# -- sizes --------------------------------------------------------------------------------------


def test_a_large_body_is_refused_by_its_announced_length(client: httpx.Client) -> None:
    port = client.base_url.port
    answer = raw(
        client,
        f"POST /api/v1/campaigns HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {MAX_BODY + 1}\r\nConnection: close\r\n\r\n".encode(),
    )
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("kind", "limit", "path"),
    [
        ("application/json", MAX_BODY, "/api/v1/campaigns"),
        ("application/x-www-form-urlencoded", MAX_BODY, "/theme"),
        ("text/plain", MAX_BODY, "/api/v1/campaigns"),
        ("multipart/form-data; boundary=b", MAX_UPLOAD, "/api/v1/campaigns/films/files"),
    ],
)
def test_a_large_body_is_refused_while_it_streams(
    client: httpx.Client, root: Path, kind: str, limit: int, path: str
) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        while sent < 3 * limit:
            sent += 2**18
            yield b"1" * 2**18

    try:
        answer = client.post(path, content=endless(), headers={"Content-Type": kind})
        assert answer.status_code == 413
        assert "MiB" in answer.json()["detail"]
    except httpx.TransportError:
        pass  # the server hung up, which is as good
    assert sent < 2 * limit + 2**23
    uploads = root / ".ohmloop" / "uploads"
    assert not uploads.exists() or not list(uploads.iterdir())


def test_a_form_of_endless_fields_is_refused(client: httpx.Client) -> None:
    part = '--b\r\nContent-Disposition: form-data; name="f{}"\r\n\r\nx\r\n'
    body = "".join(part.format(k) for k in range(5000)) + "--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for path in ("/api/v1/campaigns/films/files", "/theme"):
        assert client.post(path, content=body.encode(), headers=kind).status_code in (400, 413, 422)


def test_broken_multipart_is_refused(client: httpx.Client) -> None:
    for body in (
        b"",
        b"--b",
        b"--b\r\n\r\n",
        b"\0" * 100,
        b"--b\r\nContent-Disposition: x\r\n\r\n--b--",
    ):
        answer = client.post(
            "/api/v1/campaigns/films/files",
            content=body,
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code in (400, 422), answer.text
