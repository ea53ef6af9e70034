"""What the JSON API takes and gives about campaigns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ohmloop.web._api_common import Body

Number = Annotated[float, Field(allow_inf_nan=False)]
Value = Number | Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(max_length=200)]
Note = Annotated[str, Field(max_length=10_000)]


class CampaignLine(BaseModel):
    """A campaign in a list."""

    folder: str
    name: str = Field(description="As campaign.toml has it; empty where that cannot be read.")
    n_trials: int
    last_event: int
    problem: str = Field(description="Why it cannot be opened; empty where it can.")


class NewCampaign(Body):
    """A campaign to start: from a template, or with the text of a campaign.toml."""

    folder: Name
    template: Literal["perovskite-nanowires", "spin-coated-films"] | None = None
    text: Annotated[str, Field(max_length=200_000)] | None = None


class RecordOut(BaseModel):
    """The result of one device."""

    event: int
    at: str
    device: str
    stages: dict[str, bool]
    values: dict[str, float | None]
    errors: dict[str, float | None] = Field(description="Objective -> standard error.")
    figures: dict[str, Any]
    file: str
    note: str


class TrialOut(BaseModel):
    """One fabrication."""

    id: str
    recipe: dict[str, float | str | None]
    status: Literal["suggested", "accepted", "rejected", "withdrawn", "done"]
    origin: str
    event: int
    at: str
    batch: int
    why: list[str] = Field(description="Reasons of a suggestion, in words.")
    records: list[RecordOut]
    note: str


class BudgetLine(BaseModel):
    """How much of something was used."""

    used: float | None
    total: float | None


class BestLine(BaseModel):
    """The best usable trial by measurement."""

    trial: str
    value: float | None


class CampaignOut(BaseModel):
    """Where a campaign stands."""

    folder: str
    name: str
    last_event: int = Field(description="For If-Match; also in ETag.")
    counts: dict[str, int] = Field(description="Status -> trials.")
    n_done: int
    n_failed: int
    failures_by_stage: dict[str, int]
    best: dict[str, BestLine]
    budget: dict[str, BudgetLine]
    pins: dict[str, float | str | None]
    open_trials: list[str]
    variables: list[str]
    objectives: list[str]
    stages: list[str]


class LogOut(BaseModel):
    """One event in words."""

    event: int
    at: str
    actor: str
    text: str
    undone: bool


class SuggestionRequest(Body):
    """What to suggest; everything has a default."""

    q: Annotated[int, Field(ge=1, le=50)] | None = None
    pin: dict[Name, Value] = Field(default_factory=dict)
    context: dict[Name, Value] = Field(default_factory=dict)


class OwnExperiment(Body):
    """An experiment of a person's own; it need not lie in the space."""

    recipe: dict[Name, Value]
    note: Note = ""


class Added(BaseModel):
    """A trial that was added, and in words where it leaves the space."""

    trial: TrialOut
    outside: list[str]


class Decision(Body):
    """What a person decided."""

    decision: Literal["accept", "reject", "edit"]
    reason: Note = Field("", description="Of a rejection.")
    changes: dict[Name, Value] = Field(
        default_factory=dict, description="Of an edit: variable -> value."
    )


class Result(Body):
    """The result of one device. A failure is a result too."""

    values: dict[Name, Number] = Field(default_factory=dict)
    errors: dict[Name, Number] = Field(
        default_factory=dict,
        description="Objective -> standard error of its value, where it is known.",
    )
    failed_at: Name | None = None
    passed: Name | None = None
    device: Name = ""
    note: Note = ""


class KeptFile(BaseModel):
    """A raw file of a campaign."""

    sha256: str
    name: str
    size: int | None = Field(description="Bytes; null where the file is missing.")


class Undo(Body):
    """Which event to take back: the last one that can be, by default."""

    event: Annotated[int, Field(ge=1, le=2**53)] | None = None


class Undone(BaseModel):
    """What was taken back."""

    event: int
    kind: str
    last_event: int
