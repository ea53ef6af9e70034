"""The local page: a server for one person's machine, its worker and its reader. No logic; nobody imports it.

It loads on first use, so that the worker and the reader, which are modules of it, start without the server.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ohmloop.web._app import create_app, serve

__all__ = ["create_app", "serve"]

_NEEDS = ("fastapi", "uvicorn", "python_multipart", "plotly")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ohmloop.web' has no attribute {name!r}")
    missing = [need for need in _NEEDS if importlib.util.find_spec(need) is None]
    if missing:
        from ohmloop.web._errors import WebError

        raise WebError(
            f'the local page needs {", ".join(missing)}. Install what is missing: pip install "ohmloop[web]"'
        )
    return getattr(importlib.import_module("ohmloop.web._app"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
