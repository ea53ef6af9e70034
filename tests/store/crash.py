"""A lab's computer that is switched off at any moment: the jobs that tests kill.

Run as a script it is a server: it imports ohmloop once, then forks a child for each job, so that a
child stands in the middle of its work within milliseconds. A job writes the name of each thing to
its log only after the call that recorded it returned.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = """
schema_version = 1
name = "two knobs"

[variables.a]
type = "continuous"
low = 0
high = 1

[variables.b]
type = "categorical"
options = ["p", "q"]

[[stages]]
name = "works"

[[objectives]]
name = "y"
figure = "g_max"

[suggest]
batch = 1
initial = 3
"""


# -- in the child -------------------------------------------------------------------------------


def record(folder: Path, tag: str, report: object, n: int) -> None:
    """Add trials and record results and decisions, also several events in one step."""
    from ohmloop.campaign import Campaign

    with Campaign.open(folder, actor=tag) as campaign:
        for k in range(n):
            if k % 5 == 4:
                trial, _ = campaign.add({"a": 0.5, "b": "p"}, note=f"{tag}-{k}")
                report("added", trial.id)
                campaign.accept(trial.id)
                report("accepted", trial.id)
            name = f"{tag}-{k}"
            campaign.record("T001", values={"y": k + 0.5}, device=name, key=name, note="x" * 500)
            report("recorded", name)


def ingest(folder: Path, tag: str, report: object, n: int) -> None:
    """Ingest new measurement files, after those that the last, killed one was about to."""
    from ohmloop.campaign import Campaign

    inbox = folder.with_name(f"{folder.name}-inbox")
    inbox.mkdir(exist_ok=True)
    last = sorted(inbox.glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)[-2:]
    with Campaign.open(folder, actor=tag) as campaign:
        for k in range(n):
            path = last.pop() if last else inbox / f"{tag}-{k}.csv"
            if not path.exists():
                path.with_suffix(".part").write_text(sweep(path.stem))
                path.with_suffix(".part").replace(path)
            (done,) = campaign.ingest([path], trial="T001")
            if done.status not in ("recorded", "unchanged"):
                raise RuntimeError(str(done))
            report("ingested", path.stem)


def suggest(folder: Path, tag: str, report: object, n: int) -> None:
    """Suggest, and decide about what was suggested."""
    from ohmloop.campaign import Campaign

    with Campaign.open(folder, actor=tag) as campaign:
        for k in range(n):
            (trial,) = campaign.suggest(1)
            report("suggested", trial.id)
            if k % 2:
                (trial,) = campaign.reroll(trial.id)
                report("suggested", trial.id)
            campaign.reject(trial.id, "enough")
            report("rejected", trial.id)


def start(folder: Path, tag: str, report: object, n: int) -> None:
    """Start campaigns."""
    from ohmloop.campaign import Campaign

    for k in range(n):
        with Campaign.new(folder / f"{tag}-{k}", text=SETTINGS, actor=tag):
            report("started", f"{tag}-{k}")


def race(folder: Path, tag: str, report: object, n: int) -> None:
    """Start one campaign that others start too."""
    from ohmloop.campaign import Campaign
    from ohmloop.errors import OhmloopError

    try:
        Campaign.new(folder, text=SETTINGS, actor=tag).close()
        report("started", tag)
    except OhmloopError as error:
        if "already" not in str(error):
            raise
        report("refused", tag)


def share(folder: Path, tag: str, report: object, n: int) -> None:
    """Ingest a file that others ingest too."""
    from ohmloop.campaign import Campaign

    path = folder.parent / f"{tag}.csv"
    with Campaign.open(folder, actor=tag) as campaign:
        (done,) = campaign.ingest([path], trial="T001")
        report(done.status, tag)


JOBS = {
    "record": record,
    "ingest": ingest,
    "suggest": suggest,
    "start": start,
    "race": race,
    "share": share,
}


def sweep(name: str) -> str:
    """A small loop whose bytes differ from name to name."""
    import numpy as np

    rng = np.random.default_rng(list(name.encode()))
    up = np.arange(0, 1.01, 0.1)
    volts = np.concatenate([up, up[-2::-1], -up[1:], -up[-2::-1]])
    rows = [f"{v:.2f},{1e-5 * v * (1 + 0.2 * rng.random()):.6e}" for v in volts]
    return f"# {name}\nV (V),I (A)\n" + "\n".join(rows) + "\n"


def work(job: str, folder: str, log: str, tag: str, n: int) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def report(kind: str, name: str) -> None:
        os.write(descriptor, f"{kind} {name}\n".encode())

    JOBS[job](Path(folder), tag, report, n)


def serve() -> None:
    import torch

    import ohmloop.campaign

    torch.set_num_threads(1)
    warm_up = Path(sys.argv[1])
    with ohmloop.campaign.Campaign.new(warm_up, text=SETTINGS) as campaign:
        for y in (1.0, 2.0, 3.0, 1.5):  # the first fit loads half of botorch
            (trial,) = campaign.suggest(1)
            campaign.record(trial.id, values={"y": y}, passed="all")
        campaign.suggest(1)
    print("ready", flush=True)
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(**request)
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        children.add(child)
        print(child, flush=True)


# -- in the test --------------------------------------------------------------------------------


class Server:
    """The other end of `serve`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def _ask(self, **request: object) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def begin(self, job: str, folder: Path, log: Path, tag: str, n: int = 10**6) -> int:
        """Begin a job in a process of its own and return its number."""
        return self._ask(job=job, folder=str(folder), log=str(log), tag=tag, n=n)

    def end(self, process: int) -> int:
        """Wait for a job and return its exit code."""
        return self._ask(wait=process)

    def kill_after(self, delay: float, process: int) -> int:
        """Kill a job after a number of seconds and return its exit code."""
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)  # not waited for yet, so the number is still its own
        return self.end(process)


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A running `serve`; ``folder`` is a place that it may use and must not exist."""
    errors = (folder.parent / "errors.txt").open("w+")
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        first = process.stdout.readline()
        if first != "ready\n":
            errors.seek(0)
            raise RuntimeError(errors.read())
        yield Server(process)
        errors.seek(0)
        said = errors.read()
        assert said == "", said
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()
        errors.close()


if __name__ == "__main__":
    serve()
