"""The training methods in plain words, for people who choose one in a form."""

from __future__ import annotations

METHODS = {
    "weight-noise": "shake the weights at every step as the device will; simple, fast, and hard to beat",
    "steady": "our own: noise that grows while the network is trained long, and a readout set on each device",
    "erm": "plain training, nothing added; what everything else is compared with",
    "bayesmulti": "noise on the activations, layer by layer, found by Bayesian optimisation",
    "bayesft": "dropout with one rate a layer, found by Bayesian optimisation",
    "multinomial": "activations are halved or dropped at random",
    "dropout": "activations are dropped at random",
    "distillation": "weight noise, and a plainly trained network as a teacher",
    "variance-aware": "weight noise whose strength changes from step to step",
    "right-censored": "weight noise without its largest upward moves",
    "hardware-aware": "weight noise, clipped weights, and coarse inputs and outputs as converters have",
    "negative-feedback": "several noisy passes a step, the noisier ones counting less",
    "tile-dropout": "whole tiles of weights are left out at random, as if their array had failed",
    "sam": "also trains at weights moved to where the loss is worse",
    "asam": "as sam, with the move scaled by the weights",
    "awp": "as sam, each layer moved by a share of its own size",
    "as-it-comes": "no training at all: the network as the task brings it",
}
"""Name of a method -> what it does, the ones to try first in front."""


def plain_method(text: str) -> str:
    """Return what a method does in plain words.

    Args:
        text: Its name, or its name with settings ("weight-noise:level=0.5").

    >>> plain_method("erm")
    'plain training, nothing added; what everything else is compared with'
    """
    return METHODS.get(text.partition(":")[0].strip(), "a method of this version")
