"""A fleet and a training step with noise: ohmloop beside aihwkit and CrossSim, on one perceptron.

    python bench/layers.py [--repeats 5] [--limit 900]

64-100-100-10 weights, 360 inputs, 100 devices: CPU seconds of one thread for programming and running them all,
and for a training step of 64 inputs over one of plain torch, each tool in its own process and environment
(`bench/peers/setup aihwkit crosssim`; CrossSim from a folder of yours). Their devices differ (ohmloop: the
log-normal law; aihwkit: phase-change memory; CrossSim: a proportional normal error), their work is alike: draw
every weight of every device, multiply.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from _common import markdown, middle, save
from ohmloop.crossbar import Hardware
from ohmloop.nn import analogize, draw, evaluate_fleet

PEERS = Path(__file__).parent / "peers"
CACHE = Path(__file__).parent / ".cache"
TOOLS = ("aihwkit", "crosssim")
SIZES, INPUTS, DEVICES, BATCH, STEPS = (64, 100, 100, 10), 360, 100, 64, 50


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(SIZES):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def seconds(run: Any, times: int = 1) -> float:
    run()
    began = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - began) / times


def stepper(model: nn.Module, x: torch.Tensor, y: torch.Tensor, noisy: bool) -> Any:
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        if noisy:
            out = torch.func.functional_call(model, draw(model, generator), (x,))
        else:
            out = model(x)
        optimiser.zero_grad()
        nn.functional.cross_entropy(out, y).backward()
        optimiser.step()

    return step


def ours(x: torch.Tensor, y: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    law = Hardware.model_validate({"device": "lognormal:0.1"})
    model = analogize(network(), law).eval()
    out: dict[str, list[float]] = {"fleet": [], "step": [], "plain": []}
    for seed in range(repeats):
        out["fleet"].append(
            seconds(lambda: evaluate_fleet(model, (x, y), n_devices=DEVICES, seed=seed))  # noqa: B023
        )
        few = x[:BATCH], y[:BATCH]
        out["step"].append(seconds(stepper(analogize(network(), law), *few, True), STEPS))
        out["plain"].append(seconds(stepper(network(), *few, False), STEPS))
    return out


def peer(tool: str, case: Path, limit: float) -> tuple[dict[str, list[float]] | None, str]:
    """Return what a peer took; else None and the reason."""
    python = PEERS / ".venv" / tool / "bin" / "python"
    if not python.exists():
        return None, f"no environment: bench/peers/setup {tool}"
    target = CACHE / f"layers.{tool}.json"
    target.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [python, PEERS / "layers.py", tool, case, target],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"stopped after {limit:g} s"
    if not target.exists():
        return None, (done.stderr.strip().splitlines() or ["it ended without a result"])[-1][:200]
    return json.loads(target.read_text(encoding="utf-8")), ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=900, help="wall seconds a peer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(INPUTS, SIZES[0], generator=generator)
    y = torch.randint(0, SIZES[-1], (INPUTS,), generator=generator)
    weights = {}
    for k, layer in enumerate(m for m in network() if isinstance(m, nn.Linear)):
        weights |= {f"w{k}": layer.weight.detach().numpy(), f"b{k}": layer.bias.detach().numpy()}
    counts = {"devices": DEVICES, "steps": STEPS, "batch": BATCH, "repeats": options.repeats}
    case = CACHE / "layers.npz"
    np.savez(case, x=x.numpy(), y=y.numpy(), **counts, **weights)
    found = {"ohmloop": ours(x, y, options.repeats)}
    left_out = {}
    for tool in TOOLS:
        times, reason = peer(tool, case, options.limit)
        if times is None:
            left_out[tool] = reason
            print(f"{tool} left out: {reason}", file=sys.stderr)
        else:
            found[tool] = times
    rows = []
    for tool, times in found.items():
        ratios = [a / b for a, b in zip(times["step"], times["plain"], strict=True)]
        fleet = [1e3 * t for t in times["fleet"]]
        rows.append([tool, f"{middle(fleet)} ms", f"{middle(ratios)} x" if ratios else "-"])
    table = markdown(["tool", f"{DEVICES} devices", "training step over plain torch"], rows)
    for tool, reason in left_out.items():
        table += f"\nLeft out: {tool} ({reason}).\n"
    save("layers", {"seconds": found, "left_out": left_out}, f"# Layers\n\n{__doc__}\n{table}")


if __name__ == "__main__":
    main()
