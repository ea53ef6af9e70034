"""Who may talk to the server: pages that it served itself, on this machine. And how much they may send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ohmloop.web._access import Access

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_UPLOAD = 64 * 2**20
"""Bytes of a request that brings files: the largest measurement file that is read."""
MAX_BODY = 2**20
"""Bytes of any other request: a campaign.toml has some thousand."""
LINGER = 0.5
"""Seconds for which a refused request is heard out."""

_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_UPLOADS = ("multipart/form-data", "application/octet-stream")

PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For pages. Styles may be inline, because plotly.js sets them; scripts may not."""

FILE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox; "
    "frame-ancestors 'none'"
)
"""For reports and kept files: shown, but nothing in them runs or reaches the page."""

_HEADERS = {
    b"content-security-policy": PAGE_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    # Under "no-referrer" browsers send `Origin: null` with forms, which is rightly refused.
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}


class Guard:
    """ASGI middleware: refuses other hosts, origins and people, bounds bodies while they stream, sets headers.

    Args:
        app: What is guarded.
        access: Who is let in; None: everybody who reaches the port.
        locked: Makes the page for who is not, from the path that was asked for.
        max_upload: Bytes of a request that brings files.
        max_body: Bytes of any other request.
    """

    def __init__(
        self,
        app: App,
        *,
        access: Access | None = None,
        locked: Callable[[str], str] = lambda path: "",
        max_upload: int = MAX_UPLOAD,
        max_body: int = MAX_BODY,
    ) -> None:
        self._app, self._max_upload, self._max_body = app, max_upload, max_body
        self._access, self._locked = access, locked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websockets here
        headers = _headers(scope)
        limit = self._limit(headers)
        reason = _refusal(scope["method"], headers)
        if reason:
            await _hear_out(receive, headers, limit)
            await _refuse(send, 403, reason)
            return
        if self._access is not None and not self._access.lets_in(scope["path"], headers):
            await _hear_out(receive, headers, limit)
            await self._lock_out(scope, send)
            return
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > limit:
            await _hear_out(receive, headers, limit)
            await _refuse(send, 413, _too_large(limit))
            return
        await self._bounded(scope, receive, send, limit)

    async def _lock_out(self, scope: Scope, send: Send) -> None:
        if scope["path"].startswith("/api/"):
            await _refuse(send, 401, _LOCKED)
            return
        query = scope.get("query_string", b"").decode("latin-1")
        asked = scope["path"] + (f"?{query}" if query else "")
        body = self._locked(asked if scope["method"] == "GET" else "/").encode()
        await _answer(send, 401, b"text/html; charset=utf-8", body)

    def _limit(self, headers: dict[str, str]) -> int:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return self._max_upload if kind in _UPLOADS else self._max_body

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        seen, is_over, has_started = 0, False, False

        async def counted() -> Message:
            nonlocal seen, is_over
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    is_over = True
                    # The application sees the client hang up; what it answers is replaced below.
                    return {"type": "http.disconnect"}
            return message

        async def headed(message: Message) -> None:
            nonlocal has_started
            if is_over and not has_started:
                return
            if message["type"] == "http.response.start":
                has_started = True
                own = {name.lower() for name, _ in message.get("headers", ())}
                message = {
                    **message,
                    "headers": [
                        *message.get("headers", ()),
                        *((name, value) for name, value in _HEADERS.items() if name not in own),
                    ],
                }
            await send(message)

        try:
            await self._app(scope, counted, headed)
        except Exception:
            if not is_over or has_started:
                raise
        if is_over and not has_started:
            await _refuse(send, 413, _too_large(limit))


async def _hear_out(receive: Receive, headers: dict[str, str], limit: int) -> None:
    """Read what a refused request still sends, for a moment.

    Where a connection is closed on unread bytes the client may see the reset and not the answer. A client that
    asks first (``Expect``) sends nothing before it is told to.
    """
    seen = 0
    if "expect" in headers:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while seen <= limit:
                message = await receive()
                seen += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers; of one that is sent twice, both, so that none of them passes alone."""
    out: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        out[key] = f"{out[key]}, {text}" if key in out else text
    return out


def _refusal(method: str, headers: dict[str, str]) -> str:
    """Return why a request is refused; empty where it is not."""
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        return "this page answers on 127.0.0.1 and localhost only."
    if method in _SAFE:
        return ""
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return "another site's page tried to change something here; it was refused."
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "another site's page tried to change something here; it was refused."
    return ""


def _too_large(limit: int) -> str:
    return f"at most {limit // 2**20} MiB are taken at once. Send fewer files, or the sweep alone."


_LOCKED = (
    "this server answers to its token: send it as `Authorization: Bearer TOKEN`. It is in the file "
    ".ohmloop/token of the folder that is served, or where --token-file says."
)


async def _refuse(send: Send, status: int, reason: str) -> None:
    title = {401: "Not let in", 403: "Refused", 413: "Too large"}[status]
    problem = {"type": "about:blank", "title": title, "status": status, "detail": reason}
    await _answer(send, status, b"application/problem+json", json.dumps(problem).encode())


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([(b"www-authenticate", b'Bearer realm="ohmloop"')] if status == 401 else []),
        *_HEADERS.items(),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
