"""The loop with the virtual lab in the place of people: simulated devices, made, measured and ingested."""

from __future__ import annotations

from ohmloop.campaign import Campaign, make_in_virtual_lab
from ohmloop.campaign._virtual import take_in
from ohmloop.codesign._loop import CodesignLoop, Step
from ohmloop.progress import Progress, ProgressEvent, silent
from ohmloop.run import Executor, using

MEASURED = "measured"


def make_waiting(loop: CodesignLoop, *, n_devices: int = 1, seed: int = 0) -> int:
    """Make the trials that wait in the virtual lab and take in what it measured; SIMULATED.

    Args:
        loop: Its open trials are made.
        n_devices: Devices a trial.
        seed: Of the virtual lab; keep it over a loop.

    Returns:
        How many devices were made, those that failed included.
    """
    with Campaign.open(loop.folder) as campaign:
        waiting = [t.id for t in campaign.trials.values() if t.is_open]
        if not waiting:
            return 0
        place = loop.folder / MEASURED / f"{waiting[0]}-{waiting[-1]}"
        made = make_in_virtual_lab(campaign, place, n_devices=n_devices, seed=seed)
        take_in(campaign, place, made)
    return len(made)


def run_in_virtual_lab(
    loop: CodesignLoop,
    n_experiments: int,
    *,
    n_devices: int = 1,
    seed: int = 0,
    executor: Executor | str | None = None,
    progress: Progress = silent,
) -> list[Step]:
    """Step and make in turn until the loop says stop or the experiments are used up; SIMULATED.

    Args:
        loop: To go on with.
        n_experiments: Devices in all, those from earlier calls included.
        n_devices: Devices a trial.
        seed: Of the virtual lab.
        executor: As for `CodesignLoop.step`.
        progress: Told after each round.

    Returns:
        The steps made in this call; the last one judges everything that was measured.
    """
    with using(executor) as opened:
        steps = [loop.step(executor=opened, progress=progress)]
        while steps[-1].n_experiments < n_experiments and steps[-1].verdict != "stop":
            if not make_waiting(loop, n_devices=n_devices, seed=seed):
                break
            steps.append(loop.step(executor=opened, progress=progress))
            progress(ProgressEvent("experiments", steps[-1].n_experiments, n_experiments))
    return steps
