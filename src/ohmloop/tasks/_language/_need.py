"""The optional library of this domain, imported late and kept quiet."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import ModuleType

from ohmloop.errors import TaskError

PIP = '    pip install -c constraints.txt "ohmloop[language]"'


def transformers() -> ModuleType:
    """Return the library.

    Raises:
        TaskError: If it is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise TaskError(f"language models need the package transformers:\n{PIP}") from error
    found: ModuleType = library
    return found


def tokenizers() -> ModuleType:
    """Return the library of fast tokenizers.

    Raises:
        TaskError: If it is not installed.
    """
    try:
        import tokenizers as library
    except ImportError as error:
        raise TaskError(f"this task needs the package tokenizers:\n{PIP}") from error
    found: ModuleType = library
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the library's progress bars and notices while it loads; errors still come."""
    log = transformers().utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        # Some bars are drawn past the library's switch. The warnings are third-party readers' notices on
        # changes of numpy and Python.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
