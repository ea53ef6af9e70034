"""Does co-design pay? What device properties are worth, nanowires ranked for a network, and the closed loop.

    python bench/codesign.py nanowires [--data FOLDER]    # LeNet on MNIST against the published column
    python bench/codesign.py hunt [--seeds 20]            # devices made until the best of the 43
    python bench/codesign.py worth                        # what improvements are worth on the digits
    python bench/codesign.py lab [--seeds 20] [--first 0] [--budget full]
    python bench/codesign.py pair                         # one loop, and what each half alone reaches
    python bench/codesign.py tables                       # write the pages from what was found

FOLDER holds the 43 published workbooks, by default ``../shared/data/perovskite-nanowire-iv/raw``. Finished
parts are kept in ``bench/.cache/codesign`` and not computed again.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from _common import markdown, save
from ohmloop import bo
from ohmloop.campaign import Config, ReplayTable, load_replay, parse_config, template
from ohmloop.campaign._ingest import judge
from ohmloop.codesign import (
    CodesignLoop,
    LoopSettings,
    joint,
    run_in_virtual_lab,
    sensitivity,
)
from ohmloop.crossbar import Hardware
from ohmloop.data import Sweep, figures_of_merit, read
from ohmloop.device import (
    DeviceModel,
    Estimate,
    TaskAccuracy,
    VirtualLab,
    list_devices,
    load_device,
    load_task_accuracy,
    released_level_table,
    save_task_accuracy,
)
from ohmloop.device import fit as fit_device
from ohmloop.nn import evaluate_fleets
from ohmloop.tasks import task
from ohmloop.train import Run, fit, load_run

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "bench" / ".cache" / "codesign"
SWEEPS = ROOT / ".." / "shared" / "data" / "perovskite-nanowire-iv" / "raw"
SEED = 60_001  # of virtual devices; no training or objective draws from it
LENET = {"epochs": 5, "limit": 12_000, "lr": 1e-3}
LENET_METHODS = ("multinomial:p0=0.2", "erm")


def networks(name: str, method: str, seeds: int, **settings: Any) -> list[Run]:
    """Return one trained network a seed, from the cache where it is there."""
    runs = []
    for seed in range(seeds):
        folder = CACHE / f"{name}-{method.replace(':', '-').replace('=', '')}-{seed}"
        if not (folder / "result.json").exists():
            fit(task(name), method, seed=seed, run_dir=folder, **settings)
        runs.append(load_run(folder))
    return runs


def scores(runs: list[Run], hardwares: list[Hardware], n_devices: int, limit: int) -> np.ndarray:
    """Return ``networks x hardwares`` mean scores on validation data."""
    out = []
    for run in runs:
        _, validation = run.task.development(run.config["seed"], run.config["limit"])
        part = (validation.x[:limit], validation.y[:limit])
        fleets = evaluate_fleets(run.model, part, hardwares, n_devices=n_devices, seed=SEED)
        out.append([f.mean for f in fleets])
    return np.array(out)


def keep(name: str, value: dict[str, Any]) -> None:
    """Write one finished part."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def kept(name: str) -> dict[str, Any] | None:
    """Return a finished part."""
    path = CACHE / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# -- the 43 measured nanowires ------------------------------------------------------------------


def nanowires(data: Path) -> None:
    """Rank the 43 devices for LeNet, by simulation alone, and compare with the published accuracies."""
    devices = list_devices()
    laws: dict[str, list[DeviceModel]] = {
        "sigma alone": [d.model_copy(update={"rho": None}) for d in devices],
        "sigma and table of the rising ramp": list(devices),
    }
    if data.is_dir():
        laws["sigma and table of rows 2 to 101"] = [
            d.model_copy(update={"rho": released_level_table(read(data / d.sources[0].file))})
            for d in devices
        ]
    published = np.array([d.published["lenet_mnist_accuracy"] for d in devices])
    out: dict[str, Any] = {
        "published": published.tolist(),
        "names": [d.name for d in devices],
        "usability": float(
            spearmanr([d.published["usability"] for d in devices], published).statistic
        ),
        "minus sigma": float(spearmanr([-d.sigma.value for d in devices], published).statistic),
        "predictors": {},
    }
    for method in LENET_METHODS:
        runs = networks("mnist", method, 2, **LENET)
        found = sensitivity(runs, n_points=40, n_devices=8, limit=300)
        for law, models in laws.items():
            direct = scores(runs, [Hardware(device=m) for m in models], 12, 600).mean(0)
            asked = [found.surrogate.of(m, with_interval=False).mean for m in models]
            averaged = [found.surrogate.of(m).mean for m in models]
            for how, values in (
                ("simulated", direct),
                ("surrogate", asked),
                ("surrogate over sigma's interval", averaged),
            ):
                out["predictors"][f"{method}, {law}, {how}"] = {
                    "spearman": float(spearmanr(values, published).statistic),
                    "with_simulation": float(spearmanr(values, direct).statistic),
                    "values": list(map(float, values)),
                }
            print(method, law, {k: round(v["spearman"], 4) for k, v in out["predictors"].items()})
        out[f"left out, {method}"] = found.left_out
        keep("nanowires", out)


def hunt(seeds: int) -> None:
    """Count devices made until the published best one, with each objective told to the optimiser."""
    found = kept("nanowires")
    if found is None:
        raise SystemExit("first: python bench/codesign.py nanowires")
    table = load_replay("nanowires")
    named = {json.dumps(p, sort_keys=True): k for k, p in enumerate(table.points)}
    devices = list_devices()
    rows: dict[int, list[int]] = {}
    space = table.config.problem().space
    for k, device in enumerate(devices):
        clean = {n: "" if v is None else str(v) for n, v in device.recipe.items()}
        point = space.to_points(space.to_table([clean]))[0]
        rows.setdefault(named[json.dumps(point, sort_keys=True)], []).append(k)
    law = "sigma and table of rows 2 to 101"
    told = {
        "task accuracy": found["predictors"][f"{LENET_METHODS[0]}, {law}, surrogate"]["values"],
        "minus sigma": [-d.sigma.value for d in devices],
        "usability": [float(d.published["usability"]) for d in devices],
    }
    published = np.array([np.mean([found["published"][k] for k in rows[r]]) for r in rows])
    best = list(rows)[int(published.argmax())]
    out: dict[str, list[int]] = {name: [] for name in told}
    for seed in range(seeds):
        start = np.random.default_rng([seed, 9]).permutation(len(rows))[:3].tolist()
        for name, values in told.items():
            out[name].append(_until(table, rows, values, best, start))
        keep("hunt", {"devices": out, "n": len(rows)})


def _until(
    table: ReplayTable, rows: dict[int, list[int]], values: list[float], best: int, start: list[int]
) -> int:
    problem = bo.Problem(
        space=table.config.problem().space,
        objectives=(bo.Objective(name="told"),),
        settings=bo.Settings(n_initial=3),
    )
    tried = list(start)
    while best not in tried:
        seen = [
            bo.Observation(
                point=table.points[r], values={"told": tuple(float(values[k]) for k in rows[r])}
            )
            for r in tried
        ]
        left = [r for r in rows if r not in tried]
        chosen = bo.suggest(problem, seen, 2, candidates=[table.points[r] for r in left])
        points = [dict(s.point) for s in chosen]
        tried += [r for p in points for r in left if table.points[r] == p]
    return tried.index(best) + 1


# -- what improvements are worth ----------------------------------------------------------------


def worth() -> None:
    """What improvements of a device are worth on the digits, by method."""
    out: dict[str, Any] = {}
    for method in ("erm", "weight-noise:level=0.5", "weight-noise:level=1.2"):
        runs = networks("digits", method, 3)
        for name in ("lognormal:0.4", "lognormal:0.8", "nanowire-30", "nanowire-28"):
            found = sensitivity(runs, Hardware(device=load_device(name)), n_devices=30)
            out[f"{method}, {name}"] = found.to_dict() | {"surrogate": None}
    keep("worth", out)


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


# -- one loop from end to end -------------------------------------------------------------------


def pair() -> None:
    """Run one loop in the virtual lab and say what it came to, and what each half alone reaches."""
    place = CACHE / "loop"
    if (place / "codesign.toml").exists():
        loop = CodesignLoop.open(place)
    else:
        loop = CodesignLoop.new(place, LoopSettings(epochs=30, points=32, stop_gain=0.0))
    steps = run_in_virtual_lab(loop, BUDGETS["short"].experiments, seed=1)
    found = joint(loop)
    keep(
        "pair",
        {
            "experiments": steps[-1].n_experiments,
            "sigma": found.law.sigma.value,
            "method": found.method,
            "scores": {
                name: [getattr(found, name).score, getattr(found, name).error]
                for name in ("both", "device_alone", "network_alone", "neither")
            },
            "front": [[p.trial, p.score, p.energy, p.experiments] for p in found.front],
            "points": len(found.points),
            "worths": steps[-1].worths,
        },
    )


def _pair_page(found: dict[str, Any]) -> str:
    names = {
        "both": "both: best device, network trained for it",
        "device_alone": "device alone: best device, plain training",
        "network_alone": "network alone: first device that worked, network trained for it",
        "neither": "neither: first device that worked, plain training",
    }
    rows = [
        [names[name], f"{score:.3f} ± {error:.3f}"]
        for name, (score, error) in found["scores"].items()
    ]
    front = [
        [trial, f"{score:.3f}", f"{1e9 * energy:.2f}", str(n)]
        for trial, score, energy, n in found["front"]
    ]
    head = ["trial", "expected score", "energy of one input / nJ", "devices made until then"]
    return (
        f"One loop on the digits, {found['experiments']} SIMULATED devices, sigma {found['sigma']:.3f} and "
        f"`{found['method']}` at the end; test accuracy ± standard error:\n\n"
        + markdown(["what", "test accuracy"], rows)
        + "\nPareto front of score, energy and number of devices:\n\n"
        + markdown(head, front)
    )


# -- pages --------------------------------------------------------------------------------------


def tables() -> None:
    """Write results/codesign.json and the pages from all parts that are there."""
    out: dict[str, Any] = {}
    titles = {
        "nanowires": (_nanowire_page, "The 43 nanowires and the published LeNet / MNIST accuracy"),
        "hunt": (_hunt_page, "Devices made until the best of the 43"),
        "worth": (_worth_page, "What improvements are worth on the digits"),
        "lab": (_lab_page, "Campaigns in the virtual lab"),
        "pair": (_pair_page, "One loop from end to end"),
    }
    text = []
    for name, (page, title) in titles.items():
        value = _lab_parts() if name == "lab" else kept(name)
        if value:
            out[name] = _short(value)
            text.append(f"**{title}**\n\n{page(value)}")
    save("codesign", out, "\n".join(text))


def _short(value: Any) -> Any:
    """Return a part as it goes into the results: four digits, without single devices."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items() if k not in ("devices", "surrogate")} | (
            {"devices": value["devices"]} if isinstance(value.get("devices"), dict) else {}
        )
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    # Energies are tiny: significant digits, not decimals.
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _nanowire_page(found: dict[str, Any]) -> str:
    rows = [
        ["usability (published)", "", f"{found['usability']:.3f}", ""],
        ["-sigma", "", f"{found['minus sigma']:.3f}", ""],
    ]
    for name, value in found["predictors"].items():
        method, law, how = name.split(", ", 2)
        rows.append(
            [
                f"{law}, {how}",
                method,
                f"{value['spearman']:.3f}",
                "" if how == "simulated" else f"{value['with_simulation']:.3f}",
            ]
        )
    for method in LENET_METHODS:
        rows.append(
            ["the law that the other 42 choose, simulated", method, _left_out(found, method), ""]
        )
    head = ["predictor", "networks", "Spearman, published", "Spearman, our simulation"]
    return markdown(head, [row for row in rows if row[2]])


def _without(found: dict[str, Any], method: str, law: str) -> str:
    """Return Spearman with the published column without the device that is furthest out of line."""
    value = found["predictors"].get(f"{method}, {law}, simulated")
    if value is None:
        return ""
    rest = [k for k, name in enumerate(found["names"]) if name != "nanowire-23"]
    mine, theirs = np.array(value["values"])[rest], np.array(found["published"])[rest]
    return f"{spearmanr(mine, theirs).statistic:.3f}"


def _left_out(found: dict[str, Any], method: str) -> str:
    """Return Spearman with the published column when each device's law is chosen by the 42 others."""
    ways = [
        np.array(value["values"])
        for name, value in found["predictors"].items()
        if name.startswith(f"{method}, ") and name.endswith(", simulated")
    ]
    if not ways:
        return ""
    published = np.array(found["published"])
    chosen = []
    for k in range(len(published)):
        rest = np.delete(np.arange(len(published)), k)
        best = max(ways, key=lambda v: float(spearmanr(v[rest], published[rest]).statistic))
        chosen.append(best[k])
    return f"{spearmanr(chosen, published).statistic:.3f}"


def _hunt_page(found: dict[str, Any]) -> str:
    rows = []
    for name, counts in found["devices"].items():
        low, high = np.quantile(counts, [0.25, 0.75])
        rows.append([name, f"{np.median(counts):g} ({low:g} to {high:g})", str(len(counts))])
    rows.append(["random (expected)", f"{(found['n'] + 1) / 2:g}", ""])
    return markdown(["told to the optimiser", "devices made, median (quartiles)", "seeds"], rows)


def _worth_page(found: dict[str, Any]) -> str:
    rows = []
    for name, value in found.items():
        method, device = name.rsplit(", ", 1)
        gains = "; ".join(
            f"{w['phrase']} {100 * w['gain']:+.1f} ± {100 * w['error']:.1f}"
            for w in value["worths"]
        )
        score = f"{100 * value['score']:.1f} ± {100 * value['error']:.1f}"
        rows.append([device, method, score, gains])
    return markdown(["device", "training", "accuracy / %", "worth / points"], rows)


def _lab_parts() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in BUDGETS:
        found = {}
        for path in CACHE.glob(f"lab-{name}-*.json"):
            found[path.stem.rpartition("-")[2]] = json.loads(path.read_text(encoding="utf-8"))
        if found:
            out[name] = dict(sorted(found.items(), key=lambda item: int(item[0])))
    return out


def _lab_page(parts: dict[str, Any]) -> str:
    return "\n".join(_lab_table(found, BUDGETS[name]) for name, found in parts.items())


def within_recipes(found: dict[str, Any]) -> float:
    """Return the share of the variance of task accuracy that lies within recipes, over all seeds' pools.

    Near 1, a recipe says next to nothing about the next device made by it: pooled unbiased variance within
    recipes over the variance of all devices.
    """
    groups = [np.array(g) for value in found.values() for g in value["devices"] if len(g) > 1]
    squares = sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
    within = squares / sum(len(g) - 1 for g in groups)
    return within / float(np.concatenate(groups).var(ddof=1))


def _lab_table(found: dict[str, Any], budget: Budget) -> str:
    rows = []
    base = np.array([run_quality(v, "usability")[-1] for v in found.values()])
    for objective in OBJECTIVES:
        final = np.array([run_quality(v, objective)[-1] for v in found.values()])
        test = np.array([v["runs"][objective]["test_accuracy"] for v in found.values()])
        needed = [experiments_to(v, objective, 0.95, budget) for v in found.values()]
        rows.append(
            [
                objective,
                _mean(test),
                _mean(final),
                "" if objective == "usability" else _mean(final - base),
                f"{np.median(needed):g}",
                f"{sum(n <= budget.experiments for n in needed)} of {len(needed)}",
            ]
        )
    best = np.array([best_quality(v) for v in found.values()])
    rows.append(["best recipe of the pool", "", _mean(best), "", "", ""])
    head = [
        "objective",
        "test accuracy reached",
        "true quality of the recipe believed best",
        "the same, less usability's",
        "experiments to 95 % of the best, median",
        "reached",
    ]
    noise = (
        "Fitted scatter" if budget.scatter == 1 else f"ASSUMED {budget.scatter:g} of the scatter"
    )
    text = (
        f"{noise} of devices around their recipe; share of the variance of accuracy within recipes "
        f"{within_recipes(found):.2f}. {len(found)} seeds, {budget.experiments} SIMULATED experiments each in "
        f"batches of {budget.batch}, of {budget.pool} recipes; {budget.experiments + budget.batch} stands for "
        "not reached; mean ± standard error over seeds\n\n"
    )
    return text + markdown(head, rows)


def best_quality(value: dict[str, Any]) -> float:
    """Return the quality of the best recipe of the pool: single lucky devices are no goal."""
    return float(
        max(
            quality
            for quality, works in zip(value["quality"], value["works"], strict=True)
            if works >= LEAST_WORKING
        )
    )


def run_quality(value: dict[str, Any], objective: str) -> list[float]:
    """Return the true quality of the recipe believed best after each batch."""
    known = value["quality"]
    return [CHANCE if k is None else known[k] for k in value["runs"][objective]["believed"]]


def experiments_to(value: dict[str, Any], objective: str, share: float, budget: Budget) -> int:
    """Return after how many experiments the believed best recipe had that share of the best quality."""
    goal = share * best_quality(value)
    for batch, reached in enumerate(run_quality(value, objective), start=1):
        if reached >= goal:
            return batch * budget.batch
    return budget.experiments + budget.batch


def _mean(values: np.ndarray) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["nanowires", "hunt", "worth", "lab", "pair", "tables"])
    parser.add_argument("--data", type=Path, default=SWEEPS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--budget", choices=list(BUDGETS), default="full")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part == "nanowires":
        nanowires(given.data)
    elif given.part == "hunt":
        hunt(given.seeds)
    elif given.part == "worth":
        worth()
    elif given.part == "lab":
        lab(given.seeds, given.first, given.budget)
    elif given.part == "pair":
        pair()
    else:
        tables()


if __name__ == "__main__":
    main()
