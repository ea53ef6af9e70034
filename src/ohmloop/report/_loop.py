"""A loop of device and network as one self-contained HTML file: worths, history, what it came to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmloop.report import _loop_plots as plots_of
from ohmloop.report._campaign import is_simulated
from ohmloop.report._loop_plots import Device
from ohmloop.report._page import (
    Methods,
    Page,
    is_share,
    new_page,
    score_text,
    settings_of,
    write_page,
)
from ohmloop.report._run_methods import LAW, PEROVSKITE, method_source
from ohmloop.units import format as with_unit

if TYPE_CHECKING:
    from ohmloop.campaign import Campaign
    from ohmloop.codesign import CodesignLoop, Joint
    from ohmloop.device import TaskAccuracy

_RASMUSSEN = "Rasmussen & Williams, Gaussian Processes for Machine Learning, MIT Press (2006)."
_AMENT = (
    "Ament et al., Unexpected Improvements to Expected Improvement for Bayesian Optimization, NeurIPS "
    "2023."
)


def write_loop(loop: str | Path, folder: Path, *, pdf: bool = False) -> Path:
    """Write ``loop.html`` and a CSV for each of its figures; nothing is computed anew.

    The same loop folder gives the same bytes.

    Args:
        loop: Folder of a loop (``codesign.toml`` in it).
        folder: Where the report goes.
        pdf: Whether ``loop.pdf`` is written as well.

    Returns:
        The path of the HTML file.

    Raises:
        CampaignError: If there is no loop.
        OhmloopError: If the report cannot be written, or PDF is asked for and WeasyPrint is not here.
    """
    from ohmloop.campaign import Campaign
    from ohmloop.codesign import CodesignLoop

    found = CodesignLoop.open(loop)
    with Campaign.open(found.folder, writable=False) as campaign:
        page = loop_page(found, campaign)
    return write_page(page, folder, pdf=pdf)


def loop_page(loop: CodesignLoop, campaign: Campaign) -> Page:
    """Return the page of a loop; its campaign is open, for reading at least."""
    from ohmloop.codesign import read_joint

    steps, worths, came_to = loop.steps, loop.worths, read_joint(loop.folder)
    asked = _asked(loop)
    devices = _devices(campaign, asked)
    metric = asked.metric if asked is not None else "score"
    plots = []
    if worths:
        plots.append(plots_of.worth_plot(worths, metric))
    if asked is not None and "sigma" in asked.names:
        plots.append(plots_of.sigma_plot(asked, devices))
    if any(step["score"] is not None for step in steps):
        plots.append(plots_of.history_plot(steps, metric))
    if came_to is not None:
        plots += [plots_of.halves_plot(came_to), *plots_of.front_plot(came_to, metric)]
    simulated = any(is_simulated(r) for t in campaign.trials.values() for r in t.records)
    return new_page(
        "loop",
        "loop.html.j2",
        plots=plots,
        badge="networks simulated on the laws of devices"
        + ("; holds SIMULATED devices of the virtual lab" if simulated else ""),
        title=f"{campaign.config.name}: device and network together",
        lead=_lead(steps, worths_text=_worth_text(worths, metric), metric=metric),
        cards=_cards(steps, devices, worths, metric),
        methods=_methods(loop, campaign, asked),
        provenance=_provenance(loop, campaign),
        worths=[worth.sentence(metric) for worth in worths],
        steps=[_step(step, metric) for step in steps],
        devices=[_device(d, metric) for d in devices],
        joint=came_to,
        halves=[] if came_to is None else _halves(came_to),
        points=[] if came_to is None else _points(came_to, metric),
        is_behind=came_to is not None and came_to.n_steps != len(steps),
        folder=loop.folder.name,
    )


def _asked(loop: CodesignLoop) -> TaskAccuracy | None:
    from ohmloop.device import load_task_accuracy

    path = loop.folder / "task-accuracy.json"
    return load_task_accuracy(path) if path.exists() else None


def _devices(campaign: Campaign, asked: TaskAccuracy | None) -> list[Device]:
    """Return the usable devices with their laws, and what the networks are expected to score on them."""
    from ohmloop.campaign import law_of

    best = campaign.best()
    out = []
    for trial in campaign.trials.values():
        for record in trial.records:
            law = law_of(record.figures, trial.id) if record.is_usable else None
            if law is not None:
                out.append(
                    Device(
                        trial=trial.id,
                        name=record.device,
                        law=law,
                        expected=None if asked is None else asked.of(law),
                        is_best=bool(best) and best[0][0].id == trial.id,
                    )
                )
    return out


def _worth_text(worths: Sequence[Any], metric: str) -> str:
    return f" {_capital(worths[0].sentence(metric))}." if worths else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lead(steps: Sequence[dict[str, Any]], *, worths_text: str, metric: str) -> str:
    if not steps:
        return "No step was made yet: ohmloop codesign step."
    last = steps[-1]
    made = f"{last['n_experiments']} devices" if last["n_experiments"] != 1 else "one device"
    text = f"After {len(steps)} step{'s' if len(steps) > 1 else ''} and {made}, "
    if last["score"] is None:
        text += "no device works yet; networks are trained for an assumed law."
    else:
        text += (
            f"trial {last['trial']} is believed best: on its devices (sigma {last['sigma']:.3g}) networks "
            f"trained by {last['method']} are expected to score "
            f"{_plus_minus(last['score'], last['error'], metric)} {metric} on validation data, by simulation."
        )
    return f"{text}{worths_text} The loop's verdict is to {last['verdict']}: {last['text']}"


def _plus_minus(value: float, error: float, metric: str) -> str:
    if is_share(metric):
        return f"{100 * value:.1f} ± {100 * error:.1f}\u00a0%"
    return f"{value:.4g} ± {error:.2g}"


def _cards(
    steps: Sequence[dict[str, Any]], devices: Sequence[Device], worths: Sequence[Any], metric: str
) -> list[dict[str, str]]:
    if not steps:
        return []
    last = steps[-1]
    cards = [
        {
            "value": str(last["n_experiments"]),
            "label": f"devices made, {len(devices)} of them usable",
        }
    ]
    if last["score"] is not None:
        cards.append(
            {
                "value": _plus_minus(last["score"], last["error"], metric),
                "label": f"expected {metric} on the best device ({last['trial']})",
            }
        )
        cards.append({"value": f"{last['sigma']:.3f}", "label": "its sigma"})
    if worths:
        factor, unit = (100.0, "points") if is_share(metric) else (1.0, metric)
        cards.append(
            {
                "value": f"{factor * worths[0].gain:+.1f} ± {factor * worths[0].error:.1f}",
                "label": f"{unit} for {worths[0].phrase}",
            }
        )
    return cards


def _step(step: dict[str, Any], metric: str) -> tuple[str, ...]:
    gain = step["gain"]
    factor = 100.0 if is_share(metric) else 1.0
    return (
        str(step["number"]),
        str(step["n_experiments"]),
        step["trial"] or "–",
        f"{step['sigma']:.3f}",
        "–" if step["score"] is None else _plus_minus(step["score"], step["error"], metric),
        f"{step['method']}, {'trained anew' if step['retrained'] else 'reused'}",
        "–" if gain is None else f"{factor * gain:.2g}",
        f"{step['verdict']}: {step['text']}",
    )


def _device(d: Device, metric: str) -> tuple[str, ...]:
    sigma = d.law.sigma
    known = sigma.low is not None and sigma.high is not None
    return (
        f"{d.trial} {d.name}" + (" (best trial)" if d.is_best else ""),
        f"{sigma.value:.3f}",
        f"{sigma.low:.3f} – {sigma.high:.3f}" if known else "–",
        "–"
        if d.law.g_min is None or d.law.g_max is None
        else f"{with_unit(d.law.g_min, 'S')} – {with_unit(d.law.g_max, 'S')}",
        "–" if d.expected is None else _plus_minus(d.expected.mean, d.expected.error, metric),
    )


def _halves(found: Joint) -> list[tuple[str, ...]]:
    return [
        (label, _plus_minus(scored.score, scored.error, found.metric))
        for label, scored in plots_of.halves_of(found)
    ]


def _points(found: Joint, metric: str) -> list[tuple[str, ...]]:
    return [
        (
            point.trial,
            str(point.experiments),
            score_text(point.score, metric),
            "–" if point.energy is None else with_unit(point.energy, "J"),
            "yes" if point.on_front else "no",
        )
        for point in found.points
    ]


def _methods(loop: CodesignLoop, campaign: Campaign, asked: TaskAccuracy | None) -> Methods:
    s = loop.settings
    about = (
        ""
        if asked is None
        else f" The present one rests on {len(asked.points)} simulated laws, {asked.n_networks} trained "
        f"network(s), {asked.n_devices} simulated devices each, and {asked.n_samples} validation inputs."
    )
    name = s.method.partition(":")[0]
    return Methods(
        paragraphs=(
            f"Each step trains {s.networks} network(s) for {s.task} by {s.method} for the best device so far, "
            f"or reuses those there are while its sigma is within a factor of {s.retrain_factor:g} of what "
            f"they were trained for. Their score is simulated at {s.points} device laws with {s.devices} "
            "virtual devices each and made a smooth function of the device's properties (a Gaussian process, "
            "Matérn 5/2 [1]). That function, with its error, judges every measured device and is what the "
            "campaign's suggestions maximise by expected improvement [2]. The loop stops when the expected "
            f"gain is below {s.stop_gain:g} an experiment.{about}",
            "The worth of an improvement is the simulated gain in score if the device had it and all else "
            "stayed; its error counts trainings and virtual devices, paired. Steps see training and "
            "validation data only; the joint result alone opens the test data.",
            LAW,
        ),
        settings=(
            *settings_of(s.model_dump(mode="json"), "codesign"),
            *settings_of(campaign.config.model_dump(mode="json"), "campaign"),
        ),
        citations=(
            _RASMUSSEN,
            _AMENT,
            *([source] if (source := method_source(name)) else []),
            PEROVSKITE,
        ),
    )


_FILES = (
    "codesign.toml",
    "campaign.toml",
    "task-accuracy.json",
    "worths.json",
    "steps.jsonl",
    "joint.json",
)


def _provenance(loop: CodesignLoop, campaign: Campaign) -> list[tuple[str, str]]:
    from ohmloop import __version__

    state = campaign.state
    last = f", the last at {state.history[-1].at}" if state.history else ""
    seeds = range(loop.settings.seed, loop.settings.seed + loop.settings.networks)
    rows = [
        ("report made by", f"ohmloop {__version__}"),
        ("events of the campaign", f"{state.last_event}{last}"),
        ("seeds of the trainings", ", ".join(map(str, seeds))),
    ]
    weights = sorted((loop.folder / "networks").glob("*/weights.pt"))
    for path in (*(loop.folder / name for name in _FILES), *weights):
        if path.exists():
            name = path.relative_to(loop.folder).as_posix()
            rows.append((f"{name} (sha256)", hashlib.sha256(path.read_bytes()).hexdigest()))
    files = sorted(campaign.files().items(), key=lambda item: item[1])
    return [*rows, *((f"{name} (sha256)", sha) for sha, name in files)]
