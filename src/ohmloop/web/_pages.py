"""What all pages share: templates, who sits at the screen, and errors as pages that keep what was typed."""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from ohmloop._version import __version__
from ohmloop.errors import ConflictError, OhmloopError
from ohmloop.web._errors import status_of

NAME, THEME, SAID = "ohmloop_name", "ohmloop_theme", "ohmloop_said"
THEMES = ("light", "dark")
LONGEST_NAME, LONGEST_SAID = 60, 600  # characters; a cookie holds some 4,000 bytes
_BAD = "\x01"
_YEAR = 365 * 24 * 3600
_MOST_FIELDS, _MOST_FILES = 2000, 200

router = APIRouter(include_in_schema=False)


_LABELS = {"q": "how many", "note": "remark", "verdict": "how far it got", "earlier": "campaign"}


VALUE = "v."
"""What the names of the form fields of a recipe's values begin with."""
_HIDDEN = ("to", "id", "event")
_UNSEEN = ("seen", "was", "back", "key")  # fields that only programs read


class Typed(NamedTuple):
    """One field of a form as it was sent.

    Attributes:
        name: Of the field.
        value: What was typed or chosen.
        choices: Where the form offers choices, their values and words; the one that was sent is among them.
        called: What a person calls it, where its name does not say.
    """

    name: str
    value: str
    choices: tuple[tuple[str, str], ...] = ()
    called: str = ""

    @property
    def is_hidden(self) -> bool:
        """Whether the form had it out of sight: it says what the form is about."""
        return self.name in _HIDDEN

    @property
    def label(self) -> str:
        """What a person calls it: "v.fa" is the variable "fa", "y.usability" the outcome."""
        if self.called:
            return self.called
        plain = self.name[2:] if self.name[:2] in ("v.", "y.", "c.") else self.name
        return _LABELS.get(plain, plain.replace("_", " ") if plain == self.name else plain)


class Again(NamedTuple):
    """How a form that was sent is shown again; the function that answers it leaves one in ``request.state``.

    Attributes:
        fields: Makes the fields of a recipe of its values, as the form has them; None for other forms.
        choices: Name of a field -> the values and words that it offers.
        labels: Name of a field -> what a person calls it, where its name does not say.
    """

    fields: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    choices: Mapping[str, Sequence[tuple[str, str]]] = {}
    labels: Mapping[str, str] = {}


async def _form(request: Request) -> AsyncIterator[FormData]:
    form = await request.form(max_fields=_MOST_FIELDS, max_files=_MOST_FILES)
    # Error pages show it again, so that nothing typed is lost.
    request.state.form = form
    request.state.typed = [Typed(k, v) for k, v in form.multi_items() if isinstance(v, str)]
    try:
        yield form
    finally:
        await form.close()


Form = Annotated[FormData, Depends(_form)]


@functools.cache
def get_templates() -> Environment:
    """Return the templates of all pages: escaped, strict about names, formatting as in reports."""
    environment = Environment(
        loader=PackageLoader("ohmloop.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,  # an update under a running server must not mix old code with new pages
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "segment": segment, "when": when}
    environment.globals |= {"version": __version__}
    return environment


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page.

    Every template gets, beside ``context``: ``request``; ``name`` (who sits there, "" if nobody said);
    ``theme`` ("light", "dark" or "" for that of the system); ``said`` (what the action before did, shown once)
    and ``is_bad`` (whether some of it failed); ``jobs`` (those that wait or run); ``here`` (path and query, to
    come back to).

    Args:
        request: The one to answer.
        template: File name in ``templates/``.
        status: Of the answer.
        context: What the template shows.
    """
    said = unquote(request.cookies.get(SAID, ""))[: LONGEST_SAID + 1]
    query = f"?{request.url.query}" if request.url.query else ""
    shared = {
        "request": request,
        "name": actor_of(request) or "",
        "theme": theme if (theme := request.cookies.get(THEME)) in THEMES else "",
        "said": said.removeprefix(_BAD),
        "is_bad": said.startswith(_BAD),
        "jobs": live_jobs(request),
        "here": (request.url.path + query) if request.method == "GET" else "/",
    }
    text = get_templates().get_template(template).render(shared | context)
    response = HTMLResponse(text, status_code=status, headers={"Cache-Control": "no-store"})
    if said:
        response.delete_cookie(SAID, path="/")
    return response


def live_jobs(request: Request) -> list[Any]:
    """Return the jobs that wait or run, the newest first."""
    jobs = getattr(request.app.state, "jobs", None)
    return [] if jobs is None else list(jobs.list(is_active=True, limit=20))


def actor_of(request: Request) -> str | None:
    """Return the name that the person gave, for the event log; None if none was given."""
    name = "".join(c for c in unquote(request.cookies.get(NAME, "")) if c.isprintable())
    return name.strip()[:LONGEST_NAME] or None


def redirect(url: str, said: str = "", *, is_bad: bool = False) -> RedirectResponse:
    """Send the browser to another page after an action, which there says once what was done.

    Args:
        url: Of the page.
        said: What was done; the page that follows shows it.
        is_bad: Whether some of it failed.
    """
    response = RedirectResponse(url, status_code=303)
    if said:
        short = said if len(said) <= LONGEST_SAID else said[: LONGEST_SAID - 1] + "…"
        _set(response, SAID, (_BAD if is_bad else "") + short, 120)
    return response


def _set(response: Response, key: str, value: str, age: int) -> None:
    response.set_cookie(
        key, quote(value), max_age=age, path="/", httponly=key != THEME, samesite="strict"
    )


@router.post("/you")
def set_name(form: Form) -> RedirectResponse:
    """Remember who sits at the screen; the name stands in the event log of every campaign."""
    name = "".join(c for c in str(form.get("name", "")) if c.isprintable()).strip()[:LONGEST_NAME]
    back = local_path(str(form.get("back", "/")))
    response = redirect(back, f"Your name is now {name}." if name else "Your name is forgotten.")
    _set(response, NAME, name, _YEAR if name else 0)
    return response


@router.post("/theme")
def set_theme(form: Form) -> RedirectResponse:
    """Remember light or dark; anything else follows the system again."""
    theme = str(form.get("theme", ""))
    response = redirect(local_path(str(form.get("back", "/"))))
    _set(response, THEME, theme, _YEAR if theme in THEMES else 0)
    return response


def local_path(url: str) -> str:
    """Return a path of this page, or "/" for everything that leads elsewhere."""
    plain = url.isprintable() and "\\" not in url and not url.startswith("//")
    return url if plain and url.startswith("/") else "/"


# -- errors -------------------------------------------------------------------------------------


def error_page(request: Request, error: Exception) -> HTMLResponse:
    """Return what went wrong as a page: why, what was typed (to correct and send again), where to go on."""
    status, text = explain(error)
    if isinstance(error, ConflictError):
        from ohmloop.web._pages_lab_conflict import conflict_page

        return conflict_page(request, text)
    return problem_page(request, status, text)


def explain(error: Exception) -> tuple[int, str]:
    """Return the HTTP status of an error, and its reason in words."""
    if isinstance(error, OhmloopError):
        return status_of(error), str(error)
    if isinstance(error, RequestValidationError):
        lines = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()[:10]]
        return 422, "\n".join(lines)
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail)
    return (
        500,
        "Something went wrong that should not. The terminal that runs ohmloop serve says what.",
    )


_TITLES = {
    400: "That does not fit",
    403: "That is refused",
    404: "There is no such page",
    405: "That cannot be done here",
    409: "That is taken",
    413: "That is too large",
    422: "That does not fit",
    500: "An error of ohmloop",
    503: "The folder cannot be used",
}


def problem_page(request: Request, status: int, text: str) -> HTMLResponse:
    """Return a page that says what is wrong and keeps what was typed."""
    title = _TITLES.get(status, HTTPStatus(status).phrase)
    if status == 404 and text == "Not Found":
        text = f"Nothing lies at {request.url.path}."
    return page(
        request,
        "error.html.j2",
        status=status,
        title=title,
        text=text,
        **typed_fields(request),
        again=request.url.path if request.method == "POST" else "",
        back=_came_from(request),
        settings=_settings_of(request) if status == 422 else "",
    )


def _settings_of(request: Request) -> str:
    """Return the address of a campaign's settings, where its pages fail to open; "" elsewhere."""
    name = request.path_params.get("name")
    is_page = request.method == "GET" and request.url.path.startswith("/campaigns/")
    return f"/campaigns/{segment(name)}/settings" if name and is_page else ""


def typed_fields(request: Request) -> dict[str, Any]:
    """Return the form that was sent for the template ``_typed.html.j2``, with the widgets that it had.

    Values of a recipe (``fields``) are the fields of the form of recipes; the others (``typed``) are choices
    where they were choices. Fields that only programs read are left out.
    """
    sent: list[Typed] = getattr(request.state, "typed", [])
    again: Again = getattr(request.state, "again", Again())
    values = {t.name.removeprefix(VALUE): t.value for t in sent if t.name.startswith(VALUE)}
    fields = again.fields(values) if again.fields is not None and values else []
    shown = {field["name"] for field in fields} | set(_UNSEEN)
    return {
        "fields": fields,
        "typed": [_as_it_was(t, again) for t in sent if t.name not in shown],
    }


def _as_it_was(field: Typed, again: Again) -> Typed:
    offered = tuple(again.choices.get(field.name, ()))
    if offered and field.value not in {value for value, _ in offered}:
        offered += ((field.value, field.value),)
    return field._replace(choices=offered, called=again.labels.get(field.name, ""))


def _came_from(request: Request) -> str:
    """Return the page that led here, if it is one of ours."""
    before, _, path = request.headers.get("referer", "").partition(
        request.headers.get("host", "\0")
    )
    return local_path(path) if before in ("http://", "https://") else "/"


# -- filters ------------------------------------------------------------------------------------


def number(value: Any, unit: str = "", digits: int = 4) -> str:
    """Return a value as reports print it: four significant digits, and a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    text = f"{value:.{digits}g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share of 1 in percent."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def segment(name: str) -> str:
    """Return a name as one segment of a URL."""
    return quote(str(name), safe="")


def when(moment: str | datetime.datetime | float | None) -> str:
    """Return a moment as "2026-03-01 14:05" in UTC; the browser turns it into local time."""
    if moment is None:
        return "–"
    if isinstance(moment, int | float):
        moment = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    text = moment if isinstance(moment, str) else moment.astimezone(datetime.UTC).isoformat()
    return text[:16].replace("T", " ")
