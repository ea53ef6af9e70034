"""What one peer takes for a fleet of devices and for a training step; meant for that peer's own environment.

    python layers.py aihwkit|crosssim CASE.npz OUT.json

CASE.npz comes from `bench/layers.py`: the weights of a perceptron (w0, b0, w1, ...), inputs x, labels y, the
number of devices, and repeats. OUT.json gets CPU seconds of one thread for each repeat: a fleet (weights
programmed anew for each device, then one pass over all inputs), and training steps with weight noise and
without. aihwkit: its inference tiles written in torch (the compiled ones of its wheel refuse tensors of newer
torch), without converters, with its noise of phase-change memory, and its weight modifier in training.
CrossSim: its converted torch layers with proportional programming error; it has no such training.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")


def network(case):
    import torch
    from torch import nn

    layers = []
    for k in range(sum(name.startswith("w") for name in case.files)):
        linear = nn.Linear(*case[f"w{k}"].shape[::-1])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(case[f"w{k}"]))
            linear.bias.copy_(torch.from_numpy(case[f"b{k}"]))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def aihwkit(case, x):
    """Return a function that scores one fresh device, and a model for training with noise."""
    import torch
    from aihwkit.inference import PCMLikeNoiseModel
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import TorchInferenceRPUConfig, WeightModifierType

    config = TorchInferenceRPUConfig()
    config.forward.is_perfect = True
    config.noise_model = PCMLikeNoiseModel(g_max=25.0)
    config.drift_compensation = None
    chips = convert_to_analog(network(case), config).eval()

    def device():
        chips.program_analog_weights()
        with torch.inference_mode():
            return chips(x)

    config.modifier.type = WeightModifierType.ADD_NORMAL
    config.modifier.std_dev = 0.1
    return device, convert_to_analog(network(case), config).train()


def crosssim(case, x):
    import torch
    from simulator import CrossSimParameters
    from simulator.algorithms.dnn.torch.convert import from_torch, reinitialize

    parameters = CrossSimParameters()
    parameters.xbar.device.programming_error.enable = True
    parameters.xbar.device.programming_error.model = "NormalProportionalDevice"
    parameters.xbar.device.programming_error.magnitude = 0.1
    chips = from_torch(network(case), parameters).eval()

    def device():
        reinitialize(chips)
        with torch.inference_mode():
            return chips(x)

    return device, None


def step_of(model, x, y, analog):
    import torch
    from torch import nn

    if analog:
        from aihwkit.optim import AnalogSGD

        optimiser = AnalogSGD(model.parameters(), lr=1e-3)
        optimiser.regroup_param_groups(model)
    else:
        optimiser = torch.optim.SGD(model.parameters(), 1e-3)

    def step():
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()

    return step


def seconds(run, times):
    run()
    began = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - began) / times


def main():
    import torch

    torch.set_num_threads(1)
    tool, source, target = sys.argv[1:4]
    case = np.load(source)
    x, y = torch.from_numpy(case["x"]), torch.from_numpy(case["y"])
    out = {"fleet": [], "step": [], "plain": []}
    devices, steps = int(case["devices"]), int(case["steps"])
    device, model = {"aihwkit": aihwkit, "crosssim": crosssim}[tool](case, x)
    few = slice(0, int(case["batch"]))
    for _ in range(int(case["repeats"])):
        out["fleet"].append(devices * seconds(device, devices))
        if model is not None:
            out["step"].append(seconds(step_of(model, x[few], y[few], True), steps))
            out["plain"].append(seconds(step_of(network(case), x[few], y[few], False), steps))
    with open(target, "w", encoding="utf-8") as file:
        json.dump(out, file)


if __name__ == "__main__":
    main()
