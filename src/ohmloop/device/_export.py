"""Device models as text that users of aihwkit and CrossSim can read; each says what maps and what does not.

Names and units follow the public sources of aihwkit (IBM, `aihwkit.inference.noise.base`: conductances in uS,
one pair a weight) and CrossSim 3 (Sandia, `simulator.parameters.xbar_parameters`: resistances in ohms,
generic errors relative to the target or to the largest conductance).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from ohmloop.device._drift import PowerDrift
from ohmloop.device._model import DeviceModel
from ohmloop.device._physics import Physics
from ohmloop.errors import DeviceError

Target = Literal["aihwkit", "crosssim", "json"]
TARGETS: tuple[Target, ...] = ("json", "aihwkit", "crosssim")
_TO_uS = 1e6
_LONGEST = 100  # characters of a comment line


def export_device(device: DeviceModel, target: str) -> str:
    """Return a device as text for another simulator.

    "json" is ohmloop's own and loses nothing. "aihwkit" is Python with an ``InferenceRPUConfig`` and a noise
    model that draws by the device's own law; "crosssim" is Python that sets ``CrossSimParameters``. Both name,
    in comments, what they hold exactly, what is only near, and what is left out.

    Args:
        device: The device.
        target: One of "json", "aihwkit", "crosssim".

    Raises:
        DeviceError: If there is no such target, or the device has no conductance window.

    >>> from ohmloop.device import load_device
    >>> "Rmax = 5" in export_device(load_device("lognormal:0.3"), "crosssim")
    False
    """
    if target == "json":
        return device.model_dump_json(indent=1) + "\n"
    if target == "aihwkit":
        return _aihwkit(device)
    if target == "crosssim":
        return _crosssim(device)
    raise DeviceError(f'no export to "{target[:40]}"; there are {", ".join(TARGETS)}.')


def write_export(device: DeviceModel, target: str, path: str | Path) -> Path:
    """Write `export_device` to a file.

    Raises:
        DeviceError: As there, or if the file cannot be written.
    """
    out = Path(path)
    text = export_device(device, target)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DeviceError(f"{out} cannot be written: {error.strerror or error}.") from error
    return out


def _head(device: DeviceModel, other: str) -> list[str]:
    lines = [f"{device.name} for {other}, exported by ohmloop."]
    lines += [device.description] if device.description else []
    lines += [f"source: {s.file}  sha256 {s.sha256}" for s in device.sources]
    lines += [f"published in: {device.citation}"] if device.citation else []
    low, high = device.sigma.low, device.sigma.high
    known = "" if low is None or high is None else f" (95 % interval {low:.4g} to {high:.4g})"
    lines.append(f"sigma of ln G {device.sigma.value:.6g}{known}")
    return lines


def _comments(lines: list[str]) -> str:
    import textwrap

    out = []
    for line in lines:
        # A name or a description may hold anything: no line of it may become code.
        clean = " ".join(line.split())
        out += textwrap.wrap(
            clean,
            _LONGEST - 4,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "".join(f"# {line}\n" for line in out)


def _lost(device: DeviceModel, cell: Physics, *, has_levels: bool, has_drift: bool) -> list[str]:
    """Return what a text of this kind leaves out, in words."""
    lost = []
    if (cell.levels or cell.targets) and not has_levels:
        lost.append("a finite number of levels: any conductance is programmed")
    if cell.faults.p_low or cell.faults.p_high:
        lost.append(f"stuck cells: {cell.faults.p_low:g} at g_min, {cell.faults.p_high:g} at g_max")
    if cell.drift is not None and not has_drift:
        lost.append(f"drift ({cell.drift.kind})")
    if any(value for name, value in cell.variation if name != "source"):
        lost.append("differences between cells that stay")
    if cell.read.absolute or cell.read.bandwidth or cell.read.flicker:
        lost.append("read noise that is absolute, thermal or 1/f")
    if cell.v0 is not None:
        lost.append("the bent I-V curve of the cell")
    if cell.pulses is not None:
        lost.append(
            "what single pulses do (aihwkit has pulsed devices for training; fit them there)"
        )
    if cell.temperature is not None:
        lost.append("temperature")
    return lost


def _aihwkit(device: DeviceModel) -> str:
    cell = device.cell()
    drift = cell.drift if isinstance(cell.drift, PowerDrift) else None
    table = device.rho if device.physics is None else None
    exact = [
        "the conductance window and the law of the programming error, drawn as ohmloop draws it"
    ]
    exact += ["the level table rho (published law on weights)"] if table is not None else []
    exact += ["power-law drift with its spread"] if drift is not None else []
    exact += (
        ["relative read noise, drawn once at the time of inference"] if cell.read.relative else []
    )
    lost = _lost(device, cell, has_levels=False, has_drift=drift is not None)
    comments = [
        *_head(device, "aihwkit"),
        "",
        "Exact: " + "; ".join(exact) + ".",
        "Near: converters are no part of a device; they stay as aihwkit's defaults have them.",
        "Left out: " + ("; ".join(lost) or "nothing that the model holds") + ".",
    ]
    low, high = cell.g_min * _TO_uS, cell.g_max * _TO_uS
    body = [
        "import torch",
        "from aihwkit.inference.converter.conductance import SinglePairConductanceConverter",
        "from aihwkit.inference.noise.base import BaseNoiseModel",
        "from aihwkit.simulator.configs import InferenceRPUConfig",
        "",
        f"G_MIN, G_MAX = {low!r}, {high!r}  # uS",
    ]
    if table is not None:
        body.append(f"LEVELS = torch.tensor({list(table)!r})")
    body += [
        "",
        "",
        "class DeviceNoise(BaseNoiseModel):",
        "    def __init__(self):",
        "        super().__init__(SinglePairConductanceConverter(g_max=G_MAX, g_min=G_MIN))",
        "",
        "    @torch.no_grad()",
        "    def apply_programming_noise_to_conductance(self, g_target):",
    ]
    if table is not None:
        body += [
            "        share = (g_target - G_MIN).clamp(0) / (G_MAX - G_MIN)",
            "        last = len(LEVELS) - 1",
            "        level = LEVELS.to(g_target)[(share * last).round().long().clamp(0, last)]",
            "        g_target = G_MIN + (g_target - G_MIN) * level",
        ]
    body += [f"        {line}" for line in _write_lines(cell)]
    body += [
        "",
        "    @torch.no_grad()",
        "    def generate_drift_coefficients(self, g_target):",
    ]
    if drift is None:
        body.append("        return torch.zeros_like(g_target)")
    else:
        body += [
            "        x = (g_target / G_MAX).clamp_min(1e-6).log()",
            f"        nu = {_law_text(drift.nu)}",
            f"        spread = {_law_text(drift.spread)}",
            "        return (nu + spread * torch.randn_like(g_target)).clamp_min(0)",
        ]
    t0 = 1.0 if drift is None else drift.t0
    read = (
        f" * (1 + {cell.read.relative!r} * torch.randn_like(g_prog))" if cell.read.relative else ""
    )
    body += [
        "",
        "    @torch.no_grad()",
        "    def apply_drift_noise_to_conductance(self, g_prog, drift_noise_param, t_inference):",
        f"        ratio = max(float(t_inference), {t0!r}) / {t0!r}",
        f"        return g_prog * ratio ** (-drift_noise_param){read}",
        "",
        "",
        "rpu_config = InferenceRPUConfig()",
        "rpu_config.noise_model = DeviceNoise()",
    ]
    return _comments(comments) + "\n" + "\n".join(body) + "\n"


def _law_text(law: object) -> str:
    from ohmloop.device._drift import LogLaw

    assert isinstance(law, LogLaw)
    text = f"({law.slope!r} * x + {law.offset!r})"
    if law.low is not None or law.high is not None:
        text += f".clamp({law.low!r}, {law.high!r})"
    return text


def _write_lines(cell: Physics) -> list[str]:
    """Return the lines that draw the programming error of ``g_target`` in uS."""
    write = cell.write
    if write.is_zero:
        return ["return g_target.clone()"]
    noise = "torch.randn_like(g_target)"
    if write.kind == "lognormal":
        return [f"return g_target * torch.exp({write.sigma!r} * {noise})  # median 1"]
    if write.kind == "relative":
        return [f"return (g_target * (1 + {write.sigma!r} * {noise})).clamp_min(0)"]
    terms = [
        f"{c * _TO_uS!r} * (g_target / G_MAX) ** {k}" for k, c in enumerate(write.coefficients)
    ]
    return [
        f"std = ({' + '.join(terms)}).clamp_min(0)",
        f"return (g_target + std * {noise}).clamp_min(0)",
    ]


def _crosssim(device: DeviceModel) -> str:
    cell = device.cell()
    write = cell.write
    exact, near = ["the conductance window"], []
    lines = ["from simulator import CrossSimParameters", "", "params = CrossSimParameters()"]
    put = lines.append
    put(f"params.xbar.device.Rmin = {1.0 / cell.g_max!r}  # ohm")
    if cell.g_min > 0:
        put(f"params.xbar.device.Rmax = {1.0 / cell.g_min!r}")
    else:
        put("params.xbar.device.infinite_on_off_ratio = True")
    levels = cell.levels or len(cell.targets)
    if levels:
        bits = max(1, math.floor(math.log2(levels)))
        put(f"params.xbar.device.cell_bits = {bits}")
        if 2**bits == levels and cell.levels:
            exact.append("its levels")
        else:
            near.append(f"{levels} levels become 2^{bits}, equally spaced")
    if not write.is_zero:
        put("params.xbar.device.programming_error.enable = True")
        if write.kind == "polynomial":
            g = 0.5 * (cell.g_min + cell.g_max)
            std = max(sum(c * (g / cell.g_max) ** k for k, c in enumerate(write.coefficients)), 0.0)
            put('params.xbar.device.programming_error.model = "NormalIndependentDevice"')
            put(f"params.xbar.device.programming_error.magnitude = {std / cell.g_max!r}")
            near.append("the programming error is that of the middle of the window everywhere")
        else:
            put('params.xbar.device.programming_error.model = "NormalProportionalDevice"')
            put(f"params.xbar.device.programming_error.magnitude = {write.sigma!r}")
            if write.kind == "relative":
                exact.append("the relative programming error")
            else:
                near.append(
                    "the log-normal programming error is a normal one of the same sigma: right to first order, "
                    "without the long upper tail; above sigma 0.3 use ohmloop or a device class of your own"
                )
    if cell.read.relative:
        put("params.xbar.device.read_noise.enable = True")
        put('params.xbar.device.read_noise.model = "NormalProportionalDevice"')
        put(f"params.xbar.device.read_noise.magnitude = {cell.read.relative!r}")
        exact.append("relative read noise")
    lost = _lost(device, cell, has_levels=True, has_drift=False)
    if device.rho is not None and device.physics is None:
        lost.append("the level table rho of the published law on weights")
    comments = [
        *_head(device, "CrossSim"),
        "",
        "Exact: " + "; ".join(exact) + ".",
        "Near: " + ("; ".join(near) or "nothing") + ".",
        "Left out: " + ("; ".join(lost) or "nothing that the model holds") + ".",
    ]
    return _comments(comments) + "\n" + "\n".join(lines) + "\n"
