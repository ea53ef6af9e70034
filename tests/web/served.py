"""A real server: in a thread, with a client that talks to it as a browser does, or as a process of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import uvicorn

from ohmloop.web import create_app
from ohmloop.web._access import Access


@contextlib.contextmanager
def served(
    root: Path, *, jobs: bool = False, access: Access | None = None
) -> Iterator[httpx.Client]:
    """Serve a folder; the client knows the address. ``client.app`` is the application."""
    app = create_app(root, jobs=jobs, access=access)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                client.app = app  # type: ignore[attr-defined]  # for tests that look at what is behind
                yield client
        finally:
            server.should_exit = True
            thread.join(20)


class Server:
    """``ohmloop serve`` in a process of its own, that a test may end and start again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options or ("--no-token",)
        self._process: subprocess.Popen[str] | None = None
        self.link = ""

    def start(self, port: int = 0) -> None:
        """Start it; ``link`` is what it prints."""
        ohmloop = str(Path(sys.executable).with_name("ohmloop"))
        command = [ohmloop, "serve", str(self._folder), "--port", str(port), "--no-browser"]
        self._process = subprocess.Popen(
            [*command, *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.link = self._process.stdout.readline().strip()

    @property
    def address(self) -> str:
        """Where it answers."""
        return "/".join(self.link.split("/")[:3])

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        """End it at once, as a computer that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
