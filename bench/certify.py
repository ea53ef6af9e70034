"""What can be proven about networks trained in different ways, on three of the 43 nanowires, and what is true.

Networks: the digits MLP and a LeNet on Fashion-MNIST (8,000 development images, 5 epochs a training, 200 test
images), trained with three seeds each by `erm`, `bayesmulti` and `steady:search=true`; the last also with the
deployment `readout` (64 unlabelled training inputs a device). Tables have the mean over seeds, with the lowest
and highest in brackets where they differ; a certificate speaks about one network, so a mean over seeds claims
nothing. Nanowires by sigma among the 43: the quietest, the median (place 22), and a poor one (place 32). Noise
only (`use_rho` False), and on the median one its level table too.

For each: 5,000 virtual devices (Fashion-MNIST: 500) give the yield of each input (S2), the accuracy of 95 %
and 99 % of all devices (S2), and both under a systematic shift of the law (S3: percentile smoothing and
drift). S1: the box of weights by linear bounds, once a network, for all inputs of the digits and 12 of
Fashion-MNIST. "True": other devices, 300 for each shift,
shifted along the gradient of the loss (the mean over 32 devices) in the logarithm of the weights. A proof
holds for every direction, the points for this one. With readout only the unshifted point is drawn.

    python bench/certify.py [--tasks digits] [--seeds 0,1,2]
"""

import argparse
import copy
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from _common import RESULTS, markdown, save
from ohmloop.certify import (
    BoxCertificate,
    Certificate,
    DriftCertificate,
    Law,
    PercentileCertificate,
    Votes,
    YieldCertificate,
    box_certificate,
    clopper_pearson,
    drift_certificate,
    percentile_certificate,
    poll,
    quantile_certificate,
    yield_certificate,
)
from ohmloop.crossbar import Hardware
from ohmloop.device import DeviceModel, list_devices
from ohmloop.nn import Deployment, analog_parameters
from ohmloop.report import Observed, certificates_figure, to_svg
from ohmloop.tasks import Split, task
from ohmloop.train import fit, unlabelled_inputs

CACHE = Path(__file__).parent / ".cache" / "certify"
N_TRUE, SEED, TRUE_SEED = 300, 1, 2
SHIFTS = (0.0, 0.5, 1.0, 2.0)
SHOWN = 0.5
"""The shift that tables show, in deviations of the law."""
GRADIENTS = 32
PLACES = {"best": 0, "median": 21, "poor": 31}


class Study(NamedTuple):
    """One task: how networks are trained, and how many inputs are certified."""

    task: str
    model: str
    methods: tuple[str, ...]
    sigmas: tuple[float, ...]
    settings: dict[str, object]
    n_devices: int
    test_limit: int
    box_inputs: int


STUDIES = (
    Study(
        "digits",
        "mlp",
        ("erm", "bayesmulti", "steady:search=true"),
        (0.2, 0.4, 0.587, 0.6, 0.8, 1.0, 1.2, 1.5),
        {"epochs": 60},
        5000,
        360,
        360,
    ),
    Study(
        "fashion-mnist",
        "lenet",
        ("erm", "bayesmulti:n_iterations=3,max_p0=0.6", "steady:search=true"),
        (0.587,),
        {"epochs": 5, "limit": 8000, "lr": 1e-3},
        500,
        200,
        12,
    ),
)


def trained(study: Study, method: str, seed: int) -> nn.Module:
    laws = [Hardware.model_validate({"device": f"lognormal:{s}"}) for s in study.sigmas]
    return fit(
        task(study.task),
        method,
        model=study.model,
        hardware=laws,
        seed=seed,
        run_dir=CACHE / study.task / f"{method.partition(':')[0]}-{seed}",
        **study.settings,  # type: ignore[arg-type]
    ).model


def direction(model: nn.Module, law: Law, data: Split) -> dict[str, torch.Tensor]:
    """Return a unit vector in the noise coordinate, ln|w|: where the mean loss grows fastest."""
    base = law.nominal(analog_parameters(model))
    generator = torch.Generator().manual_seed(77)
    total = {n: torch.zeros_like(w) for n, w in base.items()}
    for _ in range(GRADIENTS):
        noisy = {
            n: (w * (law.sigma * torch.randn(w.shape, generator=generator)).exp()).requires_grad_()
            for n, w in base.items()
        }
        loss = nn.functional.cross_entropy(functional_call(model, noisy, (data.x,)), data.y)
        for (n, w), g in zip(
            noisy.items(), torch.autograd.grad(loss, list(noisy.values())), strict=True
        ):
            total[n] += (g * w).detach()
    norm = sum(float((t**2).sum()) for t in total.values()) ** 0.5
    return {n: t / norm for n, t in total.items()}


def shifted_votes(
    model: nn.Module, law: Law, data: Split, step: dict[str, torch.Tensor], rho: float, base: Votes
) -> Votes:
    """Return what devices say whose law is centred at ln|w| + rho sigma step."""
    moved = copy.deepcopy(model)
    nominal = law.nominal(analog_parameters(model))
    with torch.no_grad():
        for name, p in analog_parameters(moved).items():
            p.copy_(nominal[name] * (rho * law.sigma * step[name]).exp())
    plain = law.model_copy(update={"rho": None})
    found = poll(moved, data, plain, n_devices=N_TRUE, seed=TRUE_SEED)
    return dataclasses.replace(found, digital=base.digital)


def certified(
    model: nn.Module,
    data: Split,
    hardware: Hardware,
    deployment: str,
    unlabelled: torch.Tensor,
    n_devices: int,
) -> tuple[list[Certificate], Observed]:
    law = Law.of(hardware, calibrated="fixed")
    deployed = Deployment.parse(deployment)
    shown = unlabelled if deployed.sees_inputs else None
    votes = poll(
        model, data, law, n_devices=n_devices, seed=SEED, deployment=deployed, unlabelled=shown
    )
    out: list[Certificate] = [
        yield_certificate(votes),
        quantile_certificate(votes, share=0.95),
        quantile_certificate(votes, share=0.99),
        percentile_certificate(votes, shares=(0.5, 0.95)),
        drift_certificate(votes),
    ]
    if deployment != "none":
        other = poll(
            model,
            data,
            law,
            n_devices=N_TRUE,
            seed=TRUE_SEED,
            deployment=deployed,
            unlabelled=shown,
        )
        return out, Observed((0.0,), (other,))
    step = direction(model, law, data)
    seen = tuple(shifted_votes(model, law, data, step, rho, votes) for rho in SHIFTS)
    return out, Observed(SHIFTS, seen)


def holds(certificates: Sequence[Certificate], seen: Observed) -> list[str]:
    """Return where simulated devices significantly contradict a certificate (at 1 in 1e4 each)."""
    wrong = []
    for c in certificates:
        if isinstance(c, YieldCertificate):
            right = seen.votes[0].right("digital").sum(0)
            upper = 1 - clopper_pearson(N_TRUE - right, N_TRUE, 1e-4 / len(right))
            wrong += [f"yield of input {k}" for k in np.flatnonzero(upper < np.array(c.lower))]
        if isinstance(c, PercentileCertificate):
            for rho, votes in zip(seen.rho, seen.votes, strict=True):
                at = int(np.abs(np.array(c.rho) - rho).argmin())
                for share, curve in zip(c.shares, c.bounds, strict=True):
                    if (bound := curve[at]) is not None:
                        below = int((votes.scores("label") < bound).sum())
                        if clopper_pearson(below, N_TRUE, 1e-4) > 1 - share:
                            wrong.append(f"percentile {share} at shift {rho}")
        if isinstance(c, DriftCertificate):
            for rho, votes in zip(seen.rho, seen.votes, strict=True):
                right = votes.right("digital").sum(0)
                upper = 1 - clopper_pearson(N_TRUE - right, N_TRUE, 1e-4 / len(right))
                wrong += [
                    f"drift of input {k} at {rho}" for k in np.flatnonzero(upper < c.kept(rho))
                ]
    return wrong


class Found(NamedTuple):
    """What one training seed gave.

    Attributes:
        n_inputs: Certified.
        rows: Columns of the table by its row; see `figures`.
        records: Certificates without lists over inputs.
        groups, seen: For the picture.
        wrong: Where simulated devices contradict a certificate.
        seconds: Of the processor, trainings left out.
    """

    n_inputs: int
    rows: dict[tuple[str, ...], list[float | None]]
    records: list[dict[str, object]]
    groups: dict[str, list[Certificate]]
    seen: dict[str, Observed]
    wrong: list[str]
    seconds: float


def run(study: Study, seed: int, wires: dict[str, DeviceModel]) -> Found:
    found = task(study.task)
    limit = study.settings.get("limit")
    test = found.test(seed, limit)  # type: ignore[arg-type]
    order = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))
    keep = order[: study.test_limit].sort().values
    data = Split(test.x[keep], test.y[keep])
    train, _ = found.development(seed, limit)  # type: ignore[arg-type]
    unlabelled = unlabelled_inputs(train, seed)
    rows: dict[tuple[str, ...], list[float | None]] = {}
    records, groups, seen, wrong = [], {}, {}, []
    seconds = 0.0
    for method in study.methods:
        model = trained(study, method, seed).eval()
        began = time.process_time()
        name = method.partition(":")[0]
        box = box_certificate(
            model,
            (data.x[: study.box_inputs], data.y[: study.box_inputs]),
            method="linear",
            tolerance=0.05,
        )
        for deployment in ("none", "readout") if name == "steady" else ("none",):
            for place, device in wires.items():
                for use_rho in (False, True) if place == "median" else (False,):
                    hardware = Hardware(device=device, use_rho=use_rho)
                    certificates, observed = certified(
                        model, data, hardware, deployment, unlabelled, study.n_devices
                    )
                    wrong += holds(certificates, observed)
                    label = name if deployment == "none" else f"{name} + {deployment}"
                    if place == "median" and not use_rho:
                        groups[label] = [*certificates, *([box] if deployment == "none" else [])]
                        seen[label] = observed
                    key = (
                        label,
                        f"{place}: {device.name} ({device.sigma.value:.3f})",
                        "yes" if use_rho else "no",
                    )
                    boxed = None if deployment != "none" or use_rho else box
                    rows[key] = figures(certificates, boxed, observed)
                    records.append(
                        {
                            "seed": seed,
                            "method": method,
                            "deployment": deployment,
                            "place": place,
                            "use_rho": use_rho,
                            "certificates": [
                                slim(c)
                                for c in (*certificates, *([box] if place == "best" else []))
                            ],
                            "true": true_of(observed),
                        }
                    )
                    print(study.task, seed, *key, rows[key], flush=True)
        seconds += time.process_time() - began
    return Found(len(data.x), rows, records, groups, seen, wrong, seconds)


def study_of(study: Study, seeds: Sequence[int]) -> tuple[dict[str, object], str]:
    """Run all seeds; return what is kept, and the page."""
    ranked = sorted(list_devices(), key=lambda d: (d.sigma.value, d.name))
    wires = {place: ranked[k] for place, k in PLACES.items()}
    found = [run(study, seed, wires) for seed in seeds]
    first = found[0]
    figure = certificates_figure(first.groups, first.seen)
    svg = to_svg(figure, f"{study.task}: certified curves and simulated devices, median nanowire")
    (RESULTS / f"certify-{study.task}.svg").write_text(svg + "\n", encoding="utf-8")
    head = [
        "method", "nanowire (sigma)", "levels", "inputs with yield > 50 %", "with yield >= 95 %",
        "accuracy of 95 % of devices", "of 99 %", "true 95 %", "after shift .5 (95 %)", "true",
        "inputs kept after shift .5 (50 %)", "true", "box: half of the inputs keep if every weight is off by",
    ]  # fmt: skip
    cells = [
        [*key, *(cell([f.rows[key][k] for f in found]) for k in range(len(first.rows[key])))]
        for key in first.rows
    ]
    wrong = [f"seed {seed}: {w}" for seed, f in zip(seeds, found, strict=True) for w in f.wrong]
    seconds = sum(f.seconds for f in found)
    text = "\n".join(
        [
            f"# Certificates: {study.task}\n",
            f"{__doc__}\n",
            f"Training seeds {', '.join(map(str, seeds))}; {first.n_inputs} test inputs, {study.n_devices:,} "
            f"devices a row at 95 % confidence, {N_TRUE} further devices for what is true. The picture shows "
            f"seed {seeds[0]} on the median nanowire without level table. {seconds:.0f} CPU s, without "
            "trainings.\n",
            f"Contradicted by simulated devices (significance 1e-4 each): {len(wrong)}"
            f"{'' if not wrong else ': ' + '; '.join(wrong[:5])}.\n",
            markdown(head, cells),
            f"![curves](certify-{study.task}.svg)\n",
        ]
    )
    return {
        "seeds": list(seeds),
        "n_inputs": first.n_inputs,
        "n_devices": study.n_devices,
        "n_true": N_TRUE,
        "wires": {k: d.name for k, d in wires.items()},
        "seconds": seconds,
        "contradicted": wrong,
        "rows": [r for f in found for r in f.records],
    }, text


def cell(values: Sequence[float | None]) -> str:
    """Return percent over seeds: the mean, and in brackets the lowest and the highest."""
    known = [100 * v for v in values if v is not None]
    if len(known) < len(values):
        return "–" if not known else f"none for {len(values) - len(known)} of {len(values)} seeds"
    mean, low, high = (f"{v:.1f}" for v in (float(np.mean(known)), min(known), max(known)))
    return f"{mean} %" if low == high else f"{mean} % ({low} to {high})"


def slim(c: Certificate) -> dict[str, object]:
    """Return a certificate without its lists over inputs and what all rows share."""
    long = {"classes", "lower", "radii", "law", "limits", "translations", "deviation", "versions"}
    return {k: v for k, v in c.to_dict().items() if k not in long}


def true_of(seen: Observed) -> dict[str, Any]:
    return {
        "rho": seen.rho,
        "accuracy_quantile_05": [float(np.quantile(v.scores("label"), 0.05)) for v in seen.votes],
        "accuracy_mean": [float(v.scores("label").mean()) for v in seen.votes],
        "kept_50": [float((v.right("digital").mean(0) > 0.5).mean()) for v in seen.votes],
    }


def figures(
    certificates: Sequence[Certificate], box: BoxCertificate | None, seen: Observed
) -> list[float | None]:
    """Return the table's columns of one network on one nanowire, as shares; None where nothing is claimed."""
    yields, q95, q99, percentile, drift = certificates
    assert isinstance(yields, YieldCertificate)
    assert isinstance(percentile, PercentileCertificate)
    assert isinstance(drift, DriftCertificate)
    true = true_of(seen)
    at = percentile.shares.index(0.95)
    shifted = percentile.bounds[at][percentile.rho.index(SHOWN)]
    kept = next(c for c in drift.curves if c.keep == 0.5).inputs[drift.rho.index(SHOWN)]
    moved = seen.rho.index(SHOWN) if SHOWN in seen.rho else None
    return [
        *(yields.covered[yields.keeps.index(k)] / yields.n_inputs for k in (0.5, 0.95)),
        q95.bound,  # type: ignore[attr-defined]
        q99.bound,  # type: ignore[attr-defined]
        true["accuracy_quantile_05"][0],
        shifted,
        None if moved is None else true["accuracy_quantile_05"][moved],
        kept,
        None if moved is None else true["kept_50"][moved],
        None if box is None else box.reach[box.shares.index(0.5)],
    ]


def cost() -> tuple[dict[str, float], str]:
    """Return CPU seconds of 5,000 devices of the digits MLP over its test set."""
    study = STUDIES[0]
    model = trained(study, "erm", 0).eval()
    test = task(study.task).test(0, None)
    device = sorted(list_devices(), key=lambda d: d.sigma.value)[PLACES["median"]]
    law = Law.of(Hardware(device=device, use_rho=False), calibrated="fixed")
    poll(model, test, law, n_devices=50)
    began = time.process_time()
    votes = poll(model, test, law, n_devices=5000)
    drawn = time.process_time()
    yield_certificate(votes)
    percentile_certificate(votes)
    drift_certificate(votes)
    end = time.process_time()
    found = {"draw_and_run": drawn - began, "certificates": end - drawn}
    return found, (
        f"5,000 virtual devices of the digits MLP over its {len(test.x)} test inputs: "
        f"{found['draw_and_run']:.1f} CPU s, {found['certificates']:.1f} CPU s for yield, percentile and "
        f"drift certificates ({torch.get_num_threads()} thread).\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", default=",".join(s.task for s in STUDIES))
    parser.add_argument("--seeds", default="0,1,2", help="of training")
    options = parser.parse_args()
    chosen, seeds = options.tasks.split(","), [int(k) for k in options.seeds.split(",")]
    torch.set_num_threads(1)
    for study in STUDIES:
        if study.task in chosen:
            result, text = study_of(study, seeds)
            if study.task == "digits":
                result["cost_5000"], words = cost()
                text += "\n" + words
            save(f"certify-{study.task}", result, text)


if __name__ == "__main__":
    main()
