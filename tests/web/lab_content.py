"""Campaigns for the tests of the lab's pages, made without a model: what a campaign is, is its events."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import httpx

from ohmloop.campaign import Campaign, State
from ohmloop.store import Draft, Store

BASE = "/campaigns/films"
SETTINGS = """\
schema_version = 1
name = "Films"
description = "Two knobs and a choice"

[variables.anneal_c]
type = "continuous"
unit = "degC"
low = 60
high = 180

[variables.solvent]
type = "categorical"
options = ["DMF", "DMSO"]

[variables.drip_s]
type = "continuous"
unit = "s"
low = 3
high = 30
when = { solvent = ["DMSO"] }

[[stages]]
name = "fabricated"
question = "Is the film closed?"

[[stages]]
name = "switches"
question = "Is there a loop?"
passes_when = "switched"

[[objectives]]
name = "usability"
goal = "maximise"

[budget]
trials = 20
"""

RECIPES: list[dict[str, Any]] = [
    {"anneal_c": 100.123456789, "solvent": "DMF"},
    {"anneal_c": 120.0, "solvent": "DMSO", "drip_s": 12.0},
    {"anneal_c": 140.0, "solvent": "DMF"},
]


def make_campaign(folder: Path) -> Path:
    """Start a campaign that has three suggestions, with reasons, as the optimiser would record them."""
    with Campaign.new(folder, text=SETTINGS, actor="Mira"):
        pass
    suggest(folder, *RECIPES)
    return folder


def suggest(folder: Path, *recipes: dict[str, Any]) -> None:
    """Record suggestions as the optimiser would."""
    with Campaign.open(folder) as campaign:
        ids = campaign.state.next_ids(len(recipes))
    reasons = {
        "mode": "explore",
        "predictions": {"usability": {"median": 0.21, "low": 0.1, "high": 0.35}},
        "usable": 0.8,
        "stages": {"fabricated": 0.9, "switches": 0.88},
        "likeliest_failure": "switches",
        "nearest": None,
        "differences": {},
        "importance": {"anneal_c": 0.7, "solvent": 0.3},
        "gain": 0.01,
    }
    trials = [
        {"id": id, "recipe": recipe, "reasons": reasons}
        for id, recipe in zip(ids, recipes, strict=True)
    ]
    with Store.open(folder) as store:
        store.append(Draft("suggested", {"trials": trials, "held": {}}), actor="Mira")


_LOOP = [*range(0, 21), *range(19, -21, -1), *range(-19, 1)]


def sweep_csv(head: str = "Voltage (V),Current (A)", cycles: int = 1) -> bytes:
    """Return a sweep that switches: high resistance on the way up, low on the way down."""
    rows = []
    for _ in range(cycles):
        for k, step in enumerate(_LOOP):
            volts = step / 10
            on = 20 <= k < 60
            rows.append(f"{volts},{volts * (1e-3 if on else 1e-5):.6g}")
    return "\n".join([head, *rows]).encode()


def words(text: str) -> str:
    """Return the text of a page, its blanks made one."""
    plain = html.unescape(re.sub(r"<[^>]*>", " ", text))
    return re.sub(r"\s+", " ", plain)


def read(client: httpx.Client, url: str, status: int = 200) -> str:
    """Return the text of a page that answers with a status."""
    answer = client.get(url)
    assert answer.status_code == status, (url, answer.text[-600:])
    return words(answer.text)


def seen(client: httpx.Client, url: str = f"{BASE}/suggestions") -> str:
    """Return the last event that a page shows, as its forms send it."""
    found = re.search(r'name="seen" value="(\d+)"', client.get(url).text)
    assert found is not None
    return found[1]


def post(client: httpx.Client, url: str, **fields: str) -> str:
    """Send a form and return the page that follows."""
    answer = client.post(url, data=fields)
    assert answer.status_code == 303, words(answer.text)
    return read(client, answer.headers["location"])


def state_of(root: Path) -> State:
    """Return what the campaign's events add up to."""
    with Campaign.open(root / "films", writable=False) as campaign:
        return campaign.state
