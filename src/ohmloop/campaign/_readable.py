"""What an open campaign can be asked: its trials, its files, where it stands, what is best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ohmloop import bo
from ohmloop.campaign._advice import Advice, CampaignStatus, advise, measured_mean, status_of
from ohmloop.campaign._ask import pins_now, problem_now, refused
from ohmloop.campaign._config import Config
from ohmloop.campaign._log import LogLine, log_lines
from ohmloop.campaign._observe import checked, observe, recipe_now
from ohmloop.campaign._trials import State, Trial, extended
from ohmloop.data import FileRecipe
from ohmloop.errors import SearchError
from ohmloop.store import Store


class Readable:
    """The reading half of `Campaign`."""

    folder: Path
    config: Config
    _store: Store
    _state: State

    @property
    def state(self) -> State:
        """Everything that was recorded, by anybody, up to now."""
        self._state = extended(self._state, self._store.events(self._state.last_event))
        return self._state

    @property
    def trials(self) -> dict[str, Trial]:
        """Id -> trial."""
        return self.state.trials

    def problem(self) -> bo.Problem:
        """Return the search as the optimiser sees it, with options that only old trials have."""
        return problem_now(self.config, self.state)

    def observations(self) -> list[bo.Observation]:
        """Return one observation a trial with results, then those of earlier campaigns."""
        return observe(self.config, self.state)[0]

    def log(self) -> list[LogLine]:
        """Return every event in words, those that were taken back marked."""
        return log_lines(self.config, self.state)

    def outside(self, recipe: Mapping[str, bo.Value]) -> list[str]:
        """Return in words where a recipe leaves the space or breaks a rule; empty where it does not."""
        return checked(self.config, recipe_now(self.config, recipe, "the recipe"))[1]

    def files(self) -> dict[str, str]:
        """Return sha256 -> name of the raw files kept."""
        return self._store.files()

    def file_path(self, sha256: str) -> Path:
        """Return where a raw file lies in the folder."""
        return self._store.file_path(sha256)

    def check(self) -> list[str]:
        """Return what is wrong with the folder, in words; empty when all is well."""
        return self._store.check()

    def status(self, *, advice: bool = True) -> CampaignStatus:
        """Return where the campaign stands.

        Args:
            advice: Whether to fit the model and say what one more batch is worth (some seconds).
        """
        plain = status_of(self.config, self.state, None)
        if not advice:
            return plain
        return status_of(self.config, self.state, self.advice(plain))

    def advice(self, status: CampaignStatus | None = None) -> Advice:
        """Return whether to go on, and what the next batch is expected to bring."""
        status = status_of(self.config, self.state, None) if status is None else status
        observations, _ = observe(self.config, self.state)
        q = self.config.suggest.batch
        if sum(o.source == "" for o in observations) < 2 or not self.config.objectives:
            return advise(self.config, status, [], q)
        problem = self.problem()
        own = [o.point for o in observations if o.source == ""]
        context = {
            v.name: point[v.name]
            for v in problem.space.variables
            for point in own
            if v.context and v.name in point
        }  # as it was for the last trial
        seed = self.config.suggest.seed
        try:
            batch = bo.suggest(
                problem,
                observations,
                q,
                rejected=refused(self.config, self.state),
                fixed={**context, **pins_now(self.config, self.state)},  # type: ignore[dict-item]  # recorded values are never None
                seed=seed,
            )
        except SearchError as error:
            return Advice("look", str(error))
        worth = bo.worth(problem, observations, batch, seed=seed)
        return advise(self.config, status, worth, len(batch))

    def best(self) -> list[tuple[Trial, dict[str, float]]]:
        """Return the best usable trials: the one believed best, or the Pareto front of several objectives.

        Each comes with its measured means. With noise the luckiest measurement is not the best recipe, so the
        model's mean decides for one objective. Empty before there is one.
        """
        observations, names = observe(self.config, self.state)
        problem = self.problem()
        if len(problem.objectives) == 1:
            index = bo.best_recipe(problem, observations)
            rows = [] if index is None else [index]
        elif problem.objectives:
            rows = bo.pareto(problem, observations)
        else:
            rows = [k for k, o in enumerate(observations) if o.is_usable and not o.source]
        out = []
        for k in rows:
            trial = self.state.trials[names[k]]
            means = {o.name: measured_mean(trial, o.name) for o in self.config.objectives}
            out.append((trial, {name: x for name, x in means.items() if x is not None}))
        return out

    @property
    def file_recipes(self) -> dict[str, FileRecipe]:
        """Name -> which column is which, as kept with the campaign."""
        return {name: FileRecipe.from_dict(data) for name, data in self.state.file_recipes.items()}
