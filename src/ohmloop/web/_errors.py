"""What can go wrong between a browser and the library, and which HTTP status says so."""

from __future__ import annotations

from ohmloop import errors
from ohmloop.errors import OhmloopError


class WebError(OhmloopError):
    """Base of what the page itself refuses."""

    status = 400


class NotFoundError(WebError):
    """A campaign, run, device, job or file of this name is not in the workspace."""

    status = 404


class NameTakenError(WebError):
    """Something of this name exists, or the name cannot be that of a folder."""

    status = 409


class JobError(WebError):
    """A job was asked for with wrong arguments, or cannot be cancelled or repeated."""

    status = 422


class BusyError(WebError):
    """Another server works on this folder, or a helper process does not answer."""

    status = 503


class HelperLostError(WebError):
    """A process beside the server ended before it answered: killed, out of time, or crashed."""

    status = 503


class OutOfMemoryError(WebError):
    """A process beside the server would have needed more memory than it may have."""

    status = 422


def status_of(error: OhmloopError) -> int:
    """Return the HTTP status of an error: whose fault it is, and whether to repeat."""
    if isinstance(error, WebError):
        return error.status
    if type(error).__name__ == "ConflictError":
        return 409
    if isinstance(error, errors.StoreError):
        return 503
    return 422


def from_name(name: str, text: str) -> OhmloopError:
    """Return the error that another process reported by its class name."""
    kind = globals().get(name) or getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, OhmloopError):
        return kind(text)
    return WebError(text)
