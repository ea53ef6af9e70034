"""The option ``--executor`` of every command that runs trials."""

from __future__ import annotations

from typing import Annotated

import typer

Where = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Where trials run: in-process, local:N, slurm:KEY=VALUE,..., ray, ray:N, ray://host:port.",
    ),
]
