"""Data sets, splits, reference models and metrics behind one `Task`."""

from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._images._idx import read_idx
from ohmloop.tasks._images._networks import build_model, model_names
from ohmloop.tasks._metric import Accuracy, Metric, Perplexity, RSquared, TokenAccuracy
from ohmloop.tasks._task import (
    Split,
    Task,
    TaskSummary,
    describe_tasks,
    fetch,
    list_data,
    list_tasks,
    task,
)

__all__ = [
    "Accuracy",
    "Data",
    "Entry",
    "Measure",
    "Metric",
    "Perplexity",
    "RSquared",
    "Source",
    "Split",
    "Task",
    "TaskSummary",
    "TokenAccuracy",
    "build_model",
    "describe_tasks",
    "fetch",
    "list_data",
    "list_tasks",
    "model_names",
    "read_idx",
    "task",
]
