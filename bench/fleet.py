"""Fleet evaluation of 100 virtual devices against loops over model copies, in one run.

The same law (log-normal, sigma 0.5), dtype, test inputs and threads on every side. *Tight loop*: copy the
model, perturb its weights in place, one forward pass over all inputs. *Loader loop*: the same with a
`torch.utils.data.DataLoader` of batches of 64, as an evaluation is commonly written. Seven repeats in
turn after one warm-up; figures are the median and range of the ratios of neighbouring runs.
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from _common import markdown, middle, save
from ohmloop.crossbar import Hardware
from ohmloop.nn import analog_parameters, analogize, evaluate_fleet
from ohmloop.tasks import build_model

N_DEVICES = 100
REPEATS = 7


def copies(model: nn.Module, hardware: Hardware):
    generator = torch.Generator()
    for device in range(N_DEVICES):
        generator.manual_seed(device)
        one = copy.deepcopy(model).eval()
        for p in analog_parameters(one).values():
            p.copy_(hardware.perturb(p, generator))
        yield one


def tight_loop(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, hardware: Hardware
) -> list[float]:
    with torch.inference_mode():
        return [float((one(x).argmax(-1) == y).float().mean()) for one in copies(model, hardware)]


def loader_loop(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, hardware: Hardware
) -> list[float]:
    loader = DataLoader(TensorDataset(x, y), batch_size=64)
    with torch.inference_mode():
        return [
            sum(int((one(a).argmax(-1) == b).sum()) for a, b in loader) / len(x)
            for one in copies(model, hardware)
        ]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    hardware = Hardware.model_validate({"device": "lognormal:0.5"})
    generator = torch.Generator().manual_seed(0)
    cases = {
        "MLP 64-100-100-10, 360 inputs": ("mlp", (1, 8, 8), 360),
        "LeNet-5, 1,000 inputs 28 x 28": ("lenet", (1, 28, 28), 1000),
    }
    out: dict[str, object] = {"n_devices": N_DEVICES, "threads": torch.get_num_threads()}
    rows = []
    for label, (name, shape, n) in cases.items():
        model = analogize(build_model(name, shape, 10, 0), hardware)
        x = torch.randn(n, *shape, generator=generator)
        y = torch.randint(0, 10, (n,), generator=generator)
        fleet = evaluate_fleet(model, (x, y), n_devices=N_DEVICES)
        loop = tight_loop(model, x, y, hardware)
        # Different draws of one law: the means agree within five standard errors.
        error = np.hypot(fleet.std, np.std(loop)) / np.sqrt(N_DEVICES)
        assert abs(fleet.mean - np.mean(loop)) < 5 * error + 1e-9
        loader_loop(model, x, y, hardware)
        times: dict[str, list[float]] = {"fleet": [], "tight": [], "loader": []}
        for _ in range(REPEATS):
            times["fleet"].append(
                seconds(lambda: evaluate_fleet(model, (x, y), n_devices=N_DEVICES))  # noqa: B023
            )
            times["tight"].append(seconds(lambda: tight_loop(model, x, y, hardware)))  # noqa: B023
            times["loader"].append(seconds(lambda: loader_loop(model, x, y, hardware)))  # noqa: B023
        ratios = {
            key: [a / b for a, b in zip(times[key], times["fleet"], strict=True)]
            for key in ("tight", "loader")
        }
        out[label] = {"seconds": times, "ratios": ratios}
        rows.append(
            [label, f"{1e3 * np.median(times['fleet']):.0f} ms", *map(middle, ratios.values())]
        )
    table = markdown(["100 devices", "fleet", "tight loop / fleet", "loader loop / fleet"], rows)
    save("fleet", out, f"# Fleet evaluation\n\n{__doc__}\n{table}")


if __name__ == "__main__":
    main()
