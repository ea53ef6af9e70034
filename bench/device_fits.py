"""Fit pulses and retention of public memristor data; what the files say, with intervals.

    python bench/device_fits.py [--data FOLDER]

FOLDER holds the public files as their GitHub repositories have them, by default ``../shared/data/devices``:
``aihwkit-gong`` (IBM/aihwkit, examples/csv), ``taox-retention-bisol``
(DanielTimbie/Data_Analysis_Codes_Memristor), ``mnn-cam-526-levels`` (joksas/mnn-cam), ``skywater-1t4r-ni``
(akashlevy/NI-RRAM-Test-Setup). Times that a file does not state are assumed here, and the table says so.
"""

import argparse
from pathlib import Path

from _common import markdown, save
from ohmloop.data import read_pulse_train, read_retention
from ohmloop.device import DeviceModel, fit_pulses, fit_retention, pulse_residuals

ROOT = Path(__file__).resolve().parents[1]
PULSES = (
    ("nonlinearity up", "pulse_nonlinearity_up"),
    ("nonlinearity down", "pulse_nonlinearity_down"),
    ("asymmetry", "pulse_asymmetry"),
    ("noise of a pulse / window", "pulse_noise"),
    ("noise of a reading", "pulse_read_noise"),
)
RETENTION = (
    ("law", "drift_law"),
    ("residual, power law", "drift_power_residual"),
    ("residual, line in ln t", "drift_log_residual"),
    ("mean exponent", "drift_nu_mean"),
    ("spread of exponents", "drift_nu_std"),
    ("shift a factor e of time", "drift_shift"),
    ("broadening rate", "drift_rate"),
    ("its power", "drift_power"),
    ("scale of both", "drift_scale"),
    ("white noise of a reading / G", "read_noise_relative"),
    ("1/f noise Q", "read_flicker"),
    ("traces with telegraph noise", "telegraph_traces"),
    ("its amplitude / G", "telegraph_amplitude"),
    ("traces", "drift_traces"),
)

HEAD = """# What public measurements say

Made by `python bench/device_fits.py`; values with 95 % intervals (bootstrap over traces).

## Retention

The files of MNN-CAM and SkyWater state no times: 1,000 s over the 1,451 rows of the first (the name of its
sheet), 1 s a reading for the other two, assumed. An assumed interval moves t0, not the exponents.
"""
MIDDLE = """## Pulses: Gong et al., digitised, as published with IBM aihwkit

1,000 potentiation and 1,000 depression pulses of one cycle, normalised; here the numbers span 1 to 50 uS,
assumed. One cycle gives no interval. The standardised surprises of its steps have a standard deviation of
{spread:.2f}.
"""


def fits(data: Path) -> tuple[DeviceModel, float, dict[str, DeviceModel]]:
    """Return the pulse fit, the spread of its standardised surprises, and the retention fits."""
    train = read_pulse_train(
        data / "aihwkit-gong" / "gong_et_al.csv",
        columns="up (norm), down (norm)",
        window=(1e-6, 50e-6),
    )
    pulses = fit_pulses([train], name="gong")
    spread = float(pulse_residuals(pulses, [train]).standard.std())
    taox = sorted((data / "taox-retention-bisol").glob("*_retention.csv.gz"))
    cam = data / "mnn-cam-526-levels"
    across = "device, skip, skip, resistance (Ohm), ..."
    return (
        pulses,
        spread,
        {
            "TaOx, 200 Hz": fit_retention([read_retention(p) for p in taox], name="taox"),
            # The sheet is called "for 1E3s" and holds 1,451 rows.
            "MNN-CAM, 32 levels": fit_retention(
                [read_retention(cam / "32-levels-retention.xlsx", interval=1000 / 1451)],
                name="cam32",
            ),
            "MNN-CAM, 526 levels": fit_retention(
                [read_retention(cam / "526-levels-retention.xlsx", interval=1.0)], name="cam526"
            ),
            "SkyWater 1T4R": fit_retention(
                [
                    read_retention(
                        data / "skywater-1t4r-ni" / "target20-40_old.csv",
                        columns=across,
                        across=True,
                        interval=1.0,
                    )
                ],
                name="skywater",
            ),
        },
    )


def shown(model: DeviceModel, key: str) -> str:
    """Return a figure with its interval."""
    value, limits = model.figures.get(key), model.figures.get(f"{key}_interval")
    if value is None:
        return "–"
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{text} ({limits[0]:.3g} to {limits[1]:.3g})" if isinstance(limits, list) else text


def main() -> None:
    """Fit, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "devices")
    pulses, spread, kept = fits(parser.parse_args().data)
    text = f"{HEAD}\n"
    text += markdown(
        ["", *kept], [[name, *(shown(m, key) for m in kept.values())] for name, key in RETENTION]
    )
    text += f"\n{MIDDLE.format(spread=spread)}\n"
    text += markdown(["", "value"], [[name, shown(pulses, key)] for name, key in PULSES])
    value = {
        "gong": pulses.figures,
        "retention": {name: model.figures for name, model in kept.items()},
    }
    save("device-fits", value, text)


if __name__ == "__main__":
    main()
