"""A finished run scored on fleets of virtual devices, on test data or by what it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ohmloop.crossbar import Hardware
from ohmloop.errors import TrainError
from ohmloop.nn import (
    Deployment,
    FleetResult,
    evaluate_fleets,
    evaluate_measure,
    summary,
)
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Split
from ohmloop.train._fit import Run, load_run
from ohmloop.train._folder import environment
from ohmloop.train._record import (
    ArrayUse,
    Evaluation,
    LayerUse,
    evaluation_name,
    file_hash,
    write_evaluation,
)
from ohmloop.train._setting import random_subset, unlabelled_inputs


def own_hardwares(run: Run) -> tuple[Hardware, ...]:
    """Return what a finished run was trained for, as its configuration holds it."""
    return tuple(Hardware.model_validate(kept) for kept in run.config["hardware"])


def evaluate_folder(
    folder: str | Path,
    hardwares: Sequence[Hardware] | None = None,
    *,
    deployment: Deployment | None = None,
    n_devices: int = 100,
    seed: int = 0,
    test_limit: int | None = None,
    by_doing: bool = False,
    progress: Progress = silent,
) -> list[Evaluation]:
    """Score a finished run on virtual devices of each hardware, and keep what came of it in its folder.

    Args:
        folder: Of the run.
        hardwares: As for `evaluate_run`.
        deployment: As for `evaluate_run`; by default the one that the run was trained for.
        n_devices: As for `evaluate_run`, as are the others.
        seed: Of the fleets.
        test_limit: Use only that many test samples.
        by_doing: Score by the task's own measure.
        progress: Told as devices are done.

    Returns:
        One `Evaluation` for each hardware, kept as ``RUN/evaluations/NAME.json``; those on arrays with tiles
        and energy by layer.

    Raises:
        TrainError: As `load_run` and `evaluate_run` do, or if the folder cannot be written.
    """
    path = Path(folder)
    weights = file_hash(
        path / "weights.pt"
    )  # before they are read: a change meanwhile shows as stale
    run = load_run(path)
    chosen = own_hardwares(run) if hardwares is None else tuple(hardwares)
    deployed = deployment or Deployment.parse(run.config.get("deployment", "none"))
    fleets = evaluate_run(
        run,
        chosen,
        deployment=deployed,
        n_devices=n_devices,
        seed=seed,
        test_limit=test_limit,
        by_doing=by_doing,
        progress=progress,
    )
    out = []
    for hardware, fleet in zip(chosen, fleets, strict=True):
        question = {
            "hardware": hardware.model_dump(mode="json"),
            "deployment": str(deployed),
            "n_devices": n_devices,
            "seed": seed,
            "test_limit": test_limit,
            "by_doing": by_doing,
        }
        figures = fleet.to_dict()
        kept = Evaluation(
            **question,
            **{k: figures[k] for k in _FIGURES},
            name=evaluation_name(fleet.device, question),
            task=run.task.name,
            model=str(run.config["model"]),
            method=str(run.config["method"]),
            arrays=None if hardware.array is None else _use(run, hardware, fleet),
            weights_sha256=weights,
            config_sha256=file_hash(path / "config.json"),
            versions=environment(),
        )
        write_evaluation(path, kept)
        out.append(kept)
    return out


_FIGURES = (
    "device",
    "sigma",
    "convention",
    "n_samples",
    "layer_arrays",
    "metric",
    "is_higher_better",
    "digital",
    "mean",
    "std",
    "worst_tenth",
    "scores",
    "figures",
)


def _use(run: Run, hardware: Hardware, fleet: FleetResult) -> ArrayUse:
    """Return tiles and energy by layer, driven by inputs that the network was not trained on."""
    _, validation = run.task.development(run.config["seed"], run.config["limit"])
    averaging = Deployment(layer_arrays=fleet.layer_arrays)
    rows = summary(run.on(hardware), example=validation.x[:_EXAMPLES], deployment=averaging)
    return ArrayUse(
        layers=tuple(
            LayerUse(**{name: getattr(row, name) for name in LayerUse.model_fields}) for row in rows
        ),
        tiles=rows.tiles,
        energy=rows.energy,
    )


def evaluate_run(
    run: Run,
    hardwares: Sequence[Hardware] | None = None,
    *,
    deployment: Deployment | None = None,
    n_devices: int = 100,
    seed: int = 0,
    test_limit: int | None = None,
    by_doing: bool = False,
    progress: Progress = silent,
) -> list[FleetResult]:
    """Score a finished run on virtual devices of each hardware.

    Args:
        run: From `load_run`.
        hardwares: What devices are drawn from; by default what the run was trained for.
        deployment: What each device gets beside its weights; inputs that it is shown are training inputs.
        n_devices: Size of each fleet.
        seed: Of the fleets.
        test_limit: Use only that many test samples, drawn at random once for all.
        by_doing: Score by the task's own measure (routes driven, formulas read), one device at a time,
            where it has one.
        progress: Told as devices are done.

    Raises:
        TrainError: If ``by_doing`` is asked of a task that is scored by its outputs alone, or together with
            ``test_limit``: a measure by doing has its own routes or formulas, all of which count.
    """
    if by_doing and test_limit is not None:
        raise TrainError(
            f"a test limit of {test_limit} samples does not go with scoring by doing, which has its own "
            "routes, formulas or questions: leave out --test-limit, or --by-doing. Fewer --devices make it "
            "shorter."
        )
    hardwares = own_hardwares(run) if hardwares is None else hardwares
    deployed = deployment or Deployment()
    task, data_seed, limit = run.task, run.config["seed"], run.config["limit"]
    unlabelled = None
    if deployed.needs_inputs:
        unlabelled = unlabelled_inputs(
            task.development(data_seed, limit)[0], data_seed, deployed.samples
        )
    measure = None
    if by_doing:
        measure = task.measure()
        if measure is None:
            raise TrainError(f"{task.name} is scored by its outputs alone; leave out --by-doing.")
    else:
        test = task.test(data_seed, limit)
        if test_limit is not None:
            keep = random_subset(len(test.x), test_limit, 0)
            test = Split(test.x[keep], test.y[keep])

    def scored(model: nn.Module, group: Sequence[Hardware]) -> list[FleetResult]:
        if measure is not None:
            return evaluate_measure(
                model,
                measure,
                group,
                name=f"{task.name}, by doing",
                n_devices=n_devices,
                seed=seed,
                deployment=deployed,
                unlabelled=unlabelled,
                progress=progress,
            )
        return evaluate_fleets(
            model,
            test,
            group,
            n_devices=n_devices,
            seed=seed,
            metric=task.metric,
            deployment=deployed,
            unlabelled=unlabelled,
            progress=progress,
        )

    group = [h for h in hardwares if h.array is None]
    law = iter(scored(run.on(group[0]), group) if group else ())
    return [next(law) if h.array is None else scored(run.on(h), [h])[0] for h in hardwares]


_EXAMPLES = 16
"""Validation inputs that energy and products' errors are taken over; `ohmloop.codesign` takes as many."""
