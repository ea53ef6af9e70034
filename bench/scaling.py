"""How costs grow, checked at sizes that were not fitted, and what large work needs.

    python bench/scaling.py [--repeats 3] [--only fleet,suggest] [--flops 989e12 --bandwidth 4.8e12 ...]
    python bench/scaling.py --plan          # the plan anew, from what was measured before
    python bench/scaling.py --smoke --out /tmp/scaling      # every case at tiny sizes, in seconds

CPU seconds of one thread (wall seconds for executors), each repeat in a process of its own after a small run
that warms up; memory is what a run adds to the process at its peak, which Linux alone tells. A model is a sum
of terms of known order with coefficients of at least 0, fitted to relative errors; its spread is that of fits
to single repeats. Networks are perceptrons with two hidden layers: P analog weights, A activations of an input,
n inputs, D devices. N is the side of an array; n, v and M are the trials, variables (of a list: ten) and listed
recipes of a search, E the events of a campaign, k the trials on an executor. Everything but times and memory is
simulated.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from _common import RESULTS, markdown, save

SMOKE_REPEATS = 2


def main() -> None:
    options = _options()
    # Imported here: an executor's workers import this file, and shall start lightly.
    import torch

    from _scaling_plan import plan

    torch.set_num_threads(1)
    kept = _kept(options.out) if options.plan or options.only else {}
    record = kept if options.plan else {**kept, **_measure(options)}
    if not record:
        sys.exit("nothing was measured yet: python bench/scaling.py")
    rates = _rates(options)
    found: dict[str, Any] = {"cases": record, "threads": 1}
    needed = {"suggest", "suggest-list", "append", "fleet", "device", "step-noise", "run-local"}
    costs, text = _costs(record), f"# How costs grow\n\n{__doc__}\n"
    text += costs
    if needed <= set(record):
        found["plan"] = plan(record, rates)
        planned = _planned(found["plan"])
        (options.out / "scaling-plan.md").write_text(planned, encoding="utf-8")
        text += f"\n## What large work needs\n\n{planned}"
    (options.out / "scaling-costs.md").write_text(costs, encoding="utf-8")
    save("scaling", found, text, options.out)


def _options() -> argparse.Namespace:
    from _scaling_plan import Rates

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="measure these cases anew, keep the others")
    parser.add_argument("--plan", action="store_true", help="measure nothing")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    chip = Rates()
    rates = parser.add_argument_group("a GPU", f"by default {Rates.__doc__.partition('Attr')[0]}")  # type: ignore[union-attr]
    rates.add_argument("--gpu", default=chip.name, help="its name")
    for name, unit in (
        ("flops", "FLOP/s of bfloat16 products, dense"),
        ("vector-flops", "FLOP/s of float32"),
        ("bandwidth", "bytes/s"),
        ("memory", "bytes"),
        ("efficiency", "share of these that is reached; assumed"),
    ):
        default = getattr(chip, name.replace("-", "_"))
        rates.add_argument(f"--{name}", type=float, default=default, help=unit)
    options = parser.parse_args()
    if options.smoke and options.out == RESULTS:
        parser.error("--smoke writes no results of worth: name a folder for them with --out")
    options.out.mkdir(parents=True, exist_ok=True)
    options.repeats = SMOKE_REPEATS if options.smoke else options.repeats
    return options


def _rates(options: argparse.Namespace) -> Any:
    from _scaling_plan import Rates

    return Rates(
        options.gpu,
        options.flops,
        options.vector_flops,
        options.bandwidth,
        options.memory,
        options.efficiency,
    )


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / "scaling.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["cases"]) if path.exists() else {}


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from _scaling_cases import LEAST_SECONDS, cases, measured

    every, least = cases(), 0.0 if options.smoke else LEAST_SECONDS
    names = options.only.split(",") if options.only else list(every)
    if options.smoke and not options.only:  # a Ray takes longer to start than all else together
        names = [name for name in names if name != "run-ray"]
    if unknown := set(names) - set(every):
        sys.exit(f"no case {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    out = {}
    for key in names:
        case = every[key]
        points = case.tiny[:-2] if options.smoke else case.points
        held = case.tiny[-2:] if options.smoke else case.held
        began = time.perf_counter()
        runs = [measured(case, point, options.repeats, least) for point in (*points, *held)]
        out[key] = _fitted(case, runs, len(points))
        print(f"{key}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return out


def _fitted(case: Any, runs: list[dict[str, Any]], n_fitted: int) -> dict[str, Any]:
    """Fit the models of one case to its first runs and check them on the others."""
    from _scaling_fit import checked, fitted

    variables = [run["variables"] for run in runs]
    out: dict[str, Any] = {"name": case.name, "clock": case.clock, "runs": runs}
    out["fitted"] = n_fitted
    out["largest"] = {key: max(v[key] for v in variables) for key in variables[0]}
    for unit, terms in (("seconds", case.terms), ("bytes", case.bytes)):
        if not terms:
            continue
        values = [run[unit] for run in runs]
        fit = fitted(terms, variables[:n_fitted], values[:n_fitted])
        out[unit] = {
            **fit._asdict(),
            "held": checked(fit, variables[n_fitted:], values[n_fitted:]),
        }
    return out


def _costs(record: dict[str, Any]) -> str:
    """Return the table of fitted models."""
    rows = []
    for case in record.values():
        for unit in ("seconds", "bytes"):
            if unit not in case:
                continue
            model = case[unit]
            clock = case["clock"] if unit == "seconds" else "peak memory"
            rows.append(
                [
                    case["name"],
                    clock,
                    _formula(model, unit),
                    f"{100 * model['worst']:.0f} %",
                    "; ".join(_check(held, unit) for held in model["held"]),
                ]
            )
    head = ["what", "", "model: coefficient (over repeats) x term", "worst fitted"]
    return markdown([*head, "at sizes not fitted: measured, error of the model (range)"], rows)


def _formula(model: dict[str, Any], unit: str) -> str:
    parts = []
    for term, value in model["coefficients"].items():
        if value > 0:
            low, high = (amount(x, unit) for x in model["spread"][term])
            label = "" if term == "1" else f" x {term}"
            parts.append(f"{amount(value, unit)} ({low} to {high}){label}")
    return " + ".join(parts) or "0"


def _check(held: dict[str, Any], unit: str) -> str:
    at = ", ".join(f"{key} = {value:,}" for key, value in held["point"].items())
    measured = sorted(held["measured"])[len(held["measured"]) // 2]
    low, high = 100 * held["error_low"], 100 * held["error_high"]
    return (
        f"{at}: {amount(measured, unit)}, {100 * held['error']:+.0f} % ({low:+.0f} to {high:+.0f})"
    )


def amount(value: float, unit: str) -> str:
    """Return a time or a size with a unit that suits it.

    >>> amount(3.2e-8, "seconds"), amount(12.0, "bytes"), amount(2.5e9, "bytes")
    ('32 ns', '12 B', '2.5 GB')
    """
    steps = (1.0, 1e-3, 1e-6, 1e-9, 1e-12) if unit == "seconds" else (1e12, 1e9, 1e6, 1e3, 1.0)
    names = ("s", "ms", "us", "ns", "ps") if unit == "seconds" else ("TB", "GB", "MB", "kB", "B")
    for step, name in zip(steps, names, strict=True):
        if value >= step:
            return f"{value / step:.3g} {name}"
    return f"{value / steps[-1]:.2g} {names[-1]}"


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _planned(plan: dict[str, Any]) -> str:
    """Return the table of what large work needs, and what it rests on."""
    from _scaling_plan import FORMULAS

    rates, fleet, search, campaign = (plan[key] for key in ("rates", "fleet", "search", "campaign"))
    of = {key: plan[key]["of"] for key in ("campaign", "fleet", "search")}
    rows = [
        [
            f"campaign: {of['campaign']['trials']} trials chosen from {of['campaign']['recipes']:,} recipes of "
            f"{of['campaign']['variables']} variables",
            _hours(campaign["here"]["core_hours"]),
            amount(campaign["here"]["bytes"], "bytes"),
            "none used",
            "-",
        ],
        [
            f"fleet: {of['fleet']['devices']:,.0f} devices of {of['fleet']['weights']:.2g} weights, "
            f"{of['fleet']['tokens']:,.0f} tokens each",
            _hours(fleet["here"]["core_hours"]),
            amount(fleet["here"]["bytes"], "bytes"),
            _gpu_cell(fleet["gpu"]),
            amount(fleet["gpu_bytes"], "bytes"),
        ],
        [
            f"search: {of['search']['trials']:,} trainings of {of['search']['weights']:.2g} dense weights, "
            f"{of['search']['epochs']:.0f} epochs of {of['search']['inputs']:,.0f} inputs, "
            f"{of['search']['devices']:.0f} devices x {of['search']['test']:,.0f} inputs each",
            _hours(search["here"]["core_hours"]),
            amount(search["here"]["bytes"], "bytes"),
            _gpu_cell(search["gpu"]),
            amount(search["gpu_bytes"], "bytes"),
        ],
    ]
    head = ["work", "core-hours here", "memory here", "GPU-hours, estimated", "GPU memory"]
    text = markdown(head, rows)
    fits = "fits" if fleet["gpu_bytes"] < rates["memory"] else "does not fit"
    text += (
        f"\n*Here*: from the fitted models, one core; the fleet is {fleet['here']['beyond']:,.0f} times, "
        f"the search {search['here']['beyond']:.1f} times larger than the largest network measured. Of the "
        "search's core-hours "
        + ", ".join(
            f"{_hours(search['here'][k])} are {k}"
            for k in ("trainings", "fleets", "suggestions", "executor")
        )
        + ".\n\n"
        "*GPU*: an estimate that was not measured. Counted FLOPs, random numbers and bytes over the rates of "
        f"one {rates['name']} ({rates['flops']:.3g} FLOP/s in bfloat16, "
        f"{rates['vector_flops']:.3g} in float32, {rates['bandwidth']:.3g} B/s, {rates['memory']:.3g} B), "
        f"of which {100 * rates['efficiency']:.0f} % are assumed to be reached. Attention, activations and the "
        "launching of kernels are not counted: small networks take longer. One device of the fleet, with the "
        f"model beside it, {fits} on one GPU.\n\n{FORMULAS}"
    )
    return text


def _gpu_cell(gpu: dict[str, Any]) -> str:
    parts = ", ".join(
        f"{name} {_hours(p['gpu_hours'])} (by {p['bound']})" for name, p in gpu["phases"].items()
    )
    return f"{_hours(gpu['gpu_hours'])}: {parts}"


if __name__ == "__main__":
    main()
