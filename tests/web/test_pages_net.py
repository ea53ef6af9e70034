"""Devices, runs, jobs and the co-design board: what their pages say, without a worker and without torch."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from ohmloop.web import _net_certified as certified
from ohmloop.web._net_arrays import PRESETS, WORDS, check_array, known_words
from ohmloop.web._net_devices import find, law_plot
from ohmloop.web._net_run_plots import accuracy_plot
from ohmloop.web._net_runs import RunView
from ohmloop.web._net_words import METHODS
from ohmloop.web._workspace import Workspace
from tests.web import net_content
from tests.web.served import served


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lab")
    net_content.make(place)
    return place


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    with served(root) as found:
        yield found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served(tmp_path_factory.mktemp("empty")) as found:
        yield found


def words(html: str) -> str:
    """Return the text of a page, without tags, its blanks made one."""
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    return re.sub(r"\s+", " ", text)


def read(client: httpx.Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, (url, answer.text[-600:])
    return words(answer.text)


# -- devices ------------------------------------------------------------------------------------


def test_devices_are_listed_with_their_law_window_and_source(client: httpx.Client) -> None:
    text = read(client, "/devices")
    assert "43 measured devices" in text
    assert "12 cells from the literature" in text
    assert "arXiv 2412.02779" in text
    assert "torn damaged" in text  # a damaged file hides no other
    assert "/devices/wire" in client.get("/devices").text


def test_ticked_devices_stand_side_by_side_with_an_assumed_law(client: httpx.Client) -> None:
    text = read(client, "/devices?with=nanowire-30&with=wire&level=0.5")
    assert "Side by side" in text
    assert "half of the writes within ×1.40" in text  # exp(0.6745 * 0.5)
    assert "assumed law (simulated)" in text


def test_too_many_devices_beside_each_other_are_refused(client: httpx.Client) -> None:
    query = "&".join(f"with=nanowire-{k:02d}" for k in range(1, 10))
    answer = client.get(f"/devices?{query}")
    assert answer.status_code == 400
    assert "at most 7 devices" in words(answer.text)


def test_a_device_page_names_every_source(client: httpx.Client) -> None:
    text = read(client, "/devices/hfo2-radar2021")
    assert "activation" in text
    assert "10.1109/TED.2021.3097975" in text
    assert "assumed: random walk in logarithmic time" in text
    assert "sha256" in read(client, "/devices/nanowire-30")


def test_an_assumed_law_has_a_page_that_says_so(client: httpx.Client) -> None:
    assert "No measurement is behind it" in read(client, "/devices/lognormal:0.4")


@pytest.mark.parametrize(("target", "part"), [("json", '"sigma"'), ("aihwkit", "aihwkit")])
def test_a_device_can_be_taken_along(client: httpx.Client, target: str, part: str) -> None:
    answer = client.get(f"/devices/nanowire-30/export/{target}")
    assert part in answer.text
    assert "attachment" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    "url", ["/devices/none", "/devices/nanowire-30/export/spice", "/runs/none"]
)
def test_what_is_not_there_is_a_page_that_says_so(client: httpx.Client, url: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 404
    assert "there is no" in words(answer.text)


def test_a_fit_without_files_says_what_to_choose(client: httpx.Client) -> None:
    answer = client.post("/devices/fit", data={"name": "mine"})
    assert answer.status_code == 400
    assert "choose at least one file" in words(answer.text)


def test_uploads_become_a_job_that_fits_a_device(client: httpx.Client) -> None:
    files = {"files": ("sweep.csv", b"voltage,current\n0,0\n", "text/csv")}
    answer = client.post("/devices/fit", data={"name": "mine", "kind": "sweep"}, files=files)
    assert answer.status_code == 303
    text = read(client, answer.headers["location"])
    assert "Fit the device mine" in text
    assert "waits" in text


def test_a_wide_law_is_drawn_wider(root: Path) -> None:
    workspace = Workspace.at(root)
    data = law_plot([find(workspace, "lognormal:0.1"), find(workspace, "lognormal:1")])["data"]
    assert max(data[0]["x"]) < max(data[1]["x"])
    assert max(data[0]["y"]) == max(data[1]["y"]) == 1


# -- runs ---------------------------------------------------------------------------------------


def test_runs_are_listed_with_their_state_and_scores(client: httpx.Client) -> None:
    text = read(client, "/runs")
    assert "robust" in text
    assert "finished" in text
    assert "stopped" in text
    assert "unfinished" in text


def test_a_run_shows_scores_certificates_energy_and_settings(client: httpx.Client) -> None:
    text = read(client, "/runs/robust")
    assert "96.1 %" in text  # validation
    assert "With 95 % confidence: 95 of 100 devices drawn from the law reach 91.3 %." in text
    assert (
        "Law: log-normal noise, sigma 0.5 (median-1). Confidence 95 %, from 1,000 virtual devices"
        in text
    )
    assert "1.25 nJ" in text
    assert "64 x 64 cells" in text
    assert "level 0.5, distribution gaussian" in text
    assert "shake the weights" in text


def test_what_claims_nothing_or_is_about_other_weights_is_marked(client: httpx.Client) -> None:
    text = read(client, "/runs/robust")
    assert "no claim" in text
    assert "about other weights" in text


def proven_run(root: Path, kept: list[dict[str, object]]) -> RunView:
    place = root / "runs" / "proven"
    net_content.finished_run(place)
    text = json.dumps({"schema_version": 1, "kept": kept})
    (place / "certificates.json").write_text(text, encoding="utf-8")
    return RunView.of(Workspace.at(root), "proven")


def test_certificates_are_drawn_and_stand_beside_as_tables(tmp_path: Path) -> None:
    proven_run(tmp_path, net_content.proven())
    with served(tmp_path) as client:
        page = client.get("/runs/proven").text
        assert page.count("/plots/certified-") == 4
        assert "95 % of the devices" in words(page)
        yields = client.get("/runs/proven/plots/certified-yield.json").json()["data"]
        assert yields[0]["y"] == [99, 90, 70, 40]
        scores = client.get("/runs/proven/plots/certified-percentile.json").json()["data"]
        assert [trace["name"] for trace in scores] == ["50 % of the devices", "95 % of the devices"]
        assert scores[1]["y"] == [94, 92, None]
        box = client.get("/runs/proven/plots/certified-box.json").json()["data"]
        assert (box[0]["x"], box[0]["y"]) == ([2, 5, 10], [75, 50, 25])
        lines = client.get("/runs/proven/certificates.csv").text.splitlines()
        assert len(lines) == 1 + 4 + 6 + 2 + 3
        assert client.get("/runs/proven/plots/certified-quantile.json").status_code == 404


def test_certificates_about_several_devices_are_told_apart(tmp_path: Path) -> None:
    view = proven_run(tmp_path, [*net_content.proven(), *net_content.proven("wire")])
    names = [trace["name"] for trace in certified.plot(view, "percentile")["data"]]
    assert names == ["lognormal:0.5: 95 % of the devices", "wire: 95 % of the devices"]
    assert len(certified.plot(view, "yield")["data"]) == 2


def test_curves_about_other_weights_or_of_another_version_are_left_out(tmp_path: Path) -> None:
    kept = net_content.proven()
    kept[0]["weights_sha256"] = "1" * 64
    del kept[1]["record"]["bounds"]
    view = proven_run(tmp_path, kept)
    assert [panel["kind"] for panel in certified.panels(view)] == ["drift", "box"]


def test_accuracy_is_drawn_with_the_band_of_eight_devices_of_ten(root: Path) -> None:
    data = accuracy_plot([RunView.of(Workspace.at(root), "robust")])["data"]
    names = [trace.get("name") for trace in data]
    assert names == ["digital, no noise", None, None, "log-normal laws", "on arrays"]
    high, low, mean = data[1]["y"], data[2]["y"], data[3]["y"]
    assert all(a > b > c for a, b, c in zip(high, mean, low, strict=True))
    assert data[3]["x"] == [0.2, 0.5]


def test_every_virtual_device_is_a_row_of_the_csv(client: httpx.Client) -> None:
    lines = client.get("/runs/robust/scores.csv").text.splitlines()
    assert lines[0] == "device,sigma,on_array,deployment,number,accuracy"
    assert len(lines) == 1 + 3 * 40


@pytest.mark.parametrize("what", ["accuracy", "devices", "history"])
def test_plots_of_a_run_have_data(client: httpx.Client, what: str) -> None:
    assert client.get(f"/runs/robust/plots/{what}.json").json()["data"]


def test_only_files_of_the_run_can_be_taken(client: httpx.Client) -> None:
    assert client.get("/runs/robust/files/weights.pt").content == b"weights"
    for path in ("../stopped/config.json", "%2e%2e/stopped/config.json", "none.json"):
        assert client.get(f"/runs/robust/files/{path}").status_code == 404


def test_a_damaged_evaluation_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    net_content.finished_run(tmp_path / "runs" / "torn")
    (tmp_path / "runs" / "torn" / "evaluations" / "bad.json").write_text("{", encoding="utf-8")
    view = RunView.of(Workspace.at(tmp_path), "torn")
    assert "bad.json" in view.problem
    assert view.config["task"] == "digits"


@pytest.mark.parametrize("result", [None, "[1]", "{}"])
def test_a_folder_of_another_program_has_a_page_too(tmp_path: Path, result: str | None) -> None:
    place = tmp_path / "runs" / "foreign"
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"learning_rate": 1}', encoding="utf-8")
    (place / "weights.pt").write_bytes(b"weights")
    if result is not None:
        (place / "result.json").write_text(result, encoding="utf-8")
    with served(tmp_path) as client:
        assert "foreign" in read(client, "/runs")
        assert "foreign" in read(client, "/runs/foreign")


def test_an_evaluation_becomes_a_job_about_its_run(client: httpx.Client) -> None:
    form = {"sigmas": "0.2, 0.5;1", "devices": "wire", "n_devices": "50", "on_arrays": "1"}
    answer = client.post("/runs/robust/evaluate", data=form)
    assert answer.headers["location"] == "/runs/robust#now"
    newest = client.get("/api/v1/jobs?limit=1").json()[0]
    assert newest["target"] == "run/robust"
    assert newest["arguments"]["sigmas"] == [0.2, 0.5, 1]
    assert newest["arguments"]["array"] == ""
    assert "waits for its turn" in read(client, "/runs/robust")


def test_a_confidence_becomes_alpha(client: httpx.Client) -> None:
    form = {"statements": ["yield", "box"], "confidence": "99 %"}
    assert client.post("/runs/robust/certify", data=form).status_code == 303
    arguments = client.get("/api/v1/jobs?kind=certify").json()[0]["arguments"]
    assert arguments["alpha"] == pytest.approx(0.01)
    assert arguments["statements"] == ["yield", "box"]


@pytest.mark.parametrize(
    ("url", "form", "text"),
    [
        ("/runs/robust/evaluate", {"sigmas": "0.2, loud"}, '"loud" is no number'),
        ("/runs/robust/evaluate", {"sigmas": "0.2", "n_devices": "many"}, "n_devices"),
        ("/runs/robust/certify", {}, "tick at least one statement"),
        (
            "/runs/robust/certify",
            {"statements": "yield", "confidence": "120"},
            "from 50 to below 100",
        ),
    ],
)
def test_a_form_that_does_not_fit_says_why_and_keeps_what_was_typed(
    client: httpx.Client, url: str, form: dict[str, str], text: str
) -> None:
    answer = client.post(url, data=form)
    assert answer.status_code in (400, 422)
    assert text in words(answer.text).replace("&#34;", '"')
    assert all(value in answer.text for value in form.values())


# -- the new run --------------------------------------------------------------------------------


@pytest.mark.slow  # another process imports torch
def test_one_click_trains_the_digits_network(client: httpx.Client) -> None:
    text = words(client.get("/runs/new", timeout=200).text)
    assert "digits: 8 x 8 images of handwritten digits" in text
    answer = client.post("/runs/new", data={"task": "digits", "method": "weight-noise"})
    assert answer.headers["location"] == "/runs/digits-weight-noise-1"
    arguments = client.get("/api/v1/jobs?kind=train").json()[0]["arguments"]
    assert arguments["method"] == "weight-noise:level=0.5"
    assert arguments["device"] == "lognormal:0.5"
    assert "waits" in read(client, "/runs/digits-weight-noise-1")  # before it has a folder
    assert "waits" in read(client, "/runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"settings": "levl=0.5"}, "Did you mean level?"),
        ({"method": "erm", "settings": "level=1"}, "none: it has no settings"),
        ({"method": "magic"}, 'no method "magic"'),
        ({"task": "magic"}, 'no task "magic"'),
        ({"model": "resnet18"}, "it has linear, mlp"),
        ({"level": "loud"}, "is a number like 0.5"),
        ({"name": "robust"}, "already"),
        ({"name": "../up"}, "cannot name a run"),
        ({"epochs": "1.5"}, "epochs is a whole number"),
        ({"array": "own"}, "write key=value, like rows=64"),
        ({"array": "own", "array_own": "row=64"}, 'arrays have no "row". Did you mean rows?'),
        ({"array": "own", "array_own": "rows=0"}, "rows is a whole number from 1 to 65536"),
        ({"array": "own", "array_own": "adc=8,scale=cell"}, "scale is one of layer, column, tile"),
        ({"array": "own", "array_own": "rows"}, 'arrays: "rows": write key=value'),
        ({"array": "none", "array_own": "rows=64"}, "something else is chosen"),
        ({"array": "huge"}, 'no arrays "huge"'),
    ],
)
def test_a_new_run_that_does_not_fit_says_why(
    client: httpx.Client, form: dict[str, str], text: str
) -> None:
    data = {"task": "digits", "method": "weight-noise"} | form
    answer = client.post("/runs/new", data=data, timeout=200)
    assert answer.status_code in (409, 422, 400)
    assert text in words(answer.text).replace("&#34;", '"')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "array"),
    [
        ({"array": "none"}, None),
        ({"array": "usual"}, ""),
        ({"array": "eight"}, "rows=64,columns=64,dac=8,adc=8"),
        ({"array": "own", "array_own": "rows=32, adc=6"}, "rows=32, adc=6"),
    ],
)
def test_a_new_run_can_be_for_arrays(
    client: httpx.Client, form: dict[str, str], array: str | None
) -> None:
    data = {"task": "digits", "method": "erm", **form}
    assert client.post("/runs/new", data=data, timeout=200).status_code == 303
    job = client.get("/api/v1/jobs?kind=train&limit=1").json()[0]
    assert job["arguments"]["array"] == array
    assert job["title"].endswith("on arrays") == (array is not None)


def test_a_run_for_arrays_says_which_and_counts_its_own_fleet(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "chips"
    net_content.finished_run(place)
    config = json.loads((place / "config.json").read_text())
    array = {"rows": 64, "columns": 64, "adc": {"bits": 6}, "wires": None, "mapping": "pair"}
    config["hardware"][0] = {"device": {"name": "wire"}, "array": array}
    (place / "config.json").write_text(json.dumps(config))
    result = json.loads((place / "result.json").read_text())
    (place / "result.json").write_text(json.dumps(result | {"chip_score": 0.943}))
    kept = next((place / "evaluations").glob("wire*.json"))
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"hardware": config["hardware"][0]}))
    view = RunView.of(Workspace.at(tmp_path), "chips")
    assert view.own is not None
    assert view.own.device == "wire"
    with served(tmp_path) as client:
        text = read(client, "/runs/chips")
        assert "for wire on arrays of 64 x 64 cells, adc 6 bits" in text
        assert "validation, on its arrays 94.3 %" in text
        assert "array rows 64" in text
        assert "wire, arrays" in read(client, "/runs")


@pytest.mark.slow
def test_every_word_of_arrays_is_explained_and_every_choice_fits() -> None:
    from ohmloop.crossbar import Array  # here: it loads torch

    words = known_words()
    assert {word.name for word in words} == set(WORDS)
    for text, _ in PRESETS.values():
        check_array(text, words)
        Array.parse(text)


@pytest.mark.slow
def test_every_method_is_explained_in_plain_words() -> None:
    command = [sys.executable, "-m", "ohmloop.web._net_catalogue"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert {m["name"] for m in found["methods"]} == set(METHODS)
    digits = next(t for t in found["tasks"] if t["name"] == "digits")
    assert digits["missing"] == ""
    assert digits["default_model"] in digits["models"]


# -- jobs ---------------------------------------------------------------------------------------


def test_a_job_can_be_cancelled_and_asked_for_again(client: httpx.Client) -> None:
    client.post("/runs/robust/evaluate", data={"sigmas": "0.3"})
    id = client.get("/api/v1/jobs?limit=1").json()[0]["id"]
    assert "waits" in read(client, f"/jobs/{id}")
    answer = client.post(f"/jobs/{id}/cancel", data={"back": "/runs/robust"})
    assert answer.headers["location"] == "/runs/robust"
    assert "It was cancelled" in read(client, f"/jobs/{id}")
    again = client.post(f"/jobs/{id}/retry").headers["location"]
    assert again != f"/jobs/{id}"
    assert "0.3" in read(client, again)


def test_the_job_at_work_stands_on_every_page(client: httpx.Client) -> None:
    client.post("/runs/robust/evaluate", data={"sigmas": "0.7"})
    assert "Work in progress" in client.get("/runs").text
    assert "Work in progress" in client.get("/").text


def test_the_strip_of_an_open_page_is_renewed_and_takes_no_message_away(
    client: httpx.Client,
) -> None:
    client.cookies.clear()
    answer = client.post("/runs/robust/evaluate", data={"sigmas": "0.6"})
    at_work = client.get("/api/v1/jobs?active=true&limit=100").json()[-1]["id"]
    strip = client.get("/jobs/strip")
    assert f'data-job="{at_work}"' in strip.text
    assert "<html" not in strip.text
    assert client.get(f"/jobs/strip?not={at_work}").text.strip() == ""  # its page shows it itself
    assert "Queued as job" in read(client, answer.headers["location"])


def test_a_job_leads_back_to_this_page_only(client: httpx.Client) -> None:
    client.post("/runs/robust/evaluate", data={"sigmas": "0.4"})
    id = client.get("/api/v1/jobs?limit=1").json()[0]["id"]
    answer = client.post(f"/jobs/{id}/cancel", data={"back": "https://example.org/"})
    assert answer.headers["location"] == "/"


# -- co-design ----------------------------------------------------------------------------------


def test_the_board_says_what_a_better_device_is_worth_and_how_the_loop_went(
    client: httpx.Client,
) -> None:
    text = read(client, "/campaigns/loop/codesign")
    assert "halving sigma (0.6 to 0.3) is worth 5.70 ± 1.00 points" in text
    assert "+5.70 ± 1.00 points" in text
    assert "There are too few results" in text
    assert "90.0 ± 2.0 %" in text
    assert "SIMULATED devices" in text  # a device of the virtual lab is among them
    assert "Make the waiting trials in the virtual lab (SIMULATED)" in text
    assert "T002" in text


@pytest.mark.parametrize("what", ["worth", "history", "function"])
def test_plots_of_the_board_have_data(client: httpx.Client, what: str) -> None:
    assert client.get(f"/campaigns/loop/codesign/plots/{what}.json").json()["data"]


def test_the_whiskers_are_two_standard_errors(client: httpx.Client) -> None:
    bars = client.get("/campaigns/loop/codesign/plots/worth.json").json()["data"][0]
    assert bars["x"] == [5.7]
    assert bars["error_x"]["array"] == [2.0]


@pytest.mark.parametrize(
    ("action", "kind"),
    [("step", "codesign-step"), ("virtual-lab", "virtual-lab"), ("result", "codesign-result")],
)
def test_each_button_of_the_board_queues_its_job(
    client: httpx.Client, action: str, kind: str
) -> None:
    answer = client.post(f"/campaigns/loop/codesign/{action}", data={"n_devices": "2"})
    assert answer.headers["location"] == "/campaigns/loop/codesign#now"
    newest = client.get("/api/v1/jobs?limit=1").json()[0]
    assert (newest["kind"], newest["target"]) == (kind, "campaign/loop")


def test_a_campaign_with_other_objectives_starts_a_loop_beside_it(tmp_path: Path) -> None:
    Campaign.new(tmp_path / "wires", template="perovskite-nanowires").close()
    with served(tmp_path) as client:
        assert "a campaign of its own beside it" in read(client, "/campaigns/wires/codesign")
        form = {"name": "wires-loop", "task": "digits", "networks": "1"}
        answer = client.post("/campaigns/wires/codesign/new", data=form)
        assert answer.status_code == 303
        job = client.get("/api/v1/jobs?limit=1").json()[0]
        assert job["target"] == "campaign/wires-loop"
        assert job["arguments"]["networks"] == 1


# -- empty --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("/runs", "No network was trained in this folder yet"),
        ("/jobs", "Nothing was done here yet"),
        ("/devices", "No device of your own yet"),
    ],
)
def test_an_empty_folder_says_what_to_do_first(empty: httpx.Client, url: str, text: str) -> None:
    assert text in read(empty, url)


@pytest.mark.slow
def test_the_server_needs_no_torch_for_these_pages(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ohmloop.web import create_app; "
        f"create_app(Path({str(root)!r}), jobs=False); from ohmloop.web._net_runs import RunView; "
        "from ohmloop.web._workspace import Workspace; from ohmloop.web import _net_codesign as c; "
        f"w = Workspace.at(Path({str(root)!r})); RunView.of(w, 'robust'); c.Board.of(w.campaign('loop')); "
        "print([m for m in ('torch', 'scipy', 'pandas', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_addresses_of_the_docs_are_those_of_the_api(client: httpx.Client) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "page.md").read_text(encoding="utf-8")
    known = client.get("/api/openapi.json").json()["paths"]
    patterns = [re.sub(r"\\{\w+\\}", r"[^/]+", re.escape(path)) for path in known]
    named = re.findall(r"\$P(/[\w/]+)", text)
    assert len(named) > 6
    for path in named:
        assert any(re.fullmatch(p, f"/api/v1{path}") for p in patterns), path
