"""Jobs: kept, cancelled, repeated, and gone on with after the server ended."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ohmloop.campaign import Campaign
from ohmloop.web._errors import BusyError, JobError, NameTakenError, NotFoundError
from ohmloop.web._jobs import Job, Jobs
from ohmloop.web._workspace import Workspace


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    Campaign.new(tmp_path / "films", template="perovskite-nanowires").close()
    return Workspace.at(tmp_path)


@pytest.fixture
def jobs(space: Workspace) -> Iterator[Jobs]:
    """Jobs that nobody works on."""
    made = Jobs(space)
    yield made
    made.close()


def suggest(jobs: Jobs, **arguments: object) -> Job:
    return jobs.submit("suggest", "campaign/films", arguments, title="Suggestions")


def wait(jobs: Jobs, id: str, *states: str, seconds: float = 120) -> Job:
    """Wait until a job is in one of the states."""

    async def follow() -> Job:
        async for job in jobs.watch(id):
            if job.state in states:
                return job
        return jobs.get(id)

    return asyncio.run(asyncio.wait_for(follow(), seconds))


def test_a_job_waits_with_its_arguments_filled_in(jobs: Jobs) -> None:
    job = suggest(jobs, q=2)
    assert (job.state, job.is_over, job.target) == ("queued", False, "campaign/films")
    assert job.arguments == {"q": 2, "pin": {}, "context": {}, "actor": ""}
    assert jobs.get(job.id) == job
    assert jobs.latest("suggest", "campaign/films") == job
    assert jobs.latest("advice", "campaign/films") is None


def test_jobs_are_listed_newest_first(jobs: Jobs) -> None:
    first, second = suggest(jobs), suggest(jobs)
    other = jobs.submit("train", "run/r", {}, title="Train")
    assert [j.id for j in jobs.list()] == [other.id, second.id, first.id]
    assert [j.id for j in jobs.list(kind="suggest", limit=1)] == [second.id]
    assert [j.id for j in jobs.list(target="run/r")] == [other.id]
    jobs.cancel(second.id)
    assert [j.id for j in jobs.list(is_active=True)] == [other.id, first.id]


def test_a_job_that_waits_is_cancelled_and_repeated(jobs: Jobs) -> None:
    job = suggest(jobs, q=3)
    with pytest.raises(JobError, match="cancel it first"):
        jobs.retry(job.id)
    assert jobs.cancel(job.id).state == "cancelled"
    assert jobs.cancel(job.id).state == "cancelled"
    again = jobs.retry(job.id)
    assert (again.state, again.arguments, again.id != job.id) == ("queued", job.arguments, True)


@pytest.mark.parametrize("id", ["7", "", "-1", "1.5", "x", "9" * 400, "1; drop table jobs"])
def test_an_unknown_job_says_so(jobs: Jobs, id: str) -> None:
    with pytest.raises(NotFoundError, match="there is no job"):
        jobs.get(id)


@pytest.mark.parametrize(
    ("kind", "target", "arguments", "wrong"),
    [
        ("dance", "campaign/films", {}, "no job of the kind"),
        ("suggest", "campaign/films", {"q": 0}, "suggest: q"),
        ("suggest", "campaign/films", {"p": 1}, "suggest: p"),
        ("train", "run/r", {"epochs": "many"}, "train: epochs"),
        ("evaluate", "run/r", {"sigmas": [float("nan")]}, "evaluate: sigmas"),
        ("suggest", "run/films", {}, "cannot be about"),
        ("suggest", "films", {}, "cannot be about"),
        ("train", "campaign/films", {}, "cannot be about"),
    ],
)
def test_a_wrong_job_is_refused_when_it_is_asked_for(
    jobs: Jobs, kind: str, target: str, arguments: dict[str, object], wrong: str
) -> None:
    with pytest.raises(JobError, match=wrong):
        jobs.submit(kind, target, arguments, title="x")
    assert jobs.list() == []


def test_a_job_about_nothing_is_refused(jobs: Jobs, space: Workspace) -> None:
    with pytest.raises(NotFoundError, match="no campaign"):
        jobs.submit("suggest", "campaign/../films", {}, title="x")
    with pytest.raises(NotFoundError, match="no run"):
        jobs.submit("evaluate", "run/none", {}, title="x")
    with pytest.raises(NotFoundError, match="no loop"):
        jobs.submit("codesign-step", "campaign/films", {}, title="x")
    (space.root / "devices").mkdir()
    (space.root / "devices" / "mine.json").write_text("{}")
    with pytest.raises(NameTakenError, match="already"):
        jobs.submit("device-fit", "device/mine", {"uploads": ["a"]}, title="x")


def test_jobs_outlive_the_server(jobs: Jobs, space: Workspace) -> None:
    job = suggest(jobs)
    jobs.close()
    later = Jobs(space)
    try:
        assert later.get(job.id) == job
    finally:
        later.close()


def test_two_servers_do_not_work_on_one_folder(space: Workspace) -> None:
    first, second = Jobs(space), Jobs(space)
    first.start()
    try:
        with pytest.raises(BusyError, match="another `ohmloop serve`"):
            second.start()
    finally:
        second.close()
        first.close()
    third = Jobs(space)
    third.start()
    third.close()


def test_what_ran_when_the_server_ended_goes_on(space: Workspace) -> None:
    before = Jobs(space)
    job = suggest(before)
    before.start()
    assert wait(before, job.id, "running").started is not None
    before.close()
    after = Jobs(space)
    assert after.get(job.id).state == "running"
    after.start()
    try:
        assert after.get(job.id).state in ("queued", "running")
        assert "goes on" in after.get(job.id).message
    finally:
        after.close()


def test_a_running_job_is_cancelled_at_once_and_the_next_one_starts(space: Workspace) -> None:
    jobs = Jobs(space)
    first, second = suggest(jobs), suggest(jobs)
    jobs.start()
    try:
        wait(jobs, first.id, "running")
        began = time.monotonic()
        assert jobs.cancel(first.id).state == "cancelled"
        assert wait(jobs, second.id, "running").state == "running"
        assert time.monotonic() - began < 10
        assert jobs.get(first.id).state == "cancelled"
    finally:
        jobs.close()


def test_watching_ends_when_the_server_closes(jobs: Jobs) -> None:
    job = suggest(jobs)

    async def follow() -> list[str]:
        seen = []
        async for now in jobs.watch(job.id):
            seen.append(now.state)
            await asyncio.to_thread(jobs.close)
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 10)) == ["queued"]


def test_watching_shows_each_change(jobs: Jobs) -> None:
    job = suggest(jobs)

    async def follow() -> list[str]:
        seen = []
        async for now in jobs.watch(job.id):
            seen.append(now.state)
            await asyncio.to_thread(jobs.cancel, job.id)
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 10)) == ["queued", "cancelled"]
