"""Lower bounds of class leads over a relative box of weights by auto_LiRPA; meant for its own environment.

    python lirpa.py PROBLEM.pt OUT.json

PROBLEM.pt comes from `bench/certify_lirpa.py`: weights and biases of chains of Linear and ReLU, inputs,
classes, and radii. auto_LiRPA 0.3, the last release on the registry, was made for torch 1.8 to 1.12. What it
asks of newer ones and of numpy under other names is given to it here, and one thing is added: bounds of a
weight relative to the weight (its own L-infinity perturbation lacks a batch axis there).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import types
import warnings

warnings.filterwarnings("ignore")
import numpy as np  # noqa: E402

arraysetops = types.ModuleType("numpy.lib.arraysetops")
arraysetops.isin = np.isin
sys.modules["numpy.lib.arraysetops"] = arraysetops
import torch  # noqa: E402
import torch.onnx.symbolic_helper  # noqa: E402
import torch.onnx.utils  # noqa: E402
from torch import nn  # noqa: E402

EXPORTER = "torch.onnx._internal.torchscript_exporter"
exporter = importlib.import_module(f"{EXPORTER}.utils")
exporter_globals = importlib.import_module(f"{EXPORTER}._globals")
torch.onnx.utils._optimize_graph = exporter._optimize_graph
torch.onnx.symbolic_helper._set_opset_version = lambda version: setattr(
    exporter_globals.GLOBALS, "export_onnx_opset_version", version
)
torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)

from auto_LiRPA import BoundedModule, BoundedParameter  # noqa: E402
from auto_LiRPA.perturbations import PerturbationLpNorm  # noqa: E402

METHODS = ("IBP", "CROWN-IBP", "CROWN")


class Relative(PerturbationLpNorm):
    """Every w' with |w' - w| <= r |w|."""

    def __init__(self, weight, radius):
        slack = radius * weight.abs()
        super().__init__(norm=float("inf"), eps=radius, x_L=weight - slack, x_U=weight + slack)
        self.radius = radius

    def get_input_bounds(self, x, A):
        """Return bounds of a weight with a batch axis before it."""
        return x - self.radius * x.abs(), x + self.radius * x.abs()


def network(layers, radius):
    modules = []
    for weight, bias in layers:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight = BoundedParameter(weight, Relative(weight, radius))
        layer.bias = BoundedParameter(bias, Relative(bias, radius))
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def leads(problem, radius, method):
    """Return the smallest lead of each input's class, and CPU seconds."""
    x, classes = problem["x"], problem["classes"]
    n, k = len(x), len(problem["layers"][-1][1])
    rivals = torch.stack([torch.tensor([j for j in range(k) if j != c]) for c in classes])
    form = nn.functional.one_hot(classes, k)[:, None] - nn.functional.one_hot(rivals, k)
    options = {"sparse_intermediate_bounds": False, "sparse_conv_intermediate_bounds": False}
    bounded = BoundedModule(network(problem["layers"], radius), x, bound_opts=options)
    began = time.process_time()
    with torch.no_grad():
        low, _ = bounded.compute_bounds(x=(x,), C=form.float(), method=method, bound_upper=False)
    seconds = time.process_time() - began
    assert low.shape == (n, k - 1)
    return low.min(1).values.tolist(), seconds


def main():
    torch.set_num_threads(1)
    problems = torch.load(sys.argv[1])
    out = {}
    for name, problem in problems.items():
        out[name] = {}
        for method in METHODS:
            found = [leads(problem, radius, method) for radius in problem["radii"]]
            out[name][method] = {
                "leads": [f[0] for f in found],
                "seconds": sum(f[1] for f in found),
            }
            print(name, method, f"{out[name][method]['seconds']:.1f} s", flush=True)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(out, file)


if __name__ == "__main__":
    main()
