"""Write the pictures of README and docs, and the demo's table, from one run of the demo's study."""

import sys
from pathlib import Path

from ohmloop.device import list_devices
from ohmloop.progress import ProgressEvent
from ohmloop.report import (
    accuracy_against_sigma,
    accuracy_per_device,
    device_map,
    run_study,
    to_svg,
)

ROOT = Path(__file__).resolve().parents[1]


def show(event: ProgressEvent) -> None:
    print(f"{event.label} {event.done}/{event.total} {event.message}", file=sys.stderr)


def main() -> None:
    study = run_study(list_devices(), progress=show)
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (device_map, accuracy_against_sigma, accuracy_per_device):
        name = draw.__name__
        (folder / f"{name}.svg").write_text(
            to_svg(draw(study), name.replace("_", " ")), encoding="utf-8"
        )
    lines = [
        "| method (cost) | clean | best device | median device | all 43 devices |",
        "|---|---|---|---|---|",
    ]
    for r in study.results:
        cells = (r.clean, r.on_devices[study.best], r.on_devices[study.median], r.on_devices)
        text = " | ".join(f"{100 * c.mean():.1f} ± {100 * c.std():.1f}" for c in cells)
        lines.append(f"| {r.method} ({r.cost:g}) | {text} |")
    target = ROOT / "bench" / "results" / "demo.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(target.read_text())


if __name__ == "__main__":
    main()
