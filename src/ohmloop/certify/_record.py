"""Certificates: frozen records that say what they claim, under which law, at what confidence."""

from __future__ import annotations

import hashlib
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cache
from importlib import metadata
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ohmloop._version import __version__
from ohmloop.certify._law import Law

Statement = Literal["S1", "S2", "S3"]
STATEMENTS: dict[Statement, str] = {
    "S1": "one device, deterministic",
    "S2": "a random device (yield)",
    "S3": "a random device after a systematic shift",
}

NO_MAJORITY = "No claim: for no input do more than half of the devices provably give its class."
"""The claim of a record that abstains for every input."""


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the packages that a certificate depends on."""
    others = ((name, metadata.version(name)) for name in ("torch", "numpy", "scipy"))
    return (("ohmloop", __version__), *others)


class Certificate(BaseModel):
    """One statement about one network. Sub-classes add its numbers.

    Attributes:
        schema_version: Version of this layout; 1.
        kind: Name of the statement; each sub-class has its own.
        statement: "S1": every device within a distance. "S2": a device drawn from the law. "S3": a device
            drawn from the law after a systematic shift; nothing about one given chip.
        theorem: What proves it, with its source.
        claim: What is claimed, in words; begins with "No claim" where it abstains.
        limits: What is not claimed, and what is assumed.
        law: The law of devices in numbers; None where the statement needs none.
        law_words: The same in one line.
        weights: sha256 of the network's state dict; "" where chips were measured instead.
        data: sha256 of the inputs, and of the labels where they count; "" where not known.
        n_inputs: Inputs that the statement is about.
        n_draws: Independent devices behind it, 0 for a deterministic one.
        alpha: Chance that the claim is false, at most, over the drawing of these devices.
        multiplicity: How several statements share alpha.
        seed: Of the virtual devices, None without.
        class_rule: Which class of an input counts as right, and when it was fixed.
        abstentions: Inputs about which nothing is claimed.
        deployment: What each device gets beside its weights.
        layer_arrays: How many averaged arrays hold each analog layer, as divided; empty where one holds each.
        versions: Of the packages that computed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    kind: str
    statement: Statement
    theorem: str
    claim: str
    limits: tuple[str, ...] = ()
    law: Law | None = None
    law_words: str = ""
    weights: str = ""
    data: str = ""
    n_inputs: Annotated[int, Field(ge=0)] = 0
    n_draws: Annotated[int, Field(ge=0)] = 0
    alpha: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    multiplicity: str = "one statement"
    seed: int | None = None
    class_rule: str = ""
    abstentions: Annotated[int, Field(ge=0)] = 0
    deployment: str = "none"
    layer_arrays: dict[str, int] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=lambda: dict(_versions()))

    @property
    def abstains(self) -> bool:
        """Whether it claims nothing."""
        return self.claim.startswith("No claim")

    @property
    def confidence(self) -> float:
        """1 - alpha."""
        return 1 - self.alpha

    def to_dict(self) -> dict[str, Any]:
        """Return everything under stable names, ready for JSON."""
        return self.model_dump(mode="json")


def weights_hash(model: nn.Module) -> str:
    """Return the sha256 of a state dict: names, types, shapes and bytes, in the order of names.

    >>> weights_hash(nn.Identity())[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            _add(digest, name, value)
    return digest.hexdigest()


def data_hash(*tensors: Tensor | None) -> str:
    """Return the sha256 of some tensors: types, shapes and bytes."""
    digest = hashlib.sha256()
    for number, value in enumerate(tensors):
        if value is not None:
            _add(digest, str(number), value)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
    raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    digest.update(raw.numpy().tobytes())


def rounded(value: float | Decimal, digits: int = 4, *, up: bool = False) -> str:
    """Return a number as text, rounded down (or up) to so many digits: a claim must not grow by rounding.

    >>> rounded(0.12349), rounded(0.12341, up=True), rounded(0.2)
    ('0.1234', '0.1235', '0.2')
    """
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    side = ROUND_CEILING if up else ROUND_FLOOR
    return f"{float(exact.normalize(Context(prec=digits, rounding=side))):.{digits}g}"


def percent(share: float, digits: int = 3) -> str:
    """Return a share as text in percent, rounded down: a claim must not grow by rounding.

    >>> percent(0.99999), percent(0.5)
    ('99.9 %', '50 %')
    """
    scale = 10 ** max(0, digits - 2)
    floor = int(share * 100 * scale * (1 + 1e-12) + 1e-9) / scale
    return f"{floor:.{digits}g} %"
