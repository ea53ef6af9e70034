"""Replay measured campaigns: experiments that each optimiser needs, failures it makes; 20 seeds.

    python bench/replay.py [--data FOLDER] [--seeds 20] [--executor local:2] [--tables nanowires,p3ht] [--fresh]

FOLDER holds the published tables (``pvlab_benchmarking/``, ``olympus_vapdiff_crystal/``; the TOML files in
``src/ohmloop/campaign/replays`` cite where they come from), by default ``../shared/data/campaigns``. The
nanowires are built in. Peers (Ax, BayBE, BoFire) run in environments of their own, made by
``bench/peers/setup``; one that is not there is left out and named. Finished runs are kept in
``bench/.cache`` until ``--fresh``, so that the study can be stopped and goes on.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import RESULTS, executor_of, executor_options, markdown, save
from ohmloop import bo
from ohmloop.campaign import ReplayRun, ReplayTable, load_replay, replay, summary
from ohmloop.campaign._replay import first_recipes
from ohmloop.campaign._replay_methods import filled
from ohmloop.errors import CampaignError
from ohmloop.report import draw_replay

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "bench" / ".cache"
PEERS = ROOT / "bench" / "peers"
TABLES = (
    "nanowires",
    "nanowires-sigma",
    "vapdiff-crystal",
    "perovskite-stability",
    "p3ht",
    "agnp",
    "crossed-barrel",
)
OWN = ("ohmloop", "random", "optuna-tpe", "optuna-gp")
TOOLS = ("ax", "baybe", "bofire")
ABLATIONS = {
    "vapdiff-crystal": ("ohmloop-no-feasibility", "ohmloop-no-descriptors"),
    "nanowires": ("ohmloop-no-descriptors", "ohmloop-no-replicate-noise"),
    "nanowires-sigma": ("ohmloop-no-descriptors", "ohmloop-no-replicate-noise"),
    "perovskite-stability": ("ohmloop-no-replicate-noise",),
    "p3ht": ("ohmloop-no-replicate-noise",),
    "agnp": ("ohmloop-no-replicate-noise",),
    "crossed-barrel": ("ohmloop-no-replicate-noise",),
}


def problem_of(name: str, table: ReplayTable, n_seeds: int) -> dict[str, Any]:
    """Return a table as plain data for a peer's process."""
    assert table.config.replay is not None
    space = table.config.problem().space
    variables = []
    for v in space.variables:
        if isinstance(v, bo.Categorical):
            entry: dict[str, Any] = {
                "name": v.name,
                "type": "categorical",
                "options": list(v.options),
            }
            if v.descriptors:
                entry["descriptors"] = [list(v.descriptors[o]) for o in v.options]
        elif isinstance(v, bo.Ordinal):
            entry = {"name": v.name, "type": "number", "low": v.levels[0], "high": v.levels[-1]}
        else:
            entry = {"name": v.name, "type": "number", "low": v.low, "high": v.high, "log": v.log}
        variables.append(entry)
    return {
        "name": name,
        "variables": variables,
        "points": [filled(space, p) for p in table.points],
        "outcome": table.outcome().tolist(),
        "top": None if table.objective is None else table.top().tolist(),
        "experiments": table.config.replay.experiments,
        "batch": table.config.replay.batch,
        "first": [first_recipes(table, seed) for seed in range(n_seeds)],
    }


def run_own(
    name: str, data: Path, method: str, n_seeds: int, executor: str
) -> tuple[list[ReplayRun], int]:
    """Return the runs of ohmloop, random or Optuna, from the cache if they are there."""
    kept = CACHE / f"{name}.{method}.json"
    if not kept.exists() or len(_load(kept)) < n_seeds:
        print(f"{name}: {method}", file=sys.stderr, flush=True)
        _, runs = replay(name, data=data, methods=[method], n_seeds=n_seeds, executor=executor)
        kept.write_text(json.dumps([dataclasses.asdict(r) for r in runs]), encoding="utf-8")
    return _load(kept)[:n_seeds], 0


def run_peer(name: str, tool: str, n_seeds: int, limit: float) -> tuple[list[ReplayRun], int]:
    """Return a peer's runs and how often it failed to suggest; a stopped worker goes on where it was."""
    python = PEERS / ".venv" / tool / "bin" / "python"
    kept = CACHE / f"{name}.{tool}.json"
    if python.exists() and limit > 0 and len(_load(kept)) < n_seeds:
        command = [python, PEERS / "worker.py", tool, CACHE / f"{name}.problem.json", kept]
        try:
            subprocess.run(command, check=True, timeout=limit)
        except subprocess.TimeoutExpired:
            print(f"{name}: {tool} stopped after {limit:g} s", file=sys.stderr, flush=True)
    raw = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    return _load(kept)[:n_seeds], sum(r["errors"] for r in raw[:n_seeds])


def _load(path: Path) -> list[ReplayRun]:
    if not path.exists():
        return []
    return [
        ReplayRun(r["method"], r["seed"], tuple(r["order"]), r["seconds"])
        for r in json.loads(path.read_text(encoding="utf-8"))
    ]


def study(name: str, data: Path, n_seeds: int, executor: str, limit: float) -> dict[str, Any]:
    """Run every method on one table and return its summary."""
    table = load_replay(name, data)
    problem = json.dumps(problem_of(name, table, n_seeds))
    (CACHE / f"{name}.problem.json").write_text(problem, encoding="utf-8")
    runs, failed = [], {}
    for method in OWN + ABLATIONS[name]:
        runs += run_own(name, data, method, n_seeds, executor)[0]
    for tool in TOOLS:
        found, failed[tool] = run_peer(name, tool, n_seeds, limit)
        runs += found
    rows = summary(table, runs)
    for row in rows:
        row["errors"] = failed.get(row["method"], 0)
        if table.objective is None:
            mine = [r for r in runs if r.method == row["method"]]
            cover = table.config.suggest.cover[0]
            row["seven_hit"] = sum(_hit(table, r, cover) >= 7 for r in mine) / len(mine)
    whole = {
        row["method"] for row in rows if row["seeds"] == n_seeds and "-no-" not in row["method"]
    }
    pictured = [r for r in runs if r.method in whole]
    draw_replay(table, pictured, ROOT / "docs" / "pictures" / f"replay-{name}.svg")
    out: dict[str, Any] = {
        "table": name,
        "seeds": n_seeds,
        "description": table.config.description,
        "source": table.config.replay.citation if table.config.replay else "",
        "recipes": len(table.observations),
        "targets": None if table.objective is None else int(table.top().sum()),
        "left_out": [t for t in TOOLS if not any(r.method == t for r in runs)],
        "summary": rows,
        "orders": {f"{r.method} {r.seed}": " ".join(map(str, r.order)) for r in runs},
    }
    if table.objective is not None:
        out["leave_one_out_rank_correlation"] = table.rank_correlation()
        out["repeatability"] = table.repeatability()
    return out


def _hit(table: ReplayTable, run: ReplayRun, variable: str) -> int:
    return len({table.points[k][variable] for k in run.order if table.observations[k].is_usable})


def _cell(entry: dict[str, Any], digits: int) -> str:
    low, high = entry["mean_interval"]
    a, b = entry["quartiles"]
    return (
        f"{entry['median']:.{digits}f} [{a:.{digits}f}, {b:.{digits}f}]; "
        f"{entry['mean']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    )


def render(found: dict[str, Any]) -> str:
    """Return the Markdown section of one table."""
    columns = [
        ("experiments", "experiments to the target", 1),
        ("experiments_top3", "to one of the best three", 1),
        ("failure_rate", "failure rate", 3),
        ("organic_hit", "organics hit", 1),
    ]
    there = [c for c in columns if c[0] in found["summary"][0]]
    header = ["method", "seeds", *(c[1] for c in there)]
    if found["targets"] is None:
        header.append("seeds with 7 or more")
    header.append("CPU s a suggestion")
    lines = []
    for row in found["summary"]:
        line = [row["method"], str(row["seeds"]), *(_cell(row[c[0]], c[2]) for c in there)]
        if found["targets"] is None:
            line.append(f"{row['seven_hit']:.2f}")
        note = f" ({row['errors']} errors)" if row["errors"] else ""
        lines.append([*line, f"{row['cpu_seconds']:.2f}{note}"])
    text = f"\n## {found['table']}\n\n{found['description']}; {found['recipes']} recipes"
    if found["targets"]:
        text += f", target: any of the best {found['targets']}"
        rho = found["leave_one_out_rank_correlation"]
        text += f"; leave-one-out rank correlation of the surrogate on the whole table {rho:.2f}"
        if found["repeatability"]:
            n, share = found["repeatability"]
            text += (
                f"; recipes made more than once: {n}; variance among devices of one recipe over that of all: "
                f"{share:.2f}"
            )
    text += f". Source: {found['source']}.\n\n" + markdown(header, lines)
    text += f"\n![Progress of each method](../../docs/pictures/replay-{found['table']}.svg)\n"
    few = [f"{r['method']} {r['seeds']}" for r in found["summary"] if r["seeds"] < found["seeds"]]
    if few:
        text += f"\nFewer seeds than the others within the time given: {', '.join(few)}.\n"
    if found["left_out"]:
        text += f"\nLeft out, no environment: {', '.join(found['left_out'])}.\n"
    return text


HEAD = """# Replays of measured campaigns

Pool-based: a method may only ask for recipes that were measured, and is told the measurements. All methods
start from the same random recipes of a seed. Cells: median [quartiles]; mean (95 % bootstrap interval over
seeds). ohmloop sees raw replicates, descriptors and stages; the peers see the mean of replicates (for
failures: 0 or 1), and BayBE sees descriptors too, as each offers it. BayBE recommends from the pool; of
Ax and BoFire the own acquisition function chooses from the pool; Optuna proposes in the space and the
nearest recipe left is taken.
"""


def short(studies: list[dict[str, Any]]) -> str:
    """Return one line a table: ohmloop, random choice, and the best of the other tools."""
    lines = []
    for found in studies:
        rows = {row["method"]: row for row in found["summary"] if "-no-" not in row["method"]}
        key = "failure_rate" if found["targets"] is None else "experiments"
        others = {
            m: r
            for m, r in rows.items()
            if m not in ("ohmloop", "random") and r["seeds"] == found["seeds"]
        }
        best = min(others, key=lambda m: others[m][key]["mean"])
        goal = "share of failures" if found["targets"] is None else f"to one of {found['targets']}"
        goal = "to the best one" if found["targets"] == 1 else goal
        lines.append(
            [
                f"{found['table']} ({found['recipes']}), {goal}",
                *(_mean(rows[m][key]) for m in ("ohmloop", "random")),
                f"{_mean(others[best][key])} ({best})",
            ]
        )
    return markdown(["measured table (recipes)", "ohmloop", "random", "best other tool"], lines)


def _mean(entry: dict[str, Any]) -> str:
    digits = 2 if entry["mean"] < 1 else 1
    low, high = entry["mean_interval"]
    return f"{entry['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "campaigns")
    parser.add_argument("--seeds", type=int, default=20)
    executor_options(parser)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument(
        "--limit",
        type=float,
        default=7200,
        help="wall seconds a peer and table; 0: cached runs only",
    )
    parser.add_argument("--fresh", action="store_true", help="forget finished runs")
    args = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    if args.fresh:
        for path in CACHE.glob("*.json"):
            path.unlink()
    studies = []
    for name in args.tables.split(","):
        try:
            studies.append(study(name, args.data, args.seeds, executor_of(args), args.limit))
        except CampaignError as error:
            print(f"{name}: left out. {error}", file=sys.stderr)
    if studies:
        text = HEAD + "".join(render(found) for found in studies)
        save("replay", {"seeds": args.seeds, "tables": studies}, text)
        (RESULTS / "replay-short.md").write_text(short(studies), encoding="utf-8")


if __name__ == "__main__":
    main()
