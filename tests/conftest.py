"""Where the public measurements lie, and what every test shares."""

import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "perovskite-nanowire-iv"


@pytest.fixture(scope="session")
def nanowires() -> Path:
    """The folder of the 43 public workbooks and their recipes; skips where it is absent."""
    if not (SHARED / "recipes.csv").exists():
        pytest.skip(
            "the public nanowire workbooks (GitHub: qiaosun22/BayesMultiOpenPCDet) are not in "
            "../shared/data/perovskite-nanowire-iv beside this checkout"
        )
    return SHARED


@pytest.fixture(autouse=True)
def _same_weights_in_any_order() -> None:
    """Start torch's own generator anew: tests that make a network get the same one whoever ran before."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
