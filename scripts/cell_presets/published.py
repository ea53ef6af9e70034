"""Cells whose constants a publication states; what it does not state is marked as assumed, with the reason."""

import math

from ohmloop.device import (
    DeviceModel,
    Estimate,
    Flicker,
    LogLaw,
    Physics,
    PowerDrift,
    ReadNoise,
    SoftPulses,
    Variation,
    WalkDrift,
    WriteNoise,
)

NONE = Estimate(value=0.0)  # until build_cell_presets.finished computes it


def micro(value: float) -> float:
    """Return ``value`` microsiemens in siemens, as the float nearest to the decimal text."""
    return float(f"{value:.12g}e-6")


JOSHI = (
    "Joshi et al., Nature Communications 11, 2473 (2020); Nandakumar et al., ICECS 2019; constants as in "
    "IBM aihwkit, PCMLikeNoiseModel"
)
WAN = (
    "Wan et al., Nature 608, 504 (2022); constants as in IBM aihwkit, ReRamWan2022NoiseModel, which read them "
    "off the published figures"
)
FALCONE = "Falcone et al., arXiv 2502.04524 (2025); constants as in IBM aihwkit, ReRamCMONoiseModel"
PODDAR = "Poddar et al. (2026), perovskite nanowire array memristors with an ITO barrier: abstract"
VISHWANATH = "Vishwanath et al., Materials Horizons (2024), doi 10.1039/d3mh02055j: abstract"


def cells(sigma: float, g_max: float) -> list[DeviceModel]:
    """Return the published cells.

    Args:
        sigma: Median sigma of the measured perovskite nanowires, for cells that state no write noise.
        g_max: Median largest conductance of them in siemens, for cells that state none.
    """
    return [
        pcm(),
        wan(),
        falcone(),
        poddar(),
        perovskite(
            "perovskite-vishwanath2024",
            "halide perovskite (propyl)pyridinium lead iodide, flexible 16 x 16 crossbar; retention 1e5 s and "
            "2,000 cycles are stated.",
            VISHWANATH,
            1e5,
            sigma,
            g_max,
        ),
        perovskite(
            "perovskite-cs2sni6",
            "lead-free halide perovskite Cs2SnI6, Ag and flexible ITO electrodes; retention 1e4 s and over 1e6 "
            "cycles are stated.",
            "Ag/Cs2SnI6/ITO-PET, Nanoscale (2026) d5nr04484g: abstract (on/off 1e3, 1e4 s, over 1e6 cycles)",
            1e3,
            sigma,
            g_max,
        ),
        perovskite(
            "perovskite-agbi2i7",
            "halide perovskite AgBi2I7-Cs3Bi2I9, dual phase; below 0.15 V, retention 5e4 s and 1,000 cycles "
            "with closed-loop pulses are stated.",
            "Small (2020) 2003225: abstract (on/off 1e7, operation below 0.15 V, 5e4 s)",
            1e7,
            sigma,
            g_max,
            set_voltage=0.15,
        ),
    ]


def pcm() -> DeviceModel:
    """Phase-change memory of Joshi et al. 2020."""
    return DeviceModel(
        name="pcm-joshi2020",
        description=(
            "doped Ge2Sb2Te5 phase-change memory, 90 nm CMOS, iterative programming: measured by its "
            "authors. Write noise includes their write-verify, so there is no pulse response."
        ),
        sigma=NONE,
        citation=JOSHI,
        physics=Physics(
            g_min=0.0,
            g_max=micro(25),
            write=WriteNoise(
                kind="polynomial",
                coefficients=(micro(0.26348), micro(1.9650), micro(-1.1731)),
                source=JOSHI,
            ),
            read=ReadNoise(
                flicker=Flicker(
                    coefficient=0.0088, exponent=0.65, maximum=0.2, t_read=250e-9, source=JOSHI
                )
            ),
            drift=PowerDrift(
                t0=20.0,
                nu=LogLaw(slope=-0.0155, offset=0.0244, low=0.049, high=0.1, source=JOSHI),
                spread=LogLaw(slope=-0.0125, offset=-0.0059, low=0.008, high=0.045, source=JOSHI),
                source=JOSHI,
            ),
            read_time=250e-9,
            source={
                "g_min": "assumed 0: the noise laws of the source hold down to there",
                "": JOSHI,
            },
        ),
    )


def wan() -> DeviceModel:
    """HfOx arrays of NeuRRAM, Wan et al. 2022."""
    # Shape of the growth: sqrt(var(1 day) - var(1 s)) / sqrt(ln 86400), by least squares over g in [0.025, 1].
    second = (0.348, 16.030, -43.853, 45.393, -16.815)
    day = (0.701, 22.086, -50.773, 47.095, -16.458)
    shape = growth(second, day, 86400.0, degree=4)
    return DeviceModel(
        name="hfox-wan2022",
        description=(
            "HfOx 1T1R ReRAM of the NeuRRAM chip, write-verify programmed: deviations published 1 s, 1 day and "
            "2 days after programming. The growth between 1 s and 1 day is fitted as a random walk in "
            "logarithmic time. No read noise of its own is published."
        ),
        sigma=NONE,
        citation=WAN,
        physics=Physics(
            g_min=micro(1),
            g_max=micro(40),
            write=WriteNoise(
                kind="polynomial", coefficients=tuple(micro(c) for c in second), source=WAN
            ),
            drift=WalkDrift(
                t0=1.0,
                scale="absolute",
                rate=micro(1),
                shape=tuple(float(f"{c:.4g}") for c in shape),
                source={
                    "": WAN + "; rate 1 uS times the shape",
                    "shape": "fitted to the deviations at 1 s and 1 day of " + WAN,
                    "power": "assumed: random walk in logarithmic time",
                },
            ),
            source={"g_min": "assumed 1 uS: the smallest conductance in use", "": WAN},
        ),
    )


def growth(
    early: tuple[float, ...], late: tuple[float, ...], seconds: float, *, degree: int
) -> list[float]:
    """Return the polynomial in g whose square is the gain of variance for each unit of ln t."""
    import numpy as np

    g = np.linspace(0.025, 1.0, 200)
    gain = np.polyval(late[::-1], g) ** 2 - np.polyval(early[::-1], g) ** 2
    return [
        float(c)
        for c in np.polyfit(g, np.sqrt(np.maximum(gain, 0) / math.log(seconds)), degree)[::-1]
    ]


def falcone() -> DeviceModel:
    """Conductive-metal-oxide / HfOx cells of Falcone et al. 2025."""
    top = 88.19
    return DeviceModel(
        name="cmo-hfox-falcone2025",
        description=(
            "conductive-metal-oxide / HfOx ReRAM, write-verify with an acceptance range of 0.2 %: measured "
            "by its authors."
        ),
        sigma=NONE,
        citation=FALCONE,
        physics=Physics(
            g_min=micro(9),
            g_max=micro(top),
            write=WriteNoise(
                kind="polynomial",
                coefficients=(micro(0.00081107), micro(0.00106879 * top)),
                source=FALCONE + " (acceptance range 0.2 %)",
            ),
            read=ReadNoise(
                flicker=Flicker(
                    coefficient=6.118e-4,
                    exponent=0.688,
                    maximum=1.0,
                    t_read=1e-6,
                    source=FALCONE
                    + "; the power law meets K log10 G, K = 0.02773 uS, at both ends",
                )
            ),
            drift=WalkDrift(
                t0=1.0,
                scale="absolute",
                shift=micro(-0.08900206),
                start=micro(0.41183342),
                rate=micro(0.04201137),
                power=1.0,
                source=FALCONE,
            ),
            source=FALCONE,
        ),
    )


def poddar() -> DeviceModel:
    """The 64 x 64 perovskite nanowire crossbar of Poddar et al."""
    # tanh(a / 4) is the distance between the two curves at half the pulses, as a share of the window.
    curvature = round(4 * math.atanh(0.3), 3)
    return DeviceModel(
        name="perovskite-poddar2026",
        description=(
            "halide-perovskite nanowires with an ITO barrier, 64 x 64 passive crossbar: figures of its "
            "abstract. 139 ohmic states from 10 to 100 uS; retention above 1e6 s and 4e5 cycles are stated, a "
            "drift law is not."
        ),
        sigma=NONE,
        citation=PODDAR,
        physics=Physics(
            g_min=10e-6,
            g_max=100e-6,
            levels=139,
            write=WriteNoise(
                kind="relative",
                sigma=0.015,
                source=PODDAR + ", cycle to cycle below 1.5 %: the bound is taken",
            ),
            variation=Variation(
                window=0.05,
                source=PODDAR + ", device to device below 5 %: the bound is taken",
            ),
            pulses=SoftPulses(
                pulses_up=138,
                pulses_down=138,
                curvature_up=curvature,
                curvature_down=curvature,
                noise=0.0,
                step_noise=0.0,
                source={
                    "": "assumed: one pulse a state, and the same curvature both ways",
                    "curvature_up": PODDAR
                    + ", asymmetric nonlinearity 0.3, taken as the distance of both curves at half the pulses",
                    "curvature_down": "as curvature_up",
                    "noise": "assumed 0: only the spread after programming is stated",
                },
            ),
            source=PODDAR,
        ),
    )


def perovskite(
    name: str,
    description: str,
    source: str,
    on_off: float,
    sigma: float,
    g_max: float,
    **known: float,
) -> DeviceModel:
    """A perovskite device that is known by its abstract."""
    top = float(f"{g_max:.3g}")
    origin = {
        "": source,
        "g_max": f"assumed: median of the 43 measured perovskite nanowires ({top:g} S); not stated",
        "g_min": f"g_max over the stated on/off ratio, {on_off:g}",
    }
    return DeviceModel(
        name=name,
        description=description
        + " Write noise and the scale of the conductance are assumed; no drift law is published.",
        sigma=NONE,
        citation=source,
        physics=Physics(
            g_min=float(f"{top / on_off:.4g}"),
            g_max=top,
            write=WriteNoise(
                kind="lognormal",
                sigma=float(f"{sigma:.4g}"),
                source=f"assumed: median of the 43 measured perovskite nanowires ({sigma:.3g}); not stated",
            ),
            source=origin,
            **known,
        ),
    )
