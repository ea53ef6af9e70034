"""Methods x tasks x devices: who keeps accuracy on imperfect devices, at what cost, with which help.

Every network of one table has the same architecture, start, batches, optimiser and seeds. Rows differ by the
training method (cost in plain trainings) and by what each device gets beside its weights (deployment). Devices
are simulated: log-normal drift of every analog weight and bias (levels in the heads), and the 43 measured
nanowires with their own sigma and level table rho. Objectives of searches see validation data under the
median nanowire's sigma (.587) unless stated, on other devices than the test.

    python bench/robustness.py --quick            # two cores
    python bench/robustness.py --full --compute cuda
    python bench/robustness.py --quick --tasks digits,anuran
    python bench/robustness.py --few              # two cores; the tasks that are made for a GPU, cut down
"""

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from _common import RESULTS, executor_of, executor_options, markdown, save
from ohmloop.crossbar import Hardware
from ohmloop.device import list_devices
from ohmloop.errors import OhmloopError
from ohmloop.nn import Deployment
from ohmloop.report._style import COLOURS, MARKERS, new_figure, styled_axes, to_svg
from ohmloop.train import Comparison, compare, evaluate_run, load_run

MEDIAN = 0.587
CACHE = Path(__file__).parent / ".cache" / "robustness"
Method = str | tuple[str, int]


@dataclass(frozen=True)
class Study:
    """One table."""

    name: str
    task: str
    models: tuple[str, ...]
    methods: tuple[Method, ...]
    deployments: tuple[str, ...]
    sigmas: tuple[float, ...] = (0.2, 0.4, MEDIAN, 0.8, 1.0, 1.2, 1.5)
    objective: tuple[float, ...] = (MEDIAN,)
    epochs: int | None = None
    limit: int | None = None
    test_limit: int | None = None
    seeds: int = 3
    n_devices: int = 30
    nanowires: int = 0
    folder: str | None = None
    settings: dict[str, object] = field(default_factory=dict)


DEPLOYED = ("none", "channel", "readout")
FIELD: tuple[Method, ...] = (
    "erm",
    "dropout:rate=0.5",
    "bayesft",
    "bayesmulti",
    "bayesmulti:objective=drift-validation",
    "weight-noise",
    ("weight-noise:level=1.2", 240),
    "weight-noise:level=1,ramp=0.3,clip=2.5",
    "weight-noise:level=0.8,distribution=lognormal",
    "weight-noise:level=0.8,distribution=lognormal-mean-1",
    "right-censored",
    "variance-aware",
    "hardware-aware",
    "distillation",
    "sam",
    "asam",
    "awp",
    "negative-feedback",
    "tile-dropout",
    "steady",
)
PARTS: tuple[Method, ...] = (
    ("erm", 240),
    "steady:strength=1.25",
    "steady:strength=1.25,length=1",
    "steady:strength=1.25,mixture=1",
    "steady:strength=1.25,length=1.8,teacher=true",
    "steady:strength=1.25,length=1.4,match=true",
    "steady:strength=1.25,clip=2.5",
)
SHORT: tuple[Method, ...] = (
    "erm",
    "dropout:rate=0.3",
    "bayesmulti:n_iterations=3,max_p0=0.6",
    "weight-noise:level=0.8",
    "steady",
)
DIGITS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


def quick(data: Path | None) -> dict[str, Study]:
    """Return the setting for two cores, under an hour in all."""
    tasks = None if data is None else str(data)

    def at(name: str) -> str | None:
        return None if tasks is None else str(Path(tasks) / name)

    studies = (
        Study(
            "digits",
            "digits",
            ("mlp",),
            (*FIELD, *PARTS),
            ("none", "none:mean_gain=true", "layer", "channel", "readout"),
            sigmas=(*DIGITS[:2], MEDIAN, *DIGITS[2:]),
            objective=DIGITS,
            epochs=60,
            nanowires=5,
        ),
        Study(
            "digits-bn",
            "digits",
            ("mlp-bn",),
            ("erm", "bayesmulti", "weight-noise", ("weight-noise:level=1.2", 240), "steady"),
            DEPLOYED,
            sigmas=(*DIGITS[:2], MEDIAN, *DIGITS[2:]),
            objective=DIGITS,
            epochs=60,
        ),
        Study(
            "digits-bn-affine",  # As published: batch norm's own gains and offsets drift too.
            "digits",
            ("mlp-bn",),
            ("erm", "bayesmulti", "steady:strength=1.25"),
            ("none", "readout"),
            sigmas=(*DIGITS[:2], MEDIAN, *DIGITS[2:]),
            objective=DIGITS,
            epochs=60,
            n_devices=10,
            settings={"where": "all"},
        ),
        Study(
            "fashion-mnist",
            "fashion-mnist",
            ("lenet", "lenet-bn"),
            SHORT,
            DEPLOYED,
            sigmas=(0.2, 0.4, MEDIAN, 0.8, 1.2),
            epochs=5,
            limit=8_000,
            test_limit=400,
            nanowires=2,
            settings={"lr": 1e-3},
        ),
        Study(
            "fashion-mnist-budget",  # What is left of the lead when all spend the same.
            "fashion-mnist",
            ("lenet",),
            ("erm", ("erm", 20), ("weight-noise:level=0.8", 20), "steady"),
            ("none", "readout"),
            sigmas=(MEDIAN, 1.2),
            epochs=5,
            limit=8_000,
            test_limit=400,
            settings={"lr": 1e-3},
        ),
        Study(
            "gtsrb",
            "gtsrb",
            ("cnn-bn",),
            ("erm", "bayesmulti:n_iterations=1,max_p0=0.6", "steady"),
            ("none", "readout"),
            sigmas=(0.2, 0.4, MEDIAN, 0.8),
            epochs=6,
            limit=2_000,
            test_limit=150,
            folder=at("gtsrb32"),
        ),
        Study(
            "birds965-small",
            "birds965-small",
            ("mobilenet-v2",),
            ("as-it-comes", "weight-noise:level=0.1", "steady:strength=1,length=1,distill=0.9"),
            DEPLOYED,
            sigmas=(0.05, 0.1, 0.2, MEDIAN),
            objective=(0.2,),
            test_limit=100,
            epochs=8,
            seeds=1,
            n_devices=5,
            folder=tasks,
        ),
        Study(
            "anuran",
            "anuran",
            ("mlp", "mlp-bn"),
            (*SHORT[:2], "bayesmulti", *SHORT[3:]),
            DEPLOYED,
            sigmas=(0.2, 0.4, MEDIAN, 0.8, 1.2),
            epochs=20,
            nanowires=5,
            folder=at("anuran"),
        ),
        Study(
            "vl-retrieval",
            "vl-retrieval",
            ("lite0-minilm",),
            ("as-it-comes", "steady:strength=1,length=1,distill=0.9"),
            DEPLOYED,
            sigmas=(0.05, 0.1, 0.2, MEDIAN),
            objective=(0.2,),
            limit=500,
            test_limit=80,
            epochs=4,
            seeds=1,
            n_devices=3,
        ),
    )
    return {study.name: study for study in studies}


PRETRAINED: tuple[Method, ...] = (
    "as-it-comes",
    "weight-noise:level=0.1",
    "steady:strength=1,length=1,distill=0.9",
)
TRAINED: tuple[Method, ...] = ("erm", "bayesmulti:n_iterations=1,max_p0=0.6", "steady")
LOW = (0.05, 0.1, 0.2, MEDIAN)


def few(data: Path | None) -> dict[str, Study]:
    """Return what a GPU should run whole, cut down for two cores: one seed, few devices, few samples."""

    def at(name: str) -> str | None:
        return None if data is None else str(data / name)

    def study(task: str, model: str, methods: tuple[Method, ...], **settings: object) -> Study:
        kept = {"deployments": DEPLOYED, "sigmas": (0.2, 0.4, MEDIAN), "seeds": 1, "n_devices": 5}
        return Study(f"{task}-few", task, (model,), methods, **{**kept, **settings})  # type: ignore[arg-type]

    pretrained = {"sigmas": LOW, "objective": (0.1,), "n_devices": 3}
    studies = (
        study(
            "donkey", "donkey-cnn", TRAINED, epochs=12, seeds=2, n_devices=10, folder=at("donkey")
        ),
        study("cifar10", "resnet8", TRAINED, epochs=8, limit=2_000, test_limit=300),
        study(
            "birds525",
            "efficientnet-lite0",
            ("erm", "weight-noise:level=0.1", "steady:strength=1,length=1"),
            epochs=4,
            test_limit=150,
            folder=at("birds525"),
            **pretrained,
        ),
        study(
            "lm",
            "smollm2-135m",
            PRETRAINED,
            deployments=("none", "channel"),
            epochs=1,
            limit=60,
            test_limit=12,
            **pretrained,
        ),
        study("vl-latex", "pix2tex", PRETRAINED, epochs=1, limit=150, test_limit=40, **pretrained),
        study(
            "vl-chat",
            "lite0-smollm2",
            ("erm", "weight-noise:level=0.1", "steady:strength=1,length=1"),
            epochs=3,
            limit=400,
            test_limit=60,
            **{**pretrained, "deployments": ("none", "channel")},
        ),
        study(
            "kitti-scenes",
            "pillars-small",
            ("erm", "weight-noise:level=0.3", "steady:strength=1,length=1"),
            epochs=3,
            limit=200,
            test_limit=40,
            n_devices=3,
        ),
    )
    return {study.name: study for study in studies}


def full(data: Path | None) -> dict[str, Study]:
    """Return the setting for a GPU: whole data sets, deep networks, all methods."""
    folder = None if data is None else str(data)

    def at(name: str) -> str | None:
        return None if folder is None else str(Path(folder) / name)

    grid = (0.1, 0.2, 0.3, 0.4, MEDIAN, 0.8, 1.0, 1.2, 1.5)
    out = {name: quick(data)[name] for name in ("digits", "digits-bn")}
    for task, models, epochs, place in (
        ("mnist", ("lenet", "lenet-bn"), 20, None),
        ("fashion-mnist", ("lenet", "lenet-bn", "alexnet", "alexnet-bn"), 20, None),
        ("cifar10", ("alexnet", "alexnet-bn", "vgg11-bn", "resnet18", "vit"), 60, None),
        ("gtsrb", ("cnn", "cnn-bn", "resnet18"), 30, at("gtsrb32")),
        ("donkey", ("donkey-cnn", "donkey-cnn-bn"), 60, at("donkey")),
        ("kitti-scenes", ("pillars-small",), 20, None),
        ("birds965", ("mobilenet-v2",), 20, folder),
        ("birds525", ("efficientnet-lite0",), 20, at("birds525")),
        ("anuran", ("mlp", "mlp-bn"), 60, at("anuran")),
        ("vl-retrieval", ("lite0-minilm",), 10, None),
        ("lm", ("smollm2-135m",), 2, None),
        ("vl-latex", ("pix2tex",), 5, None),
    ):
        out[task] = Study(
            task,
            task,
            models,
            FIELD,
            DEPLOYED,
            sigmas=grid,
            epochs=epochs,
            nanowires=5,
            folder=place,
        )
    return out


def laws(sigmas: tuple[float, ...]) -> list[Hardware]:
    return [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in sigmas]


def run_study(study: Study, executor: str, compute: str) -> dict[str, object]:
    """Run one table and return what is kept of it."""
    start = time.monotonic()
    rows: list[dict[str, object]] = []
    for model in study.models:
        place = CACHE / study.name / model
        deployments = study.deployments
        if model.endswith("-bn"):
            deployments = (*deployments, "batch-norm")
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
        for k, row in enumerate(found):
            entry = kept(row, model, study)
            method = k // len(deployments)
            if study.nanowires and row.deployment in ("none", "channel", "readout"):
                entry["nanowires"] = on_nanowires(place, method, row.deployment, study)
            rows.append(entry)
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


def merged(name: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """Return the kept table with fresh rows in the place of those of the same name."""
    path = RESULTS / f"robustness-{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept.pop("machine", None)
    for row in fresh["rows"]:
        same = [
            k
            for k, r in enumerate(kept["rows"])
            if all(r[key] == row[key] for key in ("model", "method", "deployment"))
        ]
        if len(same) != 1:
            raise SystemExit(
                f"{path} has {len(same)} rows like {row['method']}; run the whole study"
            )
        kept["rows"][same[0]] = row
    kept["sigmas"] = fresh["sigmas"]
    return kept


def on_nanowires(place: Path, method: int, deployment: str, study: Study) -> list[float]:
    """Return the mean score on each of the 43 nanowires, with its sigma and rho, over seeds and draws."""
    hardwares = [Hardware(device=d) for d in list_devices()]
    scores = [
        [
            fleet.mean
            for fleet in evaluate_run(
                load_run(place / f"{method:02d}-{seed}"),
                hardwares,
                deployment=Deployment.parse(deployment),
                n_devices=study.nanowires,
                seed=20_011 + seed,
                test_limit=min(study.test_limit or 300, 300),
            )
        ]
        for seed in range(study.seeds)
    ]
    return np.mean(scores, axis=0).tolist()


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
        "mean": row.scores.mean((1, 2)).tolist(),
        "std": row.scores.std((1, 2)).tolist(),
        "worst_tenth": worst_tenth(row.scores, row.is_higher_better).tolist(),
        "mean_by_seed": row.scores.mean(2).tolist(),
        "settings": row.settings,
        "rank_correlations": row.rank_correlations,
        "seconds": row.seconds,
    }


def worst_tenth(scores: np.ndarray, is_higher_better: bool) -> np.ndarray:
    """Return the mean of the worst tenth of all devices and seeds, one for each sigma."""
    ranked = np.sort(scores.reshape(len(scores), -1), axis=1)
    worst = ranked if is_higher_better else ranked[:, ::-1]
    return worst[:, : max(1, ranked.shape[1] // 10)].mean(1)


def table(study: Study, result: dict[str, object]) -> str:
    """Return the study as Markdown: all rows, then what they say."""
    rows = result["rows"]
    assert isinstance(rows, list)
    lines = [
        f"# {study.name}\n",
        f"{rows[0]['metric']}{'' if rows[0]['is_higher_better'] else ' (lower is better)'} on test data, "
        f"mean over {study.seeds} seed(s) x {study.n_devices} devices "
        f"(simulated); ± is the standard deviation over both at sigma .587. {result['seconds']:.0f} s, without "
        "trainings that were kept from an earlier run.",
        f"Epochs {study.epochs}, development samples {study.limit or 'all'}, test samples "
        f"{study.test_limit or 'all'}; objectives at sigma {', '.join(map(str, study.objective))}.",
        "`deployment` none: weights alone. channel, readout, layer, batch-norm: each device is shown 64 "
        "unlabelled training inputs. mean_gain: the law's mean factor, no data.\n",
    ]
    at = study.sigmas.index(MEDIAN)
    for model in study.models:
        cells = []
        for r in (r for r in rows if r["model"] == model):
            wires = r.get("nanowires")
            cells.append(
                [
                    r["method"],
                    r["deployment"],
                    f"{r['cost']:.1f}",
                    f"{np.mean(r['clean']):.3f}",
                    *(
                        f"{m:.3f} ± {s:.3f}" if k == at else f"{m:.3f}"
                        for k, (m, s) in enumerate(zip(r["mean"], r["std"], strict=True))
                    ),
                    f"{np.mean(r['mean']):.3f} ± {spread(r):.3f}",
                    f"{np.mean(wires):.3f}" if wires else "–",
                ]
            )
        head = ["method", "deployment", "cost", "clean", *(f"{s:g}" for s in study.sigmas)]
        head += ["mean over sigma ± s.d. of seeds", "43 nanowires"]
        lines += [f"## {model}\n", markdown(head, cells), claims(rows, model, at, study)]
    return "\n".join(lines)


def spread(row: dict[str, object]) -> float:
    by_seed = np.mean(np.array(row["mean_by_seed"]), axis=0)
    return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0


def lost(clean: float, score: float, is_higher_better: bool) -> float:
    """Return what devices lose against a digital score; positive if they are worse."""
    return clean - score if is_higher_better else score - clean


def claims(rows: list[dict[str, object]], model: str, at: int, study: Study) -> str:
    """Return what the table says about the paper's claim and ours, in sentences that are computed."""
    mine = [r for r in rows if r["model"] == model]

    def find(method: str, deployment: str) -> dict[str, object] | None:
        return row_of(mine, method, deployment)

    plain = find("erm", "none") or find("as-it-comes", "none")
    ours, theirs = find("steady", "readout"), find("bayesmulti", "none")
    out = []
    if plain is None or ours is None:
        return ""
    higher = bool(plain["is_higher_better"])
    clean = float(np.mean(plain["clean"]))  # type: ignore[arg-type]
    bound = 0.9 * clean if higher else clean / 0.9
    usable = {
        name: row["mean"][at] >= bound if higher else row["mean"][at] <= bound  # type: ignore[index]
        for name, row in (("plain training", plain), ("bayesmulti", theirs), ("steady", ours))
        if row is not None
    }
    words = ", ".join(f"{name} {'yes' if yes else 'no'}" for name, yes in usable.items())
    share = "90 % of" if higher else "10/9 of"
    out.append(
        f"Usable at sigma .587 ({share} plain training's clean score, {bound:.3f}): {words}."
    )
    if theirs is not None:
        loss = [lost(clean, r["mean"][at], higher) for r in (theirs, ours)]  # type: ignore[index]
        out.append(
            f"Loss at .587 against plain training's clean score: bayesmulti {loss[0]:.3f}, steady with readout "
            f"{loss[1]:.3f}, ratio {loss[1] / loss[0]:.2f} (aim .20)."
        )
    for name, row in (("bayesmulti", theirs), ("steady with readout", ours)):
        if row is not None:
            ratios = np.array(row["mean"]) / np.array(plain["mean"])
            ratios = ratios if higher else 1 / ratios
            k = int(ratios.argmax())
            words = f"{name} to plain training" if higher else f"plain training to {name}"
            out.append(
                f"Largest ratio of {words}: {ratios[k]:.1f} at sigma {study.sigmas[k]:g} "
                f"({row['mean'][k]:.3f} against {plain['mean'][k]:.3f})."  # type: ignore[index]
            )
    return "\n".join(f"* {line}" for line in out) + "\n"


SHOWN = (
    ("erm", "none", "plain training"),
    ("as-it-comes", "none", "as it comes"),
    ("bayesmulti", "none", "BayesMulti"),
    ("erm", "readout", "plain, readout set on each device"),
    ("as-it-comes", "readout", "as it comes, readout set on each device"),
    ("steady", "none", "steady, weights alone"),
    ("steady", "readout", "steady, readout set on each device"),
)


def picture(study: Study, result: dict[str, object]) -> None:
    """Draw the main rows of the first network: score against sigma, a band of one deviation."""
    rows = result["rows"]
    assert isinstance(rows, list)
    figure = new_figure()
    axes = styled_axes(figure)
    for k, (method, deployment, label) in enumerate(SHOWN):
        r = row_of([r for r in rows if r["model"] == study.models[0]], method, deployment)
        if r is None:
            continue
        x = [0.0, *study.sigmas]
        y = np.array([np.mean(r["clean"]), *r["mean"]])
        s = np.array([np.std(r["clean"]), *r["std"]])
        axes.fill_between(x, y - s, y + s, color=COLOURS[k], alpha=0.12, linewidth=0)
        axes.plot(x, y, MARKERS[k] + "-", color=COLOURS[k], label=label, markersize=4)
    axes.set_xlabel("sigma of the log-normal weight noise (simulated devices)")
    axes.set_ylabel(f"test {rows[0]['metric']}")
    axes.set_title(f"{study.name}, {study.models[0]}")
    axes.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"robustness-{study.name}.svg"
    path.write_text(to_svg(figure, f"Robustness on {study.name}") + "\n", encoding="utf-8")


def row_of(rows: list[dict[str, object]], method: str, deployment: str) -> dict[str, object] | None:
    """Return the row of a method with its default budget and objective, None if it was not run."""
    for r in rows:
        name = str(r["method"])
        own = name.partition(":")[0] == method and "objective" not in name and "epochs" not in name
        if own and r["deployment"] == deployment:
            return r
    return None


COLUMNS = (
    ("plain", ("erm", "as-it-comes"), "none"),
    ("BayesMulti", ("bayesmulti",), "none"),
    ("steady, weights alone", ("steady",), "none"),
    ("plain + readout", ("erm", "as-it-comes"), "readout"),
    ("steady + readout", ("steady",), "readout"),
)


def summaries() -> None:
    """Write the tables over all tasks (results/robustness.md) and of the method's parts (steady.md)."""
    lines = []
    for path in sorted(RESULTS.glob("robustness-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for model in dict.fromkeys(r["model"] for r in result["rows"]):
            rows = [r for r in result["rows"] if r["model"] == model]
            lines += summary_lines(path.stem.removeprefix("robustness-"), model, rows, result)
    head = ["task, network", "sigma", "clean", *(name for name, _, _ in COLUMNS), "loss ratio"]
    text = markdown(head, lines)
    (RESULTS / "robustness.md").write_text(text, encoding="utf-8")
    print(text)
    digits = RESULTS / "robustness-digits.json"
    if digits.exists():
        (RESULTS / "steady.md").write_text(
            parts_table(json.loads(digits.read_text("utf-8"))), "utf-8"
        )


def summary_lines(
    task: str, model: str, rows: list[dict[str, object]], result: dict[str, object]
) -> list[list[str]]:
    sigmas = list(result["sigmas"])  # type: ignore[call-overload]
    shown = (
        [s for s in sigmas if s in (0.1, 0.2, MEDIAN, 1.2)] if min(sigmas) < 0.2 else [MEDIAN, 1.2]
    )
    out = []
    for sigma in shown:
        if sigma not in sigmas:
            continue
        k = sigmas.index(sigma)
        found = [
            next((r for m in names if (r := row_of(rows, m, deployed))), None)
            for _, names, deployed in COLUMNS
        ]
        plain, theirs, ours = found[0], found[1], found[4]
        clean = float(np.mean(plain["clean"])) if plain else float("nan")  # type: ignore[arg-type]
        ratio = "–"
        if theirs and ours:
            higher = bool(ours["is_higher_better"])
            parts = [lost(clean, r["mean"][k], higher) for r in (ours, theirs)]  # type: ignore[index]
            ratio = f"{parts[0] / parts[1]:.2f}"
        cells = [f"{r['mean'][k]:.3f} ± {r['std'][k]:.3f}" if r else "–" for r in found]  # type: ignore[index]
        out.append([f"{task}, {model}", f"{sigma:g}", f"{clean:.3f}", *cells, ratio])
    return out


def parts_table(result: dict[str, object]) -> str:
    """Return what each part of the method brings on digits: training down, deployment across."""
    rows = result["rows"]
    assert isinstance(rows, list)
    across = ("none", "none:mean_gain=true", "layer", "channel", "readout")
    names = dict.fromkeys(r["method"] for r in rows)
    kept_rows = [n for n in names if n.startswith(("erm", "steady", "bayesmulti", "weight-noise"))]
    cells = []
    for name in kept_rows:
        mine = {r["deployment"]: r for r in rows if r["method"] == name}
        cells.append(
            [
                name,
                f"{mine['none']['cost']:.1f}",
                f"{np.mean(mine['none']['clean']):.3f}",
                *(f"{np.mean(mine[d]['mean']):.3f} ± {spread(mine[d]):.3f}" for d in across),
            ]
        )
    return markdown(["training", "cost", "clean", *across], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="whole data, deep networks: for a GPU")
    parser.add_argument("--quick", action="store_true", help="the setting for two cores (default)")
    parser.add_argument(
        "--few", action="store_true", help="tasks for a GPU, few devices and samples"
    )
    parser.add_argument("--tasks", help="only these, separated by commas")
    parser.add_argument("--data", type=Path, help="folder of data sets that no package brings")
    parser.add_argument(
        "--method", help="only rows of this method, as in its study; the table keeps its others"
    )
    executor_options(parser)
    parser.add_argument("--compute", default="cpu")
    args = parser.parse_args()
    data = args.data
    if data is None:
        beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
        data = beside if beside.exists() else None
    studies = (full if args.full else few if args.few else quick)(data)
    for name in args.tasks.split(",") if args.tasks else studies:
        study = studies[name]
        chosen = replace(
            study,
            name=f"{name}-{args.method}",  # trainings of its own, beside those of the whole study
            methods=tuple(m for m in study.methods if m == args.method),
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
