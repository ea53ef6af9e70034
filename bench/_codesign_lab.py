"""Campaigns of bench/codesign.py in the virtual lab, steered by what a device is worth or by usability."""

import copy
import json
import time
from typing import Any, NamedTuple

import numpy as np

from _codesign_kept import CACHE, SEED, keep, kept, networks
from ohmloop import bo
from ohmloop.campaign import Config, parse_config, template
from ohmloop.campaign._ingest import judge
from ohmloop.codesign import (
    sensitivity,
)
from ohmloop.crossbar import Hardware
from ohmloop.data import Sweep, figures_of_merit
from ohmloop.device import (
    DeviceModel,
    Estimate,
    TaskAccuracy,
    VirtualLab,
    load_task_accuracy,
    save_task_accuracy,
)
from ohmloop.device import fit as fit_device
from ohmloop.nn import evaluate_fleets
from ohmloop.train import Run

# -- the closed loop in the virtual lab ---------------------------------------------------------

OBJECTIVES = ("task-accuracy", "usability", "sigma", "random")
FRESH = 10  # devices of each recipe that no campaign sees
LEAST_WORKING = 0.3  # share of fresh devices behind the quality that counts as the best
CHANCE = 0.1  # accuracy of ten classes where nothing works
LAB_METHOD = "weight-noise:level=0.5"


class Budget(NamedTuple):
    """Experiments of one campaign, how many at a time, recipes to choose from, and the lab's scatter.

    The scatter of devices around their recipe counts in units of the fitted one, which is the leave-one-out
    error of the 43 measured devices; below 1 it is an assumption: a process that repeats better.
    """

    experiments: int
    batch: int
    pool: int
    scatter: float


BUDGETS = {
    "short": Budget(24, 4, 120, 1.0),
    "full": Budget(60, 6, 240, 1.0),  # the template's own number of trials
    "repeatable": Budget(24, 4, 120, 0.25),
}


def the_lab(seed: int, scatter: float) -> VirtualLab:
    """Return the virtual lab, with less scatter if asked for."""
    found = VirtualLab(seed)
    if scatter != 1.0:
        found._law = copy.copy(found._law)  # the fitted law is shared by all labs
        found._law.scatter = scatter * found._law.scatter
    return found


_LINES = {
    "task-accuracy": 'name = "task_accuracy"\ngoal = "maximise"',
    "usability": 'name = "usability"\ngoal = "maximise"',
    "sigma": 'name = "sigma"\ngoal = "minimise"\nscale = "log"',
}


def lab_config(objective: str, seed: int) -> Config:
    """Return the nanowire template with another objective."""
    text = template("perovskite-nanowires")
    # Random recipes are judged by the task: what differs is the choice of experiments alone.
    lines = _LINES.get(objective, _LINES["task-accuracy"])
    text = text.replace(_LINES["usability"], lines)
    text = text.replace("batch = 4", f"batch = 4\nseed = {seed}")
    return parse_config(text)


def made(
    lab: VirtualLab, recipe: dict[str, Any], number: int, asked: TaskAccuracy, n_bootstrap: int
) -> dict[str, Any]:
    """Make and measure one device: figures, as `ohmloop campaign ingest` finds them, and the fitted law."""
    known = {k: v for k, v in recipe.items() if k in lab.variables}
    device = lab.make(known, number)
    if not len(device.voltage):
        return {"failed": "fabricated", "law": None}
    n = device.current.shape[1]
    sweep = Sweep(
        voltage=np.broadcast_to(device.voltage[:, None], device.current.shape),
        current=device.current,
        cycle_names=tuple(f"current_cycle{k + 1}" for k in range(n)),
        file="simulated",
        format="virtual lab",
        sha256="0" * 64,
    )
    figures = figures_of_merit(sweep, n_bootstrap=n_bootstrap).to_dict()
    law = None
    if figures["sigma"] is not None:
        low, high = figures["sigma_interval"] or (None, None)
        fitted = fit_device([sweep], name="simulated", n_bootstrap=0)
        law = fitted.model_copy(
            update={"sigma": Estimate(value=figures["sigma"], low=low, high=high)}
        )
        figures["task_accuracy"] = asked.of(law).mean
    return {"failed": None, "figures": figures, "law": law}


def pool(config: Config, seed: int, n: int) -> list[dict[str, Any]]:
    """Return the recipes that one seed's campaigns may choose from: valid ones, at random."""
    space = config.problem().space
    table = space.sample(n, np.random.default_rng([seed, 7]), {})
    return [dict(point) for point in space.to_points(table)]


def quality(
    lab: VirtualLab, recipe: dict[str, Any], asked: TaskAccuracy, config: Config
) -> dict[str, Any]:
    """Judge a recipe by fresh devices that no campaign sees: the mean over those that pass every stage."""
    good, laws = [], []
    for number in range(1000, 1000 + FRESH):
        result = made(lab, recipe, number, asked, 0)
        if result["law"] is None:
            continue
        stages, _ = judge(config, result["figures"])
        if all(stages.values()):
            good.append(asked.of(result["law"], with_interval=False).mean)
            laws.append(result["law"])
    return {
        "accuracy": float(np.mean(good)) if good else CHANCE,
        "works": len(good) / FRESH,
        "devices": good,
        "laws": laws,
    }


def campaign_run(
    objective: str, seed: int, recipes: list[dict[str, Any]], asked: TaskAccuracy, budget: Budget
) -> tuple[list[int], list[int | None]]:
    """Run one campaign: the recipes tried in order, and the one believed best after each batch."""
    config, lab = lab_config(objective, seed), the_lab(seed, budget.scatter)
    problem = config.problem()
    rng = np.random.default_rng([seed, 8])
    shuffled = rng.permutation(len(recipes)).tolist()
    index = {json.dumps(r, sort_keys=True): k for k, r in enumerate(recipes)}
    seen: list[bo.Observation] = []
    tried: list[int] = []
    believed: list[int | None] = []
    while len(seen) < budget.experiments:
        if objective == "random":
            chosen = shuffled[len(tried) : len(tried) + budget.batch]
        else:
            left = [r for k, r in enumerate(recipes) if k not in set(tried)]
            found = bo.suggest(problem, seen, budget.batch, candidates=left)
            chosen = [index[json.dumps(dict(s.point), sort_keys=True)] for s in found]
        for k in chosen:
            result = made(lab, recipes[k], 0, asked, 100)
            if result["failed"]:
                stages, values = {"fabricated": False}, {}
            else:
                stages, values = judge(config, result["figures"])
            tried.append(k)
            seen.append(
                bo.Observation(
                    point=recipes[k],
                    values={name: (v,) for name, v in values.items()},
                    stages={name: (int(v), int(not v)) for name, v in stages.items()},
                )
            )
        best = bo.best_recipe(problem, seen)
        believed.append(None if best is None else tried[best])
    return tried, believed


def lab_seed(seed: int, asked: TaskAccuracy, runs: list[Run], budget: Budget) -> dict[str, Any]:
    """All objectives on one seed's pool of recipes, each recipe's true quality, test accuracies."""
    config, lab = lab_config("usability", seed), the_lab(seed, budget.scatter)
    recipes = pool(config, seed, budget.pool)
    known = [quality(lab, recipe, asked, config) for recipe in recipes]
    out: dict[str, Any] = {
        "quality": [q["accuracy"] for q in known],
        "works": [q["works"] for q in known],
        "devices": [q["devices"] for q in known],
        "runs": {},
    }
    tests: dict[int, float] = {}
    for objective in OBJECTIVES:
        began = time.process_time()
        tried, believed = campaign_run(objective, seed, recipes, asked, budget)
        last = believed[-1]
        if last is not None and last not in tests:
            laws = known[last]["laws"]
            tests[last] = on_test(runs, laws) if laws else CHANCE
        out["runs"][objective] = {
            "tried": tried,
            "believed": believed,
            "test_accuracy": CHANCE if last is None else tests[last],
            "seconds": time.process_time() - began,
        }
    return out


def on_test(runs: list[Run], laws: list[DeviceModel]) -> float:
    """Return the mean test accuracy of the networks on simulated devices of several laws."""
    found = []
    for network in runs:
        fleets = evaluate_fleets(
            network.model,
            network.task.test(network.config["seed"]),
            [Hardware(device=law) for law in laws],
            n_devices=5,
            seed=SEED,
        )
        found.append(np.mean([f.mean for f in fleets]))
    return float(np.mean(found))


def lab_surrogate() -> tuple[TaskAccuracy, list[Run]]:
    """Return the networks of the study and their task accuracy, from the cache where it is there."""
    runs = networks("digits", LAB_METHOD, 3)
    path = CACHE / "task-accuracy.json"
    if not path.exists():
        save_task_accuracy(sensitivity(runs, n_points=96, n_devices=30).surrogate, path)
    return load_task_accuracy(path), runs


def lab(seeds: int, first: int, name: str) -> None:
    """All seeds that are not kept yet; each is complete, so that fewer of them are a fair part."""
    asked, runs = lab_surrogate()
    for seed in range(first, seeds):
        if kept(f"lab-{name}-{seed}") is None:
            keep(f"lab-{name}-{seed}", lab_seed(seed, asked, runs, BUDGETS[name]))
            print(name, seed, time.strftime("%H:%M:%S"), flush=True)
