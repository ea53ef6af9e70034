"""A process beside the server that answers one question at a time: JSON lines in, JSON lines out.

It can be killed at any moment and the next question finds a fresh one. It ends when the server ends, however
that happens, because its stdin closes then; what it started ends with it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ohmloop.errors import OhmloopError
from ohmloop.progress import Progress, ProgressEvent
from ohmloop.web._errors import HelperLostError, from_name

HAS_GROUPS = hasattr(os, "killpg")


class Helper:
    """The server's end: starts the process on the first question, and again after it was lost.

    One thread asks; any thread may `kill`.
    """

    def __init__(self, module: str, *arguments: str, log: Path, **environment: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._log, self._environment = log, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._is_late = self._has_run = False

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process unless it runs; return it."""
        with self._starting:
            if self._process is not None and self._process.poll() is None:
                return self._process
            self._reap()
            with self._log.open("ab" if self._has_run else "wb") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **self._environment},
                    start_new_session=HAS_GROUPS,
                )
            self._has_run = True
            return self._process

    @property
    def pid(self) -> int | None:
        """Number of the process; None if none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(
        self,
        question: Mapping[str, Any],
        *,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
        seconds: float | None = None,
    ) -> Any:
        """Return the answer; see `send` and `answer`."""
        self.send(question)
        return self.answer(progress=progress, seconds=seconds)

    def send(self, question: Mapping[str, Any]) -> None:
        """Ask a question; a `kill` from now on ends the work on it.

        Raises:
            HelperLostError: If the process does not take it.
        """
        process = self.start()
        self._is_late = False
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._lost(process) from None

    def answer(
        self,
        *,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
        seconds: float | None = None,
    ) -> Any:
        """Return the answer to the question that was sent.

        Args:
            progress: Told each progress event, as plain data.
            seconds: After which the process is killed.

        Raises:
            OhmloopError: What the process raised, by its class and text.
            HelperLostError: If it ended before it answered.
        """
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timer = threading.Timer(seconds or 0, self._too_late)
        timer.daemon = True
        if seconds is not None:
            timer.start()
        try:
            for line in process.stdout:
                told = json.loads(line)
                if "progress" in told:
                    if progress is not None:
                        progress(told["progress"])
                elif "error" in told:
                    raise from_name(told["error"], told["text"])
                else:
                    return told["answer"]
        finally:
            timer.cancel()
        raise self._lost(process)

    def kill(self) -> None:
        """End the process and all that it started; the next question starts another."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        try:
            if HAS_GROUPS:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except ProcessLookupError:
            pass
        process.wait(10)

    def close(self) -> None:
        """End the process and close its pipes."""
        self.kill()
        with self._starting:
            self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # what was never read by a killed process
                        pass
            self._process = None

    def _too_late(self) -> None:
        self._is_late = True
        self.kill()

    def _lost(self, process: subprocess.Popen[bytes]) -> HelperLostError:
        code = process.wait(10)
        if self._is_late:
            return HelperLostError("it took too long and was stopped")
        if code == -9:  # SIGKILL, which not every system names
            return HelperLostError("its process was killed; the memory may have run out")
        return HelperLostError(f"its process ended (exit code {code})")


# -- the process's end --------------------------------------------------------------------------


def answer_questions(handle: Callable[[dict[str, Any], Progress], Any]) -> None:
    """Answer each line of stdin by a line of stdout until the server goes away.

    What the work prints goes to stderr. An error of ohmloop's is told by its class and text; any other is a
    defect of ours, told as such, with the traceback on stderr.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, questions), daemon=True).start()

    def tell(value: Mapping[str, Any]) -> None:
        out.write(json.dumps(value, default=str).encode() + b"\n")
        out.flush()

    def progress(event: ProgressEvent) -> None:
        tell({"progress": vars(event)})

    while True:
        question = json.loads(questions.get())
        try:
            tell({"answer": plain(handle(question, progress))})
        except OhmloopError as error:
            tell({"error": type(error).__name__, "text": str(error)})
        except MemoryError:
            tell({"error": "OutOfMemoryError", "text": "it needs more memory than it may have."})
        except Exception as error:
            traceback.print_exc()
            text = f"ohmloop failed here ({type(error).__name__}: {error}); please report it."
            tell({"error": "WebError", "text": text})


def _listen(source: IO[bytes], into: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        into.put(line)
    if HAS_GROUPS and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with all that was started; there is nothing to tidy up
    os._exit(0)


def plain(value: Any) -> Any:
    """Return records, arrays and numbers as JSON knows them: what is not finite becomes null."""
    import dataclasses
    import math

    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="python"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
