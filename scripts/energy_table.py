"""Put the constants and the example figures into docs/energy.md; ``--check`` compares only."""

import re
import sys
from pathlib import Path

from ohmloop.crossbar import (
    ADC,
    DAC,
    Array,
    Costs,
    Hardware,
    LayerUse,
    count_layer,
    digital_baseline,
)
from ohmloop.units import format as with_unit

PAGE = Path(__file__).resolve().parents[1] / "docs" / "energy.md"
MARK = re.compile(r"(<!-- energy: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def constants() -> str:
    """Return the table of every constant with its unit and source."""
    rows = ["| constant | value | source |", "|---|---|---|"]
    for name, value, unit, source in Costs().constants():
        assert isinstance(value, float | int)
        shown = with_unit(float(value), unit) if unit else f"{value:g}"
        shown = f"{value * 1e12:.4g} um2" if unit == "m2" else shown
        rows.append(f"| `{name}` | {shown} | {source} |")
    return "\n".join(rows)


def example() -> str:
    """Return energy of one product for three sizes of array, beside digital chips."""
    head = (
        "| array | analog | of it cells | of it ADCs | an operation | digital int8 | an operation "
        "| multiplications alone | fp16 | fp32 |"
    )
    rows = [head, "|" + "---|" * 10]
    for n in (10, 64, 256):
        array = Array(rows=n, columns=2 * n, dac=DAC(bits=8), adc=ADC(bits=8))
        use = LayerUse(name=f"{n} x {n}", n_out=n, n_in=n, mean_conductance=5e-6, drive=1 / 3)
        analog = count_layer(use, Hardware(device="lognormal:0.3", array=array))
        digital = digital_baseline(use)
        energies = [
            *(analog.energy, analog.energy_parts["array"], analog.energy_parts["adc"]),
            *(analog.energy_per_operation, digital.energy, digital.energy_per_operation),
            digital.energy_parts["arithmetic"],
            *(digital_baseline(use, precision=p).energy for p in ("fp16", "fp32")),
        ]
        rows.append(f"| {use.name} | " + " | ".join(with_unit(e, "J") for e in energies) + " |")
    return "\n".join(rows)


def main() -> int:
    tables = {"constants": constants, "example": example}
    old = PAGE.read_text(encoding="utf-8")
    new = MARK.sub(lambda m: f"{m[1]}\n{tables[m[2]]()}\n\n{m[3]}", old)
    if new == old:
        return 0
    if "--check" in sys.argv:
        print(
            "docs/energy.md is stale: run .venv/bin/python scripts/energy_table.py", file=sys.stderr
        )
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
