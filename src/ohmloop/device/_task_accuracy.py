"""What a network scores as a smooth function of a device's properties: small, readable, and quick to ask.

`ohmloop.codesign.sensitivity` makes it from simulated devices; whoever has a device law asks it, a campaign
among them, without a network or torch at hand.

Sources:
    Rasmussen & Williams, Gaussian Processes for Machine Learning (2006): equations 2.25 and 2.26 (prediction),
    4.17 (the Matern covariance with nu = 5/2), 5.12 (leave-one-out).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ohmloop._files import write_whole
from ohmloop.device._model import DeviceModel
from ohmloop.errors import DeviceError

Array = NDArray[np.float64]
_MAX_JSON = 16 * 2**20
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class Predicted(NamedTuple):
    """A score that is expected of a device law.

    Attributes:
        mean: Expected score over devices and trainings.
        error: Standard error of the mean: trainings, virtual devices, smoothing, and the law's own interval.
        spread: Standard deviation from device to device.
    """

    mean: float
    error: float
    spread: float


class Axis(BaseModel):
    """One property of a device, and the range that was simulated.

    Attributes:
        name: "sigma", "distortion", or a property of arrays and their cells.
        low: Lower end of the range.
        high: Upper end.
        log: Whether ratios count.
        neutral: Value at which the property does no harm, assumed of a law that does not state it.
        unit: "" for pure numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    low: float
    high: float
    log: bool = False
    neutral: float
    unit: str = ""

    @model_validator(mode="after")
    def _a_range(self) -> Axis:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise DeviceError(
                f"axis {self.name}: low must lie below high, and above 0 on a log scale; received "
                f"{self.low:g} to {self.high:g}."
            )
        return self

    def to_unit(self, value: float) -> float:
        """Return where a value lies, 0 at ``low`` and 1 at ``high``; values outside count as the nearer end."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)

    def from_unit(self, share: float) -> float:
        """Return the value at a share of the range."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + share * (self.high - self.low))


def table_distortion(
    rho: Sequence[float] | None, usage: Sequence[float] | NDArray[np.float64]
) -> float:
    """Return how far a level table bends a network's weights, whatever it does to their scale; in [0, 1].

    Weights w become w rho(|w| / max|w|). The part that no common factor c makes good is
    min_c ||w rho - c w|| / ||w rho|| = sqrt(1 - (sum p rho)^2 / sum p rho^2), with p the share of squared
    weight at each relative magnitude. 0: the table only scales; 1: it wipes the network out.

    Args:
        rho: The level table, indexed linearly by |w| / max|w|; None is 1 everywhere.
        usage: Share of the squared weight in equal bins of |w| / max|w|, in any unit.

    >>> table_distortion((0.5, 0.5), (1.0, 1.0))
    0.0
    """
    if rho is None:
        return 0.0
    levels, p = np.asarray(rho, dtype=np.float64), np.asarray(usage, dtype=np.float64)
    centres = (np.arange(len(p)) + 0.5) / len(p)
    held = levels[np.rint(centres * (len(levels) - 1)).astype(int)]
    p = p / p.sum()
    power = float(p @ held**2)
    if power <= 0.0:
        return 1.0
    return math.sqrt(max(0.0, 1.0 - float(p @ held) ** 2 / power))


@dataclass(frozen=True, eq=False)  # models are equal by their fields, not by what follows from them
class _Solved:
    """The Cholesky factor of the points' covariance, and its inverse's product with their means."""

    factor: Array
    rest: Array


class TaskAccuracy(BaseModel):
    """A network's score as a function of device properties: a Gaussian process, with error bars.

    Attributes:
        schema_version: Version of this layout; 1.
        task: What was learned.
        method: How the networks were trained.
        deployment: What each device got beside its weights.
        metric: Name of the score.
        is_higher_better: False for an error.
        n_networks: Trainings that scores are averaged over.
        n_devices: Virtual devices at each point, for each network.
        n_samples: Inputs that each score is taken over; never test data.
        digital: Mean score of the networks without devices.
        axes: The properties.
        usage: Share of the networks' squared weights in equal bins of |w| / max|w|.
        points: ``n x d`` simulated laws, in shares of the axes' ranges.
        means: ``n`` mean scores.
        errors: ``n`` standard errors of these: the spread between trainings and devices.
        spreads: ``n`` standard deviations from device to device.
        lengths: ``d`` lengthscales, in shares of the ranges.
        amplitude: Prior variance of the score.
        noises: ``n`` variances that the axes do not explain (the shape of level tables, mostly).
        about: Where it comes from, for people.

    Ask it with `at` (properties) or `of` (a device model).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    task: str
    method: str
    deployment: str = "none"
    metric: str
    is_higher_better: bool = True
    n_networks: int = Field(ge=1)
    n_devices: int = Field(ge=1)
    n_samples: int = Field(ge=1)
    digital: float
    axes: tuple[Axis, ...] = Field(min_length=1)
    usage: tuple[float, ...] = Field(min_length=2)
    points: tuple[tuple[float, ...], ...] = Field(min_length=2)
    means: tuple[float, ...]
    errors: tuple[float, ...]
    spreads: tuple[float, ...]
    lengths: tuple[float, ...]
    amplitude: float = Field(gt=0)
    noises: tuple[float, ...]
    about: str = ""

    @model_validator(mode="after")
    def _check(self) -> TaskAccuracy:
        n, d = len(self.points), len(self.axes)
        lengths = {len(x) for x in (self.means, self.errors, self.spreads, self.noises)}
        if lengths != {n} or {len(p) for p in self.points} != {d} or len(self.lengths) != d:
            raise DeviceError(
                f"a task's accuracy needs one mean, error and spread for each of its {n} points, and "
                f"{d} coordinates in each; this one is damaged."
            )
        if min(*self.lengths, *self.noises) <= 0 or min(self.usage) < 0 or not sum(self.usage) > 0:
            raise DeviceError(
                "lengthscales and noises must be positive, and the usage of weights not negative."
            )
        self._solved  # noqa: B018  # a covariance that cannot be factorised is damage, and said here
        return self

    @cached_property
    def _solved(self) -> _Solved:
        K = self._covariance(np.array(self.points)) + np.diag(self.noises)
        factor = np.asarray(np.linalg.cholesky(K), dtype=np.float64)
        y = np.array(self.means) - float(np.mean(self.means))
        return _Solved(factor, np.linalg.solve(factor.T, np.linalg.solve(factor, y)))

    def _covariance(self, X: Array) -> Array:
        """Return the Matern covariance (nu = 5/2) of rows with the simulated points, ``k x n``."""
        scale = np.array(self.lengths)
        squared = (((X[:, None, :] - np.array(self.points)[None]) / scale) ** 2).sum(-1)
        r = np.sqrt(5.0 * squared)
        out: Array = self.amplitude * (1.0 + r + r * r / 3.0) * np.exp(-r)
        return out

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.name for axis in self.axes)

    def at(self, properties: Mapping[str, float]) -> Predicted:
        """Return the score that is expected at given properties; those left out are neutral.

        Values outside the simulated ranges count as the nearer end.

        Raises:
            DeviceError: If a property is none of the axes.
        """
        strange = sorted(set(properties) - set(self.names))
        if strange:
            raise DeviceError(
                f'"{strange[0]}" was not simulated; properties: {", ".join(self.names)}.'
            )
        return self._predict(
            np.array([[a.to_unit(properties.get(a.name, a.neutral)) for a in self.axes]])
        )[0]

    def _predict(self, X: Array) -> list[Predicted]:
        K, solved = self._covariance(X), self._solved
        mean = float(np.mean(self.means)) + K @ solved.rest
        if self.metric.endswith("accuracy"):  # a smooth curve may overshoot where it saturates
            mean = np.clip(mean, 0.0, 1.0)
        half = np.linalg.solve(solved.factor, K.T)
        variance = np.maximum(self.amplitude - (half**2).sum(0), 0.0)
        # Errors and spreads vary slowly: the covariance's own weights average them.
        near = K / K.sum(1, keepdims=True)
        error: Array = np.sqrt(variance + (near @ np.array(self.errors)) ** 2)
        spread = near @ np.array(self.spreads)
        return [
            Predicted(float(m), float(e), float(s))
            for m, e, s in zip(mean, error, spread, strict=True)
        ]

    def leave_one_out(self) -> float:
        """Return the root mean square error at simulated points predicted from all others."""
        factor = self._solved.factor
        missed = self._solved.rest / np.diag(np.linalg.inv(factor @ factor.T))
        return float(np.sqrt((missed**2).mean()))

    def properties(self, law: DeviceModel) -> dict[str, float]:
        """Return the properties of a device law, as far as it states them and they were simulated.

        sigma, the distortion of its level table as these networks feel it, and of its cell: levels,
        relative read noise, share of stuck cells, ratio of the conductance window.
        """
        found = {
            "sigma": law.sigma.value,
            "distortion": table_distortion(law.rho, self.usage),
        }
        if law.physics is not None:
            cell = law.physics
            levels = cell.levels or len(cell.targets)
            found |= {
                "read_noise": cell.read.relative,
                "faults": cell.faults.p_low + cell.faults.p_high,
            }
            if levels:
                found["levels"] = float(levels)
            if cell.g_min > 0:
                found["window"] = cell.g_max / cell.g_min
        return {name: value for name, value in found.items() if name in self.names}

    def of(self, law: DeviceModel, *, with_interval: bool = True) -> Predicted:
        """Return the score that is expected of a device law.

        Args:
            law: The device.
            with_interval: Whether the score is averaged over what sigma may be (log-normal with its 95 %
                interval), which then counts in the error; otherwise sigma is taken at its word.
        """
        at = self.properties(law)
        low, high = law.sigma.low, law.sigma.high
        if not with_interval or "sigma" not in at or low is None or high is None or not high > 0:
            return self.at(at)
        axis = self.axes[self.names.index("sigma")]
        width = math.log(max(high, axis.low) / max(low, axis.low)) / (2 * 1.959964)
        weights = _WEIGHTS / _WEIGHTS.sum()
        parts = self._predict(
            np.array(
                [
                    [
                        a.to_unit(
                            max(at["sigma"], axis.low) * math.exp(width * float(node))
                            if a.name == "sigma"
                            else at.get(a.name, a.neutral)
                        )
                        for a in self.axes
                    ]
                    for node in _NODES
                ]
            )
        )
        means = np.array([p.mean for p in parts])
        mean = float(weights @ means)
        within = float(weights @ np.array([p.error**2 for p in parts]))
        return Predicted(
            mean,
            math.sqrt(within + float(weights @ (means - mean) ** 2)),
            float(weights @ np.array([p.spread for p in parts])),
        )


def save_task_accuracy(found: TaskAccuracy, path: str | Path) -> Path:
    """Write it as JSON; the file is replaced as a whole or not at all."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, found.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise DeviceError(f"{target} cannot be written: {error.strerror or error}.") from error
    return target


def load_task_accuracy(path: str | Path) -> TaskAccuracy:
    """Read what `save_task_accuracy` wrote.

    Raises:
        DeviceError: If the file is missing, too large or damaged.
    """
    target = Path(path)
    try:
        if target.stat().st_size > _MAX_JSON:
            raise DeviceError(f"{target}: more than {_MAX_JSON} bytes; this is no task accuracy.")
        return TaskAccuracy.model_validate(json.loads(target.read_text(encoding="utf-8")))
    except OSError as error:
        raise DeviceError(
            f"{target} cannot be read: {error.strerror or error}. Make it from trained networks: "
            f"ohmloop codesign sensitivity RUN... -o {target}"
        ) from error
    except (ValueError, ValidationError, np.linalg.LinAlgError) as error:
        first = str(error).partition("\n")[0]
        raise DeviceError(f"{target} holds no task accuracy: {first}.") from error
