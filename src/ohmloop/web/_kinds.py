"""What a job can be asked to do: one record of arguments a kind, checked when it is submitted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ohmloop.web._errors import JobError
from ohmloop.web._workspace import Workspace

Value = float | str
Count = Annotated[int, Field(ge=1, le=100_000)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Text = Annotated[str, Field(max_length=200)]
Names = Annotated[list[Text], Field(max_length=100)]


class Arguments(BaseModel):
    """Base of them all."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Suggest(Arguments):
    """Suggest ``q`` recipes (the campaign's batch by default). Target: a campaign."""

    q: Annotated[int, Field(ge=1, le=50)] | None = None
    pin: dict[Text, Value] = {}
    context: dict[Text, Value] = {}
    actor: Text = ""


class Reroll(Arguments):
    """Withdraw suggestions (all open ones by default) and suggest others. Target: a campaign."""

    trials: Names = []
    context: dict[Text, Value] = {}
    actor: Text = ""


class Advice(Arguments):
    """Fit the model: whether to go on, and which recipe it believes best. Target: a campaign."""


class Train(Arguments):
    """Train a network into ``runs/NAME``. Target: the run; its folder need not exist yet.

    ``array`` as ``ohmloop train --array`` takes it: "rows=64,adc=8", "" for the usual one, null for none.
    """

    task: Text = "digits"
    method: Text = "weight-noise"
    model: Text | None = None
    device: Text = "lognormal:0.5"
    array: Text | None = None
    deployment: Text | None = None
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    seed: Seed = 0


class Evaluate(Arguments):
    """Score a finished run on virtual devices. Target: a run. Neither list: what it was trained for."""

    devices: Names = []
    sigmas: Annotated[list[Annotated[float, Field(ge=0, lt=20)]], Field(max_length=50)] = []
    n_devices: Annotated[int, Field(ge=2, le=10_000)] = 100
    array: Text | None = None
    deployment: Text | None = None
    seed: Seed = 0


class Certify(Arguments):
    """Prove statements about a finished run on one device. Target: a run."""

    device: Text | None = None
    statements: Names = ["yield", "percentile", "drift"]
    n_devices: Annotated[int, Field(ge=2, le=100_000)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    seed: Seed = 0


class Sensitivity(Arguments):
    """What device properties are worth to finished runs. Target: a run, or a campaign that keeps it."""

    runs: Annotated[Names, Field(min_length=1)]
    device: Text | None = None
    properties: Names | None = None
    points: Annotated[int, Field(ge=6, le=1000)] = 64
    devices: Annotated[int, Field(ge=2, le=1000)] = 20


class CodesignNew(Arguments):
    """Start a loop: a campaign whose objective is what a network scores. Target: the campaign, or a new one."""

    task: Text = "digits"
    method: Text = "weight-noise:level={sigma}"
    networks: Annotated[int, Field(ge=1, le=20)] = 2
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    template: Text = "perovskite-nanowires"


class CodesignStep(Arguments):
    """Go round the loop once. Target: a campaign that is a loop."""

    q: Annotated[int, Field(ge=1, le=50)] | None = None


class CodesignResult(Arguments):
    """What the loop came to on test data, and what each half alone reaches. Target: a loop."""

    devices: Annotated[int, Field(ge=2, le=1000)] = 50


class DeviceFit(Arguments):
    """Fit a device to uploaded files into ``devices/NAME.json``. Target: the device."""

    uploads: Annotated[Names, Field(min_length=1)]
    kind: Literal["sweep", "pulse-train", "retention"] | None = None
    read_voltage: Annotated[float, Field(gt=0)] | None = None
    voltage_unit: Text | None = None
    current_unit: Text | None = None


class Report(Arguments):
    """Write a report into the ``reports`` folder of the target (campaign, run or loop)."""

    what: Literal["campaign", "run", "loop"] = "campaign"
    pdf: bool = False


class VirtualLab(Arguments):
    """Make every open trial in the virtual lab and record it: SIMULATED devices. Target: a campaign."""

    n_devices: Annotated[int, Field(ge=1, le=20)] = 1
    seed: Seed = 0
    actor: Text = ""


KINDS: dict[str, type[Arguments]] = {
    "suggest": Suggest,
    "reroll": Reroll,
    "advice": Advice,
    "train": Train,
    "evaluate": Evaluate,
    "certify": Certify,
    "sensitivity": Sensitivity,
    "codesign-new": CodesignNew,
    "codesign-step": CodesignStep,
    "codesign-result": CodesignResult,
    "device-fit": DeviceFit,
    "report": Report,
    "virtual-lab": VirtualLab,
}
"""Kind of job -> its arguments."""


def checked(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a job, checked and with every default filled in.

    Raises:
        JobError: Naming the argument that does not fit.
    """
    if kind not in KINDS:
        raise JobError(f'there is no job of the kind "{kind[:40]}"; there are: {", ".join(KINDS)}.')
    try:
        return KINDS[kind].model_validate(arguments).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise JobError(f"{kind}: {where}: {first['msg']}.") from None


_ON_CAMPAIGNS = ("suggest", "reroll", "advice", "virtual-lab", "sensitivity", "report")
_ON_RUNS = ("evaluate", "certify", "sensitivity", "report")


def check_target(workspace: Workspace, kind: str, target: str, arguments: dict[str, Any]) -> None:
    """Check that a job's target is there, or may be made.

    Raises:
        JobError: If it is not of the form that the kind has.
        NotFoundError: If it is not there.
        NameTakenError: If something else would be replaced.
    """
    what, _, name = target.partition("/")
    if what == "campaign" and kind in _ON_CAMPAIGNS:
        workspace.campaign(name)
    elif what == "campaign" and kind in ("codesign-step", "codesign-result"):
        workspace.loop(name)
    elif what == "campaign" and kind == "codesign-new":
        if name not in workspace.campaigns():
            workspace.new_name("campaign", name)
    elif what == "run" and kind in _ON_RUNS:
        workspace.run(name)
    elif what == "run" and kind == "train":
        if name not in workspace.runs():
            workspace.new_name("run", name)
    elif what == "device" and kind == "device-fit":
        workspace.new_name("device", name)
    else:
        raise JobError(f'a job of the kind {kind} cannot be about "{target[:80]}".')
    for run in arguments.get("runs") or ():
        workspace.run(run)
