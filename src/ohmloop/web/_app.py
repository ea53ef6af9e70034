"""The server: who answers which address, and how errors look. Started by ``ohmloop serve``."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ohmloop._version import __version__
from ohmloop.errors import OhmloopError
from ohmloop.web import _api, _pages, _pages_enter, _pages_lab, _pages_net
from ohmloop.web._access import Access, token_of
from ohmloop.web._errors import BusyError
from ohmloop.web._jobs import Jobs
from ohmloop.web._reader import Reader
from ohmloop.web._security import Guard
from ohmloop.web._uploads import Uploads
from ohmloop.web._workspace import Workspace

PORT = 8470
PLOTLY = "plotly.min.js"


def create_app(root: Path, *, jobs: bool = True, access: Access | None = None) -> FastAPI:
    """Return the application that serves a folder.

    Its state holds ``workspace``, ``jobs``, ``reader``, ``uploads`` and ``access``.

    Args:
        root: Folder with campaigns, runs and devices; or a campaign, whose neighbours are served too.
        jobs: Whether jobs are worked on while it runs; without, they are kept and wait.
        access: Who is let in; None: everybody who reaches it.

    Raises:
        NotFoundError: If there is no such folder.
    """
    workspace = Workspace.at(root)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if jobs:
            app.state.jobs.start()
            app.state.reader.start()
        try:
            yield
        finally:
            app.state.jobs.close()
            app.state.reader.close()

    app = FastAPI(
        title="ohmloop",
        version=__version__,
        summary="Campaigns, runs and devices of one folder, for instrument PCs and scripts.",
        description=_api.DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.workspace = workspace
    app.state.jobs = Jobs(workspace)
    app.state.reader = Reader(workspace)
    app.state.uploads = Uploads(workspace)
    app.state.access = access
    for part in (_api, _pages_enter, _pages, _pages_lab, _pages_net):
        app.include_router(part.router)
    app.mount("/static", _Static(directory=Path(__file__).parent / "static"))
    for kind in (OhmloopError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _explain)
    app.add_middleware(Guard, access=access, locked=_pages_enter.locked_page)
    _api.complete(app)
    return app


async def _explain(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/api/"):
        return _api.problem(error)
    return _pages.error_page(request, error)


class _Static(StaticFiles):
    """Our own files, and plotly.js from its installed package."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        if path != PLOTLY:
            return super().lookup_path(path)
        spec = importlib.util.find_spec("plotly")  # found, not imported: only its file is wanted
        for place in (spec and spec.submodule_search_locations) or ():
            file = Path(place) / "package_data" / PLOTLY
            if file.is_file():
                return str(file), file.stat()
        return "", None

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"  # kept by the browser, asked for each time
        return response


def serve(
    root: Path,
    *,
    port: int = PORT,
    open_browser: bool = True,
    token_file: Path | None = None,
    is_open: bool = False,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a folder on 127.0.0.1 until it is interrupted.

    Args:
        root: As in `create_app`.
        port: To listen on; 0 for a free one.
        open_browser: Whether to open the page.
        token_file: File of the token that requests have to bring, made if it is not there; by default the
            environment's OHMLOOP_TOKEN, or ``.ohmloop/token`` of the folder.
        is_open: Whether everybody who reaches the port is let in, without a token.
        ready: Told the page's address as soon as it answers: a link that lets one browser in, once.

    Raises:
        BusyError: If the port is taken, or another server works on the folder.
        NotFoundError: If there is no such folder.
        WebError: If the token cannot be used.
    """
    import uvicorn

    private = Workspace.at(root).private
    access = None if is_open else Access(token_of(private, token_file))
    app = create_app(root, access=access)
    start = app.state.workspace.start
    with _listen(port) as listener:
        app.state.jobs.start()  # before anything is said: it may be another server's folder
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if access is not None:
            address += access.link
        else:
            address += f"/campaigns/{quote(start, safe='')}" if start else "/"
        ready(address)
        with _shown(address, private, is_secret=open_browser and access is not None) as shown:
            if open_browser:
                threading.Thread(target=webbrowser.open, args=(shown,), daemon=True).start()
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=3,
            )
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _shown(address: str, private: Path, *, is_secret: bool) -> Iterator[str]:
    """Give what a browser is told to open: a file that only its owner reads and that leads to the address.

    The address itself would stand in the list of processes, which everybody on the machine sees.
    """
    if not is_secret:
        yield address
        return
    file = private / "open.html"
    file.unlink(missing_ok=True)
    refresh = f'<meta http-equiv="refresh" content="0;url={address}">'
    text = f'<!doctype html><title>ohmloop</title>{refresh}<a href="{address}">Go on</a>'
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    try:
        yield file.as_uri()
    finally:
        file.unlink(missing_ok=True)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise BusyError(
            f"port {port} of 127.0.0.1 cannot be used ({getattr(error, 'strerror', error)}). Take another: "
            f"ohmloop serve --port {port + 1 if port < 65535 else PORT}"
        ) from None
    return listener
