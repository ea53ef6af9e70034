"""The lab's pages: what a person sees and decides; all of it without JavaScript and without torch."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from ohmloop import web
from ohmloop.web._pages import local_path
from ohmloop.web._places import place_in
from tests.web import lab_content
from tests.web.lab_content import BASE, post, read, seen, state_of, words
from tests.web.served import served

# -- every page ---------------------------------------------------------------------------------

PAGES = (
    "/",
    "/campaigns/new",
    "/campaigns/new?start=spin-coated-films",
    BASE,
    f"{BASE}/suggestions",
    f"{BASE}/suggestions?like=T001",
    f"{BASE}/trials",
    f"{BASE}/trials?show=open",
    f"{BASE}/trials/T002",
    f"{BASE}/files",
    f"{BASE}/settings",
    f"{BASE}/log",
    f"{BASE}/reports",
)


class Controls(HTMLParser):
    """Collects what a page's controls are called, and where the page points to."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: set[str] = set()
        self.controls: list[dict[str, str | None]] = []
        self.places: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.landmarks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "label" and given.get("for"):
            self.labels.add(str(given["for"]))
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.controls.append({**given, "tag": tag})
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.places += [str(given[k]) for k in ("href", "src", "action") if given.get(k)]
        self.inline += [k for k in given if k.startswith("on") or k == "style"]
        if tag == "script" and not given.get("src"):
            self.inline.append("script")
        if tag in ("header", "nav", "main", "footer", "h1"):
            self.landmarks.append(tag)


@pytest.mark.parametrize("url", PAGES)
def test_every_control_has_a_label_and_nothing_points_outside(lab: httpx.Client, url: str) -> None:
    page = Controls()
    page.feed(lab.get(url).raise_for_status().text)
    unnamed = [
        control
        for control in page.controls
        if control.get("id") not in page.labels
        and not control.get("aria-label")
        and control.get("type") not in ("checkbox", "radio")  # inside their labels
    ]
    assert unnamed == []
    assert [place for place in page.places if not place.startswith(("/", "#"))] == []
    assert page.inline == []
    assert len(page.ids) == len(set(page.ids))
    assert {"header", "nav", "main", "footer", "h1"} <= set(page.landmarks)


def test_an_empty_folder_invites_to_start(tmp_path: Path) -> None:
    with served(tmp_path) as lab:
        assert "No campaign in this folder yet" in read(lab, "/")


def test_what_is_not_there_is_a_page_that_says_so(lab: httpx.Client) -> None:
    assert 'no campaign called "nope"' in read(lab, "/campaigns/nope", 404)
    assert "There is no such page" in read(lab, "/nothing", 404)
    assert 'no trial "T099"' in read(lab, f"{BASE}/trials/T099", 422)


def test_name_and_theme_are_kept_in_cookies(lab: httpx.Client) -> None:
    assert "Your name is now Jo Doe" in post(lab, "/you", name="Jo Doe", back=BASE)
    assert "Jo Doe" in read(lab, BASE)
    post(lab, "/theme", theme="dark", back=BASE)
    assert 'data-theme="dark"' in lab.get(BASE).text
    post(lab, "/theme", theme="purple", back=BASE)
    assert "data-theme=" not in lab.get(BASE).text.split("<body")[0]


@pytest.mark.parametrize(
    "url", ["//evil.example", "https://evil.example", "/\\evil", "evil", "/a\nb"]
)
def test_the_way_back_never_leaves_the_page(url: str) -> None:
    assert local_path(url) == "/"


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb" (WCAG 2.2)."""
    full = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
    parts = [int(full[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))


def test_colours_contrast_in_both_themes() -> None:
    css = (Path(web.__file__).parent / "static" / "style.css").read_text()
    blocks = re.findall(r"\{([^{}]*--ink: #[^{}]*)\}", css)
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block)) for block in blocks]
    assert len(themes) == 4  # light, dark twice, print
    on = {"paper": ["ink", "soft", "accent", "bad", "good", "warn"]}
    on |= {"wash": ["ink", "soft", "accent"], "accent": ["on-accent"], "tint": ["ink", "accent"]}
    on |= {f"{name}-wash": [name, "ink"] for name in ("bad", "good", "warn")}
    for theme in themes[:3]:
        for ground, inks in on.items():
            for ink in inks:
                low, high = sorted((luminance(theme[ground]), luminance(theme[ink])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground, theme[ink])


# -- new campaign -------------------------------------------------------------------------------


def test_a_campaign_starts_from_a_template(lab_root: Path, lab: httpx.Client) -> None:
    page = lab.get("/campaigns/new?start=spin-coated-films").text
    text = html.unescape(re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)[1])  # type: ignore[index]
    shown = post(lab, "/campaigns/new", folder="second try", text=text.replace("\n", "\r\n"))
    assert "is started: 14 variables" in shown
    assert (lab_root / "second try" / "campaign.toml").read_text() == text


def test_a_campaign_without_a_folder_name_is_named_after_itself(
    lab_root: Path, lab: httpx.Client
) -> None:
    text = lab_content.SETTINGS.replace('"Films"', '"Röhm & Co: films"')
    post(lab, "/campaigns/new", folder="", text=text)
    assert (lab_root / "röhm-co-films" / "campaign.db").is_file()


def test_settings_that_do_not_fit_are_shown_with_their_line(lab: httpx.Client) -> None:
    wrong = lab_content.SETTINGS.replace("high = 180", "hihg = 180")
    answer = lab.post("/campaigns/new", data={"folder": "x", "text": wrong})
    assert answer.status_code == 422
    shown = words(answer.text)
    assert '"variables.anneal_c.hihg" is no setting. Did you mean "high"?' in shown
    assert "Line 9: hihg = 180" in shown
    assert "Two knobs and a choice" in shown  # what was typed is still there


def test_a_folder_name_that_is_taken_is_told_beside_its_field(lab: httpx.Client) -> None:
    answer = lab.post("/campaigns/new", data={"folder": "films", "text": lab_content.SETTINGS})
    assert answer.status_code == 422
    assert 'something called "films" already' in words(answer.text)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("is no valid TOML: Invalid value (at line 2, column 7)", 2),
        ("variables.b.low: Input should be a valid number; received 'x'.", 6),
        ('"stages.1.passes" is no setting.', 12),
        ('variables.b: "levels" means nothing for type = "continuous".', 4),
        ('stages, "second": passes_when names "x", which is no figure of merit.', 11),
        ("a message about nothing", None),
    ],
)
def test_an_error_points_to_its_line(message: str, line: int | None) -> None:
    text = "\n".join(
        [
            'name = "x"',
            "[variables.a]",
            "low = 0",
            "[variables.b]",
            "high = 3",
            "low = 'x'",
            "[[stages]]",
            'name = "first"',
            "",
            "[[stages]]",
            'name = "second"',
            'passes = "x"',
        ]
    )
    place = place_in(text, message)
    assert (place.line if place else None) == line


# -- deciding -----------------------------------------------------------------------------------


def test_a_suggestion_is_shown_with_its_reasons(lab: httpx.Client) -> None:
    text = read(lab, f"{BASE}/suggestions")
    assert "To decide (3)" in text
    assert "Expected usability: 0.21, with 90 % between 0.1 and 0.35." in text
    assert "Chance of a usable device: 80 %; if it fails, most likely at switches." in text
    assert "What matters so far: anneal_c (70 %), solvent (30 %)." in text


def test_the_name_of_who_accepts_is_in_the_log(lab_root: Path, lab: httpx.Client) -> None:
    post(lab, "/you", name="Jo", back="/")
    shown = post(lab, f"{BASE}/trials/T001/accept", seen=seen(lab))
    assert "T001 is accepted." in shown
    assert "To make and measure (1)" in shown
    assert state_of(lab_root).history[-1].actor == "Jo"


def test_after_a_decision_the_next_suggestion_is_at_hand(lab: httpx.Client) -> None:
    answer = lab.post(f"{BASE}/trials/T001/accept", data={"seen": seen(lab)})
    assert answer.headers["location"] == f"{BASE}/suggestions#T002"


def test_all_can_be_accepted_at_once(lab_root: Path, lab: httpx.Client) -> None:
    fields = {"trial": ["T001", "T003"], "seen": seen(lab)}
    assert lab.post(f"{BASE}/accept-all", data=fields).status_code == 303
    status = [trial.status for trial in state_of(lab_root).trials.values()]
    assert status == ["accepted", "suggested", "accepted"]


def test_an_edited_recipe_keeps_what_was_not_touched(lab_root: Path, lab: httpx.Client) -> None:
    fields = {"v.anneal_c": "100.123456789", "v.solvent": "DMSO", "v.drip_s": "99"}
    shown = post(lab, f"{BASE}/trials/T001/edit", seen=seen(lab), **fields)
    assert "T001 is changed and accepted." in shown
    assert (
        'Note: "drip_s" = 99 lies outside 3 to 30' in shown
    )  # outside of 3 to 30: said, and taken
    recipe = state_of(lab_root).trials["T001"].recipe
    assert recipe == {"anneal_c": 100.123456789, "solvent": "DMSO", "drip_s": 99.0}


def test_a_rejection_keeps_its_reason(lab_root: Path, lab: httpx.Client) -> None:
    post(lab, f"{BASE}/trials/T002/reject", seen=seen(lab), reason="<no> DMSO left")
    assert state_of(lab_root).trials["T002"].note == "<no> DMSO left"
    assert "rejected T002: <no> DMSO left" in read(lab, f"{BASE}/log")


def test_a_variable_is_held_and_let_go(lab_root: Path, lab: httpx.Client) -> None:
    shown = post(lab, f"{BASE}/pins", seen=seen(lab), variable="solvent", value="DMF")
    assert "solvent is held at DMF" in shown
    assert state_of(lab_root).pins == {"solvent": "DMF"}
    post(lab, f"{BASE}/pins/solvent/remove", seen=seen(lab))
    assert state_of(lab_root).pins == {}


def test_an_own_experiment_starts_from_another_recipe(lab_root: Path, lab: httpx.Client) -> None:
    page = lab.get(f"{BASE}/suggestions?like=T002").text
    assert 'id="own-anneal_c" name="v.anneal_c" value="120"' in page
    fields = {"v.anneal_c": "200", "v.solvent": "DMF", "note": "as Ann did"}
    shown = post(lab, f"{BASE}/trials", seen=seen(lab), **fields)
    assert "T004 is added as your own experiment." in shown
    assert "it is taken all the same" in shown
    assert state_of(lab_root).trials["T004"].origin == "own"


def test_the_last_step_can_be_taken_back(lab_root: Path, lab: httpx.Client) -> None:
    post(lab, f"{BASE}/trials/T001/accept", seen=seen(lab))
    now = str(state_of(lab_root).last_event)
    shown = post(lab, f"{BASE}/undo", seen=now, event=now, to="suggestions")
    assert f"Taken back: accepted T001 (event {now})." in shown
    assert state_of(lab_root).trials["T001"].status == "suggested"


def test_two_clicks_ask_for_suggestions_once(lab: httpx.Client) -> None:
    for _ in range(2):
        answer = lab.post(f"{BASE}/suggestions", data={"q": "2", "seen": seen(lab)})
        assert answer.status_code == 303
    jobs = lab.app.state.jobs.list()  # type: ignore[attr-defined]
    assert [(job.kind, job.target, job.arguments["q"]) for job in jobs] == [
        ("suggest", "campaign/films", 2)
    ]
    page = lab.get(f"{BASE}/suggestions").text
    assert 'data-job="1"' in page  # a reload shows it again
    assert "waits for its turn" in page


def test_what_is_no_number_is_refused_and_kept(lab: httpx.Client) -> None:
    answer = lab.post(f"{BASE}/suggestions", data={"q": "many", "seen": seen(lab)})
    assert answer.status_code == 400
    assert '"many" is no whole number' in words(answer.text)
    assert 'value="many"' in answer.text
