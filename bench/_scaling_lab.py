"""Searches, campaigns and executors at any size, for `scaling.py`. The trials are made up."""

import importlib.util
import shutil
import tempfile
from pathlib import Path

import numpy as np

from _scaling_nets import Prepared
from ohmloop import bo
from ohmloop.campaign import Campaign
from ohmloop.run import open_executor
from ohmloop.store import Draft, Store

TEMPLATE = "perovskite-nanowires"


def suggestion(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare one suggestion from n trials of v variables; from M recipes where M is given."""
    n, v, m = point["n"], point["v"], point.get("M", 0)
    space = bo.Space(tuple(bo.Real(name=f"x{k}", low=0, high=1) for k in range(v)))
    problem = bo.Problem(space=space, objectives=(bo.Objective(name="y"),), stages=("works",))
    rng = np.random.default_rng([repeat, n, v, m])
    table = space.sample(n, rng)
    y = np.sin(3 * table).sum(1) + 0.1 * rng.normal(size=n)
    works = table[:, 0] + 0.2 * rng.normal(size=n) < 0.7
    works[:2] = True, False
    seen = [
        bo.Observation(
            point=p, stages={"works": (int(w), int(not w))}, values={"y": (float(a),)} if w else {}
        )
        for p, w, a in zip(space.to_points(table), works, y, strict=True)
    ]
    pool = space.to_points(space.sample(m, rng)) if m else None
    seeds = iter(range(1000 * repeat, 10**9))
    return Prepared(
        lambda: bo.suggest(problem, seen, 1, candidates=pool, seed=next(seeds)), dict(point)
    )


def _campaign(events: int) -> Path:
    """Make a campaign of that many events: experiments and their results in turn, at once."""
    folder = Path(tempfile.mkdtemp(prefix="ohmloop-scaling-")) / "campaign"
    with Campaign.new(folder, template=TEMPLATE, actor="bench") as campaign:
        space = campaign.problem().space
        stages = {stage.name: True for stage in campaign.config.stages}
        objectives = [objective.name for objective in campaign.config.objectives]
    recipes = space.to_points(space.sample(100, np.random.default_rng(0)))
    drafts = []
    for k in range(max(1, (events - 2) // 2)):
        trial = f"T{k + 1:03d}"
        made = {"recipe": recipes[k % 100], "note": "", "origin": "own", "outside": []}
        values = {name: 0.1 + 1e-3 * (k % 500) for name in objectives}
        found = {"device": "1", "stages": stages, "values": values, "note": ""}
        drafts += [
            Draft("added", {"trial": trial, **made}),
            Draft("recorded", {"trial": trial, **found}),
        ]
    with Store.open(folder) as store:
        store.append(*drafts, actor="bench")
    return folder


def opening(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the opening of a campaign of E events."""
    folder = _campaign(point["E"])
    return Prepared(
        lambda: Campaign.open(folder).close(),
        {"E": point["E"]},
        lambda: shutil.rmtree(folder.parent),
    )


def recording(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the recording of one more device in an open campaign of E events."""
    folder = _campaign(point["E"])
    campaign = Campaign.open(folder, actor="bench")
    name = campaign.config.objectives[0].name

    def clean() -> None:
        campaign.close()
        shutil.rmtree(folder.parent)

    return Prepared(
        lambda: campaign.record("T001", values={name: 0.2}, passed="all"), {"E": point["E"]}, clean
    )


def executors() -> list[str]:
    """Return the executors that can be tried here."""
    return ["in-process", "local:1", *(["ray:1"] if importlib.util.find_spec("ray") else [])]


class RunTrials:
    """Prepares k trials that do nothing on an executor, its start and end included."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, point: dict[str, int], repeat: int) -> Prepared:
        """Prepare them."""

        def run() -> None:
            with open_executor(self.name) as executor:
                assert sum(1 for _ in executor.each(abs, [(-k,) for k in range(point["k"])]))

        return Prepared(run, {"k": point["k"]})
