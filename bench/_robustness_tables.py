"""What bench/robustness.py writes: a table and a picture of each study, and tables over all of them."""

import json

import numpy as np

from _common import RESULTS, markdown
from _robustness_studies import MEDIAN, Study
from ohmloop.report._style import COLOURS, MARKERS, new_figure, styled_axes, to_svg


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
                        f"{short(m)} ± {short(s)}" if k == at else short(m)
                        for k, (m, s) in enumerate(zip(r["mean"], r["std"], strict=True))
                    ),
                    f"{short(middle(np.array(r['mean']), r['metric'], 0))} ± {short(spread(r))}",
                    short(middle(np.array(wires), r["metric"], 0)) if wires else "–",
                ]
            )
        head = ["method", "deployment", "cost", "clean", *(f"{s:g}" for s in study.sigmas)]
        head += ["mean over sigma ± s.d. of seeds", "43 nanowires"]
        lines += [f"## {model}\n", markdown(head, cells), claims(rows, model, at, study)]
    return "\n".join(lines)


def short(value: float) -> str:
    """Return a score in few digits; perplexities of ruined networks are astronomical."""
    return f"{value:.3f}" if abs(value) < 1e5 else f"{value:.1e}"


def middle(scores: np.ndarray, metric: str, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean over some axes; of perplexities the geometric one, exp of the mean loss."""
    if metric == "perplexity":
        return np.exp(np.log(scores).mean(axis))
    return scores.mean(axis)


def deviation(scores: np.ndarray, metric: str, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the standard deviation over some axes; of perplexities that of the loss, times their mean."""
    if metric == "perplexity":
        return np.log(scores).std(axis) * middle(scores, metric, axis)
    return scores.std(axis)


def spread(row: dict[str, object]) -> float:
    by_seed = middle(np.array(row["mean_by_seed"]), str(row["metric"]), 0)
    return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0


def worst_tenth(scores: np.ndarray, is_higher_better: bool) -> np.ndarray:
    """Return the mean of the worst tenth of all devices and seeds, one for each sigma."""
    ranked = np.sort(scores.reshape(len(scores), -1), axis=1)
    worst = ranked if is_higher_better else ranked[:, ::-1]
    return worst[:, : max(1, ranked.shape[1] // 10)].mean(1)


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
            f"Loss at .587 against plain training's clean score: bayesmulti {loss[0]:.3f}, corrected steady "
            f"{loss[1]:.3f}, ratio {loss[1] / loss[0]:.2f} (aim .20)."
        )
        for deployment in dict.fromkeys(r["deployment"] for r in mine):
            row = find("steady", deployment)
            if row is not None and ":cells=" in str(deployment):
                extra = lost(clean, row["mean"][at], higher)
                out.append(
                    f"With {deployment}, more hardware than bayesmulti has: {extra:.3f}, ratio "
                    f"{extra / loss[0]:.2f}."
                )
    for name, row in (("bayesmulti", theirs), ("corrected steady", ours)):
        if row is not None:
            pair = np.array([row["mean"], plain["mean"]])
            above, below = pair if higher else pair[::-1]
            if not (below > 0).any():
                continue
            ratios = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
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
    ("erm", "readout", "plain, corrected on each device"),
    ("as-it-comes", "readout", "as it comes, corrected on each device"),
    ("steady", "none", "steady, weights alone"),
    ("steady", "readout", "steady, corrected on each device"),
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
        low = y - s
        if not r["is_higher_better"]:  # on a logarithmic axis
            low = np.maximum(low, y / 10)
        axes.fill_between(x, low, y + s, color=COLOURS[k], alpha=0.12, linewidth=0)
        axes.plot(x, y, MARKERS[k] + "-", color=COLOURS[k], label=label, markersize=4)
    axes.set_xlabel("sigma of the log-normal weight noise (simulated devices)")
    axes.set_ylabel(f"test {rows[0]['metric']}")
    if not rows[0]["is_higher_better"]:
        axes.set_yscale("log")
    axes.set_title(f"{study.name}, {study.models[0]}")
    axes.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"robustness-{study.name}.svg"
    path.write_text(to_svg(figure, f"Robustness on {study.name}") + "\n", encoding="utf-8")


def row_of(rows: list[dict[str, object]], method: str, deployment: str) -> dict[str, object] | None:
    """Return the row of a method with its default budget and objective, None if it was not run.

    Default settings come before others. Where no readout was set, for it would be too large, the correction by
    channel stands in its place.
    """
    if deployment == "readout" and not any(r["deployment"] == "readout" for r in rows):
        deployment = "channel"
    for r in sorted(rows, key=lambda r: r["method"] != method):
        name = str(r["method"])
        own = name.partition(":")[0] == method and "objective" not in name and "epochs" not in name
        if own and r["deployment"] == deployment:
            return r
    return None


COLUMNS = (
    ("plain", ("erm", "as-it-comes"), "none"),
    ("BayesMulti", ("bayesmulti",), "none"),
    ("steady, weights alone", ("steady",), "none"),
    ("plain, corrected", ("erm", "as-it-comes"), "readout"),
    ("steady, corrected", ("steady",), "readout"),
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
        cells = [f"{short(r['mean'][k])} ± {short(r['std'][k])}" if r else "–" for r in found]  # type: ignore[index]
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
