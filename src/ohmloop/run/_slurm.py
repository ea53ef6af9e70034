"""Jobs of a Slurm cluster, handed in through submitit."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from ohmloop.errors import ExecutorError
from ohmloop.run._payload import Dumps, run
from ohmloop.run._protocol import RETRIES, Resources
from ohmloop.run._workers import Job, Lost, Workers

JOBS = Path("ohmloop-jobs")
MINUTES = 240
"""Wall time of a job that asks for none; submitit's own 5 minutes end most trainings."""
N_JOBS = 16
_POLL = {"local": 0.05, "slurm": 1.0}  # seconds between looks at the result file


class SlurmPool(Workers):
    """One job of the cluster for each attempt at a trial.

    Jobs find function, arguments and results in ``folder``, which all nodes must see. Where sacct reports
    that a job is gone without a result (its node failed, it was preempted, its time was over), the trial is
    handed in again. Ctrl-C cancels the jobs; a coordinator that is killed leaves them to end by themselves.

    Args:
        n_workers: Jobs on the cluster at a time, waiting ones included.
        resources: Of each trial.
        partition: Where to; the cluster's own choice by default.
        options: Further options of sbatch by submitit's names, like ``{"account": "lab"}``.
        folder: Where jobs and their logs lie; emptied of what worked.
        cluster: "slurm", or "local" for plain processes: to try a set-up without a cluster.
        retries: Further attempts at a trial whose job was lost.

    Raises:
        ExecutorError: If submitit is missing, or there is no Slurm here.
    """

    def __init__(
        self,
        n_workers: int = N_JOBS,
        resources: Resources | None = None,
        *,
        partition: str | None = None,
        options: Mapping[str, str] | None = None,
        folder: str | Path = JOBS,
        cluster: str = "slurm",
        retries: int = RETRIES,
    ) -> None:
        try:
            import cloudpickle  # type: ignore[import-untyped]  # has no types
            import submitit
        except ImportError:
            raise ExecutorError(
                'the Slurm executor needs submitit: pip install "ohmloop[slurm]"'
            ) from None
        if cluster not in _POLL:
            raise ExecutorError(f'cluster is "slurm" or "local"; received {cluster!r}.')
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ExecutorError(
                "there is no sbatch here: the Slurm executor runs where jobs are handed in, on a login node. "
                "To try it without a cluster: slurm:cluster=local"
            )
        _whole((resources or Resources()).gpus)
        super().__init__(f"slurm:{n_workers}", n_workers, resources or Resources(), retries)
        self.dumps: Dumps = cloudpickle.dumps
        self._folder, self._cluster = Path(folder).absolute(), cluster
        self._options = {"partition": partition, **(options or {})}
        self._submitit: Any = submitit
        self._jobs_lock = threading.Lock()  # submitit is not made for threads
        self._has_lost = False

    def make_scratch(self) -> Path:
        """Make a folder of this executor among those of other runs."""
        place = self._folder / uuid4().hex[:12]
        place.mkdir(parents=True)
        return place

    def attempt(self, job: Job) -> bytes:
        """Hand in one job and wait until its result file is there or the cluster says that it is gone."""
        folder = self.scratch() / "jobs"
        with self._jobs_lock:
            executor = self._submitit.AutoExecutor(folder=folder, cluster=self._cluster)
            try:
                executor.update_parameters(**self._parameters(job.resources))
                handed_in = executor.submit(run, job.payload, job.resources.cpus)
            except Exception as error:  # FailedJobError, with sbatch's own words; a full disk
                raise ExecutorError(f"{self.name}: the job was refused: {error}") from error
        stopped = threading.Event()
        try:
            with job.running(stopped.set):
                while not self._is_done(handed_in):
                    if stopped.wait(_POLL[self._cluster]):
                        raise Lost("cancelled")
        except Lost:
            self._cancel(handed_in)
            raise
        return self._result(handed_in)

    def end(self) -> None:
        """Keep the logs of lost jobs, and say nothing of the rest."""
        if self._has_lost and self._scratch is not None:
            self._scratch = None

    def _parameters(self, resources: Resources) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "name": "ohmloop",
            "timeout_min": resources.minutes or MINUTES,
            "cpus_per_task": resources.cpus,
            "gpus_per_node": _whole(resources.gpus),
            "mem_gb": resources.memory,
        }
        asked |= {f"slurm_{name}": value for name, value in self._options.items()}
        return {key: value for key, value in asked.items() if value is not None}

    def _is_done(self, handed_in: Any) -> bool:
        with self._jobs_lock:
            return bool(handed_in.done())

    def _result(self, handed_in: Any) -> bytes:
        paths, state = handed_in.paths, handed_in.state
        if self._cluster == "slurm" or paths.result_pickle.exists():
            try:
                outcome: bytes = handed_in.result()  # waits a little for a slow file system
            except Exception as error:  # FailedJobError, UncompletedJobError, a torn file
                state = f"{state}, {str(error).strip().splitlines()[-1]}"
            else:
                for path in (paths.result_pickle, paths.submitted_pickle):
                    path.unlink(missing_ok=True)
                return outcome
        self._has_lost = True
        raise Lost(
            f"job {handed_in.job_id} ended without a result ({state}); its log: {paths.stderr}"
        )

    def _cancel(self, handed_in: Any) -> None:
        with self._jobs_lock:
            handed_in.cancel()
        deadline = time.monotonic() + 10
        # Plain processes are gone before we say so; a cluster takes its time, and needs no waiting for.
        while self._cluster == "local" and not self._is_done(handed_in):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL["local"])


def _whole(gpus: float) -> int | None:
    if gpus and not float(gpus).is_integer():
        raise ExecutorError(
            f"Slurm gives a job whole GPUs; received gpus={gpus:g}. Shares of one: ray:N,gpus={gpus:g}"
        )
    return int(gpus) or None
