"""The hardware a network runs on: the published law on weights, or arrays of cells with all around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ohmloop.crossbar._array import Array
from ohmloop.device import DeviceModel, load_device
from ohmloop.errors import ConversionError

if TYPE_CHECKING:
    import torch

Convention = Literal["median-1", "mean-1"]


class Hardware(BaseModel):
    """What an analog layer is made of.

    Without an array, the published law (arXiv 2412.02779): each programmed scalar theta becomes
    ``theta * rho(|theta| / max|theta|) * exp(N(0, sigma^2))``, independent per scalar, with the
    maximum taken over the scalar's own tensor.

    With an array, weights become conductances of the device's cells (`DeviceModel.cell`) in tiles, and products
    go through converters, wires and read noise (`program_matrix`).

    Attributes:
        device: A `DeviceModel`, or anything `load_device` takes ("lognormal:0.4", a preset's
            name, a path to device.json).
        convention: ``"median-1"`` (the published one: the factor has median 1 and mean
            exp(sigma^2 / 2)) or ``"mean-1"`` (divided by that mean).
        use_rho: Whether the level table rho of the device is applied; False keeps only the noise.
        array: The array that cells stand in; None for the law on weights.
        seconds: Time since programming, for devices that drift; with an array only.

    >>> Hardware(device="lognormal:0.3").device.sigma.value
    0.3
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: DeviceModel
    convention: Convention = "median-1"
    use_rho: bool = True
    array: Array | None = None
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits(self) -> Hardware:
        if self.array is None and self.seconds:
            raise ConversionError(
                "the law on weights knows no time; seconds needs an array: "
                "Hardware(device=..., array=Array(), seconds=...)."
            )
        if self.array is not None and not (self.convention == "median-1" and self.use_rho):
            raise ConversionError(
                "convention and use_rho belong to the law on weights; an array's cells follow their device's "
                "physics. Leave them out, or leave out the array."
            )
        return self

    @field_validator("device", mode="before")
    @classmethod
    def _load(cls, value: object) -> object:
        return load_device(value) if isinstance(value, str) else value

    def perturb(
        self,
        theta: torch.Tensor,
        generator: torch.Generator,
        n_devices: int | None = None,
    ) -> torch.Tensor:
        """Draw what the devices hold after ``theta`` was programmed.

        Differentiable in ``theta`` (rho's level index is treated as constant).

        Args:
            theta: Any shape; the nominal weights of one tensor.
            generator: Source of the randomness, on theta's device.
            n_devices: None for one draw of theta's shape, or N for ``N x *theta.shape``.

        Returns:
            The perturbed weights, dtype and device of ``theta``.
        """
        import torch

        if self.array is not None:
            raise ConversionError(
                "perturb is the law on weights; this hardware has an array. Program the weights into it: "
                "program_matrix(weight, hardware, streams), or ohmloop.nn.program(model, seed)."
            )
        shape = theta.shape if n_devices is None else (n_devices, *theta.shape)
        sigma = self.device.sigma.value
        factor = torch.randn(shape, generator=generator, dtype=theta.dtype, device=theta.device)
        factor.mul_(sigma)
        if self.convention == "mean-1":
            factor.sub_(0.5 * sigma * sigma)
        factor.exp_()
        return self.deterministic(theta) * factor

    def deterministic(self, theta: torch.Tensor) -> torch.Tensor:
        """Return ``theta * rho(|theta| / max|theta|)``: the law without its noise, same shape."""
        import torch

        levels = self.device.rho
        if levels is None or not self.use_rho or theta.numel() == 0:
            return theta
        table = torch.tensor(levels, dtype=theta.dtype, device=theta.device)
        magnitude = theta.detach().abs()
        top = magnitude.max()
        if not bool(top > 0):
            return theta
        index = (magnitude / top * (len(levels) - 1)).round().long()
        return theta * table[index]
