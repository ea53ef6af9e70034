"""The JSON API for instrument PCs and scripts: its parts, its document, its errors, and a page about it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ohmloop.errors import OhmloopError
from ohmloop.web import _api_campaigns, _api_rest
from ohmloop.web._api_common import Problem
from ohmloop.web._errors import status_of

PREFIX = "/api/v1"
DESCRIPTION = """\
Answers on 127.0.0.1 only, and, unless it was started with `--no-token`, to requests with its token: \
`Authorization: Bearer TOKEN`. The token is in `.ohmloop/token` of the folder that is served.

Long work is a job: it is queued (202), and followed at `/api/v1/jobs/ID`.

`ETag` of a campaign is the number of its last event. Send it back as `If-Match` with a decision or a result: \
what somebody else changed meanwhile is then not overwritten (409). Send `Idempotency-Key` with a result, and \
a repeated request records it once. Refusals are `application/problem+json` (RFC 9457).
"""

router = APIRouter()
for _part in (_api_campaigns, _api_rest):
    router.include_router(_part.router, prefix=PREFIX)


@router.get("/api", include_in_schema=False)
def show_api(request: Request) -> Response:
    """Show what the API can do, from its own document."""
    from ohmloop.web._pages import page

    document = request.app.openapi()
    operations = [
        {"method": method.upper(), "path": path, **_operation(operation)}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return page(
        request,
        "api.html.j2",
        about=document["info"],
        operations=operations,
        is_locked=request.app.state.access is not None,
    )


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    def kind(schema: dict[str, Any]) -> str:
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        return name or str(schema.get("type", ""))

    body = operation.get("requestBody", {}).get("content", {})
    return {
        "what": operation.get("description", ""),
        "tag": (operation.get("tags") or [""])[0],
        "parameters": [
            {
                "name": p["name"],
                "place": p["in"],
                "is_required": p.get("required", False),
                "help": p.get("description", ""),
            }
            for p in operation.get("parameters", ())
        ],
        "body": [(media, kind(content.get("schema", {}))) for media, content in body.items()],
        "answers": [
            (status, answer["description"]) for status, answer in operation["responses"].items()
        ],
    }


def complete(app: FastAPI) -> None:
    """Let the application's document name every refusal as what it is: a problem."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            if app.state.access is not None:
                made["components"]["securitySchemes"] = {
                    "token": {"type": "http", "scheme": "bearer"}
                }
                made["security"] = [{"token": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation has it


def problem(error: Exception) -> JSONResponse:
    """Return an error as ``application/problem+json``."""
    headers = None
    if isinstance(error, OhmloopError):
        status, detail = status_of(error), str(error)
    elif isinstance(error, RequestValidationError):
        places = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()[:10]]
        status, detail = 422, "; ".join(f"{place}: {text}" for place, text in places)
    elif isinstance(error, HTTPException):
        status, detail, headers = error.status_code, str(error.detail), error.headers
    else:
        status, detail = 500, "An error of ohmloop; the terminal that runs ohmloop serve says more."
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail.encode("utf-8", "backslashreplace").decode(),
    )
    return JSONResponse(
        body.model_dump(), status, headers=headers, media_type="application/problem+json"
    )
