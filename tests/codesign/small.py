"""Networks and a campaign small enough that a whole loop takes seconds."""

from pathlib import Path
from typing import Any

from ohmloop.codesign import CodesignLoop, LoopSettings
from ohmloop.tasks import task
from ohmloop.train import Run, fit, load_run


def trained(folder: Path, n: int = 2, **settings: Any) -> list[Run]:
    """Return networks of ``n`` seeds."""
    for seed in range(n):
        fit(
            task("digits"),
            "erm",
            seed=seed,
            run_dir=folder / str(seed),
            **({"epochs": 8} | settings),
        )
    return [load_run(folder / str(seed)) for seed in range(n)]


SETTINGS = LoopSettings(epochs=2, limit=400, points=8, devices=4, method="erm")

CAMPAIGN = """
schema_version = 1
name = "Two settings of a nanowire"

[variables.sweep_max_v]
type = "continuous"
low = 2
high = 8

[variables.pb_electrodeposition_min]
type = "continuous"
low = 5
high = 30

[[objectives]]
name = "task_accuracy"

[suggest]
batch = 3
initial = 3
"""


def started(folder: Path) -> CodesignLoop:
    """Return a loop on a small campaign."""
    folder.mkdir()
    (folder / "campaign.toml").write_text(CAMPAIGN)
    return CodesignLoop.new(folder, SETTINGS)
