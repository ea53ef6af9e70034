"""A comparison of methods as a file, with all that a report of it needs; read back without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ohmloop.errors import TrainError
from ohmloop.train._folder import environment, read_json, write_json
from ohmloop.train._record import Number

if TYPE_CHECKING:
    from ohmloop.crossbar import Hardware
    from ohmloop.train._compare import Comparison


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ComparisonRow(_Kept):
    """One method, deployed in one way, over seeds and hardwares.

    Attributes:
        method: As text, settings included.
        deployment: What each device got beside its weights, as text.
        needs: The same in words.
        cost: Passes over the training data for each seed, in units of one plain training.
        clean: Digital test scores, one a seed.
        scores: Test scores, ``hardwares x seeds x devices``.
        settings: What each seed's training ended with, in words.
    """

    method: str
    deployment: str
    needs: str
    cost: float
    clean: tuple[Number, ...]
    scores: tuple[tuple[tuple[Number, ...], ...], ...]
    settings: tuple[str, ...]


class ComparisonRecord(_Kept):
    """Methods compared on the same network, budget, seeds and devices: what `ohmloop compare -o` writes.

    Attributes:
        schema_version: Version of this layout; 1.
        kind: "comparison".
        task: Name of the task.
        description: What is asked, in words.
        citation: Source and licence of the data.
        model: Name of the network.
        metric: Name of the score.
        is_higher_better: False for an error.
        hardware: What devices were drawn from: `ohmloop.crossbar.Hardware` as JSON, in the order of the scores.
        seeds: Of the trainings.
        n_devices: Virtual devices (simulated) for each hardware and seed.
        evaluation_seed: Seed of the first training's devices; the k-th training seed's is that much later.
        epochs: Of one plain training.
        batch_size: Inputs a step.
        lr: Largest learning rate.
        limit: Development samples used at most; None for all.
        test_limit: Test samples used at most; None for all.
        rows: One for each method and deployment.
        versions: Of python and the packages that computed it.
    """

    schema_version: Literal[1] = 1
    kind: Literal["comparison"] = "comparison"
    task: str
    description: str
    citation: str
    model: str
    metric: str
    is_higher_better: bool
    hardware: tuple[dict[str, Any], ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    n_devices: Annotated[int, Field(ge=1)]
    evaluation_seed: int
    epochs: int
    batch_size: int
    lr: float
    limit: int | None = None
    test_limit: int | None = None
    rows: tuple[ComparisonRow, ...] = Field(min_length=1)
    versions: dict[str, str]

    @model_validator(mode="after")
    def _fits(self) -> ComparisonRecord:
        for row in self.rows:
            sizes = {len(per_seed) for per_seed in row.scores} | {len(row.clean)}
            devices = {len(d) for per_seed in row.scores for d in per_seed}
            if (len(row.scores), sizes, devices) != (
                len(self.hardware),
                {len(self.seeds)},
                {self.n_devices},
            ):
                raise ValueError(
                    f"the scores of {row.method!r} are not {len(self.hardware)} hardwares x "
                    f"{len(self.seeds)} seeds x {self.n_devices} devices"
                )
        return self


def comparison_record(
    rows: Sequence[Comparison],
    hardwares: Sequence[Hardware],
    *,
    task: str,
    folder: str | None = None,
    model: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    n_devices: int = 30,
    epochs: int | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
) -> ComparisonRecord:
    """Return what `compare` found together with what it was asked, which are the other arguments.

    Settings that were left to the task are written out.
    """
    from ohmloop.tasks import task as load
    from ohmloop.train._compare import EVALUATION_SEED

    found = load(task, folder)
    entry = found.entry
    return ComparisonRecord(
        task=found.name,
        description=entry.description,
        citation=entry.citation,
        model=model or found.default_model,
        metric=rows[0].metric,
        is_higher_better=rows[0].is_higher_better,
        hardware=tuple(h.model_dump(mode="json") for h in hardwares),
        seeds=tuple(seeds),
        n_devices=n_devices,
        evaluation_seed=EVALUATION_SEED,
        epochs=entry.epochs if epochs is None else epochs,
        batch_size=entry.batch_size,
        lr=entry.lr,
        limit=limit,
        test_limit=test_limit,
        rows=tuple(
            ComparisonRow(
                method=r.method,
                deployment=r.deployment,
                needs=r.needs,
                cost=r.cost,
                clean=r.clean.tolist(),
                scores=r.scores.tolist(),
                settings=r.settings,
            )
            for r in rows
        ),
        versions=environment(),
    )


def write_comparison_record(record: ComparisonRecord, path: str | Path) -> Path:
    """Write a comparison as JSON; the file is replaced as a whole or not at all.

    Raises:
        TrainError: If it cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, record.model_dump(mode="json"))
    except OSError as error:
        raise TrainError(f"{target} cannot be written: {error.strerror or error}.") from error
    return target


def read_comparison_record(path: str | Path) -> ComparisonRecord:
    """Read what `write_comparison_record` wrote; loads no torch.

    Raises:
        TrainError: If the file is missing, damaged or something else.
    """
    try:
        return ComparisonRecord.model_validate(read_json(Path(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrainError(
            f"{path} holds no comparison: {where}: {first['msg']}. Make one: `ohmloop compare -o {path}`."
        ) from error
