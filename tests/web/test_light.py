"""A served process is small, starts quickly, and ends with all that it started."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from tests.campaign.small import filled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc"),
]

MOST_MIB = 120
HEAVY = ("torch", "scipy", "sklearn", "pandas", "matplotlib", "botorch", "ray")


class Server:
    """`ohmloop serve` as a person starts it."""

    def __init__(self, folder: Path) -> None:
        began = time.monotonic()
        command = [sys.executable, "-c", "from ohmloop.cli import main; main()"]
        self.process = subprocess.Popen(
            [*command, "serve", str(folder), "--port", "0", "--no-browser", "--no-token"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.client = httpx.Client(base_url=self.address.partition("/campaigns")[0], timeout=60)
        assert self.client.get("/api/v1/campaigns").status_code == 200
        self.seconds = time.monotonic() - began

    def mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]  # always there

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sorted(
            {int(pid) for path in threads for pid in path.read_text().split()}
            | set(map(int, text.split()))
        )

    def close(self, number: int = signal.SIGINT) -> int:
        self.client.close()
        self.process.send_signal(number)
        code = self.process.wait(30)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


def is_alive(pid: int) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]  # a callable
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    place = tmp_path / "lab"
    place.mkdir()
    filled(place / "films").close()
    return place


@pytest.fixture
def server(lab: Path) -> Iterator[Server]:
    made = Server(lab)
    yield made
    if made.process.poll() is None:
        made.close()


def test_a_served_process_stays_small_while_it_shows_every_page(server: Server, lab: Path) -> None:
    pages = [
        "/",
        "/campaigns/new",
        "/jobs",
        "/devices",
        "/devices/nanowire-30",
        "/runs",
        "/runs/new",
        "/api",
    ]
    pages += [
        f"/campaigns/films{end}" for end in ("", "/suggestions", "/files", "/settings", "/log")
    ]
    pages += ["/campaigns/films/trials/T001", "/static/plotly.min.js", "/api/openapi.json"]
    for _ in range(3):
        for page in pages:
            answer = server.client.get(page)
            assert answer.status_code == 200, (page, answer.text[-2000:])
    with (lab / "T001_dev1.csv").open("w") as file:
        file.write("V (V),I (A)\n" + "".join(f"{v / 99},{v * 1e-8}\n" for v in range(100)))
    with (lab / "T001_dev1.csv").open("rb") as file:
        answer = server.client.post("/api/v1/campaigns/films/files", files={"file": file})
    assert answer.status_code == 200
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    loaded = {name for name in HEAVY if f"/{name}/" in maps}
    print(f"start {server.seconds:.2f} s, at most {server.mib():.0f} MiB")
    assert loaded == set()
    assert server.mib() < MOST_MIB


def test_what_the_server_started_ends_with_it_even_if_it_is_killed(server: Server) -> None:
    until(lambda: len(server.children()) == 2)  # worker and reader
    children = server.children()
    server.close(signal.SIGKILL)
    until(lambda: not any(map(is_alive, children)))


def test_an_interrupt_ends_the_server_in_order(server: Server) -> None:
    until(lambda: len(server.children()) == 2)
    children = server.children()
    assert server.close(signal.SIGINT) == 0
    until(lambda: not any(map(is_alive, children)))


def test_a_job_goes_on_after_the_server_was_killed_and_counts_once(lab: Path) -> None:
    first = Server(lab)
    job = first.client.post("/api/v1/campaigns/films/suggestions", json={"q": 2}).json()
    url = f"/api/v1/jobs/{job['id']}"
    until(lambda: first.client.get(url).json()["state"] == "running")
    first.close(signal.SIGKILL)
    second = Server(lab)
    try:
        until(lambda: second.client.get(url).json()["state"] == "done", 200)
        made = second.client.get(url).json()["result"]["trials"]
    finally:
        second.close()
    with Campaign.open(lab / "films", writable=False) as campaign:
        assert [t.id for t in campaign.trials.values() if t.status == "suggested"] == made
        assert len(made) == 2


def test_a_worker_that_dies_fails_its_job_and_the_next_one_is_done(server: Server) -> None:
    def submit() -> str:
        body = {"kind": "report", "target": "campaign/films"}
        return f"/api/v1/jobs/{server.client.post('/api/v1/jobs', json=body).json()['id']}"

    first, second = submit(), submit()
    until(lambda: server.client.get(first).json()["state"] == "running")
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in server.children()}
    (worker,) = [pid for pid, command in commands.items() if "ohmloop.web._work" in command]
    os.kill(worker, signal.SIGKILL)
    until(lambda: server.client.get(first).json()["state"] == "failed")
    assert "killed" in server.client.get(first).json()["error"]
    until(lambda: server.client.get(second).json()["state"] == "done", 200)
    assert server.client.get(second).json()["result"]["files"]


def test_two_clients_and_a_command_line_at_once_lose_nothing(server: Server, lab: Path) -> None:
    """Each of two API clients and a command line records on one campaign as fast as it can."""
    url, n = "/api/v1/campaigns/films", 12
    with Campaign.open(lab / "films") as campaign:
        names = [campaign.add({"x": 0.3, "kind": "doped"})[0].id for _ in range(3)]
    script = f"""
import sys
from ohmloop.cli import main
for k in range({n}):
    sys.argv = ["ohmloop", "campaign", "record", {names[2]!r}, f"usability={{k / 100}}",
                "--device", f"cli{{k}}", "-C", {str(lab / "films")!r}]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""
    line = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    client = f"""
import sys, httpx
with httpx.Client(base_url=sys.argv[1], timeout=60) as c:
    for k in range({n}):
        for _ in range(2):  # as an instrument does that did not hear the answer
            r = c.post({url!r} + f"/trials/{{sys.argv[2]}}/records",
                       json={{"values": {{"usability": k / 100}}, "device": f"{{sys.argv[3]}}{{k}}"}},
                       headers={{"Idempotency-Key": f"{{sys.argv[3]}}-{{k}}"}})
            assert r.status_code == 200, r.text
"""
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", client, str(server.client.base_url), names[0], who],
            stderr=subprocess.PIPE,
            text=True,
        )
        for who in ("left", "right")
    ]
    for process in (line, *clients):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    with Campaign.open(lab / "films", writable=False) as campaign:
        assert campaign.check() == []
        devices = sorted(r.device for r in campaign.trials[names[0]].records)
        assert devices == sorted(f"{who}{k}" for who in ("left", "right") for k in range(n))
        kept = {r.device: r.values["usability"] for r in campaign.trials[names[2]].records}
        assert kept == {f"cli{k}": k / 100 for k in range(n)}


def test_of_two_that_decide_at_once_one_is_told(server: Server, lab: Path) -> None:
    """Two clients and a command line decide about the same trials; each trial has one decision."""
    import threading

    with Campaign.open(lab / "films") as campaign:
        names = [campaign.add({"x": 0.3, "kind": "doped"})[0].id for _ in range(6)]
    url = "/api/v1/campaigns/films"
    tag = server.client.get(url).headers["etag"]
    said: dict[tuple[str, str], int] = {}

    def decide(who: str) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=60) as client:
            for name in names:
                answer = client.post(
                    f"{url}/trials/{name}/decision",
                    json={"decision": "reject", "reason": who},
                    headers={"If-Match": tag, "Ohmloop-Actor": who},
                )
                said[who, name] = answer.status_code

    threads = [threading.Thread(target=decide, args=(who,)) for who in ("ada", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Campaign.open(lab / "films", writable=False) as campaign:
        for name in names:
            codes = sorted(said[who, name] for who in ("ada", "eve"))
            assert codes == [200, 409]
            (winner,) = [who for who in ("ada", "eve") if said[who, name] == 200]
            assert campaign.trials[name].note == winner


def test_a_second_server_of_one_folder_is_refused(server: Server, lab: Path) -> None:
    command = [sys.executable, "-c", "from ohmloop.cli import main; main()"]
    run = subprocess.run(
        [*command, "serve", str(lab), "--port", "0", "--no-browser", "--no-token"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert "another `ohmloop serve` works on" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_port_that_is_taken_says_so(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from ohmloop.cli import main; main()"]
    port = str(server.client.base_url.port)
    run = subprocess.run(
        [*command, "serve", str(tmp_path), "--port", port, "--no-browser", "--no-token"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in run.stderr


def test_a_campaign_opens_the_page_on_itself(lab: Path) -> None:
    server = Server(lab / "films")
    try:
        assert server.address.endswith("/campaigns/films")
        assert server.client.get("/campaigns/films").status_code == 200
    finally:
        server.close()
