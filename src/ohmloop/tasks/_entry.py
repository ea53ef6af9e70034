"""What a module of tasks declares: data, networks, metric. `ohmloop.tasks.task` makes a `Task` of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmloop.tasks._metric import Accuracy, Metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Measure = Callable[["nn.Module"], float | Mapping[str, float]]
"""Scores the network as it stands by doing something: drives, decodes, detects. It returns the score, or
several figures by name, always the same ones, the score first."""


class Data(NamedTuple):
    """One part of a data set.

    Attributes:
        x: Inputs ``n x ...``: float32, or uint8 or int64 if the networks take those.
        y: Targets ``n x ...``: int64 classes or tokens, or float32 values.
        groups: ``n`` int64 numbers of what must not be torn apart (a track, a recording, a block of
            time), or None. Validation data are whole groups.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[np.int64] | None = None


class Source(NamedTuple):
    """A data set in its two fixed parts; the test part is opened by evaluation only."""

    development: Data
    test: Data


@dataclass(frozen=True)
class Entry:
    """One task.

    Attributes:
        description: What the inputs are and what is asked, for a person.
        citation: Source and licence of data and pretrained weights.
        n_classes: Outputs of the network.
        input_shape: Shape of one input.
        default_model: Name of the reference network.
        load: From the data folder (None for data that a package brings) to the data.
        data: Name of the data set in `ohmloop.tasks._fetch`, None if no folder is needed.
        scaling: "images": one mean and deviation of all training pixels; "features": one for each
            feature; "none": the network takes the inputs as they are.
        models: Names of networks beside those that fit by shape (`build_model`).
        build: From (name, seed, data folder) to a network; None if `build_model` serves.
        metric: How outputs are trained and scored.
        augment: From a training batch ``B x ...`` and a generator to its randomly changed copy.
        measure: From the data folder to what scores a network by doing, where outputs alone cannot.
        adapt: From this entry and the data folder to the entry as it is for that folder, where the number of
            classes or the shape of inputs depends on it; None for fixed data sets.
        pretrained: Names of networks that come trained for the very task: plain training goes on from
            there, and a teacher needs no training of its own.
        epochs: Of one training, unless the user says otherwise.
        batch_size: Inputs a step.
        lr: Largest learning rate of Adam; pretrained networks are tuned with a small one.
    """

    description: str
    citation: str
    n_classes: int
    input_shape: tuple[int, ...]
    default_model: str
    load: Callable[[Path | None], Source]
    data: str | None = None
    scaling: Literal["images", "features", "none"] = "images"
    models: tuple[str, ...] = ()
    build: Callable[[str, int, Path | None], nn.Module] | None = None
    metric: Metric = field(default_factory=Accuracy)
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    measure: Callable[[Path | None], Measure] | None = None
    adapt: Callable[[Entry, Path | None], Entry] | None = None
    pretrained: tuple[str, ...] = ()
    epochs: int = 60
    batch_size: int = 64
    lr: float = 3e-3
