"""A real server in a thread, on a port of its own, and a client that talks to it as a browser does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import uvicorn

from ohmloop.web import create_app


@contextlib.contextmanager
def served(root: Path, *, jobs: bool = False) -> Iterator[httpx.Client]:
    """Serve a folder; the client knows the address. ``client.app`` is the application."""
    app = create_app(root, jobs=jobs)
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
