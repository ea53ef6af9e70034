"""A gradient attack on the smoothed network at the certified radius, and what certificates cost."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from ohmloop.certify import Law, drift_certificate, poll
from ohmloop.crossbar import Hardware
from ohmloop.nn import analog_parameters, analogize, draw, fleet_forward
from ohmloop.tasks import task

SIGMA = 0.4
HARD = Hardware(device=f"lognormal:{SIGMA}")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
    )


def trained(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        with torch.no_grad():
            fan_in = p[0].numel() if p.ndim > 1 else 100
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(fan_in))
    analogize(model, HARD)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        batch = torch.randint(0, len(x), (64,), generator=generator)
        weights = draw(model, generator)
        loss = F.cross_entropy(functional_call(model, weights, (x[batch],)), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def attacked(
    model: nn.Module, x: Tensor, classes: Tensor, radii: Tensor, steps: int = 20, draws: int = 8
) -> Tensor:
    """Return for each input a shift of ln|w| of the given length that hurts its class: ``n x D``.

    Projected gradient ascent on the smoothed loss; each step follows fresh noise.
    """
    nominal = {k: p.detach() for k, p in analog_parameters(model).items()}
    sizes = [p.numel() for p in nominal.values()]
    generator = torch.Generator().manual_seed(1)

    def weights(log_gain: Tensor) -> dict[str, Tensor]:
        pieces = log_gain.split(sizes)
        return {
            k: w * piece.exp().reshape(w.shape)
            for (k, w), piece in zip(nominal.items(), pieces, strict=True)
        }

    def loss(delta: Tensor, noise: Tensor, one: Tensor, own: Tensor) -> Tensor:
        out = vmap(lambda e: functional_call(model, weights(delta + e), (one[None],))[0])(noise)
        lead = (out * own).sum(1)
        others = (out - 1e6 * own).amax(1)
        return torch.sigmoid(2 * (others - lead)).mean()

    uphill = vmap(grad(loss))
    delta = torch.zeros(len(x), sum(sizes))
    for _ in range(steps):
        noise = SIGMA * torch.randn(len(x), draws, sum(sizes), generator=generator)
        g = uphill(delta, noise, x, F.one_hot(classes, 10).float())
        delta = delta + 0.3 * radii[:, None] * F.normalize(g, dim=1)
        # On the sphere: a longer shift never helps the class in the bound.
        delta = F.normalize(delta, dim=1) * radii[:, None]
    return delta


def kept(model: nn.Module, x: Tensor, classes: Tensor, delta: Tensor, draws: int) -> np.ndarray:
    """Estimate, for each input, the probability of its class after its own shift."""
    nominal = {k: p.detach() for k, p in analog_parameters(model).items()}
    generator = torch.Generator().manual_seed(2)
    out = np.empty(len(x))
    for i, (one, c, shift) in enumerate(zip(x, classes, delta, strict=True)):
        noise = SIGMA * torch.randn(draws, len(shift), generator=generator) + shift
        pieces = noise.exp().split([p.numel() for p in nominal.values()], 1)
        stacked = {
            k: w * piece.reshape(draws, *w.shape)
            for (k, w), piece in zip(nominal.items(), pieces, strict=True)
        }
        given = fleet_forward(model, stacked, one[None])[:, 0].argmax(-1)
        out[i] = float((given == c).double().mean())
    return out


@pytest.mark.slow
@pytest.mark.parametrize("make", [mlp, conv])
def test_gradient_attack_at_the_certified_radius_leaves_the_majority(make: object) -> None:
    train, validation = task("digits").development(0)
    x = validation.x.reshape(len(validation.x), 8, 8)
    model = trained(make(), train.x.reshape(-1, 8, 8), train.y)  # type: ignore[operator]
    certificate = drift_certificate(poll(model, (x, None), Law(sigma=SIGMA), n_devices=1000))
    certified = [i for i, r in enumerate(certificate.radii) if r is not None][:220]
    assert len(certified) >= 200
    classes = torch.tensor(certificate.classes)[certified]
    radii = SIGMA * torch.tensor([certificate.radii[i] for i in certified])
    draws = 1000
    delta = attacked(model, x[certified], classes, radii.float())
    after = kept(model, x[certified], classes, delta, draws)
    error = math.sqrt(0.25 / draws)
    assert after.min() >= 0.5 - 3 * error
    # The attack is no straw man: it costs real probability, and beyond the radius it takes the majority.
    assert (after < 0.95).mean() > 0.2
    beyond = kept(model, x[certified], classes, 3 * delta, draws)
    assert (beyond < 0.5).mean() > 0.2


@pytest.mark.slow
def test_5000_devices_of_the_digits_mlp_take_less_than_10_cpu_seconds() -> None:
    found = task("digits")
    model = analogize(found.model("mlp", seed=0).eval(), HARD)
    test = found.test(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.process_time()
        drift_certificate(poll(model, (test.x, test.y), HARD, n_devices=5000))
        spent = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    assert spent < 10
