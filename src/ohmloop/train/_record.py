"""What was measured of a finished run, kept in its folder, and read back without torch.

::

    RUN/config.json, environment.json, history.jsonl, result.json, weights.pt    as `fit` leaves them
    RUN/evaluations/NAME.json      one fleet of virtual devices each: an `Evaluation`
    RUN/certificates.json          {"schema_version": 1, "kept": [...]}: one `KeptCertificate` each

An answer to the same question (the same hardware, devices, seed and so on) replaces the old one; any other is
added. Each names the weights that it was measured on, so that a stale one is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from ohmloop.errors import TrainError
from ohmloop.train._folder import finished_config, read_json, write_json

EVALUATIONS, CERTIFICATES = "evaluations", "certificates.json"


def _number(value: object) -> object:
    return math.nan if value is None else value


def _kept_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


Number = Annotated[float, BeforeValidator(_number), PlainSerializer(_kept_number, when_used="json")]
"""A float whose null in JSON is NaN: a score that is no finite number (an endless perplexity)."""


_T = TypeVar("_T", bound=BaseModel)


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LayerUse(_Kept):
    """What one layer of a network takes on arrays, as `ohmloop.nn.LayerSummary` states it.

    Attributes:
        name: Of the layer; "" is the model itself.
        type: Class name of the digital layer.
        analog: Whether its parameters are on devices.
        reason: Why.
        parameters: How many scalars it holds.
        tiles: Physical arrays; None for a digital layer, as is what follows.
        utilisation: Share of the tiles' cells that are used, [0, 1].
        error: Root mean square error of its products relative to their root mean square.
        energy: Joules of one input, programming left out.
        arrays: Averaged arrays that hold the same weights; tiles and energy are those of all of them.
    """

    name: str
    type: str
    analog: bool
    reason: str
    parameters: int
    tiles: int | None = None
    utilisation: Number | None = None
    error: Number | None = None
    energy: Number | None = None
    arrays: Annotated[int, Field(ge=1)] = 1


class ArrayUse(_Kept):
    """What a network takes on arrays.

    Attributes:
        layers: In the model's own order.
        tiles: Physical arrays of all layers.
        energy: Joules of one input, all analog layers together, programming left out; None if unknown.
    """

    layers: tuple[LayerUse, ...]
    tiles: int
    energy: float | None = None


class Figure(_Kept):
    """What a fleet scored by doing came to beside its score: a driver's collisions, its progress.

    Attributes:
        digital: Of the nominal weights.
        mean: Mean over devices.
        values: One a device, in the order of their numbers.
    """

    digital: Number
    mean: Number
    values: tuple[Number, ...]


class Evaluation(_Kept):
    """A fleet of virtual devices (simulated) on which a run was scored: ``RUN/evaluations/NAME.json``.

    Attributes:
        schema_version: Version of this layout; 1.
        name: Of the file, without ".json".
        task: What was learned.
        model: Name of the network.
        method: How it was trained, as text.
        hardware: What devices were drawn from: `ohmloop.crossbar.Hardware` as JSON, "device" and "array" in it.
        device: Name of the device.
        sigma: Its sigma, dimensionless.
        convention: "median-1" or "mean-1".
        deployment: What each device got beside its weights, as text.
        layer_arrays: How many averaged arrays hold each analog layer, as divided; empty where one holds each.
        by_doing: Whether the score is of what the network does (routes, formulas), not of its outputs.
        test_limit: Test samples that were asked for at most; None for all.
        n_devices: Size of the fleet.
        seed: Of the fleet.
        n_samples: Inputs behind each score.
        metric: Name of the score ("accuracy", "R2", ...); those that end in "accuracy" lie in [0, 1].
        is_higher_better: False for an error or a perplexity.
        digital: Score of the nominal weights.
        mean: Mean score over devices.
        std: Standard deviation over devices (sample; 0 for one device).
        worst_tenth: Mean score of the worst tenth of the devices, at least one.
        scores: One a device, in the order of their numbers.
        figures: Further figures of a score by doing, by name ("collisions", "progress"); empty for most.
        arrays: Tiles and energy by layer, where the hardware has an array; else None.
        weights_sha256: Of weights.pt at the time.
        config_sha256: Of config.json at the time.
        versions: Of python and the packages that computed it.
    """

    schema_version: Literal[1] = 1
    name: str
    task: str
    model: str
    method: str
    hardware: dict[str, Any]
    device: str
    sigma: float
    convention: str
    deployment: str = "none"
    layer_arrays: dict[str, int] = Field(default_factory=dict)
    by_doing: bool = False
    test_limit: int | None = None
    n_devices: Annotated[int, Field(ge=1)]
    seed: int
    n_samples: int
    metric: str
    is_higher_better: bool
    digital: Number
    mean: Number
    std: Number
    worst_tenth: Number
    scores: tuple[Number, ...]
    figures: dict[str, Figure] = Field(default_factory=dict)
    arrays: ArrayUse | None = None
    weights_sha256: str
    config_sha256: str
    versions: dict[str, str]

    @property
    def on_array(self) -> bool:
        """Whether the network was written into arrays of cells, instead of the law on weights."""
        return self.hardware.get("array") is not None


class KeptCertificate(_Kept):
    """A certificate of a run, and what was asked for it: an element of ``RUN/certificates.json``.

    Attributes:
        question: Digest of all that was asked; certificates of one question are replaced together.
        asked: Name of the statement that was asked for ("yield" gives several certificates).
        device: Name of the device, or of the file of measured chips.
        hardware: `ohmloop.crossbar.Hardware` as JSON; None for measured chips.
        settings: The other settings: devices, alpha, seed, deployment, calibration, gains, ablations.
        weights_sha256: Of weights.pt at the time.
        versions: Of python and the packages that computed it.
        record: The certificate: `ohmloop.certify.Certificate.to_dict`.
    """

    question: str
    asked: str
    device: str
    hardware: dict[str, Any] | None
    settings: dict[str, Any]
    weights_sha256: str
    versions: dict[str, str]
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        """Name of the certificate: "yield", "quantile", "tail", "percentile", "drift", "box", ..."""
        return str(self.record["kind"])

    @property
    def statement(self) -> str:
        """S1: each device, for certain; S2: a random device; S3: one after a systematic shift."""
        return str(self.record["statement"])

    @property
    def claim(self) -> str:
        """What is claimed, in words."""
        return str(self.record["claim"])

    @property
    def abstains(self) -> bool:
        """Whether it claims nothing."""
        return self.claim.startswith("No claim")

    @property
    def confidence(self) -> float | None:
        """1 - alpha; None where the statement is certain."""
        return 1 - float(self.record["alpha"]) if self.record["n_draws"] else None


class _Certificates(_Kept):
    schema_version: Literal[1] = 1
    kept: tuple[KeptCertificate, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """All that a run's folder says of it, without its network.

    Attributes:
        folder: The run.
        config: What was asked for.
        result: What came of it.
        history: One entry an epoch.
        environment: Versions and the machine it was trained with.
        weights_sha256: Of weights.pt as it is now.
        config_sha256: Of config.json as it is now.
        evaluations: Kept fleets, by name.
        certificates: Kept certificates, in the order in which they were asked for.
    """

    folder: Path
    config: dict[str, Any]
    result: dict[str, Any]
    history: tuple[dict[str, float], ...]
    environment: dict[str, str]
    weights_sha256: str
    config_sha256: str
    evaluations: tuple[Evaluation, ...]
    certificates: tuple[KeptCertificate, ...]

    def is_stale(self, measured: Evaluation | KeptCertificate) -> bool:
        """Whether it was measured on other weights than the folder holds now."""
        return measured.weights_sha256 != self.weights_sha256


def read_run(folder: str | Path) -> RunRecord:
    """Read a finished run's records; loads no torch.

    Raises:
        TrainError: If the folder holds no finished run, or a file in it is damaged.
    """
    path = Path(folder)
    config = finished_config(path)
    history: list[dict[str, float]] = []
    lines = path / "history.jsonl"
    try:
        if lines.exists():
            history = [json.loads(x) for x in lines.read_text(encoding="utf-8").splitlines() if x]
    except (OSError, ValueError) as error:
        raise TrainError(f"{lines} cannot be read: {error}.") from error
    found = path / "environment.json"
    return RunRecord(
        folder=path,
        config=config,
        result=read_json(path / "result.json"),
        history=tuple(history),
        environment=read_json(found) if found.exists() else {},
        weights_sha256=file_hash(path / "weights.pt"),
        config_sha256=file_hash(path / "config.json"),
        evaluations=read_evaluations(path),
        certificates=read_kept_certificates(path),
    )


def read_evaluations(folder: str | Path) -> tuple[Evaluation, ...]:
    """Read the kept fleets of a run, by name; none is an empty tuple.

    Raises:
        TrainError: If a file is damaged.
    """
    files = sorted((Path(folder) / EVALUATIONS).glob("*.json"))
    return tuple(_validated(Evaluation, file) for file in files)


def read_kept_certificates(folder: str | Path) -> tuple[KeptCertificate, ...]:
    """Read the kept certificates of a run; none is an empty tuple.

    Raises:
        TrainError: If the file is damaged.
    """
    file = Path(folder) / CERTIFICATES
    return _validated(_Certificates, file).kept if file.exists() else ()


def write_evaluation(folder: str | Path, evaluation: Evaluation) -> Path:
    """Keep a fleet in a run's folder; the file of the same question is replaced."""
    path = Path(folder) / EVALUATIONS / f"{evaluation.name}.json"
    with _saying(path):
        path.parent.mkdir(exist_ok=True)
        write_json(path, evaluation.model_dump(mode="json"))
    return path


def add_certificates(folder: str | Path, new: tuple[KeptCertificate, ...]) -> Path:
    """Keep certificates in a run's folder; those of the same questions are replaced.

    Two processes may do so at once: neither loses what the other wrote.
    """
    path, asked = Path(folder) / CERTIFICATES, {c.question for c in new}
    with _saying(path), _alone(Path(folder)):
        old = tuple(c for c in read_kept_certificates(folder) if c.question not in asked)
        write_json(path, _Certificates(kept=(*old, *new)).model_dump(mode="json"))
    return path


def file_hash(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        TrainError: If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while part := handle.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise TrainError(
            f"{path} cannot be read: {error.strerror or error}. Is this a finished run?"
        ) from error
    return digest.hexdigest()


def digest_of(question: Mapping[str, Any]) -> str:
    """Return a short digest of what was asked, the same whatever the order of keys.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(question, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def evaluation_name(device: str, question: Mapping[str, Any]) -> str:
    """Return the name of an evaluation's file: the device, for people, and the digest of the question."""
    word = re.sub(r"[^A-Za-z0-9.]+", "-", device).strip("-.") or "device"
    return f"{word[:60]}-{digest_of(question)}"


def _validated(kind: type[_T], path: Path) -> _T:
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TrainError(
            f"{path}: {where}: {first['msg']}. Delete the file and measure again: it holds nothing else."
        ) from error


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainError(f"{path} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself, where the system has such locks: no lock file is left behind."""
    try:
        import fcntl
    except ImportError:  # Windows: two writers at once are unlikely, and each replaces a whole file
        yield
        return
    import os

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
