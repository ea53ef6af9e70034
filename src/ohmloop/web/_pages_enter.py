"""The way in: a link that works once, or the token, for a cookie."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ohmloop.web._access import ENTER, KEPT, Access, cookie_name
from ohmloop.web._pages import Form, get_templates, local_path

router = APIRouter(include_in_schema=False)
_USED = "This link was used before, or is of an earlier start of the server."
_WRONG = "That is not the token."


@router.get(ENTER)
def enter(
    request: Request,
    token: Annotated[str, Query(max_length=500)] = "",
    to: Annotated[str, Query(max_length=2000)] = "",
) -> Response:
    """Let a browser in by its link; show the form of the token where that does not work."""
    access: Access | None = request.app.state.access
    place = _place(request, to)
    if access is None:
        return RedirectResponse(place, status_code=303)
    is_right = bool(token) and access.takes(token)
    if access.knows(request.headers) and not is_right:
        return RedirectResponse(place, status_code=303)
    if not is_right:
        return HTMLResponse(locked_page(place, _USED if token else ""), status_code=401)
    # Not a redirect: that would count as coming from the site that the link stood on, without the cookie.
    text = get_templates().get_template("enter.html.j2").render(place=place, is_in=True, reason="")
    return _with_cookie(HTMLResponse(text), request, access)


@router.post(ENTER)
def enter_by_form(request: Request, form: Form) -> Response:
    """Let a browser in by the token."""
    access: Access | None = request.app.state.access
    place = _place(request, str(form.get("to", "")))
    if access is None:
        return RedirectResponse(place, status_code=303)
    if not access.takes(str(form.get("token", "")).strip()):
        return HTMLResponse(locked_page(place, _WRONG), status_code=401)
    return _with_cookie(RedirectResponse(place, status_code=303), request, access)


def locked_page(place: str, reason: str = "") -> str:
    """Return the page of somebody who is not let in: how to get in, and the form of the token.

    Args:
        place: Path of the page that was asked for.
        reason: What was wrong with what was tried.
    """
    template = get_templates().get_template("enter.html.j2")
    return template.render(place=local_path(place), is_in=False, reason=reason)


def _place(request: Request, to: str) -> str:
    start = request.app.state.workspace.start
    return local_path(to) if to else (f"/campaigns/{quote(start, safe='')}" if start else "/")


def _with_cookie(response: Response, request: Request, access: Access) -> Response:
    response.set_cookie(
        cookie_name(request.headers),
        access.session,
        max_age=KEPT,
        path="/",
        httponly=True,
        samesite="strict",
    )
    response.headers["Cache-Control"] = "no-store"
    return response
