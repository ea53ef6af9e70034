"""Methods x tasks x devices: who keeps accuracy on imperfect devices, at what cost, with which help.

Every network of one table has the same architecture, start, batches, optimiser and seeds. Rows differ by the
training method (cost in plain trainings) and by what each device gets beside its weights (deployment). Devices
are simulated: log-normal drift of every analog weight and bias (levels in the heads), and the 43 measured
nanowires with their own sigma and level table rho. Objectives of searches see validation data under the
median nanowire's sigma (.587) unless stated, on other devices than the test.

    python bench/robustness.py --quick            # two cores, under an hour
    python bench/robustness.py --full --compute cuda
    python bench/robustness.py --quick --tasks digits,anuran
    python bench/robustness.py --parts            # two cores; other networks and budgets beside quick's tables
    python bench/robustness.py --few              # two cores; the tasks that are made for a GPU, cut down
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from _common import RESULTS, executor_of, executor_options, save
from _robustness_studies import Method, Study, few, full, parts, quick
from _robustness_tables import deviation, middle, picture, summaries, table, worst_tenth
from ohmloop.crossbar import Hardware
from ohmloop.device import list_devices
from ohmloop.errors import OhmloopError
from ohmloop.nn import Deployment
from ohmloop.run import Executor, using
from ohmloop.tasks import task as load_task
from ohmloop.train import Comparison, compare, evaluate_run, load_run

CACHE = Path(__file__).parent / ".cache" / "robustness"
ON_NANOWIRES = ("none", "channel", "readout")


def laws(sigmas: tuple[float, ...]) -> list[Hardware]:
    return [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in sigmas]


def run_study(study: Study, executor: str, compute: str) -> dict[str, object]:
    """Run one table and return what is kept of it."""
    with using(executor) as opened:
        return run_on(study, opened, compute)


def run_on(study: Study, executor: Executor, compute: str) -> dict[str, object]:
    start = time.monotonic()
    rows: list[dict[str, object]] = []
    for model in study.models:
        place = CACHE / study.name / model
        deployments = deployed(study, model)
        found = compare(
            study.task,
            study.methods,
            laws(study.sigmas),
            deployments=deployments,
            objective=laws(study.objective),
            seeds=range(study.seeds),
            n_devices=study.n_devices,
            epochs=study.epochs,
            model=model,
            limit=study.limit,
            test_limit=study.test_limit,
            folder=study.folder,
            executor=executor,
            device=compute,
            run_dir=place,
            **study.settings,  # type: ignore[arg-type]
        )
        entries = [kept(row, model, study) for row in found]
        asked = [
            k for k, row in enumerate(found) if study.nanowires and row.deployment in ON_NANOWIRES
        ]
        jobs = [
            (place / f"{k // len(deployments):02d}-{seed}", found[k].deployment, seed, study)
            for k in asked
            for seed in range(study.seeds)
        ]
        scores = dict(executor.each(on_nanowires, jobs))
        for i, k in enumerate(asked):
            by_seed = [scores[i * study.seeds + seed] for seed in range(study.seeds)]
            entries[k]["nanowires"] = np.mean(by_seed, axis=0).tolist()
        rows += entries
        print(f"{study.name} {model}: {time.monotonic() - start:.0f} s", flush=True)
    return {
        "sigmas": study.sigmas,
        "objective_sigmas": study.objective,
        "epochs": study.epochs,
        "seeds": study.seeds,
        "n_devices": study.n_devices,
        "limit": study.limit,
        "test_limit": study.test_limit,
        "seconds": time.monotonic() - start,
        "rows": rows,
    }


def deployed(study: Study, model: str) -> tuple[str, ...]:
    """Return a study's deployments, without "batch-norm" for a network that has none."""
    if "batch-norm" not in study.deployments:
        return study.deployments
    network = load_task(study.task, study.folder).model(model)
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        return study.deployments
    return tuple(d for d in study.deployments if d != "batch-norm")


def label(method: Method) -> str:
    """Return a method's name in a row."""
    return method if isinstance(method, str) else f"{method[0]} ({method[1]} epochs)"


def merged(name: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """Return the kept table with fresh rows for those of the same name, or else after their network's.

    Without a kept table they are the table.
    """
    path = RESULTS / f"robustness-{name}.json"
    if not path.exists():
        return fresh
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept.pop("machine", None)
    for row in fresh["rows"]:
        same = [
            k
            for k, r in enumerate(kept["rows"])
            if all(r[key] == row[key] for key in ("model", "method", "deployment"))
        ]
        if len(same) > 1:
            raise SystemExit(
                f"{path} has {len(same)} rows like {row['method']}; run the whole study"
            )
        if same:
            kept["rows"][same[0]] = row
        else:  # a method that the study did not have
            last = max(k for k, r in enumerate(kept["rows"]) if r["model"] == row["model"])
            kept["rows"].insert(last + 1, row)
    kept["sigmas"] = fresh["sigmas"]
    return kept


def on_nanowires(place: Path, deployment: str, seed: int, study: Study) -> list[float]:
    """Return the mean score over draws on each of the 43 nanowires, with its sigma and rho, of one seed."""
    fleets = evaluate_run(
        load_run(place),
        [Hardware(device=d) for d in list_devices()],
        deployment=Deployment.parse(deployment),
        n_devices=study.nanowires,
        seed=20_011 + seed,
        test_limit=min(study.test_limit or 300, 300),
    )
    return [fleet.mean for fleet in fleets]


def kept(row: Comparison, model: str, study: Study) -> dict[str, object]:
    return {
        "model": model,
        "method": row.method,
        "deployment": row.deployment,
        "needs": row.needs,
        "metric": row.metric,
        "is_higher_better": row.is_higher_better,
        "cost": row.cost,
        "clean": row.clean.tolist(),
        "mean": middle(row.scores, row.metric, (1, 2)).tolist(),
        "std": deviation(row.scores, row.metric, (1, 2)).tolist(),
        "worst_tenth": worst_tenth(row.scores, row.is_higher_better).tolist(),
        "mean_by_seed": middle(row.scores, row.metric, 2).tolist(),
        "settings": row.settings,
        "rank_correlations": row.rank_correlations,
        "seconds": row.seconds,
    }


def redraw(study: Study) -> None:
    """Write a study's table and picture anew from its kept results, if there are any."""
    path = RESULTS / f"robustness-{study.name}.json"
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        picture(study, result)
        path.with_suffix(".md").write_text(table(study, result), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="whole data, deep networks: for a GPU")
    parser.add_argument("--quick", action="store_true", help="the setting for two cores (default)")
    parser.add_argument(
        "--parts", action="store_true", help="two cores; what stands beside quick's tables"
    )
    parser.add_argument(
        "--few", action="store_true", help="tasks for a GPU, few devices and samples"
    )
    parser.add_argument("--tasks", help="only these, separated by commas")
    parser.add_argument("--data", type=Path, help="folder of data sets that no package brings")
    parser.add_argument(
        "--method", help="only rows of this method, as a table names it; the table keeps its others"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing; tables and pictures of what is kept"
    )
    executor_options(parser)
    parser.add_argument("--compute", default="cpu")
    args = parser.parse_args()
    data = args.data
    if data is None:
        beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
        data = beside if beside.exists() else None
    setting = full if args.full else few if args.few else parts if args.parts else quick
    studies = setting(data)
    asked = args.tasks.split(",") if args.tasks else list(studies)
    if unknown := [name for name in asked if name not in studies]:
        parser.error(f"no study {', '.join(unknown)} here; one of {', '.join(studies)}")
    for name in asked:
        study = studies[name]
        if args.redraw:
            redraw(study)
            continue
        chosen = replace(
            study,
            name=f"{name}-{args.method}",  # trainings of its own, beside those of the whole study
            methods=tuple(m for m in study.methods if label(m) == args.method),
        )
        if args.method and not chosen.methods:
            print(f"{name}: has no method {args.method}")
            continue
        try:
            if args.method:
                result = merged(name, run_study(chosen, executor_of(args), args.compute))
            else:
                result = run_study(study, executor_of(args), args.compute)
        except OhmloopError as error:
            print(f"{name}: skipped: {error}")
            continue
        picture(study, result)
        save(f"robustness-{name}", result, table(study, result))
    summaries()


if __name__ == "__main__":
    main()
