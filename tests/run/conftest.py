"""A shell that starts the tests in the background leaves them deaf to SIGINT, and so all that they start."""

import signal

import pytest


@pytest.fixture(autouse=True)
def _hears_sigint() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
