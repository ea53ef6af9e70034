"""The error tree. Every error a user can cause is one of these, and says what to do next.

::

    OhmloopError
    ├── UnitError        text that should hold a quantity does not
    ├── IngestError      a measurement file cannot be read or understood
    ├── AnalysisError    a sweep was read, but a figure of merit cannot be computed
    ├── DeviceError      a device model is unknown, damaged or outside its range
    ├── ConversionError  a network cannot be put on analog hardware as asked
    ├── TaskError        a data set is missing, damaged or does not fit the task
    ├── TrainError       training settings or a run folder are wrong
    ├── ExecutorError    a trial cannot be sent to other processes, or they were lost
    ├── CertifyError     a statement about a network cannot be made from what was given
    ├── SearchError      a search space or its observations are wrong
    ├── StoreError       a campaign folder cannot be opened, read or written
    └── CampaignError    campaign.toml, a table or a decision does not fit the campaign
        └── ConflictError  somebody else changed the same thing meanwhile
"""

__all__ = [
    "AnalysisError",
    "CampaignError",
    "CertifyError",
    "ConflictError",
    "ConversionError",
    "DeviceError",
    "ExecutorError",
    "IngestError",
    "OhmloopError",
    "SearchError",
    "StoreError",
    "TaskError",
    "TrainError",
    "UnitError",
]


class OhmloopError(Exception):
    """Base of every error that ohmloop raises on purpose; its text is meant for the user."""

    def __str__(self) -> str:
        # A file name may hold bytes that are no text: a screen must be able to show the message all the same.
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class UnitError(OhmloopError, ValueError):
    """Text that should hold a quantity or a unit does not."""


class IngestError(OhmloopError, ValueError):
    """A measurement file cannot be read or understood."""


class AnalysisError(OhmloopError, ValueError):
    """A sweep was read, but a figure of merit cannot be computed from it."""


class DeviceError(OhmloopError, ValueError):
    """A device model is unknown, damaged or asked for something outside its range."""


class ConversionError(OhmloopError, ValueError):
    """A network cannot be put on analog hardware as asked."""


class TaskError(OhmloopError, ValueError):
    """A data set is missing, damaged or does not fit the task."""


class TrainError(OhmloopError, ValueError):
    """Training settings or a run folder are wrong."""


class ExecutorError(OhmloopError, RuntimeError):
    """An executor cannot be opened, a trial cannot be sent to it, or its workers were lost."""


class CertifyError(OhmloopError, ValueError):
    """A statement about a network on imperfect devices cannot be made from what was given."""


class SearchError(OhmloopError, ValueError):
    """A search space or its observations are wrong."""


class StoreError(OhmloopError, OSError):
    """A campaign folder cannot be opened, read or written."""


class CampaignError(OhmloopError, ValueError):
    """A campaign's settings, a table handed back or a decision does not fit the campaign."""


class ConflictError(CampaignError):
    """Somebody else changed the same trial, pin or setting after the state that a decision was based on."""
