"""The JSON API: what an instrument PC and a script do with it."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from ohmloop.device import VirtualLab, load_device, save_device, write_workbook
from tests.campaign.small import TEXT
from tests.web.served import served

STAGED = (
    TEXT
    + """
[[stages]]
name = "fabricated"
question = "Is it whole?"

[[stages]]
name = "switches"
question = "Does it switch?"
"""
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lab")
    (place / "devices").mkdir()
    save_device(load_device("lognormal:0.3"), place / "devices" / "mine.json")
    (place / "devices" / "broken.json").write_text("{")
    run = place / "runs" / "first"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"task": "digits"}')
    return place


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    with served(root) as made:
        yield made


@pytest.fixture
def films(client: httpx.Client, root: Path, tmp_path: Path) -> str:
    """The address of a campaign with one accepted trial."""
    body = {"folder": tmp_path.name, "text": STAGED}
    assert client.post("/api/v1/campaigns", json=body).status_code == 201
    address = f"/api/v1/campaigns/{tmp_path.name}"
    made = client.post(f"{address}/trials", json={"recipe": {"x": 0.5, "kind": "doped"}})
    assert made.status_code == 201, made.text
    assert made.json()["trial"]["id"] == "T001"
    return address


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    return str(told["detail"])


# -- campaigns ----------------------------------------------------------------------------------


def test_a_campaign_is_started_listed_and_read(client: httpx.Client, films: str) -> None:
    name = films.rpartition("/")[2]
    (line,) = [c for c in client.get("/api/v1/campaigns").json() if c["folder"] == name]
    assert (line["name"], line["n_trials"], line["problem"]) == ("Small", 1, "")
    answer = client.get(films)
    state = answer.json()
    assert state["open_trials"] == ["T001"]
    assert state["budget"]["trials"] == {"used": 0.0, "total": 12.0}
    assert state["variables"] == ["x", "kind"]
    assert answer.headers["etag"] == f'"{state["last_event"]}"'


def test_a_campaign_is_not_started_over_another(client: httpx.Client, films: str) -> None:
    name = films.rpartition("/")[2]
    body = {"folder": name, "template": "perovskite-nanowires"}
    assert "already" in problem(client.post("/api/v1/campaigns", json=body), 409)
    assert "one of them" in problem(client.post("/api/v1/campaigns", json={"folder": "other"}), 400)
    wrong = client.post("/api/v1/campaigns", json={"folder": "other", "text": "name = 1"})
    assert "campaign.toml" in problem(wrong, 422)


def test_a_campaign_that_cannot_be_opened_does_not_hide_the_others(
    client: httpx.Client, root: Path, films: str
) -> None:
    broken = root / "broken"
    broken.mkdir()
    (broken / "campaign.toml").write_text("no toml [")
    (broken / "campaign.db").write_bytes(b"no database")
    try:
        lines = {c["folder"]: c for c in client.get("/api/v1/campaigns").json()}
        assert lines["broken"]["problem"]
        assert lines[films.rpartition("/")[2]]["problem"] == ""
        assert "broken" in problem(client.get("/api/v1/campaigns/broken"), 503)
    finally:
        for path in broken.iterdir():
            path.unlink()
        broken.rmdir()


def test_trials_are_listed_by_status(client: httpx.Client, films: str) -> None:
    assert [t["id"] for t in client.get(f"{films}/trials").json()] == ["T001"]
    assert client.get(f"{films}/trials", params={"status": "rejected"}).json() == []
    assert client.get(f"{films}/trials/t1").json()["recipe"] == {"x": 0.5, "kind": "doped"}
    assert "no trial" in problem(client.get(f"{films}/trials/T099"), 404)


# -- deciding -----------------------------------------------------------------------------------


def test_decisions_are_recorded_with_who_made_them(client: httpx.Client, films: str) -> None:
    who = {"Ohmloop-Actor": "Marie%20Sk%C5%82odowska"}
    body = {"decision": "reject", "reason": "furnace is down"}
    answer = client.post(f"{films}/trials/T001/decision", json=body, headers=who)
    assert (answer.json()["status"], answer.json()["note"]) == ("rejected", "furnace is down")
    line = client.get(f"{films}/log").json()[-1]
    assert line["actor"] == "Marie Skłodowska"
    undone = client.post(f"{films}/undo", json={}).json()
    assert undone["event"] == line["event"]
    assert client.get(f"{films}/trials/T001").json()["status"] == "accepted"
    edit = {"decision": "edit", "changes": {"x": 0.7}}
    answer = client.post(f"{films}/trials/T001/decision", json=edit)
    assert answer.json()["recipe"]["x"] == 0.7
    last = client.get(f"{films}/log", params={"after": line["event"]}).json()
    assert [entry["event"] for entry in last] == [line["event"] + 1, line["event"] + 2]


def test_an_experiment_outside_the_space_is_taken_and_says_so(
    client: httpx.Client, films: str
) -> None:
    answer = client.post(f"{films}/trials", json={"recipe": {"x": 3, "kind": "plain"}})
    assert answer.json()["outside"]
    assert "x" in problem(client.post(f"{films}/trials", json={"recipe": {"y": 3}}), 422)


def test_a_decision_on_an_old_picture_is_refused(client: httpx.Client, films: str) -> None:
    tag = client.get(films).headers["etag"]
    reject = {"decision": "reject", "reason": "mine"}
    other = client.post(f"{films}/trials", json={"recipe": {"x": 0.1, "kind": "plain"}})
    url = f"{films}/trials/T001/decision"
    first = client.post(url, json=reject, headers={"If-Match": tag, "Ohmloop-Actor": "eve"})
    assert first.status_code == 200
    late = client.post(url, json={"decision": "accept"}, headers={"If-Match": tag})
    assert "eve" in problem(late, 409)
    assert client.get(f"{films}/trials/T001").json()["status"] == "rejected"
    # What nobody else touched may still be decided, and the new picture may.
    other_url = f"{films}/trials/{other.json()['trial']['id']}/decision"
    fresh = {"If-Match": other.headers["etag"]}
    assert client.post(other_url, json=reject, headers=fresh).status_code == 200
    newest = {"If-Match": client.get(films).headers["etag"]}
    assert client.post(url, json={"decision": "accept"}, headers=newest).status_code == 200
    assert "quotes" in problem(client.post(url, json=reject, headers={"If-Match": "7"}), 400)


# -- recording ----------------------------------------------------------------------------------


def test_a_result_that_is_sent_twice_counts_once(client: httpx.Client, films: str) -> None:
    body = {
        "values": {"usability": 0.4},
        "errors": {"usability": 0.1},
        "passed": "all",
        "device": "left",
    }
    key = {"Idempotency-Key": "wafer3-1"}
    for _ in range(2):
        answer = client.post(f"{films}/trials/T001/records", json=body, headers=key)
        assert answer.status_code == 200, answer.text
        (record,) = answer.json()["records"]
        assert (record["device"], record["values"]) == ("left", {"usability": 0.4})
        assert record["errors"] == {"usability": 0.1}
    failed = {"failed_at": "switches", "note": "shorted"}
    answer = client.post(f"{films}/trials/T001/records", json=failed)
    assert answer.json()["records"][1]["stages"] == {"fabricated": True, "switches": False}
    assert client.get(films).json()["best"]["usability"] == {"trial": "T001", "value": 0.4}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "needs a value"),
        ({"values": {"usabilty": 1}}, "usability"),
        ({"failed_at": "polished"}, "polished"),
        ({"valves": {}}, "valves"),
        ({"values": {"usability": "high"}}, "usability"),
        ({"values": [1]}, "values"),
        ([], "body"),
        ("x", "body"),
    ],
)
def test_a_wrong_result_is_refused_with_the_reason(
    client: httpx.Client, films: str, body: object, reason: str
) -> None:
    assert reason in problem(client.post(f"{films}/trials/T001/records", json=body), 422)
    assert client.get(f"{films}/trials/T001").json()["records"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"values": {"usability": NaN}}',
        b'{"values": {"usability": 1e999}}',
        b'{"values": {"usability": ' + b"9" * 5000 + b"}}",
        b"[" * 100_000,
        b'{"note": "\\ud800", "passed": "all"}',
        b"\xff\xfe",
        b'{"device": "' + b"x" * 5000 + b'", "passed": "all"}',
    ],
    ids=range(8),
)
def test_hostile_json_is_refused(client: httpx.Client, films: str, body: bytes) -> None:
    answer = client.post(
        f"{films}/trials/T001/records", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_file_is_kept_read_and_given_back(
    client: httpx.Client, films: str, root: Path, tmp_path: Path
) -> None:
    lab = VirtualLab(0)
    device = next(
        d for d in (lab.make({"material": "MAPbI3"}, k) for k in range(99)) if len(d.voltage)
    )
    path = tmp_path / "T001_dev1.xlsx"
    write_workbook(device, path, about="simulated")
    for status in ("recorded", "unchanged"):
        with path.open("rb") as file:
            answer = client.post(f"{films}/files", files={"file": (path.name, file)})
        assert (answer.status_code, answer.json()["status"]) == (200, status), answer.text
        assert answer.json()["trial"] == "T001"
    (kept,) = client.get(f"{films}/files").json()
    assert (kept["name"], kept["size"]) == (path.name, path.stat().st_size)
    answer = client.get(f"{films}/files/{kept['sha256']}")
    assert answer.content == path.read_bytes()
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith("attachment")
    assert not list((root / ".ohmloop" / "uploads").iterdir())


def test_a_file_that_cannot_be_read_is_refused(client: httpx.Client, films: str) -> None:
    for name, content in (("T001.csv", b"dear diary"), ("../../T001.csv", b"\0"), ("", b"x")):
        answer = client.post(f"{films}/files", files={"file": (name, content)})
        if answer.status_code == 200:
            assert answer.json()["status"] == "refused"
        else:
            assert problem(answer, answer.status_code)
            assert answer.status_code in (400, 422)
    assert client.get(f"{films}/files").json() == []


# -- jobs, runs, devices ------------------------------------------------------------------------


def test_suggestions_are_a_job(client: httpx.Client, films: str) -> None:
    answer = client.post(f"{films}/suggestions", json={"q": 2}, headers={"Ohmloop-Actor": "ada"})
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["state"], job["arguments"]["actor"]) == ("suggest", "queued", "ada")
    assert client.get(f"/api/v1/jobs/{job['id']}").json() == job
    listed = client.get("/api/v1/jobs", params={"target": job["target"], "active": True}).json()
    assert listed == [job]
    assert client.post(f"/api/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    again = client.post(f"/api/v1/jobs/{job['id']}/retry")
    assert (again.status_code, again.json()["arguments"]) == (202, job["arguments"])
    client.post(f"/api/v1/jobs/{again.json()['id']}/cancel")


def test_a_job_is_followed_by_server_sent_events(client: httpx.Client, films: str) -> None:
    job = client.post(f"{films}/suggestions", json={}).json()
    states = []
    with client.stream("GET", f"/api/v1/jobs/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line.removeprefix("data: "))["state"])
                client.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert states == ["queued", "cancelled"]
    assert "no job" in problem(client.get("/api/v1/jobs/999999/events"), 404)


def test_a_wrong_job_is_refused(client: httpx.Client) -> None:
    wrong = {"kind": "train", "target": "run/r", "arguments": {"epochs": -1}}
    assert "epochs" in problem(client.post("/api/v1/jobs", json=wrong), 422)
    wrong = {"kind": "advice", "target": "campaign/none"}
    assert "no campaign" in problem(client.post("/api/v1/jobs", json=wrong), 404)


def test_runs_are_listed_finished_or_not(client: httpx.Client, root: Path) -> None:
    assert client.get("/api/v1/runs").json() == [{"name": "first", "is_finished": False}]
    (root / "runs" / "first" / "result.json").write_text('{"validation_score": 0.9}')
    found = client.get("/api/v1/runs/first").json()
    (root / "runs" / "first" / "result.json").unlink()
    assert (found["is_finished"], found["config"]) == (True, {"task": "digits"})
    assert found["result"] == {"validation_score": 0.9}
    assert "no run" in problem(client.get("/api/v1/runs/second"), 404)


def test_devices_are_those_of_the_folder_and_the_built_in_ones(client: httpx.Client) -> None:
    lines = {d["name"]: d for d in client.get("/api/v1/devices").json()}
    assert lines["mine"]["sigma"] == 0.3
    assert "no device model" in lines["broken"]["problem"]
    assert lines["nanowire-30"]["is_built_in"]
    assert client.get("/api/v1/devices/mine").json()["sigma"]["value"] == 0.3
    assert client.get("/api/v1/devices/nanowire-30").json()["name"] == "nanowire-30"
    assert "no device model" in problem(client.get("/api/v1/devices/broken"), 422)
    assert "no device" in problem(client.get("/api/v1/devices/none"), 404)


# -- the document -------------------------------------------------------------------------------


def test_the_document_names_every_answer(client: httpx.Client) -> None:
    document = client.get("/api/openapi.json").json()
    assert document["components"]["schemas"]["Problem"]
    for path, methods in document["paths"].items():
        assert path.startswith("/api/v1/")
        for operation in methods.values():
            assert operation["description"], path
            assert any(status.startswith("2") for status in operation["responses"])
            for status in ("403", "404", "422", "503"):
                content = operation["responses"][status]["content"]
                assert list(content) == ["application/problem+json"]
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_page_about_the_api_names_every_operation(client: httpx.Client) -> None:
    text = client.get("/api").text
    for path in client.get("/api/openapi.json").json()["paths"]:
        assert path in text


def test_what_is_not_there_is_a_problem(client: httpx.Client) -> None:
    assert problem(client.get("/api/v1/nothing"), 404)
    assert problem(client.delete("/api/v1/campaigns"), 405)
    assert client.delete("/api/v1/campaigns").headers["allow"]


def test_a_campaign_moved_away_while_the_page_is_open(
    client: httpx.Client, root: Path, films: str
) -> None:
    name = films.rpartition("/")[2]
    (root / name).rename(root / f"{name}-moved")
    assert "no campaign" in problem(client.get(films), 404)
    with Campaign.open(root / f"{name}-moved", writable=False) as campaign:
        assert len(campaign.trials) == 1
