"""The law that a statement is made under, and virtual devices drawn from it.

Noise coordinates: for log-normal noise theta = ln|w| (signs and exact zeros stay), for gaussian noise the
relative deviation theta = w / w_nominal - 1. In these coordinates a device is normal about the nominal weights:
covariance ``sigma^2 I``, one sigma for each layer if wanted, plus ``tau^2 1 1^T`` for each group of cells that
drift together.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import ndtri
from torch import Tensor

from ohmloop.certify._groups import GroupKind, Indices, coordinate_groups
from ohmloop.crossbar import Convention, Hardware
from ohmloop.device import DeviceModel, Estimate
from ohmloop.errors import CertifyError
from ohmloop.nn import Deployment, device_seed
from ohmloop.nn._allocate import check_patterns

Calibrated = Literal["fixed", "predictive"]
LEVELS = 25
"""Equally likely levels that stand for the calibration's uncertainty of sigma."""
_Z95 = float(ndtri(0.975))
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gain(_Value):
    """A gain that all cells of a group share, on top of each cell's own noise.

    Attributes:
        group: "layer", "column" (one output of a layer), "tile", or "chip": all analog cells.
        tau: Standard deviation of the common coordinate: of the logarithm of the gain for log-normal noise.
        rows: Inputs of a tile.
        columns: Outputs of a tile.

    >>> Gain(group="tile", tau=0.1, rows=64, columns=64).tau
    0.1
    """

    group: GroupKind
    tau: Positive
    rows: Annotated[int, Field(ge=1)] = 64
    columns: Annotated[int, Field(ge=1)] = 64


class Ablation(_Value):
    """Groups of cells that are left out (read as zero), each with the same probability, independently.

    Attributes:
        group: As in `Gain`.
        probability: That a group is left out.
        rows: Inputs of a tile.
        columns: Outputs of a tile.
    """

    group: GroupKind
    probability: Annotated[float, Field(gt=0, lt=1)]
    rows: Annotated[int, Field(ge=1)] = 64
    columns: Annotated[int, Field(ge=1)] = 64


class Law(_Value):
    """A law of devices: what stands between nominal weights and the weights of one device.

    Attributes:
        noise: "log-normal": w exp(sigma eps). "gaussian": w (1 + sigma eps).
        sigma: Standard deviation in the noise coordinate, of parameters that no pattern of ``per_layer`` names.
        per_layer: Pairs of a name pattern ("0.*", "features.3.weight") and a sigma; the first match counts.
        levels: Equally likely factors on all sigmas, one drawn with each device.
        gain: Gains that groups of cells share; None for independent cells.
        ablation: Groups that are left out at random; None for none.
        convention: Of log-normal noise: factors of median 1 or of mean 1. They are different laws.
        spread: Of gaussian noise: whether its spread stays sigma |w_nominal| when weights shift ("nominal") or
            follows the shifted weight ("following"). Both give the same devices while nothing shifts.
        rho: Level table of the device, applied to the nominal weights first; None for rho = 1.
        device: Name of the device model.
        calibration: sha256 of the device model as JSON, "" without one.
        interval: 95 % interval of sigma's calibration, None if not known.
        calibrated: "fixed": sigma is taken as exact. "predictive": sigma is drawn from its calibration's
            uncertainty with each device.

    >>> Law(sigma=0.3).words
    'log-normal noise, sigma 0.3 (median-1)'
    """

    noise: Literal["log-normal", "gaussian"] = "log-normal"
    sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    per_layer: tuple[tuple[str, Positive], ...] = ()
    levels: tuple[Positive, ...] = (1.0,)
    gain: Gain | None = None
    ablation: Ablation | None = None
    convention: Convention = "median-1"
    spread: Literal["nominal", "following"] = "nominal"
    rho: tuple[float, ...] | None = None
    device: str = ""
    calibration: str = ""
    interval: tuple[float, float] | None = None
    calibrated: Calibrated = "fixed"

    @model_validator(mode="after")
    def _fits(self) -> Law:
        if self.noise == "gaussian" and self.convention != "median-1":
            raise CertifyError(
                'gaussian noise has mean and median 1; convention="mean-1" is for log-normal noise.'
            )
        if self.noise == "log-normal" and self.spread != "nominal":
            raise CertifyError(
                'spread="following" is for gaussian noise. The spread of log-normal noise is constant in ln|w| '
                "and follows the weight by itself."
            )
        if self.spread == "following" and self.gain is not None:
            raise CertifyError(
                'spread="following" is for independent cells; leave out the gain, or use log-normal noise.'
            )
        if self.sigma == 0 and self.gain is not None:
            raise CertifyError(
                "with sigma = 0 a gain is the only noise, and all that differs between cells would be certain. "
                "Give cells noise of their own: a sigma above 0."
            )
        if not self.levels:
            raise CertifyError("levels holds at least one factor; (1.0,) for a fixed sigma.")
        return self

    @classmethod
    def of(
        cls,
        hardware: Hardware,
        *,
        calibrated: Calibrated | None = None,
        gain: Gain | None = None,
        ablation: Ablation | None = None,
        per_layer: Mapping[str, float] | None = None,
    ) -> Law:
        """Return the law of a hardware: its device's sigma, level table and convention.

        Args:
            hardware: Without an array.
            calibrated: How sigma's uncertainty is taken; by default "predictive" where the device has a
                95 % interval, else "fixed".
            gain: Gains that groups share, which the device's fit does not know.
            ablation: Groups left out at random.
            per_layer: Pattern -> sigma of parameters on other devices.

        Raises:
            CertifyError: If the hardware has an array, or an interval is needed and missing.

        >>> Law.of(Hardware(device="lognormal:0.3")).calibrated
        'fixed'
        """
        if hardware.array is not None:
            raise CertifyError(
                "this hardware has an array: its cells follow levels, faults and converters, not the law on "
                "weights, in which shifts are proven. Yield statements hold for it: poll(model, data, "
                "hardware). For a statement about shifts leave out the array."
            )
        device = hardware.device
        interval = _interval(device.sigma)
        kind = calibrated or ("fixed" if interval is None else "predictive")
        return cls(
            sigma=device.sigma.value,
            per_layer=tuple((per_layer or {}).items()),
            levels=(1.0,) if kind == "fixed" else _levels(device),
            gain=gain,
            ablation=ablation,
            convention=hardware.convention,
            rho=device.rho if hardware.use_rho else None,
            device=device.name,
            calibration=calibration_hash(device),
            interval=interval,
            calibrated=kind,
        )

    @property
    def words(self) -> str:
        """The law in one line, for a person."""
        name = f"device {self.device}: " if self.device and ":" not in self.device else ""
        kind = f" ({self.convention})" if self.noise == "log-normal" else ""
        text = f"{name}{self.noise} noise, sigma {self.sigma:.3g}{kind}"
        if self.per_layer:
            text += ", " + ", ".join(f"{n} {s:.3g}" for n, s in self.per_layer)
        if self.rho is not None:
            text += f", level table of {len(self.rho)} points"
        if self.gain is not None:
            text += f", common gain of each {self.gain.group} (tau {self.gain.tau:.3g})"
        if self.ablation is not None:
            a = self.ablation
            text += f", each {a.group} left out with probability {a.probability:.3g}"
        if self.calibrated == "predictive" and self.interval is not None:
            low, high = self.interval
            text += f"; sigma drawn from its calibration (95 % interval {low:.3g} to {high:.3g})"
        elif self.interval is not None:
            text += "; sigma taken as exact"
        return text

    def nominal(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights that noise is put on: the parameters times their levels rho."""
        return {name: self.table.deterministic(p.detach()) for name, p in parameters.items()}

    @property
    def table(self) -> Hardware:
        """Hardware that applies the level table and nothing else."""
        name = self.device or "the law"
        return Hardware(device=DeviceModel(name=name, sigma=Estimate(value=0.0), rho=self.rho))

    def sigma_of(self, name: str) -> float:
        """Return the sigma of one parameter tensor, at level 1."""
        for pattern, sigma in self.per_layer:
            if fnmatch.fnmatchcase(name, pattern):
                return sigma
        return self.sigma


def calibration_hash(device: DeviceModel) -> str:
    """Return the sha256 of a device model as JSON: what a law was calibrated to."""
    return hashlib.sha256(device.model_dump_json().encode()).hexdigest()


def _interval(sigma: Estimate) -> tuple[float, float] | None:
    return None if sigma.low is None or sigma.high is None else (sigma.low, sigma.high)


def _levels(device: DeviceModel) -> tuple[float, ...]:
    """Return factors on sigma at the middles of `LEVELS` equally likely parts of its calibration.

    ln sigma is normal on either side of its estimate, with the deviations that the 95 % interval gives.
    """
    interval, value = _interval(device.sigma), device.sigma.value
    if interval is None or not 0 < interval[0] <= value <= interval[1]:
        raise CertifyError(
            f"device {device.name!r} has no 95 % interval of sigma around its estimate "
            f"({value:g}; interval {interval}), so its uncertainty cannot be drawn. Fit it from sweeps with "
            '`ohmloop device fit`, or take sigma as exact: calibrated="fixed".'
        )
    below, above = (abs(math.log(end / value)) / _Z95 for end in interval)
    z = ndtri((torch.arange(LEVELS, dtype=torch.float64).numpy() + 0.5) / LEVELS)
    return tuple(math.exp(v * (below if v < 0 else above)) for v in z)


class _Block(NamedTuple):
    """Parameters that equally many arrays hold, and where their numbers stand in what a device draws.

    Attributes:
        copies: Arrays that hold them.
        names: Of the parameters.
        cells: Their scalars.
        sigma: Of each cell, at level 1; one number if all are alike.
        gains: The shared gain of each cell, and how many there are; None without.
        ablated: The same of groups that are left out.
    """

    copies: int
    names: tuple[str, ...]
    cells: int
    sigma: Tensor
    gains: tuple[Tensor, int] | None
    ablated: tuple[Tensor, int] | None

    @property
    def normals(self) -> tuple[int, int]:
        """Shape of its normal numbers on one device."""
        return self.copies, self.cells + (0 if self.gains is None else self.gains[1])

    @property
    def kept(self) -> tuple[int, int]:
        """Shape of the uniform numbers on one device that say which groups are left out."""
        return self.copies, 0 if self.ablated is None else self.ablated[1]


class Sampler:
    """Draws the weights of virtual devices under a law; device i depends on (seed, i) only.

    Args:
        law: The law.
        parameters: The analog parameters by name.
        seed: Of the fleet, >= 0.
        deployment: Its arrays are averaged, layer by layer if it says so; its mean gain is divided out.

    Raises:
        CertifyError: If a pattern of the law matches no parameter, the deployment's cells are not divided yet,
            or groups reach over layers that different numbers of arrays hold.
        ConversionError: If a pattern of the deployment matches no layer.
    """

    def __init__(
        self,
        law: Law,
        parameters: Mapping[str, Tensor],
        seed: int,
        deployment: Deployment | None = None,
    ) -> None:
        unused = [
            pattern
            for pattern, _ in law.per_layer
            if not any(fnmatch.fnmatchcase(name, pattern) for name in parameters)
        ]
        if unused:
            raise CertifyError(
                f"per_layer names {', '.join(map(repr, unused))}, which no analog parameter matches; there are "
                f"{', '.join(parameters)}."
            )
        self.law, self.seed = law, seed
        self.base = law.nominal(parameters)
        self._deployment = deployment or Deployment()
        first = next(iter(parameters.values()))
        self._place = first.device
        double = any(p.dtype == torch.float64 for p in parameters.values())
        self._dtype = torch.float64 if double else torch.float32
        # Made once: what is made from Python's numbers crosses over to a GPU each time.
        self._levels = torch.tensor(law.levels, dtype=self._dtype, device=self._place)
        self._blocks = self._divided()

    def _divided(self) -> tuple[_Block, ...]:
        """Return the parameters by how many arrays hold them."""
        if self._deployment.cells > 1:
            raise CertifyError(
                f'deployment "{self._deployment}" leaves open how its cells are divided. Divide them first '
                "(ohmloop.nn.allocate_arrays), as poll does."
            )
        layers = {n: n.rpartition(".")[0] for n in self.base}
        check_patterns(tuple(dict.fromkeys(layers.values())), self._deployment)
        counts = {n: self._deployment.arrays_of(layer) for n, layer in layers.items()}
        law, several = self.law, len(set(counts.values())) > 1
        for by in (law.gain, law.ablation):
            if several and by is not None and by.group == "chip":
                raise CertifyError(
                    f'the law has groups of a whole chip (group="chip"), and deployment "{self._deployment}" '
                    'holds layers on different numbers of arrays. Give group="layer", "column" or "tile", or '
                    "the same number of arrays everywhere."
                )
        gains = None if law.gain is None else self._groups(law.gain)
        ablated = None if law.ablation is None else self._groups(law.ablation)
        of_cell = np.repeat(list(counts.values()), [p.numel() for p in self.base.values()])
        blocks = []
        for copies in dict.fromkeys(counts.values()):
            names = tuple(n for n in self.base if counts[n] == copies)
            mine = of_cell == copies
            blocks.append(
                _Block(
                    copies,
                    names,
                    sum(self.base[n].numel() for n in names),
                    self._sigmas(names),
                    self._renumbered(gains, mine),
                    self._renumbered(ablated, mine),
                )
            )
        return tuple(blocks)

    def _groups(self, by: Gain | Ablation) -> Indices:
        return coordinate_groups(self.base, by.group, by.rows, by.columns)

    def _renumbered(
        self, index: Indices | None, mine: NDArray[np.bool_]
    ) -> tuple[Tensor, int] | None:
        """Return the groups of some cells numbered from 0, and how many they are."""
        if index is None:
            return None
        groups, number = np.unique(index[mine], return_inverse=True)
        return torch.from_numpy(number.reshape(-1)).to(self._place), len(groups)

    def __call__(self, devices: Sequence[int]) -> dict[str, Tensor]:
        """Return parameter name -> ``N x *shape`` for the devices of the given numbers."""
        law, n = self.law, len(devices)
        normals = self._empty(n, sum(math.prod(b.normals) for b in self._blocks))
        level = self._empty(n, 1, 1)
        kept = self._empty(n, sum(math.prod(b.kept) for b in self._blocks))
        generator = torch.Generator(device=self._place)
        for row, device in enumerate(devices):
            generator.manual_seed(device_seed(self.seed, device))
            torch.randn(normals[row].shape, generator=generator, out=normals[row])
            if len(law.levels) > 1:
                torch.rand((1, 1), generator=generator, out=level[row])
            if law.ablation is not None:
                torch.rand(kept[row].shape, generator=generator, out=kept[row])
        found: dict[str, Tensor] = {}
        at = used = 0
        for block in self._blocks:
            size, groups = math.prod(block.normals), math.prod(block.kept)
            noise = normals[:, at : at + size].view(n, *block.normals)
            stays = kept[:, used : used + groups].view(n, *block.kept)
            at, used = at + size, used + groups
            factors = self._factors(block, noise, level)
            if law.ablation is not None and block.ablated is not None:
                factors = factors * (stays >= law.ablation.probability)[..., block.ablated[0]]
            whole, first = factors.mean(1) if block.copies > 1 else factors[:, 0], 0
            for name in block.names:
                p = self.base[name]
                part = whole[:, first : first + p.numel()].reshape(-1, *p.shape)
                found[name] = (part * p).to(p.dtype)
                first += p.numel()
        return {name: found[name] for name in self.base}

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._dtype, device=self._place)

    def _factors(self, block: _Block, normals: Tensor, level: Tensor) -> Tensor:
        """Return the factors on the nominal weights, ``N x copies x cells``; ``normals`` are overwritten."""
        law = self.law
        noise, common = normals[..., : block.cells], normals[..., block.cells :]
        scale = sigma = block.sigma
        if len(law.levels) > 1:
            table = self._levels
            # A uniform number below 1 times m, rounded down: each of the m levels is equally likely.
            scale = sigma * table[(level * len(table)).long().clamp_max(len(table) - 1)]
        noise.mul_(scale)
        variance = scale**2
        if law.gain is not None and block.gains is not None:
            noise += law.gain.tau * common[..., block.gains[0]]
            variance = variance + law.gain.tau**2
        if law.noise == "gaussian":
            return noise.add_(1.0)
        if law.convention == "mean-1":
            noise -= 0.5 * variance
        elif self._deployment.mean_gain:
            noise -= 0.5 * sigma**2
        return noise.exp_()

    def _sigmas(self, names: Sequence[str]) -> Tensor:
        values = [self.law.sigma_of(name) for name in names]
        if len(set(values)) == 1:
            return torch.full((1,), values[0], dtype=self._dtype, device=self._place)
        parts = [
            torch.full((self.base[name].numel(),), value, dtype=self._dtype, device=self._place)
            for value, name in zip(values, names, strict=True)
        ]
        return torch.cat(parts)
