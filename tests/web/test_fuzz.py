"""Generated requests: a bounded part of ``scripts/fuzz_api.py --calls 10000``."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_generated_requests_end_in_no_500_and_answers_are_as_the_document_says() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz_api.py"), "--calls", "100"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "answers by status" in run.stdout
    assert " 500:" not in run.stdout
