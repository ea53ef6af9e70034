"""A campaign small enough that suggesting takes a moment, and what the tests do with it."""

from pathlib import Path

from ohmloop.campaign import Campaign, Trial

TEXT = """
schema_version = 1
name = "Small"

[variables.x]
type = "continuous"
unit = "um"
low = 0
high = 1
step = 0.1

[variables.kind]
type = "categorical"
options = ["plain", "doped", "mixed"]

[[objectives]]
name = "usability"

[budget]
trials = 12

[suggest]
batch = 2
initial = 4
"""

CONTEXT = """
[variables.humidity]
type = "continuous"
unit = "%"
role = "context"
low = 0
high = 80
"""


def start(folder: Path, text: str = TEXT) -> Campaign:
    return Campaign.new(folder, text=text, actor="ada")


def rewrite(campaign: Campaign, text: str) -> Campaign:
    """Close the campaign, change its settings as a person would, and open it again."""
    campaign.close()
    (campaign.folder / "campaign.toml").write_text(text, encoding="utf-8")
    return Campaign.open(campaign.folder, actor="ada")


def filled(folder: Path, text: str = TEXT) -> Campaign:
    """A campaign with five results: three usable trials, two that failed."""
    campaign = start(folder, text)
    for k, (kind, value) in enumerate(
        [("plain", 0.1), ("doped", 0.3), ("mixed", None), ("doped", 0.2), ("mixed", None)]
    ):
        made = own(campaign, x=0.2 * k, kind=kind)
        if value is None:
            campaign.record(made.id, failed_at="conducts")
        else:
            campaign.record(made.id, values={"usability": value}, passed="analog")
    return campaign


def own(campaign: Campaign, **recipe: float | str) -> Trial:
    return campaign.add(recipe)[0]
