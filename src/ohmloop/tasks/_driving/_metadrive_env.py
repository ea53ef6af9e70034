"""MetaDrive in an environment of its own: made by `fetch`, spoken to by JSON lines.

metadrive-simulator 0.3.0.1 is the last version whose wheel carries its assets; it needs NumPy 1.24 and so
cannot share a Python with ohmloop.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.errors import TaskError
from ohmloop.tasks._driving._report import Seen

WORKER = Path(__file__).parent / "workers" / "metadrive_worker.py"
PINS = (
    "metadrive-simulator==0.3.0.1",
    "panda3d==1.10.13",
    "panda3d-simplepbr==0.10",
    "panda3d-gltf==0.13",
    "numpy==1.24.2",
    "gym==0.25.2",
)
PYTHONS = ("python3.11", "python3.10", "python3.9", "python3.8")
"""NumPy 1.24.2 has wheels for these."""
PYTHON_VARIABLE = "OHMLOOP_METADRIVE_PYTHON"
BY_HAND = (
    "place metadrive/examples/ppo_expert/expert_weights.npz of metadrive-simulator 0.3.0.1 (PyPI) in a "
    "folder and name it with --data FOLDER; make the simulator's environment with Python 3.8 to 3.11:\n"
    "    python3.11 -m venv FOLDER/env\n"
    f"    FOLDER/env/bin/python -m pip install {' '.join(PINS)}\n"
    f"or name the Python of one that exists in {PYTHON_VARIABLE}."
)


def make_environment(folder: Path) -> None:
    """Make ``folder/env``, about 0.9 GB, with packages from the configured registry.

    Raises:
        TaskError: If no fitting Python is here, or installing fails.
    """
    current = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = (
        sys.executable if current in PYTHONS else next(filter(None, map(shutil.which, PYTHONS)), "")
    )
    if not found:
        raise TaskError(f"MetaDrive needs one of {', '.join(PYTHONS)} on the path. {BY_HAND}")
    target = folder / "env"
    python = _python_of(target)
    # --copies would break a framework build of Python; links survive the folder's later renaming.
    for command in (
        [found, "-m", "venv", str(target)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
        except (OSError, subprocess.SubprocessError) as error:
            lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise TaskError(
                f"making MetaDrive's environment failed: {lines[-1][:200] if lines else error}. "
                f"Try again. Or: {BY_HAND}"
            ) from error


def find_python(folder: Path) -> Path:
    """Return the Python that has MetaDrive.

    Raises:
        TaskError: If there is none; the text has the commands that make it.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else _python_of(folder / "env")
    if not python.exists():
        raise TaskError(
            f"MetaDrive's own environment is not here (looked for {python}). Make it with\n"
            f"    ohmloop fetch metadrive\nor: {BY_HAND}"
        )
    return python


def _python_of(env: Path) -> Path:
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


class MetaDrive:
    """The simulator in a process of its own; the process ends with the object or with Python."""

    def __init__(self, folder: Path) -> None:
        """Start the process; MetaDrive itself starts with the first route (seconds)."""
        python = find_python(folder)
        # A file, not a pipe: the simulator talks, and a full pipe nobody reads would stop it.
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # closed by _stop
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")},
        )
        self.close = weakref.finalize(self, _stop, self._process, self._log)

    def reset(self, seed: int) -> Seen:
        """Return the start of a route."""
        return _seen(self._ask({"do": "reset", "seed": seed}))

    def step(self, out: NDArray[np.float64]) -> Seen:
        """Return what follows (steering, throttle), cut to -1..1 by the simulator; 0.1 s a step."""
        return _seen(self._ask({"do": "step", "action": [float(a) for a in out]}))

    def expert(self) -> NDArray[np.float64]:
        """Return the action ``2`` of MetaDrive's own expert code where the car is now."""
        return np.array(self._ask({"do": "expert"})["action"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise TaskError(f"MetaDrive's process ended: {self._last_words()}") from error
        if "error" in answer:
            raise TaskError(
                f"MetaDrive cannot {request['do']}: {answer['error']}. If a module is missing: {BY_HAND}"
            )
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing."


def _stop(process: subprocess.Popen[str], log: IO[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()


def _seen(answer: dict[str, Any]) -> Seen:
    return Seen(np.array(answer["x"], np.float32), answer["progress"], answer["end"])
