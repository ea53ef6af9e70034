"""The hot paths on a CUDA device: what each reaches of the chip's own ceilings, and what bounds it.

    python bench/gpu.py [--repeats 3] [--devices 300] [--images 10000]

Ceilings are measured in the same run: bandwidth by copying 4 GB, FLOP/s by products of 8,192 x 8,192 in
float32 (as PyTorch computes them by default), bfloat16 and float64. Seconds are between synchronisations,
median and range over the repeats, after a warm-up. FLOPs and bytes of each path are counted: multiply-adds of a
network as a hook counts them, the traffic of drawing as `bench/_scaling_plan.py` counts it; the share is the
larger of the two over its ceiling. Where neither is near, the path is bound by the launching of kernels or by
the host. The fleet is 300 devices of a ResNet-18 on 10,000 images of 32 x 32; data and devices are simulated.
Without CUDA the script says so and ends.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from _common import markdown, middle, save
from _scaling_nets import LAW, ONE_OHM, network
from _scaling_plan import DRAW_BYTES, NORMAL_OPS
from ohmloop import bo
from ohmloop.certify import certify
from ohmloop.crossbar import solve, transfer_matrix
from ohmloop.nn import analog_parameters, analogize, draw, evaluate_fleet
from ohmloop.nn._rows import Rows, grouped
from ohmloop.tasks import build_model

NEAR = 0.3
"""Share of a ceiling from which on it is called the bound."""
LIMIT = 1.15
"""Largest training step under weight noise over plain torch that is aimed at."""


def timed(run: Callable[[], object], repeats: int) -> list[float]:
    """Return seconds of each repeat, after one that is not counted."""
    out = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        out.append(time.perf_counter() - began)
    return out[1:]


def ceilings(repeats: int) -> dict[str, float]:
    """Measure bandwidth, bytes/s, and FLOP/s by dtype."""
    big = torch.empty(2**30, dtype=torch.float32, device="cuda")
    other = torch.empty_like(big)
    out = {"bandwidth": 2 * big.nbytes / min(timed(lambda: other.copy_(big), repeats))}
    n = 8192
    for name, dtype in (
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float64", torch.float64),
    ):
        a = torch.randn(n, n, device="cuda").to(dtype)
        out[name] = 2 * n**3 / min(timed(lambda: a @ a, repeats))  # noqa: B023
    return out


def multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds of one input in convolutions and linear layers."""
    total = 0

    def note(module: nn.Module, inputs: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += out[0].numel() * module.weight[0].numel()

    handles = [module.register_forward_hook(note) for module in model.modules()]
    with torch.inference_mode():
        model(x[:1])
    for handle in handles:
        handle.remove()
    return total


def row(
    name: str, seconds: list[float], flops: float, size: float, kind: str, tops: dict[str, float]
) -> dict[str, Any]:
    """Return what one path reaches, and what bounds it."""
    middle_of = float(np.median(seconds))
    reached = {
        kind: flops / middle_of / tops[kind],
        "bandwidth": size / middle_of / tops["bandwidth"],
    }
    bound = max(reached, key=lambda key: reached[key])
    return {
        "name": name,
        "seconds": seconds,
        "flops_per_s": flops / middle_of,
        "bytes_per_s": size / middle_of,
        "reached": reached,
        "bound": bound if reached[bound] >= NEAR else "launches or host",
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


def fleet(options: argparse.Namespace, tops: dict[str, float]) -> dict[str, Any]:
    """Measure a fleet of ResNet-18."""
    model = analogize(build_model("resnet18", (3, 32, 32), 10, 0), LAW).eval().cuda()
    x = torch.randn(options.images, 3, 32, 32)
    y = torch.randint(0, 10, (options.images,))
    macs = multiply_adds(model, x.cuda())
    weights = sum(p.numel() for p in analog_parameters(model).values())
    torch.cuda.reset_peak_memory_stats()

    def run() -> None:
        evaluate_fleet(model, (x, y), n_devices=options.devices)

    seconds = timed(run, options.repeats)
    drawn = options.devices * weights
    flops = 2.0 * macs * options.devices * options.images + drawn * NORMAL_OPS
    name = f"fleet: {options.devices} devices of a ResNet-18, {options.images:,} images"
    return row(name, seconds, flops, drawn * (DRAW_BYTES["float32"] + 4), "float32", tops)


def convolutions(options: argparse.Namespace, tops: dict[str, float]) -> list[dict[str, Any]]:
    """Measure a convolution of 20 devices as one kernel with groups, and device by device."""
    n, batch, width = 20, 256, 64
    rows = Rows(n, batch, device_major=False)
    module = nn.Conv2d(width, width, 3, padding=1, bias=False).cuda()
    weight = torch.randn(n, *module.weight.shape, device="cuda")
    x = torch.randn(batch * n, width, 32, 32, device="cuda")

    def one_by_one() -> Tensor:
        parts = rows.split(x)
        return rows.merge(
            torch.stack([module._conv_forward(parts[k], weight[k], None) for k in range(n)])
        )

    flops = 2.0 * x.numel() * width * 9
    out = []
    with torch.inference_mode():
        for name, run in (
            ("one kernel, groups", lambda: grouped(module, weight, None, x, rows)),
            ("device by device", one_by_one),
        ):
            torch.cuda.reset_peak_memory_stats()
            name = f"convolution of {n} devices, {batch} x {width} x 32 x 32, {name}"
            out.append(row(name, timed(run, options.repeats), flops, 2 * x.nbytes, "float32", tops))
    return out


def steps(options: argparse.Namespace, tops: dict[str, float]) -> list[dict[str, Any]]:
    """Measure a training step of ResNet-18, plain and under weight noise, in turn."""
    x = torch.randn(256, 3, 32, 32, device="cuda")
    y = torch.randint(0, 10, (256,), device="cuda")

    def stepper(noisy: bool) -> tuple[Callable[[], None], nn.Module]:
        model = analogize(build_model("resnet18", (3, 32, 32), 10, 0), LAW).train().cuda()
        optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        generator = torch.Generator(device="cuda").manual_seed(0)

        def run() -> None:
            for _ in range(10):
                if noisy:
                    out = torch.func.functional_call(model, draw(model, generator), (x,))
                else:
                    out = model(x)
                optimiser.zero_grad()
                nn.functional.cross_entropy(out, y).backward()
                optimiser.step()

        return run, model

    (plain, model), (noisy, _) = stepper(False), stepper(True)
    macs = multiply_adds(model.eval(), x)
    model.train()
    torch.cuda.reset_peak_memory_stats()
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.repeats):
        for kind, run in ((False, plain), (True, noisy)):
            times[kind] += [t / 10 for t in timed(run, 1)]
    ratios = [b / a for a, b in zip(times[False], times[True], strict=True)]
    weights = sum(p.numel() for p in model.parameters())
    out = []
    for kind, name in ((False, "plain torch"), (True, "weight noise")):
        size = weights * (92.0 if kind else 40.0)
        flops = 6.0 * macs * 256
        out.append(
            row(f"training step, 256 images, {name}", times[kind], flops, size, "float32", tops)
        )
    return [*out, {"ratios": ratios, "limit": LIMIT}]


def wires(options: argparse.Namespace, tops: dict[str, float]) -> list[dict[str, Any]]:
    """Measure the exact solution of 512 x 512 cells and a transfer matrix."""
    n = 512
    g = (1e-4 * 10 ** (-2 * torch.rand(n, n, dtype=torch.float64))).cuda()
    v = torch.rand(32, n, dtype=torch.float64, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    # One sweep over the nodes at least: twelve passes over 32 right-hand sides, eight bytes each.
    size = 12 * 8.0 * n * n * 32
    out = [
        row(
            f"exact wires, {n} x {n}, 32 inputs, traffic of one iteration",
            timed(lambda: solve(g, v, ONE_OHM), options.repeats),
            0.0,
            size,
            "float64",
            tops,
        )
    ]
    small = g[:256, :256].contiguous()
    # A factorisation, its inverse and two products for each row.
    flops = 256 * 256**3 * (1 / 3 + 2 / 3 + 2 + 1)
    out.append(
        row(
            "transfer matrix, 256 x 256",
            timed(lambda: transfer_matrix(small, ONE_OHM), options.repeats),
            flops,
            256 * 4 * 8.0 * 256**2,
            "float64",
            tops,
        )
    )
    return out


def certificates(options: argparse.Namespace, tops: dict[str, float]) -> dict[str, Any]:
    """Measure certificates from 5,000 drawn devices."""
    model = analogize(network(256), LAW).eval().cuda()
    x, y = torch.randn(360, 64), torch.randint(0, 10, (360,))
    weights = sum(p.numel() for p in analog_parameters(model).values())
    torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: certify(model, (x, y), n_devices=5000), options.repeats)
    drawn = 5000.0 * weights
    return row(
        "certificates: 5,000 devices, 360 inputs",
        seconds,
        drawn * (2 * 360 + NORMAL_OPS),
        drawn * (DRAW_BYTES["float32"] + 4),
        "float32",
        tops,
    )


def suggestions(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a suggestion, whose fits are in float64, on the CPU and on the GPU."""
    space = bo.Space(tuple(bo.Real(name=f"x{k}", low=0, high=1) for k in range(10)))
    problem = bo.Problem(space=space, objectives=(bo.Objective(name="y"),))
    table = space.sample(300, np.random.default_rng(0))
    seen = [
        bo.Observation(point=p, values={"y": (float(np.sin(3 * r).sum()),)})
        for p, r in zip(space.to_points(table), table, strict=True)
    ]
    seeds = iter(range(1000))
    out = []
    for compute, bound in (("cpu", "CPU"), ("cuda", "launches")):

        def once(compute: str = compute) -> None:
            bo.suggest(problem, seen, 1, seed=next(seeds), compute=compute)

        name = f"a suggestion from 300 trials, {compute}"
        out.append({"name": name, "seconds": timed(once, options.repeats), "bound": bound})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--devices", type=int, default=300)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return
    tops = ceilings(options.repeats)
    paths = [
        fleet(options, tops),
        *convolutions(options, tops),
        *steps(options, tops),
        *wires(options, tops),
    ]
    paths += [certificates(options, tops), *suggestions(options)]
    name = torch.cuda.get_device_name()
    text = f"# On a GPU\n\n{__doc__}\n{name}: " + ", ".join(
        f"{'copies' if key == 'bandwidth' else key} {value:.3g} {'B/s' if key == 'bandwidth' else 'FLOP/s'}"
        for key, value in tops.items()
    )
    text += ", measured.\n\n" + table(paths)
    save("gpu", {"gpu": name, "ceilings": tops, "paths": paths}, text)


def table(paths: list[dict[str, Any]]) -> str:
    """Return what was reached."""
    rows, after = [], ""
    for path in paths:
        if "ratios" in path:
            worst = "within" if float(np.median(path["ratios"])) <= path["limit"] else "above"
            after = (
                f"\nTraining under weight noise over plain torch: {middle(path['ratios'])} x, {worst} the "
                f"limit of {path['limit']}.\n"
            )
            continue
        cells = ["-"] * 3
        if "reached" in path:
            cells = [
                *(f"{100 * share:.0f} % ({kind})" for kind, share in path["reached"].items()),
                f"{path['peak_bytes'] / 2**30:.1f} GiB",
            ]
        milliseconds = [1e3 * t for t in path["seconds"]]
        rows.append([path["name"], f"{middle(milliseconds)} ms", *cells, path["bound"]])
    head = ["path", "time", "of FLOP/s", "of bandwidth", "peak memory", "bound by"]
    return markdown(head, rows) + after


if __name__ == "__main__":
    main()
