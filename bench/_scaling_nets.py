"""Networks, fleets, arrays and wires at any size, for `scaling.py`. Everything here is simulated."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmloop.certify import certify
from ohmloop.crossbar import (
    ADC,
    DAC,
    Array,
    Hardware,
    Programming,
    Wires,
    solve,
    transfer_matrix,
)
from ohmloop.device import DeviceModel, Estimate, Physics, ReadNoise, WriteNoise
from ohmloop.nn import (
    analog_parameters,
    analogize,
    calibrate_converters,
    draw,
    evaluate_fleet,
    program,
)

INPUTS, CLASSES, BATCH = 64, 10, 64
LAW = Hardware.model_validate({"device": "lognormal:0.3"})
ONE_OHM = Wires(row=1.0, column=1.0, source=1.0, sense=1.0)


class Prepared(NamedTuple):
    """What is run, its variables, and what tidies up afterwards."""

    run: Callable[[], object]
    variables: dict[str, int]
    clean: Callable[[], object] = lambda: None


def network(width: int) -> nn.Sequential:
    """Return a perceptron of two hidden layers."""
    return nn.Sequential(
        nn.Linear(INPUTS, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, CLASSES),
    )


def device() -> DeviceModel:
    """Return a simulated device: 1 to 100 uS, log-normal write noise of 0.1, read noise of 2 %."""
    physics = Physics(
        g_min=1e-6, g_max=1e-4, write=WriteNoise(sigma=0.1), read=ReadNoise(relative=0.02)
    )
    return DeviceModel(name="simulated", sigma=Estimate(value=0.1), physics=physics)


def arrays(programming: Programming | None = None) -> Hardware:
    """Return tiles of 256 x 256 with 8-bit converters."""
    array = Array(
        rows=256,
        columns=256,
        dac=DAC(range="calibrated"),
        adc=ADC(),
        programming=programming or Programming(),
    )
    return Hardware(device=device(), array=array)


def data(n: int) -> tuple[Tensor, Tensor]:
    """Return random inputs and labels."""
    return torch.randn(n, INPUTS), torch.randint(0, CLASSES, (n,))


def _sizes(model: nn.Module, point: dict[str, int]) -> dict[str, int]:
    """Return the variables of a network at a point: P weights and A activations of an input beside n and D."""
    weights = sum(p.numel() for p in analog_parameters(model).values())
    rest = {key: value for key, value in point.items() if key != "width"}
    return {"P": weights, "A": 2 * point["width"] + CLASSES, **rest}


def fleet(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the evaluation of D devices of the law on n inputs."""
    model, split = analogize(network(point["width"]), LAW).eval(), data(point["n"])
    return Prepared(
        lambda: evaluate_fleet(model, split, n_devices=point["D"], seed=repeat),
        _sizes(model, point),
    )


def fleet_arrays(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the evaluation of D chips with arrays: programmed, then read for n inputs."""
    model, split = analogize(network(point["width"]), arrays()).eval(), data(point["n"])
    calibrate_converters(model, split[0])
    return Prepared(
        lambda: evaluate_fleet(model, split, n_devices=point["D"], seed=repeat),
        _sizes(model, point),
    )


def certificate(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare certificates from D drawn devices about n inputs."""
    model, split = analogize(network(point["width"]), LAW).eval(), data(point["n"])
    return Prepared(
        lambda: certify(model, split, n_devices=point["D"], seed=repeat), _sizes(model, point)
    )


def programming_once(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the writing of one chip, each cell once."""
    return _programming(point, repeat, Programming())


def programming_verified(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the writing of one chip, cells erased and written until a reading is within 2 %."""
    return _programming(point, repeat, Programming(method="cycle-verify"))


def _programming(point: dict[str, int], repeat: int, how: Programming) -> Prepared:
    model = analogize(network(point["width"]), arrays(how)).eval()
    return Prepared(lambda: program(model, repeat), _sizes(model, point))


def _array(n: int) -> Tensor:
    """Return conductances, log-uniform from 1 to 100 microsiemens, ``n x n``."""
    return 1e-4 * 10 ** (-2 * torch.rand(n, n, dtype=torch.float64))


def wires_one(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the exact solution of an array for one input vector."""
    return _solving(point["N"], 1)


def wires_many(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the exact solution of an array for 32 input vectors."""
    return _solving(point["N"], 32)


def _solving(n: int, k: int) -> Prepared:
    g, v = _array(n), torch.rand(k, n, dtype=torch.float64)
    return Prepared(lambda: solve(g, v, ONE_OHM), {"N": n})


def transfer(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the transfer matrix of an array."""
    g = _array(point["N"])
    return Prepared(lambda: transfer_matrix(g, ONE_OHM), {"N": point["N"]})


def step_plain(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare a training step."""
    return _step(point, noisy=False)


def step_noise(point: dict[str, int], repeat: int) -> Prepared:
    """Prepare the same step with weights drawn anew from the law."""
    return _step(point, noisy=True)


def _step(point: dict[str, int], *, noisy: bool) -> Prepared:
    model = analogize(network(point["width"]), LAW)
    x, y = data(BATCH)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        if noisy:
            out = torch.func.functional_call(model, draw(model, generator), (x,))
        else:
            out = model(x)
        optimiser.zero_grad()
        nn.functional.cross_entropy(out, y).backward()
        optimiser.step()

    return Prepared(run, _sizes(model, point))
