"""One step of a training, its loss and its gradient, against formulas that are worked out by hand."""

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.crossbar import Hardware
from ohmloop.nn import analogize
from ohmloop.tasks import Accuracy, Metric, RSquared, Split, task
from ohmloop.train import Lesson, Noise, Recipe, fit, parse_method, train_once
from ohmloop.train._loop import Training

Floats = NDArray[np.float64]
X = torch.tensor([[1.0, -0.5], [0.3, 2.0], [-1.2, 0.7], [0.4, 0.1]], dtype=torch.float64)
CLASSES = torch.tensor([0, 2, 1, 2])
VALUES = torch.tensor([[0.2, -1.0, 0.5], [1.5, 0.3, 0.0], [-0.7, 0.9, 2.0], [0.1, 0.1, -0.4]])


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(seed: int = 0) -> nn.Module:
    """Two inputs, three outputs, in double precision."""
    model = nn.Linear(2, 3, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=gen(seed), dtype=p.dtype))
    return analogize(model, Hardware(device="lognormal:0.1"))


def one_step(
    model: nn.Module, noise: Noise, split: Split, metric: Metric, teacher: nn.Module | None = None
) -> float:
    """Return the loss of a step over all data that moves no weight; its gradients stay in the model."""
    before = copy.deepcopy(model.state_dict())
    lesson = Lesson(split, split, metric, teacher)
    history = train_once(model, lesson, noise, Recipe(1, len(split.x), 0.0, 0))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    return history[0]["loss"]


def softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("passes", "factor"),
    [
        (0, 1.0),
        (1, (1 + (3 / 2) ** 2 / 2) / (1 + 1 / 2)),
        (2, (1 + (3 / 2) ** 2 / 2 + 2**2 / 4) / (1 + 1 / 2 + 1 / 4)),
        (3, (1 + (3 / 2) ** 2 / 2 + 2**2 / 4 + (5 / 2) ** 2 / 8) / (1 + 1 / 2 + 1 / 4 + 1 / 8)),
    ],
)
def test_feedback_has_the_expected_loss_of_its_published_levels_and_weights(
    passes: int, factor: float
) -> None:
    """Weights and inputs of one, targets met without noise: a pass at level l has the loss l^2 in the mean."""
    n, level = 200_000, 0.3
    model = nn.Linear(1, n, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    analogize(model, Hardware(device="lognormal:0.1"))
    ones = Split(torch.ones(2, 1, dtype=torch.float64), torch.ones(2, n, dtype=torch.float64))
    found = one_step(model, Noise(level=level, feedback=passes), ones, RSquared())
    # Of n squares of normal numbers, in each pass at most; the passes are independent.
    deviation = level**2 * factor * (2 / n) ** 0.5
    assert found == pytest.approx(level**2 * factor, abs=5 * deviation)


@pytest.mark.parametrize(("ramp", "scale"), [(0.0, 1.0), (1.0, 0.25)])
def test_feedback_is_the_weighted_mean_of_passes_at_rising_levels(
    ramp: float, scale: float
) -> None:
    level, passes = 0.4, 2
    noise = parse_method(f"negative-feedback:level={level},passes={passes}").noise(1)
    assert noise == Noise(level=level, feedback=passes)
    assert noise.passes == 1 + passes
    noise = noise.model_copy(update={"ramp": ramp})
    model, split = linear(), Split(X, CLASSES)
    training = Training(model, Lesson(split, split), noise, Recipe(4, len(X), 0.0, 5))
    generator = torch.Generator()
    generator.set_state(training.random.get_state())
    loss = training.epoch(0)

    w, b = (p.detach().numpy() for p in model.parameters())
    x, hot = X.numpy(), np.eye(3)[CLASSES.numpy()]
    expected, in_w, in_b = 0.0, np.zeros((3, 2)), np.zeros(3)
    for own, weight in ((level, 4 / 7), (1.5 * level, 2 / 7), (2 * level, 1 / 7)):
        factors = [
            1 + own * scale * torch.randn(p.shape, generator=generator, dtype=p.dtype).numpy()
            for p in (model.weight, model.bias)
        ]
        p = softmax(x @ (w * factors[0]).T + b * factors[1])
        expected += weight * float(np.mean(-np.log((p * hot).sum(1))))
        in_w += weight * ((p - hot).T @ x) * factors[0] / len(x)
        in_b += weight * (p - hot).mean(0) * factors[1]
    assert loss == pytest.approx(expected, rel=1e-6)
    assert model.weight.grad.numpy() == pytest.approx(in_w, abs=1e-12)
    assert model.bias.grad.numpy() == pytest.approx(in_b, abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_distillation_of_classes_is_cross_entropy_and_divergence_from_the_teacher(
    share: float,
) -> None:
    """At a temperature of one: (1 - a) CE(student, classes) + a KL(teacher || student), means over inputs."""
    model, teacher = linear(1), linear(2)
    loss = one_step(model, Noise(distill=share), Split(X, CLASSES), Accuracy(), teacher)
    out, taught = model(X).detach(), teacher(X).detach()
    own = F.cross_entropy(out, CLASSES)
    far = F.kl_div(out.log_softmax(1), taught.softmax(1), reduction="batchmean")
    assert loss == pytest.approx(float((1 - share) * own + share * far), rel=1e-6)
    # d/d out of both terms: softmax(out) less the classes, or less softmax(taught).
    wanted = (1 - share) * F.one_hot(CLASSES, 3) + share * taught.softmax(1)
    slope = (out.softmax(1) - wanted) / len(X)
    assert torch.allclose(model.weight.grad, slope.T @ X, atol=1e-12)
    assert torch.allclose(model.bias.grad, slope.sum(0), atol=1e-12)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_distillation_of_values_is_the_squared_difference_from_the_teacher(share: float) -> None:
    model, teacher, y = linear(1), linear(2), VALUES.double()
    loss = one_step(model, Noise(distill=share), Split(X, y), RSquared(), teacher)
    out, taught = model(X).detach(), teacher(X).detach()
    expected = (1 - share) * (out - y).square().mean() + share * (out - taught).square().mean()
    assert loss == pytest.approx(float(expected), rel=1e-6)
    slope = 2 * (out - (1 - share) * y - share * taught) / out.numel()
    assert torch.allclose(model.weight.grad, slope.T @ X, atol=1e-12)
    assert torch.allclose(model.bias.grad, slope.sum(0), atol=1e-12)


def test_the_student_is_noisy_and_its_teacher_is_not() -> None:
    noise = parse_method("distillation:level=0.5,weight=0.6").noise(1)
    assert noise == Noise(level=0.5, distill=0.6)
    model, teacher, split = linear(1), linear(2), Split(X, CLASSES)
    training = Training(
        model, Lesson(split, split, teacher=teacher), noise, Recipe(1, len(X), 0.0, 5)
    )
    generator = torch.Generator()
    generator.set_state(training.random.get_state())
    loss = training.epoch(0)
    drawn: list[Tensor] = [
        p.detach() * (1 + 0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for p in model.parameters()
    ]
    out, taught = F.linear(X, *drawn), teacher(X).detach()
    far = F.kl_div(out.log_softmax(1), taught.softmax(1), reduction="batchmean")
    expected = 0.4 * F.cross_entropy(out, CLASSES) + 0.6 * far
    assert loss == pytest.approx(float(expected), rel=1e-6)


def test_a_student_without_noise_that_only_imitates_stays_its_teacher() -> None:
    args = {"epochs": 4, "limit": 200}
    taught = fit(task("digits"), "distillation:level=0,weight=1", **args)
    plain = fit(task("digits"), "erm", **args)
    assert taught.cost == plain.cost + 1
    # Not nothing at all: Adam makes whole steps of gradients that are only rounding.
    assert max(entry["loss"] for entry in taught.history) < 0.02
    assert min(entry["loss"] for entry in plain.history) > 1
    x = task("digits").development(0, 200)[1].x
    a, b = (run.model(x).softmax(-1) for run in (taught, plain))
    assert float((a - b).detach().abs().max()) < 0.05


def test_feedback_without_noise_is_plain_training() -> None:
    model, split = linear(), Split(X, CLASSES)
    loss = one_step(model, Noise(feedback=3), split, Accuracy())
    assert loss == pytest.approx(float(F.cross_entropy(model(X), CLASSES).detach()), rel=1e-6)
    assert math.isfinite(loss)
