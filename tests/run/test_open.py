"""Executors by their text, what is said of wrong ones, and that no process is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ohmloop.errors import ExecutorError
from ohmloop.run import InProcess, LocalPool, Resources, SlurmPool, open_executor, using
from ohmloop.run._local import visible
from tests.run import trials
from tests.run.test_contract import gone, wait_for_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("locl:2", "Did you mean local"),
        ("dask", "What may be typed"),
        ("", "What may be typed"),
        ("local:two", "workers is a number"),
        ("local:0", "workers is a whole number from 1"),
        ("local:2,gpu=1", "Did you mean gpus"),
        ("local:2,time=5", "no option of local"),
        ("local:2,gpus=", "no option of local"),
        ("local:2,workers=3", "given twice"),
        ("local:2,gpus=1.5", "share of a GPU or whole ones"),
        ("slurm:partitoin=gpu", "Did you mean partition"),
        ("slurm:cluster=local,time=soon", "time is a number"),
        ("slurm:cluster=pbs", '"slurm" or "local"'),
        ("slurm:cluster=local,gpus=0.5", "ray:N,gpus=0.5"),
        ("ray:2,time=5", "no option of ray"),
        ("in-process:2", "Its options: none"),
    ],
)
def test_wrong_texts_are_said(text: str, match: str) -> None:
    with pytest.raises(ExecutorError, match=match):
        open_executor(text)


def test_slurm_without_a_cluster_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ExecutorError, match=r"no sbatch here.*\n?.*slurm:cluster=local"):
        open_executor("slurm")


@pytest.mark.parametrize(("name", "text"), [("ray", "ray:1"), ("submitit", "slurm:cluster=local")])
def test_missing_extra_names_the_line_to_type(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExecutorError, match=r'pip install "ohmloop\[(ray|slurm)\]"'):
        open_executor(text)


def test_options_reach_the_executor(tmp_path: Path) -> None:
    with open_executor("local:3,gpus=0.5,retries=0") as pool:
        assert isinstance(pool, LocalPool)
        assert (pool.n_workers, pool.retries, pool.resources.gpus) == (3, 0, 0.5)
    pytest.importorskip("submitit")
    text = f"slurm:5,cluster=local,partition=gpu,time=60,gpus=1,memory=8,folder={tmp_path}"
    with open_executor(text) as jobs:
        assert isinstance(jobs, SlurmPool)
        assert jobs.resources == Resources(gpus=1, memory=8, minutes=60)
        assert jobs.n_workers == 5


def test_slurm_is_asked_for_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    # An sbatch of our own: it keeps the script that would go to the cluster, and takes no job.
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncp $1 {tmp_path}/script\necho no such partition >&2\nexit 1\n")
    tool.chmod(0o755)
    shutil.copy(tool, tool.with_name("srun"))  # submitit looks for it
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    text = (
        f"slurm:1,partition=gpu,account=lab,time=60,gpus=2,memory=8,cpus=3,folder={tmp_path}/jobs"
    )
    with open_executor(text) as jobs, pytest.raises(ExecutorError, match="no such partition"):
        jobs.submit(trials.draw, 1).result()
    script = (tmp_path / "script").read_text()
    for line in ("partition=gpu", "account=lab", "time=60", "gpus-per-node=2", "mem=8GB"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --cpus-per-task=3\n" in script


def test_workers_are_short_for_local_and_open_executors_stay_open() -> None:
    with using(None, 1) as one, using(None, 3) as three, using("local:2", 5) as two:
        assert isinstance(one, InProcess)
        assert [three.n_workers, two.n_workers] == [3, 2]
    with InProcess() as mine:
        with using(mine, 4) as same:
            assert same is mine
        assert mine.submit(trials.draw, 0).result() == trials.draw(0)
    with pytest.raises(ExecutorError, match="closed"):
        mine.submit(trials.draw, 0)


def test_gpus_are_dealt_out_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = [visible(slot, 0.5)["CUDA_VISIBLE_DEVICES"] for slot in range(4)]
    assert seen == ["0", "0", "1", "1"]
    assert visible(0, 0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert visible(1, 1) == {"CUDA_VISIBLE_DEVICES": "7"}


@pytest.mark.slow
def test_workers_see_their_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with LocalPool(1, Resources(gpus=1)) as pool:
        assert pool.submit(trials.threads).result() == (1, "4")
        other = pool.submit(trials.threads, resources=Resources(cpus=2, gpus=2))
        assert other.result() == (2, "4,7")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["local:2", "slurm:2,cluster=local", "ray:2"])
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(text: str, blow: signal.Signals, tmp_path: Path) -> None:
    if text.startswith("slurm") and blow == signal.SIGKILL:
        pytest.skip(
            "jobs of a cluster outlive a coordinator that is killed; docs/scaling.md says so"
        )
    pytest.importorskip({"l": "ohmloop", "s": "submitit", "r": "ray"}[text[0]])
    marks = tmp_path / "marks"
    marks.mkdir()
    if text.startswith("slurm"):
        text += f",folder={tmp_path / 'jobs'}"
    code = (
        "import sys\nfrom ohmloop.run import open_executor\nfrom tests.run import trials\n"
        "with open_executor(sys.argv[1]) as executor:\n"
        "    for _ in executor.each(trials.sleep, [(sys.argv[2], 120.0)] * 3): pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, text, str(marks)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        pids = wait_for_files(marks, 2)
        process.send_signal(blow)
        process.communicate(timeout=60)
        assert all(gone(pid) for pid in pids)
        # Two agents of a Ray whose coordinator was killed take up to a minute to end by themselves.
        deadline = time.monotonic() + (90 if text.startswith("ray") else 20)
        while (left := session_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []
        assert len(list(marks.iterdir())) == 2
    finally:
        for pid in [*session_of(process.pid)]:
            os.kill(pid, signal.SIGKILL)
    assert process.returncode in (-blow, 130, 1)


def session_of(leader: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if path.name.isdigit() and fields[0] != "Z" and int(fields[3]) == leader:
            found.append(int(path.name))
    return found


@pytest.mark.slow
def test_script_without_a_guard_is_told_what_to_write(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ohmloop.run import open_executor\nfrom tests.run.trials import draw\n"
        "with open_executor('local:1') as e:\n    print(e.submit(draw, 1).result())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-2]


@pytest.mark.slow
def test_pool_that_was_not_closed_does_not_hold_up_the_end() -> None:
    code = (
        "from ohmloop.run import open_executor\nfrom tests.run.trials import draw\n"
        "pool = open_executor('local:1'); print(pool.submit(draw, 1).result())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
