"""What the run pages show of a trained network: from the JSON files of its folder, without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ohmloop import units
from ohmloop.errors import TrainError
from ohmloop.train import Evaluation, KeptCertificate, RunRecord, read_evaluations, read_run
from ohmloop.web._jobs import Jobs
from ohmloop.web._net_arrays import array_of, array_words
from ohmloop.web._net_words import plain_method
from ohmloop.web._workspace import Workspace

_NEUTRAL = {"mixture": 0.5, "censored": 0.3, "first": 1.0, "last": 1.0, "tile": 16}
"""Settings of noise that say nothing at these values, because another one switches them on."""
_UNSET = {"data": "as fetched, or with its package", "where": "every layer", "limit": "all samples"}
"""What a setting means that nobody made."""
_PLAIN_FILES = ("config.json", "result.json", "history.jsonl", "environment.json", "weights.pt")


class Row(NamedTuple):
    """A run as a line of the list.

    Attributes:
        name: Of its folder.
        state: "finished", "unfinished", "waits" or "runs".
        task: What it learns.
        method: How, as text.
        device: What it is trained for.
        on_arrays: Whether on arrays of it.
        metric: Name of the score; "" before it was measured.
        validation: Digital validation score; None before the end.
        measured: Mean score on the device that it was trained for, NaN where it was not measured.
        n_evaluations: Fleets that it was tested on.
        n_certificates: Certificates that are kept.
    """

    name: str
    state: str
    task: str
    method: str
    device: str
    on_arrays: bool = False
    metric: str = ""
    validation: float | None = None
    measured: float = math.nan
    n_evaluations: int = 0
    n_certificates: int = 0


def rows(workspace: Workspace, jobs: Jobs) -> list[Row]:
    """Return all runs of a workspace, the newest first; those that wait to be trained among them."""
    live = {j.target.removeprefix("run/"): j for j in jobs.list(kind="train") if not j.is_over}
    out = []
    known = workspace.runs()
    for name, job in live.items():
        a = job.arguments
        state = "waits" if job.state == "queued" else "runs"
        row = Row(name, state, str(a["task"]), str(a["method"]), str(a["device"]))
        out.append(row._replace(on_arrays=a.get("array") is not None))
    places = [(workspace.run(name), name) for name in known if name not in live]
    places.sort(key=lambda p: -(p[0] / "config.json").stat().st_mtime)
    return out + [_row(place, name) for place, name in places]


def _row(place: Path, name: str) -> Row:
    config = _json(place / "config.json")
    result = _json(place / "result.json")
    try:
        evaluations = read_evaluations(place)
    except TrainError:
        evaluations = ()
    own = [e for e in evaluations if is_own(e, config)]
    kept = _json(place / "certificates.json").get("kept", [])
    return Row(
        name=name,
        state="finished" if result else "unfinished",
        task=str(config.get("task", "?")),
        method=str(config.get("method", "?")),
        device=device_of(config),
        on_arrays=array_of(config) is not None,
        metric=evaluations[0].metric if evaluations else "",
        validation=result.get("validation_score"),
        measured=own[0].mean if own else math.nan,
        n_evaluations=len(evaluations),
        n_certificates=len(kept) if isinstance(kept, list) else 0,
    )


def _json(path: Path) -> dict[str, Any]:
    """Return a file of a run; nothing where it is missing or damaged: a list shows the others all the same."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def device_of(config: dict[str, Any]) -> str:
    """Return the names of the devices that a run was trained for."""
    try:
        return ", ".join(str(h["device"]["name"]) for h in config["hardware"])
    except (KeyError, TypeError):
        return "?"


def is_own(e: Evaluation, config: dict[str, Any]) -> bool:
    """Whether a fleet is one of the device, and the arrays, that a run was trained for."""
    return e.device == device_of(config) and e.hardware.get("array") == array_of(config)


@dataclass(frozen=True)
class RunView:
    """A run's folder as its page shows it.

    Attributes:
        name: Of the folder.
        record: What the folder says; None while it is not finished.
        config: What was asked for.
        problem: Why it cannot be read, else "".
    """

    name: str
    record: RunRecord | None
    config: dict[str, Any]
    problem: str = ""

    @classmethod
    def of(cls, workspace: Workspace, name: str) -> RunView:
        """Read a run; NotFoundError if there is none of this name."""
        place = workspace.run(name)
        config = _json(place / "config.json")
        if not (place / "result.json").exists():
            return cls(name, None, config)
        try:
            record = read_run(place)
        except TrainError as error:
            return cls(name, None, config, str(error))
        if not (isinstance(record.config, dict) and isinstance(record.result, dict)):
            return cls(name, None, config, "config.json or result.json is not that of a training.")
        return cls(name, record, config)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Fleets it was tested on, the quietest first."""
        found = () if self.record is None else self.record.evaluations
        return tuple(sorted(found, key=lambda e: (e.on_array, e.sigma, e.device)))

    @property
    def own(self) -> Evaluation | None:
        """The fleet of the device, and the arrays, that it was trained for."""
        return next((e for e in self.evaluations if is_own(e, self.config)), None)

    @property
    def array(self) -> str:
        """The arrays that it was trained for, in words; "" for the law on weights."""
        found = array_of(self.config)
        return "" if found is None else array_words(found)

    @property
    def chip_score(self) -> float | None:
        """Validation score on simulated chips of the array that it was trained for; None without one."""
        return None if self.record is None else self.record.result.get("chip_score")

    @property
    def is_share(self) -> bool:
        """Whether scores are shares of 1, so that they read well in percent."""
        return all(e.metric.endswith("accuracy") for e in self.evaluations)

    @property
    def metric(self) -> str:
        """Name of the score."""
        return self.evaluations[0].metric if self.evaluations else "score"

    def score(self, value: float | None) -> str:
        """Return a score as text."""
        if value is None or not math.isfinite(value):
            return "–"
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.4g}"

    def stale(self, kept: Evaluation | KeptCertificate) -> bool:
        """Whether it was measured on other weights than the folder holds now."""
        return self.record is not None and self.record.is_stale(kept)

    def settings(self) -> list[tuple[str, str]]:
        """Return every setting of the training, in words where words help."""
        c = self.config
        out = [
            ("task", str(c.get("task"))),
            ("network", str(c.get("model"))),
            ("method", f"{c.get('method')}: {plain_method(str(c.get('method')))}"),
            ("device", device_of(c)),
            ("arrays", self.array or "none: the law on the weights"),
        ]
        hidden = {"task", "model", "method", "hardware"}
        out += [
            (k.replace("_", " "), _UNSET.get(k, "none") if v in (None, "None") else _told(v))
            for k, v in c.items()
            if k not in hidden
        ]
        out += [(f"array {k.replace('_', ' ')}", _told(v)) for k, v in (array_of(c) or {}).items()]
        if self.record is not None:
            noise = self.record.result.get("noise", {})
            used = {k: v for k, v in noise.items() if v and v != "none" and _NEUTRAL.get(k) != v}
            out.append(("noise of the training that was kept", _told(used)))
            out.append(("cost", f"{self.record.result.get('cost', 0):.3g} plain training(s)"))
            out.append(("data seen", ", ".join(self.record.result.get("data_seen", []))))
        return out


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_told(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_told, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


# -- certificates in words ----------------------------------------------------------------------

STATEMENTS = {
    "S1": (
        "Every device within a distance",
        "For certain, whatever the law: nothing is random here.",
    ),
    "S2": ("A random device", "A device drawn from the law, not one given chip."),
    "S3": (
        "A random device after a systematic shift",
        "As before, and all its conductances may have moved together.",
    ),
}
"""Statement of a certificate -> its heading, and what it is about."""

KINDS = {
    "yield": "input by input",
    "quantile": "the share of devices that reaches an accuracy",
    "tail": "the worst devices on average",
    "percentile": "accuracy after a shift",
    "drift": "classes after a shift",
    "kl": "another law nearby",
    "box": "all weights off at once",
    "faults": "stuck cells",
    "published": "the published statement",
}
"""Kind of certificate -> what it is about."""


def certificates(view: RunView) -> list[tuple[str, list[KeptCertificate]]]:
    """Return the kept certificates by statement, S1 first."""
    kept = () if view.record is None else view.record.certificates
    groups = [(s, [c for c in kept if c.statement == s]) for s in STATEMENTS]
    return [(s, found) for s, found in groups if found]


def together(kept: Iterable[KeptCertificate]) -> float | None:
    """Return how sure it is that all sampled certificates hold at once, at least; None for one or none."""
    alphas = [float(c.record["alpha"]) for c in kept if c.record.get("n_draws")]
    return max(0.0, 1 - sum(alphas)) if len(alphas) > 1 else None


# -- energy and tiles ---------------------------------------------------------------------------


def energy(value: float | None) -> str:
    """Return joules with a prefix."""
    return "–" if value is None or not math.isfinite(value) else units.format(value, "J")


def fleet_name(e: Evaluation) -> str:
    """Return what a fleet is called in a plot and a table."""
    return f"{e.device}, arrays" if e.on_array else e.device


# -- files --------------------------------------------------------------------------------------


class File(NamedTuple):
    """A file of a run that may be taken along: its path in the folder, and its size in words."""

    path: str
    size: str


def files(workspace: Workspace, name: str) -> list[File]:
    """Return the files of a run that may be downloaded; links that lead out are left out."""
    place = workspace.run(name)
    found = [place / n for n in (*_PLAIN_FILES, "certificates.json")]
    if workspace.is_inside(place / "evaluations"):
        found += sorted((place / "evaluations").glob("*.json"))
    return [
        File(path.relative_to(place).as_posix(), _size(path.stat().st_size))
        for path in found
        if path.is_file() and workspace.is_inside(path)
    ]


def _size(n: int) -> str:
    if n < 1000:
        return f"{n} B"
    return f"{n / 1000:.0f} kB" if n < 1e6 else f"{n / 1e6:.1f} MB"
