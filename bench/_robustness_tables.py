"""What bench/robustness.py writes: a table and a picture of each study, and tables over all of them."""

import json
from typing import Any

import numpy as np

from _common import RESULTS, markdown
from _robustness_studies import MEDIAN, SEARCHED, Study
from ohmloop.report._style import COLOURS, MARKERS, new_figure, styled_axes, to_svg

Row = dict[str, Any]


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
        "`cost`: passes over the training data, in plain trainings. `clean`: without devices.",
        "What a device needs beside its weights, by `deployment`:\n",
        *(f"* `{name}`: {needs}" for name, needs in needed(rows).items()),
        "",
    ]
    at = study.sigmas.index(MEDIAN)
    on_wires = any("nanowires" in r for r in rows)
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
                    short(middle(np.array(r["mean"]), r["metric"], 0))
                    + (f" ± {short(spread(r))}" if study.seeds > 1 else ""),
                    *(
                        [short(middle(np.array(wires), r["metric"], 0)) if wires else "–"]
                        * on_wires
                    ),
                ]
            )
        head = ["method", "deployment", "cost", "clean", *(f"{s:g}" for s in study.sigmas)]
        over = "mean over sigma" + (" ± s.d. of seeds" if study.seeds > 1 else "")
        head += [over, *(["43 nanowires"] * on_wires)]
        lines += [f"## {model}\n", markdown(head, cells), claims(rows, model, at, study)]
    return "\n".join(lines)


def needed(rows: list[Row]) -> dict[str, str]:
    """Return in words what devices need, for each deployment that has rows."""
    return {str(r["deployment"]): str(r["needs"]) for r in rows}


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


def spread(row: Row) -> float:
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


def claims(rows: list[Row], model: str, at: int, study: Study) -> str:
    """Return what the table says about the paper's claim and ours, in sentences that are computed."""
    mine = [r for r in rows if r["model"] == model]
    plain = row_of(mine, "as-it-comes", "none") or row_of(mine, "erm", "none")
    ours, theirs = row_of(mine, "steady", "readout"), row_of(mine, "bayesmulti", "none")
    searched = row_of(mine, SEARCHED, "readout")
    if plain is None or not (ours or searched):
        return ""
    base = "plain training" if plain["method"] == "erm" else plain["method"]
    named = {
        base: plain,
        "bayesmulti": theirs,
        "corrected steady": ours,
        f"corrected {SEARCHED}": searched,
    }
    found = {name: row for name, row in named.items() if row is not None}
    out = [usable_sentence(found, base, at), *choices(mine)]
    if theirs is not None:
        out += loss_sentences(mine, plain, theirs, [r for r in (ours, searched) if r], at)
    for name, row in found.items():
        if name != base:
            out += ratio_sentences((name, row), (base, plain), study.sigmas)
    return "\n".join(f"* {line}" for line in out) + "\n"


def is_usable(row: Row, clean: float, at: int) -> bool:
    """Return whether a row keeps 90 % of a clean score; of a perplexity, exceeds it by no more than a ninth."""
    return bool(
        row["mean"][at] >= 0.9 * clean
        if row["is_higher_better"]
        else row["mean"][at] <= clean / 0.9
    )


def usable_sentence(found: dict[str, Row], base: str, at: int) -> str:
    clean = float(np.mean(found[base]["clean"]))
    higher = found[base]["is_higher_better"]
    words = ", ".join(
        f"{name} {'yes' if is_usable(row, clean, at) else 'no'}" for name, row in found.items()
    )
    bound, share = (0.9 * clean, "90 %") if higher else (clean / 0.9, "10/9")
    return f"Usable at sigma .587 ({share} of the clean score of {base}, {bound:.3f}): {words}."


def choices(mine: list[Row]) -> list[str]:
    """Return what searches of `steady` ended with, and how well their early rounds ranked later ones."""
    row = next((r for r in mine if r["method"].startswith(SEARCHED)), None)
    if row is None:
        return []
    chosen = [text if text != "none" else "plain training" for text in row["settings"]]
    out = [f"{row['method']} chose, seed by seed: {'; '.join(chosen)}."]
    ranked = [pair for ranks in row["rank_correlations"] for pair in ranks.items()]
    if ranked:
        words = "; ".join(f"{name} {rho:+.1f} ({n} settings)" for name, (rho, n) in ranked)
        out.append(f"Rank correlation of its rounds, seed by seed: {words}.")
    return out


def loss_sentences(mine: list[Row], plain: Row, theirs: Row, ours: list[Row], at: int) -> list[str]:
    higher = bool(plain["is_higher_better"])
    clean = float(np.mean(plain["clean"]))
    base = lost(clean, theirs["mean"][at], higher)
    out = []
    for row in ours:
        name = SEARCHED if row["method"] == SEARCHED else "steady"
        loss = lost(clean, row["mean"][at], higher)
        own = lost(float(np.mean(row["clean"])), row["mean"][at], higher)
        out.append(
            f"Loss at .587 against plain training's clean score: bayesmulti {base:.3f}, corrected {name} "
            f"{loss:.3f}, ratio {loss / base:.2f} (aim .20); corrected {name} against its own: {own:.3f}."
        )
    for deployment in dict.fromkeys(r["deployment"] for r in mine):
        row = row_of(mine, "steady", deployment)
        if row is not None and ":cells=" in deployment:
            extra = lost(clean, row["mean"][at], higher)
            out.append(
                f"With {deployment}, more hardware than bayesmulti has: {extra:.3f}, ratio "
                f"{extra / base:.2f}."
            )
    return out


def ratio_sentences(
    ours: tuple[str, Row], base: tuple[str, Row], sigmas: tuple[float, ...]
) -> list[str]:
    """Return the largest ratio of two rows, and the largest where the better one still keeps half its score.

    The first says little where both are ruined, and nothing of a perplexity, which grows without bound.
    """
    (name, row), (other, plain) = ours, base
    higher = bool(plain["is_higher_better"])
    scores, against = np.array(row["mean"]), np.array(plain["mean"])
    above, below = (scores, against) if higher else (against, scores)
    ratios = np.divide(above, below, out=np.full_like(above, -np.inf), where=below > 0)
    clean = float(np.mean(row["clean"]))
    keeps = scores >= clean / 2 if higher else scores <= 2 * clean
    words = f"{name} to {other}" if higher else f"{other} to {name}"
    best, best_kept = (
        int(np.where(fits, ratios, -np.inf).argmax()) for fits in (np.full_like(keeps, True), keeps)
    )
    found = {}
    if higher and np.isfinite(ratios[best]):
        found[best] = ""
    if keeps[best_kept] and np.isfinite(ratios[best_kept]):
        half = "half of its clean score" if higher else "its score within twice its clean one"
        found[best_kept] = f", where it keeps {half}"
    return [
        f"Largest ratio of {words}{where}: {ratios[k]:.1f} at sigma {sigmas[k]:g} "
        f"({short(scores[k])} against {short(against[k])})."
        for k, where in found.items()
    ]


SHOWN = (
    ("", "none", "{}"),
    ("bayesmulti", "none", "BayesMulti"),
    ("", "readout", "{}, corrected on each device"),
    ("steady", "none", "steady, weights alone"),
    ("steady", "readout", "steady, corrected on each device"),
    (SEARCHED, "readout", "steady with its search, corrected on each device"),
)
"""Lines of a picture: method, "" for the network as it comes or else plain training, deployment, label."""


def picture(study: Study, result: dict[str, object]) -> None:
    """Draw the main rows of the first network: score against sigma, a band of one deviation."""
    rows = result["rows"]
    assert isinstance(rows, list)
    mine = [r for r in rows if r["model"] == study.models[0]]
    came = row_of(mine, "as-it-comes", "none") is not None
    base, called = ("as-it-comes", "as it comes") if came else ("erm", "plain training")
    figure = new_figure()
    axes = styled_axes(figure)
    for k, (method, deployment, label) in enumerate(SHOWN):
        r = row_of(mine, method or base, deployment)
        if r is None:
            continue
        x = [0.0, *study.sigmas]
        y = np.array([np.mean(r["clean"]), *r["mean"]])
        s = np.array([np.std(r["clean"]), *r["std"]])
        low = y - s
        if not r["is_higher_better"]:  # on a logarithmic axis
            low = np.maximum(low, y / 10)
        axes.fill_between(x, low, y + s, color=COLOURS[k], alpha=0.12, linewidth=0)
        axes.plot(
            x, y, MARKERS[k] + "-", color=COLOURS[k], label=label.format(called), markersize=4
        )
    axes.set_xlabel("sigma of the log-normal weight noise (simulated devices)")
    axes.set_ylabel(f"test {rows[0]['metric']}")
    if not rows[0]["is_higher_better"]:
        axes.set_yscale("log")
    axes.set_title(f"{study.name}, {study.models[0]}")
    axes.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"robustness-{study.name}.svg"
    path.write_text(to_svg(figure, f"Robustness on {study.name}") + "\n", encoding="utf-8")


def row_of(rows: list[Row], method: str, deployment: str) -> Row | None:
    """Return the row of a method with its default budget and objective, None if it was not run.

    Default settings come before others. Where no readout was set, for it would be too large, the correction by
    channel stands in its place.
    """
    if deployment == "readout" and not any(r["deployment"] == "readout" for r in rows):
        deployment = "channel"
    for r in sorted(rows, key=lambda r: r["method"] != method):
        name = str(r["method"])
        default = not any(word in name for word in ("objective", "epochs", "search"))
        own = name == method or (name.partition(":")[0] == method and default)
        if own and r["deployment"] == deployment:
            return r
    return None


COLUMNS = (
    ("plain", ("as-it-comes", "erm"), "none"),
    ("BayesMulti", ("bayesmulti",), "none"),
    ("steady, weights alone", ("steady",), "none"),
    ("plain, corrected", ("as-it-comes", "erm"), "readout"),
    ("BayesMulti, corrected", ("bayesmulti",), "readout"),
    ("steady, corrected", ("steady",), "readout"),
    ("searched, weights alone", (SEARCHED,), "none"),
    ("searched, corrected", (SEARCHED,), "readout"),
)
LONG = "plain, as long"


def summaries() -> None:
    """Write the tables over all tasks (results/robustness.md) and of the method's parts (steady.md)."""
    lines = []
    for path in sorted(RESULTS.glob("robustness-*.json")):
        if path.stem.endswith(("-budget", "-field")):
            continue  # more rows beside those of another table
        result = json.loads(path.read_text(encoding="utf-8"))
        for model in dict.fromkeys(r["model"] for r in result["rows"]):
            rows = [r for r in result["rows"] if r["model"] == model]
            lines += summary_lines(path.stem.removeprefix("robustness-"), model, rows, result)
    names = [name for name, _, _ in COLUMNS]
    head = [
        "task, network",
        "sigma",
        "clean",
        *names[:4],
        LONG,
        *names[4:],
        "cost",
        "loss ratio",
        "usable",
    ]
    text = markdown(head, lines)
    (RESULTS / "robustness.md").write_text(text, encoding="utf-8")
    print(text)
    digits = RESULTS / "robustness-digits.json"
    if digits.exists():
        (RESULTS / "steady.md").write_text(
            parts_table(json.loads(digits.read_text("utf-8"))), "utf-8"
        )


def summary_lines(
    task: str, model: str, rows: list[Row], result: dict[str, object]
) -> list[list[str]]:
    sigmas = list(result["sigmas"])  # type: ignore[call-overload]
    shown = (
        [s for s in sigmas if s in (0.1, 0.2, MEDIAN, 1.2)] if min(sigmas) < 0.2 else [MEDIAN, 1.2]
    )
    found = [
        next((r for m in names if (r := row_of(rows, m, deployment))), None)
        for _, names, deployment in COLUMNS
    ]
    plain, theirs, ours, searched = found[0], found[1], found[5], found[7]
    mine = [r for r in (ours, searched) if r]
    if plain is None or not mine:
        return []
    as_long = long_row(rows, found[3])
    clean = float(np.mean(plain["clean"]))
    out = []
    for k, sigma in ((sigmas.index(s), s) for s in shown if s in sigmas):
        ratios = []
        if theirs:
            higher = bool(plain["is_higher_better"])
            loss, *parts = [lost(clean, r["mean"][k], higher) for r in (theirs, *mine)]
            ratios = [f"{part / loss:.2f}" for part in parts]
        shown_rows = [*found[:4], as_long, *found[4:]]
        cells = [f"{short(r['mean'][k])} ± {short(r['std'][k])}" if r else "–" for r in shown_rows]
        usable = ["yes" if is_usable(r, clean, k) else "no" for r in (plain, *mine)]
        out.append(
            [
                f"{task}, {model}",
                f"{sigma:g}",
                f"{clean:.3f} / {np.mean(mine[0]['clean']):.3f}",
                *cells,
                f"{mine[0]['cost']:.1f}",
                " / ".join(ratios) or "–",
                " / ".join(usable),
            ]
        )
    return out


def long_row(rows: list[Row], corrected: Row | None) -> Row | None:
    """Return the corrected row of plain training at four times the length, where it was run."""
    if corrected is None:
        return None
    return next(
        (
            r
            for r in rows
            if r["method"].startswith("erm (") and r["deployment"] == corrected["deployment"]
        ),
        None,
    )


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
