"""Who is let in: whoever holds the token of the served folder, so that other accounts of a machine are not.

The token lies in a file that its owner alone can read. Programs send it (``Authorization: Bearer``); a browser
swaps a link that works once, or the token itself, for a cookie that scripts cannot read and other sites cannot
use. Cookies belong to a machine and not to a port: their name tells servers of several folders apart.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import cookie_parser

from ohmloop.web._errors import WebError

ENVIRONMENT = "OHMLOOP_TOKEN"
FILE = "token"
ENTER = "/enter"
KEPT = 30 * 24 * 3600
"""Seconds that a browser stays let in: a month, also over a restart of the server."""
_BYTES = 32  # of a token: nobody guesses 256 bits
_SHORTEST = 16  # characters of a token that a person chose
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 allows


class Access:
    """The token of a server, and what it gave out for it.

    Args:
        token: Of the server.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._ticket: str | None = secrets.token_urlsafe(_BYTES)
        self._lock = threading.Lock()

    @property
    def session(self) -> str:
        """The value of the cookie: from the token, so that it outlives the server."""
        return hmac.new(self._token, b"ohmloop session", hashlib.sha256).hexdigest()

    @property
    def link(self) -> str:
        """The address, on this server, that lets one browser in once."""
        return f"{ENTER}?token={self._ticket or ''}"

    def takes(self, given: str) -> bool:
        """Whether what a person brings is the token, or the ticket of the link, which is used up by it."""
        with self._lock:
            if self._ticket is not None and _is_same(given, self._ticket.encode()):
                self._ticket = None
                return True
        return _is_same(given, self._token)

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request brings the token or the cookie."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _is_same(given.strip(), self._token):
            return True
        cookies = cookie_parser(headers.get("cookie", ""))
        return _is_same(cookies.get(cookie_name(headers), ""), self.session.encode())

    def lets_in(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether a request may pass: it is known, or asks for the way in and how that looks."""
        return path == ENTER or path.startswith("/static/") or self.knows(headers)


def _is_same(given: str, wanted: bytes) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted)


def cookie_name(headers: Mapping[str, str]) -> str:
    """Return the name of the cookie of the server that a request was sent to."""
    return f"ohmloop_session_{headers.get('host', '').rpartition(':')[2] or '80'}"


def token_of(private: Path, file: Path | None = None) -> str:
    """Return the token of a server: from a file that was named, the environment, or the folder's own file.

    Args:
        private: Folder of the page's own files; its file ``token`` is made on first use.
        file: A file that holds it, made if it is not there.

    Raises:
        WebError: If it is too short, or the file cannot be read, written or kept from others.
    """
    if file is not None:
        return _checked(_kept(file), str(file))
    if given := os.environ.get(ENVIRONMENT, "").strip():
        return _checked(given, ENVIRONMENT)
    return _checked(_kept(private / FILE, is_own=True), str(private / FILE))


def _kept(path: Path, *, is_own: bool = False) -> str:
    """Return the token that a file holds; a fresh one in a new file where there is none.

    The page's own file is made anew where others could have read it.
    """
    try:
        if is_own and path.exists() and _others_read(path):
            path.unlink()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(handle, "w", encoding="ascii") as out:
                out.write(secrets.token_urlsafe(_BYTES) + "\n")
            if is_own:  # a folder that is kept in git must not give its token away
                (path.parent / ".gitignore").write_text("*\n", encoding="ascii")
        if _others_read(path):
            raise WebError(
                f"{path} holds the token of the page, and others can read it. Keep them out: chmod 600 {path}"
            )
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise WebError(
            f"{path} cannot be used for the token of the page ({error.strerror or error}). Name another file: "
            "ohmloop serve --token-file FILE"
        ) from None


def _others_read(path: Path) -> bool:
    if os.name != "posix":
        return False
    found = path.stat()
    return bool(stat.S_IMODE(found.st_mode) & 0o077) or found.st_uid != os.getuid()


def _checked(token: str, where: str) -> str:
    if len(token) < _SHORTEST or not _TOKEN.fullmatch(token):
        raise WebError(
            f"{where}: a token has at least {_SHORTEST} letters, digits or - . _ ~ + / = and nothing else. "
            "Let ohmloop make one: name a file that does not exist yet."
        )
    return token
