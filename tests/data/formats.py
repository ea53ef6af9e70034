"""Writers of the formats that ohmloop reads: independent of the readers, for their tests."""

import io
from collections.abc import Callable

import numpy as np
import openpyxl


def loop(n_cycles: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Voltage ``n`` and current ``n x n_cycles`` of a loop with five significant digits."""
    rng = np.random.default_rng(seed)
    up = np.arange(0, 2.01, 0.1)
    v = np.round(np.concatenate([up, up[-2::-1], -up[1:], -up[-2::-1]]), 3)
    i = 1e-5 * v[:, None] * (1 + 0.2 * rng.random((len(v), n_cycles)))
    return v, np.vectorize(lambda x: float(f"{x:.4e}"))(i)


def workbook(v: np.ndarray, i: np.ndarray) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sheet1"
    sheet.append(["voltage", *(f"current_cycle{k + 2}" for k in range(i.shape[1]))])
    for row in np.column_stack([v, i]):
        sheet.append(row.tolist())
    other = book.create_sheet("Sheet2")
    other.append(["AAO_time", "Ag_thickness"])
    other.append(["10min", "100nm"])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def pymeasure(v: np.ndarray, i: np.ndarray) -> bytes:
    head = "#Procedure: <lab.IVProcedure>\n#Parameters:\n#\tMaximum voltage: 2 V\n#Data:\n"
    rows = [f"{k * 0.1:.1f},{a!r},{b!r}" for k, (a, b) in enumerate(stacked(v, i))]
    return (head + "Time (s),Voltage (V),Current (A)\n" + "\n".join(rows) + "\n").encode()


def keithley(v: np.ndarray, i: np.ndarray) -> bytes:
    header = (
        "Index,Reading,Unit,Range Digits,Terminal,Source Value,Unit,Date,Time,Fractional Seconds\n"
    )
    text = ""
    for c in range(i.shape[1]):
        text += header
        for k, (a, b) in enumerate(zip(v.tolist(), i[:, c].tolist(), strict=True), start=1):
            text += (
                f"{k},{b!r},Amp DC,6.5,Front,{a!r},Volt DC,11/23/2026,10:00:{k % 60:02d},0.123\n"
            )
    return text.encode()


def easyexpert(v: np.ndarray, i: np.ndarray) -> bytes:
    text = "\ufeff"
    for c in range(i.shape[1]):
        text += "SetupTitle, I/V Sweep\r\nTestParameter, Channel.Unit, SMU1:HR, GNDU\r\n"
        text += "AnalysisSetup, Analysis.Setup.Title, IV\r\nDataName, V1, I1, Time\r\n"
        for k, (a, b) in enumerate(zip(v.tolist(), i[:, c].tolist(), strict=True)):
            text += f"DataValue, {a!r}, {b!r}, {k * 0.01:.2f}\r\n"
    return text.encode("utf-8")


def csv_milli(v: np.ndarray, i: np.ndarray) -> bytes:
    """One voltage, several currents in mA, decimal commas, semicolons."""
    lines = ["Voltage / V;" + ";".join(f"I{k + 1} (mA)" for k in range(i.shape[1]))]
    for a, row in zip(v.tolist(), i.tolist(), strict=True):
        cells = [repr(a), *(f"{x * 1e3:.7g}" for x in row)]
        lines.append(";".join(cells).replace(".", ","))
    return "\n".join(lines).encode("latin-1")


def stacked(v: np.ndarray, i: np.ndarray) -> list[tuple[float, float]]:
    """All cycles one below the other, as an instrument that loops writes them."""
    return [
        (a, b) for c in range(i.shape[1]) for a, b in zip(v.tolist(), i[:, c].tolist(), strict=True)
    ]


def bare_text(v: np.ndarray, i: np.ndarray) -> bytes:
    return "\n".join(f"{a!r}\t{b!r}" for a, b in stacked(v, i)).encode()


def utf16(v: np.ndarray, i: np.ndarray) -> bytes:
    rows = "\r\n".join(f"{a!r},{b!r}" for a, b in stacked(v, i))
    return ("# exported\r\nV (V),I (A)\r\n" + rows).encode("utf-16")


Writer = Callable[[np.ndarray, np.ndarray], bytes]
FORMATS: dict[str, tuple[Writer, str, str]] = {
    "perovskite-workbook": (workbook, ".xlsx", "perovskite-workbook"),
    "pymeasure": (pymeasure, ".csv", "pymeasure-csv"),
    "keithley": (keithley, ".csv", "keithley-csv"),
    "easyexpert": (easyexpert, ".csv", "easyexpert-csv"),
    "csv in mA": (csv_milli, ".csv", "text"),
    "bare text": (bare_text, ".txt", "text"),
    "utf-16": (utf16, ".csv", "text"),
}
