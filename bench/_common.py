"""What every study shares: where results go, what they were made with, how spreads are written."""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return versions and the size of the machine."""
    import torch

    from ohmloop import __version__

    return {
        "ohmloop": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "cuda": torch.cuda.is_available(),
    }


def save(name: str, value: dict[str, Any], table: str, folder: Path = RESULTS) -> None:
    """Write ``NAME.json`` and ``NAME.md``, to ``results`` unless told otherwise, and print the table."""
    folder.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **value}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)


def executor_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--executor`` and its short form ``--workers``."""
    parser.add_argument("--executor", help="local:N, slurm:..., ray:...: see docs/scaling.md")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="short for --executor local:N"
    )


def executor_of(args: argparse.Namespace) -> str:
    """Return the executor that was asked for."""
    if args.executor:
        return str(args.executor)
    return f"local:{args.workers}" if args.workers > 1 else "in-process"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def middle(values: Sequence[float]) -> str:
    """Return median and range, "2.4 (2.2 to 2.7)"."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
