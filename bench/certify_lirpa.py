"""Bounds over a box of weights: ours against auto_LiRPA's, on chains of linear layers.

Every weight and bias may be off by r of itself at once. Networks are trained plainly on the digits (15
epochs); for 20 test inputs and 15 radii the smallest lead of the class over the box is bounded from below.
auto_LiRPA 0.3 runs in its own environment (`bench/peers/setup lirpa`, `bench/peers/lirpa.py`): interval
bounds (IBP), linear bounds with interval bounds between layers (CROWN-IBP), and linear bounds throughout
(CROWN). Ours are the interval and linear bounds of `certify_box`, in float64 and with rounding inside the
bounds; auto_LiRPA computes in float32, without.

    python bench/certify_lirpa.py
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from _common import markdown, save
from ohmloop.certify import certify_box
from ohmloop.crossbar import Hardware
from ohmloop.nn import analogize
from ohmloop.tasks import task

HERE = Path(__file__).parent
PEER = HERE / "peers" / ".venv" / "lirpa" / "bin" / "python"
CACHE = HERE / ".cache"
RADII = tuple(float(r) for r in np.geomspace(1e-3, 0.1, 15))
SHAPES = {
    "64-100-10": (64, 100, 10),
    "64-100-100-10": (64, 100, 100, 10),
    "64-100-100-100-10": (64, 100, 100, 100, 10),
}
N_INPUTS, EPOCHS = 20, 15
ROUNDING = 2e-5
"""What float32 sums of leads of about 10 may be off by."""


def trained(sizes: tuple[int, ...]) -> tuple[nn.Sequential, torch.Tensor]:
    digits = task("digits")
    train, _ = digits.development(0, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(EPOCHS):
            for part in torch.split(torch.randperm(len(train.x)), 64):
                optimiser.zero_grad()
                out = net(train.x[part].flatten(1))
                nn.functional.cross_entropy(out, train.y[part]).backward()
                optimiser.step()
    return net.eval(), digits.test(0).x[:N_INPUTS].flatten(1)


def ours(net: nn.Sequential, x: torch.Tensor, method: str) -> dict[str, object]:
    began = time.process_time()
    leads = [
        certify_box(net, x.double(), r, method=method).margins.tolist()  # type: ignore[arg-type]
        for r in RADII
    ]
    return {"leads": leads, "seconds": time.process_time() - began}


def main() -> None:
    if not PEER.exists():
        sys.exit("auto_LiRPA is not installed: bench/peers/setup lirpa")
    torch.set_num_threads(1)
    CACHE.mkdir(exist_ok=True)
    problems, nets = {}, {}
    for name, sizes in SHAPES.items():
        net, x = trained(sizes)
        layers = [
            (m.weight.detach().clone(), m.bias.detach().clone())
            for m in net
            if isinstance(m, nn.Linear)
        ]
        problems[name] = {"layers": layers, "x": x, "classes": net(x).argmax(1), "radii": RADII}
        nets[name] = net, x
    torch.save(problems, CACHE / "lirpa.pt")
    out = CACHE / "lirpa.json"
    command = [str(PEER), str(HERE / "peers" / "lirpa.py"), str(CACHE / "lirpa.pt"), str(out)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = json.loads(out.read_text(encoding="utf-8"))
    rows, claims = [], []
    law = Hardware.model_validate({"device": "lognormal:0.5"})
    for name, (net, x) in nets.items():
        model = analogize(net.double(), law)
        for method in ("interval", "linear"):
            found[name][f"ohmloop {method}"] = ours(model, x, method)
        for method, result in found[name].items():
            leads = np.array(result["leads"])
            held = [(leads[:, k] > 0).cumprod().sum() for k in range(leads.shape[1])]
            result["radii"] = [RADII[n - 1] if n else 0.0 for n in held]
            label = method if method.startswith("ohmloop") else f"auto_LiRPA {method}"
            rows.append(
                [
                    name,
                    label,
                    f"{100 * np.median(result['radii']):.2f} %",
                    *(
                        f"{100 * np.mean(np.array(result['radii']) >= r):.0f} %"
                        for r in (0.005, 0.01, 0.02)
                    ),
                    f"{1e3 * result['seconds'] / (len(RADII) * len(x)):.2f}",
                ]
            )
        for own, peer in (("interval", "IBP"), ("linear", "CROWN-IBP"), ("linear", "CROWN")):
            a = np.array(found[name][f"ohmloop {own}"]["leads"])
            b = np.array(found[name][peer]["leads"])
            looser = int((a < b - ROUNDING * (1 + abs(b))).sum())
            ratio = np.array(found[name][f"ohmloop {own}"]["radii"]) / np.array(
                found[name][peer]["radii"]
            ).clip(RADII[0])
            claims.append(
                f"* {name}: our {own} lead is looser than {peer} in {looser} of {a.size} cases; "
                f"certified radius {np.median(ratio):.2f} times {peer}'s (median)."
            )
    head = [
        "network",
        "bounds",
        "median radius",
        "certified at 0.5 %",
        "1 %",
        "2 %",
        "CPU ms an input",
    ]
    text = f"# Bounds over a box of weights\n\n{__doc__}\n{markdown(head, rows)}\n" + "\n".join(
        claims
    )
    save("certify-lirpa", {"radii": RADII, "n_inputs": N_INPUTS, "found": found}, text + "\n")


if __name__ == "__main__":
    main()
