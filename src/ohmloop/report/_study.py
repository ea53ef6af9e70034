"""What a comparison report shows: devices, methods, and accuracies measured on virtual fleets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ohmloop.device import DeviceModel


@dataclass(frozen=True, eq=False)
class MethodResult:
    """How networks trained by one method fare on simulated devices.

    Attributes:
        method: Name and settings in words a person reads ("weight-noise, level 0.5").
        cost: Training cost in multiples of one plain training.
        clean: ``n_seeds`` test accuracies of the digital networks, in [0, 1].
        sweep: ``n_sigmas x n_seeds x n_devices`` test accuracies under the log-normal law.
        on_devices: ``n_models x n_seeds x n_devices`` test accuracies under each device model's
            own law (noise and level table).
        seconds: Wall time of all trainings.
        settings: The settings each seed ended with, in words; one entry a seed.
    """

    method: str
    cost: float
    clean: NDArray[np.float64]
    sweep: NDArray[np.float64]
    on_devices: NDArray[np.float64]
    seconds: float
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Study:
    """A comparison of training methods on measured devices, ready to be shown.

    Attributes:
        task: Task name and what it is, for a person.
        model: Architecture, for a person ("MLP 64-100-100-10").
        epochs: Epochs of one training.
        seeds: Training seeds.
        n_devices: Virtual devices per law and seed.
        sigmas: ``n_sigmas`` log-normal levels of the sweep.
        devices: The measured device models, in the order of ``MethodResult.on_devices``.
        best: Index of the device with the highest published usability.
        median: Index of the device whose sigma is the median (lower of two) of all.
        results: One entry a method, plain training first.
        chance: Accuracy of the best constant answer on the test set.
        split_sizes: Numbers of training, validation and test samples.
        provenance: (what, value) pairs: versions, hashes, wall times.
    """

    task: str
    model: str
    epochs: int
    seeds: tuple[int, ...]
    n_devices: int
    sigmas: tuple[float, ...]
    devices: tuple[DeviceModel, ...]
    best: int
    median: int
    results: tuple[MethodResult, ...]
    chance: float
    split_sizes: tuple[int, int, int]
    provenance: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Agreement:
    """Rank agreement of several predictors with accuracies that somebody else published.

    Attributes:
        n: Number of devices with a published accuracy.
        spearman: Predictor in words -> Spearman rank correlation, in [-1, 1].
    """

    n: int
    spearman: dict[str, float]


def agreement(study: Study) -> Agreement | None:
    """Compare each predictor of device quality with the published LeNet / MNIST accuracies.

    Returns:
        None where fewer than three devices carry a published accuracy (own measurements), or
        where one of the two sides does not vary.
    """
    from scipy.stats import spearmanr

    index = [
        i
        for i, d in enumerate(study.devices)
        if d.published.get("lenet_mnist_accuracy") is not None
    ]
    if len(index) < 3:
        return None
    published = np.array([study.devices[i].published["lenet_mnist_accuracy"] for i in index])
    predictors = {
        "minus sigma": np.array([-study.devices[i].sigma.value for i in index]),
    }
    for key in ("usability", "monotonicity"):
        values = [study.devices[i].figures.get(key) for i in index]
        if all(isinstance(value, int | float) for value in values):
            predictors[key] = np.array(values, dtype=float)
    for result in study.results:
        predictors[f"simulated accuracy, {result.method}"] = result.on_devices[index].mean(
            axis=(1, 2)
        )
    varying = {name: x for name, x in predictors.items() if np.ptp(x) > 0}
    if np.ptp(published) == 0 or not varying:
        return None
    return Agreement(
        n=len(index),
        spearman={name: float(spearmanr(x, published).statistic) for name, x in varying.items()},
    )


def choose_devices(devices: tuple[DeviceModel, ...]) -> tuple[int, int]:
    """Return the indices of the best device (usability) and of the median one (sigma).

    A device without a usability counts as zero; ties go to the first.
    """

    def usability(device: DeviceModel) -> float:
        value = device.figures.get("usability")
        return float(value) if isinstance(value, int | float) else 0.0

    best = max(range(len(devices)), key=lambda i: (usability(devices[i]), -i))
    order = sorted(range(len(devices)), key=lambda i: (devices[i].sigma.value, i))
    return best, order[(len(order) - 1) // 2]
