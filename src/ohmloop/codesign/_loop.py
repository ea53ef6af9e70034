"""The closed loop: measured devices -> law -> network -> worth of device properties -> next recipes.

A loop is a campaign folder with ``codesign.toml``, trained networks and ``task-accuracy.json`` in it. All that
counts is on the disk after each part: a loop that was stopped anywhere goes on with the next `step`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ohmloop.campaign import (
    Advice,
    Campaign,
    Config,
    Trial,
    law_of,
    read_config,
    reassess,
    template,
)
from ohmloop.codesign._networks import Wanted, train_missing
from ohmloop.codesign._sensitivity import Sensitivity, Worth, sensitivity
from ohmloop.codesign._settings import SETTINGS, LoopSettings, read_settings, settings_text
from ohmloop.codesign._steps import STEPS, read_steps
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, Estimate, load_device, save_task_accuracy
from ohmloop.errors import CampaignError
from ohmloop.progress import Progress, silent
from ohmloop.run import Executor, using
from ohmloop.tasks import task
from ohmloop.train import Run, load_run

ACCURACY, WORTHS, NETWORKS = "task-accuracy.json", "worths.json", "networks"
_SMALLEST, _LARGEST = 0.05, 2.0  # noise levels that training is asked for, at most


@dataclass(frozen=True)
class Step:
    """What one step of the loop found, and what it asks for.

    Attributes:
        number: Of the step, from 1.
        n_experiments: Devices measured or failed so far.
        trial: The trial believed best, "" before there is one.
        recipe: Its recipe.
        sigma: Noise of its devices (median), or of the law assumed before any was measured.
        method: How the networks in use were trained.
        retrained: Whether they were trained in this step.
        score: Expected score on the best device, on validation data; None before there is one.
        error: Its standard error.
        worths: What improvements of the device are worth, in words, the largest first.
        gain: Expected gain in score for each experiment of the next batch; None if it cannot be said yet.
        verdict: "go on", "stop" or "look".
        text: Why.
        suggestions: Trials that wait to be made.
    """

    number: int
    n_experiments: int
    trial: str
    recipe: dict[str, Any]
    sigma: float
    method: str
    retrained: bool
    score: float | None
    error: float | None
    worths: tuple[str, ...]
    gain: float | None
    verdict: str
    text: str
    suggestions: tuple[str, ...]


@dataclass(frozen=True)
class CodesignLoop:
    """A loop's folder and its settings; use `new` or `open`, then `step` again and again.

    Attributes:
        folder: A campaign folder.
        settings: As ``codesign.toml`` has them.
    """

    folder: Path
    settings: LoopSettings

    @classmethod
    def new(
        cls,
        folder: str | Path,
        settings: LoopSettings | None = None,
        *,
        template_name: str = "perovskite-nanowires",
    ) -> CodesignLoop:
        """Start a loop: a campaign with the objective "task_accuracy", and ``codesign.toml``.

        A campaign that is there already is taken as it is, if its objective is "task_accuracy".

        Args:
            folder: Where.
            settings: Of the network's half.
            template_name: Campaign template for a new campaign; its objectives are replaced.

        Raises:
            CampaignError: If a loop is there already, or the campaign has another objective.
        """
        place, settings = Path(folder), settings or LoopSettings()
        if (place / SETTINGS).exists():
            raise CampaignError(
                f"{place} holds a loop already; go on: ohmloop codesign step {place}"
            )
        goal = _goal(settings)
        if (place / "campaign.toml").exists():
            _one_objective(read_config(place / "campaign.toml"), goal)
            if not (place / "campaign.db").exists():
                Campaign.new(place).close()
        else:
            Campaign.new(place, text=with_task_accuracy(template(template_name), goal)).close()
        (place / SETTINGS).write_text(settings_text(settings), encoding="utf-8")
        return cls(place, settings)

    @classmethod
    def open(cls, folder: str | Path) -> CodesignLoop:
        """Open a loop's folder.

        Raises:
            CampaignError: If it holds no loop.
        """
        place = Path(folder)
        return cls(place, read_settings(place / SETTINGS))

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What the steps so far found, oldest first."""
        return read_steps(self.folder)

    @property
    def worths(self) -> tuple[Worth, ...]:
        """What improvements of the device were worth in the last step, the largest first; none before it."""
        path = self.folder / WORTHS
        if not path.exists():
            return ()
        try:
            return tuple(Worth(**kept) for kept in json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CampaignError(
                f"{path} is damaged ({error}). The next step makes it anew: ohmloop codesign step {self.folder}"
            ) from error

    def step(
        self,
        *,
        q: int | None = None,
        executor: Executor | str | None = None,
        progress: Progress = silent,
    ) -> Step:
        """Go round once: law, network, worth, suggestions. A step that was interrupted goes on where it was.

        The networks are trained for the best device so far, or reused while its noise is near to what they were
        trained for. Every measured device is then judged by them anew. Where a batch waits to be made, no
        further one is suggested.

        Args:
            q: Suggestions; by default the batch of ``campaign.toml``.
            executor: Where networks are trained and scored (`ohmloop.run`): one that is open, or its text.
            progress: Told of trainings.
        """
        with using(executor) as opened, Campaign.open(self.folder) as campaign:
            _one_objective(campaign.config, _goal(self.settings))
            _, law = self._best(campaign)
            runs, method, retrained = self._networks(law, opened, progress)
            found = self._sensitivity(runs, law, opened, progress)
            reassess(campaign)
            best, law = self._best(campaign)
            status = campaign.status()
            advice = status.advice
            assert advice is not None
            batch = q or campaign.config.suggest.batch
            gain, verdict, text = stop_rule(advice, batch, self.settings.stop_gain)
            waiting = [t for t in campaign.trials.values() if t.is_open]
            if not waiting and verdict != "stop":
                waiting = campaign.suggest(batch)
            known = None if best is None else found.surrogate.of(law)
            step = Step(
                number=len(self.steps) + 1,
                n_experiments=sum(len(t.records) for t in campaign.trials.values()),
                trial="" if best is None else best.id,
                recipe={} if best is None else dict(best.recipe),
                sigma=law.sigma.value,
                method=method,
                retrained=retrained,
                score=None if known is None else known.mean,
                error=None if known is None else known.error,
                worths=tuple(found.sentences()),
                gain=gain,
                verdict=verdict,
                text=text,
                suggestions=tuple(t.id for t in waiting),
            )
        with (self.folder / STEPS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(step)) + "\n")
        return step

    def networks(self) -> list[Run]:
        """Return the networks in use.

        Raises:
            CampaignError: If no step has been made yet.
        """
        record = self.folder / NETWORKS / "trained-for.json"
        if not self.steps:
            raise CampaignError(
                f"{self.folder} has no network yet: ohmloop codesign step {self.folder}"
            )
        kept = json.loads(record.read_text(encoding="utf-8"))
        return self._loaded(kept["method"], DeviceModel.model_validate(kept["law"]))

    def _best(self, campaign: Campaign) -> tuple[Trial | None, DeviceModel]:
        """Return the trial believed best and the law of its devices; before there is one, the assumed law."""
        for trial, _ in campaign.best():
            laws = [
                law
                for record in trial.records
                if record.is_usable
                and (law := law_of(record.figures, f"{trial.id} {record.device}")) is not None
            ]
            if laws:
                return trial, _typical(laws, trial.id)
        return None, load_device(self.settings.first_device)

    def _run_folder(self, method: str, law: DeviceModel, k: int) -> Path:
        # A trial's law changes with its devices: the digest keeps one law's networks from another's.
        digest = hashlib.sha256(law.model_dump_json().encode()).hexdigest()[:8]
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{method} on {law.name} {digest}").strip("-")
        return self.folder / NETWORKS / f"{name}-{self.settings.seed + k}"

    def _networks(
        self, law: DeviceModel, executor: Executor, progress: Progress
    ) -> tuple[list[Run], str, bool]:
        """Return networks that are trained for about this noise: those there are, or new ones."""
        record = self.folder / NETWORKS / "trained-for.json"
        method, target = self._asked(law), law
        if record.exists():
            old = json.loads(record.read_text(encoding="utf-8"))
            known = DeviceModel.model_validate(old["law"])
            ratio = _noise(law) / _noise(known)
            if max(ratio, 1.0 / ratio) <= self.settings.retrain_factor:
                method, target = old["method"], known
        # Noted before the training: one that is killed goes on for the same law.
        record.parent.mkdir(exist_ok=True)
        kept = {"method": method, "law": target.model_dump(mode="json")}
        record.write_text(json.dumps(kept) + "\n", encoding="utf-8")
        retrained = train_missing(self._wanted(method, target), executor, progress)
        return self._loaded(method, target), method, retrained

    def _wanted(self, method: str, law: DeviceModel) -> list[Wanted]:
        """Return the networks of one method and law, one for each training seed."""
        settings = self.settings
        return [
            Wanted(
                place=self._run_folder(method, law, k),
                task=settings.task,
                method=method,
                seed=settings.seed + k,
                hardware=Hardware(device=law),
                data=settings.data,
                model=settings.model,
                deployment=settings.deployment,
                epochs=settings.epochs,
                limit=settings.limit,
            )
            for k in range(settings.networks)
        ]

    def _loaded(self, method: str, law: DeviceModel) -> list[Run]:
        return [load_run(self._run_folder(method, law, k)) for k in range(self.settings.networks)]

    def _asked(self, law: DeviceModel) -> str:
        return self.settings.method.replace("{sigma}", f"{_noise(law):.2g}")

    def _sensitivity(
        self, runs: Sequence[Run], law: DeviceModel, executor: Executor, progress: Progress
    ) -> Sensitivity:
        found = sensitivity(
            runs,
            Hardware(device=law),
            n_points=self.settings.points,
            n_devices=self.settings.devices,
            executor=executor,
            progress=progress,
        )
        save_task_accuracy(found.surrogate, self.folder / ACCURACY)
        (self.folder / WORTHS).write_text(
            json.dumps([asdict(w) for w in found.worths], indent=1) + "\n", encoding="utf-8"
        )
        return found


def stop_rule(advice: Advice, n: int, least: float) -> tuple[float | None, str, str]:
    """Return the expected gain for each of the next ``n`` experiments, the verdict, and why.

    The campaign's own verdict stands; where that is to go on, a gain below ``least`` an experiment stops.
    """
    if not advice.worth:
        return None, advice.verdict, advice.text
    gain = advice.worth[0].gain / n
    if advice.verdict == "go on" and gain < least:
        return gain, "stop", f"{advice.text} That is {gain:.2g} an experiment, below {least:g}."
    return gain, advice.verdict, advice.text


def _noise(law: DeviceModel) -> float:
    return min(max(law.sigma.value, _SMALLEST), _LARGEST)


def with_task_accuracy(text: str, goal: str = "maximise") -> str:
    r"""Return the text of a ``campaign.toml`` whose objectives are replaced by "task_accuracy".

    >>> print(with_task_accuracy('[[objectives]]\nname = "usability"\n\n[budget]\ntrials = 3\n'))
    [[objectives]]
    name = "task_accuracy"
    goal = "maximise"
    <BLANKLINE>
    [budget]
    trials = 3
    <BLANKLINE>
    """
    parts = re.split(r"(?m)^(?=\[)", text)
    kept = [part for part in parts if not part.startswith("[[objectives]]")]
    first = next((k for k, p in enumerate(parts) if p.startswith("[[objectives]]")), len(kept))
    kept.insert(min(first, len(kept)), _objective_text(goal) + "\n")
    return "".join(kept)


def _objective_text(goal: str) -> str:
    return f'[[objectives]]\nname = "task_accuracy"\ngoal = "{goal}"\n'


def _goal(settings: LoopSettings) -> str:
    metric = task(settings.task, settings.data).metric
    return "maximise" if metric.is_higher_better else "minimise"


def _one_objective(config: Config, goal: str) -> None:
    names = [(o.figure or o.name, o.goal) for o in config.objectives]
    if names != [("task_accuracy", goal)]:
        has = ", ".join(f"{name} ({wish})" for name, wish in names) or "none"
        raise CampaignError(
            f'a loop of device and network has the one objective "task_accuracy", here to {goal}; this '
            f"campaign has {has}. Change campaign.toml:\n{_objective_text(goal)}"
        )


def _typical(laws: Sequence[DeviceModel], name: str) -> DeviceModel:
    """Return the law of several devices of one recipe: the device of middle sigma, with the widest interval."""
    ranked = sorted(laws, key=lambda law: law.sigma.value)
    middle = ranked[(len(ranked) - 1) // 2]
    lows = [law.sigma.low for law in laws if law.sigma.low is not None]
    highs = [law.sigma.high for law in laws if law.sigma.high is not None]
    sigma = Estimate(
        value=middle.sigma.value, low=min(lows, default=None), high=max(highs, default=None)
    )
    return middle.model_copy(update={"name": name, "sigma": sigma})
