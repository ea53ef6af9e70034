"""What the parts of the JSON API share: who asks, what they saw, and how errors are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Header, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from ohmloop.campaign import Campaign
from ohmloop.web._errors import WebError
from ohmloop.web._jobs import Jobs
from ohmloop.web._reader import Reader
from ohmloop.web._uploads import Uploads
from ohmloop.web._workspace import Workspace

_ETAG = re.compile(r'(?:W/)?"(\d{1,15})"')


class Body(BaseModel):
    """What is sent: a misspelt name is an error, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description='"about:blank": the title says it all.')
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was expected, what came, and what to do.")


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals that an operation may answer with, for its document."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status in (400, 401, 403, 404, 413, 422, 503, *more)
    }


# -- what a request is about --------------------------------------------------------------------

CampaignName = Annotated[str, Path(description="Name of the campaign's folder.")]
TrialId = Annotated[str, Path(description='Like "T007".')]
Actor = Annotated[
    str | None,
    Header(
        alias="Ohmloop-Actor",
        max_length=200,
        description="Who, for the event log; percent-encoded if not ASCII. By default who runs the server.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=40,
        description='The last event that you saw, quoted, as ETag gives it: "17". What others changed later '
        "is not overwritten then (409).",
    ),
]


def workspace_of(request: Request) -> Workspace:
    """Return the folder that is served."""
    found: Workspace = request.app.state.workspace
    return found


def jobs_of(request: Request) -> Jobs:
    """Return the jobs of the folder."""
    found: Jobs = request.app.state.jobs
    return found


def reader_of(request: Request) -> Reader:
    """Return the process that reads files."""
    found: Reader = request.app.state.reader
    return found


def uploads_of(request: Request) -> Uploads:
    """Return the files that wait."""
    found: Uploads = request.app.state.uploads
    return found


def seen_of(if_match: str | None) -> int | None:
    """Return the event that an If-Match header names; None for none, and for ``*``.

    Raises:
        WebError: If it is neither.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise WebError(
            'If-Match holds the number of one event in quotes, like "17", as ETag gives it.'
        )
    return int(found[1])


def actor_of(actor: str | None) -> str | None:
    """Return a name for the event log from a header."""
    if actor is None:
        return None
    name = "".join(c for c in unquote(actor) if c.isprintable()).strip()
    return name[:60] or None


@contextmanager
def opened(
    request: Request,
    name: str,
    *,
    is_writable: bool = False,
    actor: str | None = None,
    if_match: str | None = None,
) -> Iterator[Campaign]:
    """Open a campaign of the workspace for one request.

    Raises:
        NotFoundError: If there is none of this name.
    """
    folder = workspace_of(request).campaign(name)
    seen = seen_of(if_match)
    with Campaign.open(folder, writable=is_writable, actor=actor_of(actor), seen=seen) as campaign:
        yield campaign
