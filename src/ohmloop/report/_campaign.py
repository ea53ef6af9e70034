"""A campaign as one self-contained HTML file, and the chart of a replay."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ohmloop.errors import OhmloopError
from ohmloop.report._page import (
    Methods,
    Page,
    Plot,
    new_page,
    plot,
    settings_of,
    word_of,
    write_page,
)
from ohmloop.report._style import COLOURS, GREY, MARKERS, new_figure, styled_axes, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ohmloop.campaign import (
        Campaign,
        CampaignStatus,
        Config,
        Record,
        ReplayRun,
        ReplayTable,
        State,
    )


def write_campaign(campaign: Campaign, path: Path, *, pdf: bool = False) -> Path:
    """Write a campaign's report, and the numbers of its plots as ``NAME-PLOT.csv`` beside ``NAME.html``.

    The same campaign gives the same bytes.

    Args:
        campaign: Open, for reading at least.
        path: The HTML file; its folder is made.
        pdf: Whether ``NAME.pdf`` is written as well.

    Raises:
        OhmloopError: If it cannot be written, or PDF is asked for and WeasyPrint is not here.
    """
    page = campaign_page(campaign, path.stem)
    written = write_page(page, path.parent, pdf=pdf)
    return written if written == path else written.replace(path)


def campaign_page(campaign: Campaign, stem: str = "campaign") -> Page:
    """Return the page of a campaign."""
    from ohmloop.campaign import recipe_text, sentences

    status = campaign.status()
    config, state = campaign.config, campaign.state
    trials = [
        {
            "id": trial.id,
            "status": trial.outcome,
            "recipe": recipe_text(config, trial.recipe),
            "devices": [_device(config, record) for record in trial.records],
            "reasons": sentences(config, trial.reasons) if trial.reasons else [],
            "note": trial.note,
        }
        for trial in state.trials.values()
    ]
    best = [
        {
            "id": trial.id,
            "recipe": recipe_text(config, trial.recipe),
            "measured": ", ".join(f"{name} {value:.4g}" for name, value in means.items()),
        }
        for trial, means in campaign.best()
    ]
    simulated = any(is_simulated(r) for t in state.trials.values() for r in t.records)
    plots = _plots(config, state, status)
    return new_page(
        stem,
        "campaign.html.j2",
        plots=plots,
        tables={"trials": _trials_table(config, state)},
        badge="holds SIMULATED devices of the virtual lab" if simulated else "",
        title=config.name,
        lead=config.description,
        cards=_cards(config, status),
        methods=Methods((_METHOD,), settings_of(config.model_dump(mode="json")), _SOURCES),
        provenance=_provenance(campaign),
        advice=status.advice,
        best=best,
        trials=trials,
        log=campaign.log(),
    )


_METHOD = (
    "Suggestions maximise the expected improvement (in log form [1]; of the hypervolume for two or three "
    "objectives) over the best usable recipe, multiplied by the probability of passing every stage. Outcomes "
    "and stages are modelled by Gaussian processes (Matérn 5/2, one lengthscale a variable with a "
    "dimension-scaled prior [2]; stages by Dirichlet-transformed counts [3]), fitted with BoTorch [4]. "
    "Intervals hold the recipe's true mean with 90 % under that model; they say nothing about recipes outside "
    "the ranges below."
)
_SOURCES = (
    "Ament et al., Unexpected Improvements to Expected Improvement for Bayesian Optimization, NeurIPS 2023.",
    "Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML 2024.",
    "Milios et al., Dirichlet-based Gaussian Processes for Large-scale Calibrated Classification, NeurIPS "
    "2018.",
    "Balandat et al., BoTorch: A Framework for Efficient Monte-Carlo Bayesian Optimization, NeurIPS 2020.",
)


def _provenance(campaign: Campaign) -> tuple[tuple[str, str], ...]:
    from ohmloop import __version__

    state = campaign.state
    settings = hashlib.sha256(state.config_text.encode()).hexdigest()
    files = sorted(campaign.files().items(), key=lambda item: item[1])
    last = f", the last at {state.history[-1].at}" if state.history else ""
    return (
        ("ohmloop", __version__),
        ("events", f"{state.last_event}{last}"),
        ("campaign.toml (sha256)", settings),
        *((f"{name} (sha256)", sha) for sha, name in files),
    )


def _plots(config: Config, state: State, status: CampaignStatus) -> list[Plot]:
    plots = []
    for objective in config.objectives:
        name = objective.name
        if not any(v is not None for v in status.best_so_far[name]):
            continue
        devices = _measurements(state, name)
        best = [
            ("best", k, v) for k, v in enumerate(status.best_so_far[name], start=1) if v is not None
        ]
        caption = f"{name}: every device (grey), and the best mean of a usable trial so far (blue)"
        plots.append(
            plot(
                f"progress-{word_of(name)}",
                progress_figure(config, status, name, devices),
                caption,
                f"{caption}.",
                [
                    ("what", "trials_with_a_result", name),
                    *best,
                    *(("device", k, v) for k, v in zip(*devices, strict=True)),
                ],
            )
        )
    if status.n_done:
        caption = "Where trials failed, and how often over time"
        stages = [(s.name, status.failures_by_stage.get(s.name, 0)) for s in config.stages]
        plots.append(
            plot(
                "failures",
                failure_figure(config, status),
                caption,
                f"{caption}.",
                [
                    ("what", "stage_or_last_trial", "value"),
                    *(("trials_failed", *pair) for pair in stages),
                    *(("share_failed", *pair) for pair in status.failure_rate),
                ],
            )
        )
    return plots


def _trials_table(config: Config, state: State) -> list[tuple[object, ...]]:
    """Return every device of every trial with its recipe and outcomes."""
    variables, outcomes = list(config.variables), [o.name for o in config.objectives]
    rows: list[tuple[object, ...]] = [
        ("trial", "outcome", "device", "failed_at", *variables, *outcomes)
    ]
    for trial in state.trials.values():
        recipe = [trial.recipe.get(v, "") for v in variables]
        for record in trial.records or (None,):
            values = {} if record is None else record.values
            rows.append(
                (
                    trial.id,
                    trial.outcome,
                    "" if record is None else record.device,
                    "" if record is None else record.failed_at or "",
                    *recipe,
                    *(values.get(o, "") for o in outcomes),
                )
            )
    return rows


def _cards(config: Config, status: CampaignStatus) -> list[dict[str, str]]:
    used, total = status.budget["trials"]
    cards = [
        {
            "value": f"{used:g}" + (f" / {total:g}" if total else ""),
            "label": "trials with a result",
        },
        {
            "value": f"{100 * status.n_failed / status.n_done:.0f} %" if status.n_done else "–",
            "label": "of them without a usable device",
        },
    ]
    for objective in config.objectives:
        found = status.best.get(objective.name)
        cards.append(
            {
                "value": "–" if found is None else f"{found[1]:.3g} {objective.unit}".strip(),
                "label": f"best {objective.name}" + (f" ({found[0]})" if found else ""),
            }
        )
    return cards


def is_simulated(record: Record) -> bool:
    """Whether a result comes from the virtual lab, which marks its workbooks, devices and sheets."""
    marks = (record.device, record.note, *record.figures.get("notes", ()))
    return any("simulated" in mark.lower() for mark in marks)


def _device(config: Config, record: Record) -> str:
    """Return what is known of one device on one line."""
    passed = [s.name for s in config.stages if record.stages.get(s.name)]
    if record.failed_at:
        parts = [f"failed at {record.failed_at}"]
    else:
        parts = [f"passed {passed[-1]}"] if passed else []
    units = {o.name: o.unit for o in config.objectives}
    parts += [f"{n} {v:.4g} {units.get(n, '')}".strip() for n, v in record.values.items()]
    note = f" ({record.note})" if record.note else ""
    return f"{record.device}: {', '.join(parts) or 'undecided'}{note}"


def _measurements(state: State, name: str) -> tuple[list[int], list[float]]:
    """Return (number of the trial in order of results, value) of every device that has an outcome."""
    done = sorted((t for t in state.trials.values() if t.records), key=lambda t: t.records[0].event)
    pairs = [
        (k, r.values[name])
        for k, trial in enumerate(done, start=1)
        for r in trial.records
        if name in r.values
    ]
    return [k for k, _ in pairs], [value for _, value in pairs]


def progress_figure(
    config: Config,
    status: CampaignStatus,
    name: str,
    devices: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> Figure:
    """Draw the best outcome so far, and every device, against the number of trials with a result."""
    figure = new_figure(7.2, 3.4)
    from matplotlib.ticker import MaxNLocator

    axes = styled_axes(figure)
    curve = [np.nan if v is None else v for v in status.best_so_far[name]]
    n = np.arange(1, len(curve) + 1)
    axes.plot(*devices, MARKERS[0], color=GREY, ms=3.5, alpha=0.6, ls="none")
    axes.step(n, curve, where="post", color=COLOURS[0], lw=2)
    axes.plot(n, curve, MARKERS[0], color=COLOURS[0], ms=4, ls="none")
    unit = next(o.unit for o in config.objectives if o.name == name)
    axes.set_xlabel("trials with a result")
    axes.set_ylabel(name + (f" / {unit}" if unit else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, len(curve) + 0.5)
    return figure


def failure_figure(config: Config, status: CampaignStatus) -> Figure:
    """Draw failures by stage, and the share of failures over time."""
    figure = new_figure(7.2, 3.2)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(True, color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
    stages = [s.name for s in config.stages]
    counts = [status.failures_by_stage.get(s, 0) for s in stages]
    left.barh(stages[::-1], counts[::-1], color=COLOURS[1])
    left.set_xlim(0, 1.05 * max(1, *counts))
    left.set_xlabel("trials that failed there")
    left.xaxis.get_major_locator().set_params(integer=True)
    labels = [name for name, _ in status.failure_rate]
    right.plot(
        labels, [100 * r for _, r in status.failure_rate], MARKERS[0] + "-", color=COLOURS[0]
    )
    right.set_ylim(-3, 103)
    right.set_ylabel("failed / %")
    right.set_xlabel("up to trial")
    if len(labels) > 6:
        right.set_xticks(range(0, len(labels), -(-len(labels) // 6)))
    return figure


def replay_figure(table: ReplayTable, runs: Sequence[ReplayRun]) -> Figure:
    """Draw best so far (median, quartiles) or failures and coverage, one line a method."""
    from ohmloop.campaign import best_so_far

    assert table.config.replay is not None
    figure = new_figure(7.2, 4.0)
    axes = styled_axes(figure)
    methods = list(dict.fromkeys(run.method for run in runs))
    length = max(len(run.order) for run in runs)
    for k, method in enumerate(methods):
        curves = []
        for run in (r for r in runs if r.method == method):
            if table.objective is None:
                usable = [table.observations[i].is_usable for i in run.order]
                curve = 100 * (1 - np.cumsum(usable) / np.arange(1, len(usable) + 1))
            else:
                curve = best_so_far(table, run)
            curves.append(np.concatenate([curve, np.full(length - len(curve), curve[-1])]))
        stack = np.stack(curves)
        n = np.arange(1, length + 1)
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(n, np.median(stack, 0), color=colour, lw=2, label=method)
        axes.fill_between(
            n, *np.quantile(stack, [0.25, 0.75], axis=0), color=colour, alpha=0.15, lw=0
        )
    axes.set_xlabel("experiments")
    axes.set_ylabel("failed so far / %" if table.objective is None else f"best {table.objective}")
    axes.legend(fontsize=8, ncols=2)
    seeds = len({run.seed for run in runs})
    ends = "" if table.objective is None else "; a run ends at its target, and its line goes on"
    axes.set_title(
        f"{table.config.name}: median and quartiles of {seeds} seeds{ends}",
        fontsize=9,
        color=GREY,
        loc="left",
    )
    return figure


def draw_replay(table: ReplayTable, runs: Sequence[ReplayRun], path: Path) -> Path:
    """Write `replay_figure` as SVG."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_svg(replay_figure(table, runs), "Replay"), encoding="utf-8")
    except OSError as error:
        raise OhmloopError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path
