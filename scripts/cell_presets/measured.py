"""Cells evaluated from measurements that their authors published."""

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ohmloop.device import (
    DeviceModel,
    Estimate,
    Physics,
    ReadNoise,
    TablePulses,
    Thermal,
    Variation,
    WalkDrift,
    WriteNoise,
)

Array = NDArray[np.float64]
NONE = Estimate(value=0.0)  # until build_cell_presets.finished computes it
RADAR = "RADAR, IEEE TED (2021), doi 10.1109/TED.2021.3097975; measurements: GitHub akashlevy/RRAM-RADAR-Tuning"
CROSSSIM = "GitHub sandialabs/cross-sim-data, lookup_tables, BSD-3"
BISOL = "GitHub DanielTimbie/Data_Analysis_Codes_Memristor (2023): retention of TaOx at -0.1 V"
CAM = "GitHub joksas/mnn-cam, expdata, GPL-3"
KELVIN = 11604.518  # e / k in K / eV, CODATA 2018


def cells(folder: Path) -> list[DeviceModel]:
    """Return the measured cells; ``folder`` holds one folder a source."""
    return [
        radar(folder / "hfo2-1t1r-radar"),
        table(
            folder / "taox-lut-crosssim" / "TaOx_1",
            "taox-crosssim",
            "TaOx ReRAM: measured stochastic change of conductance by one pulse",
        ),
        table(
            folder / "taox-lut-crosssim" / "ENODe",
            "enode-crosssim",
            "organic electrochemical memory (ENODe): measured stochastic change of conductance by one pulse",
        ),
        bisol(folder / "taox-retention-bisol"),
        cam(folder / "mnn-cam-526-levels"),
    ]


def four(value: float) -> float:
    """Return ``value`` to four significant digits."""
    return float(f"{value:.4g}")


def radar(folder: Path) -> DeviceModel:
    """HfO2 1T1R: eight levels, read after programming and again after 30 minutes at 120 degC."""
    before = [np.loadtxt(folder / "retention" / f"g_3bpc-expt4-pre_range{k}.csv") for k in range(8)]
    after = [np.loadtxt(folder / "retention" / f"g_3bpc-expt4-post_range{k}.csv") for k in range(8)]
    mean = np.array([x.mean() for x in before])
    top = four(float(mean[0]))
    # Range 0 has no upper end and range 7 no lower one: their spread is no programming error.
    inner = slice(1, 7)
    write = np.polyfit(mean[inner] / top, [x.std() for x in before[inner]], 2)[::-1]
    gain = np.array(
        [np.sqrt(max(0.0, b.var() - a.var())) for a, b in zip(before[1:], after[1:], strict=True)]
    )
    log_time = np.log(1800.0)
    shape = np.polyfit(mean[1:] / top, gain / np.sqrt(log_time) / 1e-6, 3)[::-1]
    shift = np.mean([b.mean() - a.mean() for a, b in zip(before[inner], after[inner], strict=True)])
    reads = np.concatenate([x.reshape(3, -1).std(axis=0, ddof=1) / x.mean() for x in after[:7]])
    here = RADAR + ", data/retention, 3 bits a cell, experiment 4"
    return DeviceModel(
        name="hfo2-radar2021",
        description=(
            "HfO2 1T1R ReRAM, write-verify into eight ranges, 128 cells each: measured before and after 30 "
            "minutes at 393 K. Drift is at 393 K unless a temperature is given. The pulses of the source "
            "change in voltage from one to the next, so there is no pulse response."
        ),
        sigma=NONE,
        citation=RADAR,
        physics=Physics(
            g_min=four(float(mean[7])),
            g_max=top,
            write=WriteNoise(
                kind="polynomial",
                coefficients=tuple(four(c) for c in write),
                source=here
                + ": quadratic fit to the standard deviations in the six bounded ranges",
            ),
            read=ReadNoise(
                relative=four(float(np.sqrt(np.mean(reads**2)))),
                source=here + ": standard deviation of three readings of each cell",
            ),
            drift=WalkDrift(
                t0=1.0,
                scale="absolute",
                shift=four(float(shift / log_time)),
                rate=1e-6,
                shape=tuple(four(c) for c in shape),
                source={
                    "": here + ": cubic fit to the growth of the variance in seven ranges",
                    "shift": here + ": mean change in the six bounded ranges over ln(1800)",
                    "t0": "assumed 1 s at 393 K: only one time was measured, 1800 s",
                    "power": "assumed: random walk in logarithmic time",
                },
            ),
            temperature=Thermal(
                reference=393.0,
                low=313.0,
                high=393.0,
                activation=activation(),
                source=RADAR
                + ", data/retention/data/ber-time-temp.csv: slope of the times to a bit error rate of 2 % "
                "(3 bits a cell) at 313, 338 and 393 K",
            ),
            pulse_width=200e-9,
            source={
                "g_min": here + ": mean of the lowest range",
                "g_max": here + ": mean of the highest range",
                "pulse_width": RADAR + ", sweeps of 200 ns pulses",
            },
        ),
    )


def activation() -> float:
    """Return the energy in eV from the authors' estimate of the time to a bit error rate of 2 %."""
    # (temperature in K, seconds) at rates 0.0204, 0.0183 and 0.0179, three bits a cell.
    times = ((313.0, 5e11), (338.0, 1e9), (393.0, 2e4))
    slope = np.polyfit([KELVIN / t for t, _ in times], [np.log(s) for _, s in times], 1)[0]
    return round(float(slope), 2)


def table(folder: Path, name: str, what: str) -> DeviceModel:
    """A stochastic pulse table of CrossSim, as mean and standard deviation at 26 conductances."""
    grid, up_mean, up_std = moments(folder / "dG_increasing.txt")
    _, down_mean, down_std = moments(folder / "dG_decreasing.txt")
    keep = np.linspace(0, len(grid) - 1, 26).round().astype(int)
    pulses = TablePulses(
        conductance=tuple(four(g) for g in grid[keep]),
        up_mean=tuple(four(x) for x in up_mean[keep]),
        up_std=tuple(four(x) for x in up_std[keep]),
        down_mean=tuple(four(x) for x in down_mean[keep]),
        down_std=tuple(four(x) for x in down_std[keep]),
        source=f"{CROSSSIM}, {folder.name}: mean and standard deviation of the tabulated distributions",
    )
    bare = Physics(g_min=pulses.conductance[0], g_max=pulses.conductance[-1], pulses=pulses)
    error, count, share = residual(bare)
    return DeviceModel(
        name=name,
        description=(
            f"{what}. Statistical programming stands for write-verify with these pulses to 2 % of the window: "
            f"simulated, {count:.0f} pulses on average, {share:.1%} of the cells within 200 pulses. Read "
            "noise and retention are not in the source."
        ),
        sigma=NONE,
        citation=CROSSSIM,
        physics=bare.model_copy(
            update={
                "write": WriteNoise(
                    kind="polynomial",
                    coefficients=(error,),
                    source="simulated: root-mean-square error of the converged cells after write-verify "
                    "with these pulses, tolerance 2 % of the window, 200 pulses",
                ),
                "source": f"{CROSSSIM}, {folder.name}: ends of the table",
            }
        ),
    )


def moments(path: Path) -> tuple[Array, Array, Array]:
    """Return conductances, means and standard deviations (S) of a table of quantiles."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [np.fromstring(line.strip().strip(","), sep=",") for line in lines[1:] if line.strip()]
    grid, cdf, quantile = rows[0], rows[1], np.array(rows[2:])
    weight = np.diff(cdf)[:, None]
    middle = 0.5 * (quantile[1:] + quantile[:-1])
    mean = (weight * middle).sum(axis=0)
    # Within a step of the distribution function values are uniform: variance (width)^2 / 12.
    inside = (weight * np.diff(quantile, axis=0) ** 2 / 12).sum(axis=0)
    return grid, mean, np.sqrt((weight * (middle - mean) ** 2).sum(axis=0) + inside)


def residual(physics: Physics) -> tuple[float, float, float]:
    """Return the error (S, root mean square) of converged cells, mean pulses, share of converged."""
    low, high = physics.g_min, physics.g_max
    target = low + (high - low) * torch.linspace(0, 1, 20000, dtype=torch.float64)
    done = physics.write_verify(
        target, torch.Generator().manual_seed(0), tolerance=0.02, max_pulses=200
    )
    error = (done.conductance - target)[done.converged].square().mean().sqrt()
    return (
        float(f"{float(error):.3g}"),
        float(done.pulses.double().mean()),
        float(done.converged.double().mean()),
    )


def bisol(folder: Path) -> DeviceModel:
    """TaOx retention: four states, 120 s at 200 Hz each."""
    traces = [
        np.genfromtxt(gzip.open(path, "rt"), delimiter=",", skip_header=1)
        for path in sorted(folder.glob("*retention.csv.gz"))
    ]
    grid = np.exp(np.linspace(0.0, np.log(115.0), 13))
    steps, shifts, reads, errors, middles = [], [], [], [], []
    for trace in traces:
        log_g, seconds = -np.log(trace[:, 0]), trace[:, 2]
        at = np.array([log_g[np.abs(seconds - t) < 0.05 * t].mean() for t in grid])
        steps.append(np.diff(at))
        shifts.append((at[-1] - at[0]) / np.log(115.0))
        reads.append(np.diff(log_g).std() / np.sqrt(2))
        middle = -0.5 * np.log(trace[0, 3] * trace[0, 4])
        errors.append(log_g[0] - middle)
        middles.append(float(np.exp(middle)))
    rate = np.sqrt(np.mean(np.square(steps)) / (np.log(115.0) / 12))
    spread = np.sqrt(np.mean(np.square(errors)))
    return DeviceModel(
        name="taox-bisol2023",
        description=(
            "TaOx ReRAM in its high-resistance range, four programmed states followed for 120 s: measured. "
            "Four states only, so each spread is uncertain by about a third."
        ),
        sigma=NONE,
        citation=BISOL,
        physics=Physics(
            g_min=four(min(middles)),
            g_max=four(max(middles)),
            write=WriteNoise(
                kind="lognormal",
                sigma=four(float(spread)),
                source=BISOL + ": ln of the first reading over the middle of the programmed band, "
                "root mean square of four states",
            ),
            read=ReadNoise(
                relative=four(float(np.sqrt(np.mean(np.square(reads))))),
                source=BISOL + ": differences of successive readings, 5 ms apart",
            ),
            drift=WalkDrift(
                t0=1.0,
                scale="relative",
                shift=four(float(np.mean(shifts))),
                rate=four(float(rate)),
                source={
                    "": BISOL + ": steps of ln G over twelve equal intervals of ln t, four states",
                    "power": "assumed: random walk in logarithmic time",
                },
            ),
            read_voltage=0.1,
            read_time=3.3333e-3,
            source=BISOL + ": programmed bands of the four states; reading as its info file says",
        ),
    )


def cam(folder: Path) -> DeviceModel:
    """A memristor with 526 measured conductance levels; 32 levels over 1000 s; 25 devices."""
    many = sheet(folder / "526-levels-retention.xlsx")
    levels = np.abs(many[:, 1:]) / 0.5
    some = sheet(folder / "32-levels-retention.xlsx")[:1000]
    slow = np.log(np.abs(some[:, 1:]) / 0.5)
    log_time = np.log(np.arange(1.0, 1001.0))
    slopes = np.polyfit(log_time, slow, 1)[0]
    noise = np.diff(levels, axis=0).std(axis=0) / np.sqrt(2) / levels.mean(axis=0)
    within, between = uniformity(folder / "uniformity-data.xlsx")
    steps = sorted({four(g) for g in levels.mean(axis=0)})
    return DeviceModel(
        name="memristor-cam526",
        description=(
            "memristor with 526 measured conductance levels, spaced roughly by a constant ratio; its material "
            "is not stated beside the data. Levels from one device, retention from 32 levels, spreads from "
            "sweeps of 25 devices: measured."
        ),
        sigma=NONE,
        citation=CAM,
        physics=Physics(
            g_min=steps[0],
            g_max=steps[-1],
            targets=tuple(steps),
            write=WriteNoise(
                kind="lognormal",
                sigma=four(within),
                source=CAM
                + ", uniformity-data: ln of the current at 0.5 V after SET by a sweep, cycle to cycle "
                "within a device; the error of a programmed level was not measured",
            ),
            variation=Variation(
                window=four(between),
                source=CAM + ", uniformity-data: the same, between 25 devices",
            ),
            read=ReadNoise(
                relative=four(float(np.sqrt(np.mean(noise**2)))),
                source=CAM + ", 526-levels-retention: differences of successive readings",
            ),
            drift=WalkDrift(
                t0=1.0,
                scale="relative",
                shift=four(float(slopes.mean())),
                rate=four(float(slopes.std(ddof=1))),
                power=1.0,
                source=CAM
                + ", 32-levels-retention: slopes of ln G over ln t, 1,000 readings taken as 1 s apart",
            ),
            read_voltage=0.5,
            source=CAM + ", 526-levels-retention: mean of 350 readings at -0.5 V for each level",
        ),
    )


def sheet(path: Path) -> Array:
    """Return the first sheet's rows that hold a voltage."""
    from openpyxl import load_workbook

    rows = load_workbook(path, read_only=True, data_only=True).worksheets[0]
    values = [row for row in rows.iter_rows(min_row=2, values_only=True) if row[0] is not None]
    return np.array(values, dtype=np.float64)


def uniformity(path: Path) -> tuple[float, float]:
    """Return the standard deviations of ln I at 0.5 V after SET, within and between devices."""
    from openpyxl import load_workbook

    devices = []
    for page in load_workbook(path, read_only=True, data_only=True):
        rows = [r[:2] for r in page.iter_rows(min_row=2, values_only=True) if r[0] is not None]
        volts, amps = np.array(rows, dtype=np.float64).T
        # A cycle passes 0.5 V twice: on the way up, still high-resistive, and on the way back.
        near = np.flatnonzero((np.abs(volts - 0.5) < 0.06) & (np.gradient(volts) < 0))
        devices.append(np.log(amps[near]))
    n = np.array([len(d) for d in devices])
    within = sum(((d - d.mean()) ** 2).sum() for d in devices) / (n - 1).sum()
    means = np.array([d.mean() for d in devices])
    between = means.var(ddof=1) - within * np.mean(1 / n)
    return float(np.sqrt(within)), float(np.sqrt(between))
