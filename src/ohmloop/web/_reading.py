"""The reader's process: parses files, with bounded memory. Started by `ohmloop.web._reader.Reader`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ohmloop.errors import IngestError, OhmloopError
from ohmloop.progress import Progress
from ohmloop.web._helper import answer_questions

POINTS_A_CYCLE, POINTS = 2000, 100_000
CYCLES = 100

# Name, label, unit; a list of quantiles shows its median.
_FIGURES = (
    ("sigma", "scatter over cycles, sigma of ln G", ""),
    ("monotonicity", "monotonicity", ""),
    ("usability", "usability", ""),
    ("on_off_ratio", "on/off ratio", ""),
    ("set_voltage", "SET voltage", "V"),
    ("reset_voltage", "RESET voltage", "V"),
    ("hrs_ohm", "resistance when off, median", "Ohm"),
    ("lrs_ohm", "resistance when on, median", "Ohm"),
    ("g_min", "smallest conductance of the window", "S"),
    ("g_max", "largest conductance of the window", "S"),
    ("direction", "direction", ""),
    ("switched_cycles", "cycles that switch", ""),
    ("clipped_points", "points at the compliance limit", ""),
    ("read_voltage", "states are read at", "V"),
)


def main() -> None:
    """Answer the server's questions within the memory that the command line names."""
    try:
        import resource
    except ImportError:  # Windows has no such limit; that of time holds
        pass
    else:
        memory = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    import python_calamine  # noqa: F401  # what the first file would wait for

    import ohmloop.campaign
    import ohmloop.data  # noqa: F401

    answer_questions(_handle)


def _handle(question: dict[str, Any], progress: Progress) -> Any:
    return _DO[question.pop("do")](**question)


def _preview(
    path: str,
    recipe: dict[str, Any] | None,
    campaign: str | None,
    voltage_unit: str | None,
    current_unit: str | None,
) -> dict[str, Any]:
    from ohmloop.data import FileRecipe, Sweep, columns_of, figures_of_merit, read, sniff
    from ohmloop.web._errors import OutOfMemoryError

    file = Path(path)
    guess = sniff(file)
    given, name = (None, "") if recipe is None else (FileRecipe.from_dict(recipe), "")
    if given is None and campaign is not None:
        given, name = _kept(file, Path(campaign))
    out: dict[str, Any] = {
        "name": file.name,
        "sha256": _sha256(file),
        "size": file.stat().st_size,
        "format": guess.format,
        "confidence": guess.confidence,
        "reasons": [guess.reason],
        "recipe": name,
    }
    try:
        out["columns"] = [{**vars(c), "name": c.name} for c in columns_of(file)]
        sweep: Sweep = read(
            file, recipe=given, voltage_unit=voltage_unit, current_unit=current_unit
        )
        figures = figures_of_merit(sweep).to_dict()
    except OutOfMemoryError:
        raise
    except OhmloopError as error:
        if not out.get("columns"):
            raise
        return {**out, "problem": str(error) + _other_kind(file)}
    out["notes"] = [note.text for note in sweep.notes] + [
        text for text in figures["notes"] if text not in {n.text for n in sweep.notes}
    ]
    out["n_cycles"] = sweep.n_cycles
    out["n_points"] = len(sweep.voltage)
    out["figures"] = [_figure(figures, *which) for which in _FIGURES]
    return {**out, **_curves(sweep)}


def _kept(file: Path, folder: Path) -> tuple[Any, str]:
    """Return the campaign's recipe for files of this kind, and its name."""
    from ohmloop.campaign import Campaign
    from ohmloop.data import recognise

    with Campaign.open(folder, writable=False) as campaign:
        recipes = campaign.file_recipes
        try:
            name = recognise(file, recipes)
        except IngestError:
            return None, ""
    return (None, "") if name is None else (recipes[name], name)


def _other_kind(file: Path) -> str:
    """Say so where the file is no sweep, but something that a device is fitted from."""
    from ohmloop.data import sniff_kind

    try:
        guess = sniff_kind(file)
    except OhmloopError:
        return ""
    if guess.kind == "sweep" or guess.confidence < 0.5:
        return ""
    return f" It looks like a {guess.kind} ({guess.reason}): fit a device to it on the page of devices."


def _figure(figures: dict[str, Any], name: str, label: str, unit: str) -> dict[str, Any]:
    from ohmloop import units

    value = figures[name]
    if isinstance(value, list):
        value = value[len(value) // 2]
    low, high = figures.get(f"{name}_interval") or (None, None)

    def shown(number: Any) -> str:
        if isinstance(number, float):
            return units.format(number, unit, 4) if unit else f"{number:.4g}"
        return "–" if number is None else str(number)

    text = shown(value)
    if value is not None and low is not None:
        text += f" (95 %: {shown(low)} to {shown(high)})"
    return {
        "name": name,
        "label": label,
        "unit": unit,
        "value": value,
        "low": low,
        "high": high,
        "text": text,
    }


def _curves(sweep: Any) -> dict[str, Any]:
    """Return the cycles thinned to what a plot can show."""
    import numpy as np

    with_data = np.flatnonzero(np.isfinite(sweep.current).any(axis=0))
    if len(with_data) > CYCLES:
        with_data = with_data[np.linspace(0, len(with_data) - 1, CYCLES).astype(int)]
    most = min(POINTS_A_CYCLE, POINTS // max(len(with_data), 1))
    rows = np.arange(len(sweep.voltage))
    if len(rows) > most:
        rows = np.unique(np.linspace(0, len(rows) - 1, most).astype(int))
    voltage = sweep.voltage[np.ix_(rows, with_data)]
    is_shared = bool(np.array_equal(voltage, np.broadcast_to(voltage[:, :1], voltage.shape), True))
    return {
        "cycle_names": [sweep.cycle_names[k] for k in with_data],
        "voltage": voltage[:, 0] if len(with_data) else [],
        "voltages": [] if is_shared else voltage.T,
        "currents": sweep.current[np.ix_(rows, with_data)].T,
    }


def _sha256(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def _ingest(
    campaign: str,
    paths: list[str],
    trial: str | None,
    recipe: dict[str, Any] | str | None,
    voltage_unit: str | None,
    current_unit: str | None,
    actor: str | None,
    seen: int | None,
) -> Any:
    from ohmloop.campaign import Campaign
    from ohmloop.data import FileRecipe

    with Campaign.open(campaign, actor=actor, seen=seen) as opened:
        return opened.ingest(
            list(paths),
            trial=trial,
            voltage_unit=voltage_unit,
            current_unit=current_unit,
            recipe=FileRecipe.from_dict(recipe) if isinstance(recipe, dict) else recipe,
        )


def _import(
    campaign: str, path: str, earlier: str | None, actor: str | None, seen: int | None
) -> Any:
    from ohmloop.campaign import Campaign

    with Campaign.open(campaign, actor=actor, seen=seen) as opened:
        return opened.import_(path, earlier=earlier)


def _export(campaign: str, path: str) -> str:
    from ohmloop.campaign import Campaign

    with Campaign.open(campaign, writable=False) as opened:
        return str(opened.export(path))


_DO: dict[str, Callable[..., Any]] = {
    "preview": _preview,
    "ingest": _ingest,
    "import": _import,
    "export": _export,
}

if __name__ == "__main__":
    main()
