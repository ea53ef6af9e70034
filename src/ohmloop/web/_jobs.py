"""Long work: asked for by a page, done by one worker, kept in ``.ohmloop/jobs.db``.

A job that was queued or running when the server ended is queued again when it starts: trainings go on from
their last epoch, and suggestions carry a key, so that repeating what was done already changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ohmloop.errors import OhmloopError, StoreError
from ohmloop.web._errors import BusyError, HelperLostError, JobError, NotFoundError
from ohmloop.web._helper import Helper
from ohmloop.web._kinds import check_target, checked
from ohmloop.web._workspace import Workspace

State = Literal["queued", "running", "done", "failed", "cancelled"]
KEPT = 1000
"""Finished jobs that are kept; older ones are forgotten."""

_SCHEMA = """
create table if not exists jobs (
  id integer primary key autoincrement, kind text not null, target text not null, title text not null,
  state text not null, label text not null default '', done integer not null default 0,
  total integer not null default 0, message text not null default '', created text not null,
  started text, ended text, arguments text not null, result text, error text);
create index if not exists by_state on jobs (state, id);
"""


class Job(BaseModel):
    """One piece of long work.

    Attributes:
        id: "1", "2", ... in the order in which they were asked for.
        kind: What is done: "suggest", "train", ... (`ohmloop.web._kinds.KINDS`).
        target: What it is about: "campaign/NAME", "run/NAME" or "device/NAME".
        title: For a person.
        state: "queued", "running", "done", "failed" or "cancelled".
        label: The step that it is at; empty before the first.
        done: Parts of this step that are done.
        total: Parts of this step in all; 0 while that is not known.
        message: A remark of the step.
        created: UTC time, ISO 8601; so are the next two.
        started: None while it waits.
        ended: None until it is over.
        arguments: As checked by its kind.
        result: What came of it, for state "done".
        error: Why not, for state "failed".
    """

    model_config = ConfigDict(frozen=True)

    id: str
    kind: str
    target: str
    title: str
    state: State
    label: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    created: str
    started: str | None = None
    ended: str | None = None
    arguments: dict[str, Any]
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("done", "failed", "cancelled")


_Listing = list[Job]


class Jobs:
    """The jobs of a workspace; `start` begins to work on them.

    Raises:
        StoreError: If the list of jobs cannot be read or written.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._db = _connect(workspace.private / "jobs.db")
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._worker = Helper(
            "ohmloop.web._work", str(workspace.root), log=workspace.private / "worker.log"
        )
        self._thread: threading.Thread | None = None
        self._claim: sqlite3.Connection | None = None
        self._is_closed = False

    # -- asking -----------------------------------------------------------------------------

    def submit(
        self, kind: str, target: str, arguments: Mapping[str, Any] | None = None, *, title: str
    ) -> Job:
        """Queue a job; its arguments are checked now.

        Raises:
            JobError: If the kind, an argument or the form of the target is wrong.
            NotFoundError: If there is no such campaign or run.
            NameTakenError: If a new device or loop would replace something.
        """
        clean = checked(kind, dict(arguments or {}))
        check_target(self._workspace, kind, target, clean)
        with self._news:
            row = self._db.execute(
                "insert into jobs (kind, target, title, state, created, arguments) "
                "values (?, ?, ?, 'queued', ?, ?) returning id",
                (kind, target, title[:200], _now(), json.dumps(clean)),
            ).fetchone()
            self._db.execute(
                "delete from jobs where state not in ('queued', 'running') and id <= ?",
                (row["id"] - KEPT,),
            )
            self._tell()
        return self.get(str(row["id"]))

    def get(self, id: str) -> Job:
        """Return a job as it is now; NotFoundError if there is none of this id."""
        row = None
        if id.isascii() and id.isdecimal() and len(id) < 16:
            with self._lock:
                row = self._db.execute("select * from jobs where id = ?", (int(id),)).fetchone()
        if row is None:
            raise NotFoundError(f'there is no job "{id[:40]}"; old ones are forgotten.')
        return _job(row)

    def list(
        self,
        *,
        target: str | None = None,
        kind: str | None = None,
        is_active: bool = False,
        limit: int = 50,
    ) -> _Listing:
        """Return jobs, newest first.

        Args:
            target: Only those about it.
            kind: Only those of this kind.
            is_active: Only those that are queued or running.
            limit: Most of them that are returned.
        """
        where, values = ["1"], list[Any]()
        for column, value in (("target", target), ("kind", kind)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if is_active:
            where.append("state in ('queued', 'running')")
        with self._lock:
            rows = self._db.execute(
                f"select * from jobs where {' and '.join(where)} order by id desc limit ?",
                (*values, limit),
            ).fetchall()
        return [_job(row) for row in rows]

    def latest(self, kind: str, target: str) -> Job | None:
        """Return the newest job of a kind about a target; None without one."""
        found = self.list(kind=kind, target=target, limit=1)
        return found[0] if found else None

    def cancel(self, id: str) -> Job:
        """Stop a job; one that is over stays as it is. A running one's process is ended at once."""
        with self._news:
            job = self.get(id)
            if job.state == "queued":
                self._set(id, "queued", state="cancelled", ended=_now())
            elif job.state == "running" and self._set(
                id, "running", state="cancelled", ended=_now()
            ):
                self._worker.kill()
            return self.get(id)

    def retry(self, id: str) -> Job:
        """Queue the same again as a new job.

        Raises:
            JobError: If it is not over yet.
        """
        job = self.get(id)
        if not job.is_over:
            raise JobError(f"job {id} is {job.state}; cancel it first, or wait.")
        return self.submit(job.kind, job.target, job.arguments, title=job.title)

    async def watch(self, id: str) -> AsyncIterator[Job]:
        """Yield a job now and after each change, until it is over or the server closes."""
        news = asyncio.Event()
        listener = (asyncio.get_running_loop(), news)
        with self._lock:
            self._listeners.add(listener)
        try:
            job = self.get(id)
            yield job
            while not job.is_over and not self._is_closed:
                await news.wait()
                news.clear()
                if self._is_closed:
                    return
                before, job = job, self.get(id)
                if job != before:
                    yield job
        finally:
            with self._lock:
                self._listeners.discard(listener)

    # -- working ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work: what was queued or running goes on. A second call does nothing.

        Raises:
            BusyError: If another server works on this folder.
        """
        if self._thread is not None:
            return
        self._claim = _claim(self._workspace)
        with self._lock:
            self._db.execute(
                "update jobs set state = 'queued', started = null, label = '', done = 0, total = 0, "
                "message = 'The server was restarted; this goes on.' where state = 'running'"
            )
        self._worker.start()
        self._thread = threading.Thread(target=self._work, name="ohmloop-jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop working; what is not done goes on after the next `start`."""
        with self._news:
            if self._is_closed:
                return
            self._is_closed = True
            self._tell()
        self._worker.kill()
        if self._thread is not None:
            self._thread.join(20)
        self._worker.close()
        self._db.close()
        if self._claim is not None:
            self._claim.close()

    def _work(self) -> None:
        while True:
            with self._news:
                job = None
                while not self._is_closed and job is None:
                    job = self._next()
                    if job is None:
                        self._news.wait()
                if self._is_closed or job is None:
                    return
            self._do(job)
            if not self._is_closed:
                self._worker.start()  # warm for the next one, also after a cancelled one

    def _next(self) -> Job | None:
        row = self._db.execute(
            "select id from jobs where state = 'queued' order by id limit 1"
        ).fetchone()
        if row is None:
            return None
        self._set(str(row["id"]), "queued", state="running", started=_now())
        return self.get(str(row["id"]))

    def _do(self, job: Job) -> None:
        def progress(event: Mapping[str, Any]) -> None:
            self._set(job.id, "running", **event)

        question = job.model_dump(include={"id", "kind", "target", "arguments", "created"})
        try:
            with (
                self._lock
            ):  # so that whoever cancels it either keeps it from being sent, or ends it
                if self.get(job.id).state != "running":
                    return
                self._worker.send(question)
            result = self._worker.answer(progress=progress)
        except HelperLostError as error:
            if not self._is_closed:
                text = f"{error}. Try again; .ohmloop/worker.log may say more."
                self._set(job.id, "running", state="failed", ended=_now(), error=text)
        except OhmloopError as error:
            self._set(job.id, "running", state="failed", ended=_now(), error=str(error))
        except (
            Exception
        ) as error:  # a defect of ours must not keep the jobs behind it from being done
            traceback.print_exc()
            text = f"ohmloop failed here ({type(error).__name__}: {error}); please report it."
            self._set(job.id, "running", state="failed", ended=_now(), error=text)
        else:
            kept = json.dumps(result)
            self._set(job.id, "running", state="done", ended=_now(), result=kept)

    def _set(self, id: str, was: State, **values: Any) -> bool:
        """Change a job that is in the state ``was``; return whether it is."""
        with self._news:
            names = ", ".join(f"{name} = ?" for name in values)
            changed = self._db.execute(
                f"update jobs set {names} where id = ? and state = ?",
                (*values.values(), int(id), was),
            ).rowcount
            if changed:
                self._tell()
        return bool(changed)

    def _tell(self) -> None:
        self._news.notify_all()
        for loop, news in self._listeners:
            try:
                loop.call_soon_threadsafe(news.set)
            except RuntimeError:  # a loop that is closed listens no more
                continue


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = normal")
        db.executescript(_SCHEMA)
    except sqlite3.Error as error:
        db.close()
        raise StoreError(
            f"{path} cannot be used ({error}). It only keeps the list of jobs: delete it, and start again."
        ) from None
    return db


def _claim(workspace: Workspace) -> sqlite3.Connection:
    """Hold a lock that ends with this process, on every system that SQLite knows."""
    claim = sqlite3.connect(
        workspace.private / "server.lock",
        timeout=0.2,
        check_same_thread=False,
        isolation_level=None,
    )
    try:
        claim.execute("pragma locking_mode = exclusive")
        claim.execute("begin exclusive")
    except sqlite3.OperationalError:
        claim.close()
        raise BusyError(
            f"another `ohmloop serve` works on {workspace.root}. Use that one, or end it first."
        ) from None
    return claim


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    values["id"] = str(values["id"])
    for name in ("arguments", "result"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Job(**values)
