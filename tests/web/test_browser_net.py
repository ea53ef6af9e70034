"""The network's half as a person uses it: in Chromium, by role and label, with a real server and worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ohmloop.campaign import Campaign
from tests.web import net_content
from tests.web.served import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHROMIUM = "/usr/bin/chromium"
LONG = 150_000  # milliseconds: a worker imports torch and trains on a machine that others use too


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    place = tmp_path / "lab"
    place.mkdir()
    made = Server(place)
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; a message on its console is a failure."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(LONG)
    made = context.new_page()
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on(
        "console",
        lambda m: wrong.append(m.text) if m.type == "error" and "ERR_" not in m.text else None,
    )
    yield made
    context.close()
    assert not wrong


def train(page: Page, server: Server, name: str, epochs: int) -> None:
    """Ask for a training through the form."""
    page.goto(f"{server.address}/runs/new")
    page.get_by_label("Name of the run").fill(name)
    page.get_by_label("Epochs").fill(str(epochs))
    page.get_by_role("button", name="Train").click()


def expect_progress(page: Page, total: int) -> None:
    """Wait until a training tells its epochs."""
    live = page.get_by_role("main").get_by_role("region", name="Train ")
    expect(live).to_contain_text(f"of {total}", timeout=LONG)


@pytest.mark.timeout(600)
def test_train_evaluate_certify_and_report_by_clicks(page: Page, server: Server) -> None:
    train(page, server, "first", 30)
    expect(page.get_by_role("heading", name="first", level=1)).to_be_visible()
    expect_progress(page, 30)
    expect(page.get_by_role("heading", level=1)).to_contain_text("finished", timeout=LONG)

    page.get_by_label("Virtual devices of each").fill("20")
    page.get_by_role("button", name="Test", exact=True).click()
    plot = page.get_by_role("img", name="Test accuracy against the noise of the device, simulated")
    expect(plot).to_be_visible(timeout=LONG)
    expect(plot.locator("svg").first).to_be_visible(timeout=30_000)

    page.get_by_label("Virtual devices", exact=True).fill("100")
    page.get_by_role("button", name="Prove", exact=True).click()
    claims = page.get_by_role("article")
    expect(claims.first).to_contain_text("With 95 % confidence", timeout=LONG)

    page.get_by_role("button", name="Write a report").click()
    link = page.get_by_role("row").filter(has_text="report").get_by_role("link")
    expect(link.first).to_be_visible(timeout=LONG)
    link.first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("digits by weight-noise")


@pytest.mark.timeout(600)
def test_a_reload_during_a_job_finds_it_and_it_can_be_cancelled(page: Page, server: Server) -> None:
    train(page, server, "long", 5000)
    expect_progress(page, 5000)
    page.reload()
    expect_progress(page, 5000)
    page.get_by_role("main").get_by_role("button", name="Cancel: ").click()
    expect(page.get_by_text("is cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Go on with the training")).to_be_visible()
    # The worker that was ended is replaced: the next job is done.
    train(page, server, "short", 2)
    expect(page.get_by_role("heading", level=1)).to_contain_text("finished", timeout=LONG)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_job_goes_on_after_the_server_was_killed(page: Page, server: Server) -> None:
    train(page, server, "survivor", 400)
    expect_progress(page, 400)
    server.kill()
    server.start(server.port)
    # The open page finds the server again by itself, and ends where the training ends.
    expect(page.get_by_role("heading", level=1)).to_contain_text("finished", timeout=2 * LONG)
    page.goto(f"{server.address}/jobs")
    expect(page.get_by_role("row").filter(has_text="survivor")).to_contain_text("done")


@pytest.mark.timeout(600)
def test_the_loop_goes_round_with_the_virtual_lab(
    page: Page, server: Server, tmp_path: Path
) -> None:
    Campaign.new(tmp_path / "lab" / "wires", template="perovskite-nanowires").close()
    page.goto(f"{server.address}/campaigns/wires/codesign")
    page.get_by_label("Networks (training seeds)").fill("1")
    page.get_by_label("Epochs of each").fill("2")
    page.get_by_role("button", name="Start the loop").click()
    page.get_by_role("link", name="See the result").click(timeout=LONG)
    page.get_by_role("button", name="First step").click()
    expect(page.get_by_role("heading", name="Verdict")).to_be_visible(timeout=LONG)
    page.get_by_label("devices each").fill("2")
    page.get_by_role(
        "button", name="Make the waiting trials in the virtual lab (SIMULATED)"
    ).click()
    expect(page.get_by_text("SIMULATED devices").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Go round once").click()
    expect(page.get_by_role("cell", name="2", exact=True).first).to_be_visible(timeout=LONG)
    expect(page.get_by_role("listitem").filter(has_text="is worth").first).to_be_visible()


# -- looks --------------------------------------------------------------------------------------

PAGES = (
    "/devices?with=wire&with=nanowire-30",
    "/devices/wire",
    "/devices/hfo2-radar2021",
    "/runs?with=robust",
    "/runs/robust",
    "/runs/stopped",
    "/runs/new",
    "/jobs",
    "/campaigns/loop/codesign",
)


NAMELESS = """() =>
  [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button")]
    .filter((e) => !e.labels?.length && !e.getAttribute("aria-label") && !e.textContent.trim())
    .map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("filled")
    net_content.make(place)
    made = Server(place)
    made.start()
    yield made.address
    made.kill()


@pytest.mark.parametrize("url", PAGES)
def test_a_page_fits_a_phone_draws_its_plots_and_names_its_controls(
    browser: Browser, filled: str, url: str
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    page.goto(filled + url)
    for figure in page.locator("[data-plot]").all():
        expect(figure).to_have_attribute("data-drawn", "", timeout=30_000)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert page.evaluate(NAMELESS) == []
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    context.close()


def test_pages_work_without_javascript(browser: Browser, filled: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{filled}/runs/robust")
    page.get_by_text("Test it on virtual devices").click()
    page.get_by_label("Log-normal levels, sigma").fill("0.3")
    page.get_by_label("Virtual devices of each").fill("5")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_text("Test robust on virtual devices").first).to_be_visible()
    context.close()
