"""What simulating the hardware costs over plain PyTorch, and what a fleet of large networks takes in memory.

Each table is measured in one run on one thread, its cases in turn in every repeat; figures are the median
of the ratios to plain PyTorch of the same repeat, and their range. Times are CPU seconds of the thread, which
a busy machine disturbs less than a clock on the wall.

*Linear*: 512 x 512, batch 128, inference. *Training step*: ResNet-8 on 64 images of 32 x 32, forward, backward,
and the optimiser; a fresh chip is programmed at each step. *Frozen*: log-normal write noise, reads exact. *Read
noise*: on top of it each cell errs by 2 % at each read. *Converters*: 8-bit DAC and ADC as well. Rows are
what a tile sums before conversion; 256 cuts a kernel of 576 into three reads. *Fleet*: 100 chips of a
ResNet-18, the peak of resident memory of a process of its own, and what that process takes before the fleet.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from _common import markdown, middle, save
from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.device import DeviceModel, Estimate, Physics, ReadNoise, WriteNoise
from ohmloop.nn import analogize, calibrate_converters, draw, evaluate_fleet, program
from ohmloop.tasks import build_model

REPEATS = 21
STEPS = 9
CHIPS = 100


def device(read: float) -> DeviceModel:
    """Return a simulated device: 1 to 100 uS, log-normal write noise of 0.1, relative read noise."""
    physics = Physics(
        g_min=1e-6, g_max=1e-4, write=WriteNoise(sigma=0.1), read=ReadNoise(relative=read)
    )
    return DeviceModel(
        name="simulated", sigma=Estimate(value=0.1), physics=physics, description="simulated"
    )


def hardwares() -> dict[str, Hardware]:
    """Return the cases, by name."""

    def converters(rows: int) -> Array:
        return Array(rows=rows, columns=1024, dac=DAC(range="calibrated"), adc=ADC())

    wide = Array(rows=1024, columns=1024)
    return {
        "weight noise, frozen": Hardware(device=device(0.0), array=wide),
        "read noise": Hardware(device=device(0.02), array=wide),
        "read noise and converters": Hardware(device=device(0.02), array=converters(1024)),
        "the same, 256 rows": Hardware(device=device(0.02), array=converters(256)),
    }


def ratios(
    cases: dict[str, Callable[[], object]], repeats: int
) -> tuple[float, dict[str, list[float]]]:
    """Return the median seconds of the first case and the others' ratios to it, repeat by repeat."""
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            start = time.thread_time()
            run()
            times[name].append(time.thread_time() - start)
    first, *rest = times
    return float(np.median(times[first])), {
        name: [a / b for a, b in zip(times[name], times[first], strict=True)] for name in rest
    }


def linear() -> tuple[float, dict[str, list[float]]]:
    """Measure the layer."""
    x = torch.randn(128, 512, generator=torch.Generator().manual_seed(0))
    layers = {"plain PyTorch": nn.Linear(512, 512)}
    for name, hardware in hardwares().items():
        layers[name] = analogize(nn.Linear(512, 512), hardware)
        calibrate_converters(layers[name], x)
        program(layers[name], 0)

    def run(layer: nn.Module) -> Callable[[], object]:
        return lambda: [layer(x) for _ in range(5)]

    with torch.inference_mode():
        return ratios({name: run(layer) for name, layer in layers.items()}, REPEATS)


def training() -> tuple[float, dict[str, list[float]]]:
    """Measure the training step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 32, 32, generator=generator)
    y = torch.randint(0, 10, (64,), generator=generator)

    def step(hardware: Hardware | None) -> Callable[[], object]:
        model = build_model("resnet8", (3, 32, 32), 10, 0).train()
        optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
        fresh = torch.Generator().manual_seed(0)
        if hardware is not None:
            analogize(model, hardware)
            if hardware.array is not None:
                calibrate_converters(model, x)

        def run() -> None:
            if hardware is not None and hardware.array is None:
                out = torch.func.functional_call(model, draw(model, fresh), (x,))
            else:
                if hardware is not None:
                    program(model, fresh, differentiable=True)
                out = model(x)
            loss = nn.functional.cross_entropy(out, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return run

    law = Hardware.model_validate({"device": "lognormal:0.1"})
    cases = {"plain PyTorch": None, "the law on weights": law, **hardwares()}
    return ratios({name: step(hardware) for name, hardware in cases.items()}, STEPS)


def fleet() -> None:
    """Evaluate the fleet and print the peak of resident memory before and after, in bytes."""
    generator = torch.Generator().manual_seed(0)
    model = build_model("resnet18", (3, 32, 32), 10, 0).eval()
    x = torch.randn(16, 3, 32, 32, generator=generator)
    y = torch.randint(0, 10, (16,), generator=generator)
    analogize(model, hardwares()["read noise"])
    model(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    evaluate_fleet(model, (x, y), n_devices=CHIPS)
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()),
                "before_bytes": before * 1024,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "cpu_seconds": time.thread_time() - start,
            }
        )
    )


def main() -> None:
    torch.set_num_threads(1)
    layer_seconds, layer = linear()
    step_seconds, step = training()
    done = subprocess.run(
        [sys.executable, __file__, "fleet"], check=True, capture_output=True, text=True
    )
    memory = json.loads(done.stdout)
    one = [["plain PyTorch", f"{1e3 * layer_seconds / 5:.2f} ms"]]
    one += [[name, f"{middle(values)} x"] for name, values in layer.items()]
    two = [["plain PyTorch", f"{1e3 * step_seconds:.0f} ms"]]
    two += [[name, f"{middle(values)} x"] for name, values in step.items()]
    three = [
        [
            f"{CHIPS} chips, {memory['parameters']:,} parameters each",
            f"{memory['before_bytes'] / 2**30:.2f} GiB",
            f"{memory['peak_bytes'] / 2**30:.2f} GiB",
            f"{memory['cpu_seconds']:.0f} s",
        ]
    ]
    table = "\n".join(
        [
            markdown(["Linear 512 x 512, batch 128", "time"], one),
            markdown(["Training step of ResNet-8", "time"], two),
            markdown(["Fleet of ResNet-18", "before", "peak memory", "one thread"], three),
        ]
    )
    value = {
        "linear": {"seconds": layer_seconds / 5, "ratios": layer},
        "training": {"seconds": step_seconds, "ratios": step},
        "fleet": memory,
        "threads": 1,
    }
    save("overhead", value, f"# Overhead\n\n{__doc__}\n{table}")


if __name__ == "__main__":
    if sys.argv[1:] == ["fleet"]:
        torch.set_num_threads(1)
        fleet()
    else:
        main()
