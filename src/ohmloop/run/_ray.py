"""Tasks of Ray Core: on this machine, or on a cluster that runs already."""

from __future__ import annotations

import os
import warnings
from typing import Any, TypeVar
from uuid import uuid4

from ohmloop.errors import ExecutorError
from ohmloop.run._payload import Dumps, Shared, run
from ohmloop.run._protocol import RETRIES, Resources
from ohmloop.run._workers import Job, Lost, Workers

T = TypeVar("T")

LOCAL = "local"


class RayPool(Workers):
    """Trials as tasks of Ray, which finds room for what each asks for, shares of a GPU included.

    A Ray that this process has joined already is used and left running.

    Args:
        n_workers: Trials at a time; by default as many as the cluster has room for.
        resources: Of each trial; time is not watched here.
        address: "local" starts a Ray on this machine, which ends with the executor; "auto" joins the one that
            runs here; "ray://host:port" joins one from outside, through its client port.
        retries: Further attempts at a trial whose worker was lost.

    Raises:
        ExecutorError: If Ray is missing, does not answer, or can never give what trials ask for.
    """

    def __init__(
        self,
        n_workers: int | None = None,
        resources: Resources | None = None,
        *,
        address: str = LOCAL,
        retries: int = RETRIES,
    ) -> None:
        resources = resources or Resources()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Nothing phones home.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
            import ray.cloudpickle
        except ImportError:
            raise ExecutorError('the Ray executor needs ray: pip install "ohmloop[ray]"') from None
        self._ray: Any = ray
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _join(ray, address, n_workers, resources)
        room = _room(self._ray, resources)
        if address == LOCAL and not room:
            there = self._ray.cluster_resources()
            if self._is_ours:
                ray.shutdown()
            raise ExecutorError(
                f"no trial fits this machine: each asks for {resources.cpus} CPU(s), {resources.gpus:g} GPU(s) "
                f"and {resources.memory or 0:g} GB; Ray has {there.get('CPU', 0):g}, "
                f"{there.get('GPU', 0):g} and {there.get('memory', 0) / 1e9:.3g} GB."
            )
        n = n_workers or max(room, 1)
        super().__init__(f"ray:{n}" if address == LOCAL else address, n, resources, retries)
        self.dumps: Dumps = ray.cloudpickle.dumps
        self._task: Any = ray.remote(_run)
        self._blobs: dict[str, Any] = {}

    def share(self, value: T) -> Shared[T]:
        """Put the value into Ray's object store."""
        key = uuid4().hex
        self._blobs[key] = self._ray.put(self.dumps(value))
        return Shared(key)

    def attempt(self, job: Job) -> bytes:
        """Run one task and wait for it."""
        ray, asked = self._ray, job.resources
        keys = [s.key for s in job.shared]
        task = self._task.options(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus or None,
            memory=None if asked.memory is None else int(asked.memory * 1e9),
            max_retries=0,  # counted here, as for every executor
        )
        ref = task.remote(job.payload, asked.cpus, keys, *(self._blobs[k] for k in keys))
        with job.running(lambda: ray.cancel(ref, force=True)):
            try:
                outcome: bytes = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise Lost(f"{type(error).__name__}: {_first_line(error)}") from None
        return outcome

    def end(self) -> None:
        """Leave Ray, and end it if it was started here."""
        self._blobs.clear()
        if self._is_ours:
            self._ray.shutdown()


def _run(payload: bytes, cpus: int, keys: list[str], *blobs: bytes) -> bytes:
    return run(payload, cpus, dict(zip(keys, blobs, strict=True)))


def _join(ray: Any, address: str, n_workers: int | None, resources: Resources) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if address == LOCAL:
                cpus = None if n_workers is None else n_workers * resources.cpus
                ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
            else:
                ray.init(address, **quiet)
    except ImportError as error:
        raise ExecutorError(
            f"{address} is joined through Ray's client, which is not installed ({error}): "
            'pip install "ray[client]"'
        ) from error
    except Exception as error:  # Ray raises plain ones too, for a start that takes over 30 s
        ray.shutdown()
        raise ExecutorError(
            f"no Ray answers at {address!r} ({_first_line(error)}). On the head node: ray "
            "start --head; then --executor ray:auto there, or --executor ray://HEAD:10001 from elsewhere. A "
            "Ray of this machine alone: --executor ray"
        ) from error


def _room(ray: Any, resources: Resources) -> int:
    """Return how many trials the cluster can hold at once."""
    there = ray.cluster_resources()
    rooms = [there.get("CPU", 0) / resources.cpus]
    if resources.gpus:
        rooms.append(there.get("GPU", 0) / resources.gpus)
    if resources.memory:
        rooms.append(there.get("memory", 0) / (resources.memory * 1e9))
    return int(min(rooms) + 1e-9)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no further word")
