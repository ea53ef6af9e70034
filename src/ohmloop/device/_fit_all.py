"""One device model from files of several kinds."""

from __future__ import annotations

from collections.abc import Sequence

from ohmloop.data import PulseTrain, Retention, Sweep
from ohmloop.device._fit import fit
from ohmloop.device._fit_pulses import fit_pulses
from ohmloop.device._fit_retention import Law, fit_retention
from ohmloop.device._model import DeviceModel
from ohmloop.device._noise import WriteNoise
from ohmloop.device._physics import Physics
from ohmloop.errors import DeviceError

Measurement = Sweep | PulseTrain | Retention


def fit_measurements(
    measurements: Sequence[Measurement],
    *,
    name: str,
    law: Law | None = None,
    n_bootstrap: int = 400,
    seed: int = 0,
) -> DeviceModel:
    """Fit whatever the measurements say: the published law, the pulse response, drift and read noise.

    Sweeps alone give what `fit` gives. Otherwise ``physics`` holds all parts. Its window is that of the pulses,
    else that of the sweeps, else that of the retention traces; write noise comes from the sweeps, read
    noise from retention where its traces show it, else from the pulses. ``sigma`` is that of the sweeps,
    else of the pulses, else of retention. ``figures`` and ``sources`` hold those of all parts.

    Args:
        measurements: Sweeps, pulse trains and retention traces of one kind of device, in any order.
        name: What users will call the model.
        law: Of the drift, as in `fit_retention`.
        n_bootstrap: Resamples behind the intervals.
        seed: Of the resampling.

    Raises:
        DeviceError: If there is nothing, or a part cannot be fitted.
    """
    sweeps = [m for m in measurements if isinstance(m, Sweep)]
    trains = [m for m in measurements if isinstance(m, PulseTrain)]
    traces = [m for m in measurements if isinstance(m, Retention)]
    if not measurements:
        raise DeviceError("a device model needs at least one measurement; received none.")
    swept = fit(sweeps, name=name) if sweeps else None
    pulsed = fit_pulses(trains, name=name, n_bootstrap=n_bootstrap, seed=seed) if trains else None
    top = next((m.g_max for m in (pulsed, swept) if m is not None and m.g_max), None)
    kept = (
        fit_retention(traces, name=name, g_max=top, law=law, n_bootstrap=n_bootstrap, seed=seed)
        if traces
        else None
    )
    parts = [m for m in (swept, pulsed, kept) if m is not None]
    if len(parts) == 1:
        return parts[0]
    physics = _physics(swept, pulsed, kept)
    words = [
        word for word, part in (("sweeps", swept), ("pulses", pulsed), ("retention", kept)) if part
    ]
    return parts[0].model_copy(
        update={
            "description": f"fitted from {', '.join(words[:-1])} and {words[-1]}, "
            f"{len(measurements)} files",
            "g_min": physics.g_min,
            "g_max": physics.g_max,
            "figures": {k: v for part in parts for k, v in part.figures.items()},
            "sources": tuple(s for part in parts for s in part.sources),
            "physics": physics,
        }
    )


def _physics(
    swept: DeviceModel | None, pulsed: DeviceModel | None, kept: DeviceModel | None
) -> Physics:
    """Put the parts together."""
    cells = [m.cell() for m in (pulsed, swept, kept) if m is not None and m.g_max is not None]
    if not cells:
        raise DeviceError("no measurement gives a conductance window.")
    base = cells[0]
    update: dict[str, object] = {}
    if swept is not None:
        update["write"] = WriteNoise(
            sigma=swept.sigma.value,
            source="standard deviation of ln G of the measured sweeps (arXiv 2412.02779, published recipe)",
        )
    if kept is not None and kept.physics is not None:
        update["drift"] = kept.physics.drift
        if not kept.physics.read.is_zero:
            update["read"] = kept.physics.read
        if base.read_voltage is None:
            update["read_voltage"] = kept.physics.read_voltage
    # Validated as a whole: a copy alone would not check what the parts mean to each other.
    return Physics.model_validate(base.model_copy(update=update).model_dump())
