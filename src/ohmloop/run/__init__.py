"""Executors: the same trials in this process, on more cores, on a Slurm cluster, or on Ray.

>>> from ohmloop.run import open_executor
>>> with open_executor("in-process") as executor:
...     sorted(result for _, result in executor.each(abs, [(-1,), (-2,)]))
[1, 2]
"""

from ohmloop.run._in_process import InProcess
from ohmloop.run._local import LocalPool
from ohmloop.run._open import open_executor, using
from ohmloop.run._payload import Shared
from ohmloop.run._protocol import RETRIES, Executor, Handle, Resources
from ohmloop.run._ray import RayPool
from ohmloop.run._slurm import SlurmPool

__all__ = [  # noqa: RUF022  # plain order, as everywhere
    "Executor",
    "Handle",
    "InProcess",
    "LocalPool",
    "RETRIES",
    "RayPool",
    "Resources",
    "Shared",
    "SlurmPool",
    "open_executor",
    "using",
]
