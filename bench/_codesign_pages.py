"""What bench/codesign.py writes: one page for each part, and the figures behind them."""

import json
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from _codesign_kept import CACHE, LENET_METHODS, kept
from _codesign_lab import BUDGETS, CHANCE, LEAST_WORKING, OBJECTIVES, Budget
from _common import markdown, save

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
