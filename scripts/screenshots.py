"""Write docs/pictures/page-*.png: every page of `ohmloop serve`, over a folder that this script fills.

Everything in that folder is SIMULATED: the virtual lab makes the devices, and jobs of the page do the rest.
Needs the extras `web` and `dev`, and Chromium; takes some minutes. ``--keep FOLDER`` keeps the folder.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ohmloop.campaign import Campaign
from ohmloop.device import VirtualLab, write_workbook

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1120, 1280  # pixels; what lies lower is left out
COLOURS = 256  # of the palette: one byte a pixel
PATIENCE = 900.0  # seconds for one job
LAB, LOOP = "nanowires", "loop"
RUN, PLAIN, CHIPS = "digits-robust", "digits-plain", "digits-arrays"
_GOOD = {"aao_length_um": 1.8, "aao_diameter_nm": 50, "cvd_time_h": 3, "sweep_max_v": 6}


class Shot(NamedTuple):
    """A picture: its name, the address, and whether it is dark."""

    name: str
    url: str
    is_dark: bool = False
    is_narrow: bool = False


SHOTS = (
    Shot("home", "/"),
    Shot("campaign-new", "/campaigns/new"),
    Shot("overview", f"/campaigns/{LAB}"),
    Shot("suggestions", f"/campaigns/{LAB}/suggestions"),
    Shot("suggestions-dark", f"/campaigns/{LAB}/suggestions", is_dark=True),
    Shot("trials", f"/campaigns/{LAB}/trials"),
    Shot("trial", f"/campaigns/{LAB}/trials/T001"),
    Shot("files", f"/campaigns/{LAB}/files"),
    Shot("settings", f"/campaigns/{LAB}/settings"),
    Shot("log", f"/campaigns/{LAB}/log"),
    Shot("reports", f"/campaigns/{LAB}/reports"),
    Shot("codesign", f"/campaigns/{LOOP}/codesign"),
    Shot("devices", "/devices?with=nanowire-30&with=nanowire-28&with=pcm-joshi2020&with=wire-a3"),
    Shot("device", "/devices/wire-a3"),
    Shot("runs", f"/runs?with={RUN}&with={PLAIN}"),
    Shot("run-new", "/runs/new"),
    Shot("run", f"/runs/{RUN}"),
    Shot("run-dark", f"/runs/{RUN}", is_dark=True),
    Shot("run-phone", f"/runs/{RUN}", is_narrow=True),
    Shot("jobs", "/jobs"),
    Shot("api", "/api"),
)


def main() -> None:
    """Fill a folder, serve it, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="fill and keep this folder")
    parser.add_argument("--only", default="", help="names of pictures, by commas")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = asked.keep or Path(scratch) / "lab"
        folder.mkdir(parents=True, exist_ok=True)
        is_fresh = not (folder / LAB).exists()
        if is_fresh:
            Campaign.new(folder / LAB, template="perovskite-nanowires", actor="Ada").close()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with served(folder) as address:
            if is_fresh:
                fill(address, browser, Path(scratch))
            wanted = set(filter(None, asked.only.split(",")))
            for shot in SHOTS:
                if not wanted or shot.name in wanted:
                    take(browser, address, shot)
            if not wanted or wanted & {"file", "run-live"}:
                take_moving(browser, address, Path(scratch))
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; gives the address."""
    ohmloop = str(Path(sys.executable).with_name("ohmloop"))
    command = [ohmloop, "serve", str(folder), "--port", "0", "--no-browser", "--no-token"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip().rstrip("/")
    finally:
        server.terminate()
        server.wait(20)


# -- content ------------------------------------------------------------------------------------


def fill(address: str, browser: Browser, scratch: Path) -> None:
    """Let the jobs of the page make what there is to see."""

    def do(kind: str, target: str, **arguments: Any) -> None:
        job(address, kind, target, **arguments)

    for _ in range(4):
        do("suggest", f"campaign/{LAB}", q=4, actor="Ada")
        do("virtual-lab", f"campaign/{LAB}", n_devices=2, actor="Ada")
    do("suggest", f"campaign/{LAB}", q=4, actor="Ada")
    do("advice", f"campaign/{LAB}")
    do("report", f"campaign/{LAB}")
    own_device(address, browser, scratch)
    shared = {"task": "digits", "device": "lognormal:0.5", "epochs": 40}
    do("train", f"run/{PLAIN}", method="erm", **shared)
    do("train", f"run/{RUN}", method="weight-noise:level=0.8", **shared)
    arrays = {"device": "nanowire-30", "array": "rows=64,columns=64,dac=8,adc=6"}
    do("train", f"run/{CHIPS}", **{**shared, **arrays}, method="weight-noise:level=0.5")
    do("evaluate", f"run/{CHIPS}", n_devices=40)
    for run in (PLAIN, RUN):
        do("evaluate", f"run/{run}", sigmas=[0.1, 0.3, 0.5, 0.8, 1.2], n_devices=100)
    do("evaluate", f"run/{RUN}", devices=["nanowire-30", "nanowire-28", "wire-a3"], n_devices=100)
    do("evaluate", f"run/{RUN}", devices=["nanowire-30"], n_devices=40, array="")
    statements = ["yield", "percentile", "drift", "box"]
    do("certify", f"run/{RUN}", statements=statements, n_devices=2000)
    do("codesign-new", f"campaign/{LOOP}", epochs=20)
    do("codesign-step", f"campaign/{LOOP}")
    for _ in range(3):
        do("virtual-lab", f"campaign/{LOOP}", n_devices=2, actor="Ada")
        do("codesign-step", f"campaign/{LOOP}")
    do("codesign-result", f"campaign/{LOOP}", devices=30)


def job(address: str, kind: str, target: str, **arguments: Any) -> None:
    """Ask for a job and wait for it; say what failed."""
    title = f"{kind.replace('-', ' ').capitalize()}: {target.partition('/')[2]}"
    body = {"kind": kind, "target": target, "arguments": arguments, "title": title}
    with httpx.Client(base_url=address, timeout=60) as client:
        asked = client.post("/api/v1/jobs", json=body)
        asked.raise_for_status()
        found, end = asked.json(), time.monotonic() + PATIENCE
        while found["state"] in ("queued", "running"):
            if time.monotonic() > end:
                raise TimeoutError(f"{title} takes too long")
            time.sleep(0.5)
            found = client.get(f"/api/v1/jobs/{found['id']}").json()
    print(f"{title}: {found['state']} {found['error'] or ''}", file=sys.stderr)


def own_device(address: str, browser: Browser, scratch: Path) -> None:
    """Fit a device to a SIMULATED workbook through the form, as a person does."""
    page = browser.new_page()
    page.goto(f"{address}/devices")
    page.get_by_label("Name of the device").fill("wire-a3")
    page.get_by_label("Files", exact=True).set_input_files(workbook(scratch, 2))
    page.get_by_role("button", name="Fit the device").click()
    page.get_by_role("link", name="See the result").wait_for(timeout=PATIENCE * 1000)
    page.close()


def workbook(scratch: Path, seed: int) -> Path:
    """Return a SIMULATED workbook of a device that switches."""
    lab = VirtualLab(seed)
    device = next(d for k in range(50) if len((d := lab.make(dict(_GOOD), k)).voltage))
    path = scratch / f"wire_{seed}_simulated.xlsx"
    write_workbook(device, path, about="SIMULATED for the pictures of docs/page.md")
    return path


# -- pictures -----------------------------------------------------------------------------------


def take(browser: Browser, address: str, shot: Shot) -> None:
    """Take one picture once its plots are drawn."""
    page = opened(browser, address, shot)
    page.goto(address + shot.url)
    keep(page, shot.name)
    page.close()


def take_moving(browser: Browser, address: str, scratch: Path) -> None:
    """Take what only exists for a while: a file that waits to be attached, a training that runs."""
    page = opened(browser, address, Shot("", ""))
    page.goto(f"{address}/campaigns/{LAB}/files")
    page.locator('input[type="file"]').first.set_input_files(workbook(scratch, 3))
    page.wait_for_url("**/files/*", timeout=60_000)
    keep(page, "file")
    page.goto(f"{address}/runs/new")
    page.get_by_label("Epochs").fill("300")
    page.get_by_role("button", name="Train").click()
    page.locator("main [data-job-message]", has_text="of 300").wait_for(timeout=120_000)
    keep(page, "run-live")
    page.get_by_role("button", name="Cancel").click()
    page.close()


def opened(browser: Browser, address: str, shot: Shot) -> Page:
    """Return an empty page of the right size and colours, with a person's name."""
    context = browser.new_context(
        viewport={"width": 390 if shot.is_narrow else WIDTH, "height": 700},
        color_scheme="dark" if shot.is_dark else "light",
    )
    context.add_cookies([{"name": "ohmloop_name", "value": "Ada", "url": address}])
    return context.new_page()


def keep(page: Page, name: str) -> None:
    """Write a picture with a small palette, once all plots of the page are drawn."""
    for figure in page.locator("[data-plot]").all():
        figure.and_(page.locator("[data-drawn]")).wait_for(timeout=30_000)
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, HEIGHT)))
    small = of_few_colours(picture)
    path = PICTURES / f"page-{name}.png"
    small.save(path, optimize=True)
    print(f"{path.name}  {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def of_few_colours(picture: Image.Image) -> Image.Image:
    """Return a picture of the most frequent colours, the others replaced by the nearest of them.

    Paper, lines and marks keep theirs exactly, which Pillow's own palettes do not promise.
    """
    pixels = np.asarray(picture).reshape(-1, 3)
    colours, which, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    palette = colours[np.argsort(-counts)[:COLOURS]]
    away = ((colours[:, None].astype(int) - palette[None].astype(int)) ** 2).sum(-1)
    index = away.argmin(1).astype(np.uint8)[which.ravel()]
    small = Image.fromarray(index.reshape(picture.height, picture.width), "P")
    small.putpalette(palette.ravel().tolist())
    return small


if __name__ == "__main__":
    main()
