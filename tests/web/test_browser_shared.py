"""Several tabs, people and accounts of one machine, in Chromium: what one does, others see or do not get."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ohmloop.campaign import Campaign
from tests.web import lab_content
from tests.web.served import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Browser, Page, expect = sync_api.Browser, sync_api.Page, sync_api.expect
expect.set_options(timeout=30_000)  # milliseconds: others use this machine too

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "lab"
    place.mkdir()
    lab_content.make_campaign(place / "films")
    return place


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder)
    made.start()
    yield made
    made.kill()


def test_an_open_page_shows_work_that_somebody_asked_for_later(page: Page, server: Server) -> None:
    page.goto(server.address)
    strip = page.get_by_role("region", name="Work in progress")
    expect(strip).to_have_count(0)
    for name in ("First report", "Second report"):
        body = {"kind": "report", "target": "campaign/films", "title": name}
        httpx.post(f"{server.address}/api/v1/jobs", json=body).raise_for_status()
    expect(strip).to_contain_text("report")  # nothing was loaded again
    expect(strip).to_contain_text("Second report", timeout=180_000)
    expect(strip).to_contain_text("done", timeout=180_000)


def test_a_tab_that_nobody_looks_at_asks_for_nothing(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.goto(server.address)
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6000)
    assert asked
    hide = "(h) => { Object.defineProperty(document, 'hidden', {value: h, configurable: true}); "
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    asked.clear()
    page.wait_for_timeout(7000)
    assert asked == []
    page.evaluate(hide, False)
    page.wait_for_timeout(500)
    assert asked


def test_a_link_lets_a_browser_in_also_from_another_place(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    server = Server(folder, "--token-file", str(tmp_path / "token"))
    server.start()
    try:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{server.address}/campaigns/films")
        expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
        start = tmp_path / "open.html"
        start.write_text(f'<meta http-equiv="refresh" content="0;url={server.link}">')
        page.goto(start.as_uri())
        expect(page.get_by_role("heading", name="Campaigns")).to_be_visible()
        page.get_by_role("link", name="Films").click()
        page.get_by_role("button", name="Ask for advice").or_(
            page.get_by_role("link", name="Suggestions")
        ).first.click()
        context.close()

        other = browser.new_context().new_page()
        other.goto(server.link)  # it is used up
        expect(other.get_by_role("alert")).to_contain_text("was used before")
        other.get_by_label("Token").fill((tmp_path / "token").read_text().strip())
        other.get_by_role("button", name="Come in").click()
        expect(other.get_by_role("heading", name="Campaigns")).to_be_visible()
        port = server.port
        server.kill()
        server.start(port)
        other.reload()  # the browser is known, also to a server that was started again
        expect(other.get_by_role("heading", name="Campaigns")).to_be_visible()
    finally:
        server.kill()


def test_settings_that_were_damaged_are_mended_on_the_page(
    page: Page, server: Server, folder: Path
) -> None:
    path = folder / "films" / "campaign.toml"
    path.write_text(lab_content.SETTINGS.replace("low = 60", "low = sixty"))
    page.goto(server.address)
    page.get_by_role("link", name="films").click()
    expect(page.get_by_role("alert")).to_contain_text("Line 8: low = sixty")
    text = page.get_by_label("The settings as text (campaign.toml)")
    chosen = text.evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)")
    assert chosen == "low = sixty"  # the cursor is where the error is
    text.fill(text.input_value().replace("sixty", "seventy"))
    page.get_by_role("button", name="Check and save").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved")
    text = page.get_by_label("The settings as text (campaign.toml)")
    text.fill(text.input_value().replace("seventy", "70"))
    page.get_by_role("button", name="Check and save").click()
    expect(page.get_by_role("status")).to_contain_text("The settings are mended")
    assert "low = 70" in path.read_text()


def test_a_choice_stays_a_choice_where_somebody_else_was_faster(
    page: Page, server: Server, folder: Path
) -> None:
    page.goto(f"{server.address}/campaigns/films/trials/T002")
    page.get_by_text("Change the recipe").click()
    page.get_by_label("solvent").select_option("DMF")
    with Campaign.open(folder / "films", actor="Jo") as campaign:
        campaign.edit("T002", anneal_c=90)
    page.get_by_role("button", name="Accept as changed").click()
    expect(page.get_by_role("heading", name="Somebody else was faster")).to_be_visible()
    solvent = page.get_by_label("solvent")
    expect(solvent).to_have_value("DMF")
    assert solvent.evaluate("e => e.tagName") == "SELECT"
    expect(page.get_by_label(re.compile("drip_s"))).to_be_hidden()  # it is for DMSO alone
    solvent.select_option("DMSO")
    expect(page.get_by_label(re.compile("drip_s"))).to_be_visible()
    page.get_by_role("button", name="Do it all the same").click()
    expect(page.get_by_role("status")).to_contain_text("T002 is changed and accepted")
