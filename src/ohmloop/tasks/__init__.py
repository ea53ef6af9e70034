"""Data sets, splits and reference models behind one `Task`."""

from ohmloop.tasks._fetch import fetch
from ohmloop.tasks._idx import read_idx
from ohmloop.tasks._models import build_model
from ohmloop.tasks._task import Split, Task, list_tasks, task

__all__ = ["Split", "Task", "build_model", "fetch", "list_tasks", "read_idx", "task"]
